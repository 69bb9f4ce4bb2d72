//! Descriptors: attached by the node that holds the entity, checked, versioned, withdrawn.

use crate::{
    core::{
        Core,
        event::{Effect, RequestId},
        snapshot::ROUTED,
        turn::Turn,
    },
    limits::{DESCRIPTORS_MAX, MEASUREMENTS_MAX},
};
use daitn_messages::{
    control::Link,
    descriptor::{Body, Descriptor, Telemetry},
    encoding,
    ids::{EntityId, EntityKind, NodeId},
    leaf::LeafKind,
    limits::{DESCRIPTOR_BYTES_MAX, TERMINALS_MAX},
    rejection::{Code, Rejection},
    signed::Signed,
};
use daitn_policy::PolicySet;
use daitn_store::Family;

impl Core {
    pub(super) fn attach(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        node: NodeId,
        signed: &Signed<Descriptor>,
    ) {
        match self.admit_descriptor(node, signed) {
            Ok(None) => turn.done(request),
            Ok(Some(descriptor)) => {
                let is_aggregator = descriptor.entity.kind == EntityKind::Aggregator;
                self.put_descriptor(turn, signed, descriptor);
                turn.done(request);
                self.introduce_gateways(turn, node);
                if is_aggregator {
                    // The sites were here before it and could not be asked to measure the way to it.
                    self.ask_for_probes(turn, node);
                }
            }
            Err(rejection) => turn.reply_node(request, Err(rejection)),
        }
    }

    /// The descriptor if it is new; none if it is what is there already.
    fn admit_descriptor(
        &self,
        node: NodeId,
        signed: &Signed<Descriptor>,
    ) -> Result<Option<Descriptor>, Rejection> {
        let n_bytes = encoding::encode(signed).len();
        if n_bytes > DESCRIPTOR_BYTES_MAX {
            return Err(Rejection::too_large(
                "descriptor",
                n_bytes as u64,
                DESCRIPTOR_BYTES_MAX as u64,
            ));
        }
        let descriptor = signed.open(node)?;
        let known = self.member(node)?;
        if descriptor.node != node {
            return Err(Rejection::malformed(
                "node",
                "a descriptor names the node that signs it",
            ));
        }
        descriptor.validate()?;
        let entity = &descriptor.entity;
        if entity.organisation != known.record.organisation {
            let message = format!("a node of {} cannot describe {entity}", known.record.organisation);
            return Err(Rejection::new(Code::TerminalNotAllowed, message));
        }
        if !known.may_attach(entity.kind) {
            let message = format!("this node may not attach a {}", entity.kind);
            return Err(Rejection::new(Code::TerminalNotAllowed, message));
        }
        match self.topology.get(entity) {
            Some(held) if held.node != node => {
                let message = format!("{entity} is held by another node, {}", held.node.short());
                return Err(Rejection::new(Code::Conflict, message)
                    .with_hint("Withdraw it there, or give this one another name."));
            }
            Some(held) if held.version > descriptor.version => {
                let message = format!("{entity} has version {} already", held.version);
                return Err(Rejection::new(Code::Conflict, message).with_hint("Raise the version."));
            }
            Some(held) if held.version == descriptor.version => {
                // Signed anew after a restart it may differ in the time of its making only.
                if same_but_for_time(held, &descriptor) {
                    return Ok(None);
                }
                let message = format!(
                    "{entity} version {} exists with other content",
                    descriptor.version
                );
                return Err(Rejection::new(Code::Conflict, message).with_hint("Raise the version."));
            }
            Some(_) => {}
            None if known.entities.len() >= TERMINALS_MAX => {
                let n_terminals = known.entities.len() as u64 + 1;
                return Err(Rejection::too_large(
                    "terminals of a node",
                    n_terminals,
                    TERMINALS_MAX as u64,
                ));
            }
            None if self.topology.len() >= DESCRIPTORS_MAX => {
                let n_descriptors = self.topology.len() as u64 + 1;
                return Err(Rejection::too_large(
                    "descriptors",
                    n_descriptors,
                    DESCRIPTORS_MAX as u64,
                ));
            }
            None => {}
        }
        if let Body::Dataset(body) = &descriptor.body {
            PolicySet::parse(&body.policy)?;
        }
        Ok(Some(descriptor))
    }

    pub(super) fn put_descriptor(
        &mut self,
        turn: &mut Turn<'_>,
        signed: &Signed<Descriptor>,
        descriptor: Descriptor,
    ) {
        let entity = descriptor.entity.clone();
        turn.batch.put(Family::Descriptors, entity.to_string(), signed);
        turn.leaf(
            LeafKind::Descriptor,
            &entity,
            signed.hash(),
            [&entity.organisation],
        );
        self.nodes.attach(descriptor.node, &entity);
        if ROUTED.contains(&entity.kind) {
            self.snapshot.changed();
        }
        self.topology.upsert(descriptor);
        if let Some(descriptor) = self.topology.get(&entity) {
            turn.effect(Effect::Index(descriptor.clone()));
        }
        self.state_changed(turn);
        if entity.kind == EntityKind::ModelHost {
            self.review_all_deployments(turn);
        }
    }

    pub(super) fn detach(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        node: NodeId,
        entity: &EntityId,
    ) {
        if self.topology.get(entity).is_some_and(|held| held.node == node) {
            self.withdraw(turn, entity);
            self.state_changed(turn);
            self.review_deployments(turn, node, false);
        }
        // Gone already is as good.
        turn.done(request);
    }

    /// Takes an entity out of everything but the log.
    pub(super) fn withdraw(&mut self, turn: &mut Turn<'_>, entity: &EntityId) {
        let Some(held) = self.topology.get(entity).map(|held| held.node) else {
            return;
        };
        turn.batch.delete(Family::Descriptors, entity.to_string());
        turn.effect(Effect::Unindex(entity.clone()));
        self.nodes.detach(held, entity);
        self.topology.withdraw(entity);
        self.snapshot.changed();
    }

    pub(super) fn telemetry(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        node: NodeId,
        news: Vec<Telemetry>,
    ) {
        if news.len() > MEASUREMENTS_MAX {
            let rejection = Rejection::too_large("telemetry", news.len() as u64, MEASUREMENTS_MAX as u64);
            turn.reply_node(request, Err(rejection));
            return;
        }
        for telemetry in news {
            let held_there = self
                .topology
                .get(&telemetry.entity)
                .is_some_and(|held| held.node == node);
            let sane = telemetry.load.is_finite() && telemetry.service_seconds.is_finite();
            if held_there && sane {
                self.take_telemetry(turn, telemetry);
            }
        }
        turn.done(request);
    }

    pub(super) fn links(&mut self, turn: &mut Turn<'_>, request: RequestId, node: NodeId, links: Vec<Link>) {
        if links.len() > MEASUREMENTS_MAX {
            let rejection = Rejection::too_large("links", links.len() as u64, MEASUREMENTS_MAX as u64);
            turn.reply_node(request, Err(rejection));
            return;
        }
        for link in links {
            // A node speaks for its own end only.
            if link.from == node && self.nodes.get(link.to).is_some() {
                self.topology.link(link);
            }
        }
        turn.done(request);
    }
}

fn same_but_for_time(held: &Descriptor, new: &Descriptor) -> bool {
    let mut new = new.clone();
    new.issued_at = held.issued_at;
    *held == new
}
