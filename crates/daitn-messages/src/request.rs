//! A training request: what model is wanted, from what kind of data, within which bounds.
//!
//! On our wire a field that a reader does not know is ignored, so that peers of another version can read a plan. Where a
//! person writes a request (TOML, JSON), [`crate::written::read`] refuses what would be ignored.

use crate::{
    descriptor::Descriptor,
    ids::{ArtifactId, EntityId, EntityKind, OrganisationId, Slug},
    learning::{Architecture, LocalTraining, Metric, ModelSpec, Strategy, Task},
    limits,
    rejection::Rejection,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The protection that scales updates down to a multiple of the median norm, see [`TrainingParameters::norm_clip`].
pub const NORM_CLIP: &str = "norm-clip";
/// Protections that a job can promise.
pub const PROTECTIONS: [&str; 1] = [NORM_CLIP];

/// What a model trainer asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrainingRequest {
    /// Name of the model that comes out.
    pub model: Slug,
    /// Who asks.
    pub organisation: OrganisationId,
    /// The asker's jurisdiction, ISO 3166-1 alpha-2.
    pub jurisdiction: String,
    /// What for, as policies understand it: `research`, `care`, `commercial`, …
    pub purpose: String,
    /// The model.
    pub architecture: Architecture,
    /// Feature columns that the data must have, in the order of the model's inputs.
    pub features: Vec<String>,
    /// The column to predict.
    pub target: String,
    /// What the target is.
    pub task: Task,
    /// Inputs are `(value - offset) * scale`.
    #[serde(default = "one")]
    pub scale: f32,
    /// See `scale`.
    #[serde(default)]
    pub offset: f32,
    /// Which datasets qualify beyond having the columns; empty accepts all.
    #[serde(default)]
    pub data: DataFilter,
    /// How sites train and how updates are combined.
    pub training: TrainingParameters,
    /// Protections that the job promises, for instance `norm-clip`.
    #[serde(default)]
    pub protections: Vec<String>,
    /// Bounds of the whole.
    #[serde(default)]
    pub sla: Sla,
    /// How the result is judged.
    pub verification: Verification,
    /// What happens with a verified model; none: it is only registered.
    #[serde(default)]
    pub deployment: Option<Deployment>,
}

fn one() -> f32 {
    1.0
}

/// Which datasets qualify.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct DataFilter {
    /// Only these organisations; empty: any.
    pub organisations: Vec<OrganisationId>,
    /// Only these jurisdictions; empty: any.
    pub jurisdictions: Vec<String>,
    /// Only these datasets; empty: any.
    pub datasets: Vec<EntityId>,
    /// At least this many records in each.
    pub records_min: u64,
}

/// How sites train and how updates are combined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrainingParameters {
    /// How updates are combined; none: the network chooses.
    #[serde(default)]
    pub strategy: Option<Strategy>,
    /// Forces the kind of plan; none: the network chooses.
    #[serde(default)]
    pub kind: Option<PlanKind>,
    /// Rounds, or cycles of an itinerary.
    pub rounds: u32,
    /// What a site does in each.
    pub local: LocalTraining,
    /// A round counts when this many sites answered; none: two thirds, rounded up.
    #[serde(default)]
    pub quorum: Option<u32>,
    /// A round closes at the latest after this time; none: from the prediction.
    #[serde(default)]
    pub round_deadline_ms: Option<u64>,
    /// Updates longer than this many times the median norm are scaled down to it.
    #[serde(default)]
    pub norm_clip: Option<f32>,
}

/// How the model and the data meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum PlanKind {
    /// Sites train side by side and an aggregator combines.
    Rounds,
    /// The model travels from data to data.
    Itinerary,
    /// Several itineraries side by side, combined after each cycle.
    Hybrid,
}

impl PlanKind {
    /// The name in requests, policies and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rounds => "rounds",
            Self::Itinerary => "itinerary",
            Self::Hybrid => "hybrid",
        }
    }
}

/// A request's bounds. Absent means unbounded, but for the cohort.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Sla {
    /// The whole job, from acceptance to registration.
    pub deadline_ms: Option<u64>,
    /// Bytes moved between nodes.
    pub bytes_max: Option<u64>,
    /// Price in micro-units.
    pub cost_micros_max: Option<u64>,
    /// At least this many sites.
    pub sites_min: u32,
    /// At most this many sites.
    pub sites_max: u32,
    /// At least this many records in all.
    pub records_min: u64,
}

impl Default for Sla {
    fn default() -> Self {
        Self {
            deadline_ms: None,
            bytes_max: None,
            cost_micros_max: None,
            sites_min: 1,
            sites_max: 10_000,
            records_min: 0,
        }
    }
}

/// How the result is judged: `required` of the verification units that take part must find the target reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Verification {
    /// What is measured.
    pub metric: Metric,
    /// The value to reach.
    pub target: f64,
    /// How many units must agree (k).
    pub required: u32,
    /// How many units are asked (n); none: all that fit.
    #[serde(default)]
    pub units: Option<u32>,
}

/// What happens with a verified model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Deployment {
    /// On how many hosts.
    pub replicas: u32,
    /// The owner's policy on who may query the model, in Cedar. Its own organisation always may; of others whoever this
    /// policy or the domain's permits. Empty: nobody beyond that.
    #[serde(default)]
    pub policy: String,
}

impl TrainingRequest {
    /// The model that sites build.
    #[must_use]
    pub fn model_spec(&self) -> ModelSpec {
        ModelSpec {
            architecture: self.architecture.clone(),
            features: self.features.clone(),
            target: self.target.clone(),
            task: self.task.clone(),
            scale: self.scale,
            offset: self.offset,
        }
    }

    /// The content address of the request, for provenance.
    #[must_use]
    pub fn hash(&self) -> ArtifactId {
        ArtifactId::of(&crate::encoding::encode(self))
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// A rejection that names the field.
    pub fn validate(&self) -> Result<(), Rejection> {
        self.model_spec().validate()?;
        self.training.local.validate()?;
        for (name, found, min, max) in [
            ("rounds", self.training.rounds, 1, limits::ROUNDS_MAX),
            ("sla.sites_max", self.sla.sites_max, 1, limits::SITES_MAX),
            ("sla.sites_min", self.sla.sites_min, 1, self.sla.sites_max),
            ("verification.required", self.verification.required, 1, 1_000),
            (
                "verification.units",
                self.verification.units.unwrap_or(self.verification.required),
                self.verification.required,
                1_000,
            ),
            (
                "deployment.replicas",
                self.deployment.as_ref().map_or(1, |d| d.replicas),
                1,
                1_000,
            ),
            (
                "training.quorum",
                self.training.quorum.unwrap_or(1),
                1,
                limits::SITES_MAX,
            ),
        ] {
            if found < min || found > max {
                return Err(Rejection::out_of_range(
                    name,
                    f64::from(found),
                    f64::from(min),
                    f64::from(max),
                ));
            }
        }
        if self.purpose.is_empty() {
            return Err(Rejection::malformed(
                "purpose",
                "say what the model is for: policies decide by it",
            ));
        }
        limits::bounded("purpose", &self.purpose, limits::NAME_BYTES_MAX)?;
        if !crate::descriptor::is_jurisdiction(&self.jurisdiction) {
            return Err(Rejection::malformed(
                "jurisdiction",
                "expected an ISO 3166-1 alpha-2 code such as DE",
            ));
        }
        self.validate_columns()?;
        self.verification.metric.check_task(&self.task, &self.target)?;
        self.verification.metric.check_target(self.verification.target)?;
        if self
            .training
            .norm_clip
            .is_some_and(|c| !c.is_finite() || c <= 0.0)
        {
            return Err(Rejection::malformed(
                "training.norm_clip",
                "must be a positive number",
            ));
        }
        self.validate_protections()
    }

    /// A model that is given what it is to predict learns nothing else, and a column that is given twice counts twice.
    fn validate_columns(&self) -> Result<(), Rejection> {
        let shown = |column: &str| -> String { column.chars().take(limits::NAME_BYTES_MAX).collect() };
        if self.features.contains(&self.target) {
            let why = format!(
                "`{}` is the target, and cannot be a feature too",
                shown(&self.target)
            );
            return Err(Rejection::malformed("features", &why)
                .with_hint("Take it out of `features`, or set another `target`."));
        }
        let mut seen = BTreeSet::new();
        match self
            .features
            .iter()
            .find(|feature| !seen.insert(feature.as_str()))
        {
            None => Ok(()),
            Some(twice) => {
                let why = format!("the column `{}` is named twice", shown(twice));
                Err(Rejection::malformed("features", &why).with_hint("Name each column of `features` once."))
            }
        }
    }

    /// What is promised to owners must be known, and must be what the job does.
    fn validate_protections(&self) -> Result<(), Rejection> {
        if self.protections.len() > limits::PROTECTIONS_MAX {
            let n = self.protections.len() as u64;
            return Err(Rejection::too_large(
                "protections",
                n,
                limits::PROTECTIONS_MAX as u64,
            ));
        }
        let unknown = self
            .protections
            .iter()
            .find(|p| !PROTECTIONS.contains(&p.as_str()));
        if let Some(unknown) = unknown {
            let shown: String = unknown.chars().take(limits::NAME_BYTES_MAX).collect();
            let why = format!("a job cannot promise `{shown}`, only: {}", PROTECTIONS.join(", "));
            return Err(Rejection::malformed("protections", &why));
        }
        if self.protections.iter().any(|p| p == NORM_CLIP) && self.training.norm_clip.is_none() {
            let why = "`norm-clip` is promised, and `training.norm_clip` does not say to which multiple of the median";
            return Err(Rejection::malformed("protections", why)
                .with_hint("Set training.norm_clip, for instance to 3, or promise no norm-clip."));
        }
        Ok(())
    }
}

/// A structured question to discovery. All given conditions must hold.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Search {
    /// Free text over titles, descriptions, names, skills and columns; empty: any.
    pub text: String,
    /// Only this kind.
    pub kind: Option<EntityKind>,
    /// Only these organisations; empty: any.
    pub organisations: Vec<OrganisationId>,
    /// Only these jurisdictions; empty: any.
    pub jurisdictions: Vec<String>,
    /// Datasets and verifiers that have all these columns.
    pub features: Vec<String>,
    /// Datasets and verifiers that can predict this column.
    pub target: Option<String>,
    /// Agents that have a skill with this id or tag.
    pub skill: Option<String>,
    /// Datasets of at least this many records.
    pub records_min: u64,
    /// At most this many answers; zero: 50.
    pub limit: u32,
    /// Skip this many.
    pub offset: u32,
}

/// One answer of discovery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hit {
    /// The card.
    pub descriptor: Descriptor,
    /// Whether its node is connected now.
    pub online: bool,
    /// Relevance of the text match; zero without text.
    pub score: f32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rejection::Code;
    use serde_json::json;

    fn request(task: &serde_json::Value, metric: &str, target: f64, features: &[&str]) -> TrainingRequest {
        serde_json::from_value(json!({
            "model": "m", "organisation": "lab", "jurisdiction": "DE", "purpose": "research",
            "architecture": {"kind": "linear"}, "features": features, "target": "y", "task": task,
            "training": {"rounds": 3, "local": {"epochs": 1, "batch_size": 8, "learning_rate": 0.5, "seed": 7}},
            "verification": {"metric": metric, "target": target, "required": 1},
        }))
        .unwrap()
    }

    /// Bounds from the definitions: a share lies within 0 and 1, R2 is 1 minus something that is not negative, and an
    /// error of zero or less is reached by nobody.
    #[test]
    fn what_no_model_can_reach_is_not_asked_for() {
        let classes = json!({"kind": "classification", "classes": ["a", "b"]});
        let number = json!({"kind": "regression"});
        let code = |task: &serde_json::Value, metric: &str, target: f64| {
            let asked = request(task, metric, target, &["x", "z"]);
            asked.validate().map_err(|refused| {
                assert!(refused.message.starts_with("verification."), "{refused}");
                assert!(!refused.hint.is_empty(), "{refused}");
                refused.code
            })
        };
        for (metric, reachable, not) in [
            ("accuracy", &[0.0, 0.9, 1.0][..], &[-0.1, 1.000_001, 2.3][..]),
            ("macro-f1", &[0.5, 1.0], &[-1.0, 1.9]),
        ] {
            for target in reachable {
                assert_eq!(code(&classes, metric, *target), Ok(()), "{metric} {target}");
            }
            for target in not {
                assert_eq!(
                    code(&classes, metric, *target),
                    Err(Code::OutOfRange),
                    "{metric} {target}"
                );
            }
            assert_eq!(
                code(&number, metric, 0.9),
                Err(Code::Malformed),
                "{metric} of a number"
            );
        }
        for (metric, reachable, not) in [
            ("r2", &[-3.0, 0.0, 0.8, 1.0][..], &[1.000_001, 1.9][..]),
            ("rmse", &[1e-9, 4.5, 1e9], &[0.0, -4.5]),
            ("mae", &[0.1], &[0.0, -1.0]),
        ] {
            for target in reachable {
                assert_eq!(code(&number, metric, *target), Ok(()), "{metric} {target}");
            }
            for target in not {
                assert_eq!(
                    code(&number, metric, *target),
                    Err(Code::OutOfRange),
                    "{metric} {target}"
                );
            }
            assert_eq!(
                code(&classes, metric, 0.9),
                Err(Code::Malformed),
                "{metric} of classes"
            );
        }
        // JSON has no such numbers, CBOR has.
        for metric in ["rmse", "mae", "r2"] {
            for target in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let mut asked = request(&number, metric, 1.0, &["x"]);
                asked.verification.target = target;
                assert_eq!(
                    asked.validate().unwrap_err().code,
                    Code::OutOfRange,
                    "{metric} {target}"
                );
            }
        }
    }

    #[test]
    fn a_column_is_a_feature_once_and_never_the_target() {
        let number = json!({"kind": "regression"});
        let told = |features: &[&str]| {
            let refused = request(&number, "rmse", 1.0, features).validate().unwrap_err();
            (refused.code, refused.message)
        };
        let (code, message) = told(&["x", "z", "x"]);
        assert_eq!(code, Code::Malformed);
        assert!(
            message.starts_with("features:") && message.contains("`x`"),
            "{message}"
        );
        let (code, message) = told(&["x", "y"]);
        assert_eq!(code, Code::Malformed);
        assert!(
            message.starts_with("features:") && message.contains("`y`"),
            "{message}"
        );
    }
}
