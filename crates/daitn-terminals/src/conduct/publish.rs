//! The files of a cycle's result: stored, offered to those who may have them, read again to go on from.

use super::{
    ask::{Begin, Field},
    learner::Files,
};
use crate::{durable::blocking, holds::Readers};
use daitn_fabric::artifact::Durability;
use daitn_messages::{
    ids::JobId,
    rejection::Rejection,
    session::{ArtifactRef, Peer},
};
use std::sync::Arc;

/// Stores the files of a cycle's result, durably, for all who may have them.
pub(super) async fn publish(
    field: &Arc<Field>,
    cycles_done: u32,
    files: Option<Files>,
    readers: &Readers,
) -> Result<(Begin, ArtifactRef), Rejection> {
    let files = match files {
        Some(files) => files,
        None => {
            let field = field.clone();
            blocking(move || field.learner.files()).await?
        }
    };
    let scope = scope_of(field, cycles_done);
    let put = |bytes| field.shared.put(&scope, bytes, readers, Durability::Durable);
    let global = put(files.global).await?;
    let control = match files.control {
        Some(control) => Some(put(control).await?),
        None => None,
    };
    let state = match files.state {
        Some(state) => put(state).await?,
        // What remembers nothing is its weights.
        None => global,
    };
    let begin = Begin {
        global,
        control,
        counted: None,
    };
    Ok((begin, state))
}

pub(super) async fn restore(
    field: &Arc<Field>,
    state: ArtifactRef,
    holders: &[Peer],
) -> Result<(), Rejection> {
    if state.bytes != field.learner.state_bytes() {
        let message = format!(
            "it has {} bytes, not {}",
            state.bytes,
            field.learner.state_bytes()
        );
        return Err(Rejection::malformed("conductor's state", &message));
    }
    field
        .shared
        .fetch(&field.updates, state, holders, Durability::Durable)
        .await?;
    let field = field.clone();
    blocking(move || {
        let reader = field
            .shared
            .store
            .reader(state.id)
            .map_err(|error| error.rejection())?;
        field.learner.restore(reader)
    })
    .await
}

pub(super) fn hold(
    field: &Field,
    cycles_done: u32,
    artifacts: &[ArtifactRef],
    readers: &Readers,
) -> Result<(), Rejection> {
    let scope = scope_of(field, cycles_done);
    artifacts
        .iter()
        .try_for_each(|artifact| field.shared.holds.hold(&scope, artifact.id, readers))
}

pub(super) fn scope_of(field: &Field, cycles_done: u32) -> Arc<str> {
    scope_name(&field.job, cycles_done).into()
}

/// The scope under which the results of a cycle are held.
pub(crate) fn scope_name(job: &JobId, cycles_done: u32) -> String {
    format!("conduct/{job}/{cycles_done}")
}
