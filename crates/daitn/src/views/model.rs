//! Models and their deployments.

use super::Row;
use crate::{
    output::Shown,
    paint::Paint,
    render::{PROSE_WIDTH, Table, bytes, counted, facts, listed, section},
};
use daitn_messages::{
    descriptor::ModelBody,
    ids::{DeploymentId, EntityId},
    job::{DeploymentPhase, DeploymentView},
    learning::{Architecture, Evaluation, Metric, ModelSpec, Task},
    operation::ModelView,
};
use serde::Serialize;

/// Room for the names of facts beside a wrapped value.
const PAIR_NAME_WIDTH: usize = 14;

/// Models as listed.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Models {
    /// The newest version of each.
    pub(crate) views: Vec<ModelView>,
    /// The versions that are served in the place of the newest, where they were looked up.
    #[serde(skip)]
    pub(crate) served: Vec<ModelView>,
}

impl Models {
    /// What the units found of the version that answers, or of the newest where none does. Which version it is of is
    /// said where there are two.
    fn found(&self, view: &ModelView) -> String {
        let Some(served) = view.served.filter(|version| *version != view.model.version) else {
            return body(view).map_or_else(String::new, found);
        };
        let is_served = |v: &&ModelView| v.model.name == view.model.name && v.model.version == served;
        let shown = self.served.iter().find(is_served).unwrap_or(view);
        let text = body(shown).map_or_else(String::new, found);
        format!("{text} (version {})", shown.model.version)
    }
}

impl Shown for Models {
    fn human(&self, paint: Paint, _wide: bool) -> String {
        let columns = ["MODEL", "NEWEST", "SERVED", "OWNER", "FOUND", "STATE", "READY"];
        let mut table = Table::new(
            paint,
            &columns,
            "No models. One comes out of a job: daitn job init",
        );
        for view in &self.views {
            // What is served now, or else what is being placed.
            let up = || view.deployments.iter().filter(|d| is_up(d.phase));
            let served = up()
                .find(|d| Some(d.model.version) == view.served)
                .or(up().next());
            let (state, ready) = served.map_or_else(
                || (paint.dim("registered"), "–".to_owned()),
                |d| (phase(paint, d.phase), format!("{}/{}", n_ready(d), d.replicas)),
            );
            table.row([
                paint.name(&view.model.name),
                view.model.version.to_string(),
                view.served.map_or_else(|| "–".to_owned(), |v| v.to_string()),
                view.descriptor.organisation().to_string(),
                self.found(view),
                state,
                ready,
            ]);
        }
        table.text()
    }
    fn names(&self) -> Vec<String> {
        self.views
            .iter()
            .map(|v| format!("{}@{}", v.model.name, v.model.version))
            .collect()
    }
}

fn body(view: &ModelView) -> Option<&ModelBody> {
    match &view.descriptor.body {
        daitn_messages::descriptor::Body::Model(body) => Some(body),
        _ => None,
    }
}

fn is_up(phase: DeploymentPhase) -> bool {
    matches!(
        phase,
        DeploymentPhase::Placing | DeploymentPhase::Ready | DeploymentPhase::Degraded
    )
}

fn n_ready(deployment: &DeploymentView) -> usize {
    deployment.hosts.iter().filter(|(_, _, ready)| *ready).count()
}

/// What the units found, of the metric that each tells first: `accuracy 0.9389, 0.9444`.
fn found(body: &ModelBody) -> String {
    let first = |evaluation: &Evaluation| evaluation.metrics.first().copied();
    let values: Vec<(Metric, f64)> = body.evaluations.iter().filter_map(first).collect();
    let Some((metric, _)) = values.first() else {
        return String::new();
    };
    let of_metric = values.iter().filter(|(m, _)| m == metric);
    let numbers: Vec<String> = of_metric.map(|(_, value)| format!("{value:.4}")).collect();
    format!("{} {}", metric.as_str(), numbers.join(", "))
}

fn phase(paint: Paint, phase: DeploymentPhase) -> String {
    match phase {
        DeploymentPhase::Placing => paint.name("placing"),
        DeploymentPhase::Ready => paint.good("ready"),
        DeploymentPhase::Degraded => paint.warn("degraded"),
        DeploymentPhase::Stopped => paint.dim("stopped"),
        DeploymentPhase::Failed => paint.bad("failed"),
    }
}

fn architecture(architecture: &Architecture) -> String {
    match architecture {
        Architecture::Linear => "linear".to_owned(),
        Architecture::Mlp { hidden } => {
            format!(
                "mlp, hidden {}",
                hidden.iter().map(u32::to_string).collect::<Vec<_>>().join("-")
            )
        }
        Architecture::Cnn {
            height,
            width,
            filters,
            ..
        } => {
            let filters: Vec<String> = filters.iter().map(u32::to_string).collect();
            format!("cnn on {height}×{width}, filters {}", filters.join("-"))
        }
    }
}

/// A model in full.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Model(pub(crate) ModelView);

impl Shown for Model {
    fn human(&self, paint: Paint, wide: bool) -> String {
        let view = &self.0;
        let mut pairs = vec![
            (
                "Model",
                paint.name(format!("{} version {}", view.model.name, view.model.version)),
            ),
            ("Owner", view.descriptor.organisation().to_string()),
            (
                "Served",
                match view.served {
                    Some(version) if version == view.model.version => "this version".to_owned(),
                    Some(version) => format!("version {version} answers queries, not this one"),
                    None => "no version".to_owned(),
                },
            ),
        ];
        let mut from = String::new();
        if let Some(body) = body(view) {
            pairs.push(("Architecture", architecture(&body.spec.architecture)));
            pairs.push(("Predicts", predicts(&body.spec)));
            pairs.push((
                "Takes",
                listed(&body.spec.features, wide, PROSE_WIDTH - PAIR_NAME_WIDTH),
            ));
            pairs.push((
                "Weights",
                format!("{} ({})", body.weights, bytes(body.weights_bytes)),
            ));
            pairs.push(("Found", found(body)));
            from = provenance(paint, body);
        }
        let mut parts = vec![facts(paint, &pairs)];
        if !from.is_empty() {
            parts.push(section(paint, "Where it comes from", &from));
        }
        for deployment in &view.deployments {
            parts.push(section(
                paint,
                "Deployment",
                &Deployed(deployment.clone()).human(paint, false),
            ));
        }
        parts.join("\n\n")
    }
    fn names(&self) -> Vec<String> {
        vec![format!("{}@{}", self.0.model.name, self.0.model.version)]
    }
}

/// `days, a number, from 5 columns`.
fn predicts(spec: &ModelSpec) -> String {
    let what = match &spec.task {
        Task::Classification { classes } => format!("one of {} classes", classes.len()),
        Task::Regression => "a number".to_owned(),
    };
    format!(
        "{}, {what}, from {}",
        spec.target,
        counted(spec.features.len(), "column")
    )
}

fn provenance(paint: Paint, body: &ModelBody) -> String {
    let p = &body.provenance;
    let datasets: Vec<String> = p
        .datasets
        .iter()
        .map(|(dataset, version)| format!("{dataset} version {version}"))
        .collect();
    facts(
        paint,
        &[
            ("Job", p.job.to_string()),
            ("Request", p.request.short()),
            ("Plan", p.plan.short()),
            ("Data", datasets.join("\n")),
            (
                "Receipts",
                format!("{}, reports {}", p.receipts.len(), p.reports.len()),
            ),
            ("Build", p.build.clone()),
        ],
    )
}

/// A deployment.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Deployed(pub(crate) DeploymentView);

impl Shown for Deployed {
    fn human(&self, paint: Paint, _wide: bool) -> String {
        let d = &self.0;
        let hosts: Vec<String> = d.hosts.iter().map(|host| replica(paint, host)).collect();
        let mut pairs = vec![
            ("Deployment", paint.name(&d.id)),
            ("Serves", format!("{} version {}", d.model.name, d.model.version)),
            (
                "State",
                format!(
                    "{}, {} of {} ready",
                    phase(paint, d.phase),
                    n_ready(d),
                    counted(d.replicas, "replica")
                ),
            ),
            ("On", hosts.join("\n")),
        ];
        if let Some(waiting) = &d.waiting {
            pairs.push(("Now", super::waiting_line(waiting)));
        }
        if let Some(cause) = &d.cause {
            pairs.push(("Cause", cause.to_string()));
        }
        facts(paint, &pairs)
    }
    fn names(&self) -> Vec<String> {
        vec![self.0.id.to_string()]
    }
}

fn replica(paint: Paint, (host, node, ready): &(EntityId, daitn_messages::ids::NodeId, bool)) -> String {
    let state = if *ready {
        paint.good("ready")
    } else {
        paint.warn("not ready")
    };
    format!("{host} on {}, {state}", node.short())
}

impl Row for DeploymentView {
    const COLUMNS: &'static [&'static str] = &["DEPLOYMENT", "MODEL", "VERSION", "STATE", "READY"];
    const EMPTY: &'static str = "No deployments. Make one: daitn model deploy NAME";

    fn name(&self) -> String {
        let id: &DeploymentId = &self.id;
        id.to_string()
    }
    fn cells(&self, paint: Paint, _wide: bool) -> Vec<String> {
        vec![
            paint.name(&self.id),
            self.model.name.to_string(),
            self.model.version.to_string(),
            phase(paint, self.phase),
            format!("{}/{}", n_ready(self), self.replicas),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daitn_messages::ids::{ArtifactId, NodeId};
    use serde_json::json;

    fn view(version: u32, served: Option<u32>, accuracy: f64) -> ModelView {
        let hash = ArtifactId([0; 32]);
        serde_json::from_value(json!({
            "model": { "name": "los", "version": version },
            "descriptor": {
                "entity": "model:ward/los", "version": 1, "node": NodeId([7; 32]), "title": "", "description": "",
                "jurisdiction": "DE", "issued_at": 0,
                "body": { "model": {
                    "model_version": version,
                    "spec": { "architecture": { "kind": "linear" }, "features": features(25), "target": "days",
                        "task": { "kind": "regression" }, "scale": 1.0, "offset": 0.0 },
                    "weights": hash, "weights_bytes": 8,
                    "provenance": { "job": "job-01arz3ndektsv4rrffq69g5fav", "request": hash, "plan": hash,
                        "datasets": [], "receipts": [], "reports": [], "build": "b" },
                    "evaluations": [{ "n_examples": 1, "loss": 0.5, "metrics": [["accuracy", accuracy]],
                        "confusion": [] }],
                } },
            },
            "deployments": [], "served": served,
        }))
        .unwrap()
    }

    fn features(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("f{i}")).collect()
    }

    /// After a roll-back the newest version's quality must not stand beside the older one that answers.
    #[test]
    fn what_was_found_is_of_the_version_that_answers() {
        let (first, newest) = (view(1, Some(1), 0.25), view(2, Some(1), 0.75));
        let found = |views: Vec<ModelView>, served| {
            let models = Models { views, served };
            models.found(&models.views[0])
        };
        assert_eq!(
            found(vec![newest.clone()], vec![first]),
            "accuracy 0.2500 (version 1)"
        );
        assert_eq!(found(vec![newest], Vec::new()), "accuracy 0.7500 (version 2)");
        assert_eq!(found(vec![view(2, Some(2), 0.75)], Vec::new()), "accuracy 0.7500");
        assert_eq!(found(vec![view(2, None, 0.75)], Vec::new()), "accuracy 0.7500");
    }

    #[test]
    fn a_models_columns_are_told_in_their_order() {
        let shown = Model(view(1, None, 0.5)).human(Paint::plain(), false);
        assert!(shown.contains("days, a number, from 25 columns"), "{shown}");
        assert!(
            shown.contains("f0, f1, f2, ") && shown.contains("f19 and 5 more"),
            "{shown}"
        );
        let all = Model(view(1, None, 0.5)).human(Paint::plain(), true);
        let words = all.split_whitespace().map(|word| word.trim_end_matches(','));
        let told: Vec<&str> = words
            .filter(|word| word.len() > 1 && word.starts_with('f'))
            .collect();
        let told: Vec<String> = told
            .into_iter()
            .filter(|w| w != &"from")
            .map(str::to_owned)
            .collect();
        assert_eq!(told, features(25), "{all}");
    }
}
