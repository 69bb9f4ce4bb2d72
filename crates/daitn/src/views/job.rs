//! A job: in a list, and in full with what was predicted beside what happened.

use super::Row;
use crate::{
    output::Shown,
    paint::Paint,
    render::{Table, age, bytes, count, counted, date_time, duration_ms, facts, loss, section, sparkline},
};
use daitn_messages::{
    ids::EntityId,
    job::{Actual, JobPhase, JobSummary, JobView, LeftOut},
    rejection::Rejection,
};
use serde::Serialize;

/// Width of a loss curve in characters.
const CURVE_WIDTH: usize = 32;

/// A phase in words.
pub(crate) fn phase_word(phase: JobPhase) -> &'static str {
    match phase {
        JobPhase::Preparing => "preparing",
        JobPhase::Training => "training",
        JobPhase::Verifying => "verifying",
        JobPhase::Deploying => "deploying",
        JobPhase::Succeeded => "succeeded",
        JobPhase::NotVerified => "not verified",
        JobPhase::Failed => "failed",
        JobPhase::Stopped => "stopped",
    }
}

fn coloured(paint: Paint, phase: JobPhase) -> String {
    let word = phase_word(phase);
    match phase {
        JobPhase::Succeeded => paint.good(word),
        JobPhase::NotVerified | JobPhase::Failed => paint.bad(word),
        JobPhase::Stopped => paint.warn(word),
        _ => paint.name(word),
    }
}

impl Row for JobSummary {
    const COLUMNS: &'static [&'static str] = &["JOB", "MODEL", "ORGANISATION", "PHASE", "CYCLES", "AGE"];
    const EMPTY: &'static str = "No jobs. Begin with: daitn job init";

    fn name(&self) -> String {
        self.id.to_string()
    }
    fn cells(&self, paint: Paint, _wide: bool) -> Vec<String> {
        vec![
            paint.name(&self.id),
            self.model.clone(),
            self.organisation.to_string(),
            coloured(paint, self.phase),
            format!("{}/{}", self.cycles_done, self.cycles),
            age(self.accepted_at, crate::commands::now()),
        ]
    }
}

/// A job in full.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Job(pub(crate) JobView);

impl Shown for Job {
    fn human(&self, paint: Paint, wide: bool) -> String {
        let job = &self.0;
        let mut parts = vec![facts(paint, &head(paint, job))];
        if let Some(cause) = &job.cause {
            parts.push(section(paint, "Cause", &told(cause)));
        }
        if !job.cycles.is_empty() {
            parts.push(section(paint, "Training", &training(paint, job)));
        }
        if !job.reports.is_empty() {
            parts.push(section(paint, "Verification", &reports(paint, job)));
        }
        if !job.left_out.is_empty() {
            parts.push(section(paint, "Left out", &left_out(paint, job, wide)));
        }
        if job.phase.is_terminal() {
            parts.push(section(paint, "Predicted and actual", &against(paint, job)));
        } else {
            parts.push(section(paint, "Predicted", &predicted(paint, job)));
        }
        parts.join("\n\n")
    }
    fn names(&self) -> Vec<String> {
        vec![self.0.id.to_string()]
    }
}

/// Why a job ended, where its record is shown already: pages of codes that send there would lead in a circle.
fn told(cause: &Rejection) -> String {
    const HERE: &str = ": `daitn job get JOB`";
    let hint = cause.hint_or_page().replace(HERE, "");
    format!("{} {}\n{hint}", cause.code.as_str(), cause.message)
}

fn head(paint: Paint, job: &JobView) -> Vec<(&'static str, String)> {
    let mut pairs = vec![
        ("Job", paint.name(&job.id)),
        ("Phase", coloured(paint, job.phase)),
        (
            "For",
            format!("{} ({})", job.organisation, job.plan.request.purpose),
        ),
        (
            "Way",
            format!(
                "{}, {}",
                job.plan.kind.as_str(),
                closed(job.cycles.len(), job.plan.rounds)
            ),
        ),
        ("Accepted", date_time(job.accepted_at)),
    ];
    if let Some(waiting) = &job.waiting {
        pairs.push(("Now", super::waiting_line(waiting)));
    }
    if let Some(ended) = job.ended_at {
        pairs.push((
            "Ended",
            format!(
                "{}, after {}",
                date_time(ended),
                duration_ms(ended.since(job.accepted_at))
            ),
        ));
    }
    if let Some(model) = &job.model {
        pairs.push((
            "Model",
            paint.name(format!("{} version {}", model.name, model.version)),
        ));
    }
    if let Some(deployment) = &job.deployment {
        pairs.push(("Deployment", deployment.to_string()));
    }
    pairs.push(("Why", format!("daitn explain {}", job.plan.decision)));
    pairs
}

/// `1,999 of 2,000 cycles closed`.
fn closed(n_closed: usize, n_planned: u32) -> String {
    format!(
        "{} of {} closed",
        count(n_closed as u64),
        counted(n_planned, "cycle")
    )
}

fn training(paint: Paint, job: &JobView) -> String {
    let losses: Vec<f64> = job.cycles.iter().map(|c| c.loss).collect();
    let (first, last) = (
        losses.first().copied().unwrap_or(0.0),
        losses.last().copied().unwrap_or(0.0),
    );
    let newest = job.cycles.last();
    facts(
        paint,
        &[
            (
                "Loss",
                format!(
                    "{}  {} → {}",
                    sparkline(&losses, CURVE_WIDTH),
                    loss(first),
                    loss(last)
                ),
            ),
            (
                "Last cycle",
                newest.map_or_else(String::new, |c| {
                    format!(
                        "{}, {}, {:.0} ms",
                        counted(c.n_sites, "site"),
                        counted(c.n_examples, "example"),
                        c.cycle_ms
                    )
                }),
            ),
            ("Weights", newest.map_or_else(String::new, |c| c.global.short())),
        ],
    )
}

fn reports(paint: Paint, job: &JobView) -> String {
    let mut table = Table::new(paint, &["UNIT", "FOUND", "TARGET", "EXAMPLES", ""], "");
    for (unit, report) in &job.reports {
        let found = report
            .evaluation
            .metric(report.metric)
            .map_or_else(|| "–".to_owned(), |v| format!("{v:.4}"));
        table.row([
            unit.to_string(),
            format!("{} {found}", report.metric.as_str()),
            report.target.to_string(),
            count(report.evaluation.n_examples),
            if report.reached {
                paint.good("reached")
            } else {
                paint.bad("missed")
            },
        ]);
    }
    table.text()
}

fn left_out(paint: Paint, job: &JobView, wide: bool) -> String {
    /// More lines than these are only shown with `-o wide`.
    const N_SHOWN_MAX: usize = 20;
    let mut table = Table::new(paint, &["SITE", "CYCLE", "WHY"], "");
    let merged = merged(&job.left_out);
    let n = if wide {
        merged.len()
    } else {
        merged.len().min(N_SHOWN_MAX)
    };
    for (dataset, reason, cycles) in &merged[..n] {
        table.row([dataset.to_string(), spans(cycles), (*reason).to_string()]);
    }
    let mut text = table.text();
    if n < merged.len() {
        text.push_str(&format!("\n… and {} more: -o wide shows them", merged.len() - n));
    }
    text
}

/// One line for each site and reason, with all cycles in which it held, in the order of the first of them.
fn merged(left_out: &[LeftOut]) -> Vec<(&EntityId, &Rejection, Vec<Option<u32>>)> {
    let mut lines: Vec<(&EntityId, &Rejection, Vec<Option<u32>>)> = Vec::new();
    for entry in left_out {
        let same = lines
            .iter_mut()
            .find(|(dataset, reason, _)| *dataset == &entry.dataset && *reason == &entry.reason);
        let cycles: Vec<Option<u32>> = match (entry.cycle, entry.last_cycle) {
            (Some(first), Some(last)) => (first..=last).map(Some).collect(),
            (only, _) => vec![only],
        };
        match same {
            Some((_, _, known)) => known.extend(cycles),
            None => lines.push((&entry.dataset, &entry.reason, cycles)),
        }
    }
    lines
}

/// Cycles as people count them, from 1, runs joined: `before the first, 3 to 7, 9`.
fn spans(cycles: &[Option<u32>]) -> String {
    let mut parts: Vec<String> = Vec::new();
    if cycles.contains(&None) {
        parts.push("before the first".to_owned());
    }
    let mut numbers: Vec<u32> = cycles.iter().flatten().map(|c| c.saturating_add(1)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut rest = numbers.as_slice();
    while let Some(first) = rest.first() {
        let n = rest
            .iter()
            .zip(*first..)
            .take_while(|(found, next)| *found == next)
            .count();
        let last = rest[n - 1];
        parts.push(if last == *first {
            first.to_string()
        } else {
            format!("{first} to {last}")
        });
        rest = &rest[n..];
    }
    parts.join(", ")
}

/// What a job that goes on is expected to take; what it took is known when it has ended.
fn predicted(paint: Paint, job: &JobView) -> String {
    let p = &job.plan.prediction;
    facts(
        paint,
        &[
            (
                "Time",
                format!("{} to {}", duration_ms(p.ms_low), duration_ms(p.ms_high)),
            ),
            ("Bytes", bytes(p.bytes)),
        ],
    )
}

fn against(paint: Paint, job: &JobView) -> String {
    let (p, a) = (&job.plan.prediction, &job.actual);
    let mut table = Table::new(paint, &["", "PREDICTED", "ACTUAL"], "");
    let range = format!("{} to {}", duration_ms(p.ms_low), duration_ms(p.ms_high));
    table.row(["time".to_owned(), range, duration_ms(total_ms(a))]);
    table.row(["bytes".to_owned(), bytes(p.bytes), bytes(a.bytes)]);
    format!("{}\n{}", table.text(), phases(a))
}

/// The time in each phase.
pub(crate) fn phases(a: &Actual) -> String {
    format!(
        "preparing {}, training {}, verifying {}, deploying {}",
        duration_ms(a.preparing_ms),
        duration_ms(a.training_ms),
        duration_ms(a.verifying_ms),
        duration_ms(a.deploying_ms)
    )
}

/// The time of all phases.
pub(crate) fn total_ms(a: &Actual) -> u64 {
    a.preparing_ms + a.training_ms + a.verifying_ms + a.deploying_ms
}

#[cfg(test)]
mod tests {
    use super::*;
    use daitn_messages::rejection::Code;

    fn entry(dataset: &str, cycle: Option<u32>, why: &str) -> LeftOut {
        LeftOut {
            last_cycle: None,
            dataset: dataset.parse().unwrap(),
            cycle,
            reason: Rejection::new(Code::NodeLost, why),
        }
    }

    #[test]
    fn a_jobs_record_does_not_send_to_itself() {
        let pages = Code::ALL
            .iter()
            .filter(|code| code.page().contains("daitn job get"));
        assert!(
            pages.clone().any(|code| *code == Code::NotVerified),
            "the page by itself does"
        );
        for code in pages {
            let text = told(&Rejection::new(*code, "why"));
            assert!(
                text.contains("why\n") && !text.contains("daitn job get"),
                "{text}"
            );
        }
    }

    #[test]
    fn both_numbers_of_cycles_are_written_alike() {
        assert_eq!(closed(1_999, 2_000), "1,999 of 2,000 cycles closed");
        assert_eq!(closed(0, 1), "0 of 1 cycle closed");
    }

    #[test]
    fn a_site_that_stays_away_is_told_once() {
        let (a, b) = ("dataset:a/x", "dataset:b/x");
        let left_out = [
            entry(a, Some(2), "gone"),
            entry(b, None, "no"),
            entry(a, Some(3), "gone"),
            entry(a, Some(4), "late"),
            entry(a, Some(6), "gone"),
        ];
        let told: Vec<(String, String, String)> = merged(&left_out)
            .into_iter()
            .map(|(site, why, cycles)| (site.to_string(), why.message.clone(), spans(&cycles)))
            .collect();
        // Cycles are numbered from 0 on the wire and from 1 for people.
        let line = |site: &str, why: &str, when: &str| (site.to_owned(), why.to_owned(), when.to_owned());
        assert_eq!(
            told,
            [
                line(a, "gone", "3 to 4, 7"),
                line(b, "no", "before the first"),
                line(a, "late", "5"),
            ]
        );
        assert_eq!(
            spans(&[Some(0), None, Some(1), Some(0)]),
            "before the first, 1 to 2"
        );
    }
}
