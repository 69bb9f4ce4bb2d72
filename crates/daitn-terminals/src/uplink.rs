//! The connection to the control center: dialled again for ever, with backoff, and the cause of each failure to be seen.
//! While it is away the node goes on; what it has to tell waits.

use crate::{
    contact::Uplink,
    describe_all::{describe_again, raise},
    limits::{
        CENTER_BACKOFF_FIRST, CENTER_BACKOFF_MAX, CENTER_DIAL_WITHIN, CENTER_REFUSED_WAIT,
        CENTER_REPLY_WITHIN, DESCRIBE_EVERY, TELEMETRY_EVERY_MAX, TELEMETRY_EVERY_MIN,
    },
    shared::Shared,
};
use daitn_fabric::{Backoff, CONTROL_ALPN, Connection, Endpoint};
use daitn_messages::{
    BUILD, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN,
    control::{Accepted, Enrolment, Hello, NodeMessage, NodeReply, Welcome},
    ids::{EntityId, NodeId},
    limits::FRAME_BYTES_MAX,
    rejection::{Code, Rejection},
    units::UnixMillis,
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// A connection that lived this long was a good one: the next wait begins anew.
const GOOD_AFTER: Duration = Duration::from_secs(5);

/// Dials the center and introduces the node.
///
/// # Errors
/// [`Code::Unreachable`] where there is no answer, or the center's own refusal.
pub(crate) async fn hello(
    endpoint: &Endpoint,
    center: NodeId,
    now: UnixMillis,
    enrolment: Option<Enrolment>,
) -> Result<(Connection, Welcome), Rejection> {
    let unreachable =
        |cause: String| Rejection::new(Code::Unreachable, format!("the control center: {cause}"));
    let connection = endpoint.connect(center, CONTROL_ALPN, CENTER_DIAL_WITHIN).await;
    let connection = connection.map_err(|error| unreachable(error.to_string()))?;
    let hello = Hello {
        version_min: PROTOCOL_VERSION_MIN,
        version_max: PROTOCOL_VERSION,
        build: BUILD.to_owned(),
        now,
        addresses: endpoint.peer().addresses,
        enrolment,
        asks_only: false,
    };
    let reply: Result<NodeReply, _> = connection
        .request(&hello, FRAME_BYTES_MAX, CENTER_REPLY_WITHIN)
        .await;
    match reply.map_err(|error| unreachable(error.to_string()))?? {
        Accepted::Welcome(welcome)
            if (PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION).contains(&welcome.version) =>
        {
            Ok((connection, welcome))
        }
        Accepted::Welcome(welcome) => {
            let message = format!(
                "the control center (build {}) speaks version {}, this node (build {BUILD}) {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION}",
                welcome.build, welcome.version
            );
            Err(Rejection::new(Code::VersionMismatch, message))
        }
        Accepted::Done => Err(Rejection::malformed(
            "welcome",
            "the control center answered something else",
        )),
    }
}

/// Keeps the node connected until it stops. `unopened` names the terminals that the node has but could not open: the
/// center may know them from before and must not plan with them.
pub(crate) async fn keep(
    shared: Arc<Shared>,
    uplink: Arc<Uplink>,
    unopened: impl Fn() -> Vec<EntityId> + Send + Sync,
) {
    let seed = u64::from_le_bytes(*shared.node.0.first_chunk::<8>().expect("a key has 32 bytes"));
    let mut backoff = Backoff::between(seed, CENTER_BACKOFF_FIRST, CENTER_BACKOFF_MAX);
    let keeping = async {
        loop {
            let wait = match hello(
                &shared.endpoint,
                shared.center,
                shared.clock.now(),
                uplink.enrolment(),
            )
            .await
            {
                Ok((connection, welcome)) => {
                    let since = Instant::now();
                    let cause = talk(&shared, &uplink, &connection, welcome, unopened()).await;
                    uplink.lost(cause);
                    if since.elapsed() >= GOOD_AFTER {
                        backoff.reset();
                    }
                    backoff.after_failure()
                }
                Err(rejection) if rejection.code == Code::Unreachable => {
                    uplink.lost(rejection);
                    backoff.after_failure()
                }
                // Only a new token helps: whoever runs the node is told at once instead of waiting for nothing.
                Err(rejection) if rejection.code == Code::NotEnrolled => {
                    uplink.refused(rejection);
                    uplink.revoked();
                    return;
                }
                Err(rejection) => {
                    uplink.refused(rejection);
                    CENTER_REFUSED_WAIT
                }
            };
            tokio::time::sleep(wait).await;
        }
    };
    tokio::select! {
        () = keeping => {}
        () = shared.stop.cancelled() => {}
    }
}

/// Tells what there is to tell, until the connection is lost; why it was.
async fn talk(
    shared: &Arc<Shared>,
    uplink: &Uplink,
    connection: &Connection,
    welcome: Welcome,
    unopened: Vec<EntityId>,
) -> Rejection {
    if welcome.organisation != shared.organisation {
        let message = format!(
            "the control center says that this node belongs to {}, not to {}",
            welcome.organisation, shared.organisation
        );
        connection.close(daitn_fabric::Refusal::Denied);
        return Rejection::new(Code::NotEnrolled, message);
    }
    let relay = welcome.relay.clone();
    if let Err(rejection) = uplink.welcomed(welcome).await {
        return rejection;
    }
    use_relay(shared, relay.as_deref()).await;
    tokio::select! {
        closed = connection.closed() => closed.rejection(),
        rejection = attach(shared, uplink, connection, unopened) => rejection,
        rejection = report(shared, connection) => rejection,
        rejection = measure(shared, uplink, connection) => rejection,
        rejection = link(uplink, connection) => rejection,
    }
}

/// Uses the domain's relay: to be found there, and to find the center there.
pub(crate) async fn use_relay(shared: &Shared, relay: Option<&str>) {
    if let Err(error) = shared.endpoint.set_relay(relay).await {
        return tracing::error!("the relay that the control center names cannot be used: {error}");
    }
    if let Some(mut center) = shared.endpoint.known_peer(shared.center) {
        center.relay = relay.map(ToOwned::to_owned);
        if let Err(error) = shared.endpoint.set_peer(center) {
            tracing::error!("the way to the control center by its relay is not taken: {error}");
        }
    }
}

async fn tell(connection: &Connection, message: &NodeMessage) -> Result<(), Rejection> {
    let reply: Result<NodeReply, _> = connection
        .request(message, FRAME_BYTES_MAX, CENTER_REPLY_WITHIN)
        .await;
    reply
        .map_err(|error| Rejection::new(Code::Unreachable, error.to_string()))?
        .map(drop)
}

/// Attaches each terminal's descriptor, again whenever it has changed.
async fn attach(
    shared: &Arc<Shared>,
    uplink: &Uplink,
    connection: &Connection,
    unopened: Vec<EntityId>,
) -> Rejection {
    // As if told of before, so that what is not there is taken back first. Versions begin at 1.
    let mut told: HashMap<EntityId, u64> = unopened.into_iter().map(|entity| (entity, 0)).collect();
    loop {
        let changed = shared.described.notified();
        let all = shared.terminals.all();
        let gone: Vec<EntityId> = told
            .keys()
            .filter(|entity| !all.iter().any(|attached| attached.entity == **entity))
            .cloned()
            .collect();
        for entity in gone {
            match tell(connection, &NodeMessage::Detach(entity.clone())).await {
                Err(rejection) if rejection.code == Code::Unreachable => return rejection,
                _ => told.remove(&entity),
            };
        }
        for attached in all {
            let version = attached.descriptor().version;
            if told.get(&attached.entity) == Some(&version) {
                continue;
            }
            match tell(connection, &NodeMessage::Attach(attached.signed())).await {
                Err(rejection) if rejection.code == Code::Unreachable => return rejection,
                // It knows a later version: this node's directory is older than what it has told, as after a backup was
                // restored. Or another node has this terminal: then it says so again.
                Err(rejection)
                    if rejection.code == Code::Conflict && uplink.is_first_conflict(&attached.entity) =>
                {
                    tracing::warn!(entity = %attached.entity, "described in a later version: {rejection}");
                    if let Err(rejection) = raise(shared, &attached).await {
                        tracing::error!(entity = %attached.entity, "it cannot be described anew: {rejection}");
                    }
                    shared.described.notify_one();
                }
                result => {
                    if let Err(rejection) = &result {
                        tracing::error!(entity = %attached.entity, "the control center does not attach it: {rejection}");
                    }
                    uplink.attached(&attached.entity, version, result);
                    told.insert(attached.entity.clone(), version);
                }
            }
        }
        shared.changed.notify_one();
        // A file that somebody edits tells nobody: look now and then.
        let _ = tokio::time::timeout(DESCRIBE_EVERY, changed).await;
        describe_again(shared).await;
    }
}

/// Sends what waits in the outbox, in order.
async fn report(shared: &Arc<Shared>, connection: &Connection) -> Rejection {
    loop {
        let (number, receipt) = match shared.outbox.oldest().await {
            Ok(found) => found,
            Err(error) => {
                tracing::error!("a receipt cannot be told: {error}");
                continue;
            }
        };
        match tell(connection, &NodeMessage::Report(receipt)).await {
            Ok(()) => {}
            // Not there, or too busy: the connection is made anew, after a wait.
            Err(rejection)
                if matches!(
                    rejection.code,
                    Code::Unreachable | Code::ControlUnavailable | Code::Overloaded
                ) =>
            {
                return rejection;
            }
            // A fault of the center's own, which this receipt may be the cause of.
            Err(rejection) if rejection.code == Code::Internal => {
                match shared.outbox.not_taken(number).await {
                    Ok(false) => return rejection,
                    Ok(true) => {
                        tracing::error!(
                            receipt = number,
                            "the control center cannot take a receipt; it is set aside in the outbox: {rejection}"
                        );
                    }
                    Err(error) => tracing::error!(
                        receipt = number,
                        "a receipt is not told, and not set aside: {error}"
                    ),
                }
                continue;
            }
            Err(rejection) => {
                tracing::error!("the control center does not want a receipt: {rejection}");
            }
        }
        if let Err(error) = shared.outbox.acknowledge(number).await {
            tracing::error!("a receipt that was told stays on disk: {error}");
        }
    }
}

/// Pushes telemetry: soon after a change, not too often, and now and then without one.
async fn measure(shared: &Arc<Shared>, uplink: &Uplink, connection: &Connection) -> Rejection {
    loop {
        let now = shared.clock.now();
        let all = shared.terminals.all();
        let known = all.iter().filter(|attached| uplink.is_attached(&attached.entity));
        let telemetry: Vec<_> = known.map(|attached| attached.telemetry(now)).collect();
        if !telemetry.is_empty() {
            match tell(connection, &NodeMessage::Telemetry(telemetry)).await {
                Err(rejection) if rejection.code == Code::Unreachable => return rejection,
                Err(rejection) => tracing::debug!("the control center does not want telemetry: {rejection}"),
                Ok(()) => {}
            }
        }
        tokio::time::sleep(TELEMETRY_EVERY_MIN).await;
        // Quiet until the next change, or the next regular time.
        let _ = tokio::time::timeout(TELEMETRY_EVERY_MAX, shared.changed.notified()).await;
    }
}

/// Tells what probes have found.
async fn link(uplink: &Uplink, connection: &Connection) -> Rejection {
    loop {
        let links = uplink.links().await;
        match tell(connection, &NodeMessage::Links(links)).await {
            Err(rejection) if rejection.code == Code::Unreachable => return rejection,
            Err(rejection) => tracing::debug!("the control center does not want links: {rejection}"),
            Ok(()) => {}
        }
    }
}
