//! What people write: requests as TOML or JSON. On our wire a field that a reader does not know is ignored, so that peers of
//! another version understand each other; here it is refused, wherever it stands, because who misspells a name means
//! something that would not be done. The refusal says where it stands and which name was probably meant.

use serde::{Deserializer, Serialize, de::DeserializeOwned};
use serde_json::Value;
use serde_path_to_error::{Path, Segment};
use std::fmt;

/// Longest path that is shown, characters.
const PATH_CHARS_MAX: usize = 200;
/// Names are alike where at most one of so many characters is another one, and always where one is.
const CHARS_PER_SLIP: usize = 3;
/// Longest name for which a like one is looked for, bytes: longer ones are no slip of anybody's.
const NAME_BYTES_MAX: usize = 64;

/// Why something that a person wrote is not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misread {
    /// Where it stands: `training.local.epochs`. Empty: the whole, or told in `why`.
    pub path: String,
    /// What is wrong there.
    pub why: String,
}

impl fmt::Display for Misread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.why)
        } else {
            write!(f, "field `{}`: {}", self.path, self.why)
        }
    }
}

/// Reads a value in which every field is understood. `given` is the same text as a tree: what the reader passed over is
/// found by comparing with it.
///
/// # Errors
/// The first thing that is not understood.
pub fn read<'de, T, D>(deserializer: D, given: &Value) -> Result<T, Misread>
where
    T: DeserializeOwned + Serialize,
    D: Deserializer<'de>,
{
    let value: T = match serde_path_to_error::deserialize(deserializer) {
        Ok(value) => value,
        // There is one kind of number: `3.0` is the integer 3 to whoever wrote it.
        Err(error) => whole_numbers(given)
            .and_then(|whole| serde_json::from_value(whole).ok())
            .ok_or_else(|| misread(error.path(), &error.inner().to_string(), given))?,
    };
    // A field that the type does not have is gone after a round trip, wherever it stood: also inside the kinds of objects
    // in which serde's own check for unknown fields has no say.
    let understood = serde_json::to_value(&value).map_err(|error| Misread {
        path: String::new(),
        why: error.to_string(),
    })?;
    match unknown(given, &understood, "") {
        None => Ok(value),
        Some(why) => Err(Misread {
            path: String::new(),
            why,
        }),
    }
}

fn misread(path: &Path, why: &str, given: &Value) -> Misread {
    let shown = match path.to_string() {
        root if root == "." => String::new(),
        shown => shortened(&shown),
    };
    // What is missing may be there under a name that is nearly right.
    let missing = why
        .split_once("missing field `")
        .and_then(|(_, rest)| rest.split_once('`'));
    let meant = missing.and_then(|(missing, _)| {
        let here = at(given, path)?.as_object()?;
        let like = nearest(missing, here.keys())?;
        Some(format!("; is `{}` meant to be it?", under(&shown, like)))
    });
    Misread {
        why: format!("{}{}", why.trim_end(), meant.unwrap_or_default()),
        path: shown,
    }
}

fn at<'a>(given: &'a Value, path: &Path) -> Option<&'a Value> {
    path.iter().try_fold(given, |value, segment| match segment {
        Segment::Seq { index } => value.get(index),
        Segment::Map { key } | Segment::Enum { variant: key } => value.get(key),
        Segment::Unknown => None,
    })
}

/// The first field in `given` that is not in `understood`, the same after it was read and written again.
fn unknown(given: &Value, understood: &Value, path: &str) -> Option<String> {
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => given.iter().find_map(|(name, value)| {
            let here = under(path, name);
            if let Some(understood) = understood.get(name) {
                return unknown(value, understood, &here);
            }
            let unused = understood.keys().filter(|known| !given.contains_key(*known));
            let meant = nearest(name, unused).map(|like| format!("; did you mean `{}`?", under(path, like)));
            Some(format!(
                "there is no field `{}`{}",
                shortened(&here),
                meant.unwrap_or_default()
            ))
        }),
        (Value::Array(given), Value::Array(understood)) => given
            .iter()
            .zip(understood)
            .enumerate()
            .find_map(|(i, (given, understood))| unknown(given, understood, &format!("{path}[{i}]"))),
        _ => None,
    }
}

fn under(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn shortened(path: &str) -> String {
    path.chars().take(PATH_CHARS_MAX).collect()
}

/// The name that is most like this one, if one is near enough to be meant.
pub fn nearest<'a>(name: &str, among: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    let slips = |other: &&String| strsim::osa_distance(name, other);
    let n_chars = name.chars().count();
    // A name of one character has nothing left of it after a slip.
    let n_slips_max = (n_chars / CHARS_PER_SLIP).max(1).min(n_chars.saturating_sub(1));
    let of_a_length = among.filter(|other| name.len().max(other.len()) <= NAME_BYTES_MAX);
    of_a_length
        .min_by_key(slips)
        .filter(|like| slips(like) <= n_slips_max)
}

/// The same with whole numbers written as such; `None` where they all are already.
fn whole_numbers(given: &Value) -> Option<Value> {
    /// Below this every whole f64 is exactly one integer.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    fn rewrite(value: &mut Value, changed: &mut bool) {
        match value {
            Value::Number(number) if number.is_f64() => {
                let whole = number
                    .as_f64()
                    .filter(|n| n.fract() == 0.0 && n.abs() < EXACT_MAX);
                if let Some(whole) = whole {
                    #[allow(clippy::cast_possible_truncation)] // Whole and below 2^53.
                    let integer = whole as i64;
                    *value = Value::from(integer);
                    *changed = true;
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| rewrite(value, changed)),
            Value::Object(fields) => fields.values_mut().for_each(|value| rewrite(value, changed)),
            _ => {}
        }
    }
    let (mut whole, mut changed) = (given.clone(), false);
    rewrite(&mut whole, &mut changed);
    changed.then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::TrainingRequest;
    use serde_json::json;

    fn request() -> Value {
        json!({
            "model": "digits", "organisation": "lab", "jurisdiction": "DE", "purpose": "research",
            "architecture": {"kind": "mlp", "hidden": [8]}, "features": ["x"], "target": "y",
            "task": {"kind": "regression"},
            "training": {"rounds": 3, "local": {"epochs": 1, "batch_size": 8, "learning_rate": 0.5, "seed": 7}},
            "verification": {"metric": "rmse", "target": 1.0, "required": 1},
        })
    }

    /// What is said of a request in which the object at `pointer` has `from` under the name `to`.
    #[track_caller]
    fn check(pointer: &str, from: Option<&str>, to: &str, expected: &str) {
        let mut given = request();
        let here = given.pointer_mut(pointer).unwrap().as_object_mut().unwrap();
        let value = from.map_or(json!(1), |from| here.remove(from).unwrap());
        here.insert(to.to_owned(), value);
        let told = read::<TrainingRequest, _>(&given, &given)
            .unwrap_err()
            .to_string();
        assert_eq!(told, expected);
    }

    #[test]
    fn a_misspelt_field_is_told_with_its_place_and_the_name_that_is_nearest() {
        read::<TrainingRequest, _>(&request(), &request()).unwrap();
        // Needed fields: what is missing is said, and what is there in its place.
        check(
            "",
            Some("model"),
            "modell",
            "missing field `model`; is `modell` meant to be it?",
        );
        check(
            "/verification",
            Some("metric"),
            "metirc",
            "field `verification`: missing field `metric`; is `verification.metirc` meant to be it?",
        );
        check(
            "/training/local",
            Some("learning_rate"),
            "learning-rate",
            "field `training.local`: missing field `learning_rate`; is `training.local.learning-rate` meant to be it?",
        );
        check(
            "/architecture",
            Some("hidden"),
            "hiden",
            "field `architecture`: missing field `hidden`; is `architecture.hiden` meant to be it?",
        );
        // Others, which a reader would pass over.
        check(
            "/training",
            None,
            "quroum",
            "there is no field `training.quroum`; did you mean `training.quorum`?",
        );
        check("", None, "slas", "there is no field `slas`; did you mean `sla`?");
        check(
            "/architecture",
            None,
            "width",
            "there is no field `architecture.width`",
        );
        // What is given already is not meant a second time.
        check("/training", None, "round", "there is no field `training.round`");
        // Nothing is like it.
        check(
            "/verification",
            Some("metric"),
            "by",
            "field `verification`: missing field `metric`",
        );
    }

    #[test]
    fn a_name_of_any_length_is_told_shortly() {
        let mut given = request();
        given[&"é".repeat(1_000_000)] = json!(1);
        let told = read::<TrainingRequest, _>(&given, &given).unwrap_err();
        assert!(
            told.why.chars().count() < PATH_CHARS_MAX + 30,
            "{}",
            told.why.len()
        );
    }
}
