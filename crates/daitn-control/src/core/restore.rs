//! From records back to state. The same state comes out as the one that wrote them, but for what is not kept:
//! connections, load, measured links, armed timers.

use crate::{
    core::{
        Core, CoreConfig, CycleRecord, JobEntry,
        access::AccessTable,
        deployments::{Deployments, Entry},
        jobs::{Jobs, sites_from, summary},
        models::{ModelRecord, Models},
        nodes::{Node, NodeRecord, Nodes},
        orders::{OrderRecord, Orders},
        planning::{IdempotencyRecord, PlanRecord, Plans},
        policies::Policies,
        snapshot::SnapshotState,
        tokens::{KeyRecord, TokenRecord},
    },
    deployment::Deployment,
    job::{Job, Site},
    limits::JOBS_ENDED_MAX,
};
use daitn_messages::{
    descriptor::Descriptor,
    ids::{ArtifactId, PlanId},
    rejection::Rejection,
    signed::Signed,
    units::UnixMillis,
};
use daitn_store::{Family, Record, StoreError};
use daitn_topology::Topology;
use std::collections::{BTreeMap, BTreeSet};

/// The key of the registry's version.
pub(crate) const STATE_VERSION: &str = "state-version";
/// The key of the domain's policy with its number.
pub(crate) const DOMAIN_POLICY: &str = "domain-policy";

/// All records of a store, by family, and how many leaves its log has.
#[derive(Debug, Default)]
pub struct Records {
    /// The records.
    pub by_family: BTreeMap<Family, Vec<Record>>,
    /// Leaves in the log.
    pub n_leaves: u64,
}

/// Why a state cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A record does not decode.
    #[error(transparent)]
    Record(#[from] StoreError),
    /// A record contradicts another or itself.
    #[error("record `{key}` of table `{table}`: {cause}")]
    Contradiction {
        /// Where.
        table: &'static str,
        /// Which record.
        key: String,
        /// What does not fit.
        cause: String,
    },
}

impl RestoreError {
    /// What to do, where the records are at fault and not this program.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Record(error) => error.is_of_storage().then(|| error.remedy()),
            Self::Contradiction { .. } => Some(
                "Another version or another program wrote these records. Start the version that wrote them, or restore \
                 the newest backup.",
            ),
        }
    }
}

impl Records {
    /// Families that a restart needs. Decisions and leaves are read when asked for.
    pub const NEEDED: [Family; 13] = [
        Family::Meta,
        Family::Tokens,
        Family::Keys,
        Family::Nodes,
        Family::Descriptors,
        Family::Models,
        Family::Plans,
        Family::Jobs,
        Family::JobParts,
        Family::Deployments,
        Family::Orders,
        Family::Receipts,
        Family::Idempotency,
    ];

    fn of(&self, family: Family) -> &[Record] {
        self.by_family.get(&family).map_or(&[], Vec::as_slice)
    }
}

fn contradiction(record: &Record, cause: &dyn std::fmt::Display) -> RestoreError {
    RestoreError::Contradiction {
        table: record.family.table(),
        key: record.key.clone(),
        cause: cause.to_string(),
    }
}

impl Core {
    /// Makes the state from its records. `now` is since when all nodes count as gone.
    ///
    /// # Errors
    /// Where a record does not decode or contradicts another: the record is named.
    pub fn restore(config: CoreConfig, records: &Records, now: UnixMillis) -> Result<Self, RestoreError> {
        let mut core = Self {
            config,
            tokens: BTreeMap::new(),
            keys: BTreeMap::new(),
            nodes: Nodes::default(),
            policies: Policies::default(),
            access: AccessTable::default(),
            topology: Topology::default(),
            plans: Plans::default(),
            jobs: Jobs::default(),
            deployments: Deployments::default(),
            orders: Orders::default(),
            models: Models::default(),
            snapshot: SnapshotState::default(),
            state_version: 0,
            n_leaves: records.n_leaves,
        };
        core.restore_registry(records, now)?;
        core.restore_descriptors(records)?;
        core.restore_plans(records)?;
        core.restore_jobs(records)?;
        core.restore_deployments(records)?;
        core.restore_orders(records)?;
        core.forget_jobs();
        core.forget_deployments();
        Ok(core)
    }

    fn restore_registry(&mut self, records: &Records, now: UnixMillis) -> Result<(), RestoreError> {
        for record in records.of(Family::Meta) {
            match record.key.as_str() {
                STATE_VERSION => self.state_version = record.decode()?,
                DOMAIN_POLICY => {
                    let (version, text): (u64, String) = record.decode()?;
                    self.policies
                        .set_domain(text)
                        .map_err(|e: Rejection| contradiction(record, &e))?;
                    self.policies.domain_version = version;
                }
                _ => {}
            }
        }
        for record in records.of(Family::Tokens) {
            let token: TokenRecord = record.decode()?;
            self.tokens.insert(token.token.clone(), token);
        }
        for record in records.of(Family::Keys) {
            let key: KeyRecord = record.decode()?;
            self.keys.insert(key.key.clone(), key);
        }
        for record in records.of(Family::Nodes) {
            let node: NodeRecord = record.decode()?;
            let id = node.node;
            self.nodes.by_id.insert(id, Node::new(node, now));
            self.topology_node(id);
        }
        Ok(())
    }

    fn restore_descriptors(&mut self, records: &Records) -> Result<(), RestoreError> {
        for record in records.of(Family::Models) {
            self.models.insert(record.decode::<ModelRecord>()?);
        }
        for record in records.of(Family::Descriptors) {
            let signed: Signed<Descriptor> = record.decode()?;
            let descriptor = signed.reread().map_err(|e| contradiction(record, &e))?;
            if descriptor.node != signed.signer() {
                return Err(contradiction(
                    record,
                    &"it is not signed by the node that it names",
                ));
            }
            self.nodes.attach(descriptor.node, &descriptor.entity);
            self.topology.upsert(descriptor);
        }
        Ok(())
    }

    fn restore_plans(&mut self, records: &Records) -> Result<(), RestoreError> {
        for record in records.of(Family::Plans) {
            let plan: PlanRecord = record.decode()?;
            let id = plan.plan.id.clone();
            if let Some(job) = &plan.job {
                self.plans
                    .applied
                    .insert(id, (plan.organisation.clone(), job.clone()));
            } else {
                self.plans.waiting.insert(id, plan);
            }
        }
        for record in records.of(Family::Idempotency) {
            let known: IdempotencyRecord = record.decode()?;
            self.plans.idempotency.insert(record.key.clone(), known);
        }
        Ok(())
    }

    fn restore_jobs(&mut self, records: &Records) -> Result<(), RestoreError> {
        let mut plans: BTreeMap<PlanId, &Record> = BTreeMap::new();
        for record in records.of(Family::Plans) {
            let id = record.key.parse().map_err(|e| contradiction(record, &e))?;
            plans.insert(id, record);
        }
        let parts = by_job(records.of(Family::JobParts));
        let receipts = by_job(records.of(Family::Receipts));
        let mut jobs: Vec<(Job, &Record)> = Vec::new();
        for record in records.of(Family::Jobs) {
            jobs.push((record.decode()?, record));
        }
        // The newest ended jobs come into memory whole, the others by their line only.
        jobs.sort_by(|(a, _), (b, _)| b.id.cmp(&a.id));
        let mut n_ended = 0;
        for (job, record) in jobs {
            n_ended += usize::from(job.phase.is_terminal());
            if job.phase.is_terminal() && n_ended > JOBS_ENDED_MAX {
                self.jobs.archived.insert(job.id.clone(), summary(&job));
                continue;
            }
            let plan = plans
                .get(&job.plan)
                .ok_or_else(|| contradiction(record, &"its plan is not there"))?;
            let none = Vec::new();
            let id = job.id.as_str();
            let entry = job_entry(
                record,
                job.clone(),
                plan,
                parts.get(id).unwrap_or(&none),
                receipts.get(id).unwrap_or(&none),
            )?;
            if !job.phase.is_terminal() {
                self.jobs.active.insert(job.id.clone());
            }
            self.jobs.by_id.insert(job.id, entry);
        }
        Ok(())
    }

    fn restore_deployments(&mut self, records: &Records) -> Result<(), RestoreError> {
        for record in records.of(Family::Deployments) {
            let deployment: Deployment = record.decode()?;
            let id = deployment.id.clone();
            if self.models.get(&deployment.model).is_none() {
                return Err(contradiction(record, &"its model is not registered"));
            }
            if !deployment.has_ended() {
                self.deployments.active.insert(id.clone());
            }
            let entry = Entry {
                deployment,
                written: ArtifactId::of(&record.value),
                wake: None,
                preferred: Vec::new(),
            };
            self.deployments.by_id.insert(id, entry);
        }
        Ok(())
    }

    fn restore_orders(&mut self, records: &Records) -> Result<(), RestoreError> {
        for record in records.of(Family::Orders) {
            let order: OrderRecord = record.decode()?;
            if order.signed.is_some()
                && let Some(node) = self.nodes.get_mut(order.node)
            {
                node.orders.insert(order.id.clone());
            }
            self.orders.insert(order);
        }
        Ok(())
    }
}

fn by_job(records: &[Record]) -> BTreeMap<&str, Vec<&Record>> {
    let mut by_job: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for record in records {
        let job = record.key.split('/').next().unwrap_or_default();
        by_job.entry(job).or_default().push(record);
    }
    by_job
}

/// A job from its own record, its plan's, and those of its parts.
fn job_entry(
    record: &Record,
    mut job: Job,
    plan: &Record,
    parts: &[&Record],
    receipts: &[&Record],
) -> Result<JobEntry, RestoreError> {
    let plan: PlanRecord = plan.decode()?;
    let mut sites: Vec<(u32, Site)> = Vec::new();
    let mut cycles: BTreeMap<u32, CycleRecord> = BTreeMap::new();
    for part in parts {
        let mut path = part.key.split('/').skip(1);
        let (kind, number) = (
            path.next(),
            path.next().and_then(|number| number.parse::<u32>().ok()),
        );
        match (kind, number) {
            (Some("site"), Some(position)) => sites.push((position, part.decode()?)),
            (Some("cycle"), Some(cycle)) => {
                cycles.insert(cycle, part.decode()?);
            }
            _ => return Err(contradiction(part, &"it is no part of a job")),
        }
    }
    let mut taken = BTreeSet::new();
    for receipt in receipts {
        let hash = receipt
            .key
            .split('/')
            .nth(1)
            .and_then(|hash| hash.parse::<ArtifactId>().ok());
        taken.insert(hash.ok_or_else(|| contradiction(receipt, &"it names no hash"))?);
    }
    job.sites = sites_from(plan.plan.sites.len(), sites);
    let mut entry = JobEntry::new(job, plan.plan);
    entry.cycles = cycles;
    entry.receipts = taken;
    entry.written = ArtifactId::of(&record.value);
    Ok(entry)
}

/// A job that is no longer in memory, from the records that the edge has read: the job's, its plan's, its parts.
///
/// # Errors
/// Where a record does not decode or contradicts another.
pub(crate) fn archived_job(job: &Record, plan: &Record, parts: &[Record]) -> Result<JobEntry, RestoreError> {
    let parts: Vec<&Record> = parts.iter().collect();
    job_entry(job, job.decode()?, plan, &parts, &[])
}

/// The plan of a job, by the job's record.
pub(crate) fn plan_of(job: &Record) -> Result<PlanId, RestoreError> {
    Ok(job.decode::<Job>()?.plan)
}
