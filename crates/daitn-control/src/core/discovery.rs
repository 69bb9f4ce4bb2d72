//! Discovery: entities by kind, structured filter and text, as far as the asker may see them.

use crate::{
    core::{Core, Who, access::model_entity},
    limits::{HITS_DEFAULT, HITS_MAX},
};
use daitn_messages::{
    descriptor::Descriptor,
    ids::{EntityId, EntityKind},
    learning::ModelVersion,
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
        let (policies, topology) = (&mut self.policies, &self.topology);
        let mut matches = topology.matches(search);
        if !who.is_admin {
            matches = matches.seen_by(&who.organisation, &mut |descriptor| {
                policies.sight(&who, descriptor)
            });
        }
        let (offset, limit) = (search.offset as usize, limit as usize);
        let (total, page): (usize, Vec<(EntityId, f32)>) = match text {
            Some(text) => {
                let found = text.into_iter().filter(|(entity, _)| matches.contains(entity));
                let found: Vec<_> = found.collect();
                let total = found.len();
                (total, found.into_iter().skip(offset).take(limit).collect())
            }
            None => {
                let page = matches.page(offset, limit).into_iter();
                (matches.len(), page.map(|entity| (entity, 0.0)).collect())
            }
        };
        let total = total as u64;
        let page = page.into_iter();
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

    pub(super) fn get_model(&mut self, who: &Who, model: &ModelVersion) -> Result<Answer, Rejection> {
        let not_found = || Rejection::not_found("model", &model.name);
        let owner = self.models.owner(&model.name).cloned().ok_or_else(not_found)?;
        self.visible(who, &model_entity(&owner, model))
            .map_err(|_| not_found())?;
        let record = self.models.get(model);
        let record = record.ok_or_else(|| self.models.no_version(model))?;
        let descriptor = record.signed.reread()?;
        Ok(Answer::Entity(Box::new(self.hit(&descriptor, 0.0))))
    }
}
