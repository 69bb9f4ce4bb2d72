//! A node as a process: endpoint, terminals, metrics, until it is told to stop.

use super::member::{Member, relay_authorities, terminals};
use crate::{
    config::Config,
    failure::{Exit, Failure},
    files::{Lock, key, private_directory},
    output::Output,
    roles::{oam, ports},
    shutdown::Stop,
};
use daitn_fabric::{Endpoint, EndpointOptions};
use daitn_messages::rejection::Code;
use daitn_oam::{health::Health, metrics::Metrics, server::OamServer};
use daitn_terminals::{Contact, Node, NodeHandle, NodeOptions, NodeStatus, TerminalStatus, load_terminals};
use serde_json::json;
use std::{path::Path, time::Duration};

/// A node is said to be ready at the latest after this time, also when the control center is away.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How to run it, beyond its configuration.
pub(crate) struct RunNode<'a> {
    /// Its directory.
    pub(crate) directory: &'a Path,
    /// Its configuration.
    pub(crate) config: Config,
    /// Whether the end of standard input stops it.
    pub(crate) stop_with_stdin: bool,
}

/// Runs a node until it is told to stop, or thrown out.
pub(crate) async fn run(given: RunNode<'_>, output: Output) -> Result<Exit, Failure> {
    let RunNode {
        directory,
        config,
        stop_with_stdin,
    } = given;
    let member = Member::load(directory)?;
    let _lock = Lock::take(directory)?;
    ports::udp(config.node.listen, "--listen")?;
    ports::metrics(&config.metrics)?;
    let stop = Stop::new(stop_with_stdin)?;
    let endpoint = endpoint(directory, &config, &member).await?;
    let handle = start(directory, &config, &member, endpoint.clone()).await?;
    let oam = observe(directory, &config, &handle, endpoint).await?;
    let status = settled(&handle).await;
    output.say(format!(
        "Node {} of {} runs.\n  Metrics  {}\nStop it with Ctrl-C.",
        member.name,
        member.organisation,
        oam::told(oam.as_ref())
    ));
    output.ready(&json!({
        "event": "ready",
        "node": status.node,
        "name": member.name,
        "organisation": member.organisation,
        "terminals": status.terminals,
        "metrics": oam.as_ref().map(OamServer::url),
    }))?;
    let ending = tokio::select! {
        () = stop.wait() => Ok(Exit::Done),
        failure = thrown_out(&handle) => Err(failure),
    };
    tracing::info!("the node shuts down");
    handle.shutdown().await;
    if let Some(oam) = oam {
        oam.shutdown().await;
    }
    ending
}

async fn endpoint(directory: &Path, config: &Config, member: &Member) -> Result<Endpoint, Failure> {
    let key = key(&directory.join("node.key"))?;
    let mut options = EndpointOptions::new(*key.to_bytes()).bound_to(config.node.listen);
    options.relays = member.relay.iter().cloned().collect();
    options.relay_authorities = relay_authorities(directory)?;
    Endpoint::bind(options)
        .await
        .map_err(|error| Failure::usage(error.to_string()))
}

async fn start(
    directory: &Path,
    config: &Config,
    member: &Member,
    endpoint: Endpoint,
) -> Result<NodeHandle, Failure> {
    private_directory(&terminals(directory))?;
    let key = key(&directory.join("node.key"))?;
    let (state, center) = (directory.to_owned(), member.center.clone());
    let mut options = NodeOptions::new(
        member.name.as_str(),
        state,
        key,
        center,
        member.organisation.clone(),
    );
    options.terminals =
        load_terminals(&terminals(directory)).map_err(|error| Failure::usage(error.to_string()))?;
    options.artifacts_bytes_max = config.node.artifacts_max.0;
    options.threads = config.node.threads;
    Node::start(options, endpoint)
        .await
        .map_err(|error| Failure::usage(error.to_string()))
}

/// The node's status once the control center has all of its terminals, or said why not. A center that is away does not
/// keep the node from running: after a while it is ready all the same.
async fn settled(handle: &NodeHandle) -> NodeStatus {
    let mut contact = handle.contact();
    let settling = async {
        loop {
            contact.borrow_and_update();
            if is_settled(&handle.status()) || contact.changed().await.is_err() {
                return;
            }
        }
    };
    // What there is by then is what there is to say.
    let _ = tokio::time::timeout(SETTLE_TIMEOUT, settling).await;
    handle.status()
}

fn is_settled(status: &NodeStatus) -> bool {
    let known = |terminal: &TerminalStatus| terminal.attached || terminal.problem.is_some();
    match status.contact {
        Contact::Refused { .. } | Contact::Revoked => true,
        Contact::Connected { .. } => status.terminals.iter().all(known),
        Contact::Connecting { .. } => false,
    }
}

async fn observe(
    directory: &Path,
    config: &Config,
    handle: &NodeHandle,
    endpoint: Endpoint,
) -> Result<Option<OamServer>, Failure> {
    let (metrics, health) = (Metrics::default(), Health::default());
    oam::watch_fabric(&metrics, "node", endpoint);
    oam::watch_node(&metrics, handle.clone());
    oam::check_disk(&health, directory).await;
    oam::check_contact(&health, handle.clone()).await;
    oam::serve(&config.metrics, metrics, health).await
}

/// Returns when the control center has revoked the node.
async fn thrown_out(handle: &NodeHandle) -> Failure {
    let mut contact = handle.contact();
    loop {
        if *contact.borrow_and_update() == Contact::Revoked {
            return Failure::new(Code::NotEnrolled, "the control center does not know this node any more: it was revoked, or the center began anew")
                .hint("Ask the operator why. To come back, join with a new token in another directory.");
        }
        if contact.changed().await.is_err() {
            return Failure::internal("the node ended by itself");
        }
    }
}
