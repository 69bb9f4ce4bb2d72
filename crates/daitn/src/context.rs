//! Contexts: which domain the commands talk to, and with which API key. Kept in one file that only its owner reads:
//! `$DAITN_CONFIG_DIR/contexts.toml`, or `daitn/contexts.toml` under `$XDG_CONFIG_HOME` or `~/.config`.

use crate::{
    failure::Failure,
    files::{environment_path, private_directory, read_text, write_private},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, path::PathBuf};

/// An API key. Never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ApiKey(String);

impl ApiKey {
    /// From its text.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    /// For the header alone.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// How to reach one domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// The gateway's address: `http://127.0.0.1:7420`.
    pub(crate) url: String,
    /// The API key; none: from `DAITN_API_KEY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) api_key: Option<ApiKey>,
    /// A file with the certificate authority that signed the gateway's certificate; none: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// All contexts of this user.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Contexts {
    /// The one in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    /// By name.
    pub(crate) contexts: BTreeMap<String, Context>,
}

impl Contexts {
    /// Where they are kept.
    pub(crate) fn path() -> Result<PathBuf, Failure> {
        let directory = environment_path("DAITN_CONFIG_DIR")
            .or_else(|| environment_path("XDG_CONFIG_HOME").map(|home| home.join("daitn")))
            .or_else(|| environment_path("HOME").map(|home| home.join(".config/daitn")))
            .ok_or_else(|| {
                Failure::usage(
                    "no directory for contexts: neither DAITN_CONFIG_DIR, XDG_CONFIG_HOME nor HOME is set",
                )
            })?;
        Ok(directory.join("contexts.toml"))
    }

    /// Reads them; none is not an error.
    pub(crate) fn load() -> Result<Self, Failure> {
        let path = Self::path()?;
        if !path.exists() {
            return Ok(Self::default());
        }
        toml::from_str(&read_text(&path)?).map_err(|error| {
            // The text around the error may hold a key: only the message is told.
            Failure::file(&path, error.message())
                .hint("Correct the file, or remove it and run `daitn context add`.")
        })
    }

    /// Writes them, readable to their owner alone.
    pub(crate) fn save(&self) -> Result<PathBuf, Failure> {
        let path = Self::path()?;
        if let Some(parent) = path.parent() {
            private_directory(parent)?;
        }
        let text = toml::to_string_pretty(self)
            .map_err(|error| Failure::internal(format!("contexts cannot be written: {error}")))?;
        write_private(&path, text.as_bytes())?;
        Ok(path)
    }

    /// The one that was asked for, or the current one.
    pub(crate) fn get(&self, name: Option<&str>) -> Result<(&str, &Context), Failure> {
        let name = name.or(self.current.as_deref()).ok_or_else(|| {
            let names: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            if names.is_empty() {
                Failure::usage("no domain to talk to")
                    .hint("Start one with `daitn up`, or name one with `daitn context add NAME --url URL`.")
            } else {
                Failure::usage("no context is in use").hint(format!(
                    "Choose one with `daitn context use NAME`, or for one command with `--context NAME`: {}.",
                    names.join(", ")
                ))
            }
        })?;
        self.contexts
            .get_key_value(name)
            .map(|(name, context)| (name.as_str(), context))
            .ok_or_else(|| {
                Failure::usage(format!("there is no context `{name}`"))
                    .hint("List them with `daitn context list`.")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_survives_its_file_and_hides_its_key() {
        let context = Context {
            url: "http://127.0.0.1:7420".into(),
            api_key: Some(ApiKey::new("secret-text")),
            ca_file: None,
        };
        let contexts = Contexts {
            current: Some("local".into()),
            contexts: BTreeMap::from([("local".into(), context)]),
        };
        let read: Contexts = toml::from_str(&toml::to_string_pretty(&contexts).unwrap()).unwrap();
        assert_eq!(read, contexts);
        assert!(!format!("{contexts:?}").contains("secret-text"));
        assert_eq!(contexts.get(None).unwrap().0, "local");
        assert_eq!(contexts.get(Some("other")).unwrap_err().exit as u8, 2);
    }
}
