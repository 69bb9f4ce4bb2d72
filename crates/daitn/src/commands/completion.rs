//! `daitn completion`: a completion script for a shell.

use crate::{
    cli,
    failure::{Ending, Exit},
};
use clap::Args;
use clap_complete::Shell;

/// For which.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs it. A script is a script, whatever the output format.
pub(crate) fn run(arguments: &Arguments) -> Ending {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut cli::command(), "daitn", &mut script);
    crate::output::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
