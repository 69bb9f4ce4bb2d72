//! What enters the loop's queue, and who waits for what comes of it.

use crate::core::{ConnectionId, Effect, Event, Planned, RequestId, Timer};
use daitn_fabric::Connection;
use daitn_messages::{
    control::{Hello, NodeMessage, NodeReply},
    ids::{JobId, NodeId, OrderId, OrganisationId},
    job::{JobEvent, JobView},
    operation::{Answer, Operation, Principal},
    rejection::Rejection,
    request::Search,
};
use tokio::sync::{broadcast, oneshot};

/// Inputs that wait for the loop; whoever has more waits.
pub(crate) const QUEUE_MAX: usize = 4 * 1024;

/// What happened, as the edge knows it.
#[derive(Debug)]
pub(crate) enum Input {
    Hello {
        connection: Connection,
        hello: Box<Hello>,
    },
    Gone {
        node: NodeId,
        connection: ConnectionId,
    },
    Message {
        node: NodeId,
        message: NodeMessage,
    },
    NotTaken {
        node: NodeId,
        order: OrderId,
        rejection: Rejection,
    },
    Operation {
        principal: Principal,
        operation: Box<Operation>,
    },
    Search {
        principal: Principal,
        search: Search,
        text: Vec<(daitn_messages::ids::EntityId, f32)>,
    },
    Watch {
        principal: Principal,
        job: JobId,
    },
    Bootstrap {
        organisation: OrganisationId,
    },
    /// Whether a node may use the relay: a question that changes nothing.
    Relay {
        node: NodeId,
        pass: Option<String>,
        answer: oneshot::Sender<bool>,
    },
    Planned(Box<Planned>),
    Timer(Timer),
    Shutdown,
}

/// Who waits.
#[derive(Debug)]
pub(crate) enum Waiting {
    Nobody,
    Node(oneshot::Sender<NodeReply>),
    Client(oneshot::Sender<Result<Answer, Rejection>>),
    Watcher(oneshot::Sender<Result<(JobView, broadcast::Receiver<JobEvent>), Rejection>>),
}

impl Waiting {
    /// Tells that it was not done.
    pub(crate) fn refuse(self, rejection: Rejection) {
        // Whoever no longer waits needs not be told.
        match self {
            Self::Nobody => {}
            Self::Node(reply) => drop(reply.send(Err(rejection))),
            Self::Client(reply) => drop(reply.send(Err(rejection))),
            Self::Watcher(reply) => drop(reply.send(Err(rejection))),
        }
    }
}

/// An input with who waits.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) input: Input,
    pub(crate) waiting: Waiting,
}

impl Envelope {
    pub(crate) fn node(input: Input, reply: oneshot::Sender<NodeReply>) -> Self {
        let waiting = Waiting::Node(reply);
        Self { input, waiting }
    }

    pub(crate) fn client(input: Input, reply: oneshot::Sender<Result<Answer, Rejection>>) -> Self {
        let waiting = Waiting::Client(reply);
        Self { input, waiting }
    }

    pub(crate) fn watch(
        principal: Principal,
        job: JobId,
        reply: oneshot::Sender<Result<(JobView, broadcast::Receiver<JobEvent>), Rejection>>,
    ) -> Self {
        Self {
            input: Input::Watch { principal, job },
            waiting: Waiting::Watcher(reply),
        }
    }

    pub(crate) fn silent(input: Input) -> Self {
        Self {
            input,
            waiting: Waiting::Nobody,
        }
    }

    pub(crate) fn shutdown() -> Self {
        Self::silent(Input::Shutdown)
    }
}

impl Input {
    /// The transaction that it leads to, as metrics name it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Gone { .. } => "gone",
            Self::Message { message, .. } => match message {
                NodeMessage::Attach(_) => "attach",
                NodeMessage::Detach(_) => "detach",
                NodeMessage::Report(_) => "report",
                NodeMessage::Telemetry(_) => "telemetry",
                NodeMessage::Links(_) => "links",
            },
            Self::NotTaken { .. } => "not-taken",
            Self::Operation { operation, .. } => match operation.as_ref() {
                Operation::Plan(_) => "ask-for-plan",
                Operation::Apply { .. } => "apply",
                _ => "operation",
            },
            Self::Search { .. } | Self::Watch { .. } => "read",
            Self::Relay { .. } => "relay",
            Self::Bootstrap { .. } => "bootstrap",
            Self::Planned(_) => "plan",
            Self::Timer(_) => "timer",
            Self::Shutdown => "shutdown",
        }
    }

    /// As the core takes it. A greeting and the making of the first key have doors of their own.
    pub(crate) fn into_event(self, request: RequestId) -> Option<Event> {
        Some(match self {
            Self::Gone { node, connection } => Event::Gone { node, connection },
            Self::Message { node, message } => Event::Message {
                request,
                node,
                message,
            },
            Self::NotTaken {
                node,
                order,
                rejection,
            } => Event::NotTaken {
                node,
                order,
                rejection,
            },
            Self::Operation { principal, operation } => Event::Operation {
                request,
                principal,
                operation,
            },
            Self::Search {
                principal,
                search,
                text,
            } => Event::Search {
                request,
                principal,
                search,
                text: Some(text),
            },
            Self::Watch { principal, job } => Event::Watch {
                request,
                principal,
                job,
            },
            Self::Planned(planned) => Event::Planned(planned),
            Self::Timer(timer) => Event::Timer(timer),
            Self::Hello { .. } | Self::Relay { .. } | Self::Bootstrap { .. } | Self::Shutdown => return None,
        })
    }
}

/// The request that an effect answers, if it answers one.
pub(crate) fn answers(effect: &Effect) -> Option<RequestId> {
    match effect {
        Effect::ReplyNode { request, .. }
        | Effect::Reply { request, .. }
        | Effect::Watching { request, .. }
        | Effect::ReadDecision { request, .. }
        | Effect::ReadLeaves { request, .. }
        | Effect::ReadJob { request, .. } => Some(*request),
        _ => None,
    }
}
