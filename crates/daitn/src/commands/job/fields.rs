//! Which fields a structure of the vocabulary has, by what its reader asks for: to name a field that was misspelt where
//! reading fails for another one that is missing.

use serde::{
    Deserializer,
    de::{DeserializeOwned, Error as _, Visitor, value::Error},
    forward_to_deserialize_any,
};
use std::cell::Cell;

/// The first field of an object that the structure does not have.
pub(super) fn unknown_field<T: DeserializeOwned>(given: &serde_json::Value) -> Option<String> {
    let known = names::<T>();
    let given = given.as_object()?;
    let unknown = given.keys().find(|key| !known.contains(&key.as_str()));
    unknown.filter(|_| !known.is_empty()).cloned()
}

/// The names of a structure's fields; none where it is no structure.
fn names<T: DeserializeOwned>() -> &'static [&'static str] {
    let names = Cell::new(&[] as &[&str]);
    // It fails once it has told the names: there is nothing to read.
    let _ = T::deserialize(Names(&names));
    names.get()
}

/// Holds nothing, and writes down what is looked for.
struct Names<'a>(&'a Cell<&'static [&'static str]>);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("there is nothing to read"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.set(fields);
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daitn_messages::request::TrainingRequest;
    use serde_json::json;

    #[test]
    fn a_misspelt_field_is_named() {
        let unknown = unknown_field::<TrainingRequest>;
        assert_eq!(
            unknown(&json!({"modell": "digits", "purpose": "x"})),
            Some("modell".to_owned())
        );
        assert_eq!(unknown(&json!({"model": "digits"})), None);
        assert_eq!(unknown_field::<u32>(&json!({"model": 1})), None, "no structure");
    }
}
