//! A decision record, and a policy's answer.

use crate::{
    output::Shown,
    paint::Paint,
    render::{PROSE_WIDTH, Table, date_time, duration_ms, facts, section, wrapped},
};
use daitn_messages::{job::DecisionRecord, policy::PolicyAnswer};
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
pub(crate) struct Answered(pub(crate) PolicyAnswer);

impl Shown for Answered {
    fn human(&self, paint: Paint, _: bool) -> String {
        let answer = &self.0;
        let word = if answer.allowed {
            paint.good("yes")
        } else {
            paint.bad("no")
        };
        let because = match (answer.allowed, answer.determining.as_slice()) {
            (_, []) => "no policy permits it".to_owned(),
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
        vec![if self.0.allowed { "yes" } else { "no" }.to_owned()]
    }
}
