//! One event's turn: the moment, the randomness, and what accumulates — records, leaves, effects.

use crate::{
    core::event::{Effect, RequestId},
    entropy::Entropy,
    limits::CANDIDATES_MAX,
};
use daitn_messages::{
    control::{Accepted, CenterMessage, NodeReply},
    ids::{ArtifactId, DecisionId, NodeId, OrganisationId},
    job::{Candidate, DecisionRecord},
    leaf::{Leaf, LeafKind},
    operation::Answer,
    plan::Prediction,
    rejection::Rejection,
    units::UnixMillis,
};
use daitn_store::{Batch, Family};
use serde::{Deserialize, Serialize};

/// What came of an event: to be written in one transaction, and to be done after it.
#[derive(Debug, Default)]
pub struct Transition {
    /// Records and leaves.
    pub batch: Batch,
    /// Released after the commit, in this order.
    pub effects: Vec<Effect>,
}

/// See the module.
pub(crate) struct Turn<'a> {
    pub(crate) now: UnixMillis,
    pub(crate) entropy: &'a mut Entropy,
    pub(crate) batch: Batch,
    pub(crate) effects: Vec<Effect>,
}

/// A decision record with who may read it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredDecision {
    pub(crate) concerns: Vec<OrganisationId>,
    pub(crate) record: DecisionRecord,
}

impl StoredDecision {
    /// Whether an organisation may read it; none: whoever may read all.
    pub(crate) fn is_for(&self, organisation: Option<&OrganisationId>) -> bool {
        organisation.is_none_or(|organisation| self.concerns.contains(organisation))
    }
}

/// A decision before it has a name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Decision {
    pub(crate) kind: &'static str,
    pub(crate) subject: String,
    pub(crate) outcome: String,
    pub(crate) reasons: Vec<String>,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) prediction: Option<Prediction>,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(now: UnixMillis, entropy: &'a mut Entropy) -> Self {
        Self {
            now,
            entropy,
            batch: Batch::new(),
            effects: Vec::new(),
        }
    }

    pub(crate) fn end(self) -> Transition {
        Transition {
            batch: self.batch,
            effects: self.effects,
        }
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(crate) fn reply_node(&mut self, request: RequestId, reply: NodeReply) {
        self.effect(Effect::ReplyNode { request, reply });
    }

    pub(crate) fn done(&mut self, request: RequestId) {
        self.reply_node(request, Ok(Accepted::Done));
    }

    pub(crate) fn reply(&mut self, request: RequestId, result: Result<Answer, Rejection>) {
        self.effect(Effect::Reply { request, result });
    }

    pub(crate) fn send(&mut self, node: NodeId, message: CenterMessage) {
        let message = Box::new(message);
        self.effect(Effect::Send { node, message });
    }

    /// Writes a leaf of what has this hash.
    pub(crate) fn leaf<'b>(
        &mut self,
        kind: LeafKind,
        subject: &dyn std::fmt::Display,
        hash: ArtifactId,
        concerns: impl IntoIterator<Item = &'b OrganisationId>,
    ) {
        let leaf = Leaf::new(kind, self.now, subject.to_string(), hash).concerning(concerns);
        self.batch.leaf(leaf);
    }

    /// Writes a leaf of a value that is witnessed as it is encoded.
    pub(crate) fn leaf_of<'b, T: Serialize>(
        &mut self,
        kind: LeafKind,
        subject: &dyn std::fmt::Display,
        value: &T,
        concerns: impl IntoIterator<Item = &'b OrganisationId>,
    ) {
        let hash = ArtifactId::of(&daitn_messages::encoding::encode(value));
        self.leaf(kind, subject, hash, concerns);
    }

    pub(crate) fn new_decision_id(&mut self) -> DecisionId {
        DecisionId::new(self.now.0, self.entropy.bytes())
    }

    /// Writes a decision record.
    pub(crate) fn decide(&mut self, decision: Decision, concerns: Vec<OrganisationId>) -> DecisionId {
        let id = self.new_decision_id();
        self.decide_as(&id, decision, concerns);
        id
    }

    /// Writes a decision record under an id that was told already.
    pub(crate) fn decide_as(
        &mut self,
        id: &DecisionId,
        decision: Decision,
        mut concerns: Vec<OrganisationId>,
    ) {
        concerns.sort_unstable();
        concerns.dedup();
        let mut candidates = decision.candidates;
        candidates.truncate(CANDIDATES_MAX);
        let record = DecisionRecord {
            id: id.clone(),
            at: self.now,
            kind: decision.kind.to_owned(),
            subject: decision.subject,
            outcome: decision.outcome,
            reasons: decision.reasons,
            candidates,
            prediction: decision.prediction,
        };
        self.batch.put(
            Family::Decisions,
            id.as_str(),
            &StoredDecision { concerns, record },
        );
    }
}
