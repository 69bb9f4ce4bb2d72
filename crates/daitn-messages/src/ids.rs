//! Names of things. Keys and hashes are 32 bytes, hexadecimal in text; made-up ids are a prefix and a 26-digit
//! time-ordered random number (as in ULID), so that a log sorts by itself; slugs are chosen by people.

use crate::limits::SLUG_BYTES_MAX;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not 64 hexadecimal digits.
    #[error("expected 64 hexadecimal digits, found {found} characters")]
    NotHex {
        /// How many characters there were.
        found: usize,
    },
    /// Not a slug.
    #[error(
        "`{text}` is not a name: use 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"
    )]
    NotASlug {
        /// The offending text, shortened.
        text: String,
    },
    /// The wrong prefix or the wrong length.
    #[error("`{text}` is not an id that begins with `{prefix}-` and ends with 26 letters and digits")]
    NotAnId {
        /// The prefix that was expected.
        prefix: &'static str,
        /// The offending text, shortened.
        text: String,
    },
    /// Not `kind:organisation/name`.
    #[error(
        "`{text}` is not an entity: expected `kind:organisation/name`, for instance `dataset:st-mary/digits`"
    )]
    NotAnEntity {
        /// The offending text, shortened.
        text: String,
    },
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// How an id appears in the published schema of the REST API: a text with a pattern.
macro_rules! text_schema {
    ($name:ident, $pattern:expr) => {
        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::schema::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some($pattern))
                    .into()
            }
        }
        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {}
    };
}

macro_rules! bytes32 {
    ($(#[$doc:meta])* $name:ident) => {
        text_schema!($name, "^[0-9a-fA-F]{64}$");
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The 32 bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
            /// The first ten hexadecimal digits, for people.
            #[must_use]
            pub fn short(&self) -> String {
                data_encoding::HEXLOWER.encode(&self.0[..5])
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let wrong = || IdError::NotHex { found: text.chars().count() };
                if text.len() != 64 {
                    return Err(wrong());
                }
                let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| wrong())?;
                Ok(Self(bytes.try_into().map_err(|_| wrong())?))
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
                } else {
                    let bytes = <serde_bytes::ByteArray<32>>::deserialize(deserializer)?;
                    Ok(Self(bytes.into_array()))
                }
            }
        }
    };
}

bytes32! {
    /// A node's identity: its Ed25519 public key.
    NodeId
}
bytes32! {
    /// A content address: the BLAKE3 hash of the bytes.
    ArtifactId
}

impl ArtifactId {
    /// The address of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $pattern:expr, $check:expr) => {
        text_schema!($name, $pattern);
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let check: fn(&str) -> Result<(), IdError> = $check;
                check(text).map(|()| Self(text.to_owned()))
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

fn check_slug(text: &str) -> Result<(), IdError> {
    let bytes = text.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends_well = bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric);
    if ends_well && bytes.len() <= SLUG_BYTES_MAX && bytes.iter().all(|b| alphanumeric(b) || *b == b'-') {
        Ok(())
    } else {
        Err(IdError::NotASlug {
            text: shortened(text),
        })
    }
}

/// What [`check_slug`] checks, as a regular expression for the published schema.
#[cfg(feature = "openapi")]
const SLUG_PATTERN: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";

text_id! {
    /// An organisation, as a slug: `st-mary`.
    OrganisationId, SLUG_PATTERN, check_slug
}
text_id! {
    /// A machine name chosen by a person: of a terminal, a model, an agent.
    Slug, SLUG_PATTERN, check_slug
}

/// Digits of Crockford's base 32, as in ULID.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const ID_DIGITS: usize = 26;

fn ulid(at_ms: u64, random: [u8; 10]) -> String {
    let mut number = u128::from(at_ms & 0xffff_ffff_ffff) << 80;
    for (i, byte) in random.iter().enumerate() {
        number |= u128::from(*byte) << (72 - 8 * i);
    }
    (0..ID_DIGITS)
        .rev()
        .map(|i| DIGITS[((number >> (5 * i)) & 31) as usize] as char)
        .collect()
}

macro_rules! made_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        text_id! { $(#[$doc])* $name, concat!("^", $prefix, "-[0-9a-hjkmnp-tv-z]{26}$"), |text| {
            let wrong = || IdError::NotAnId { prefix: $prefix, text: shortened(text) };
            let digits = text.strip_prefix(concat!($prefix, "-")).ok_or_else(wrong)?;
            if digits.len() == ID_DIGITS && digits.bytes().all(|b| DIGITS.contains(&b)) { Ok(()) } else { Err(wrong()) }
        } }
        impl $name {
            /// A new id from the time and 80 random bits, both given by the caller.
            #[must_use]
            pub fn new(at_ms: u64, random: [u8; 10]) -> Self {
                Self(format!(concat!($prefix, "-{}"), ulid(at_ms, random)))
            }
        }
    };
}

made_id! {
    /// A training job.
    JobId, "job"
}
made_id! {
    /// A plan.
    PlanId, "plan"
}
made_id! {
    /// A decision record, which `daitn explain` opens.
    DecisionId, "dec"
}
made_id! {
    /// A work order.
    OrderId, "ord"
}
made_id! {
    /// A deployment.
    DeploymentId, "dep"
}
made_id! {
    /// A join token (its public half).
    TokenId, "tok"
}
made_id! {
    /// An API key (its public half).
    ApiKeyId, "key"
}

/// What an entity is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum EntityKind {
    /// Data that can be trained on where it is.
    Dataset,
    /// CPU or GPU that trains for others.
    Compute,
    /// Trained weights with a model card.
    Model,
    /// Serves models from memory.
    ModelHost,
    /// Judges models on a private hold-out.
    Verifier,
    /// Combines updates.
    Aggregator,
    /// Speaks A2A.
    Agent,
}

impl EntityKind {
    /// Every kind, in order.
    pub const ALL: [Self; 7] = [
        Self::Dataset,
        Self::Compute,
        Self::Model,
        Self::ModelHost,
        Self::Verifier,
        Self::Aggregator,
        Self::Agent,
    ];

    /// The name in ids and filters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dataset => "dataset",
            Self::Compute => "compute",
            Self::Model => "model",
            Self::ModelHost => "model-host",
            Self::Verifier => "verifier",
            Self::Aggregator => "aggregator",
            Self::Agent => "agent",
        }
    }
}

impl fmt::Display for EntityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Anything that can be discovered: `dataset:st-mary/digits`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityId {
    /// What it is.
    pub kind: EntityKind,
    /// Whose it is.
    pub organisation: OrganisationId,
    /// Its name within the organisation and kind.
    pub name: Slug,
}

text_schema!(
    EntityId,
    "^(dataset|compute|model|model-host|verifier|aggregator|agent):[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
);

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.kind, self.organisation, self.name)
    }
}

impl fmt::Debug for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EntityId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::NotAnEntity {
            text: shortened(text),
        };
        let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
        let (organisation, name) = rest.split_once('/').ok_or_else(wrong)?;
        let kind = EntityKind::ALL
            .into_iter()
            .find(|k| k.as_str() == kind)
            .ok_or_else(wrong)?;
        Ok(Self {
            kind,
            organisation: organisation.parse()?,
            name: name.parse()?,
        })
    }
}

impl Serialize for EntityId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EntityId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}
