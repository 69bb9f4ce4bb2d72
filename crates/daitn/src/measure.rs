//! Measures as they stand in configuration and on the command line: durations as `30s`, sizes as `64MiB`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr, time::Duration};

/// Longest duration that may be configured: ten years.
const DURATION_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A duration: a whole number and `ms`, `s`, `m`, `h` or `d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(pub(crate) Duration);

/// A size: a whole number and `B`, `KiB`, `MiB`, `GiB` or `TiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) u64);

/// Why a text is not a measure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub(crate) struct MeasureError {
    text: String,
    expected: &'static str,
}

impl Span {
    /// In milliseconds; bounded when it was read.
    pub(crate) fn ms(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim()))
}

impl FromStr for Span {
    type Err = MeasureError;
    fn from_str(text: &str) -> Result<Self, MeasureError> {
        let wrong = || MeasureError {
            text: text.chars().take(40).collect(),
            expected: "a duration of at most ten years such as 500ms, 30s, 5m, 24h or 7d",
        };
        let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
        let ms_each: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let duration = Duration::from_millis(number.checked_mul(ms_each).ok_or_else(wrong)?);
        if duration > DURATION_MAX {
            Err(wrong())
        } else {
            Ok(Self(duration))
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.ms();
        for (ms_each, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
            if ms > 0 && ms.is_multiple_of(ms_each) {
                return write!(f, "{}{unit}", ms / ms_each);
            }
        }
        write!(f, "{ms}ms")
    }
}

const SIZE_UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

impl FromStr for Size {
    type Err = MeasureError;
    fn from_str(text: &str) -> Result<Self, MeasureError> {
        let wrong = || MeasureError {
            text: text.chars().take(40).collect(),
            expected: "a size such as 512B, 64KiB, 64MiB, 2GiB or 1TiB",
        };
        let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
        let (_, bytes_each) = SIZE_UNITS
            .into_iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(wrong)?;
        number.checked_mul(bytes_each).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, each) = SIZE_UNITS
            .into_iter()
            .find(|(_, each)| self.0 > 0 && self.0.is_multiple_of(*each))
            .unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / each)
    }
}

macro_rules! as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(de::Error::custom)
            }
        }
    };
}

as_text!(Span);
as_text!(Size);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_read_and_write() {
        for (text, ms) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(text.parse::<Span>().unwrap().ms(), ms);
            assert_eq!(
                text.parse::<Span>()
                    .unwrap()
                    .to_string()
                    .parse::<Span>()
                    .unwrap()
                    .ms(),
                ms
            );
        }
        for (text, bytes) in [("512B", 512), ("64MiB", 67_108_864), ("2GiB", 2_147_483_648)] {
            assert_eq!(text.parse::<Size>().unwrap().0, bytes);
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        for wrong in [
            "",
            "30",
            "s",
            "-1s",
            "1.5h",
            "99999999999999999999s",
            "20000000000000d",
            "11y",
        ] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
        for wrong in ["64", "64MB", "99999999999TiB", "MiB"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }
}
