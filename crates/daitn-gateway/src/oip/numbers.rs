//! Numbers of a JSON tensor, read straight into f32 without a tree of values between.

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, SeqAccess, Visitor},
};
use std::fmt;

/// Most nested arrays in a tensor's data.
const DEPTH_MAX: usize = 8;

/// What the `data` of a tensor holds, flattened row by row.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Numbers {
    pub(super) values: Vec<f32>,
    /// Whether all were whole numbers.
    pub(super) whole: bool,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut reader = Reader {
            numbers: Self {
                whole: true,
                ..Self::default()
            },
            lengths: [None; DEPTH_MAX],
            leaf: None,
        };
        Nested {
            reader: &mut reader,
            depth: 0,
        }
        .deserialize(deserializer)?;
        Ok(reader.numbers)
    }
}

/// Collects numbers and the tensor's form: all arrays of a depth are equally long, and all numbers are equally deep.
struct Reader {
    numbers: Numbers,
    lengths: [Option<usize>; DEPTH_MAX],
    leaf: Option<usize>,
}

struct Nested<'a> {
    reader: &'a mut Reader,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Nested<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Nested<'_> {
    fn number<E: Error>(self, value: f64, whole: bool) -> Result<(), E> {
        if self.depth == 0 {
            return Err(E::custom("the data of a tensor is an array"));
        }
        if *self.reader.leaf.get_or_insert(self.depth) != self.depth {
            return Err(E::custom("numbers and arrays stand side by side"));
        }
        #[allow(clippy::cast_possible_truncation)]
        // What models compute with is f32; infinity is refused below.
        let narrow = value as f32;
        if !narrow.is_finite() {
            return Err(E::custom(format!("{value} does not fit FP32")));
        }
        let numbers = &mut self.reader.numbers;
        numbers.whole &= whole;
        numbers.min = numbers.min.min(value);
        numbers.max = numbers.max.max(value);
        numbers.values.push(narrow);
        Ok(())
    }
}

impl<'de> Visitor<'de> for Nested<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers, or arrays of them")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.number(value, value.fract() == 0.0)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.number(value as f64, true)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.number(value as f64, true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let Nested { reader, depth } = self;
        if depth >= DEPTH_MAX {
            return Err(A::Error::custom(format!(
                "more than {DEPTH_MAX} arrays in each other"
            )));
        }
        let mut length = 0;
        while sequence
            .next_element_seed(Nested {
                reader: &mut *reader,
                depth: depth + 1,
            })?
            .is_some()
        {
            length += 1;
        }
        if *reader.lengths[depth].get_or_insert(length) != length {
            return Err(A::Error::custom("the rows are not equally long"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Numbers, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn flat_and_nested_data_read_alike() {
        let flat = read("[1, 2.5, -3, 4e2]").unwrap();
        assert_eq!(flat.values, [1.0, 2.5, -3.0, 400.0]);
        assert_eq!(read("[[1, 2.5], [-3, 4e2]]").unwrap(), flat);
        assert_eq!((flat.whole, flat.min, flat.max), (false, -3.0, 400.0));
        assert!(read("[1, 2.0, 18446744073709551615]").unwrap().whole);
        assert!(read("[]").unwrap().values.is_empty());
    }

    #[test]
    fn what_is_no_tensor_is_refused() {
        for (text, why) in [
            ("[[1, 2], [3]]", "not equally long"),
            ("[1, [2]]", "side by side"),
            ("[[1], 2]", "side by side"),
            ("1", "is an array"),
            ("[\"1\"]", "expected numbers"),
            ("[true]", "expected numbers"),
            ("[null]", "expected numbers"),
            ("[{}]", "expected numbers"),
            ("[1e39]", "does not fit FP32"),
            ("[-1e999]", "number out of range"),
            ("[NaN]", "expected value"),
            (&"[".repeat(9), "more than 8"),
            (&"[".repeat(100_000), "more than 8"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(why), "{}: {error}", &text[..text.len().min(20)]);
        }
    }
}
