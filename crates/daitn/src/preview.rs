//! What others will see of a terminal, before it is published: a real node is started in a scratch directory, on
//! loopback, and this process plays its control center. What the node would tell the real one is what is shown.

use crate::{commands::now, failure::Failure, files::private_directory};
use daitn_fabric::{CONTROL_ALPN, Endpoint, EndpointOptions, IncomingSession, Routes};
use daitn_messages::{
    BUILD, PROTOCOL_VERSION,
    control::{Accepted, NodeMessage, NodeReply, Welcome},
    descriptor::Descriptor,
    ids::OrganisationId,
    limits::FRAME_BYTES_MAX,
    signed::NodeKey,
};
use daitn_terminals::{Node, NodeOptions, TerminalOptions};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::oneshot;

/// The node has described its terminal within this time.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Room for artifacts: none is made.
const ARTIFACTS_BYTES_MAX: u64 = 1 << 20;

/// The descriptor that a node of this organisation would publish; with its key, or one made for this alone.
pub(crate) async fn descriptor(
    options: TerminalOptions,
    organisation: OrganisationId,
    key: Option<NodeKey>,
) -> Result<Descriptor, Failure> {
    let scratch = Scratch::new()?;
    let key = match key {
        Some(key) => key,
        None => crate::files::key(&scratch.path.join("node.key"))?,
    };
    let center_key = crate::files::key(&scratch.path.join("center.key"))?;
    let (center, node) = (bind(&center_key).await?, bind(&key).await?);
    let (told, descriptor) = oneshot::channel();
    let desk = Desk {
        organisation: organisation.clone(),
        told: Mutex::new(Some(told)),
        node: key.clone(),
    };
    let desk = Arc::new(desk);
    center.serve(Routes::new().on(CONTROL_ALPN, FRAME_BYTES_MAX, move |incoming| {
        desk.clone().answer(incoming)
    }));
    let state = scratch.path.join("state");
    let mut node_options = NodeOptions::new("preview", state, key, center.peer(), organisation);
    node_options.terminals = vec![options];
    node_options.artifacts_bytes_max = ARTIFACTS_BYTES_MAX;
    node_options.threads = 1;
    let handle = Node::start(node_options, node)
        .await
        .map_err(|error| Failure::internal(error.to_string()))?;
    let problem = handle
        .status()
        .terminals
        .into_iter()
        .find_map(|terminal| terminal.problem);
    let found = match problem {
        Some(rejection) => Err(Failure::from(rejection).into_usage()),
        None => match tokio::time::timeout(TIMEOUT, descriptor).await {
            Ok(Ok(descriptor)) => Ok(descriptor),
            _ => Err(Failure::internal(
                "the node did not describe its terminal in time",
            )),
        },
    };
    handle.shutdown().await;
    center.shutdown(Duration::ZERO).await;
    found
}

async fn bind(key: &NodeKey) -> Result<Endpoint, Failure> {
    let options = EndpointOptions::new(*key.to_bytes()).bound_to(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    Endpoint::bind(options)
        .await
        .map_err(|error| Failure::internal(error.to_string()))
}

/// Plays the control center: welcomes the node and listens.
struct Desk {
    organisation: OrganisationId,
    node: NodeKey,
    told: Mutex<Option<oneshot::Sender<Descriptor>>>,
}

impl Desk {
    async fn answer(self: Arc<Self>, mut incoming: IncomingSession) {
        let reply: NodeReply = match incoming.header::<NodeMessage>() {
            Ok(NodeMessage::Attach(signed)) => signed.open(self.node.id()).map(|descriptor| {
                let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(told) = told {
                    // Nobody waits any more after a time-out.
                    let _ = told.send(descriptor);
                }
                Accepted::Done
            }),
            Ok(_) => Ok(Accepted::Done),
            // All that is not a message is a greeting.
            Err(_) => Ok(Accepted::Welcome(Welcome {
                version: PROTOCOL_VERSION,
                build: BUILD.to_owned(),
                now: now(),
                organisation: self.organisation.clone(),
                terminals: Vec::new(),
                relay: None,
            })),
        };
        if let Err(error) = incoming.session.send_last(&reply).await {
            tracing::debug!(%error, "the node did not take its answer");
        }
    }
}

/// A directory that is gone afterwards.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let path: &Path = &std::env::temp_dir();
        let path = path.join(format!("daitn-preview-{}", std::process::id()));
        private_directory(&path)?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Where it stays, it holds a key that nobody uses.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
