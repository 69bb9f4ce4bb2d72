//! The `daitn` command: control center, node, gateway and tools in one binary.
//!
//! The tools are a pure client of the REST API; the roles are wired together under `roles`. What a command prints and
//! how it exits is a contract with scripts: see `output` and `failure`.

mod cli;
mod client;
mod commands;
mod config;
mod context;
mod demo;
mod examples;
mod failure;
mod files;
mod inference;
mod measure;
mod output;
mod paint;
mod preview;
mod progress;
mod render;
mod roles;
mod shutdown;
mod terminal;
mod views;

use cli::Cli;
use failure::{Exit, Failure};
use output::{Format, Output};
use std::process::ExitCode;

/// How long a process that is done waits for threads that still do something.
const LEFTOVERS_GRACE: std::time::Duration = std::time::Duration::from_millis(500);

fn main() -> ExitCode {
    let exit = match cli::parse_from(std::env::args_os()) {
        Ok(cli) => run(cli),
        Err(error) => usage(&error),
    };
    ExitCode::from(exit as u8)
}

fn run(cli: Cli) -> Exit {
    let output = Output::new(cli.global.output, cli.global.quiet);
    // The TLS of every client and server in this process.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        return output.fail(&Failure::internal("a TLS provider is installed already"));
    }
    let mut runtime = if cli.command.is_long_lived() {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output.fail(&Failure::internal(format!("no runtime: {error}"))),
    };
    let ending = runtime.block_on(Box::pin(commands::run(cli, output)));
    // What was to be waited for has been: arithmetic that nobody wants any more must not keep the process.
    runtime.shutdown_timeout(LEFTOVERS_GRACE);
    ending.unwrap_or_else(|failure| output.fail(&failure))
}

/// What clap found wrong, or help and version, which it counts as errors too.
fn usage(error: &clap::Error) -> Exit {
    if error.exit_code() != 0 && wants_json() {
        let text = error.render().to_string();
        let first = text
            .lines()
            .next()
            .unwrap_or("wrong usage")
            .trim_start_matches("error: ")
            .to_owned();
        let failure = Failure::usage(first).hint("See `daitn --help`.");
        return Output::new(Format::Json, false).fail(&failure);
    }
    // Where even the usage cannot be printed there is nobody to tell.
    let _ = error.print();
    if error.exit_code() == 0 {
        Exit::Done
    } else {
        Exit::Usage
    }
}

/// Whether the arguments, which do not parse, ask for JSON.
fn wants_json() -> bool {
    let arguments: Vec<String> = std::env::args().collect();
    arguments
        .iter()
        .any(|a| a == "-ojson" || a == "--output=json" || a == "-o=json")
        || arguments
            .windows(2)
            .any(|pair| (pair[0] == "-o" || pair[0] == "--output") && pair[1] == "json")
}
