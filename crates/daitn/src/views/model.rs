//! Models and their deployments.

use super::Row;
use crate::{
    output::Shown,
    paint::Paint,
    render::{Table, bytes, counted, facts, section},
};
use daitn_messages::{
    descriptor::ModelBody,
    ids::{DeploymentId, EntityId},
    job::{DeploymentPhase, DeploymentView},
    learning::{Architecture, Evaluation, Metric},
    operation::ModelView,
};
use serde::Serialize;

/// Models as listed.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Models(pub(crate) Vec<ModelView>);

impl Shown for Models {
    fn human(&self, paint: Paint, _wide: bool) -> String {
        let columns = ["MODEL", "NEWEST", "SERVED", "OWNER", "FOUND", "STATE", "READY"];
        let mut table = Table::new(
            paint,
            &columns,
            "No models. One comes out of a job: daitn job init",
        );
        for view in &self.0 {
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
                body(view).map_or_else(String::new, found),
                state,
                ready,
            ]);
        }
        table.text()
    }
    fn names(&self) -> Vec<String> {
        self.0
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
    fn human(&self, paint: Paint, _wide: bool) -> String {
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
            pairs.push((
                "Predicts",
                format!(
                    "{} from {}",
                    body.spec.target,
                    counted(body.spec.features.len(), "column")
                ),
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
