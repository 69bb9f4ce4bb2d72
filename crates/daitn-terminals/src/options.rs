//! What a node is told at its start: who it is, whom it belongs to, and which terminals it has.
//!
//! Terminals are written as TOML files, one for each, in `<state>/terminals/`; [`load_terminals`] reads them. Unknown
//! keys are refused, so that a misspelt policy key is not a missing policy.

use crate::{
    agent::AgentOptions, aggregator::AggregatorOptions, clock::Clock, compute::ComputeOptions,
    dataset::DatasetOptions, host::HostOptions, limits::TERMINAL_FILE_BYTES_MAX, verifier::VerifierOptions,
};
use daitn_messages::{
    control::Enrolment,
    ids::{EntityKind, OrganisationId, Slug},
    limits::TERMINALS_MAX,
    session::Peer,
    signed::NodeKey,
};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// How to start a node.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// What the node calls itself, for people.
    pub name: String,
    /// The directory of its state: orders, receipts, artifacts, terminals.
    pub state: PathBuf,
    /// Its key: the one that its endpoint has.
    pub key: NodeKey,
    /// The control center, its key pinned.
    pub center: Peer,
    /// The organisation that owns it, from the join token.
    pub organisation: OrganisationId,
    /// Sent until the center has taken it once.
    pub enrolment: Option<Enrolment>,
    /// What the node attaches.
    pub terminals: Vec<TerminalOptions>,
    /// Room for artifacts, bytes.
    pub artifacts_bytes_max: u64,
    /// Threads for training and evaluating; zero: one for each core.
    pub threads: usize,
    /// The time.
    pub clock: Clock,
}

impl NodeOptions {
    /// A node without terminals, with room for 64 GiB of artifacts.
    #[must_use]
    pub fn new(name: &str, state: PathBuf, key: NodeKey, center: Peer, organisation: OrganisationId) -> Self {
        Self {
            name: name.to_owned(),
            state,
            key,
            center,
            organisation,
            enrolment: None,
            terminals: Vec::new(),
            artifacts_bytes_max: 64 << 30,
            threads: 0,
            clock: Clock::system(),
        }
    }
}

/// One terminal of a node, as a TOML file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum TerminalOptions {
    /// Data that can be trained on where it is.
    Dataset(Box<DatasetOptions>),
    /// Compute for others.
    Compute(ComputeOptions),
    /// Combines updates and drives jobs.
    Aggregator(AggregatorOptions),
    /// Judges models on a private hold-out.
    Verifier(VerifierOptions),
    /// Serves models.
    ModelHost(HostOptions),
    /// Relays to an A2A agent.
    Agent(AgentOptions),
}

impl TerminalOptions {
    /// Its name within the organisation and kind.
    #[must_use]
    pub fn name(&self) -> &Slug {
        match self {
            Self::Dataset(options) => &options.name,
            Self::Compute(options) => &options.name,
            Self::Aggregator(options) => &options.name,
            Self::Verifier(options) => &options.name,
            Self::ModelHost(options) => &options.name,
            Self::Agent(options) => &options.name,
        }
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> EntityKind {
        match self {
            Self::Dataset(_) => EntityKind::Dataset,
            Self::Compute(_) => EntityKind::Compute,
            Self::Aggregator(_) => EntityKind::Aggregator,
            Self::Verifier(_) => EntityKind::Verifier,
            Self::ModelHost(_) => EntityKind::ModelHost,
            Self::Agent(_) => EntityKind::Agent,
        }
    }

    /// What people see of it. An agent's comes from its own card.
    #[must_use]
    pub(crate) fn card(&self) -> Card {
        let (title, description, jurisdiction) = match self {
            Self::Dataset(o) => (&o.title, &o.description, &o.jurisdiction),
            Self::Compute(o) => (&o.title, &o.description, &o.jurisdiction),
            Self::Aggregator(o) => (&o.title, &o.description, &o.jurisdiction),
            Self::Verifier(o) => (&o.title, &o.description, &o.jurisdiction),
            Self::ModelHost(o) => (&o.title, &o.description, &o.jurisdiction),
            Self::Agent(o) => {
                return Card {
                    title: String::new(),
                    description: String::new(),
                    jurisdiction: o.jurisdiction.clone(),
                };
            }
        };
        Card {
            title: title.clone(),
            description: description.clone(),
            jurisdiction: jurisdiction.clone(),
        }
    }

    /// Reads the text of a terminal file. Paths in it are relative to `directory`.
    ///
    /// # Errors
    /// Says where and what.
    pub fn from_toml(text: &str, directory: &Path) -> Result<Self, OptionsError> {
        let mut options: Self =
            toml::from_str(text).map_err(|error| OptionsError::Syntax(error.to_string()))?;
        match &mut options {
            Self::Dataset(dataset) => {
                dataset.path = directory.join(&dataset.path);
                dataset.policy_file = dataset.policy_file.take().map(|path| directory.join(path));
            }
            Self::Verifier(verifier) => verifier.path = directory.join(&verifier.path),
            Self::Compute(_) | Self::Aggregator(_) | Self::ModelHost(_) | Self::Agent(_) => {}
        }
        Ok(options)
    }

    /// The text of a terminal file.
    ///
    /// # Errors
    /// If a value has no form in TOML.
    pub fn to_toml(&self) -> Result<String, OptionsError> {
        toml::to_string(self).map_err(|error| OptionsError::Syntax(error.to_string()))
    }
}

/// What people see of a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Card {
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) jurisdiction: String,
}

/// Why terminal files were not read.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// The disk said no.
    #[error("cannot read {path}: {source}")]
    Disk {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Too long.
    #[error("{path} has {found} bytes, over the bound of {TERMINAL_FILE_BYTES_MAX}")]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its length.
        found: u64,
    },
    /// Not TOML, or not the keys of a terminal.
    #[error("{0}")]
    Syntax(String),
    /// A file with its problem.
    #[error("{path}: {cause}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        cause: Box<OptionsError>,
    },
    /// Too many.
    #[error("{found} terminals: a node has at most {TERMINALS_MAX}")]
    TooMany {
        /// How many there were.
        found: usize,
    },
    /// Two of one kind and name.
    #[error("there are two terminals `{kind}` named `{name}`")]
    Duplicate {
        /// The kind.
        kind: EntityKind,
        /// The name.
        name: Slug,
    },
}

/// The terminals in a directory: each `*.toml`, in the order of their names. Blocks.
///
/// # Errors
/// The first file that cannot be used, and why. A directory that does not exist holds no terminal.
pub fn load_terminals(directory: &Path) -> Result<Vec<TerminalOptions>, OptionsError> {
    let disk = |path: &Path| {
        let path = path.to_owned();
        |source| OptionsError::Disk { path, source }
    };
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(disk(directory))? {
        let path = entry.map_err(disk(directory))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    let terminals: Vec<TerminalOptions> = paths
        .iter()
        .map(|path| load_terminal(path))
        .collect::<Result<_, _>>()?;
    check(&terminals)?;
    Ok(terminals)
}

/// One terminal file. Paths in it are relative to it. Blocks.
///
/// # Errors
/// Says where and what.
pub fn load_terminal(path: &Path) -> Result<TerminalOptions, OptionsError> {
    let disk = |source| OptionsError::Disk {
        path: path.to_owned(),
        source,
    };
    let found = std::fs::metadata(path).map_err(disk)?.len();
    if found > TERMINAL_FILE_BYTES_MAX {
        return Err(OptionsError::TooLarge {
            path: path.to_owned(),
            found,
        });
    }
    let text = std::fs::read_to_string(path).map_err(disk)?;
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    TerminalOptions::from_toml(&text, directory).map_err(|cause| OptionsError::File {
        path: path.to_owned(),
        cause: Box::new(cause),
    })
}

/// Checks that terminals can live on one node.
pub(crate) fn check(terminals: &[TerminalOptions]) -> Result<(), OptionsError> {
    if terminals.len() > TERMINALS_MAX {
        return Err(OptionsError::TooMany {
            found: terminals.len(),
        });
    }
    for (n, terminal) in terminals.iter().enumerate() {
        let same =
            |other: &&TerminalOptions| (other.kind(), other.name()) == (terminal.kind(), terminal.name());
        if terminals[..n].iter().any(|other| same(&other)) {
            return Err(OptionsError::Duplicate {
                kind: terminal.kind(),
                name: terminal.name().clone(),
            });
        }
    }
    Ok(())
}

/// A size in bytes, written `"64MiB"` or as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |shift: &u32| self.0 >> shift > 0 && self.0.trailing_zeros() >= *shift;
        let (unit, shift) = UNITS
            .into_iter()
            .find(|(_, shift)| fits(shift))
            .unwrap_or(("B", 0));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

impl std::str::FromStr for ByteSize {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a size: write for instance `64MiB`");
        let (number, shift) = UNITS
            .into_iter()
            .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))
            .unwrap_or((text, 0));
        let number: u64 = number.trim().parse().map_err(|_| wrong())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(wrong)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;
        impl de::Visitor<'_> for Size {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"64MiB\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<ByteSize, E> {
                u64::try_from(number).map(ByteSize).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(number))
            }
        }
        deserializer.deserialize_any(Size)
    }
}
