//! Registered models: versions, provenance, who has the weights.

use crate::{
    core::{Core, Turn, event::Effect},
    job,
    limits::READERS_MAX,
};
use daitn_messages::{
    descriptor::{Body, Descriptor, ModelBody},
    ids::{EntityId, EntityKind, JobId, NodeId, OrganisationId, Slug},
    leaf::LeafKind,
    learning::ModelVersion,
    rejection::{Code, Rejection},
    signed::Signed,
};
use daitn_store::Family;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// A registered version of a model as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ModelRecord {
    pub(crate) model: ModelVersion,
    pub(crate) organisation: OrganisationId,
    pub(crate) body: ModelBody,
    /// The card, signed by the control center.
    pub(crate) signed: Signed<Descriptor>,
    /// Nodes that have the weights, as far as known.
    pub(crate) holders: Vec<NodeId>,
    /// The owner's policy on queries; empty: none.
    #[serde(default)]
    pub(crate) policy: String,
}

/// All registered models.
#[derive(Debug, Default)]
pub(crate) struct Models {
    by_version: BTreeMap<ModelVersion, ModelRecord>,
}

impl Models {
    pub(crate) fn get(&self, model: &ModelVersion) -> Option<&ModelRecord> {
        self.by_version.get(model)
    }

    /// How large a version's weights are; 0 where it is not known.
    pub(crate) fn weights_bytes(&self, model: &ModelVersion) -> u64 {
        self.get(model).map_or(0, |model| model.body.weights_bytes)
    }

    pub(crate) fn insert(&mut self, record: ModelRecord) {
        self.by_version.insert(record.model.clone(), record);
    }

    fn versions(&self, name: &Slug) -> impl DoubleEndedIterator<Item = &ModelRecord> {
        let version = |version| ModelVersion {
            name: name.clone(),
            version,
        };
        self.by_version
            .range(version(0)..=version(u32::MAX))
            .map(|(_, record)| record)
    }

    pub(crate) fn newest(&self, name: &Slug) -> Option<u32> {
        self.versions(name).next_back().map(|record| record.model.version)
    }

    /// The newest version of each name, in the order of names.
    pub(crate) fn newest_of_each(&self) -> impl Iterator<Item = &ModelRecord> {
        let mut records = self.by_version.values().peekable();
        std::iter::from_fn(move || {
            loop {
                let record = records.next()?;
                if records
                    .peek()
                    .is_none_or(|next| next.model.name != record.model.name)
                {
                    return Some(record);
                }
            }
        })
    }

    /// The version before this one.
    pub(crate) fn before(&self, name: &Slug, version: u32) -> Option<u32> {
        self.versions(name)
            .rev()
            .map(|record| record.model.version)
            .find(|v| *v < version)
    }

    /// The refusal of a version that there is not.
    pub(crate) fn no_version(&self, model: &ModelVersion) -> Rejection {
        let ModelVersion { name, version } = model;
        let known = self.versions(name).map(|record| record.model.version.to_string());
        let known = known.collect::<Vec<_>>().join(", ");
        let message = format!("`{name}` has no version {version}; it has {known}");
        Rejection::new(Code::NotFound, message).with_hint(format!("Look at it: daitn model get {name}"))
    }

    /// The owner's policy on queries of a version; empty where there is none.
    pub(crate) fn policy(&self, entity: &EntityId, version: u64) -> String {
        let record = u32::try_from(version).ok().and_then(|version| {
            self.get(&ModelVersion {
                name: entity.name.clone(),
                version,
            })
        });
        let record =
            record.filter(|r| entity.kind == EntityKind::Model && r.organisation == entity.organisation);
        record.map(|record| record.policy.clone()).unwrap_or_default()
    }

    /// The same of the newest version.
    pub(crate) fn newest_policy(&self, entity: &EntityId) -> String {
        let newest = self.newest(&entity.name).unwrap_or(0);
        self.policy(entity, u64::from(newest))
    }

    /// Whose name it is. Clients call a model by its name alone, so that a name is one organisation's.
    pub(crate) fn owner(&self, name: &Slug) -> Option<&OrganisationId> {
        self.versions(name).next().map(|record| &record.organisation)
    }

    pub(crate) fn add_holder(&mut self, turn: &mut Turn<'_>, model: &ModelVersion, node: NodeId) {
        if let Some(record) = self.by_version.get_mut(model)
            && !record.holders.contains(&node)
            && record.holders.len() < READERS_MAX
        {
            record.holders.push(node);
            turn.batch.put(Family::Models, key(model), record);
        }
    }
}

/// The key of a model's record: versions sort by number.
pub(crate) fn key(model: &ModelVersion) -> String {
    format!("{}/{:010}", model.name, model.version)
}

impl Core {
    /// A model's name belongs to the organisation that had it first, also while its first job is under way.
    pub(super) fn check_name(&self, name: &Slug, organisation: &OrganisationId) -> Result<(), Rejection> {
        let under_way = self.jobs.active.iter().filter_map(|id| self.jobs.by_id.get(id));
        let under_way = under_way
            .filter(|entry| entry.job.name == *name)
            .map(|entry| &entry.job.organisation);
        let taken = self
            .models
            .owner(name)
            .into_iter()
            .chain(under_way)
            .any(|owner| owner != organisation);
        if taken {
            let message = format!("the model name `{name}` is another organisation's");
            return Err(Rejection::new(Code::Conflict, message).with_hint("Choose another name."));
        }
        Ok(())
    }

    /// Registers the verified model of a job under its next version.
    pub(super) fn register_model(&mut self, turn: &mut Turn<'_>, id: &JobId, mut body: ModelBody) {
        let Some(entry) = self.jobs.by_id.get(id) else {
            return;
        };
        let (organisation, name) = (entry.job.organisation.clone(), entry.job.name.clone());
        let version = self.models.newest(&name).unwrap_or(0) + 1;
        body.model_version = version;
        let deployment = entry.plan.request.deployment.as_ref();
        let policy = deployment.map(|wanted| wanted.policy.clone()).unwrap_or_default();
        let conductor = entry
            .job
            .conductor
            .iter()
            .map(|conductor| conductor.placement.node);
        let units = entry
            .job
            .units
            .iter()
            .filter(|unit| matches!(unit.finding, job::Finding::Reported { .. }));
        let holders = conductor.chain(units.map(|unit| unit.placement.node)).collect();
        let descriptor = Descriptor {
            entity: EntityId {
                kind: EntityKind::Model,
                organisation: organisation.clone(),
                name: name.clone(),
            },
            version: u64::from(version),
            node: self.config.key.id(),
            title: name.to_string(),
            description: format!("{} model trained by {id}", entry.plan.kind.as_str()),
            jurisdiction: entry.plan.request.jurisdiction.clone(),
            issued_at: turn.now,
            body: Body::Model(Box::new(body.clone())),
        };
        let signed = Signed::seal(&descriptor, &self.config.key);
        let model = ModelVersion { name, version };
        let record = ModelRecord {
            model: model.clone(),
            organisation: organisation.clone(),
            body,
            signed: signed.clone(),
            holders,
            policy,
        };
        turn.batch.put(Family::Models, key(&model), &record);
        turn.leaf(
            LeafKind::Registration,
            &descriptor.entity,
            signed.hash(),
            [&organisation],
        );
        self.models.insert(record);
        self.snapshot.changed();
        turn.effect(Effect::Index(Arc::new(descriptor.clone())));
        turn.batch
            .put(Family::Descriptors, descriptor.entity.to_string(), &signed);
        self.topology.upsert(descriptor);
        if let Err(rejection) = self.step_job(turn, id, job::Input::Registered(model)) {
            tracing::error!(job = %id, %rejection, "a job refused its own model");
        }
    }
}
