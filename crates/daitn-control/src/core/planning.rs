//! Plans: made by the topology under the policies (apart from the core where the edge has threads), kept for a while, applied if nothing that they rest on has moved.

use crate::{
    core::{
        Core, Decision, Turn, Who,
        event::{Effect, RequestId},
        policies::Policies,
    },
    limits::{IDEMPOTENCY_BYTES_MAX, IDEMPOTENCY_MAX, IDEMPOTENCY_MS, PLANNING_MAX, PLANS_MAX},
};
use daitn_messages::{
    descriptor::Descriptor,
    ids::{EntityId, JobId, NodeId, OrganisationId, PlanId},
    job::Candidate,
    leaf::LeafKind,
    operation::Answer,
    plan::{Plan, Verdict},
    policy::{PolicyAnswer, Verb},
    rejection::{Code, Rejection},
    request::TrainingRequest,
    units::{UnixMillis, counted},
};
use daitn_policy::PolicySet;
use daitn_store::Family;
use daitn_topology::{PlanIds, Topology};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// By which rules plans are made. Raised when what a plan promises is reckoned otherwise, so that one which was made by
/// older rules is made again: 1, cohorts count organisations.
const RULES: u32 = 1;

/// A plan as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PlanRecord {
    #[serde(with = "shared")]
    pub(crate) plan: Arc<Plan>,
    pub(crate) organisation: OrganisationId,
    /// By which of the domain's policies it was made.
    pub(crate) domain_version: u64,
    /// By which rules it was made.
    #[serde(default)]
    pub(crate) rules: u32,
    /// The job that it became; kept as long as that job.
    pub(crate) job: Option<JobId>,
}

/// A shared value, written as what it holds.
mod shared {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::sync::Arc;

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        value: &Arc<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<T>, D::Error> {
        T::deserialize(deserializer).map(Arc::new)
    }
}

/// What an idempotency key stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdempotencyRecord {
    pub(crate) plan: PlanId,
    pub(crate) job: JobId,
    pub(crate) until: UnixMillis,
}

/// A plan to be made, with all that it is made from as it was at one moment. To run it takes as long as the network is
/// large; nothing that happens meanwhile changes it, and whether it still holds is checked when it is applied.
#[derive(Clone)]
pub struct PlanTask {
    request: RequestId,
    ids: PlanIds,
    seed: u64,
    now: UnixMillis,
    training: TrainingRequest,
    state_version: u64,
    topology: Topology,
    policies: Policies,
}

/// A plan that was made, or why it was not.
#[derive(Clone)]
pub struct Planned {
    pub(crate) request: RequestId,
    ids: PlanIds,
    training: TrainingRequest,
    policies: Policies,
    verdict: Result<Verdict, Rejection>,
}

impl PlanTask {
    /// Makes the plan. Pure: the same task gives the same plan, wherever it runs.
    #[must_use]
    pub fn run(self) -> Planned {
        let Self {
            request,
            ids,
            seed,
            now,
            training,
            state_version,
            topology,
            mut policies,
        } = self;
        let plan_ids = ids.clone();
        let mut permit = |verb, descriptor: &Descriptor, context: &_| match verb {
            // Whoever asks: the plan is shown to the organisation that it is made for.
            Verb::Discover => PolicyAnswer {
                allowed: policies.shown_to(&training.organisation, descriptor),
                determining: Vec::new(),
                errors: Vec::new(),
            },
            _ => policies.permit(&training.organisation, verb, descriptor, context),
        };
        // A fault ends this plan and nothing else; nothing of what it held is used again but parsed texts.
        let made = catch_unwind(AssertUnwindSafe(|| {
            daitn_topology::plan(&topology, &training, &mut permit, plan_ids, now, seed)
        }));
        let verdict = made.map_err(|_| {
            tracing::error!(decision = %ids.decision, "planning panicked");
            Rejection::new(Code::Internal, "a fault while the plan was made")
        });
        let verdict = verdict.map(|mut verdict| {
            if let Verdict::Feasible { plan } = &mut verdict {
                plan.state_version = state_version;
            }
            verdict
        });
        Planned {
            request,
            ids,
            training,
            policies,
            verdict,
        }
    }
}

impl fmt::Debug for PlanTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlanTask")
            .field("request", &self.request)
            .field("plan", &self.ids.plan)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Planned")
            .field("request", &self.request)
            .field("plan", &self.ids.plan)
            .finish_non_exhaustive()
    }
}

/// Plans that wait to be applied, those that were applied, and idempotency keys.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    /// Not applied yet.
    pub(crate) waiting: BTreeMap<PlanId, PlanRecord>,
    /// Applied: the job.
    pub(crate) applied: BTreeMap<PlanId, (OrganisationId, JobId)>,
    pub(crate) idempotency: BTreeMap<String, IdempotencyRecord>,
    /// Requests whose plans are being made apart from the core.
    being_made: BTreeSet<RequestId>,
}

fn stale(why: impl std::fmt::Display) -> Rejection {
    Rejection::new(Code::StalePlan, format!("the plan is stale: {why}"))
}

impl Core {
    /// Asks for a plan: made at once, or apart from the core where the edge has threads for it.
    pub(super) fn plan(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        who: &Who,
        training: TrainingRequest,
    ) {
        if let Err(rejection) = self.check_plannable(who, &training) {
            turn.reply(request, Err(rejection));
            return;
        }
        let task = PlanTask {
            request,
            ids: PlanIds {
                plan: PlanId::new(turn.now.0, turn.entropy.bytes()),
                decision: turn.new_decision_id(),
            },
            seed: turn.entropy.number(),
            now: turn.now,
            training,
            state_version: self.state_version,
            topology: self.topology.clone(),
            policies: self.policies.for_planning(),
        };
        if self.config.plans_apart {
            self.plans.being_made.insert(request);
            turn.effect(Effect::Plan(Box::new(task)));
        } else {
            self.planned(turn, task.run());
        }
    }

    fn check_plannable(&self, who: &Who, training: &TrainingRequest) -> Result<(), Rejection> {
        training.validate()?;
        if let Some(wanted) = training
            .deployment
            .as_ref()
            .filter(|wanted| !wanted.policy.is_empty())
        {
            PolicySet::parse(&wanted.policy).map_err(|error| {
                let rejection = Rejection::from(error);
                let message = format!("deployment.policy: {}", rejection.message);
                Rejection { message, ..rejection }
            })?;
        }
        if !who.sees(&training.organisation) {
            let message = format!(
                "a key of {} cannot plan for {}",
                who.organisation, training.organisation
            );
            return Err(Rejection::new(Code::Unauthorised, message));
        }
        if self.plans.being_made.len() >= PLANNING_MAX {
            let message = format!("{PLANNING_MAX} plans are being made, which is the most at once");
            return Err(Rejection::new(Code::Overloaded, message));
        }
        self.check_name(&training.model, &training.organisation)
    }

    /// A plan was made: it is kept with its decision, and told.
    pub(super) fn planned(&mut self, turn: &mut Turn<'_>, planned: Planned) {
        let Planned {
            request,
            ids,
            training,
            policies,
            verdict,
        } = planned;
        self.plans.being_made.remove(&request);
        self.policies.learn_from(&policies);
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(rejection) => {
                turn.reply(request, Err(rejection));
                return;
            }
        };
        let organisation = training.organisation.clone();
        turn.leaf_of(LeafKind::Verdict, &ids.decision, &verdict, [&organisation]);
        let decision = describe(&training, &verdict);
        turn.decide_as(&ids.decision, decision, vec![organisation.clone()]);
        if let Verdict::Feasible { plan } = &verdict {
            let record = PlanRecord {
                plan: Arc::new(plan.as_ref().clone()),
                organisation,
                domain_version: policies.domain_version,
                rules: RULES,
                job: None,
            };
            turn.batch.put(Family::Plans, ids.plan.as_str(), &record);
            self.plans.waiting.insert(ids.plan, record);
            self.forget_plans(turn);
        }
        turn.reply(request, Ok(Answer::Verdict(Box::new(verdict))));
    }

    pub(super) fn apply(
        &mut self,
        turn: &mut Turn<'_>,
        who: &Who,
        id: &PlanId,
        idempotency_key: Option<String>,
    ) -> Result<Answer, Rejection> {
        let key = idempotency_key.map(|key| scoped_key(who, &key)).transpose()?;
        if let Some(known) = key.as_ref().and_then(|key| self.plans.idempotency.get(key)) {
            if known.plan != *id {
                let message = "the idempotency key was used for another plan";
                return Err(Rejection::new(Code::Conflict, message));
            }
            return self.show_job(who, &known.job.clone());
        }
        if let Some((_, job)) = self
            .plans
            .applied
            .get(id)
            .filter(|(organisation, _)| who.sees(organisation))
        {
            return self.show_job(who, &job.clone());
        }
        let known = self
            .plans
            .waiting
            .get(id)
            .filter(|record| who.sees(&record.organisation));
        let record = known.cloned().ok_or_else(|| Rejection::not_found("plan", id))?;
        self.check_fresh(turn, &record)?;
        self.check_name(&record.plan.request.model, &record.organisation)?;
        if self.plans.idempotency.len() >= IDEMPOTENCY_MAX {
            return Err(Rejection::new(
                Code::Overloaded,
                "too many idempotency keys are in force",
            ));
        }
        let job = self.begin_job(turn, record.organisation.clone(), record.plan.clone())?;
        let applied = PlanRecord {
            job: Some(job.clone()),
            ..record
        };
        turn.batch.put(Family::Plans, id.as_str(), &applied);
        self.plans.waiting.remove(id);
        self.plans
            .applied
            .insert(id.clone(), (applied.organisation, job.clone()));
        if let Some(key) = key {
            let known = IdempotencyRecord {
                plan: id.clone(),
                job: job.clone(),
                until: turn.now.plus(IDEMPOTENCY_MS),
            };
            turn.batch.put(Family::Idempotency, key.as_str(), &known);
            self.plans.idempotency.insert(key, known);
        }
        self.show_job(who, &job)
    }

    fn show_job(&self, who: &Who, id: &JobId) -> Result<Answer, Rejection> {
        let entry = self
            .visible_job(who, id)
            .ok_or_else(|| Rejection::not_found("job", id))?;
        Ok(Answer::Job(Box::new(entry.view())))
    }

    /// Nothing that the plan rests on may have moved; what else changed in the domain does not matter.
    fn check_fresh(&self, turn: &Turn<'_>, record: &PlanRecord) -> Result<(), Rejection> {
        let plan = &record.plan;
        if record.rules != RULES {
            return Err(stale("another version of the control center made it"));
        }
        if record.domain_version != self.policies.domain_version {
            return Err(stale("the domain's policy has changed since"));
        }
        if let Some(why) = self.topology.stale(plan, turn.now) {
            return Err(stale(why));
        }
        // An entity of the same name and version may have come to another node since.
        let placed = plan.verifiers.iter().chain(&plan.hosts).chain([&plan.aggregator]);
        let computes = plan.sites.iter().filter_map(|site| site.compute.as_ref());
        let placed = placed
            .chain(computes)
            .map(|placement| (&placement.entity, placement.node));
        let all = placed.chain(plan.sites.iter().map(|site| (&site.dataset, site.node)));
        let is_there =
            |(entity, node): &(&EntityId, NodeId)| self.topology.get(entity).is_some_and(|d| d.node == *node);
        match all.into_iter().find(|place| !is_there(place)) {
            Some((entity, _)) => Err(stale(format!("{entity} is on another node now"))),
            None => Ok(()),
        }
    }

    /// Lets go of plans that have expired or are too many, and of old idempotency keys.
    pub(super) fn forget_plans(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        // An id sorts by the time at which it was made: the first is the oldest.
        let n_over = self.plans.waiting.len().saturating_sub(PLANS_MAX);
        let over: Vec<PlanId> = self.plans.waiting.keys().take(n_over).cloned().collect();
        let expired = self
            .plans
            .waiting
            .values()
            .filter(|record| record.plan.valid_until <= now);
        let gone: Vec<PlanId> = expired.map(|record| record.plan.id.clone()).chain(over).collect();
        for id in gone {
            if self.plans.waiting.remove(&id).is_some() {
                turn.batch.delete(Family::Plans, id.as_str());
            }
        }
        self.plans.idempotency.retain(|key, record| {
            let keep = record.until > now;
            if !keep {
                turn.batch.delete(Family::Idempotency, key.as_str());
            }
            keep
        });
    }
}

fn scoped_key(who: &Who, key: &str) -> Result<String, Rejection> {
    if key.is_empty() || key.len() > IDEMPOTENCY_BYTES_MAX || !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Rejection::malformed(
            "idempotency key",
            "1 to 200 printable ASCII characters",
        ));
    }
    Ok(format!("{}/{key}", who.organisation))
}

/// The decision record of a verdict.
fn describe(request: &TrainingRequest, verdict: &Verdict) -> Decision {
    let excluded = |excluded: &[daitn_messages::plan::Exclusion]| -> Vec<Candidate> {
        let candidate = |exclusion: &daitn_messages::plan::Exclusion| Candidate {
            name: exclusion.entity.to_string(),
            chosen: false,
            reason: exclusion.reason.clone(),
            policies: exclusion.policies.clone(),
        };
        excluded.iter().map(candidate).collect()
    };
    match verdict {
        Verdict::Feasible { plan } => {
            let chosen = plan.sites.iter().map(|site| Candidate {
                name: site.dataset.to_string(),
                chosen: true,
                reason: format!(
                    "{} records, {} ms of training a round",
                    site.records, site.train_ms
                ),
                policies: site.policies.clone(),
            });
            let others = plan
                .alternatives
                .iter()
                .filter(|alternative| !alternative.why_not.is_empty());
            let others = others.map(|a| {
                format!(
                    "not {} with {}: {}",
                    a.kind.as_str(),
                    a.strategy.as_str(),
                    a.why_not
                )
            });
            Decision {
                kind: "verdict",
                subject: plan.id.to_string(),
                outcome: format!(
                    "feasible: {} with {} on {}, {}",
                    plan.kind.as_str(),
                    plan.strategy.as_str(),
                    counted(plan.sites.len(), "site"),
                    counted(plan.rounds as usize, "round")
                ),
                reasons: std::iter::once(plan.why.clone()).chain(others).collect(),
                candidates: chosen.chain(excluded(&plan.excluded)).collect(),
                prediction: Some(plan.prediction),
            }
        }
        Verdict::Infeasible {
            binding,
            excluded: out,
            ..
        } => Decision {
            kind: "verdict",
            subject: request.model.to_string(),
            outcome: "infeasible".to_owned(),
            reasons: binding
                .iter()
                .map(|constraint| constraint.explanation.clone())
                .collect(),
            candidates: excluded(out),
            prediction: None,
        },
    }
}
