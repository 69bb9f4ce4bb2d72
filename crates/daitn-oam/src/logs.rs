//! Where log lines go: to standard error, for people or as JSON.

use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Human,
    /// One JSON object a line: `timestamp`, `level`, `fields`, `target`.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter does not parse.
    #[error("log filter `{filter}`: {cause}; use a level such as `info`, or `daitn_control=debug,warn`")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        cause: String,
    },
    /// It was set up before.
    #[error("logging is set up already")]
    Twice,
}

/// Sends log lines of this process to standard error.
///
/// # Errors
/// If the filter does not parse or logging was set up before.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LogError> {
    let parsed = EnvFilter::try_new(filter).map_err(|error| LogError::Filter {
        filter: filter.to_owned(),
        cause: error.to_string(),
    })?;
    let registry = tracing_subscriber::registry().with(parsed);
    let outcome = match format {
        LogFormat::Human => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_writer(std::io::stderr)
                    // Colours only where a person sees them, and not if they asked for none.
                    .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
                    .with_target(false),
            )
            .try_init(),
        LogFormat::Json => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .json()
                    .with_writer(std::io::stderr),
            )
            .try_init(),
    };
    outcome.map_err(|_| LogError::Twice)
}
