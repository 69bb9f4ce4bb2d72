//! What an agent host tells others.

use super::Agent;
use daitn_messages::{descriptor::AgentBody, ids::ArtifactId};

impl Agent {
    /// The body of the descriptor.
    #[must_use]
    pub(crate) fn describe(&self) -> AgentBody {
        AgentBody {
            card: self.card.text.clone(),
            card_hash: ArtifactId::of(self.card.text.as_bytes()),
            protocol_version: self.card.protocol_version(),
            skills: self.card.skills.clone(),
            streaming: self.card.streaming,
        }
    }
}
