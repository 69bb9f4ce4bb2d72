//! Questions that are answered from the store, beside the loop: what they read never changes once it is there, or is of
//! a job that has ended.

use crate::core::{self, StoredDecision};
use daitn_messages::{
    ids::{DecisionId, JobId, OrganisationId},
    operation::{Answer, LeafAt},
    rejection::{Code, Rejection},
};
use daitn_store::{Family, PAGE_RECORDS_MAX, Store, StoreError};

fn refused(error: &StoreError) -> Rejection {
    tracing::error!(%error, "a record could not be read");
    error.rejection()
}

/// A decision record that concerns the organisation; none: whomever it concerns.
pub(crate) async fn decision(
    store: &Store,
    id: &DecisionId,
    organisation: Option<&OrganisationId>,
) -> Result<Answer, Rejection> {
    let record = store
        .get(Family::Decisions, id.as_str())
        .await
        .map_err(|e| refused(&e))?;
    let stored = record
        .map(|record| record.decode::<StoredDecision>())
        .transpose()
        .map_err(|e| refused(&e))?;
    match stored {
        Some(stored) if stored.is_for(organisation) => Ok(Answer::Decision(Box::new(stored.record))),
        _ => Err(Rejection::not_found("decision", id)),
    }
}

/// Leaves of the log.
pub(crate) async fn leaves(store: &Store, from: u64, limit: u32) -> Result<Answer, Rejection> {
    if limit > PAGE_RECORDS_MAX {
        return Err(Rejection::too_large(
            "limit",
            u64::from(limit),
            u64::from(PAGE_RECORDS_MAX),
        ));
    }
    let leaves = store.leaves(from, limit).await.map_err(|e| refused(&e))?;
    Ok(Answer::Leaves(
        leaves
            .into_iter()
            .map(|(index, leaf)| LeafAt { index, leaf })
            .collect(),
    ))
}

/// A job that is no longer in memory.
pub(crate) async fn job(
    store: &Store,
    id: &JobId,
    organisation: Option<&OrganisationId>,
) -> Result<Answer, Rejection> {
    let not_found = || Rejection::not_found("job", id);
    let job = store
        .get(Family::Jobs, id.as_str())
        .await
        .map_err(|e| refused(&e))?
        .ok_or_else(not_found)?;
    let broken = |error: core::RestoreError| {
        tracing::error!(job = %id, %error, "a job's record could not be read");
        let told = format!("the job's record cannot be read: {error}");
        match error.remedy() {
            Some(remedy) => Rejection::new(Code::Storage, told).with_hint(remedy),
            None => Rejection::new(Code::Internal, told),
        }
    };
    let plan = core::plan_of(&job).map_err(broken)?;
    let plan = store
        .get(Family::Plans, plan.as_str())
        .await
        .map_err(|e| refused(&e))?
        .ok_or_else(not_found)?;
    let parts = store
        .load(Family::JobParts, &format!("{id}/"))
        .await
        .map_err(|e| refused(&e))?;
    let entry = core::archived_job(&job, &plan, &parts).map_err(broken)?;
    if organisation.is_some_and(|organisation| *organisation != entry.job.organisation) {
        return Err(not_found());
    }
    Ok(Answer::Job(Box::new(entry.view())))
}
