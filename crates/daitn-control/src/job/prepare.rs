//! The sites' work orders: what each is told and under which circumstances its owner is asked.

use crate::{
    core::{OrderDraft, OrderKind},
    job::{Answer, Job, Step},
    limits::ORDER_VALID_MS,
};
use daitn_messages::{
    order::{ComputeOrder, Instruction, TrainOrder},
    plan::{Placement, Plan},
    session::Peer,
};

/// The other sites of a site's chain: weights travel from one to the next.
fn chain_of(plan: &Plan, position: u32) -> impl Iterator<Item = u32> {
    let chain = plan.chains.iter().find(|chain| chain.contains(&position));
    chain
        .into_iter()
        .flatten()
        .copied()
        .filter(move |other| *other != position)
}

impl Job {
    /// Asks one site, and its compute facility.
    pub(super) fn ask_site(&mut self, position: u32, conductor: &Placement, step: &mut Step<'_>) {
        let plan = step.plan;
        let site = &plan.sites[position as usize];
        let train_id = step.new_order_id();
        let peers = |step: &Step<'_>| -> Vec<Peer> {
            let chain = chain_of(step.plan, position).map(|other| step.plan.sites[other as usize].node);
            let mut nodes: Vec<_> = chain
                .chain([conductor.node])
                .filter(|node| *node != site.node)
                .collect();
            nodes.sort_unstable();
            nodes.dedup();
            nodes.into_iter().map(|node| step.nodes.peer(node)).collect()
        };
        let order = TrainOrder {
            requester: self.organisation.clone(),
            dataset: site.dataset.clone(),
            descriptor_version: site.descriptor_version,
            context: daitn_topology::site_context(step.plan, position as usize),
            plan: step.plan_hash,
            spec: step.plan.model_spec(),
            local: step.plan.request.training.local,
            strategy: step.plan.strategy,
            cycles: step.plan.rounds,
            position,
            conductor: step.nodes.peer(conductor.node),
            peers: peers(step),
            compute: site.compute.as_ref().map(|compute| step.nodes.peer(compute.node)),
            compute_entity: site.compute.as_ref().map(|compute| compute.entity.clone()),
        };
        self.sites.update(position, |state| {
            state.order = Some(train_id.clone());
            state.answer = Answer::Waiting;
        });
        step.order(OrderDraft {
            id: train_id,
            kind: OrderKind::Train(position),
            epoch: self.epoch,
            node: site.node,
            terminal: site.dataset.clone(),
            valid_ms: ORDER_VALID_MS,
            instruction: Instruction::Train(Box::new(order)),
        });
        // A facility does not depend on who conducts: it is asked once.
        let was_asked = self
            .sites
            .get(position)
            .is_some_and(|state| state.compute_order.is_some());
        if let Some(compute) = site.compute.as_ref().filter(|_| !was_asked) {
            let id = step.new_order_id();
            self.sites.update(position, |state| {
                state.compute_order = Some(id.clone());
                state.compute_answer = Answer::Waiting;
            });
            let order = ComputeOrder {
                client: step.nodes.peer(site.node),
                dataset: site.dataset.clone(),
                spec: step.plan.model_spec(),
            };
            step.order(OrderDraft {
                id,
                kind: OrderKind::Compute(position),
                epoch: self.epoch,
                node: compute.node,
                terminal: compute.entity.clone(),
                valid_ms: ORDER_VALID_MS,
                instruction: Instruction::Compute(Box::new(order)),
            });
        }
        step.out.push(crate::job::Output::KeepSite(position));
    }
}
