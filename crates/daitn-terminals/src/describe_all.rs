//! Describes terminals again after something that they tell has changed, for instance the text of a policy.

use crate::{
    describe::Describer,
    durable::blocking,
    options::Card,
    rates,
    shared::Shared,
    terminal::{Attached, Terminal},
};
use daitn_messages::{descriptor::Descriptor, ids::Slug, rejection::Rejection, signed::Signed};
use std::sync::Arc;

/// The descriptor of an open terminal.
///
/// # Errors
/// What it cannot be described for.
pub(crate) async fn describe(
    shared: &Arc<Shared>,
    name: Slug,
    card: Card,
    terminal: Terminal,
) -> Result<(Terminal, Descriptor, Signed<Descriptor>), Rejection> {
    let shared = shared.clone();
    blocking(move || {
        let card = match &terminal {
            Terminal::Agent(agent) => agent.people_see(card.jurisdiction),
            _ => card,
        };
        let rates = rates::measured(&*shared.engine, &shared.state)?;
        let (descriptor, signed) =
            describer(&shared).describe(&name, &card, terminal.body(rates)?, shared.clock.now())?;
        Ok((terminal, descriptor, signed))
    })
    .await
}

/// Looks at every terminal again; those whose content has changed get a new version.
pub(crate) async fn describe_again(shared: &Arc<Shared>) {
    for attached in shared.terminals.all() {
        let (shared, again) = (shared.clone(), attached.clone());
        let described = blocking(move || describe_attached(&shared, &again)).await;
        if let Err(rejection) = described {
            tracing::warn!(entity = %attached.entity, "it cannot be described again: {rejection}");
        }
    }
}

fn describe_attached(shared: &Shared, attached: &Attached) -> Result<(), Rejection> {
    let rates = rates::measured(&*shared.engine, &shared.state)?;
    let body = attached.terminal.body(rates)?;
    let before = attached.descriptor();
    let card = Card {
        title: before.title,
        description: before.description,
        jurisdiction: before.jurisdiction,
    };
    let (descriptor, signed) =
        describer(shared).describe(&before.entity.name, &card, body, shared.clock.now())?;
    if descriptor.version != before.version {
        tracing::info!(entity = %attached.entity, version = descriptor.version, "described anew");
        attached.describe_anew(descriptor, signed);
    }
    Ok(())
}

/// Describes a terminal in a version that is later than any that it had.
///
/// # Errors
/// Where the disk fails.
pub(crate) async fn raise(shared: &Arc<Shared>, attached: &Arc<Attached>) -> Result<(), Rejection> {
    let (shared, attached) = (shared.clone(), attached.clone());
    blocking(move || {
        let (descriptor, signed) = describer(&shared).raise(attached.descriptor(), shared.clock.now())?;
        attached.describe_anew(descriptor, signed);
        Ok(())
    })
    .await
}

fn describer(shared: &Shared) -> Describer<'_> {
    Describer {
        key: &shared.key,
        organisation: &shared.organisation,
        state: &shared.state,
    }
}
