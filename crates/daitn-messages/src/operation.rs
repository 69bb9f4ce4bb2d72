//! What clients of the network can ask of the control center, and what they get: the vocabulary behind the REST API.
//! Authority is a value: every operation goes with the [`Principal`] that asks.

use crate::{
    control::Link,
    descriptor::Descriptor,
    ids::{
        ApiKeyId, DecisionId, DeploymentId, EntityId, EntityKind, JobId, NodeId, OrganisationId, PlanId,
        Slug, TokenId,
    },
    job::{DecisionRecord, DeploymentView, JobSummary, JobView},
    leaf::Leaf,
    learning::ModelVersion,
    plan::Verdict,
    policy::{PolicyAnswer, PolicyQuestion},
    request::{Hit, Search, TrainingRequest},
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};

/// Who asks, as proven by an API key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// By which key.
    pub key: ApiKeyId,
    /// For which organisation.
    pub organisation: OrganisationId,
    /// With which rights.
    pub scopes: Vec<Scope>,
}

/// A right of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Operate the domain: tokens, nodes, keys, domain policy; sees every organisation.
    Admin,
    /// See descriptors, jobs and models.
    Read,
    /// Plan, run and stop jobs of the key's organisation.
    Train,
    /// Deploy, stop and roll back models of the key's organisation.
    Deploy,
    /// Query models and call agents.
    Query,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 5] = [Self::Admin, Self::Read, Self::Train, Self::Deploy, Self::Query];
    /// The name in requests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Read => "read",
            Self::Train => "train",
            Self::Deploy => "deploy",
            Self::Query => "query",
        }
    }
}

/// Something that is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Make a join token.
    CreateToken(NewToken),
    /// List join tokens.
    ListTokens,
    /// Revoke a join token.
    RevokeToken(TokenId),
    /// Make an API key.
    CreateKey(NewKey),
    /// List API keys.
    ListKeys,
    /// Revoke an API key.
    RevokeKey(ApiKeyId),
    /// List nodes.
    ListNodes,
    /// One node.
    GetNode(NodeId),
    /// Throw a node out; its entities are withdrawn.
    RevokeNode(NodeId),
    /// Give a node no new work.
    DrainNode(NodeId, bool),
    /// Find entities.
    Search(Search),
    /// One entity.
    GetEntity(EntityId),
    /// A verdict on a request.
    Plan(Box<TrainingRequest>),
    /// Begin the job of a feasible plan.
    Apply {
        /// Which plan.
        plan: PlanId,
        /// A repeated key gives the job that the first one began.
        idempotency_key: Option<String>,
    },
    /// List jobs.
    ListJobs,
    /// One job.
    GetJob(JobId),
    /// Stop a job.
    StopJob(JobId),
    /// The card of one version of a model.
    GetModel(ModelVersion),
    /// List deployments.
    ListDeployments,
    /// Deploy a registered model.
    Deploy {
        /// Which; the newest version where none is given.
        model: Slug,
        /// Which version.
        version: Option<u32>,
        /// On how many hosts.
        replicas: u32,
    },
    /// Stop a deployment.
    StopDeployment(DeploymentId),
    /// Deploy the version before the one that is served.
    RollBack(Slug),
    /// May somebody do something?
    Can(PolicyQuestion),
    /// The domain's policy.
    GetPolicy,
    /// Replace the domain's policy.
    SetPolicy(String),
    /// A decision record.
    Explain(DecisionId),
    /// Log leaves from an index, at most 1,000.
    Leaves {
        /// From which.
        from: u64,
        /// How many.
        limit: u32,
    },
    /// The state of the domain in numbers.
    Status,
}

impl Operation {
    /// The scope that it needs.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match self {
            Self::CreateToken(_)
            | Self::ListTokens
            | Self::RevokeToken(_)
            | Self::CreateKey(_)
            | Self::ListKeys
            | Self::RevokeKey(_)
            | Self::RevokeNode(_)
            | Self::DrainNode(..)
            | Self::SetPolicy(_)
            | Self::Leaves { .. } => Scope::Admin,
            Self::Plan(_) | Self::Apply { .. } | Self::StopJob(_) => Scope::Train,
            Self::Deploy { .. } | Self::StopDeployment(_) | Self::RollBack(_) => Scope::Deploy,
            Self::ListNodes
            | Self::GetNode(_)
            | Self::Search(_)
            | Self::GetEntity(_)
            | Self::ListJobs
            | Self::GetJob(_)
            | Self::GetModel(_)
            | Self::ListDeployments
            | Self::Can(_)
            | Self::GetPolicy
            | Self::Explain(_)
            | Self::Status => Scope::Read,
        }
    }
}

/// What comes back, after it is durable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// A new join token; its text is shown only here.
    Token(CreatedToken),
    /// Join tokens.
    Tokens(Vec<TokenView>),
    /// A new API key; its secret is shown only here.
    Key(CreatedKey),
    /// API keys.
    Keys(Vec<KeyView>),
    /// Nodes.
    Nodes(Vec<NodeView>),
    /// A node.
    Node(NodeView),
    /// Found entities.
    Hits(SearchAnswer),
    /// An entity.
    Entity(Box<Hit>),
    /// A verdict.
    Verdict(Box<Verdict>),
    /// A job.
    Job(Box<JobView>),
    /// Jobs.
    Jobs(Vec<JobSummary>),
    /// A deployment.
    Deployment(DeploymentView),
    /// Deployments.
    Deployments(Vec<DeploymentView>),
    /// A policy's answer.
    Policy(PolicyAnswer),
    /// The domain's policy.
    PolicyText {
        /// In Cedar.
        policy: String,
    },
    /// A decision record.
    Decision(Box<DecisionRecord>),
    /// Log leaves.
    Leaves(Vec<LeafAt>),
    /// Numbers.
    Status(StatusView),
    /// Done, and nothing to show.
    Done {},
}

/// A join token to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// For which organisation.
    pub organisation: OrganisationId,
    /// Kinds of terminal that the node may attach; empty: all.
    #[serde(default)]
    pub terminals: Vec<EntityKind>,
    /// How many nodes may join with it.
    #[serde(default = "one_use")]
    pub uses: u32,
    /// Valid for so long, milliseconds.
    #[serde(default = "one_day")]
    pub valid_ms: u64,
}

fn one_use() -> u32 {
    1
}

fn one_day() -> u64 {
    24 * 60 * 60 * 1000
}

/// A join token just made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatedToken {
    /// Its public half.
    pub token: TokenId,
    /// What the node joins with.
    pub text: String,
    /// Until when.
    pub expires_at: UnixMillis,
}

/// A join token as listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenView {
    /// Its public half.
    pub token: TokenId,
    /// For which organisation.
    pub organisation: OrganisationId,
    /// Kinds of terminal.
    pub terminals: Vec<EntityKind>,
    /// Uses left.
    pub uses_left: u32,
    /// Until when.
    pub expires_at: UnixMillis,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// An API key to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// For which organisation.
    pub organisation: OrganisationId,
    /// With which rights.
    pub scopes: Vec<Scope>,
    /// For people.
    #[serde(default)]
    pub note: String,
}

/// An API key just made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatedKey {
    /// Its public half.
    pub key: ApiKeyId,
    /// What goes into `Authorization: Bearer`.
    pub secret: String,
}

/// An API key as listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyView {
    /// Its public half.
    pub key: ApiKeyId,
    /// For which organisation.
    pub organisation: OrganisationId,
    /// With which rights.
    pub scopes: Vec<Scope>,
    /// For people.
    pub note: String,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// A node as listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeView {
    /// Its key.
    pub node: NodeId,
    /// What it calls itself.
    pub name: String,
    /// Whose it is.
    pub organisation: OrganisationId,
    /// Whether it is connected now.
    pub online: bool,
    /// Whether it is connected by the domain's relay, or else directly; none where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relayed: Option<bool>,
    /// Whether it gets no new work.
    pub draining: bool,
    /// Whether it was thrown out.
    pub revoked: bool,
    /// Its build, as last told.
    pub build: String,
    /// When it was last heard.
    pub last_seen: UnixMillis,
    /// What it has attached.
    pub entities: Vec<EntityId>,
    /// Measured ways between it and others, where one node was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
}

/// Found entities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SearchAnswer {
    /// This page.
    pub hits: Vec<Hit>,
    /// How many match in all.
    pub total: u64,
}

/// A leaf with its index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeafAt {
    /// From 0.
    pub index: u64,
    /// What it says.
    pub leaf: Leaf,
}

/// The state of the domain in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatusView {
    /// The domain's name.
    pub domain: String,
    /// The control center's build.
    pub build: String,
    /// The control center's key.
    pub center: NodeId,
    /// Nodes enrolled.
    pub nodes: u64,
    /// Nodes connected now.
    pub nodes_online: u64,
    /// Descriptors.
    pub descriptors: u64,
    /// Jobs that have not ended.
    pub jobs_active: u64,
    /// Jobs in all.
    pub jobs: u64,
    /// Models that are served.
    pub models_served: u64,
    /// Log leaves.
    pub leaves: u64,
    /// The registry's version, which plans refer to.
    pub state_version: u64,
}

/// A version of a registered model, in a list the newest, and which version answers queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelView {
    /// Name and version.
    pub model: ModelVersion,
    /// Its card.
    pub descriptor: Descriptor,
    /// Its deployments.
    pub deployments: Vec<DeploymentView>,
    /// The version that answers a query that names none; none: it is not served. After a roll-back it is not the newest.
    #[serde(default)]
    pub served: Option<u32>,
}
