//! The header of a safetensors file: written canonically, read with suspicion.

use super::{TensorProblem, WeightsError};
use crate::{
    Layout,
    layout::{TENSOR_NAME_BYTES_MAX, TENSORS_MAX},
};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use std::fmt;

/// Largest header, bytes. The header of the largest built-in architecture has about 15,000.
pub const HEADER_BYTES_MAX: u64 = 1024 * 1024;
/// The length of the header comes first, in 8 bytes.
pub(super) const LENGTH_BYTES: u64 = 8;
/// The library pads the header to a multiple of this, so that the data is aligned.
const ALIGNMENT: usize = 8;
/// Most dimensions of a tensor that are repeated in an error.
const SHAPE_SHOWN_MAX: usize = 8;

/// The canonical header of a layout, its length in front: what stands before the data section.
#[must_use]
pub fn header(layout: &Layout) -> Vec<u8> {
    let infos = layout.tensors().iter().enumerate().map(|(index, tensor)| {
        let range = layout.range(index);
        let info = TensorInfo {
            dtype: Dtype::F32,
            shape: tensor.shape.clone(),
            data_offsets: (4 * range.start, 4 * range.end),
        };
        (tensor.name.clone(), info)
    });
    let metadata =
        Metadata::new(None, infos.collect()).expect("a layout is contiguous and does not overflow");
    let mut json = serde_json::to_vec(&metadata).expect("numbers and names make JSON");
    json.resize(json.len().next_multiple_of(ALIGNMENT), b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut json);
    bytes
}

/// The length of the header that is to follow, checked against the size of the file.
pub(super) fn check_length(first: [u8; 8], n_bytes: u64) -> Result<usize, WeightsError> {
    let claimed = u64::from_le_bytes(first);
    if claimed > HEADER_BYTES_MAX {
        return Err(match format(&first) {
            Some(found) => WeightsError::Format { found },
            None => WeightsError::HeaderTooLarge { claimed },
        });
    }
    if claimed > n_bytes - LENGTH_BYTES {
        return Err(WeightsError::Truncated { found: n_bytes });
    }
    Ok(usize::try_from(claimed).expect("at most 1 MiB"))
}

/// Checks a header (without its length) against what is expected and against the size of the file.
pub(super) fn check(json: &[u8], n_bytes: u64, layout: &Layout) -> Result<(), WeightsError> {
    if json != &header(layout)[ALIGNMENT..] {
        if json.first() != Some(&b'{') {
            return Err(WeightsError::Header {
                why: "it does not begin with `{`".to_owned(),
            });
        }
        let header: Header = serde_json::from_slice(json).map_err(|error| WeightsError::Header {
            why: error.to_string(),
        })?;
        check_tensors(header, layout)?;
    }
    let expected = LENGTH_BYTES + json.len() as u64 + 4 * layout.n_elements() as u64;
    if expected == n_bytes {
        Ok(())
    } else {
        Err(WeightsError::Size {
            expected,
            found: n_bytes,
        })
    }
}

fn check_tensors(Header(mut entries): Header, layout: &Layout) -> Result<(), WeightsError> {
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    let refuse = |name: &str, problem| {
        Err(WeightsError::Tensor {
            name: name.chars().take(TENSOR_NAME_BYTES_MAX).collect(),
            problem,
        })
    };
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return refuse(&pair[0].0, TensorProblem::Duplicate);
    }
    let known = |name: &str| layout.range_of(name).is_some();
    if let Some((name, _)) = entries.iter().find(|(name, _)| !known(name)) {
        return refuse(name, TensorProblem::Unknown);
    }
    for (index, tensor) in layout.tensors().iter().enumerate() {
        let Ok(position) = entries.binary_search_by(|(name, _)| name.cmp(&tensor.name)) else {
            return refuse(&tensor.name, TensorProblem::Missing);
        };
        let entry = &entries[position].1;
        if entry.dtype != "F32" {
            let dtype = entry.dtype.chars().take(16).collect();
            return refuse(&tensor.name, TensorProblem::Type { dtype });
        }
        if !entry
            .shape
            .iter()
            .copied()
            .eq(tensor.shape.iter().map(|size| *size as u64))
        {
            let found = entry.shape.iter().copied().take(SHAPE_SHOWN_MAX).collect();
            return refuse(
                &tensor.name,
                TensorProblem::Shape {
                    expected: tensor.shape.clone(),
                    found,
                },
            );
        }
        let range = layout.range(index);
        let expected = (4 * range.start as u64, 4 * range.end as u64);
        if entry.data_offsets != expected {
            return refuse(
                &tensor.name,
                TensorProblem::Offsets {
                    expected,
                    found: entry.data_offsets,
                },
            );
        }
    }
    Ok(())
}

/// What a file is that is no safetensors file, by its first bytes.
fn format(first: &[u8; 8]) -> Option<&'static str> {
    let magics: [(&[u8], &'static str); 9] = [
        (b"PK\x03\x04", "a zip archive (PyTorch's own format is one)"),
        (b"PK\x05\x06", "an empty zip archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"\x1f\x8b", "a gzip file"),
        (b"GGUF", "a GGUF file"),
        (b"\x89HDF", "an HDF5 file (Keras writes them)"),
        (b"\x93NUMPY", "a NumPy array"),
        (b"PAR1", "a Parquet file"),
        (b"\x7fELF", "a program"),
    ];
    let known = magics
        .iter()
        .find(|(magic, _)| first.starts_with(magic))
        .map(|(_, name)| *name);
    // A pickle of protocol 2 to 5 begins with the opcode PROTO and the number of the protocol.
    let pickle = first[0] == 0x80 && (2..=5).contains(&first[1]);
    known.or_else(|| pickle.then_some("a Python pickle"))
}

/// The tensors as the file names them, twice if it names them twice.
struct Header(Vec<(String, Entry)>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tensors;
        impl<'de> Visitor<'de> for Tensors {
            type Value = Header;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    if entries.len() == TENSORS_MAX {
                        return Err(A::Error::custom(format!("more than {TENSORS_MAX} tensors")));
                    }
                    entries.push((name, map.next_value()?));
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Tensors)
    }
}
