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
use std::{collections::BTreeMap, sync::Arc};

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
        let fitting = self.topology_search(search);
        let mut found: Vec<(Arc<Descriptor>, f32)> = match text {
            Some(text) => {
                let scores: BTreeMap<&EntityId, f32> =
                    text.iter().map(|(entity, score)| (entity, *score)).collect();
                let scored = fitting
                    .into_iter()
                    .filter_map(|d| scores.get(&d.entity).map(|score| (d, *score)));
                let mut scored: Vec<_> = scored.collect();
                scored.sort_by(|(a, x), (b, y)| y.total_cmp(x).then_with(|| a.entity.cmp(&b.entity)));
                scored
            }
            None => fitting.into_iter().map(|descriptor| (descriptor, 0.0)).collect(),
        };
        found.retain(|(descriptor, _)| self.policies.may_discover(&who, descriptor));
        let total = found.len() as u64;
        let page = found
            .into_iter()
            .skip(search.offset as usize)
            .take(limit as usize);
        let hits = page
            .map(|(descriptor, score)| self.hit(&descriptor, score))
            .collect();
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
