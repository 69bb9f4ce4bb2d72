//! The commands, one file for each noun. A command reads its arguments, asks the network through the client, and hands
//! a view to the output; it holds no logic of the network.

pub(crate) mod agent;
pub(crate) mod completion;
pub(crate) mod context;
pub(crate) mod data;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod help;
pub(crate) mod job;
pub(crate) mod key;
pub(crate) mod model;
pub(crate) mod node;
pub(crate) mod policy;
pub(crate) mod search;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod up;

use crate::{
    cli::{Cli, Command, Global},
    client::Client,
    context::{Context, Contexts},
    failure::{Ending, Failure},
    output::Output,
};
use daitn_messages::{
    ids::{EntityId, EntityKind, OrganisationId},
    operation::{Operation, SearchAnswer},
    request::{Hit, Search},
    units::UnixMillis,
};

/// What a command works with.
pub(crate) struct App {
    /// What every command takes.
    pub(crate) global: Global,
    /// Where it writes.
    pub(crate) output: Output,
}

impl App {
    /// A client of the domain that is asked for.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let timeout = self.global.timeout.0;
        if let Some(url) = &self.global.url {
            let api_key = Contexts::load()
                .ok()
                .and_then(|contexts| contexts.contexts.into_values().find(|c| &c.url == url)?.api_key);
            let context = Context {
                url: url.clone(),
                api_key,
                ca_file: None,
            };
            return Client::new(&context, timeout);
        }
        let contexts = Contexts::load()?;
        Client::new(contexts.get(self.global.context.as_deref())?.1, timeout)
    }
}

/// Runs a command.
pub(crate) async fn run(cli: Cli, output: Output) -> Ending {
    let app = App {
        global: cli.global,
        output,
    };
    match cli.command {
        Command::Demo(arguments) => crate::demo::run(&arguments, output).await,
        Command::Up(arguments) => up::run(&app, *arguments).await,
        Command::DemoAgent(arguments) => crate::demo::reader::run(&arguments, output).await,
        Command::Doctor(arguments) => doctor::run(&app, arguments).await,
        Command::Token(command) => token::run(&app, command).await,
        Command::Key(command) => key::run(&app, command).await,
        Command::Node(command) => node::run(&app, command).await,
        Command::Data(command) => data::run(&app, command).await,
        Command::Agent(command) => agent::run(&app, command).await,
        Command::Job(command) => job::run(&app, command).await,
        Command::Model(command) => model::run(&app, command).await,
        Command::Search(arguments) => search::run(&app, arguments).await,
        Command::Policy(command) => policy::run(&app, command).await,
        Command::Explain(arguments) => explain::run(&app, &arguments).await,
        Command::Status(arguments) => status::run(&app, &arguments).await,
        Command::Context(command) => context::run(&app, command).await,
        Command::Help(arguments) => help::run(&app, &arguments),
        Command::Completion(arguments) => completion::run(&arguments),
    }
}

/// The time of this machine: only for ages and expiry as people see them.
pub(crate) fn now() -> UnixMillis {
    let ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_millis());
    UnixMillis(u64::try_from(ms).unwrap_or(u64::MAX))
}

/// Refuses a verb that takes something away without `--yes`, and says what it would do: there is never a prompt.
pub(crate) fn confirmed(yes: bool, what: &str) -> Result<(), Failure> {
    if yes {
        Ok(())
    } else {
        Err(Failure::usage(format!("it needs --yes: {what}")).hint("Add --yes if you mean it."))
    }
}

/// A jurisdiction on the command line.
pub(crate) fn jurisdiction(text: &str) -> Result<String, String> {
    if daitn_messages::descriptor::is_jurisdiction(text) {
        Ok(text.to_owned())
    } else {
        Err("expected an ISO 3166-1 alpha-2 code such as DE".to_owned())
    }
}

/// Parses an id that the user gave.
pub(crate) fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, Failure>
where
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error: T::Err| Failure::usage(error.to_string()))
}

/// An entity named in full, or by `organisation/name` where the kind is known.
pub(crate) fn entity(text: &str, kind: EntityKind) -> Result<EntityId, Failure> {
    if text.contains(':') {
        return parsed(text);
    }
    let Some((organisation, name)) = text.split_once('/') else {
        let message = format!("`{text}` does not say whose it is: write `organisation/{text}`");
        return Err(Failure::usage(message).hint(format!("Find it with `daitn search --kind {kind}`.")));
    };
    Ok(EntityId {
        kind,
        organisation: parsed::<OrganisationId>(organisation)?,
        name: parsed(name)?,
    })
}

/// Every entity of a kind.
pub(crate) async fn all(client: &Client, kind: EntityKind) -> Result<Vec<Hit>, Failure> {
    /// As many as the API gives at once.
    const PAGE: u32 = 1_000;
    /// At most so many are listed: beyond it, search.
    const N_MAX: u32 = 100_000;
    let mut hits: Vec<Hit> = Vec::new();
    while hits.len() < N_MAX as usize {
        let offset = u32::try_from(hits.len()).unwrap_or(N_MAX);
        let search = Search {
            kind: Some(kind),
            limit: PAGE,
            offset,
            ..Search::default()
        };
        let answer: SearchAnswer = client.ask(&Operation::Search(search)).await?;
        let n = answer.hits.len();
        hits.extend(answer.hits);
        if n == 0 || hits.len() as u64 >= answer.total {
            break;
        }
    }
    hits.sort_by(|a, b| a.descriptor.entity.cmp(&b.descriptor.entity));
    Ok(hits)
}
