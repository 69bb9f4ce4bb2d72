//! Logs, metrics and health of a process: what the roles count, shown by `daitn-oam`.

use crate::{
    config::{self, LogFormat},
    failure::Failure,
};
use daitn_control::CenterHandle;
use daitn_fabric::Endpoint;
use daitn_gateway::GatewayStats;
use daitn_oam::{
    health::Health,
    logs,
    metrics::{Metrics, Sample},
    server::OamServer,
};
use daitn_terminals::{Contact, NodeHandle};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Sends log lines where the configuration says.
pub(crate) fn logs(log: &config::Log) -> Result<(), Failure> {
    let format = match log.format {
        LogFormat::Human => logs::LogFormat::Human,
        LogFormat::Json => logs::LogFormat::Json,
    };
    logs::init(format, &log.filter).map_err(|error| Failure::usage(error.to_string()))
}

/// Serves metrics and health, unless they are off.
pub(crate) async fn serve(
    section: &config::Metrics,
    metrics: Metrics,
    health: Health,
) -> Result<Option<OamServer>, Failure> {
    match section.listen {
        None => Ok(None),
        Some(address) => OamServer::bind(address, metrics, health)
            .await
            .map(Some)
            .map_err(|error| Failure::usage(error.to_string())),
    }
}

/// Where metrics are, for people.
pub(crate) fn told(server: Option<&OamServer>) -> String {
    server.map_or_else(
        || "off".to_owned(),
        |server| {
            format!(
                "{}   (this machine only; /livez and /readyz beside it)",
                server.url()
            )
        },
    )
}

/// A check that writes a file in the state directory and syncs it, as every decision has to.
pub(crate) async fn check_disk(health: &Health, directory: &Path) {
    let directory = directory.to_owned();
    health
        .add("disk", move || {
            let path = directory.join("health-check");
            async move {
                tokio::task::spawn_blocking(move || written(&path))
                    .await
                    .map_err(|error| error.to_string())?
            }
        })
        .await;
}

fn written(path: &PathBuf) -> Result<(), String> {
    let write = || -> std::io::Result<()> {
        let file = std::fs::File::create(path)?;
        file.set_len(1)?;
        file.sync_all()?;
        std::fs::remove_file(path)
    };
    write().map_err(|error| format!("{}: {error}; is the disk full or read-only?", path.display()))
}

/// A check that the node is connected to its control center.
pub(crate) async fn check_contact(health: &Health, node: NodeHandle) {
    health
        .add("control center", move || {
            let contact = node.contact().borrow().clone();
            async move {
                match contact {
                    Contact::Connected { .. } => Ok(()),
                    Contact::Connecting { cause: None } => Err("not connected yet".to_owned()),
                    Contact::Connecting { cause: Some(cause) } | Contact::Refused { cause } => {
                        Err(format!("{cause}. {}", cause.hint_or_page()))
                    }
                    Contact::Revoked => Err("the control center does not know this node any more: it was revoked, or the center began anew".to_owned()),
                }
            }
        })
        .await;
}

/// Shows what an endpoint counts.
pub(crate) fn watch_fabric(metrics: &Metrics, role: &'static str, endpoint: Endpoint) {
    metrics.register(move || {
        let m = endpoint.metrics();
        let all = [
            Sample::gauge(
                "fabric_connections_dialled",
                "Connections that this side dialled",
                float(m.connections_dialled_open),
            ),
            Sample::gauge(
                "fabric_connections_accepted",
                "Connections that others dialled",
                float(m.connections_accepted_open),
            ),
            Sample::counter("fabric_streams_opened", "Streams opened", m.streams_opened_total),
            Sample::counter(
                "fabric_streams_accepted",
                "Streams accepted",
                m.streams_accepted_total,
            ),
            Sample::counter(
                "fabric_streams_refused",
                "Streams refused",
                m.streams_refused_total,
            ),
            Sample::counter(
                "fabric_handler_panics",
                "Sessions whose work panicked",
                m.handler_panics_total,
            ),
            Sample::counter("fabric_sent_bytes", "Bytes sent", m.bytes_sent_total),
            Sample::counter("fabric_received_bytes", "Bytes received", m.bytes_received_total),
            Sample::counter(
                "fabric_artifact_sent_bytes",
                "Bytes of artifacts sent",
                m.artifact_bytes_sent_total,
            ),
            Sample::counter(
                "fabric_artifact_received_bytes",
                "Bytes of artifacts received",
                m.artifact_bytes_received_total,
            ),
            Sample::counter(
                "fabric_artifact_pieces_corrupt",
                "Pieces of artifacts that were not what was promised",
                m.artifact_pieces_corrupt_total,
            ),
        ];
        all.into_iter().map(|sample| sample.label("role", role)).collect()
    });
}

/// Shows what a control center counts.
pub(crate) fn watch_center(metrics: &Metrics, center: CenterHandle) {
    metrics.register(move || {
        let s = center.stats();
        vec![
            Sample::counter("center_events", "Events that were decided", s.events),
            Sample::counter(
                "center_turns",
                "Turns of the loop, each one transaction at most",
                s.turns,
            ),
            Sample::counter("center_effects", "Effects that were let out", s.effects),
            Sample::gauge("center_queued", "Events that wait for the loop", float(s.queued)),
            Sample::gauge(
                "center_nodes_online",
                "Nodes connected now",
                float(s.nodes_online),
            ),
            Sample::counter(
                "center_decide_microseconds",
                "Time in which events were decided",
                s.decide_micros_total,
            ),
            Sample::gauge(
                "center_decide_microseconds_max",
                "Longest decision",
                float(s.decide_micros_max),
            ),
            Sample::counter("center_faults", "Faults that were contained", s.faults),
        ]
    });
}

/// Shows what a node counts.
pub(crate) fn watch_node(metrics: &Metrics, node: NodeHandle) {
    metrics.register(move || {
        let status = node.status();
        let connected = matches!(status.contact, Contact::Connected { .. });
        let served = status.terminals.iter().map(|t| t.served_total).sum();
        let in_flight: u64 = status.terminals.iter().map(|t| u64::from(t.in_flight)).sum();
        vec![
            Sample::gauge(
                "node_connected",
                "Whether the control center is connected",
                f64::from(u8::from(connected)),
            ),
            Sample::gauge(
                "node_terminals",
                "Terminals",
                float(status.terminals.len() as u64),
            ),
            Sample::counter("node_sessions", "Sessions served by terminals", served),
            Sample::gauge("node_sessions_open", "Sessions under way", float(in_flight)),
            Sample::gauge(
                "node_receipts_waiting",
                "Receipts that wait for the center",
                float(status.receipts_waiting as u64),
            ),
            Sample::counter(
                "node_receipts_aside",
                "Receipts that the center could not take, set aside on disk",
                status.receipts_aside,
            ),
            Sample::gauge(
                "node_orders",
                "Orders under way",
                float(status.orders_accepted as u64),
            ),
            Sample::gauge(
                "node_artifact_bytes",
                "Bytes of artifacts kept",
                float(status.artifact_bytes),
            ),
        ]
    });
}

/// Shows what a gateway counts.
pub(crate) fn watch_gateway(metrics: &Metrics, stats: Arc<GatewayStats>) {
    metrics.register(move || {
        let s = stats.snapshot();
        let mut samples = Vec::new();
        for class in &s.requests {
            for (hundreds, n) in (1_u32..).zip(class.by_status) {
                samples.push(
                    Sample::counter("gateway_requests", "Requests answered", n)
                        .label("class", class.class)
                        .label("status", format!("{hundreds}xx")),
                );
            }
        }
        samples.extend([
            Sample::gauge(
                "gateway_requests_open",
                "Requests under way",
                float(s.requests_open),
            ),
            Sample::gauge("gateway_streams_open", "Streams under way", float(s.streams_open)),
            Sample::gauge(
                "gateway_connections_open",
                "Connections of clients",
                float(s.connections_open),
            ),
            Sample::counter(
                "gateway_connections",
                "Connections of clients so far",
                s.connections_total,
            ),
            Sample::counter(
                "gateway_failovers",
                "Queries that another replica answered",
                s.failovers_total,
            ),
            Sample::counter(
                "gateway_hedges",
                "Queries that a second replica was asked as well",
                s.hedges_total,
            ),
            Sample::counter(
                "gateway_ejections",
                "Replicas that were left alone for a while",
                s.ejections_total,
            ),
            Sample::counter(
                "gateway_overloads",
                "Requests refused because a queue was full",
                s.overloads_total,
            ),
            Sample::counter(
                "gateway_unauthenticated",
                "Requests without a valid key",
                s.unauthenticated_total,
            ),
            Sample::counter("gateway_panics", "Requests whose work panicked", s.panics_total),
        ]);
        samples
    });
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a count beyond 2^53 may lose its last digit"
)]
fn float(n: u64) -> f64 {
    n as f64
}
