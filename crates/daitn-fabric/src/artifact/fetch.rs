//! Fetches an artifact from several holders at once, over parallel streams, each piece verified before it is written.
//!
//! One stream to one holder begins: it brings the piece hashes and the first run, so a small artifact costs one round
//! trip. Then a few lanes, or more where a holder is far, take runs of missing pieces, each from the holder that is least busy. A holder that
//! lies or does not have the artifact is left out, one that breaks off is set back for a while; what it did deliver
//! stays. If the fetch itself breaks off, by an error, by being dropped or by a crash, the next one goes on from the
//! pieces that are on disk.

use super::{
    disk::{Durability, StoreError, blocking},
    lanes::Job,
    partial::Partial,
    serve::{Answer, Ask},
    store::Store,
    tree::{PIECE_LEN, Tree},
};
use crate::{
    DATA_ALPN,
    backoff::Backoff,
    counters::add,
    endpoint::Endpoint,
    error::{ConnectError, SessionError},
    limits::{FAR_RTT, FETCH_STALL, HOLDERS_MAX, RUN_PIECES_FIRST},
    session::{Session, StreamKind},
};
use bytes::{Bytes, BytesMut};
use daitn_messages::{
    ids::{ArtifactId, NodeId},
    limits::ARTIFACT_BYTES_MAX,
    rejection::{Code, Rejection},
    session::ArtifactRef,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Longest answer frame.
const ANSWER_BYTES_MAX: usize = 1024;
/// Dialling one holder, once.
const DIAL_WITHIN: Duration = Duration::from_secs(5);

/// What to fetch from whom.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// What. The length must be the right one.
    pub artifact: ArtifactRef,
    /// From whom, the best first. They must be in the address book or connected.
    pub holders: Vec<NodeId>,
    /// Whether it must outlive a power cut once fetched.
    pub durability: Durability,
    /// The fetch fails when no piece has come for this long.
    pub patience: Duration,
}

impl Fetch {
    /// Durable, with a patience of 30 s.
    #[must_use]
    pub fn new(artifact: ArtifactRef, holders: Vec<NodeId>) -> Self {
        Self {
            artifact,
            holders,
            durability: Durability::Durable,
            patience: Duration::from_secs(30),
        }
    }

    /// Not flushed to disk.
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.durability = Durability::Transient;
        self
    }

    /// With another patience.
    #[must_use]
    pub fn patient_for(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

/// How far a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are here, verified.
    pub bytes_here: u64,
    /// Length of the whole.
    pub bytes_total: u64,
}

/// What a fetch did.
#[derive(Debug, Clone, Default)]
pub struct FetchReport {
    /// Bytes that came and were verified.
    pub bytes_fetched: u64,
    /// Bytes that were here already, from an earlier fetch or whole.
    pub bytes_resumed: u64,
    /// Who delivered how much.
    pub by_holder: Vec<(NodeId, u64)>,
    /// What went wrong on the way, and with whom; the newest for each holder.
    pub failures: Vec<(NodeId, HolderFailure)>,
}

/// Why a holder did not deliver.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HolderFailure {
    /// No connection.
    #[error(transparent)]
    Unreachable(#[from] ConnectError),
    /// The stream broke off.
    #[error(transparent)]
    Broken(#[from] SessionError),
    /// It does not have it, or does not give it to this node.
    #[error("does not have it, or does not give it to this node")]
    NotHere,
    /// It has something of another length in that name.
    #[error("has {found} bytes in that name")]
    OtherLength {
        /// How many.
        found: u64,
    },
    /// It sent bytes that do not match the name.
    #[error("sent bytes that do not match the hash")]
    Lied,
}

impl HolderFailure {
    /// Whether it is worth asking again.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(error) => {
                matches!(error, ConnectError::TimedOut { .. } | ConnectError::Failed { .. })
            }
            Self::Broken(error) => error.is_transient(),
            Self::NotHere | Self::OtherLength { .. } | Self::Lied => false,
        }
    }
}

/// Why an artifact was not fetched. What came of it stays and is not moved again.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Over the bound on artifacts.
    #[error("artifact of {found} bytes is over the bound of {max}")]
    TooLarge {
        /// Its length.
        found: u64,
        /// The bound.
        max: u64,
    },
    /// The artifact is here with another length than asked for.
    #[error("artifact {artifact} has {found} bytes, not {expected}")]
    OtherLength {
        /// Which.
        artifact: ArtifactId,
        /// What was asked for.
        expected: u64,
        /// What there is.
        found: u64,
    },
    /// Nobody delivered.
    #[error("artifact {artifact} could not be fetched: {}", describe(.failures))]
    NobodyDelivered {
        /// Which.
        artifact: ArtifactId,
        /// Whom was asked, and what came of it.
        failures: Vec<(NodeId, HolderFailure)>,
    },
    /// The store here failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl FetchError {
    /// As told to users and peers.
    #[must_use]
    pub fn rejection(&self) -> Rejection {
        match self {
            Self::TooLarge { .. } => Rejection::new(Code::TooLarge, self.to_string()),
            Self::OtherLength { .. } => Rejection::new(Code::HashMismatch, self.to_string()),
            Self::Store(error) => error.rejection(),
            Self::NobodyDelivered { failures, .. } => {
                let lied = failures
                    .iter()
                    .any(|(_, failure)| matches!(failure, HolderFailure::Lied));
                let code = if lied {
                    Code::HashMismatch
                } else {
                    Code::Unreachable
                };
                Rejection::new(code, self.to_string())
            }
        }
    }
}

fn describe(failures: &[(NodeId, HolderFailure)]) -> String {
    if failures.is_empty() {
        return "no holder is known".to_owned();
    }
    let each = failures
        .iter()
        .map(|(node, failure)| format!("{} {failure}", node.short()));
    each.collect::<Vec<_>>().join("; ")
}

impl Endpoint {
    /// Fetches an artifact into the store. `progress` is called for each piece, from several tasks.
    ///
    /// # Errors
    /// Where no holder delivers, or the store fails.
    pub async fn fetch(
        &self,
        store: &Store,
        fetch: Fetch,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<FetchReport, FetchError> {
        let ArtifactRef { id, bytes } = fetch.artifact;
        if bytes > ARTIFACT_BYTES_MAX {
            return Err(FetchError::TooLarge {
                found: bytes,
                max: ARTIFACT_BYTES_MAX,
            });
        }
        let turn = store.fetch_lock(id);
        let _turn = turn.lock().await;
        if let Some(found) = store.bytes_of(id) {
            let (here, durability) = (store.clone(), fetch.durability);
            let usable = blocking(move || {
                // Of another length it is not what was asked for, or not what its name says.
                let usable = found == bytes || here.is_sound(id)?;
                if usable && durability == Durability::Durable {
                    here.flush(id)?;
                }
                Ok(usable)
            });
            if usable.await? {
                if found != bytes {
                    return Err(FetchError::OtherLength {
                        artifact: id,
                        expected: bytes,
                        found,
                    });
                }
                return Ok(FetchReport {
                    bytes_resumed: bytes,
                    ..FetchReport::default()
                });
            }
        }
        let mut holders: Vec<NodeId> = Vec::new();
        for holder in &fetch.holders {
            if *holder != self.node() && !holders.contains(holder) && holders.len() < HOLDERS_MAX {
                holders.push(*holder);
            }
        }
        let resume = {
            let store = store.clone();
            move || Partial::resume(&store, id, bytes)
        };
        let (partial, here, begun) = match blocking(resume).await? {
            Some((partial, here)) => (partial, here, None),
            None => match self.begin(&fetch, &holders).await? {
                (holder, Begun::Whole(whole)) => {
                    return self
                        .keep_whole(store, &fetch, holders[holder], whole, progress)
                        .await;
                }
                (holder, Begun::Run(tree, session, is_far)) => {
                    let store = store.clone();
                    let partial = blocking(move || Partial::create(&store, id, tree)).await?;
                    (partial, Vec::new(), Some((holder, session, is_far)))
                }
            },
        };
        let job = Arc::new(Job::new(
            self.clone(),
            fetch,
            holders,
            partial,
            &here,
            Box::new(progress),
        ));
        job.run(begun).await
    }

    /// Asks one holder after the other for the piece hashes and the first pieces, until one delivers.
    async fn begin(&self, fetch: &Fetch, holders: &[NodeId]) -> Result<(usize, Begun), FetchError> {
        let mut failures: Vec<Option<HolderFailure>> = vec![None; holders.len()];
        let mut backoff = Backoff::new(self.random());
        let since = Instant::now();
        let mut news = self.news();
        loop {
            for (n, holder) in holders.iter().enumerate() {
                if failures[n]
                    .as_ref()
                    .is_some_and(|failure| !failure.is_transient())
                {
                    continue;
                }
                match self.begin_with(fetch, *holder).await {
                    Ok(begun) => return Ok((n, begun)),
                    Err(failure) => {
                        tracing::debug!(node = %holder, artifact = %fetch.artifact.id, "not delivered: {failure}");
                        failures[n] = Some(failure);
                    }
                }
            }
            let again = failures.iter().flatten().any(HolderFailure::is_transient);
            if !again || since.elapsed() > fetch.patience {
                let failures = holders.iter().copied().zip(failures);
                let failures = failures
                    .filter_map(|(node, failure)| Some((node, failure?)))
                    .collect();
                return Err(FetchError::NobodyDelivered {
                    artifact: fetch.artifact.id,
                    failures,
                });
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.after_failure()) => {}
                () = news.of(holders) => backoff.reset(),
            }
        }
    }

    async fn begin_with(&self, fetch: &Fetch, holder: NodeId) -> Result<Begun, HolderFailure> {
        let ArtifactRef { id, bytes } = fetch.artifact;
        let single = Tree::n_pieces_of(bytes) == 1;
        let ask = Ask {
            artifact: id,
            hashes: !single,
            first_piece: 0,
            n_pieces: RUN_PIECES_FIRST,
        };
        let (mut session, is_far) = self.ask(holder, &ask, bytes).await?;
        let wanted = if single { bytes } else { Tree::encoded_len(bytes) };
        let wanted = usize::try_from(wanted).expect("the bound on artifacts bounds their piece hashes");
        let mut received = BytesMut::with_capacity(wanted.min(PIECE_LEN));
        session.receiver().append(&mut received, wanted).await?;
        if single {
            let right = Tree::single(bytes).holds(id, 0, &received);
            return if right {
                Ok(Begun::Whole(received.freeze()))
            } else {
                Err(self.lied())
            };
        }
        let tree = Tree::from_bytes(id, bytes, &received).ok_or_else(|| self.lied())?;
        Ok(Begun::Run(tree, session, is_far))
    }

    /// Opens a stream for a range; with it, whether the holder is far.
    pub(super) async fn ask(
        &self,
        holder: NodeId,
        ask: &Ask,
        bytes: u64,
    ) -> Result<(Session, bool), HolderFailure> {
        let connection = self.connection_to(holder, DATA_ALPN, DIAL_WITHIN).await?;
        let mut session = connection
            .open_kind(StreamKind::Artifact, ask, FETCH_STALL)
            .await?;
        session.sender().finish()?;
        match session.recv(ANSWER_BYTES_MAX).await? {
            Answer::Sending { bytes: found } if found == bytes => {
                let is_far = connection.rtt().is_none_or(|rtt| rtt >= FAR_RTT);
                Ok((session, is_far))
            }
            Answer::Sending { bytes: found } => Err(HolderFailure::OtherLength { found }),
            Answer::NotHere => Err(HolderFailure::NotHere),
        }
    }

    pub(super) fn lied(&self) -> HolderFailure {
        add(&self.shared.counters.artifact_pieces_corrupt_total, 1);
        HolderFailure::Lied
    }

    async fn keep_whole(
        &self,
        store: &Store,
        fetch: &Fetch,
        holder: NodeId,
        whole: Bytes,
        progress: impl Fn(Progress),
    ) -> Result<FetchReport, FetchError> {
        let bytes = whole.len() as u64;
        add(&self.shared.counters.artifact_bytes_received_total, whole.len());
        store.put_bytes(whole, fetch.durability).await?;
        progress(Progress {
            bytes_here: bytes,
            bytes_total: bytes,
        });
        Ok(FetchReport {
            bytes_fetched: bytes,
            by_holder: vec![(holder, bytes)],
            ..FetchReport::default()
        })
    }
}

/// How a fetch began.
enum Begun {
    /// The artifact is one piece, and this is it.
    Whole(Bytes),
    /// The piece hashes; the first run follows on this session. Whether the holder is far.
    Run(Tree, Session, bool),
}
