//! What jobs and deployments have in common: a record that is written where it has changed, a moment at which they are
//! looked at again, an end after which they are let go of, and a fault of their own that ends nothing else.

use crate::core::{
    Turn,
    event::{Effect, Timer},
};
use daitn_messages::{
    encoding,
    ids::ArtifactId,
    rejection::{Code, Rejection},
    units::UnixMillis,
};
use daitn_store::Family;
use serde::Serialize;

impl Turn<'_> {
    /// Writes a process where it differs from how it was `written` last; says whether it did.
    pub(super) fn keep<T: Serialize>(
        &mut self,
        family: Family,
        key: &str,
        process: &T,
        written: &mut ArtifactId,
    ) -> bool {
        let bytes = encoding::encode(process);
        let hash = ArtifactId::of(&bytes);
        let is_news = *written != hash;
        if is_news {
            *written = hash;
            self.batch.put_bytes(family, key, bytes);
        }
        is_news
    }

    /// Has a process looked at again at this moment, unless its timer is `armed` for it already.
    pub(super) fn wake(&mut self, timer: Timer, armed: &mut Option<UnixMillis>, at: Option<UnixMillis>) {
        if *armed == at {
            return;
        }
        *armed = at;
        if let Some(at) = at {
            self.effect(Effect::Arm { timer, at });
        }
    }
}

/// The cause of a process that ended by a panic in its state machine.
pub(super) fn fault(process: &str) -> Rejection {
    let message =
        format!("a fault in the {process}'s own state machine; the control center's log holds its cause");
    Rejection::new(Code::Internal, message)
}

/// Those that ended first, where more than so many have ended.
pub(super) fn oldest_over<I: Ord>(
    ended: impl Iterator<Item = (Option<UnixMillis>, I)>,
    n_max: usize,
) -> Vec<I> {
    let mut ended: Vec<_> = ended.collect();
    ended.sort_unstable();
    let n_over = ended.len().saturating_sub(n_max);
    ended.into_iter().take(n_over).map(|(_, id)| id).collect()
}
