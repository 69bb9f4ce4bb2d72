//! Which updates count, and how much: each is read once as it arrives, and is refused with a reason that belongs in the
//! job's record, or admitted with its norm; those much longer than the median are then shortened.
//!
//! That an update belongs to this round and comes from that site is known from its envelope, and checked there.

use crate::aggregation::{CHUNK_PARAMETERS, first_not_finite, parameters};
use serde::{Deserialize, Serialize};
use std::io::{self, Read};

/// Why an update is left out of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", tag = "reason")]
pub enum Refusal {
    /// A value is NaN or infinite: local training diverged, or the update is hostile.
    #[error("parameter {parameter} is NaN or infinite: lower the learning rate at this site")]
    NotFinite {
        /// Index of the first such parameter.
        parameter: u64,
    },
    /// The update is not of this model.
    #[error("{n_found} parameters where the model has {n_expected}: the site trained another model")]
    WrongLength {
        /// Parameters of the model.
        n_expected: u64,
        /// Parameters found, a broken one at the end not counted; reading stops at the first one too many.
        n_found: u64,
    },
}

impl Refusal {
    /// A stable name for metrics and records.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFinite { .. } => "not-finite",
            Self::WrongLength { .. } => "wrong-length",
        }
    }
}

/// Why an update was not admitted.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The update is to be left out.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It could not be read; nothing is known of it.
    #[error("the update cannot be read")]
    Read(#[from] io::Error),
}

/// Reads an update to its end and gives the Euclidean norm of `update - base`, or of the update itself without a base
/// (where it is a difference already).
///
/// `reader` is positioned at the first parameter and ends after the last. Memory is one chunk. The order of the sum is
/// fixed, so the norm is the same wherever it is computed.
///
/// # Errors
/// [`InspectError::Refused`] with the reason, [`InspectError::Read`] where the reader fails.
///
/// # Panics
/// If `base` has not `n_parameters` values.
pub fn inspect(
    reader: &mut impl Read,
    n_parameters: usize,
    base: Option<&[f32]>,
) -> Result<f64, InspectError> {
    assert!(
        base.is_none_or(|base| base.len() == n_parameters),
        "the base is the model that the update is of"
    );
    let n_chunk = n_parameters.min(CHUNK_PARAMETERS);
    let mut bytes = vec![0; n_chunk * size_of::<f32>()];
    let mut values = Vec::with_capacity(n_chunk);
    let mut square = Square::default();
    let mut n_done = 0;
    while n_done < n_parameters {
        let n = (n_parameters - n_done).min(CHUNK_PARAMETERS);
        let bytes = &mut bytes[..n * size_of::<f32>()];
        let n_read = read_full(reader, bytes)? / size_of::<f32>();
        if n_read < n {
            return Err(wrong_length(n_parameters, n_done + n_read));
        }
        values.clear();
        values.extend(parameters(bytes));
        if let Some(i) = first_not_finite(values.iter().copied()) {
            return Err(Refusal::NotFinite {
                parameter: (n_done + i) as u64,
            }
            .into());
        }
        square.add(&values, base.map(|base| &base[n_done..n_done + n]));
        n_done += n;
    }
    if read_full(reader, &mut [0])? > 0 {
        return Err(wrong_length(n_parameters, n_parameters + 1));
    }
    Ok(square.total().sqrt())
}

/// For each norm the factor, at most 1, that brings the update down to `multiple` times the median norm.
///
/// Give the norms of the admitted updates that carry weight, in site order. Nothing to clip gives exactly 1. A median of
/// zero clips every other update to nothing: where most sites see no reason to move, a few must not decide alone.
///
/// # Errors
/// [`ClipError`] unless `multiple` is at least 1 and finite: below 1 half of all honest sites would be clipped.
pub fn clip_factors(norms: &[f64], multiple: f64) -> Result<Vec<f64>, ClipError> {
    if !(multiple.is_finite() && multiple >= 1.0) {
        return Err(ClipError { multiple });
    }
    let norm_max = multiple * median(norms);
    Ok(norms
        .iter()
        .map(|norm| if *norm <= norm_max { 1.0 } else { norm_max / norm })
        .collect())
}

/// The multiple of the median norm is unusable.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("updates cannot be clipped to {multiple} times the median norm: give a finite number from 1")]
pub struct ClipError {
    /// What was asked.
    pub multiple: f64,
}

/// The middle value, or the mean of the two middle ones; 0 of nothing.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

fn wrong_length(n_expected: usize, n_found: usize) -> InspectError {
    Refusal::WrongLength {
        n_expected: n_expected as u64,
        n_found: n_found as u64,
    }
    .into()
}

/// Fills the buffer as far as the reader goes; how many bytes came.
fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n_read = 0;
    while n_read < buffer.len() {
        match reader.read(&mut buffer[n_read..]) {
            Ok(0) => break,
            Ok(n) => n_read += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n_read)
}

/// A sum of squares in eight lanes: a single sum in order could not be vectorised, and eight in a fixed order are as
/// reproducible.
#[derive(Default)]
struct Square {
    lanes: [f64; 8],
}

impl Square {
    /// Adds the squares of a chunk, less its base. Every chunk but the last fills all lanes.
    fn add(&mut self, values: &[f32], base: Option<&[f32]>) {
        let (blocks, rest) = values.as_chunks::<8>();
        match base.map(<[f32]>::as_chunks::<8>) {
            Some((base_blocks, base_rest)) => {
                blocks
                    .iter()
                    .zip(base_blocks)
                    .for_each(|(block, base)| self.add_block(block, base));
                self.add_block(rest, base_rest);
            }
            None => {
                blocks.iter().for_each(|block| self.add_block(block, &[0.0; 8]));
                self.add_block(rest, &[0.0; 8]);
            }
        }
    }

    #[inline]
    fn add_block(&mut self, values: &[f32], base: &[f32]) {
        for ((lane, value), base) in self.lanes.iter_mut().zip(values).zip(base) {
            let difference = f64::from(*value) - f64::from(*base);
            *lane += difference * difference;
        }
    }

    fn total(&self) -> f64 {
        self.lanes.iter().sum()
    }
}
