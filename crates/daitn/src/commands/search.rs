//! `daitn search`: finds any entity by text, kind and structure.

use super::{App, jurisdiction, token::kind};
use crate::{
    failure::{Ending, Exit},
    views::Hits,
};
use clap::Args;
use daitn_messages::{
    ids::{EntityKind, OrganisationId},
    operation::{Operation, SearchAnswer},
    request::Search,
};

/// What to look for. All conditions must hold.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Words in titles, descriptions, names, skills and columns
    query: Vec<String>,
    /// Only this kind: dataset, compute, model, model-host, verifier, aggregator, agent
    #[arg(long, value_parser = kind)]
    kind: Option<EntityKind>,
    /// Only these organisations
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    organisation: Vec<OrganisationId>,
    /// Only these jurisdictions
    #[arg(long, value_delimiter = ',', value_name = "CODE", value_parser = jurisdiction)]
    jurisdiction: Vec<String>,
    /// Datasets and verifiers that have all these columns
    #[arg(long, value_delimiter = ',', value_name = "COLUMN")]
    feature: Vec<String>,
    /// Datasets and verifiers that can predict this column
    #[arg(long, value_name = "COLUMN")]
    target: Option<String>,
    /// Agents that have this skill
    #[arg(long, value_name = "ID")]
    skill: Option<String>,
    /// Datasets of at least this many records
    #[arg(long, default_value_t = 0, value_name = "N")]
    records_min: u64,
    /// At most this many answers
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Skip this many
    #[arg(long, default_value_t = 0, value_name = "N")]
    offset: u32,
}

/// Runs it.
pub(crate) async fn run(app: &App, arguments: Arguments) -> Ending {
    let search = Search {
        text: arguments.query.join(" "),
        kind: arguments.kind,
        organisations: arguments.organisation,
        jurisdictions: arguments.jurisdiction,
        features: arguments.feature,
        target: arguments.target,
        skill: arguments.skill,
        records_min: arguments.records_min,
        limit: arguments.limit,
        offset: arguments.offset,
    };
    let answer: SearchAnswer = app.client()?.ask(&Operation::Search(search)).await?;
    if answer.total > answer.hits.len() as u64 {
        app.output.say(format!(
            "{} of {} are shown: --limit and --offset show more.",
            answer.hits.len(),
            answer.total
        ));
    }
    app.output.show(&Hits(answer.hits))?;
    Ok(Exit::Done)
}
