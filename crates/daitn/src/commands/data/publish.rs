//! `daitn data validate`, `preview`, `publish` and `withdraw`: what an owner does with a description.

use super::{super::App, show};
use crate::{
    commands::confirmed,
    failure::{Ending, Exit, Failure},
    files::absolute,
    preview,
    roles::member::Member,
    terminal,
    views::{Card, Done},
};
use clap::Args;
use daitn_messages::ids::{EntityKind, OrganisationId, Slug};
use daitn_terminals::{TerminalOptions, load_terminal};
use std::path::{Path, PathBuf};

/// What to preview.
#[derive(Debug, Args)]
pub(crate) struct PreviewArguments {
    /// The description
    file: PathBuf,
    /// Whose it will be; with --node-dir that is known
    #[arg(long, value_name = "NAME", required_unless_present = "node_dir")]
    organisation: Option<OrganisationId>,
    /// The directory of the node that will hold it
    #[arg(long, value_name = "DIRECTORY")]
    node_dir: Option<PathBuf>,
    /// Print the Croissant 1.1 document alone
    #[arg(long)]
    croissant: bool,
}

/// What to publish.
#[derive(Debug, Args)]
pub(crate) struct PublishArguments {
    /// The description
    file: PathBuf,
    /// The directory of the node that holds it; a running node takes it up at once
    #[arg(long, value_name = "DIRECTORY")]
    node_dir: PathBuf,
}

/// What to withdraw.
#[derive(Debug, Args)]
pub(crate) struct WithdrawArguments {
    /// Its name within the organisation
    name: Slug,
    /// The directory of the node that holds it
    #[arg(long, value_name = "DIRECTORY")]
    node_dir: PathBuf,
    /// Mean it
    #[arg(long)]
    yes: bool,
}

/// Checks a description, its policy and its data.
pub(super) async fn validate(app: &App, file: &Path) -> Ending {
    let options = load(file)?;
    preview::descriptor(options, super::super::parsed("nobody")?, None).await?;
    app.output.show(&Done::new(
        "is valid: the data can be read as it says, and the policy fits",
        &file.display(),
    ))?;
    Ok(Exit::Done)
}

/// Shows exactly what others will see.
pub(super) async fn preview(app: &App, arguments: PreviewArguments) -> Ending {
    let options = load(&arguments.file)?;
    let (organisation, key) = match (&arguments.node_dir, arguments.organisation) {
        (Some(directory), _) => {
            let key = crate::files::key(&directory.join("node.key"))?;
            (Member::load(directory)?.organisation, Some(key))
        }
        (None, Some(organisation)) => (organisation, None),
        (None, None) => return Err(Failure::usage("give --organisation or --node-dir")),
    };
    if key.is_none() {
        app.output.say("The node's key is one made for this preview: the node that publishes has its own, which --node-dir shows.");
    }
    let descriptor = preview::descriptor(options, organisation, key).await?;
    show(app, &Card::new(descriptor, None), arguments.croissant)?;
    Ok(Exit::Done)
}

/// Gives a description to a node.
pub(super) async fn publish(app: &App, arguments: PublishArguments) -> Ending {
    let options = load(&arguments.file)?;
    let published = terminal::publish(&arguments.node_dir, &options).await?;
    app.output.show(&published)?;
    Ok(Exit::Done)
}

/// Takes a dataset back.
pub(super) async fn withdraw(app: &App, arguments: WithdrawArguments) -> Ending {
    confirmed(
        arguments.yes,
        &format!(
            "withdrawing {} ends its use by the network until it is published again",
            arguments.name
        ),
    )?;
    let withdrawn = terminal::withdraw(&arguments.node_dir, EntityKind::Dataset, &arguments.name).await?;
    app.output.show(&withdrawn)?;
    Ok(Exit::Done)
}

/// A description, its paths made absolute.
fn load(file: &Path) -> Result<TerminalOptions, Failure> {
    let absolute = absolute(file)?;
    match load_terminal(&absolute).map_err(|error| Failure::usage(error.to_string()))? {
        options @ TerminalOptions::Dataset(_) => Ok(options),
        other => Err(Failure::file(
            file,
            format!("describes a {}, not a dataset", other.kind()),
        )),
    }
}
