//! Which tensors a model has, and where each lies in the flat parameter vector.
//!
//! Tensors lie one after the other in the order of their names, each in row-major order. Names of parameters begin
//! with the two-digit number of their layer, so that the order of names is the order of layers; names of further
//! vectors that travel in the same file (`delta-c`, `momentum`) begin with a letter, so that they come after.

use daitn_messages::limits::PARAMETERS_MAX;
use std::ops::Range;

/// Most tensors in one file: 72 layers of weight and bias, and a few vectors, with room.
pub const TENSORS_MAX: usize = 1024;
/// Longest name of a tensor, bytes.
pub const TENSOR_NAME_BYTES_MAX: usize = 128;
/// Most elements in one file: the parameters, and as many again for each of three state vectors.
pub const ELEMENTS_MAX: u64 = 4 * PARAMETERS_MAX;

/// Why tensors make no layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Nothing in it, or more than [`TENSORS_MAX`].
    #[error("{found} tensors: expected 1 to {TENSORS_MAX}")]
    Count {
        /// How many there were.
        found: usize,
    },
    /// Not a name.
    #[error("`{name}` is not a tensor name: use 1 to {TENSOR_NAME_BYTES_MAX} of a-z, 0-9, `.`, `-` and `_`")]
    Name {
        /// The offending name, shortened.
        name: String,
    },
    /// Two tensors of one name.
    #[error("the tensor `{name}` is there twice")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// Over [`ELEMENTS_MAX`].
    #[error("more than {ELEMENTS_MAX} numbers: use a smaller model")]
    TooLarge,
}

/// One tensor: its name and its shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// For instance `00.dense.weight`.
    pub name: String,
    /// Sizes of the dimensions, slowest first.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// A tensor's name and shape.
    #[must_use]
    pub fn new(name: impl Into<String>, shape: &[usize]) -> Self {
        Self {
            name: name.into(),
            shape: shape.to_vec(),
        }
    }

    /// The product of the sizes; `None` if it does not fit.
    #[must_use]
    pub fn n_elements(&self) -> Option<usize> {
        self.shape
            .iter()
            .try_fold(1_usize, |n, size| n.checked_mul(*size))
    }
}

/// Tensors in the order of their names, and the range of each in the flat vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    tensors: Vec<TensorSpec>,
    /// Where each tensor ends; one for each tensor.
    ends: Vec<usize>,
}

impl Layout {
    /// Sorts the tensors by name and checks every bound.
    ///
    /// # Errors
    /// The first bound that is not kept.
    pub fn new(mut tensors: Vec<TensorSpec>) -> Result<Self, LayoutError> {
        if tensors.is_empty() || tensors.len() > TENSORS_MAX {
            return Err(LayoutError::Count { found: tensors.len() });
        }
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        let mut ends = Vec::with_capacity(tensors.len());
        let mut end = 0_usize;
        for (index, tensor) in tensors.iter().enumerate() {
            if !is_name(&tensor.name) {
                return Err(LayoutError::Name {
                    name: tensor.name.chars().take(80).collect(),
                });
            }
            if index > 0 && tensors[index - 1].name == tensor.name {
                return Err(LayoutError::Duplicate {
                    name: tensor.name.clone(),
                });
            }
            end = tensor
                .n_elements()
                .and_then(|n| end.checked_add(n))
                .filter(|n| *n as u64 <= ELEMENTS_MAX)
                .ok_or(LayoutError::TooLarge)?;
            ends.push(end);
        }
        Ok(Self { tensors, ends })
    }

    /// One-dimensional tensors of these names and lengths.
    ///
    /// # Errors
    /// The first bound that is not kept.
    pub fn vectors(vectors: &[(&str, usize)]) -> Result<Self, LayoutError> {
        Self::new(
            vectors
                .iter()
                .map(|(name, n)| TensorSpec::new(*name, &[*n]))
                .collect(),
        )
    }

    /// This layout with further vectors in the same file.
    ///
    /// # Errors
    /// The first bound that is not kept.
    pub fn with_vectors(&self, vectors: &[(&str, usize)]) -> Result<Self, LayoutError> {
        let mut tensors = self.tensors.clone();
        tensors.extend(vectors.iter().map(|(name, n)| TensorSpec::new(*name, &[*n])));
        Self::new(tensors)
    }

    /// The tensors, in the order of their names.
    #[must_use]
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// How many numbers the flat vector has.
    #[must_use]
    pub fn n_elements(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Where tensor number `index` lies in the flat vector.
    #[must_use]
    pub fn range(&self, index: usize) -> Range<usize> {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        start..self.ends[index]
    }

    /// Where the tensor of this name lies in the flat vector.
    #[must_use]
    pub fn range_of(&self, name: &str) -> Option<Range<usize>> {
        let index = self
            .tensors
            .binary_search_by(|tensor| tensor.name.as_str().cmp(name))
            .ok()?;
        Some(self.range(index))
    }

    /// Which tensor the element at `position` of the flat vector belongs to.
    #[must_use]
    pub fn tensor_at(&self, position: usize) -> Option<&TensorSpec> {
        self.tensors
            .get(self.ends.partition_point(|end| *end <= position))
    }
}

fn is_name(name: &str) -> bool {
    (1..=TENSOR_NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_the_order_of_names() {
        let layout = Layout::new(vec![TensorSpec::new("b", &[2, 3]), TensorSpec::new("a", &[4])]).unwrap();
        assert_eq!(layout.range_of("a"), Some(0..4));
        assert_eq!(layout.range_of("b"), Some(4..10));
        assert_eq!(layout.range_of("c"), None);
        assert_eq!(layout.n_elements(), 10);
        assert_eq!(layout.tensor_at(3).unwrap().name, "a");
        assert_eq!(layout.tensor_at(4).unwrap().name, "b");
        assert!(layout.tensor_at(10).is_none());
    }

    #[test]
    fn every_bound_is_kept() {
        let refused = |tensors| Layout::new(tensors).unwrap_err();
        assert_eq!(refused(vec![]), LayoutError::Count { found: 0 });
        assert!(matches!(
            refused(vec![TensorSpec::new("A b", &[1])]),
            LayoutError::Name { .. }
        ));
        assert!(matches!(
            refused(vec![TensorSpec::new("", &[1])]),
            LayoutError::Name { .. }
        ));
        let twice = vec![TensorSpec::new("a", &[1]), TensorSpec::new("a", &[2])];
        assert!(matches!(refused(twice), LayoutError::Duplicate { .. }));
        assert_eq!(
            refused(vec![TensorSpec::new("a", &[usize::MAX, 2])]),
            LayoutError::TooLarge
        );
        assert_eq!(
            refused(vec![TensorSpec::new("a", &[1 << 33])]),
            LayoutError::TooLarge
        );
    }
}
