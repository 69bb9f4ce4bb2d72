//! A verdict: the plan with everything that a person needs before saying yes, or what stands against the request.

use crate::{
    output::Shown,
    paint::Paint,
    render::{
        PROSE_WIDTH, Table, bytes, count, counted, date_time, duration_ms, facts, percent, section, wrapped,
    },
};
use daitn_messages::{
    learning::Task,
    plan::{Constraint, Exclusion, Plan, Verdict},
    request::TrainingRequest,
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// A verdict.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Given {
    verdict: Verdict,
    /// The request that it answers: what would be feasible is shown by how it differs.
    #[serde(skip)]
    asked: Option<TrainingRequest>,
}

impl Given {
    /// The answer to a request.
    pub(crate) fn answer(verdict: Verdict, asked: TrainingRequest) -> Self {
        let asked = Some(asked);
        Self { verdict, asked }
    }

    /// A plan that is applied at once, for people to look at: there is nothing for them to do next.
    pub(crate) fn plan(plan: Plan) -> Self {
        let plan = Box::new(plan);
        Self {
            verdict: Verdict::Feasible { plan },
            asked: None,
        }
    }
}

impl Shown for Given {
    fn human(&self, paint: Paint, wide: bool) -> String {
        match &self.verdict {
            Verdict::Feasible { plan } => {
                let mut text = feasible(paint, plan, wide);
                if self.asked.is_some() {
                    text.push_str(&format!("\n\n{}", next(paint, plan)));
                }
                text
            }
            Verdict::Infeasible {
                binding,
                nearest,
                excluded,
                ..
            } => {
                let nearest = nearest.as_deref().map(|nearest| (nearest, self.asked.as_ref()));
                infeasible(paint, binding, nearest, excluded)
            }
        }
    }
    fn names(&self) -> Vec<String> {
        match &self.verdict {
            Verdict::Feasible { plan } => vec![plan.id.to_string()],
            Verdict::Infeasible { .. } => Vec::new(),
        }
    }
}

fn feasible(paint: Paint, plan: &Plan, wide: bool) -> String {
    let request = &plan.request;
    let n_records: u64 = plan.sites.iter().map(|s| s.records).sum();
    let mut parts = vec![format!(
        "{} {} on {} with about {}, {} of {}",
        paint.good("Feasible:"),
        paint.name(&request.model),
        counted(plan.sites.len(), "site"),
        counted(n_records, "record"),
        counted(plan.rounds, "cycle"),
        method(plan),
    )];
    parts.push(section(paint, "Sites", &sites(paint, plan)));
    if !plan.excluded.is_empty() {
        let why = format!(
            "{}\nDecision: daitn explain {}",
            excluded_table(paint, &plan.excluded),
            plan.decision
        );
        parts.push(section(paint, "Left out", &why));
    }
    parts.push(section(paint, "Roles", &roles(paint, plan)));
    parts.push(section(paint, "Expected", &expected(paint, plan)));
    parts.push(section(paint, "Why this way", &why(paint, plan, wide)));
    parts.push(section(paint, "Gates", &gates(request, plan.verifiers.len())));
    parts.join("\n\n")
}

fn next(paint: Paint, plan: &Plan) -> String {
    let valid_until = date_time(plan.valid_until);
    let text = format!("daitn job apply {}\nvalid until {valid_until}", plan.id);
    section(paint, "Next", &text)
}

fn method(plan: &Plan) -> String {
    match plan.kind.as_str() {
        "itinerary" => "an itinerary".to_owned(),
        kind => format!("{} ({kind})", plan.strategy.as_str()),
    }
}

fn sites(paint: Paint, plan: &Plan) -> String {
    let columns = ["DATASET", "ABOUT", "TRAINS", "ROUND", "TRANSFER", "PERMITTED BY"];
    let mut table = Table::new(paint, &columns, "");
    for site in &plan.sites {
        let at = site
            .compute
            .as_ref()
            .map_or_else(|| "at its node".to_owned(), |c| format!("at {}", c.entity));
        table.row([
            paint.name(&site.dataset),
            count(site.records),
            at,
            duration_ms(site.train_ms),
            duration_ms(site.transfer_ms),
            site.policies.join(", "),
        ]);
    }
    let mut text = table.text();
    if plan.chains.iter().any(|chain| chain.len() > 1) {
        for (i, chain) in plan.chains.iter().enumerate() {
            let names: Vec<String> = chain
                .iter()
                .filter_map(|site| plan.sites.get(*site as usize))
                .map(|site| format!("{}/{}", site.organisation, site.dataset.name))
                .collect();
            text.push_str(&format!("\nroute {}: {}", i + 1, names.join(" → ")));
        }
        if plan.shuffle {
            text.push_str("\nthe order changes with each cycle");
        }
    }
    text
}

fn excluded_table(paint: Paint, excluded: &[Exclusion]) -> String {
    let mut table = Table::new(paint, &["ENTITY", "BECAUSE OF", "REASON", "POLICIES"], "");
    for e in excluded {
        table.row([
            e.entity.to_string(),
            paint.warn(constraint_word(e.constraint)),
            e.reason.clone(),
            e.policies.join(", "),
        ]);
    }
    table.text()
}

fn constraint_word(name: daitn_messages::plan::ConstraintName) -> String {
    serde_json::to_value(name)
        .ok()
        .and_then(|v| v.as_str().map(ToOwned::to_owned))
        .unwrap_or_default()
}

fn roles(paint: Paint, plan: &Plan) -> String {
    let names = |placements: &[daitn_messages::plan::Placement]| {
        placements
            .iter()
            .map(|p| p.entity.to_string())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut pairs = vec![("Combines", plan.aggregator.entity.to_string())];
    if !plan.quorum_why.is_empty() {
        pairs.push(("Quorum", plan.quorum_why.clone()));
    }
    if !plan.aggregator_spares.is_empty() {
        pairs.push(("Can take over", names(&plan.aggregator_spares)));
    }
    pairs.push(("Judge", names(&plan.verifiers)));
    if !plan.hosts.is_empty() {
        pairs.push(("Serve", names(&plan.hosts)));
    }
    facts(paint, &pairs)
}

/// Whether ways were measured by how they do at such a task: of predicted numbers nothing is promised.
fn is_measured(plan: &Plan) -> bool {
    matches!(plan.request.task, Task::Classification { .. })
}

fn expected(paint: Paint, plan: &Plan) -> String {
    let p = &plan.prediction;
    let time = format!(
        "{} to {}, expected {}",
        duration_ms(p.ms_low),
        duration_ms(p.ms_high),
        duration_ms(p.ms)
    );
    let mut pairs = vec![
        ("Time", time),
        ("Moved", bytes(p.bytes)),
        ("Cost", micros(p.cost_micros)),
    ];
    if is_measured(plan) {
        let quality = format!("{} of what training in one place reaches", percent(p.quality));
        let skew = format!(
            "{:.2} is reckoned with (0 the same mix everywhere, 1 one class a site)",
            p.skew
        );
        pairs.extend([("Quality", quality), ("Label skew", skew)]);
    }
    facts(paint, &pairs)
}

#[expect(clippy::cast_precision_loss, reason = "a price for people")]
fn micros(n: u64) -> String {
    if n == 0 {
        "nothing".to_owned()
    } else {
        format!("{:.6}", n as f64 / 1e6)
    }
}

fn why(paint: Paint, plan: &Plan, wide: bool) -> String {
    let mut text = wrapped(&plan.why, PROSE_WIDTH);
    if !plan.alternatives.is_empty() {
        let mut table = Table::new(paint, &["", "WAY", "TIME", "MOVED", "QUALITY", "WHY NOT"], "");
        for a in &plan.alternatives {
            let chosen = a.why_not.is_empty();
            let reason = if wide {
                a.why_not.clone()
            } else {
                crate::render::shortened(&a.why_not, 60)
            };
            table.row([
                if chosen { paint.good("✓") } else { " ".to_owned() },
                format!("{} {}", a.kind.as_str(), a.strategy.as_str()),
                duration_ms(a.prediction.ms),
                bytes(a.prediction.bytes),
                if is_measured(plan) {
                    percent(a.prediction.quality)
                } else {
                    String::new()
                },
                reason,
            ]);
        }
        text.push_str(&format!("\n{}", table.text()));
    }
    text
}

fn gates(request: &TrainingRequest, n_units: usize) -> String {
    let v = &request.verification;
    let sign = if v.metric.more_is_better() {
        "at least"
    } else {
        "at most"
    };
    let gate = format!(
        "{} of {} must find {} {sign} {}",
        v.required,
        counted(n_units, "verification unit"),
        v.metric.as_str(),
        v.target
    );
    match &request.deployment {
        Some(d) if d.replicas == 1 => format!("{gate}; then 1 replica is deployed"),
        Some(d) => format!("{gate}; then {} replicas are deployed", d.replicas),
        None => format!("{gate}; the model is then registered, not deployed"),
    }
}

fn infeasible(
    paint: Paint,
    binding: &[Constraint],
    nearest: Option<(&TrainingRequest, Option<&TrainingRequest>)>,
    excluded: &[Exclusion],
) -> String {
    let mut parts = vec![format!(
        "{} the network cannot do this as asked.",
        paint.bad("Infeasible:")
    )];
    let mut table = Table::new(paint, &["BOUND", "NEEDED", "THERE IS", "WHY"], "");
    for c in binding {
        table.row([
            paint.bad(constraint_word(c.name)),
            format!("{} {}", c.needed, c.unit),
            format!("{} {}", c.available, c.unit),
            c.explanation.clone(),
        ]);
    }
    parts.push(section(paint, "What stands against it", &table.text()));
    if !excluded.is_empty() {
        parts.push(section(
            paint,
            "Looked at and left out",
            &excluded_table(paint, excluded),
        ));
    }
    match nearest {
        Some((nearest, Some(asked))) => parts.push(section(
            paint,
            "Feasible would be the same request with",
            &differences(nearest, asked),
        )),
        Some((nearest, None)) => parts.push(section(
            paint,
            "The nearest request that would be feasible",
            toml::to_string(nearest).unwrap_or_default().trim_end(),
        )),
        None => {}
    }
    parts.join("\n\n")
}

/// Each field of a request that is another than in the one that was asked, as it is written in a file.
fn differences(request: &TrainingRequest, asked: &TrainingRequest) -> String {
    fn walk(path: &str, new: &Value, old: &Value, lines: &mut Vec<String>) {
        if new == old {
            return;
        }
        if let (Value::Object(new), Value::Object(old)) = (new, old) {
            let names: BTreeSet<&String> = new.keys().chain(old.keys()).collect();
            for name in names {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                let of = |fields: &Map<String, Value>| fields.get(name).cloned().unwrap_or(Value::Null);
                walk(&path, &of(new), &of(old), lines);
            }
            return;
        }
        let shown = |value: &Value| match value {
            Value::Null => "none".to_owned(),
            value => value.to_string(),
        };
        lines.push(match new {
            Value::Null => format!("no {path}  # asked: {}", shown(old)),
            new => format!("{path} = {new}  # asked: {}", shown(old)),
        });
    }
    let mut lines = Vec::new();
    walk("", &json!(request), &json!(asked), &mut lines);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_feasible_is_told_by_how_it_differs() {
        let request = |changed: &[(&str, Value)]| -> TrainingRequest {
            let mut request = json!({
                "model": "digits", "organisation": "lab", "jurisdiction": "DE", "purpose": "research",
                "architecture": {"kind": "linear"}, "features": ["x"], "target": "y",
                "task": {"kind": "regression"},
                "training": {"rounds": 30, "local": {"epochs": 1, "batch_size": 8, "learning_rate": 0.5, "seed": 7}},
                "verification": {"metric": "rmse", "target": 1.0, "required": 1},
            });
            for (pointer, value) in changed {
                let (at, name) = pointer.rsplit_once('/').unwrap();
                request.pointer_mut(at).unwrap()[name] = value.clone();
            }
            serde_json::from_value(request).unwrap()
        };
        let asked = request(&[("/training/quorum", json!(4))]);
        let nearest = request(&[("/training/rounds", json!(12)), ("/purpose", json!("care"))]);
        assert_eq!(
            differences(&nearest, &asked),
            "purpose = \"care\"  # asked: \"research\"\n\
             no training.quorum  # asked: 4\n\
             training.rounds = 12  # asked: 30"
        );
        assert_eq!(differences(&asked, &asked), "");
    }
}
