//! What a policy is asked and what it answers. The language (Cedar) and its schema live in another crate.

use crate::{
    ids::{EntityId, EntityKind, OrganisationId},
    limits::{self, PROTECTIONS_MAX, RECIPIENTS_MAX},
    rejection::{Code, Rejection},
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What somebody wants to do with an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Train on a dataset.
    Train,
    /// Evaluate a model on the hold-out of a verification unit.
    Evaluate,
    /// See that it exists.
    Discover,
    /// Serve a model.
    Serve,
    /// Query a model or call an agent.
    Query,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 5] = [
        Self::Train,
        Self::Evaluate,
        Self::Discover,
        Self::Serve,
        Self::Query,
    ];
    /// The name in policies and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Evaluate => "evaluate",
            Self::Discover => "discover",
            Self::Serve => "serve",
            Self::Query => "query",
        }
    }
    /// Whether the network ever asks policies this of an entity of this kind: no other answer would mean anything.
    #[must_use]
    pub fn fits(self, kind: EntityKind) -> bool {
        match self {
            Self::Train => kind == EntityKind::Dataset,
            Self::Evaluate => kind == EntityKind::Verifier,
            Self::Discover => true,
            Self::Serve => kind == EntityKind::Model,
            Self::Query => matches!(kind, EntityKind::Model | EntityKind::Agent),
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The circumstances of a use, in the policy's context. The control center fills it when planning and sends it in the
/// work order; the owner's node evaluates its own policy on it again before it acts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UseContext {
    /// The purpose that the requester declares: `research`, `commercial`, `care`, …
    pub purpose: String,
    /// The strategy's name, or `itinerary`.
    pub algorithm: String,
    /// Protections in force, for instance `norm-clip`. Sorted.
    pub protections: Vec<String>,
    /// How many organisations besides the requester's have work in every round at least; 1 where the model travels.
    pub cohort: u32,
    /// The requester's jurisdiction: an ISO 3166-1 alpha-2 code.
    pub jurisdiction: String,
    /// Organisations whose nodes will receive this site's update. Sorted.
    pub recipients: Vec<OrganisationId>,
}

impl UseContext {
    /// Whether it is as short as those that a request makes.
    ///
    /// # Errors
    /// Names the field that is too long.
    pub fn validate(&self) -> Result<(), Rejection> {
        let texts = [
            ("purpose", &self.purpose),
            ("algorithm", &self.algorithm),
            ("jurisdiction", &self.jurisdiction),
        ];
        for (field, text) in texts
            .into_iter()
            .chain(self.protections.iter().map(|text| ("protections", text)))
        {
            limits::bounded(field, text, limits::NAME_BYTES_MAX)?;
        }
        for (field, found, max) in [
            ("protections", self.protections.len(), PROTECTIONS_MAX),
            ("recipients", self.recipients.len(), RECIPIENTS_MAX),
        ] {
            if found > max {
                return Err(Rejection::too_large(field, found as u64, max as u64));
            }
        }
        Ok(())
    }
}

/// A question to a policy: may `who` do `verb` with `what`?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyQuestion {
    /// The organisation that asks.
    pub who: OrganisationId,
    /// What it wants to do.
    pub verb: Verb,
    /// With what.
    pub what: EntityId,
    /// The circumstances.
    pub context: UseContext,
}

impl PolicyQuestion {
    /// Whether it is a question that policies are asked.
    ///
    /// # Errors
    /// The verb that is never asked of such an entity, with those that are, or a text or list over its bound.
    pub fn validate(&self) -> Result<(), Rejection> {
        self.context.validate()?;
        if self.verb.fits(self.what.kind) {
            return Ok(());
        }
        let fitting = Verb::ALL.into_iter().filter(|verb| verb.fits(self.what.kind));
        let fitting: Vec<&str> = fitting.map(Verb::as_str).collect();
        let message = format!("no policy is ever asked to {} a {}", self.verb, self.what.kind);
        Err(Rejection::new(Code::Malformed, message).with_hint(format!(
            "Of a {}, ask: {}.",
            self.what.kind,
            fitting.join(", ")
        )))
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyAnswer {
    /// Whether it may. False as well when no policy says anything, or one failed to evaluate.
    pub allowed: bool,
    /// Ids of the policies that determined it (Cedar's determining policies).
    pub determining: Vec<String>,
    /// What failed while evaluating; any failure denies.
    #[serde(default)]
    pub errors: Vec<String>,
}
