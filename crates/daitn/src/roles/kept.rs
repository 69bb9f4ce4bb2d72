//! What a control center keeps between its starts so that it is not taken for another network: the domain's name, in its
//! directory, and the context of the other commands, which belongs to whose key it holds.

use crate::{
    config::{Center, Config},
    context::{ApiKey, Context, Contexts},
    failure::Failure,
    files::{absolute, read_text, write_private},
};
use daitn_messages::{ids::Slug, rejection::Code};
use std::path::{Path, PathBuf};

/// Names that are tried for a context, NAME-2 and so on, before a name has to be given.
const NAMES_TRIED_MAX: u32 = 100;

/// Which context is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// None.
    Nothing,
    /// The one of this name and no other.
    Named(String),
    /// One called like the domain, or almost so where another network has that name.
    LikeDomain,
}

/// The domain's name: the one that the directory has, unless there is none yet.
///
/// # Errors
/// Where another one is asked for: nodes, models and decisions carry the name that they began with.
pub(crate) fn domain(directory: &Path, asked: &Center) -> Result<Slug, Failure> {
    let path = file(directory);
    if !path.exists() {
        return Ok(asked.name());
    }
    let kept: Slug = read_text(&path)?
        .trim()
        .parse()
        .map_err(|error| Failure::file(&path, error))?;
    match &asked.domain {
        Some(other) if *other != kept => {
            let message = format!("{} is the domain `{kept}`, not `{other}`", directory.display());
            Err(Failure::new(Code::Conflict, message).hint(format!(
                "Leave --domain out, or begin `{other}` in a directory of its own with --dir."
            )))
        }
        _ => Ok(kept),
    }
}

/// Keeps the name for the next start.
pub(crate) fn keep_domain(directory: &Path, domain: &Slug) -> Result<(), Failure> {
    write_private(&file(directory), domain.as_str().as_bytes())
}

fn file(directory: &Path) -> PathBuf {
    directory.join("domain")
}

/// The name of the context that is written for the domain whose first key is `own`, none before its first start.
///
/// # Errors
/// Where the name that was asked for is that of another network's context.
pub(crate) fn context(
    wanted: &Wanted,
    domain: &Slug,
    own: Option<&ApiKey>,
) -> Result<Option<String>, Failure> {
    match wanted {
        Wanted::Nothing => Ok(None),
        Wanted::Named(name) => {
            let contexts = Contexts::load()?;
            if is_free(&contexts, name, own) {
                return Ok(Some(name.clone()));
            }
            let message = format!("the context `{name}` belongs to another network");
            Err(Failure::new(Code::Conflict, message).hint(format!(
                "Give another --context-name, or remove that one and its key: daitn context remove {name} --yes"
            )))
        }
        Wanted::LikeDomain => like(&Contexts::load()?, domain.as_str(), own).map(Some),
    }
}

/// A name for a context that no other network has: this, or this with a number.
pub(crate) fn free_context(name: &str) -> Result<String, Failure> {
    like(&Contexts::load()?, name, None)
}

/// The context that the domain has already, or a name that no other network has.
fn like(contexts: &Contexts, first: &str, own: Option<&ApiKey>) -> Result<String, Failure> {
    let more = (2..=NAMES_TRIED_MAX).map(|n| format!("{first}-{n}"));
    let names: Vec<String> = std::iter::once(first.to_owned()).chain(more).collect();
    let known = |name: &&String| own.is_some() && contexts.contexts.contains_key(*name);
    names
        .iter()
        .filter(known)
        .chain(&names)
        .find(|name| is_free(contexts, name, own))
        .cloned()
        .ok_or_else(|| {
            Failure::new(
                Code::Conflict,
                format!("every context from `{first}` on belongs to another network"),
            )
            .hint("Give a --context-name, or remove some: daitn context remove NAME --yes")
        })
}

/// Whether a context of this name may be written: there is none, or its key is this domain's.
fn is_free(contexts: &Contexts, name: &str, own: Option<&ApiKey>) -> bool {
    contexts
        .contexts
        .get(name)
        .is_none_or(|known| own.is_some() && known.api_key.as_ref() == own)
}

/// Writes the context, and uses it from now on.
pub(crate) fn write_context(name: &str, url: &str, key: ApiKey, config: &Config) -> Result<(), Failure> {
    let mut contexts = Contexts::load()?;
    let known = contexts
        .contexts
        .get(name)
        .and_then(|context| context.ca_file.clone());
    // On this machine the gateway's own certificate is trusted, whoever signed it.
    let own = config
        .gateway
        .tls
        .as_ref()
        .map(|tls| absolute(&tls.certificate))
        .transpose()?;
    let ca_file = known.or(own);
    contexts.contexts.insert(
        name.to_owned(),
        Context {
            url: url.to_owned(),
            api_key: Some(key),
            ca_file,
        },
    );
    contexts.current = Some(name.to_owned());
    contexts.save().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(names: &[(&str, &str)]) -> Contexts {
        let context = |key: &str| Context {
            url: "http://127.0.0.1:8470".to_owned(),
            api_key: Some(ApiKey::new(key)),
            ca_file: None,
        };
        let contexts = names.iter().map(|(name, key)| ((*name).to_owned(), context(key)));
        Contexts {
            current: None,
            contexts: contexts.collect(),
        }
    }

    #[test]
    fn a_context_is_written_where_it_takes_nothing_from_another_network() {
        let own = ApiKey::new("own");
        for (names, key, expected) in [
            (&[][..], None, "north"),
            (&[("north", "own")], Some(&own), "north"),
            (&[("north", "other")], None, "north-2"),
            (&[("north", "other"), ("north-2", "own")], Some(&own), "north-2"),
            (&[("north", "other"), ("north-2", "third")], Some(&own), "north-3"),
            // It had to give way once; that the first name is free by now changes nothing.
            (&[("north-2", "own")], Some(&own), "north-2"),
        ] {
            assert_eq!(like(&known(names), "north", key).unwrap(), expected, "{names:?}");
        }
    }

    #[test]
    fn a_directory_is_one_domain() {
        let directory = tempfile::tempdir().unwrap();
        let asked = |name: Option<&str>| Center {
            domain: name.map(|name| name.parse().unwrap()),
            ..Center::default()
        };
        let found = |name| domain(directory.path(), &asked(name)).map(|name| name.to_string());
        assert_eq!(found(None).unwrap(), "local");
        assert_eq!(found(Some("north")).unwrap(), "north");
        keep_domain(directory.path(), &"north".parse().unwrap()).unwrap();
        assert_eq!(found(None).unwrap(), "north");
        assert_eq!(found(Some("north")).unwrap(), "north");
        assert_eq!(found(Some("south")).unwrap_err().exit as u8, 5);
    }
}
