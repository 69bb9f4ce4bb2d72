//! The command tree: nouns, then verbs. What is not built is not listed.

use crate::{commands, measure::Span, output::Format};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;

/// Train, verify, deploy and query models across organisations, without moving their data.
#[derive(Debug, Parser)]
#[command(
    name = "daitn",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    max_term_width = 110,
    after_help = "Exit codes: 0 done; 1 refused or failed by the network; 2 usage or configuration; \
        3 cannot connect or authenticate; 4 time-out; 5 stale plan or conflict; 70 internal.\n\
        The API key comes from the context, or from DAITN_API_KEY.\n\
        Begin with `daitn demo`."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The command tree with its examples.
pub(crate) fn command() -> clap::Command {
    crate::examples::with_examples(Cli::command())
}

/// Reads a command line.
pub(crate) fn parse_from<T: Into<OsString> + Clone>(
    words: impl IntoIterator<Item = T>,
) -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(words)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// How results are printed on standard output
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// Which context to use instead of the current one
    #[arg(long, global = true, env = "DAITN_CONTEXT", value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The gateway's address, instead of a context's
    #[arg(long, global = true, env = "DAITN_URL", value_name = "URL")]
    pub(crate) url: Option<String>,
    /// How long to wait for one answer
    #[arg(long, global = true, default_value = "30s", value_name = "DURATION")]
    pub(crate) timeout: Span,
    /// No progress on standard error
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A whole network on this machine, on real data, from nothing to served answers
    Demo(crate::demo::Arguments),
    /// A control center and a gateway on this machine
    Up(Box<commands::up::Arguments>),
    /// The demo's agent
    #[command(hide = true)]
    DemoAgent(crate::demo::reader::Arguments),
    /// Make, list and revoke join tokens
    #[command(subcommand)]
    Token(commands::token::Command),
    /// Make, list and revoke API keys
    #[command(subcommand)]
    Key(commands::key::Command),
    /// Join, run, list, inspect, drain and revoke nodes
    #[command(subcommand)]
    Node(commands::node::Command),
    /// Describe, publish, list and inspect datasets
    #[command(subcommand)]
    Data(commands::data::Command),
    /// Plan, run, watch and stop training jobs
    #[command(subcommand)]
    Job(commands::job::Command),
    /// List, deploy, roll back and query models
    #[command(subcommand)]
    Model(commands::model::Command),
    /// Register, list, inspect and call agents
    #[command(subcommand)]
    Agent(commands::agent::Command),
    /// Find anything: datasets, compute, models, hosts, verifiers, aggregators, agents
    Search(commands::search::Arguments),
    /// See, set and test policies, and ask who may do what
    #[command(subcommand)]
    Policy(commands::policy::Command),
    /// Why the network decided as it did: the record of a plan's, a refusal's or a query's decision
    Explain(commands::explain::Arguments),
    /// The state of the domain in one look
    Status(commands::status::Arguments),
    /// Look at everything between this machine and a domain, and say what fails and what mends it
    Doctor(commands::doctor::Arguments),
    /// Choose which domain to talk to
    #[command(subcommand)]
    Context(commands::context::Command),
    /// Explain an error code (`daitn help E0302`) or a command
    Help(commands::help::Arguments),
    /// Print a completion script for a shell
    Completion(commands::completion::Arguments),
}

impl Command {
    /// Whether it goes on until it is stopped, so that it needs more than one thread.
    pub(crate) fn is_long_lived(&self) -> bool {
        match self {
            Self::Demo(_) | Self::DemoAgent(_) | Self::Up(_) => true,
            Self::Node(command) => command.is_long_lived(),
            _ => false,
        }
    }
}
