//! `daitn policy`: who may do what, for which purpose.

use super::{App, entity, jurisdiction, parsed};
use crate::{
    failure::{Ending, Exit, Failure},
    files::read_text,
    output::Shown,
    paint::Paint,
    views::{Answered, Done},
};
use clap::{Args, Subcommand};
use daitn_messages::{
    ids::{EntityId, EntityKind, OrganisationId},
    operation::Operation,
    policy::{PolicyAnswer, PolicyQuestion, UseContext, Verb},
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The domain's policy
    Get,
    /// Replace the domain's policy
    Set {
        /// A file in Cedar
        file: PathBuf,
        /// Mean it
        #[arg(long)]
        yes: bool,
    },
    /// Check a policy file on this machine and, given --who, --verb and --what, ask it
    Test(TestArguments),
    /// May somebody do something? Asks the network: the owner's policy and the domain's
    Can {
        /// The organisation that wants to do it
        who: OrganisationId,
        /// train, evaluate, discover, serve or query
        #[arg(value_parser = verb)]
        verb: Verb,
        /// With which entity: `dataset:st-mary/digits`; to train, or to query a model, `st-mary/digits` is enough
        what: String,
        #[command(flatten)]
        circumstances: Circumstances,
    },
}

/// A policy on this machine.
#[derive(Debug, Args)]
pub(crate) struct TestArguments {
    /// A file in Cedar
    file: PathBuf,
    /// The organisation that wants to do it
    #[arg(long, requires = "what", value_name = "NAME")]
    who: Option<OrganisationId>,
    /// What it wants to do
    #[arg(long, default_value = "train", value_parser = verb)]
    verb: Verb,
    /// With which entity
    #[arg(long, requires = "who", value_name = "ENTITY")]
    what: Option<EntityId>,
    /// The law that the entity is under
    #[arg(long, default_value = "DE", value_name = "CODE", value_parser = jurisdiction)]
    under: String,
    #[command(flatten)]
    circumstances: Circumstances,
}

/// The circumstances of a use.
#[derive(Debug, Args)]
#[command(next_help_heading = "Circumstances")]
pub(crate) struct Circumstances {
    /// What for
    #[arg(long, default_value = "research", value_name = "WORD")]
    purpose: String,
    /// A strategy, or `itinerary`
    #[arg(long, default_value = "fed-avg", value_name = "NAME")]
    algorithm: String,
    /// Protections in force
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    protections: Vec<String>,
    /// How many organisations besides the one that asks have work in every round; 1 where the model travels
    #[arg(long, default_value_t = 1, value_name = "N")]
    cohort: u32,
    /// The requester's jurisdiction
    #[arg(long, default_value = "DE", value_name = "CODE", value_parser = jurisdiction)]
    jurisdiction: String,
    /// Organisations that will receive the updates; without it the one that asks
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    recipients: Vec<OrganisationId>,
}

impl Circumstances {
    fn question(self, who: OrganisationId, verb: Verb, what: EntityId) -> PolicyQuestion {
        let (mut protections, mut recipients) = (self.protections, self.recipients);
        protections.sort_unstable();
        if recipients.is_empty() {
            recipients.push(who.clone());
        }
        recipients.sort_unstable();
        let context = UseContext {
            purpose: self.purpose,
            algorithm: self.algorithm,
            protections,
            cohort: self.cohort,
            jurisdiction: self.jurisdiction,
            recipients,
        };
        PolicyQuestion {
            who,
            verb,
            what,
            context,
        }
    }
}

/// What is named; the verb may say of which kind it is.
fn named(verb: Verb, what: &str) -> Result<EntityId, Failure> {
    match verb {
        Verb::Train => entity(what, EntityKind::Dataset),
        Verb::Query => entity(what, EntityKind::Model),
        _ => parsed(what),
    }
}

fn verb(text: &str) -> Result<Verb, String> {
    Verb::ALL
        .into_iter()
        .find(|verb| verb.as_str() == text)
        .ok_or_else(|| "expected train, evaluate, discover, serve or query".to_owned())
}

/// Runs it.
pub(crate) async fn run(app: &App, command: Command) -> Ending {
    match command {
        Command::Get => {
            let text: PolicyText = app.client()?.ask(&Operation::GetPolicy).await?;
            if text.policy.trim().is_empty() {
                app.output.say(
                    "The domain has no policy of its own: owners decide alone. Set one: daitn policy set FILE --yes",
                );
            }
            app.output.show(&text)?;
            Ok(Exit::Done)
        }
        Command::Set { file, yes } => {
            super::confirmed(
                yes,
                "the domain's policy is replaced; the one in force is shown by `daitn policy get`",
            )?;
            let policy = read_text(&file)?;
            let _: serde_json::Value = app.client()?.ask(&Operation::SetPolicy(policy)).await?;
            app.output.show(&Done::new("in force", &file.display()))?;
            Ok(Exit::Done)
        }
        Command::Test(arguments) => test(app, arguments),
        Command::Can {
            who,
            verb,
            what,
            circumstances,
        } => {
            let question = circumstances.question(who, verb, named(verb, &what)?);
            let answer: PolicyAnswer = app.client()?.ask(&Operation::Can(question.clone())).await?;
            answered(app, &question, answer)
        }
    }
}

fn test(app: &App, arguments: TestArguments) -> Ending {
    let text = read_text(&arguments.file)?;
    let policies = daitn_policy::PolicySet::parse(&text).map_err(|error| {
        let path = arguments.file.display();
        Failure {
            exit: Exit::Usage,
            ..Failure::new(
                daitn_messages::rejection::Code::PolicyInvalid,
                format!("{path}: {error}"),
            )
        }
    })?;
    let (Some(who), Some(what)) = (arguments.who, arguments.what) else {
        app.output
            .show(&Done::new("is a valid policy", &arguments.file.display()))?;
        return Ok(Exit::Done);
    };
    let facts = daitn_policy::ResourceFacts::new(&what, &arguments.under);
    let question = arguments.circumstances.question(who, arguments.verb, what);
    answered(app, &question, policies.answer(&question, &facts))
}

fn answered(app: &App, question: &PolicyQuestion, answer: PolicyAnswer) -> Ending {
    let exit = if answer.allowed { Exit::Done } else { Exit::Refused };
    let PolicyQuestion { who, verb, what, .. } = question;
    app.output.show(&Answered::new(answer, who, *verb, what))?;
    Ok(exit)
}

#[derive(Serialize, Deserialize)]
struct PolicyText {
    policy: String,
}

impl Shown for PolicyText {
    fn human(&self, _: Paint, _: bool) -> String {
        self.policy.trim_end().to_owned()
    }
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}
