//! `daitn data`: datasets, as their owners publish them and as others find them.

mod init;
mod publish;

use super::{App, all, entity};
use crate::{
    failure::{Ending, Exit, Failure},
    views::{Card, Hits},
};
use clap::Subcommand;
use daitn_messages::{ids::EntityKind, operation::Operation, request::Hit};
use std::path::PathBuf;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Look at a file, and write the description and the policy that its owner edits
    Init(Box<init::Arguments>),
    /// Check a description: its keys, its policy, and whether the data can be read as it says
    Validate {
        /// The description
        file: PathBuf,
    },
    /// Show exactly what others will see
    Preview(publish::PreviewArguments),
    /// Give a description to a node on this machine
    Publish(publish::PublishArguments),
    /// Take a dataset back from a node on this machine
    Withdraw(publish::WithdrawArguments),
    /// List datasets
    List,
    /// One dataset, exactly as its owner describes it
    Get {
        /// `organisation/name`
        dataset: String,
        /// Print the Croissant 1.1 document alone
        #[arg(long)]
        croissant: bool,
    },
}

/// Runs it.
pub(crate) async fn run(app: &App, command: Command) -> Ending {
    match command {
        Command::Init(arguments) => return init::run(app, &arguments),
        Command::Validate { file } => return publish::validate(app, &file).await,
        Command::Preview(arguments) => return publish::preview(app, arguments).await,
        Command::Publish(arguments) => return publish::publish(app, arguments).await,
        Command::Withdraw(arguments) => return publish::withdraw(app, arguments).await,
        Command::List => app
            .output
            .show(&Hits(all(&app.client()?, EntityKind::Dataset).await?))?,
        Command::Get { dataset, croissant } => {
            let dataset = entity(&dataset, EntityKind::Dataset)?;
            let hit: Hit = app.client()?.ask(&Operation::GetEntity(dataset)).await?;
            show(app, &Card::new(hit.descriptor, Some(hit.online)), croissant)?;
        }
    }
    Ok(Exit::Done)
}

/// Prints a card, or its Croissant document as it is.
fn show(app: &App, card: &Card, croissant: bool) -> Result<(), Failure> {
    if !croissant {
        return app.output.show(card);
    }
    let document = card
        .croissant()
        .ok_or_else(|| Failure::usage("only datasets have a Croissant document"))?;
    app.output.print_document(document)
}
