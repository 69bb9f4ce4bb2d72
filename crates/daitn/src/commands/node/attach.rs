//! `daitn node attach` and `detach`: terminals other than datasets and agents, which have commands of their own.

use super::super::{App, confirmed, jurisdiction};
use crate::{
    failure::{Ending, Exit, Failure},
    files::absolute,
    terminal,
};
use clap::Args;
use daitn_messages::ids::{EntityKind, Slug};
use daitn_terminals::{
    AggregatorOptions, ByteSize, ComputeOptions, HostOptions, TerminalOptions, VerifierOptions,
};
use std::path::PathBuf;

/// What to attach.
#[derive(Debug, Args)]
pub(crate) struct AttachArguments {
    /// aggregator, verifier, model-host or compute
    #[arg(value_parser = kind)]
    kind: EntityKind,
    /// Its name within the organisation
    name: Slug,
    /// The node's directory
    #[arg(long, value_name = "DIRECTORY")]
    node_dir: PathBuf,
    /// ISO 3166-1 alpha-2 code of the law that it is under
    #[arg(long, value_name = "CODE", value_parser = jurisdiction)]
    jurisdiction: String,
    /// What it is, for people; without it its name
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Memory of a model-host or compute facility
    #[arg(long, default_value = "1GiB", value_name = "SIZE")]
    memory: ByteSize,
    /// Disk of an aggregator for the updates of one round
    #[arg(long, default_value = "10GiB", value_name = "SIZE")]
    storage: ByteSize,
    /// The hold-out of a verifier: CSV or Parquet; never told to anybody
    #[arg(long, value_name = "FILE", required_if_eq("kind", "verifier"))]
    path: Option<PathBuf>,
    /// The column whose truth the verifier's hold-out has
    #[arg(long, value_name = "COLUMN", required_if_eq("kind", "verifier"))]
    target: Option<String>,
    /// Labels of the hold-out, also such as do not occur in it
    #[arg(long, value_delimiter = ',', value_name = "LABEL")]
    classes: Vec<String>,
}

/// What to detach.
#[derive(Debug, Args)]
pub(crate) struct DetachArguments {
    /// aggregator, verifier, model-host or compute
    #[arg(value_parser = kind)]
    kind: EntityKind,
    /// Its name within the organisation
    name: Slug,
    /// The node's directory
    #[arg(long, value_name = "DIRECTORY")]
    node_dir: PathBuf,
    /// Mean it
    #[arg(long)]
    yes: bool,
}

fn kind(text: &str) -> Result<EntityKind, String> {
    [EntityKind::Aggregator, EntityKind::Verifier, EntityKind::ModelHost, EntityKind::Compute]
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| {
            "expected aggregator, verifier, model-host or compute (datasets: daitn data publish, agents: daitn agent \
             register)"
                .to_owned()
        })
}

/// Attaches.
pub(super) async fn attach(app: &App, arguments: AttachArguments) -> Ending {
    let node = arguments.node_dir.clone();
    let published = terminal::publish(&node, &options(arguments)?).await?;
    app.output.show(&published)?;
    Ok(Exit::Done)
}

/// Detaches.
pub(super) async fn detach(app: &App, arguments: DetachArguments) -> Ending {
    confirmed(
        arguments.yes,
        &format!(
            "detaching {} {} withdraws it from the network until it is attached again",
            arguments.kind, arguments.name
        ),
    )?;
    let withdrawn = terminal::withdraw(&arguments.node_dir, arguments.kind, &arguments.name).await?;
    app.output.show(&withdrawn)?;
    Ok(Exit::Done)
}

fn options(a: AttachArguments) -> Result<TerminalOptions, Failure> {
    let title = a.title.unwrap_or_else(|| a.name.to_string());
    let (name, jurisdiction, description) = (a.name, a.jurisdiction, String::new());
    Ok(match a.kind {
        EntityKind::Aggregator => TerminalOptions::Aggregator(AggregatorOptions {
            name,
            title,
            description,
            jurisdiction,
            storage: a.storage,
            price_micros_per_gb: 0,
        }),
        EntityKind::ModelHost => TerminalOptions::ModelHost(HostOptions {
            name,
            title,
            description,
            jurisdiction,
            memory: a.memory,
            price_micros_per_thousand: 0,
        }),
        EntityKind::Compute => TerminalOptions::Compute(ComputeOptions {
            name,
            title,
            description,
            jurisdiction,
            memory: a.memory,
            price_micros_per_hour: 0,
        }),
        _ => {
            let path = a
                .path
                .ok_or_else(|| Failure::usage("a verifier needs its hold-out: --path FILE"))?;
            let target = a
                .target
                .ok_or_else(|| Failure::usage("a verifier needs --target COLUMN"))?;
            TerminalOptions::Verifier(VerifierOptions {
                name,
                title,
                description,
                jurisdiction,
                path: absolute(&path)?,
                features: Vec::new(),
                target,
                task: None,
                classes: a.classes,
            })
        }
    })
}
