//! Weights and updates as canonical safetensors files: F32 only, tensors in the order of their names, no metadata.
//!
//! The data section of such a file is the flat parameter vector, so an aggregator that has checked the header may
//! stream the rest. A file is checked against the [`Layout`] that the reader expects, before memory is taken.
//!
//! What is written is canonical: the same numbers give the same bytes. What is read may spell its header differently
//! (spaces, order of keys, `__metadata__`, as other libraries do), as long as its tensors lie in the canonical order.
//!
//! Format: <https://github.com/huggingface/safetensors>, section "Format".

mod header;
mod section;

pub use header::{HEADER_BYTES_MAX, header};
pub use section::{Section, Writer};

use crate::Layout;
use daitn_messages::rejection::{Code, Rejection};
use std::{
    fs::File,
    io::{self, BufReader, BufWriter},
    path::Path,
};

/// Whether NaN and infinity are let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// They are refused.
    Finite,
    /// They are let through: for a caller that judges them itself.
    Any,
}

/// Why a file is not read or written.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// Reading or writing failed.
    #[error("the weights file cannot be read or written")]
    Io(#[from] io::Error),
    /// Another format under this name.
    #[error("this is {found}, not a safetensors file")]
    Format {
        /// What it looks like.
        found: &'static str,
    },
    /// The file ends before its header does.
    #[error("the file has {found} bytes and ends before its header")]
    Truncated {
        /// Size of the file, bytes.
        found: u64,
    },
    /// Over [`HEADER_BYTES_MAX`].
    #[error("the header claims {claimed} bytes, over the bound of {HEADER_BYTES_MAX}")]
    HeaderTooLarge {
        /// What the file says.
        claimed: u64,
    },
    /// Not a safetensors header.
    #[error("the header is not one of safetensors: {why}")]
    Header {
        /// What is wrong with it.
        why: String,
    },
    /// A tensor that is missing or that nobody asked for.
    #[error("the tensor `{name}` is {problem}")]
    Tensor {
        /// Its name, shortened.
        name: String,
        /// What is wrong with it.
        problem: TensorProblem,
    },
    /// Not as many bytes as header and tensors take.
    #[error("the file has {found} bytes, its header and tensors take {expected}")]
    Size {
        /// What they take.
        expected: u64,
        /// What there is.
        found: u64,
    },
    /// NaN or infinity.
    #[error("number {index} of the tensor `{name}` is not finite")]
    NotFinite {
        /// Name of the tensor.
        name: String,
        /// Position in the tensor.
        index: usize,
    },
    /// Not as many numbers as the layout has.
    #[error("{found} numbers for a layout of {expected}")]
    Count {
        /// What the layout has.
        expected: usize,
        /// What was given.
        found: usize,
    },
}

/// What is wrong with a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorProblem {
    /// The layout has it, the file has not.
    #[error("missing")]
    Missing,
    /// The file has it, the layout has not.
    #[error("not part of the model")]
    Unknown,
    /// Named twice.
    #[error("there twice")]
    Duplicate,
    /// Not 32-bit floats.
    #[error("of type {dtype}, not F32")]
    Type {
        /// What the file says, shortened.
        dtype: String,
    },
    /// Another shape.
    #[error("of shape {found:?} instead of {expected:?}")]
    Shape {
        /// What the layout says.
        expected: Vec<usize>,
        /// What the file says, shortened.
        found: Vec<u64>,
    },
    /// Bytes that overlap, leave a gap, or lie in another order than the names.
    #[error("at bytes {found:?} of the data instead of {expected:?}")]
    Offsets {
        /// Where the canonical order has it.
        expected: (u64, u64),
        /// Where the file has it.
        found: (u64, u64),
    },
}

impl WeightsError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Io(_) => Code::Internal,
            Self::HeaderTooLarge { .. } => Code::TooLarge,
            Self::Format { .. } | Self::Truncated { .. } | Self::Header { .. } => Code::Malformed,
            Self::Tensor { .. } | Self::Size { .. } | Self::NotFinite { .. } | Self::Count { .. } => {
                Code::UpdateRefused
            }
        }
    }

    /// What to do next.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Io(_) => "check that the file exists, that it may be read and that the disk has room",
            Self::Format { .. } => {
                "formats that can carry code are never opened: save the tensors with safetensors and use that file"
            }
            Self::Truncated { .. } | Self::Size { .. } => "transfer or save the file again: it is not whole",
            Self::HeaderTooLarge { .. } | Self::Header { .. } => {
                "save the tensors again with a safetensors library"
            }
            Self::Tensor { .. } | Self::Count { .. } => {
                "use weights made for this specification, as F32, their tensors stored in the order of their names"
            }
            Self::NotFinite { .. } => "train again with a lower learning rate",
        }
    }
}

impl From<WeightsError> for Rejection {
    fn from(error: WeightsError) -> Self {
        let cause = std::error::Error::source(&error)
            .map(|source| format!(": {source}"))
            .unwrap_or_default();
        Self::new(error.code(), format!("{error}{cause}")).with_hint(error.remedy())
    }
}

/// The numbers of a file in memory, all finite, in the order of the layout.
///
/// # Errors
/// Whatever makes the bytes anything else than this layout's tensors.
pub fn read(bytes: &[u8], layout: &Layout) -> Result<Vec<f32>, WeightsError> {
    Section::open(bytes, bytes.len() as u64, layout, Numbers::Finite)?.read_all()
}

/// The numbers of a file on disk, all finite, in the order of the layout.
///
/// # Errors
/// As for [`read`], and what the disk says.
pub fn read_file(path: &Path, layout: &Layout) -> Result<Vec<f32>, WeightsError> {
    open_file(path, layout, Numbers::Finite)?.read_all()
}

/// A file on disk, its header checked, ready to stream its numbers.
///
/// # Errors
/// As for [`read_file`].
pub fn open_file<'a>(
    path: &Path,
    layout: &'a Layout,
    numbers: Numbers,
) -> Result<Section<'a, BufReader<File>>, WeightsError> {
    let file = File::open(path)?;
    let n_bytes = file.metadata()?.len();
    Section::open(BufReader::new(file), n_bytes, layout, numbers)
}

/// The canonical file of these numbers.
///
/// # Errors
/// If they are not as many as the layout has, or not finite.
pub fn write(numbers: &[f32], layout: &Layout) -> Result<Vec<u8>, WeightsError> {
    write_parts(&[numbers], layout)
}

/// The canonical file of these numbers, given in several parts: the parameters and then a control variate, for
/// instance.
///
/// # Errors
/// As for [`write()`].
pub fn write_parts(parts: &[&[f32]], layout: &Layout) -> Result<Vec<u8>, WeightsError> {
    let header = header(layout);
    let bytes = Vec::with_capacity(header.len() + 4 * layout.n_elements());
    let mut writer = Writer::new(bytes, layout)?;
    for part in parts {
        writer.write(part)?;
    }
    writer.finish()
}

/// Writes the canonical file of these numbers to a file on disk, and to the disk itself (`fsync`). It is not replaced
/// in one step: give a new name and rename it.
///
/// # Errors
/// As for [`write()`], and what the disk says.
pub fn write_file(path: &Path, parts: &[&[f32]], layout: &Layout) -> Result<(), WeightsError> {
    let mut writer = Writer::new(BufWriter::new(File::create(path)?), layout)?;
    for part in parts {
        writer.write(part)?;
    }
    let file = writer
        .finish()?
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    Ok(file.sync_all()?)
}

/// The canonical file of named vectors.
///
/// # Errors
/// If names or lengths are no layout, or numbers are not finite.
pub fn write_named(vectors: &[(&str, &[f32])]) -> Result<Vec<u8>, WeightsError> {
    let layout = named_layout(vectors.iter().map(|(name, numbers)| (*name, numbers.len())))?;
    let mut sorted = vectors.to_vec();
    sorted.sort_by_key(|(name, _)| *name);
    let parts: Vec<&[f32]> = sorted.iter().map(|(_, numbers)| *numbers).collect();
    write_parts(&parts, &layout)
}

/// The named vectors of a file, in the order in which they are asked for; the file must hold these and no others.
///
/// # Errors
/// As for [`read`].
pub fn read_named(bytes: &[u8], vectors: &[(&str, usize)]) -> Result<Vec<Vec<f32>>, WeightsError> {
    let layout = named_layout(vectors.iter().copied())?;
    let flat = read(bytes, &layout)?;
    let range = |name| layout.range_of(name).expect("the layout was made of these names");
    Ok(vectors
        .iter()
        .map(|(name, _)| flat[range(name)].to_vec())
        .collect())
}

fn named_layout<'a>(vectors: impl Iterator<Item = (&'a str, usize)>) -> Result<Layout, WeightsError> {
    Layout::vectors(&vectors.collect::<Vec<_>>()).map_err(|error| WeightsError::Header {
        why: error.to_string(),
    })
}
