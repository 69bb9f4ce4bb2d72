//! The state machine of a deployment: so many replicas of one model version on hosts, kept up until it is stopped.
//!
//! A host whose node is gone too long is replaced; one that could not serve is asked again after a while. At no time
//! are there more hosts than replicas that were asked for.

use crate::{
    core::{Decision, HostSearch, Nodes, OrderDraft, OrderKind},
    entropy::Entropy,
    limits::{SERVE_VALID_MS, Timing},
};
use daitn_messages::{
    ids::{DeploymentId, EntityId, JobId, NodeId, OrderId, OrganisationId},
    job::{Candidate, DeploymentPhase, DeploymentView, Waiting},
    learning::{ModelSpec, ModelVersion},
    order::{Instruction, ServeOrder},
    plan::Placement,
    receipt::{Outcome, Receipt},
    rejection::{Code, Rejection},
    session::{ArtifactRef, Peer},
    units::{UnixMillis, counted},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Hosts that a shortage names with what they answered.
const REFUSALS_TOLD_MAX: usize = 3;

/// A deployment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Deployment {
    pub(crate) id: DeploymentId,
    pub(crate) organisation: OrganisationId,
    pub(crate) model: ModelVersion,
    pub(crate) job: Option<JobId>,
    pub(crate) replicas: u32,
    pub(crate) phase: DeploymentPhase,
    pub(crate) created_at: UnixMillis,
    /// When it first was ready.
    pub(crate) ready_at: Option<UnixMillis>,
    pub(crate) ended_at: Option<UnixMillis>,
    /// Until when something must be served for the first time.
    pub(crate) deadline: UnixMillis,
    pub(crate) hosts: Vec<Host>,
    /// Hosts that could not serve, until when they are not asked again, and why.
    pub(crate) refused: Vec<(EntityId, UnixMillis, Rejection)>,
    /// Since when there are fewer hosts than replicas that were asked for.
    #[serde(default)]
    pub(crate) short_since: Option<UnixMillis>,
    /// Hosts that would do, but for their nodes, which are being drained.
    #[serde(default)]
    pub(crate) n_drained: u32,
    pub(crate) cause: Option<Rejection>,
}

/// A replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Host {
    pub(crate) placement: Placement,
    pub(crate) order: OrderId,
    /// It said that it will serve.
    pub(crate) accepted: bool,
    /// It serves.
    pub(crate) ready: bool,
    pub(crate) since: UnixMillis,
}

/// What happens to a deployment.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    /// A host answered.
    Receipt(&'a Receipt),
    /// It began, a node came or went, or a deadline may have passed.
    Review,
    /// The node of these entities is back: what they could not do before, they may do now.
    Back(&'a BTreeSet<EntityId>),
    /// It is to end.
    Stop(Rejection),
}

/// What a deployment wants.
#[derive(Debug)]
pub(crate) enum Output {
    /// Sign and send an order.
    Order(Box<OrderDraft>),
    /// End an order at its host.
    Cancel(OrderId),
    /// A node has the weights.
    Holds(NodeId),
    /// A decision was made.
    Decide(Decision),
}

/// What a deployment may look at while it moves.
pub(crate) struct Step<'a> {
    pub(crate) now: UnixMillis,
    pub(crate) timing: &'a Timing,
    pub(crate) nodes: &'a Nodes,
    pub(crate) hosts: &'a HostSearch<'a>,
    pub(crate) spec: &'a ModelSpec,
    pub(crate) weights: ArtifactRef,
    pub(crate) holders: Vec<Peer>,
    pub(crate) gateways: Vec<NodeId>,
    pub(crate) readers: Vec<NodeId>,
    pub(crate) entropy: &'a mut Entropy,
    pub(crate) out: Vec<Output>,
}

impl Deployment {
    /// Whether nothing more will happen.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.phase, DeploymentPhase::Stopped | DeploymentPhase::Failed)
    }

    pub(crate) fn n_ready(&self) -> usize {
        self.hosts.iter().filter(|host| host.ready).count()
    }

    /// As others see it now. A host whose node is away is not ready for them, though nothing is done about it before it
    /// counts as lost: most come back.
    pub(crate) fn view(&self, nodes: &Nodes, timing: &Timing) -> DeploymentView {
        let host = |host: &Host| {
            let node = host.placement.node;
            let ready = host.ready && nodes.is_online(node);
            (host.placement.entity.clone(), node, ready)
        };
        let hosts: Vec<_> = self.hosts.iter().map(host).collect();
        let all_ready = hosts.iter().all(|(_, _, ready)| *ready);
        DeploymentView {
            id: self.id.clone(),
            model: self.model.clone(),
            phase: match self.phase {
                DeploymentPhase::Ready if !all_ready => DeploymentPhase::Degraded,
                phase => phase,
            },
            replicas: self.replicas,
            hosts,
            cause: self.cause.clone(),
            waiting: self.waiting(nodes, timing),
        }
    }

    /// What the deployment waits for: hosts that fit, where too few are there, or one to come back.
    pub(crate) fn waiting(&self, nodes: &Nodes, timing: &Timing) -> Option<Waiting> {
        self.waits_for_hosts()
            .or_else(|| self.waits_for_return(nodes, timing))
    }

    fn waits_for_return(&self, nodes: &Nodes, timing: &Timing) -> Option<Waiting> {
        let away = self
            .hosts
            .iter()
            .filter_map(|host| Some((nodes.offline_since(host.placement.node)?, &host.placement.entity)));
        let (since, host) = away.min()?;
        Some(Waiting {
            reason: format!("{host} is not connected; if it stays away, another host is looked for"),
            since,
            until: Some(since.plus(timing.host_lost_ms)),
        })
    }

    fn waits_for_hosts(&self) -> Option<Waiting> {
        let since = self.short_since.filter(|_| !self.has_ended())?;
        let placing = self.phase == DeploymentPhase::Placing;
        let then = if placing {
            "; then it serves with those that are ready, or fails if none is"
        } else {
            ""
        };
        Some(Waiting {
            reason: format!("{}{then}", self.shortage()),
            since,
            until: placing.then_some(self.deadline),
        })
    }

    /// Why no replica is ready, for who queries the model.
    pub(crate) fn not_ready(&self, nodes: &Nodes) -> String {
        if let Some(waiting) = self.waits_for_hosts() {
            return waiting.reason;
        }
        let hosts = self.hosts.iter().map(|host| {
            let state = if nodes.is_online(host.placement.node) {
                "is loading it"
            } else {
                "is not connected"
            };
            format!("{} {state}", host.placement.entity)
        });
        format!(
            "version {} is deployed, and {}",
            self.model.version,
            hosts.collect::<Vec<_>>().join(", ")
        )
    }

    fn shortage(&self) -> String {
        let why = match self.n_drained {
            0 => "no other connected host fits the model".to_owned(),
            n => format!(
                "{} that would do {} being drained (`daitn node drain NODE --undo` gives a node work again)",
                counted(n as usize, "host"),
                if n == 1 { "is" } else { "are" }
            ),
        };
        let mut text = format!(
            "{} of {} placed, and {why}",
            self.hosts.len(),
            counted(self.replicas as usize, "replica")
        );
        let refused = self.refused.iter().take(REFUSALS_TOLD_MAX);
        for (entity, _, why) in refused {
            text.push_str(&format!("; {entity}: {why}"));
        }
        text
    }

    /// Notes that hosts are missing, and writes down once what is waited for.
    fn note_shortage(&mut self, step: &mut Step<'_>) {
        let is_short = self.hosts.len() < self.replicas as usize;
        self.n_drained = if is_short {
            step.hosts.n_drained(&self.taken())
        } else {
            0
        };
        if !is_short {
            self.short_since = None;
        } else if self.short_since.is_none() {
            self.short_since = Some(step.now);
            step.out.push(Output::Decide(Decision {
                kind: "placement",
                subject: self.id.to_string(),
                outcome: format!("waits for hosts: {}", self.shortage()),
                ..Decision::default()
            }));
        }
    }

    /// Moves the deployment.
    pub(crate) fn take(&mut self, input: Input<'_>, step: &mut Step<'_>) {
        if self.has_ended() {
            return;
        }
        #[cfg(test)]
        assert!(
            self.model.name.as_str() != "panics-when-deployed",
            "a deployment that a test lets panic"
        );
        match input {
            Input::Receipt(receipt) => self.host_answered(receipt, step),
            Input::Review => {}
            Input::Back(entities) => self.refused.retain(|(entity, ..)| !entities.contains(entity)),
            Input::Stop(cause) => {
                self.end(DeploymentPhase::Stopped, cause, step);
                return;
            }
        }
        self.drop_lost(step);
        self.fill(step);
        self.note_shortage(step);
        self.conclude(step);
    }

    fn host_answered(&mut self, receipt: &Receipt, step: &mut Step<'_>) {
        let Some(index) = self.hosts.iter().position(|host| host.order == receipt.order) else {
            return;
        };
        match &receipt.outcome {
            Outcome::Accepted { .. } => self.hosts[index].accepted = true,
            Outcome::Serving => {
                self.hosts[index].ready = true;
                step.out.push(Output::Holds(receipt.node));
            }
            Outcome::Refused(rejection) => self.drop_host(index, rejection.clone(), step),
            Outcome::Stopped => {
                let message = "the host stopped serving by itself".to_owned();
                self.drop_host(index, Rejection::new(Code::ModelUnavailable, message), step);
            }
            _ => {}
        }
    }

    /// Hosts may have loaded the model while the center was away, or never heard of it: they have the whole time again.
    pub(crate) fn center_was_away(&mut self, now: UnixMillis, timing: &Timing, weights_bytes: u64) {
        if self.phase == DeploymentPhase::Placing {
            let whole = now.plus(timing.placing_ms(weights_bytes));
            self.deadline = self.deadline.max(whole);
        }
        for host in self.hosts.iter_mut().filter(|host| !host.ready) {
            host.since = host.since.max(now);
        }
    }

    fn drop_host(&mut self, index: usize, why: Rejection, step: &mut Step<'_>) {
        let host = self.hosts.remove(index);
        step.out.push(Output::Cancel(host.order));
        let until = step.now.plus(step.timing.host_again_ms);
        self.refused.push((host.placement.entity, until, why));
    }

    /// Lets go of hosts that are gone too long, thrown out, or do not come to serve.
    fn drop_lost(&mut self, step: &mut Step<'_>) {
        let patience = step.timing.placing_ms(step.weights.bytes);
        for index in (0..self.hosts.len()).rev() {
            let host = &self.hosts[index];
            let node = host.placement.node;
            let gone_ms = step
                .nodes
                .offline_since(node)
                .map_or(0, |since| step.now.since(since));
            let why = if step.nodes.is_revoked(node) {
                Some((
                    Code::NotEnrolled,
                    "its node was thrown out of the domain".to_owned(),
                ))
            } else if gone_ms >= step.timing.host_lost_ms && !step.nodes.is_online(node) {
                Some((Code::NodeLost, format!("its node was gone for {gone_ms} ms")))
            } else if !host.ready && step.now.since(host.since) >= patience {
                Some((Code::DeadlinePassed, "it did not serve in time".to_owned()))
            } else {
                None
            };
            if let Some((code, message)) = why {
                self.drop_host(index, Rejection::new(code, message), step);
            }
        }
        let now = step.now;
        self.refused.retain(|(_, until, _)| *until > now);
    }

    /// Hosts that it has.
    fn taken(&self) -> Vec<EntityId> {
        let hosts = self.hosts.iter();
        hosts.map(|host| host.placement.entity.clone()).collect()
    }

    /// Places what is missing.
    fn fill(&mut self, step: &mut Step<'_>) {
        let n_missing = (self.replicas as usize).saturating_sub(self.hosts.len());
        if n_missing == 0 {
            return;
        }
        let refused = self.refused.iter().map(|(entity, ..)| entity.clone());
        let excluded: Vec<EntityId> = self.taken().into_iter().chain(refused).collect();
        let found = step.hosts.find(n_missing, &excluded);
        let fit = |p: &&Placement| !excluded.contains(&p.entity) && step.nodes.is_online(p.node);
        let chosen: Vec<Placement> = found.iter().filter(fit).take(n_missing).cloned().collect();
        if chosen.is_empty() {
            return;
        }
        let candidates = chosen
            .iter()
            .map(|p| (p.entity.to_string(), true, "fits and is connected".to_owned()));
        let refusals = self
            .refused
            .iter()
            .map(|(entity, _, why)| (entity.to_string(), false, why.to_string()));
        let candidates = candidates
            .chain(refusals)
            .map(|(name, chosen, reason)| Candidate {
                name,
                chosen,
                reason,
                policies: Vec::new(),
            });
        step.out.push(Output::Decide(Decision {
            kind: "placement",
            subject: self.id.to_string(),
            outcome: format!(
                "{} version {} on {}",
                self.model.name,
                self.model.version,
                counted(chosen.len(), "more host")
            ),
            candidates: candidates.collect(),
            ..Decision::default()
        }));
        for placement in chosen {
            self.place(placement, step);
        }
    }

    fn place(&mut self, placement: Placement, step: &mut Step<'_>) {
        let order = OrderId::new(step.now.0, step.entropy.bytes());
        step.out.push(Output::Order(Box::new(OrderDraft {
            id: order.clone(),
            kind: OrderKind::Serve,
            epoch: 1,
            node: placement.node,
            terminal: placement.entity.clone(),
            valid_ms: SERVE_VALID_MS,
            instruction: Instruction::Serve(Box::new(ServeOrder {
                deployment: self.id.clone(),
                model: self.model.clone(),
                spec: step.spec.clone(),
                weights: step.weights,
                holders: step
                    .holders
                    .iter()
                    .filter(|peer| peer.node != placement.node)
                    .cloned()
                    .collect(),
                gateways: step.gateways.clone(),
                readers: step.readers.clone(),
            })),
        })));
        self.hosts.push(Host {
            placement,
            order,
            accepted: false,
            ready: false,
            since: step.now,
        });
    }

    fn conclude(&mut self, step: &mut Step<'_>) {
        let n_ready = self.n_ready();
        if n_ready >= self.replicas as usize {
            self.phase = DeploymentPhase::Ready;
            self.ready_at.get_or_insert(step.now);
        } else if self.ready_at.is_some() || (n_ready > 0 && step.now >= self.deadline) {
            self.phase = DeploymentPhase::Degraded;
        } else if n_ready == 0 && step.now >= self.deadline {
            let why: Vec<String> = self
                .refused
                .iter()
                .map(|(entity, _, why)| format!("{entity}: {why}"))
                .collect();
            let message = if why.is_empty() {
                "no host was there that could serve it".to_owned()
            } else {
                format!("no host could serve it ({})", why.join("; "))
            };
            self.end(
                DeploymentPhase::Failed,
                Rejection::new(Code::ModelUnavailable, message),
                step,
            );
        }
    }

    pub(crate) fn end(&mut self, phase: DeploymentPhase, cause: Rejection, step: &mut Step<'_>) {
        for host in self.hosts.drain(..) {
            step.out.push(Output::Cancel(host.order));
        }
        self.phase = phase;
        self.cause = Some(cause);
        self.ended_at = Some(step.now);
    }

    /// When the deployment must be looked at again, if nothing happens before.
    pub(crate) fn next_wake(&self, nodes: &Nodes, timing: &Timing, weights_bytes: u64) -> Option<UnixMillis> {
        if self.has_ended() {
            return None;
        }
        let lost = |host: &Host| {
            let gone = nodes
                .offline_since(host.placement.node)
                .map(|since| since.plus(timing.host_lost_ms));
            let late = (!host.ready).then(|| host.since.plus(timing.placing_ms(weights_bytes)));
            gone.into_iter().chain(late).min()
        };
        let first = (self.phase == DeploymentPhase::Placing).then_some(self.deadline);
        let is_short = self.hosts.len() < self.replicas as usize;
        let again = self
            .refused
            .iter()
            .filter(|_| is_short)
            .map(|(_, until, _)| *until);
        self.hosts.iter().filter_map(lost).chain(first).chain(again).min()
    }
}
