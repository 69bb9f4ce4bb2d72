//! The weighted mean of many updates in memory that does not grow with their number: one bounded chunk is read from
//! every source in order, summed in `f64`, and handed out before the next is read.
//!
//! It knows nothing of strategies ([`crate::server`]) or of whom to trust ([`crate::admission`]).

use crate::nearest_f32;
use std::io::{self, Read, Write};

/// Parameters that are summed at once. 16 Ki keep the sums (128 KiB) and one source's bytes (64 KiB) inside a
/// second-level cache, and make each read large enough that its system call costs little.
pub const CHUNK_PARAMETERS: usize = 16 * 1024;

/// Bytes of one parameter in a source.
const PARAMETER_BYTES: usize = size_of::<f32>();

/// One source of the mean.
#[derive(Debug)]
pub struct Term<R> {
    /// Finite and not negative; the example count for an ordinary weighted mean.
    pub weight: f64,
    /// Little-endian `f32`, already positioned at the first parameter.
    pub reader: R,
}

/// Why no mean can be given. `term` counts from 0 in the order given.
#[derive(Debug, thiserror::Error)]
pub enum MeanError {
    /// There is nothing to take a mean of.
    #[error("no update to take the mean of")]
    NoTerms,
    /// A weight is negative or not finite.
    #[error("the weight {weight} of update {term} is not a finite number from 0")]
    BadWeight {
        /// The source.
        term: usize,
        /// Its weight.
        weight: f64,
    },
    /// The weights add up to nothing, or the divisor is not a positive finite number.
    #[error("the weights cannot be divided by {divisor}: no update counts")]
    NoWeight {
        /// What was to be divided by.
        divisor: f64,
    },
    /// A value is NaN or infinite.
    #[error("parameter {parameter} of update {term} is NaN or infinite")]
    NotFinite {
        /// The source.
        term: usize,
        /// Index of the first such parameter.
        parameter: usize,
    },
    /// A slice has another length than the first one.
    #[error("update {term} has {n_found} parameters where {n_expected} were expected")]
    WrongLength {
        /// The source.
        term: usize,
        /// Length of the first.
        n_expected: usize,
        /// Length of this one.
        n_found: usize,
    },
    /// A source ended early or could not be read.
    #[error("update {term} cannot be read")]
    Read {
        /// The source.
        term: usize,
        /// The cause.
        #[source]
        error: io::Error,
    },
    /// An earlier chunk failed: the sources are no longer side by side.
    #[error("this mean failed at an earlier chunk")]
    Spent,
}

/// A weighted mean that is read chunk by chunk: `sum(weight * parameter) / divisor`, in the order of the terms.
///
/// Holds one chunk of sums and one of bytes, whatever the number of terms. Chunks hand out `f64`, so that a server's
/// step is taken before anything is rounded.
#[derive(Debug)]
pub struct Mean<R> {
    terms: Vec<Term<R>>,
    divisor: f64,
    n_parameters: usize,
    n_done: usize,
    spent: bool,
    bytes: Vec<u8>,
    sums: Vec<f64>,
}

impl<R: Read> Mean<R> {
    /// The mean by weight: the divisor is the sum of the weights.
    ///
    /// # Errors
    /// [`MeanError::NoTerms`], [`MeanError::BadWeight`], [`MeanError::NoWeight`].
    pub fn new(terms: Vec<Term<R>>, n_parameters: usize) -> Result<Self, MeanError> {
        let divisor = terms.iter().map(|term| term.weight).sum();
        Self::with_divisor(terms, divisor, n_parameters)
    }

    /// The sum by weight over a divisor of its own: all sites rather than those who answered, or weights before
    /// clipping.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_divisor(terms: Vec<Term<R>>, divisor: f64, n_parameters: usize) -> Result<Self, MeanError> {
        check_weights(terms.iter().map(|term| term.weight), divisor)?;
        let n_chunk = n_parameters.min(CHUNK_PARAMETERS);
        Ok(Self {
            terms,
            divisor,
            n_parameters,
            n_done: 0,
            spent: false,
            bytes: vec![0; n_chunk * PARAMETER_BYTES],
            sums: vec![0.0; n_chunk],
        })
    }

    /// The sum of the weights over the divisor: 1 for an ordinary mean, less where something was clipped.
    #[must_use]
    pub fn coverage(&self) -> f64 {
        self.terms.iter().map(|term| term.weight).sum::<f64>() / self.divisor
    }

    /// The mean of the next at most [`CHUNK_PARAMETERS`] parameters; `None` after the last.
    ///
    /// # Errors
    /// [`MeanError::NotFinite`] or [`MeanError::Read`], with the source; from then on [`MeanError::Spent`].
    pub fn next_chunk(&mut self) -> Result<Option<&[f64]>, MeanError> {
        if self.spent {
            return Err(MeanError::Spent);
        }
        let n = (self.n_parameters - self.n_done).min(CHUNK_PARAMETERS);
        if n == 0 {
            return Ok(None);
        }
        // Stands unless every term is summed.
        self.spent = true;
        let sums = &mut self.sums[..n];
        let bytes = &mut self.bytes[..n * PARAMETER_BYTES];
        sums.fill(0.0);
        for (term, Term { weight, reader }) in self.terms.iter_mut().enumerate() {
            reader
                .read_exact(bytes)
                .map_err(|error| MeanError::Read { term, error })?;
            if !add_scaled(sums, *weight, parameters(bytes)) {
                return Err(not_finite(term, self.n_done, parameters(bytes)));
            }
        }
        divide(sums, self.divisor);
        self.n_done += n;
        self.spent = false;
        Ok(Some(&self.sums[..n]))
    }

    /// Reads all that is left and writes it as little-endian `f32`: the data section of the mean's own artifact.
    ///
    /// # Errors
    /// As [`Self::next_chunk`]; [`WriteMeanError::Write`] where the writer fails.
    pub fn write_to(&mut self, writer: &mut impl Write) -> Result<(), WriteMeanError> {
        let mut bytes = Vec::with_capacity(self.bytes.len());
        while let Some(chunk) = self.next_chunk()? {
            bytes.clear();
            bytes.extend(chunk.iter().flat_map(|value| nearest_f32(*value).to_le_bytes()));
            writer.write_all(&bytes)?;
        }
        Ok(())
    }
}

/// Why a mean was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteMeanError {
    /// There is no mean.
    #[error(transparent)]
    Mean(#[from] MeanError),
    /// The writer failed.
    #[error("the mean cannot be written")]
    Write(#[from] io::Error),
}

/// The weighted mean of slices, each with its weight: the same arithmetic as [`Mean`], bit for bit.
///
/// # Errors
/// As [`Mean`]; [`MeanError::WrongLength`] where the slices differ in length.
pub fn mean_of(slices: &[(f64, &[f32])]) -> Result<Vec<f32>, MeanError> {
    let divisor = slices.iter().map(|(weight, _)| *weight).sum();
    check_weights(slices.iter().map(|(weight, _)| *weight), divisor)?;
    let n_expected = slices.first().map_or(0, |(_, values)| values.len());
    let mut sums = vec![0.0; n_expected];
    for (term, (weight, values)) in slices.iter().enumerate() {
        if values.len() != n_expected {
            return Err(MeanError::WrongLength {
                term,
                n_expected,
                n_found: values.len(),
            });
        }
        if !add_scaled(&mut sums, *weight, values.iter().copied()) {
            return Err(not_finite(term, 0, values.iter().copied()));
        }
    }
    divide(&mut sums, divisor);
    Ok(sums.into_iter().map(nearest_f32).collect())
}

/// The parameters in little-endian bytes.
pub(crate) fn parameters(bytes: &[u8]) -> impl Iterator<Item = f32> {
    let (parameters, _) = bytes.as_chunks::<PARAMETER_BYTES>();
    parameters.iter().map(|parameter| f32::from_le_bytes(*parameter))
}

/// Index of the first value that is NaN or infinite.
pub(crate) fn first_not_finite(mut values: impl Iterator<Item = f32>) -> Option<usize> {
    values.position(|value| !value.is_finite())
}

fn not_finite(term: usize, offset: usize, values: impl Iterator<Item = f32>) -> MeanError {
    let i = first_not_finite(values).expect("the inner loop has just seen one");
    MeanError::NotFinite {
        term,
        parameter: offset + i,
    }
}

fn check_weights(weights: impl ExactSizeIterator<Item = f64>, divisor: f64) -> Result<(), MeanError> {
    if weights.len() == 0 {
        return Err(MeanError::NoTerms);
    }
    for (term, weight) in weights.enumerate() {
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(MeanError::BadWeight { term, weight });
        }
    }
    if divisor.is_finite() && divisor > 0.0 {
        Ok(())
    } else {
        Err(MeanError::NoWeight { divisor })
    }
}

/// Adds `weight * value` to each sum; whether all values were finite. The one inner loop of this crate: branch-free,
/// so that the compiler turns it into vector instructions.
fn add_scaled(sums: &mut [f64], weight: f64, values: impl Iterator<Item = f32>) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    let mut not_finite = false;
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += weight * f64::from(value);
        not_finite |= value.to_bits() & EXPONENT == EXPONENT;
    }
    !not_finite
}

fn divide(sums: &mut [f64], divisor: f64) {
    for sum in sums {
        *sum /= divisor;
    }
}
