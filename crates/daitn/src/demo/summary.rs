//! What the demo found, on one page.

use super::{queries::Answered, reader::article};
use crate::{
    output::Shown,
    paint::Paint,
    render::{Table, bytes, counted, duration_ms, facts, percent, section},
    views::phases,
};
use daitn_messages::{
    ids::JobId,
    job::{Actual, JobView},
};
use serde::Serialize;

/// The step in which the job runs: its time is told phase by phase.
pub(crate) const JOB_STEP: &str = "the job";

/// The summary.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// Accuracy that the verification units found, weighted by their records.
    pub(crate) accuracy: f64,
    /// Accuracy of the same model trained with all data in one place, on the same hold-outs.
    pub(crate) centralised_accuracy: f64,
    /// Node processes.
    pub(crate) nodes: usize,
    /// The job.
    pub(crate) job: JobId,
    /// How the model and the data met.
    pub(crate) plan_kind: String,
    /// How updates were combined.
    pub(crate) strategy: String,
    /// Cycles that were closed.
    pub(crate) cycles: usize,
    /// Time predicted for the job, milliseconds: low, expected, high.
    pub(crate) predicted_ms: [u64; 3],
    /// Time of the job, milliseconds.
    pub(crate) actual_ms: u64,
    /// Time of each phase of the job, and bytes moved.
    pub(crate) phases: Actual,
    /// Bytes predicted.
    pub(crate) predicted_bytes: u64,
    /// Bytes of weights and updates moved between nodes.
    pub(crate) actual_bytes: u64,
    /// Sites whose data left their node for a compute facility.
    pub(crate) sites_away: usize,
    /// Queries that were sent, answered, lost and answered right.
    pub(crate) queries: Queries,
    /// The node that was killed in the middle of the queries.
    pub(crate) killed: String,
    /// What the agent answered, and whether that is so.
    pub(crate) agent: Vec<AgentAnswer>,
    /// Time of each step, milliseconds.
    pub(crate) steps_ms: Vec<(&'static str, u64)>,
    /// Time of the whole, milliseconds.
    pub(crate) total_ms: u64,
    /// Whether the network stays up.
    pub(crate) kept: bool,
    /// Commands to look further.
    pub(crate) look_further: Vec<String>,
}

/// What the agent answered.
#[derive(Debug, Serialize)]
pub(crate) struct AgentAnswer {
    /// In its words.
    pub(crate) said: String,
    /// Which digit it is.
    pub(crate) digit: u32,
    /// Whether the agent said so.
    pub(crate) right: bool,
}

impl AgentAnswer {
    /// Of these words about this digit. The agent says `This is a 5. …`.
    pub(crate) fn of(said: String, digit: u32) -> Self {
        let right = said
            .strip_prefix(&format!("This is {} {digit}", article(&digit.to_string())))
            .is_some_and(|rest| rest.starts_with('.'));
        Self { said, digit, right }
    }
}

/// What came of the queries.
#[derive(Debug, Serialize)]
pub(crate) struct Queries {
    sent: u32,
    answered: u32,
    lost: u32,
    right: u32,
    median_micros: u64,
    longest_micros: u64,
}

impl From<Answered> for Queries {
    fn from(a: Answered) -> Self {
        Self {
            sent: a.answered + a.lost,
            answered: a.answered,
            lost: a.lost,
            right: a.right,
            median_micros: a.median_micros,
            longest_micros: a.longest_micros,
        }
    }
}

/// The accuracy that the units found, weighted by their records.
#[expect(clippy::cast_precision_loss, reason = "a few hundred records")]
pub(crate) fn accuracy(job: &JobView) -> f64 {
    let found = job.reports.iter().filter_map(|(_, report)| {
        let n = report.evaluation.n_examples as f64;
        Some((report.evaluation.metric(report.metric)? * n, n))
    });
    let (sum, n) = found.fold((0.0, 0.0), |(sum, n), (s, m)| (sum + s, n + m));
    if n > 0.0 { sum / n } else { 0.0 }
}

impl Shown for Summary {
    fn human(&self, paint: Paint, _: bool) -> String {
        let gap = (self.accuracy - self.centralised_accuracy) * 100.0;
        let against = format!("{gap:+.1} points against {}", percent(self.centralised_accuracy));
        let q = &self.queries;
        let lost = if q.lost == 0 {
            paint.good("none lost")
        } else {
            paint.bad(format!("{} lost", q.lost))
        };
        let pairs = [
            (
                "Model",
                format!(
                    "{} accuracy on data that no trainer saw; {against} with all data in one place\n\
                     (that baseline is trained in this process, only to compare; the network never pools data)",
                    paint.good(percent(self.accuracy))
                ),
            ),
            (
                "Way",
                format!(
                    "{} of {} with {}",
                    counted(self.cycles, "cycle"),
                    self.plan_kind,
                    self.strategy
                ),
            ),
            (
                "Moved",
                match self.sites_away {
                    0 => format!(
                        "{} of weights; every site trained at its own node",
                        bytes(self.actual_bytes)
                    ),
                    n => format!(
                        "{} of weights; {} let a facility train",
                        bytes(self.actual_bytes),
                        counted(n, "site")
                    ),
                },
            ),
            (
                "Queries",
                format!(
                    "{} answered, {lost}, although {} was killed in the middle; {} right; median {:.1} ms, longest {:.0} ms",
                    q.answered,
                    self.killed,
                    q.right,
                    micros(q.median_micros),
                    micros(q.longest_micros)
                ),
            ),
            ("Agent", self.agent(paint)),
            (
                "Nodes",
                format!(
                    "{} processes of six organisations and a control center",
                    self.nodes
                ),
            ),
        ];
        let look = if self.kept {
            "Look further"
        } else {
            "Look further: `daitn demo --keep` stays up and prints these for its own run"
        };
        let mut parts = vec![section(paint, "What came of it", &facts(paint, &pairs))];
        parts.push(section(paint, "Predicted and actual", &self.predicted(paint)));
        parts.push(section(paint, "Time", &self.times(paint)));
        parts.push(section(paint, look, &self.look_further.join("\n")));
        parts.join("\n\n")
    }
    fn names(&self) -> Vec<String> {
        vec![self.job.to_string()]
    }
}

impl Summary {
    fn agent(&self, paint: Paint) -> String {
        let line = |answer: &AgentAnswer| {
            let verdict = if answer.right {
                paint.good("right")
            } else {
                paint.bad(format!("wrong: it is a {}", answer.digit))
            };
            format!("“{}” {verdict}", answer.said)
        };
        self.agent.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    fn predicted(&self, paint: Paint) -> String {
        let mut table = Table::new(paint, &["", "PREDICTED", "ACTUAL"], "");
        let [low, expected, high] = self.predicted_ms;
        let range = format!(
            "{} to {}, expected {}",
            duration_ms(low),
            duration_ms(high),
            duration_ms(expected)
        );
        table.row(["time of the job".to_owned(), range, duration_ms(self.actual_ms)]);
        table.row([
            "bytes moved".to_owned(),
            bytes(self.predicted_bytes),
            bytes(self.actual_bytes),
        ]);
        table.text()
    }

    fn times(&self, paint: Paint) -> String {
        let mut pairs: Vec<(&str, String)> = self
            .steps_ms
            .iter()
            .map(|(name, ms)| (*name, duration_ms(*ms)))
            .collect();
        for (name, told) in &mut pairs {
            if *name == JOB_STEP {
                told.push_str(&format!(": {}", phases(&self.phases)));
            }
        }
        pairs.push(("all together", paint.bold(duration_ms(self.total_ms))));
        facts(paint, &pairs)
    }
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn micros(n: u64) -> f64 {
    n as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_answer_of_the_agent_is_told_as_wrong() {
        let right = |said: &str, digit| AgentAnswer::of(said.to_owned(), digit).right;
        assert!(right("This is a 9. I am 98 % sure.", 9));
        assert!(right("This is an 8. I am 98 % sure.", 8));
        assert!(!right("This is a 10. I am 98 % sure.", 1));
        assert!(!right("This is a 5. I am 99 % sure.", 9));
        assert!(!right(
            "I read digits of 64 pixels, and found 9 numbers in your message.",
            9
        ));
    }
}
