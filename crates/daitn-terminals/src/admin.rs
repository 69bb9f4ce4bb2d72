//! The node's local face for its operator: a Unix socket that only the owner of the process may use, one line of JSON
//! for each request and each answer.

use crate::{
    limits::{ADMIN_CONNECTIONS_MAX, ADMIN_LINE_BYTES_MAX},
    node::{NodeHandle, StartError},
    options::load_terminal,
    status::NodeStatus,
};
use daitn_fabric::FabricMetrics;
use daitn_messages::{
    ids::EntityId,
    rejection::{Code, Rejection},
};
use serde::{Deserialize, Serialize};
use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do", deny_unknown_fields)]
pub enum AdminRequest {
    /// How the node is.
    Status,
    /// What the transport has counted.
    Metrics,
    /// Open the terminal of this file, now.
    Attach {
        /// The terminal file.
        file: PathBuf,
    },
    /// Stop a terminal and withdraw it.
    Detach {
        /// Which.
        entity: EntityId,
    },
}

/// What is answered.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case", tag = "answer")]
pub enum AdminAnswer {
    /// How the node is.
    Status(Box<NodeStatus>),
    /// What the transport has counted.
    Metrics(FabricMetrics),
    /// The terminal is open.
    Attached {
        /// Its name.
        entity: EntityId,
    },
    /// The terminal is gone.
    Detached {
        /// Whether it was open: one that could not be opened is gone as well.
        was_open: bool,
    },
    /// Not done.
    Refused(Rejection),
}

/// Pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers on the socket until the node stops.
pub(crate) async fn listen(handle: &NodeHandle, path: &Path) -> Result<(), StartError> {
    let fail = |source| StartError::Socket {
        path: path.to_owned(),
        source,
    };
    // What is there is left from a run before: the artifact store's lock says that no other node runs on this state.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(fail)?;
    let shared = &handle.inner.shared;
    let (handle, stop, path) = (handle.clone(), shared.stop.clone(), path.to_owned());
    shared.tasks.spawn(async move {
        let connections = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
        let accepting = async {
            loop {
                let permit = connections.clone().acquire_owned().await.expect("never closed");
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let (handle, stop) = (handle.clone(), stop.clone());
                        tokio::spawn(async move {
                            let _permit = permit;
                            tokio::select! {
                                () = converse(&handle, stream) => {}
                                () = stop.cancelled() => {}
                            }
                        });
                    }
                    Err(error) => {
                        // Out of file descriptors, most likely: without a pause this would spin.
                        tracing::warn!("the local socket cannot accept a connection: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accepting => {}
            () = stop.cancelled() => {}
        }
        // Whether it stays does not matter: the next start removes it.
        let _ = std::fs::remove_file(&path);
    });
    Ok(())
}

async fn converse(handle: &NodeHandle, stream: UnixStream) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let read = (&mut reader)
            .take(ADMIN_LINE_BYTES_MAX as u64)
            .read_until(b'\n', &mut line)
            .await;
        if !matches!(read, Ok(n_bytes) if n_bytes > 0) || line.last() != Some(&b'\n') {
            return;
        }
        let answer = match serde_json::from_slice::<AdminRequest>(&line) {
            Ok(request) => answer(handle, request).await,
            Err(error) => AdminAnswer::Refused(Rejection::malformed("request", &error.to_string())),
        };
        let mut text = serde_json::to_vec(&answer).unwrap_or_default();
        text.push(b'\n');
        if writer.write_all(&text).await.is_err() {
            return;
        }
    }
}

async fn answer(handle: &NodeHandle, request: AdminRequest) -> AdminAnswer {
    let done = match request {
        AdminRequest::Status => Ok(AdminAnswer::Status(Box::new(handle.status()))),
        AdminRequest::Metrics => Ok(AdminAnswer::Metrics(handle.inner.shared.endpoint.metrics())),
        AdminRequest::Attach { file } => attach(handle, file).await,
        AdminRequest::Detach { entity } => {
            let detached = handle.detach(&entity).await;
            detached.map(|was_open| AdminAnswer::Detached { was_open })
        }
    };
    done.unwrap_or_else(AdminAnswer::Refused)
}

async fn attach(handle: &NodeHandle, file: PathBuf) -> Result<AdminAnswer, Rejection> {
    let options = crate::durable::blocking(move || load_terminal(&file)).await;
    let options = options.map_err(|error| Rejection::new(Code::Malformed, error.to_string()))?;
    handle
        .attach(options)
        .await
        .map(|entity| AdminAnswer::Attached { entity })
}
