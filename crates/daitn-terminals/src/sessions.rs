//! Sessions of the data plane: each request goes to the terminal that it is for, which decides whether this peer may ask.

use crate::{
    agent, compute,
    gateways::Gateways,
    host,
    shared::Shared,
    terminal::{Attached, Terminal},
};
use daitn_fabric::{IncomingSession, Refusal, Session};
use daitn_messages::{
    ids::{EntityKind, NodeId},
    limits::FRAME_BYTES_MAX,
    order::WorkOrder,
    rejection::{Code, Rejection},
    session::{AgentCall, ComputeStep, InferQuery, KeepState, SessionReply, SessionRequest, TrainStep},
    signed::Signed,
};
use std::sync::Arc;

/// Answers one session of a peer.
pub(crate) async fn answer(shared: Arc<Shared>, gateways: Arc<Gateways>, incoming: IncomingSession) {
    let remote = incoming.remote;
    let request = match incoming.header::<SessionRequest>() {
        Ok(request) => request,
        Err(error) => {
            tracing::debug!(node = %remote, "a session that cannot be read: {error}");
            return incoming.session.refuse(Refusal::Malformed);
        }
    };
    if shared.stop.is_cancelled() {
        return incoming.session.refuse(Refusal::ShuttingDown);
    }
    let mut session = incoming.session;
    let refused = match request {
        SessionRequest::Train(step) => {
            let reply = tokio::select! {
                // First: what fails because the node stops is no refusal of the site's.
                biased;
                // Made anew when it is asked for again.
                () = shared.stop.cancelled() => return session.refuse(Refusal::ShuttingDown),
                reply = train(&shared, remote, &step) => reply,
            };
            return send_last(session, remote, &reply).await;
        }
        SessionRequest::Keep(state) => keep(&shared, remote, &state, &mut session)
            .await
            .map(|()| Some(SessionReply::Kept)),
        SessionRequest::Present { weights } => host::permit(&shared, remote, weights, &mut session)
            .await
            .map(|()| Some(SessionReply::Permitted)),
        SessionRequest::Compute(step) => {
            let computed = tokio::select! {
                biased;
                () = shared.stop.cancelled() => None,
                computed = computed(&shared, remote, &step, &mut session) => Some(computed),
            };
            match computed {
                Some(computed) => computed.map(|()| None),
                None => return session.refuse(Refusal::ShuttingDown),
            }
        }
        SessionRequest::Infer(query) => inferred(&shared, remote, &query, &mut session)
            .await
            .map(|()| None),
        SessionRequest::Agent(call) => match relayed(&shared, &gateways, remote, call, session).await {
            Ok(()) => return,
            Err((returned, rejection)) => {
                session = returned;
                Err(rejection)
            }
        },
    };
    match refused {
        Ok(Some(reply)) => send_last(session, remote, &reply).await,
        // The terminal has answered.
        Ok(None) => {}
        Err(rejection) => {
            tracing::debug!(node = %remote, "a session is refused: {rejection}");
            send_last(session, remote, &SessionReply::Refused(rejection)).await;
        }
    }
}

/// One training step, asked for by a peer or by an aggregator of this node.
pub(crate) async fn train(shared: &Arc<Shared>, remote: NodeId, step: &TrainStep) -> SessionReply {
    let missing = || {
        Rejection::not_found(
            "accepted order for",
            format!("site {} of {}", step.position, step.job),
        )
    };
    let done = async {
        let (known, _) = shared
            .orders
            .train(&step.job, step.position)
            .ok_or_else(missing)?;
        let attached = shared.terminals.get(&known.order.terminal).ok_or_else(missing)?;
        let Terminal::Dataset(dataset) = &attached.terminal else {
            return Err(missing());
        };
        dataset.train(&attached, shared, remote, step).await
    };
    match done.await {
        Ok(receipt) => SessionReply::Trained(receipt),
        Err(rejection) => {
            tracing::info!(job = %step.job, round = step.cycle, node = %remote, "a training step is refused: {rejection}");
            SessionReply::Refused(rejection)
        }
    }
}

async fn send_last(mut session: Session, remote: NodeId, reply: &SessionReply) {
    if let Err(error) = session.send_last(reply).await {
        tracing::debug!(node = %remote, "an answer was not taken: {error}");
    }
}

/// The terminals of one kind: sessions that name no entity go to the one that has the order.
fn of_kind(shared: &Shared, kind: EntityKind) -> impl Iterator<Item = Arc<Attached>> {
    shared
        .terminals
        .all()
        .into_iter()
        .filter(move |attached| attached.entity.kind == kind)
}

async fn keep(
    shared: &Arc<Shared>,
    remote: NodeId,
    state: &KeepState,
    session: &mut Session,
) -> Result<(), Rejection> {
    let proof: Option<Signed<WorkOrder>> = session
        .recv(FRAME_BYTES_MAX)
        .await
        .map_err(|error| error.rejection())?;
    let attached = of_kind(shared, EntityKind::Aggregator).next();
    let attached = attached.ok_or_else(|| Rejection::not_found("aggregator", shared.node))?;
    match &attached.terminal {
        Terminal::Aggregator(aggregator) => aggregator.keep(shared, remote, state, proof.as_ref()).await,
        _ => Err(Rejection::not_found("aggregator", shared.node)),
    }
}

async fn computed(
    shared: &Arc<Shared>,
    remote: NodeId,
    step: &ComputeStep,
    session: &mut Session,
) -> Result<(), Rejection> {
    let mut refused = Rejection::not_found("accepted order for", remote);
    for attached in of_kind(shared, EntityKind::Compute) {
        let Terminal::Compute(compute) = &attached.terminal else {
            continue;
        };
        match compute::answer(&attached, compute, shared, remote, step, session).await {
            Err(rejection) if rejection.code == Code::NotFound => refused = rejection,
            result => return result,
        }
    }
    Err(refused)
}

async fn inferred(
    shared: &Arc<Shared>,
    remote: NodeId,
    query: &InferQuery,
    session: &mut Session,
) -> Result<(), Rejection> {
    let mut refused = Rejection::new(Code::ModelUnavailable, "this node has no model host");
    for attached in of_kind(shared, EntityKind::ModelHost) {
        let Terminal::Host(host) = &attached.terminal else {
            continue;
        };
        match host::answer(&attached, host, shared, remote, query, session).await {
            Err(rejection) if rejection.code == Code::ModelUnavailable => refused = rejection,
            result => return result,
        }
    }
    Err(refused)
}

async fn relayed(
    shared: &Arc<Shared>,
    gateways: &Gateways,
    remote: NodeId,
    call: AgentCall,
    session: Session,
) -> Result<(), (Session, Rejection)> {
    if !gateways.contains(remote) {
        let message = format!("{} is no gateway of this domain", remote.short());
        return Err((session, Rejection::new(Code::Unauthorised, message)));
    }
    let attached = shared.terminals.get(&call.agent);
    match attached.as_ref().map(|attached| (attached, &attached.terminal)) {
        Some((attached, Terminal::Agent(agent))) => {
            agent::answer(attached, agent, shared, call, session).await
        }
        _ => {
            let rejection = Rejection::not_found("agent", &call.agent);
            Err((session, rejection))
        }
    }
}
