//! Descriptors: the signed, versioned card of an entity. What is static is in [`Descriptor`] and changes only by a new
//! version; what is dynamic is in [`Telemetry`] and carries its age.

use crate::{
    ids::{ArtifactId, EntityId, EntityKind, JobId, NodeId, OrganisationId},
    learning::{Evaluation, ModelSpec, Task},
    limits::{self, bounded},
    rejection::Rejection,
    signed::Statement,
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};

/// The static card of one entity, signed by the node that holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Descriptor {
    /// What is described.
    pub entity: EntityId,
    /// Counts from 1; a higher version replaces a lower one.
    pub version: u64,
    /// The node that holds the entity and signs this.
    pub node: NodeId,
    /// For people, at most [`limits::NAME_BYTES_MAX`] bytes.
    pub title: String,
    /// For people, at most [`limits::TEXT_BYTES_MAX`] bytes. Never influences a route.
    pub description: String,
    /// ISO 3166-1 alpha-2 code of the law it is under.
    pub jurisdiction: String,
    /// When this version was made.
    pub issued_at: UnixMillis,
    /// What is particular to the kind.
    pub body: Body,
}

impl Statement for Descriptor {
    const CONTEXT: &'static str = "daitn/v1/descriptor";
}

/// What is particular to each kind of entity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    /// A dataset.
    Dataset(Box<DatasetBody>),
    /// Compute for others.
    Compute(ComputeBody),
    /// A registered model.
    Model(Box<ModelBody>),
    /// Serves models.
    ModelHost(ModelHostBody),
    /// Judges models.
    Verifier(VerifierBody),
    /// Combines updates.
    Aggregator(AggregatorBody),
    /// Speaks A2A.
    Agent(Box<AgentBody>),
}

impl Body {
    /// The kind of entity that has such a body.
    #[must_use]
    pub fn kind(&self) -> EntityKind {
        match self {
            Self::Dataset(_) => EntityKind::Dataset,
            Self::Compute(_) => EntityKind::Compute,
            Self::Model(_) => EntityKind::Model,
            Self::ModelHost(_) => EntityKind::ModelHost,
            Self::Verifier(_) => EntityKind::Verifier,
            Self::Aggregator(_) => EntityKind::Aggregator,
            Self::Agent(_) => EntityKind::Agent,
        }
    }
}

/// A dataset that can be trained on where it is. Shown to others: no file name, no row, no hash of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DatasetBody {
    /// Feature columns that it has.
    pub features: Vec<String>,
    /// The column that can be predicted.
    pub target: String,
    /// What the target is.
    pub task: Task,
    /// Number of records, rounded to tens: the exact count is told on agreement.
    pub records: u64,
    /// Share of each class, cells under ten records suppressed to zero; `None` if the owner does not tell.
    pub label_distribution: Option<Vec<f32>>,
    /// BLAKE3 over the column names and kinds: equal for data that fits together.
    pub schema_fingerprint: ArtifactId,
    /// SPDX id or URL of the licence.
    pub license: String,
    /// Who made the data.
    pub creator: String,
    /// Date of publication, `YYYY-MM-DD`.
    pub date_published: String,
    /// The landing page.
    pub url: String,
    /// Conditions of use, in words.
    pub usage: String,
    /// The owner's policy, in Cedar. Never empty.
    pub policy: String,
    /// Version of the data itself, for provenance.
    pub data_version: String,
    /// Price in micro-units of the domain's currency for a thousand records used once.
    pub price_micros_per_thousand: u64,
    /// Training speed of the node's own compute for this data, multiply-adds a second; zero if it has none.
    pub compute_rate: u64,
    /// Compute facilities that may train on it when the node has no compute; empty means none.
    #[serde(default)]
    pub compute_allowed: Vec<EntityId>,
}

/// Compute that trains for datasets whose owners name it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ComputeBody {
    /// Training speed, multiply-adds a second.
    pub compute_rate: u64,
    /// Memory for one job, bytes.
    pub memory_bytes: u64,
    /// Price in micro-units for an hour.
    pub price_micros_per_hour: u64,
}

/// A registered model: what it is, where it comes from, what was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelBody {
    /// Version within its name, from 1.
    pub model_version: u32,
    /// How to build and feed it.
    pub spec: ModelSpec,
    /// Its weights.
    pub weights: ArtifactId,
    /// Their size in bytes.
    pub weights_bytes: u64,
    /// Where it comes from.
    pub provenance: Provenance,
    /// What verification units found, one entry a report.
    pub evaluations: Vec<Evaluation>,
}

/// Where a model comes from: every part by id or hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Provenance {
    /// The job that trained it.
    pub job: JobId,
    /// Hash of the request.
    pub request: ArtifactId,
    /// Hash of the plan.
    pub plan: ArtifactId,
    /// Datasets and the descriptor version that was agreed to.
    pub datasets: Vec<(EntityId, u64)>,
    /// Hashes of the receipts.
    pub receipts: Vec<ArtifactId>,
    /// Hashes of the verification reports.
    pub reports: Vec<ArtifactId>,
    /// Build of the control center that decided.
    pub build: String,
}

/// Serves models from memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelHostBody {
    /// Memory for models, bytes.
    pub memory_bytes: u64,
    /// Inference speed, multiply-adds a second.
    pub compute_rate: u64,
    /// Price in micro-units for a thousand queries.
    pub price_micros_per_thousand: u64,
}

/// Judges models on a hold-out that no trainer saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VerifierBody {
    /// Feature columns that its hold-out has.
    pub features: Vec<String>,
    /// The column that it knows the truth of.
    pub target: String,
    /// What the target is.
    pub task: Task,
    /// Number of records, rounded to tens.
    pub records: u64,
}

/// Combines updates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AggregatorBody {
    /// Disk for updates of one round, bytes.
    pub storage_bytes: u64,
    /// Price in micro-units for a gigabyte of updates.
    pub price_micros_per_gb: u64,
}

/// An A2A agent behind a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentBody {
    /// The origin's agent card, byte for byte, at most [`limits::DESCRIPTOR_BYTES_MAX`] bytes of JSON.
    pub card: String,
    /// BLAKE3 of the card's bytes.
    pub card_hash: ArtifactId,
    /// A2A protocol version of the interface that is relayed.
    pub protocol_version: String,
    /// Skills: id, name and tags, for discovery.
    pub skills: Vec<AgentSkill>,
    /// Whether it streams.
    pub streaming: bool,
}

/// One skill of an agent, as its card names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentSkill {
    /// The skill's id.
    pub id: String,
    /// For people.
    pub name: String,
    /// Words to find it by.
    pub tags: Vec<String>,
}

/// What changes by itself: flows as telemetry and is never signed into a descriptor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Telemetry {
    /// Of which entity.
    pub entity: EntityId,
    /// When it was measured, by the node's clock.
    pub measured_at: UnixMillis,
    /// Share of its capacity in use, 0 to 1.
    pub load: f32,
    /// Sessions waiting.
    pub queued: u32,
    /// Sessions under way.
    pub in_flight: u32,
    /// Free memory, bytes.
    pub free_memory_bytes: u64,
    /// Exponentially weighted seconds to serve one query or train a thousand records, whichever the entity does.
    pub service_seconds: f32,
}

fn check_columns(features: &[String], target: &str, task: &Task) -> Result<(), Rejection> {
    if features.is_empty() || features.len() > limits::FEATURES_MAX {
        return Err(Rejection::out_of_range(
            "features",
            features.len() as f64,
            1.0,
            limits::FEATURES_MAX as f64,
        ));
    }
    features
        .iter()
        .try_for_each(|f| bounded("feature", f, limits::NAME_BYTES_MAX))?;
    let mut sorted: Vec<&String> = features.iter().collect();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Rejection::malformed("features", "a column is named twice"));
    }
    bounded("target", target, limits::NAME_BYTES_MAX)?;
    if features.iter().any(|f| f == target) {
        return Err(Rejection::malformed("target", "the target is also a feature"));
    }
    if let Task::Classification { classes } = task {
        if classes.len() < 2 || classes.len() > limits::CLASSES_MAX {
            let (n, max) = (classes.len() as f64, limits::CLASSES_MAX as f64);
            return Err(Rejection::out_of_range("classes", n, 2.0, max));
        }
        classes
            .iter()
            .try_for_each(|c| bounded("class", c, limits::NAME_BYTES_MAX))?;
    }
    Ok(())
}

impl Descriptor {
    /// Whose entity it is.
    #[must_use]
    pub fn organisation(&self) -> &OrganisationId {
        &self.entity.organisation
    }

    /// Checks every bound and that the parts agree.
    ///
    /// # Errors
    /// A rejection that names the field.
    pub fn validate(&self) -> Result<(), Rejection> {
        if self.body.kind() != self.entity.kind {
            return Err(Rejection::malformed(
                "body",
                "its kind is not the kind of the entity",
            ));
        }
        if self.version == 0 {
            return Err(Rejection::malformed("version", "counts from 1"));
        }
        bounded("title", &self.title, limits::NAME_BYTES_MAX)?;
        bounded("description", &self.description, limits::TEXT_BYTES_MAX)?;
        if !is_jurisdiction(&self.jurisdiction) {
            return Err(Rejection::malformed(
                "jurisdiction",
                "expected an ISO 3166-1 alpha-2 code such as DE",
            ));
        }
        self.body.validate()
    }
}

/// Whether a text has the form of an ISO 3166-1 alpha-2 code.
#[must_use]
pub fn is_jurisdiction(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase())
}

impl Body {
    fn validate(&self) -> Result<(), Rejection> {
        match self {
            Self::Dataset(dataset) => dataset.validate(),
            Self::Verifier(verifier) => check_columns(&verifier.features, &verifier.target, &verifier.task),
            Self::Model(model) => {
                if model.model_version == 0 || model.weights_bytes > limits::ARTIFACT_BYTES_MAX {
                    return Err(Rejection::malformed(
                        "model",
                        "version counts from 1 and weights are bounded",
                    ));
                }
                model.spec.validate()
            }
            Self::Agent(agent) => agent.validate(),
            Self::Compute(_) | Self::ModelHost(_) | Self::Aggregator(_) => Ok(()),
        }
    }
}

impl DatasetBody {
    fn validate(&self) -> Result<(), Rejection> {
        check_columns(&self.features, &self.target, &self.task)?;
        for (field, text) in [
            ("license", &self.license),
            ("creator", &self.creator),
            ("date_published", &self.date_published),
            ("url", &self.url),
            ("data_version", &self.data_version),
        ] {
            bounded(field, text, limits::NAME_BYTES_MAX)?;
        }
        bounded("usage", &self.usage, limits::TEXT_BYTES_MAX)?;
        if self.policy.trim().is_empty() {
            let message = "a dataset without a policy is not published: nobody could use it, or everybody";
            return Err(Rejection::new(crate::rejection::Code::PolicyInvalid, message));
        }
        bounded("policy", &self.policy, limits::POLICY_BYTES_MAX)?;
        if let Some(shares) = &self.label_distribution {
            let total: f32 = shares.iter().sum();
            let valid = shares.iter().all(|s| s.is_finite() && (0.0..=1.0).contains(s)) && total <= 1.001;
            if shares.len() != self.task.n_outputs() || !valid {
                return Err(Rejection::malformed(
                    "label_distribution",
                    "one share from 0 to 1 for each class, at most 1 in all",
                ));
            }
        }
        if self.compute_allowed.len() > limits::TERMINALS_MAX {
            let (n, max) = (self.compute_allowed.len() as u64, limits::TERMINALS_MAX as u64);
            return Err(Rejection::too_large("compute_allowed", n, max));
        }
        Ok(())
    }
}

impl AgentBody {
    fn validate(&self) -> Result<(), Rejection> {
        if self.card.len() > limits::DESCRIPTOR_BYTES_MAX / 2 {
            let (n, max) = (self.card.len() as u64, limits::DESCRIPTOR_BYTES_MAX as u64 / 2);
            return Err(Rejection::too_large("agent card", n, max));
        }
        if ArtifactId::of(self.card.as_bytes()) != self.card_hash {
            return Err(Rejection::malformed("card_hash", "is not the hash of the card"));
        }
        if self.skills.len() > 256 {
            return Err(Rejection::too_large("skills", self.skills.len() as u64, 256));
        }
        for skill in &self.skills {
            bounded("skill id", &skill.id, limits::NAME_BYTES_MAX)?;
            bounded("skill name", &skill.name, limits::NAME_BYTES_MAX)?;
            skill
                .tags
                .iter()
                .try_for_each(|tag| bounded("skill tag", tag, limits::NAME_BYTES_MAX))?;
        }
        bounded("protocol_version", &self.protocol_version, 16)
    }
}
