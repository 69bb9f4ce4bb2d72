//! How commands on the same machine speak to a running node: the Unix socket that the node keeps in its directory, which
//! only its owner enters. One line of JSON asks, one line answers.

use crate::failure::Failure;
use daitn_messages::{ids::EntityId, rejection::Rejection};
use daitn_terminals::AdminRequest;
use serde::Deserialize;
use std::{io, path::Path, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

/// The socket's name in the node's directory.
const NAME: &str = "node.sock";
/// Longest answer, bytes.
const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The node must have answered within this time: it may be reading a large file.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// What a node answers, as far as commands read it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer")]
pub(crate) enum Told {
    /// How the node is.
    Status(NodeTold),
    /// What the transport has counted.
    Metrics {},
    /// The terminal is open.
    Attached {
        /// Its name.
        entity: EntityId,
    },
    /// The terminal is gone.
    Detached {
        /// Whether it was open.
        was_open: bool,
    },
    /// Not done.
    Refused(Rejection),
}

/// How a node is, as far as commands read it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct NodeTold {
    /// How it stands with its control center.
    pub(crate) contact: ContactTold,
    /// Its terminals.
    pub(crate) terminals: Vec<TerminalTold>,
}

/// How a node stands with its control center.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub(crate) enum ContactTold {
    /// Not connected; why, once that is known.
    Connecting {
        /// What failed last.
        cause: Option<Rejection>,
    },
    /// Connected.
    Connected {},
    /// The center refuses the node.
    Refused {
        /// Why.
        cause: Rejection,
    },
    /// The center has thrown the node out.
    Revoked,
}

/// A terminal, as its node sees it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct TerminalTold {
    /// Its name.
    pub(crate) entity: String,
    /// Version of its descriptor; zero where it could not be opened.
    pub(crate) version: u64,
    /// What stands against it.
    pub(crate) problem: Option<Rejection>,
    /// Whether the control center has it.
    pub(crate) attached: bool,
}

/// Asks the node that runs in this directory; none where none runs.
pub(crate) async fn ask(directory: &Path, request: &AdminRequest) -> Result<Option<Told>, Failure> {
    let path = directory.join(NAME);
    let stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(Failure::file(&path, error)),
    };
    let told = tokio::time::timeout(ANSWER_TIMEOUT, exchange(stream, request))
        .await
        .map_err(|_| Failure::timed_out("the node gave no answer"))?
        .map_err(|error| Failure::file(&path, error))?;
    match told {
        Told::Refused(rejection) => Err(rejection.into()),
        told => Ok(Some(told)),
    }
}

async fn exchange(stream: UnixStream, request: &AdminRequest) -> io::Result<Told> {
    let (reader, mut writer) = stream.into_split();
    let mut text = serde_json::to_string(request)?;
    text.push('\n');
    writer.write_all(text.as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(reader.take(LINE_BYTES_MAX))
        .read_line(&mut line)
        .await?;
    Ok(serde_json::from_str(&line)?)
}
