//! A decision record, and a policy's answer.

use crate::{
    output::Shown,
    paint::Paint,
    render::{PROSE_WIDTH, Table, date_time, duration_ms, facts, section, wrapped},
};
use daitn_messages::{
    ids::{EntityId, EntityKind, OrganisationId},
    job::DecisionRecord,
    policy::{PolicyAnswer, Verb},
};
use serde::Serialize;

/// A decision record.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Decision(pub(crate) DecisionRecord);

impl Shown for Decision {
    fn human(&self, paint: Paint, wide: bool) -> String {
        let record = &self.0;
        let mut pairs = vec![
            ("Decision", paint.name(&record.id)),
            ("Made", date_time(record.at)),
            ("Kind", record.kind.clone()),
            ("About", record.subject.clone()),
            ("Outcome", paint.bold(&record.outcome)),
        ];
        if let Some(p) = &record.prediction {
            let range = format!("{} to {}", duration_ms(p.ms_low), duration_ms(p.ms_high));
            pairs.push(("Predicted", format!("{range}, expected {}", duration_ms(p.ms))));
        }
        let mut text = facts(paint, &pairs);
        if !record.reasons.is_empty() {
            text.push_str("\n\n");
            text.push_str(&section(
                paint,
                "Because",
                &wrapped(&record.reasons.join("\n"), PROSE_WIDTH),
            ));
        }
        if !record.candidates.is_empty() {
            let mut table = Table::new(paint, &["", "CANDIDATE", "WHY", "POLICIES"], "");
            for candidate in &record.candidates {
                let mark = if candidate.chosen {
                    paint.good("✓")
                } else {
                    paint.bad("✗")
                };
                let reason = if wide {
                    candidate.reason.clone()
                } else {
                    crate::render::shortened(&candidate.reason, 90)
                };
                table.row([
                    mark,
                    candidate.name.clone(),
                    reason,
                    candidate.policies.join(", "),
                ]);
            }
            text.push_str("\n\n");
            text.push_str(&section(paint, "Looked at", &table.text()));
        }
        text
    }
    fn names(&self) -> Vec<String> {
        vec![self.0.id.to_string()]
    }
}

/// A policy's answer.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Answered {
    answer: PolicyAnswer,
    /// Why it is so where no policy says anything.
    #[serde(skip)]
    by_default: String,
}

impl Answered {
    /// The answer to what an organisation wants to do with an entity.
    pub(crate) fn new(answer: PolicyAnswer, who: &OrganisationId, verb: Verb, what: &EntityId) -> Self {
        let by_default = if !answer.allowed {
            "no policy permits it".to_owned()
        } else if *who == what.organisation {
            format!("{who} owns it, and no policy forbids it")
        } else if (verb, what.kind) == (Verb::Query, EntityKind::Agent) {
            "agents are attached to be called, and no policy forbids it".to_owned()
        } else {
            "no policy forbids it".to_owned()
        };
        Self { answer, by_default }
    }
}

impl Shown for Answered {
    fn human(&self, paint: Paint, _: bool) -> String {
        let answer = &self.answer;
        let word = if answer.allowed {
            paint.good("yes")
        } else {
            paint.bad("no")
        };
        let because = match (answer.allowed, answer.determining.as_slice()) {
            (_, []) => self.by_default.clone(),
            (true, ids) => format!("permitted by {}", ids.join(", ")),
            (false, ids) => format!("forbidden by {}", ids.join(", ")),
        };
        let mut text = format!("{word}: {because}");
        for error in &answer.errors {
            text.push_str(&format!("\n{} {error}", paint.warn("failed to evaluate:")));
        }
        text
    }
    fn names(&self) -> Vec<String> {
        vec![if self.answer.allowed { "yes" } else { "no" }.to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_policy_speaks_of_is_told_with_its_reason() {
        let said = |who: &str, what: &str, allowed: bool| {
            let answer = PolicyAnswer {
                allowed,
                determining: Vec::new(),
                errors: Vec::new(),
            };
            let (who, what) = (who.parse().unwrap(), what.parse().unwrap());
            Answered::new(answer, &who, Verb::Query, &what).human(Paint::plain(), false)
        };
        assert_eq!(
            said("lab", "model:lab/stay", true),
            "yes: lab owns it, and no policy forbids it"
        );
        assert_eq!(
            said("clinic", "model:lab/stay", false),
            "no: no policy permits it"
        );
        assert_eq!(
            said("clinic", "agent:lab/helper", true),
            "yes: agents are attached to be called, and no policy forbids it"
        );
    }
}
