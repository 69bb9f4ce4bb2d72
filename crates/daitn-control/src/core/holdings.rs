//! The newest descriptor of each entity.

use daitn_messages::{descriptor::Descriptor, ids::EntityId};
use std::{collections::BTreeMap, sync::Arc};

/// A descriptor that is in force.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) descriptor: Arc<Descriptor>,
}

/// All descriptors, by entity.
#[derive(Debug, Clone, Default)]
pub(crate) struct Descriptors(BTreeMap<EntityId, Held>);

impl Descriptors {
    pub(crate) fn get(&self, entity: &EntityId) -> Option<&Held> {
        self.0.get(entity)
    }

    pub(crate) fn insert(&mut self, descriptor: Arc<Descriptor>) {
        self.0.insert(descriptor.entity.clone(), Held { descriptor });
    }

    pub(crate) fn remove(&mut self, entity: &EntityId) -> Option<Held> {
        self.0.remove(entity)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Descriptor>> {
        self.0.values().map(|held| &held.descriptor)
    }
}
