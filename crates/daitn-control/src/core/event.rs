//! Everything that can happen to the core, and everything that it can want: two closed types.

use crate::core::planning::{PlanTask, Planned};
use daitn_messages::{
    control::{CenterMessage, Hello, NodeMessage, NodeReply},
    descriptor::Descriptor,
    ids::{DecisionId, DeploymentId, EntityId, JobId, NodeId, OrderId, OrganisationId},
    job::{JobEvent, JobView},
    operation::{Answer, Operation, Principal},
    rejection::Rejection,
    request::Search,
    units::UnixMillis,
};
use std::sync::Arc;

/// Names one request until it is answered. Made by the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names one connection of a node, so that the end of an old one is not taken for the end of a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What can happen.
#[derive(Debug, Clone)]
pub enum Event {
    /// A node has connected and said who it is. Its key is proven by the transport.
    Hello {
        /// To be answered.
        request: RequestId,
        /// Who.
        node: NodeId,
        /// On which connection.
        connection: ConnectionId,
        /// What it said.
        hello: Box<Hello>,
    },
    /// A connection of a node has ended.
    Gone {
        /// Whose.
        node: NodeId,
        /// Which.
        connection: ConnectionId,
    },
    /// A connected node tells something.
    Message {
        /// To be answered.
        request: RequestId,
        /// Who.
        node: NodeId,
        /// What.
        message: NodeMessage,
    },
    /// A node did not take an order.
    NotTaken {
        /// Who.
        node: NodeId,
        /// Which order.
        order: OrderId,
        /// Why not.
        rejection: Rejection,
    },
    /// Somebody asks for something.
    Operation {
        /// To be answered.
        request: RequestId,
        /// Who asks.
        principal: Principal,
        /// For what.
        operation: Box<Operation>,
    },
    /// Somebody searches, and what the text index found.
    Search {
        /// To be answered.
        request: RequestId,
        /// Who asks.
        principal: Principal,
        /// For what.
        search: Search,
        /// Entities whose text matches, best first; none where no text was given.
        text: Option<Vec<(EntityId, f32)>>,
    },
    /// Somebody watches a job.
    Watch {
        /// To be answered.
        request: RequestId,
        /// Who asks.
        principal: Principal,
        /// Which job.
        job: JobId,
    },
    /// A plan was made.
    Planned(Box<Planned>),
    /// A moment that was waited for has come.
    Timer(Timer),
}

/// What is waited for. Firing early or twice does no harm: whoever is woken looks at the time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// Something of a job.
    Job(JobId),
    /// Something of a deployment.
    Deployment(DeploymentId),
    /// Telemetry is to be published.
    Telemetry,
    /// Old records are to be looked through.
    Housekeeping,
}

/// What the core wants done, once what it decided is durable.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Answer a node.
    ReplyNode {
        /// Which request.
        request: RequestId,
        /// With what.
        reply: NodeReply,
    },
    /// Answer a client.
    Reply {
        /// Which request.
        request: RequestId,
        /// With what.
        result: Result<Answer, Rejection>,
    },
    /// Answer a watcher; the job's events from here on are its own.
    Watching {
        /// Which request.
        request: RequestId,
        /// The job as it is now.
        view: Result<Box<JobView>, Rejection>,
    },
    /// Answer a client from the decision records.
    ReadDecision {
        /// Which request.
        request: RequestId,
        /// Which decision.
        decision: DecisionId,
        /// Only if it concerns this organisation; none: whatever it concerns.
        organisation: Option<OrganisationId>,
    },
    /// Answer a client from the log.
    ReadLeaves {
        /// Which request.
        request: RequestId,
        /// From which index.
        from: u64,
        /// How many.
        limit: u32,
    },
    /// Answer a client with a job that is no longer in memory.
    ReadJob {
        /// Which request.
        request: RequestId,
        /// Which job.
        job: JobId,
        /// Only if it is this organisation's; none: whosever it is.
        organisation: Option<OrganisationId>,
    },
    /// Make a plan, on a thread that may be held, and tell [`Event::Planned`].
    Plan(Box<PlanTask>),
    /// Tell a node, if it is connected. Orders that were not taken are sent again when it connects.
    Send {
        /// Whom.
        node: NodeId,
        /// What.
        message: Box<CenterMessage>,
    },
    /// Break off a node's connections, after what was sent.
    Disconnect {
        /// Whose.
        node: NodeId,
    },
    /// Fire a timer at a moment. A later one of the same timer replaces it.
    Arm {
        /// Which.
        timer: Timer,
        /// When.
        at: UnixMillis,
    },
    /// Publish the snapshot.
    PublishSnapshot,
    /// Tell the watchers of a job.
    JobEvent {
        /// Which job.
        job: JobId,
        /// What happened.
        event: Box<JobEvent>,
    },
    /// Make an entity's text findable.
    Index(Arc<Descriptor>),
    /// Make it unfindable.
    Unindex(EntityId),
}
