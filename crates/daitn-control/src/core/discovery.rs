//! Discovery: entities by kind, structured filter and text, as far as the asker may see them.

use crate::{
    core::{Core, Who},
    limits::{HITS_DEFAULT, HITS_MAX},
};
use daitn_messages::{
    descriptor::Descriptor,
    ids::{EntityId, EntityKind},
    operation::{Answer, Principal, Scope, SearchAnswer},
    rejection::Rejection,
    request::{Hit, Search},
};

impl Core {
    /// Answers a search. `text` is what the text index found, best first; without it the order is that of the ids.
    pub(super) fn search(
        &mut self,
        principal: &Principal,
        search: &Search,
        text: Option<Vec<(EntityId, f32)>>,
    ) -> Result<Answer, Rejection> {
        let who = self.authorise(principal, Scope::Read)?;
        let limit = if search.limit == 0 {
            HITS_DEFAULT
        } else {
            search.limit
        };
        if limit > HITS_MAX {
            return Err(Rejection::too_large(
                "limit",
                u64::from(limit),
                u64::from(HITS_MAX),
            ));
        }
        let matches = self.topology.matches(search);
        let mut found: Vec<(EntityId, f32)> = match text {
            Some(text) => text
                .into_iter()
                .filter(|(entity, _)| matches.contains(entity))
                .collect(),
            None => matches
                .page(0, matches.len())
                .into_iter()
                .map(|entity| (entity, 0.0))
                .collect(),
        };
        let (policies, topology) = (&mut self.policies, &self.topology);
        found.retain(|(entity, _)| {
            topology
                .get(entity)
                .is_some_and(|d| policies.may_discover(&who, d))
        });
        let total = found.len() as u64;
        let page = found
            .into_iter()
            .skip(search.offset as usize)
            .take(limit as usize);
        let hits = page.filter_map(|(entity, score)| self.topology.get(&entity).map(|d| self.hit(d, score)));
        let hits = hits.collect();
        Ok(Answer::Hits(SearchAnswer { hits, total }))
    }

    fn hit(&self, descriptor: &Descriptor, score: f32) -> Hit {
        let online = if descriptor.entity.kind == EntityKind::Model {
            // A model is there when somebody serves it.
            let name = &descriptor.entity.name;
            self.deployments
                .active()
                .any(|d| d.model.name == *name && d.n_ready() > 0)
        } else {
            self.nodes.is_online(descriptor.node)
        };
        Hit {
            descriptor: descriptor.clone(),
            online,
            score,
        }
    }

    pub(super) fn get_entity(&mut self, who: &Who, entity: &EntityId) -> Result<Answer, Rejection> {
        let descriptor = self.visible(who, entity)?;
        Ok(Answer::Entity(Box::new(self.hit(&descriptor, 0.0))))
    }
}
