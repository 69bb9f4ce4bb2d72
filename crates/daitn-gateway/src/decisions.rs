//! Decision records of queries and agent calls: who was looked at, who was chosen, what came of it. Kept here, in a ring
//! of the newest, and never the payload; `daitn explain` asks the gateway before the control center.

use crate::routing::Looked;
use daitn_messages::{
    ids::{DecisionId, EntityId, OrganisationId},
    job::{Candidate, DecisionRecord},
    operation::{Principal, Scope},
    units::UnixMillis,
};
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// How many decisions are kept: at 1,000 queries a second the last eight seconds, at one a second two hours.
const DECISIONS_MAX: usize = 8192;

/// A query's or an agent call's decision, as it is kept. Turned into a record only when somebody asks.
#[derive(Debug, Clone)]
pub(crate) struct Decision {
    pub(crate) id: DecisionId,
    pub(crate) at: UnixMillis,
    /// Who asked: nobody else is told.
    pub(crate) organisation: OrganisationId,
    /// `query` or `interaction`.
    pub(crate) kind: &'static str,
    /// The model's version or the agent.
    pub(crate) subject: String,
    pub(crate) snapshot_version: u64,
    pub(crate) snapshot_age_ms: u64,
    /// How many replicas there were to choose from.
    pub(crate) n_candidates: usize,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) outcome: String,
}

/// One try.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) host: EntityId,
    pub(crate) chosen: Option<Looked>,
    pub(crate) other: Option<(EntityId, Looked)>,
    /// Asked while another had been silent for this long, which was waited for further.
    pub(crate) beside: Option<Duration>,
    /// Its answer is the one that was given.
    pub(crate) answered: bool,
    /// What came of it.
    pub(crate) outcome: String,
    pub(crate) took: Duration,
}

/// The newest decisions.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    ring: Mutex<VecDeque<Decision>>,
}

impl Decisions {
    pub(crate) fn keep(&self, decision: Decision) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() >= DECISIONS_MAX {
            ring.pop_front();
        }
        ring.push_back(decision);
    }

    /// The record, for the organisation that asked the query and for the domain's operator.
    pub(crate) fn get(&self, id: &DecisionId, principal: &Principal) -> Option<DecisionRecord> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let decision = ring.iter().rev().find(|decision| decision.id == *id)?;
        let may_see =
            decision.organisation == principal.organisation || principal.scopes.contains(&Scope::Admin);
        may_see.then(|| decision.record())
    }
}

impl Decision {
    fn record(&self) -> DecisionRecord {
        let mut reasons = vec![format!(
            "{} {} in snapshot {}, which was {} ms old",
            self.n_candidates,
            if self.n_candidates == 1 {
                "candidate"
            } else {
                "candidates"
            },
            self.snapshot_version,
            self.snapshot_age_ms
        )];
        let mut candidates = Vec::new();
        let answered = self.attempts.iter().position(|attempt| attempt.answered);
        // Where none answered, the last one that was asked.
        let chosen = answered.unwrap_or(self.attempts.len().saturating_sub(1));
        for (n, attempt) in self.attempts.iter().enumerate() {
            let beside = attempt.beside.map(|silent| {
                let silent_ms = silent.as_secs_f64() * 1e3;
                format!(", beside the one before, which had been silent for {silent_ms:.3} ms")
            });
            reasons.push(format!(
                "attempt {}{}: {} after {:.3} ms: {}",
                n + 1,
                beside.unwrap_or_default(),
                attempt.host,
                attempt.took.as_secs_f64() * 1e3,
                attempt.outcome
            ));
            candidates.push(candidate(&attempt.host, attempt.chosen.as_ref(), n == chosen));
            if let Some((host, looked)) = &attempt.other {
                candidates.push(candidate(host, Some(looked), false));
            }
        }
        DecisionRecord {
            id: self.id.clone(),
            at: self.at,
            kind: self.kind.to_owned(),
            subject: self.subject.clone(),
            outcome: self.outcome.clone(),
            reasons,
            candidates,
            prediction: None,
        }
    }
}

fn candidate(host: &EntityId, looked: Option<&Looked>, chosen: bool) -> Candidate {
    let reason = looked.map_or_else(
        || "the node that holds it".to_owned(),
        |looked| {
            let predicted_ms = looked.predicted_seconds * 1e3;
            format!(
                "predicted {predicted_ms:.3} ms with {} of this gateway's queries in flight",
                looked.in_flight
            )
        },
    );
    Candidate {
        name: host.to_string(),
        chosen,
        reason,
        policies: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daitn_messages::ids::ApiKeyId;

    fn principal(organisation: &str, scopes: &[Scope]) -> Principal {
        Principal {
            key: ApiKeyId::new(0, [0; 10]),
            organisation: organisation.parse().unwrap(),
            scopes: scopes.to_vec(),
        }
    }

    fn decision(n: u64) -> Decision {
        Decision {
            id: DecisionId::new(n, [0; 10]),
            at: UnixMillis(n),
            organisation: "acme".parse().unwrap(),
            kind: "query",
            subject: "digits/1".to_owned(),
            snapshot_version: 1,
            snapshot_age_ms: 2,
            n_candidates: 0,
            attempts: Vec::new(),
            outcome: String::new(),
        }
    }

    #[test]
    fn only_the_asker_and_the_operator_see_a_decision() {
        let decisions = Decisions::default();
        decisions.keep(decision(1));
        let id = DecisionId::new(1, [0; 10]);
        assert!(decisions.get(&id, &principal("acme", &[Scope::Read])).is_some());
        assert!(decisions.get(&id, &principal("other", &[Scope::Read])).is_none());
        assert!(decisions.get(&id, &principal("other", &[Scope::Admin])).is_some());
    }

    #[test]
    fn the_record_tells_of_one_candidate_and_of_many() {
        let first = |n_candidates| {
            let told = Decision {
                n_candidates,
                ..decision(1)
            };
            told.record().reasons[0].clone()
        };
        assert_eq!(first(1), "1 candidate in snapshot 1, which was 2 ms old");
        assert_eq!(first(2), "2 candidates in snapshot 1, which was 2 ms old");
    }

    #[test]
    fn the_one_whose_answer_was_given_is_the_chosen_one() {
        let attempt = |host: &str, answered: bool| Attempt {
            host: format!("model-host:acme/{host}").parse().unwrap(),
            chosen: None,
            other: None,
            beside: None,
            answered,
            outcome: String::new(),
            took: Duration::ZERO,
        };
        let chosen = |answered: [bool; 2]| {
            let attempts = vec![attempt("one", answered[0]), attempt("two", answered[1])];
            let record = Decision {
                attempts,
                ..decision(1)
            }
            .record();
            let chosen: Vec<String> = record
                .candidates
                .iter()
                .filter(|c| c.chosen)
                .map(|c| c.name.clone())
                .collect();
            chosen.join(" ")
        };
        assert_eq!(chosen([true, false]), "model-host:acme/one");
        assert_eq!(chosen([false, true]), "model-host:acme/two");
        assert_eq!(chosen([false, false]), "model-host:acme/two");
    }

    #[test]
    fn the_ring_keeps_the_newest() {
        let decisions = Decisions::default();
        (0..=DECISIONS_MAX as u64).for_each(|n| decisions.keep(decision(n)));
        let asker = principal("acme", &[Scope::Read]);
        assert!(decisions.get(&DecisionId::new(0, [0; 10]), &asker).is_none());
        assert!(decisions.get(&DecisionId::new(1, [0; 10]), &asker).is_some());
        assert!(
            decisions
                .get(&DecisionId::new(DECISIONS_MAX as u64, [0; 10]), &asker)
                .is_some()
        );
    }
}
