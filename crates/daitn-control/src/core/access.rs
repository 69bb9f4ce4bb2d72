//! Who may query which model and call which agent: evaluated for each organisation that has keys when something of it
//! changes, and pushed to the gateways with the snapshot. A query's path holds no evaluation and no control hop.

use crate::core::Core;
use daitn_messages::{
    ids::{EntityId, EntityKind, OrganisationId},
    learning::ModelVersion,
    operation::Scope,
    snapshot::Access,
};
use std::collections::{BTreeMap, BTreeSet};

/// What was evaluated, and for what.
#[derive(Debug, Default)]
pub(crate) struct AccessTable {
    /// By which of the domain's policies.
    domain_version: u64,
    /// For which organisations: those with a key that may query.
    organisations: BTreeSet<OrganisationId>,
    /// By entity and version of its descriptor, which is the version of a model.
    by_entity: BTreeMap<(EntityId, u64), Access>,
}

impl AccessTable {
    /// Who may; nobody where it was not evaluated.
    pub(crate) fn of(&self, entity: &EntityId, version: u64) -> Access {
        let key = (entity.clone(), version);
        self.by_entity.get(&key).cloned().unwrap_or_default()
    }
}

impl Core {
    /// Evaluates what has changed since the last snapshot.
    pub(super) fn refresh_access(&mut self) {
        let keys = self.keys.values();
        let asking = keys.filter(|key| !key.revoked && key.scopes.contains(&Scope::Query));
        let organisations: BTreeSet<OrganisationId> = asking.map(|key| key.organisation.clone()).collect();
        let mut known = std::mem::take(&mut self.access);
        if known.organisations != organisations || known.domain_version != self.policies.domain_version {
            known.by_entity.clear();
        }
        let mut by_entity = BTreeMap::new();
        for (entity, version) in self.queried() {
            let key = (entity, version);
            let access = known
                .by_entity
                .remove(&key)
                .unwrap_or_else(|| self.evaluate_access(&key.0, version, &organisations));
            by_entity.insert(key, access);
        }
        self.access = AccessTable {
            domain_version: self.policies.domain_version,
            organisations,
            by_entity,
        };
    }

    /// Models that are deployed, the newest of each name, and agents that can be called, by version.
    fn queried(&self) -> BTreeSet<(EntityId, u64)> {
        let deployed = self.deployments.active().map(|d| (&d.organisation, &d.model));
        let newest = self.models.newest_of_each().map(|r| (&r.organisation, &r.model));
        let models = deployed
            .chain(newest)
            .map(|(owner, model)| (model_entity(owner, model), u64::from(model.version)));
        let agents = self.topology.of_kind(EntityKind::Agent);
        models
            .chain(
                agents
                    .into_iter()
                    .map(|agent| (agent.entity.clone(), agent.version)),
            )
            .collect()
    }

    fn evaluate_access(
        &mut self,
        entity: &EntityId,
        version: u64,
        organisations: &BTreeSet<OrganisationId>,
    ) -> Access {
        let Some(descriptor) = self.topology.get(entity).cloned() else {
            return Access::default();
        };
        let owner_text = self.models.policy(entity, version);
        let others = entity.kind == EntityKind::Agent;
        // Without a policy only the owner differs from the others, and only at a model.
        let owner = BTreeSet::from([entity.organisation.clone()]);
        let asked = if self.policies.decides_queries(&owner_text) {
            organisations
        } else {
            &owner
        };
        let answers = asked.iter().map(|who| {
            let answer = self.policies.may_query(who, &descriptor, &owner_text);
            (who.clone(), answer)
        });
        let named = answers.filter(|(_, answer)| {
            answer.allowed != others || !answer.determining.is_empty() || !answer.errors.is_empty()
        });
        Access {
            others,
            named: named.collect(),
        }
    }
}

/// A model as policies name it.
pub(super) fn model_entity(organisation: &OrganisationId, model: &ModelVersion) -> EntityId {
    EntityId {
        kind: EntityKind::Model,
        organisation: organisation.clone(),
        name: model.name.clone(),
    }
}
