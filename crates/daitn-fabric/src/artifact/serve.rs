//! Serves ranges of artifacts to whom the owner's callback allows them. By default to nobody.

use super::{
    disk::{StoreError, blocking},
    reader::read_piece,
    store::Store,
    tree::Tree,
};
use crate::{
    counters::{Counters, add},
    error::{Refusal, SessionError},
    limits::ARTIFACT_STREAMS_MAX,
    session::Session,
};
use bytes::Bytes;
use daitn_messages::{
    ids::{ArtifactId, NodeId},
    limits::SESSION_HEADER_BYTES_MAX,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Whether a node may have an artifact.
pub type MayFetch = Arc<dyn Fn(NodeId, ArtifactId) -> bool + Send + Sync>;

/// Asks for piece hashes and a run of pieces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ask {
    pub(super) artifact: ArtifactId,
    /// Whether the piece hashes are wanted, before the pieces.
    pub(super) hashes: bool,
    pub(super) first_piece: u64,
    /// May reach past the end: what there is is sent.
    pub(super) n_pieces: u64,
}

/// The answer's first frame. After [`Answer::Sending`] follow the piece hashes, if asked for, and the pieces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    Sending {
        /// Length of the whole.
        bytes: u64,
    },
    /// Also where the artifact is here but the asker may not have it: whether it exists is none of its business.
    NotHere,
}

/// A store, and who may have what of it.
pub(crate) struct Serving {
    store: Store,
    may_fetch: MayFetch,
    streams: Semaphore,
}

impl Serving {
    pub(crate) fn new(store: Store, may_fetch: MayFetch) -> Self {
        Self {
            store,
            may_fetch,
            streams: Semaphore::new(ARTIFACT_STREAMS_MAX),
        }
    }

    pub(crate) async fn answer(
        &self,
        remote: NodeId,
        mut session: Session,
        counters: &Counters,
    ) -> Result<(), SessionError> {
        let ask: Ask = session.recv(SESSION_HEADER_BYTES_MAX).await?;
        session.set_timeout(crate::limits::SESSION_TIMEOUT);
        // Waiting in line costs the asker its patience and nobody memory.
        let Ok(_permit) = self.streams.acquire().await else {
            return Ok(());
        };
        if !(self.may_fetch)(remote, ask.artifact) {
            tracing::info!(node = %remote, artifact = %ask.artifact, "an artifact was asked for without the right to it");
            return session.send_last(&Answer::NotHere).await;
        }
        let store = self.store.clone();
        let reader = match blocking(move || store.reader(ask.artifact)).await {
            Ok(reader) => reader,
            Err(StoreError::NotHere(_)) => return session.send_last(&Answer::NotHere).await,
            Err(error @ StoreError::Damaged { .. }) => {
                tracing::error!(artifact = %ask.artifact, "an artifact cannot be served: {error}");
                return session.send_last(&Answer::NotHere).await;
            }
            Err(error) => {
                // It may well be here: the asker should come again, or ask another.
                tracing::warn!(artifact = %ask.artifact, "an artifact cannot be served now: {error}");
                session.refuse(Refusal::Cancelled);
                return Err(SessionError::Refused(Refusal::Cancelled));
            }
        };
        let (file, tree) = (reader.file().clone(), reader.tree().clone());
        session.send(&Answer::Sending { bytes: tree.bytes() }).await?;
        if ask.hashes {
            session.sender().send_bytes(Bytes::from(tree.to_bytes())).await?;
        }
        let end = ask
            .first_piece
            .saturating_add(ask.n_pieces)
            .min(Tree::n_pieces_of(tree.bytes()));
        for piece in ask.first_piece..end {
            let (file, tree) = (file.clone(), tree.clone());
            let bytes = match blocking(move || read_piece(&file, &tree, piece)).await {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::error!(artifact = %ask.artifact, "an artifact cannot be served on: {error}");
                    session.refuse(Refusal::Cancelled);
                    return Err(SessionError::Refused(Refusal::Cancelled));
                }
            };
            add(&counters.artifact_bytes_sent_total, bytes.len());
            session.sender().send_bytes(bytes).await?;
        }
        session.sender().finish()
    }
}
