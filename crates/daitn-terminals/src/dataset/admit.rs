//! Whether a dataset terminal takes part in a job: its own descriptor, its own policy, its own configuration decide,
//! whoever signed the order.

use super::Dataset;
use crate::shared::Shared;
use daitn_messages::{
    descriptor::{Body, Descriptor},
    ids::NodeId,
    order::TrainOrder,
    policy::{PolicyQuestion, Verb},
    rejection::{Code, Rejection},
};
use daitn_policy::ResourceFacts;
use std::sync::Arc;

/// What a policy calls a plan that is an itinerary, whatever its strategy.
const ITINERARY: &str = "itinerary";

/// Nodes besides the conductor's that may fetch what is trained here: the other sites of a chain.
fn chain_mates(own: NodeId, train: &TrainOrder) -> impl Iterator<Item = NodeId> {
    let peers = train.peers.iter().map(|peer| peer.node);
    peers.filter(move |node| *node != own && *node != train.conductor.node)
}

impl Dataset {
    /// The rules that permit the order.
    ///
    /// # Errors
    /// Why the terminal does not take part.
    pub(crate) async fn admit(
        &self,
        shared: &Shared,
        descriptor: &Descriptor,
        train: &TrainOrder,
    ) -> Result<Vec<String>, Rejection> {
        if train.dataset != descriptor.entity {
            return Err(Rejection::malformed(
                "dataset",
                "the order is for another dataset than its terminal",
            ));
        }
        if train.descriptor_version != descriptor.version {
            let message = format!(
                "the plan agreed to version {} of {}, which is now at version {}",
                train.descriptor_version, descriptor.entity, descriptor.version
            );
            return Err(Rejection::new(Code::Conflict, message).with_hint("Plan again."));
        }
        self.columns.fit(&train.spec)?;
        shared.engine.layout(&train.spec).map_err(Rejection::from)?;
        self.check_compute(train)?;
        let algorithm = &train.context.algorithm;
        if algorithm != ITINERARY && algorithm != train.strategy.as_str() {
            let message = format!(
                "the order says `{algorithm}` to the policy and `{}` to the trainer",
                train.strategy.as_str()
            );
            return Err(Rejection::malformed("algorithm", &message));
        }
        let n_mates = chain_mates(shared.node, train).count();
        if n_mates > 0 && algorithm != ITINERARY {
            let message = format!(
                "the order says `{algorithm}` to the policy and passes what is trained here on to {n_mates} other sites, as \
                 an {ITINERARY} does"
            );
            return Err(Rejection::malformed("algorithm", &message));
        }
        if algorithm == ITINERARY && train.context.cohort > 1 {
            let message = format!(
                "the order says {} to the policy, and a model that travels holds one site's work when it leaves it",
                train.context.cohort
            );
            return Err(Rejection::malformed("cohort", &message));
        }
        self.ask_policy(shared, descriptor, train).await
    }

    /// Asks the owner's policy as it is now.
    pub(crate) async fn ask_policy(
        &self,
        shared: &Shared,
        descriptor: &Descriptor,
        train: &TrainOrder,
    ) -> Result<Vec<String>, Rejection> {
        let question = PolicyQuestion {
            who: train.requester.clone(),
            verb: Verb::Train,
            what: descriptor.entity.clone(),
            context: train.context.clone(),
        };
        let facts = ResourceFacts::of(descriptor);
        let policy = Arc::clone(&self.policy);
        let answer = crate::durable::blocking(move || policy.ask(&question, &facts)).await;
        if let Body::Dataset(body) = &descriptor.body
            && !self.policy.is(&body.policy)
        {
            // The owner has changed it: others shall see the new text too.
            shared.described.notify_one();
        }
        answer
    }

    /// Who computes must be whom the owner named.
    fn check_compute(&self, train: &TrainOrder) -> Result<(), Rejection> {
        let refuse = |message: String| Err(Rejection::new(Code::PolicyForbids, message));
        let Some(peer) = &train.compute else {
            return if self.options.compute {
                Ok(())
            } else {
                refuse(
                    "this node does not train on the data itself, and the order names no facility".to_owned(),
                )
            };
        };
        let Some(entity) = &train.compute_entity else {
            return refuse("the order sends the data to a facility without naming it".to_owned());
        };
        match self
            .options
            .compute_allowed
            .iter()
            .find(|facility| facility.entity == *entity)
        {
            None => refuse(format!("the owner does not let {entity} train on the data")),
            Some(facility) if facility.node.is_some_and(|node| node != peer.node) => refuse(format!(
                "{entity} is pinned to another node than {}",
                peer.node.short()
            )),
            Some(_) => Ok(()),
        }
    }
}
