//! `daitn policy`: who may do what, for which purpose.

use super::{App, entity, jurisdiction, parsed};
use crate::{
    failure::{Ending, Exit, Failure},
    files::{absolute, read_text},
    output::Shown,
    paint::Paint,
    views::{Answered, Done},
};
use clap::{Args, Subcommand};
use daitn_messages::{
    ids::{EntityId, EntityKind, OrganisationId},
    operation::Operation,
    policy::{PolicyAnswer, PolicyQuestion, UseContext, Verb},
    rejection::{Code, Rejection},
};
use daitn_terminals::{TerminalOptions, load_terminal};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What a policy sees as `context.algorithm`: how updates are combined, or that the model travels.
const ALGORITHMS: [&str; 8] = [
    "fed-avg",
    "fed-prox",
    "fed-avg-m",
    "fed-adagrad",
    "fed-adam",
    "fed-yogi",
    "scaffold",
    "itinerary",
];

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
        /// With which entity: `dataset:st-mary/digits`; `st-mary/digits` is enough where the verb says of which kind
        what: String,
        #[command(flatten)]
        circumstances: Circumstances,
    },
}

/// A policy on this machine.
#[derive(Debug, Args)]
pub(crate) struct TestArguments {
    /// A file in Cedar, or the description of a dataset (TOML) that holds or names one
    file: PathBuf,
    /// The organisation that wants to do it
    #[arg(long, requires = "what", value_name = "NAME")]
    who: Option<OrganisationId>,
    /// What it wants to do
    #[arg(long, default_value = "train", value_parser = verb)]
    verb: Verb,
    /// With which entity
    #[arg(long, requires = "who", value_name = "ENTITY")]
    what: Option<String>,
    /// The law that the entity is under; without it that of the description, else DE
    #[arg(long, value_name = "CODE", value_parser = jurisdiction)]
    under: Option<String>,
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
    /// A strategy, or `itinerary` where weights go from site to site
    #[arg(long, default_value = "fed-avg", value_name = "NAME", value_parser = ALGORITHMS)]
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
    match EntityKind::ALL.into_iter().find(|kind| verb.fits(*kind)) {
        Some(kind) if verb != Verb::Discover => entity(what, kind),
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
    let (text, under) = policy_of(&arguments.file)?;
    let policies = daitn_policy::PolicySet::parse(&text).map_err(|error| {
        let message = format!("{}: in the policy, {error}", arguments.file.display());
        let rejection = Rejection::new(Code::PolicyInvalid, message).with_hint(error.remedy());
        Failure::from(rejection).into_usage()
    })?;
    let (Some(who), Some(what)) = (arguments.who, arguments.what) else {
        app.output
            .show(&Done::new("is a valid policy", &arguments.file.display()))?;
        return Ok(Exit::Done);
    };
    let what = named(arguments.verb, &what)?;
    let under = arguments.under.or(under).unwrap_or_else(|| "DE".to_owned());
    let facts = daitn_policy::ResourceFacts::new(&what, &under);
    let question = arguments.circumstances.question(who, arguments.verb, what);
    question
        .validate()
        .map_err(|rejection| Failure::from(rejection).into_usage())?;
    answered(app, &question, policies.answer(&question, &facts))
}

/// The policy in a file and, where the file is a dataset's description, the law that this is under.
fn policy_of(file: &Path) -> Result<(String, Option<String>), Failure> {
    if file.extension().is_none_or(|extension| extension != "toml") {
        return Ok((read_text(file)?, None));
    }
    let options = load_terminal(&absolute(file)?).map_err(|error| Failure::usage(error.to_string()))?;
    let TerminalOptions::Dataset(dataset) = options else {
        let message = format!("describes a {}, which has no policy of its own", options.kind());
        return Err(Failure::file(file, message));
    };
    let text = match (dataset.policy, dataset.policy_file) {
        (Some(text), _) => text,
        (None, Some(path)) => read_text(&path)?,
        (None, None) => return Err(Failure::file(file, "has neither `policy` nor `policy_file`")),
    };
    Ok((text, Some(dataset.jurisdiction)))
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
