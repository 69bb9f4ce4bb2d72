//! Every bound that a message obeys, in one place. A value over its bound is refused with a typed rejection.

use crate::rejection::Rejection;

/// Longest encoded control message, bytes. A plan of 10,000 sites is about 3 MiB.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest control message of a peer that has not been greeted yet, bytes: a greeting has a few hundred.
pub const STRANGER_FRAME_BYTES_MAX: usize = 64 * 1024;
/// Longest header of a data-plane session, bytes: it names artifacts and peers, never carries weights.
pub const SESSION_HEADER_BYTES_MAX: usize = 256 * 1024;
/// Longest signed descriptor, bytes.
pub const DESCRIPTOR_BYTES_MAX: usize = 256 * 1024;
/// Longest machine name (slug), bytes: the bound of a DNS label.
pub const SLUG_BYTES_MAX: usize = 63;
/// Longest human name, bytes.
pub const NAME_BYTES_MAX: usize = 200;
/// Longest free text, bytes.
pub const TEXT_BYTES_MAX: usize = 8 * 1024;
/// Longest policy text, bytes.
pub const POLICY_BYTES_MAX: usize = 64 * 1024;
/// Most features of a tabular dataset.
pub const FEATURES_MAX: usize = 16 * 1024;
/// Most classes of a classification task.
pub const CLASSES_MAX: usize = 4096;
/// Most sites in one plan.
pub const SITES_MAX: u32 = 10_000;
/// Most rounds, or cycles, of one job.
pub const ROUNDS_MAX: u32 = 10_000;
/// Most local epochs in one round.
pub const LOCAL_EPOCHS_MAX: u32 = 1_000;
/// Most parameters of a built-in architecture (4 GiB of f32).
pub const PARAMETERS_MAX: u64 = 1 << 30;
/// Largest artifact, bytes.
pub const ARTIFACT_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// Most protections of one request.
pub const PROTECTIONS_MAX: usize = 16;
/// Most organisations that a question to a policy names as recipients: each site may be of another.
pub const RECIPIENTS_MAX: usize = SITES_MAX as usize;
/// Most addresses named for one peer.
pub const ADDRESSES_MAX: usize = 16;
/// Most terminals on one node.
pub const TERMINALS_MAX: usize = 64;
/// Longest tensor payload of one inference query, bytes.
pub const QUERY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Clocks further apart than this are refused when joining, milliseconds.
pub const CLOCK_SKEW_MS_MAX: u64 = 5 * 60 * 1000;

/// Whether a text from outside is short enough and plain: it is shown on terminals, where control characters and those
/// that turn the reading direction show something else than what is there.
///
/// # Errors
/// Names the field.
pub fn bounded(field: &str, text: &str, bytes_max: usize) -> Result<(), Rejection> {
    let hidden = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.len() > bytes_max {
        Err(Rejection::too_large(field, text.len() as u64, bytes_max as u64))
    } else if text.contains(hidden) {
        Err(Rejection::malformed(field, "holds a control character"))
    } else {
        Ok(())
    }
}
