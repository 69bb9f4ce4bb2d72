//! Whether an aggregator takes a job.

use super::Aggregator;
use crate::shared::{Shared, file_bytes};
use daitn_messages::{
    order::{ConductOrder, WorkOrder},
    plan::Plan,
    rejection::{Code, Rejection},
};

/// The rule under which an aggregator works: it has no policy of its own.
const RULE: &str = "order-of-own-center";

impl Aggregator {
    /// The rules that permit the order.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn admit(
        &self,
        shared: &Shared,
        order: &WorkOrder,
        conduct: &ConductOrder,
    ) -> Result<Vec<String>, Rejection> {
        if order.job.is_none() {
            return Err(Rejection::malformed("job", "an order to conduct names its job"));
        }
        let plan = &conduct.plan;
        check_chains(plan)?;
        let n_sites = plan.sites.len();
        if let Some(site) = conduct.accepted.iter().find(|site| **site as usize >= n_sites) {
            return Err(Rejection::out_of_range(
                "accepted",
                f64::from(*site),
                0.0,
                n_sites as f64,
            ));
        }
        if (conduct.accepted.len() as u64) < u64::from(plan.quorum) {
            let message = format!(
                "{} sites accepted, and the quorum is {}",
                conduct.accepted.len(),
                plan.quorum
            );
            return Err(Rejection::new(Code::QuorumMissed, message));
        }
        if plan
            .request
            .training
            .norm_clip
            .is_some_and(|multiple| multiple < 1.0)
        {
            let message = "below 1 it would shorten half of all honest updates";
            return Err(Rejection::malformed("training.norm_clip", message));
        }
        let layout = shared.engine.layout(&plan.model_spec())?;
        let needed = file_bytes(&layout).saturating_mul(plan.chains.len() as u64 + 4);
        if needed > self.options.storage.0 {
            return Err(Rejection::too_large(
                "updates of one round",
                needed,
                self.options.storage.0,
            ));
        }
        Ok(vec![RULE.to_owned()])
    }
}

/// Whether the chains of a plan name its sites, each once, and its quorum can be reached.
fn check_chains(plan: &Plan) -> Result<(), Rejection> {
    let n_sites = plan.sites.len();
    let mut seen = vec![false; n_sites];
    for site in plan.chains.iter().flatten() {
        match seen.get_mut(*site as usize) {
            Some(seen) if !*seen => *seen = true,
            Some(_) => return Err(Rejection::malformed("chains", "a site is in them twice")),
            None => return Err(Rejection::malformed("chains", "a site is not one of the plan")),
        }
    }
    if plan.quorum == 0 || plan.quorum as usize > n_sites {
        return Err(Rejection::out_of_range(
            "quorum",
            f64::from(plan.quorum),
            1.0,
            n_sites as f64,
        ));
    }
    Ok(())
}
