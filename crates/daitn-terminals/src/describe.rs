//! Descriptors with versions that rise only when the content does, across restarts.

use crate::{
    durable::{self, DurableError},
    options::Card,
};
use daitn_messages::{
    descriptor::{Body, Descriptor},
    encoding,
    ids::{ArtifactId, EntityId, OrganisationId, Slug},
    rejection::Rejection,
    signed::{NodeKey, Signed},
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// More versions than a terminal has between a backup and its being restored.
const RAISED_BY: u64 = 1_000;

/// What is remembered of a descriptor.
#[derive(Serialize, Deserialize)]
struct Record {
    /// Hash of everything but version and time.
    content: ArtifactId,
    /// The newest version.
    signed: Signed<Descriptor>,
}

/// Who describes.
pub(crate) struct Describer<'a> {
    pub(crate) key: &'a NodeKey,
    pub(crate) organisation: &'a OrganisationId,
    pub(crate) state: &'a Path,
}

impl Describer<'_> {
    /// The descriptor of a terminal: the one that was signed before if nothing has changed. Blocks.
    ///
    /// # Errors
    /// Where a field is over its bound or the disk fails.
    pub(crate) fn describe(
        &self,
        name: &Slug,
        card: &Card,
        body: Body,
        now: UnixMillis,
    ) -> Result<(Descriptor, Signed<Descriptor>), Rejection> {
        let entity = EntityId {
            kind: body.kind(),
            organisation: self.organisation.clone(),
            name: name.clone(),
        };
        let mut descriptor = Descriptor {
            entity,
            version: 1,
            node: self.key.id(),
            title: card.title.clone(),
            description: card.description.clone(),
            jurisdiction: card.jurisdiction.clone(),
            issued_at: UnixMillis(0),
            body,
        };
        descriptor.validate()?;
        let content = ArtifactId::of(&encoding::encode(&descriptor));
        let path = self.path(&descriptor.entity);
        let known: Option<Record> = durable::read(&path).map_err(|error| logged(&error))?;
        let known = known.and_then(|record| {
            let signed = record.signed.open(self.key.id()).ok()?;
            Some((record.content, signed, record.signed))
        });
        match known {
            Some((known, descriptor, signed)) if known == content => return Ok((descriptor, signed)),
            Some((_, known, _)) => descriptor.version = known.version + 1,
            None => {}
        }
        self.sign(descriptor, content, now)
    }

    /// The same in a much later version: somebody knows one that this node does not remember. Blocks.
    ///
    /// # Errors
    /// Where the disk fails.
    pub(crate) fn raise(
        &self,
        mut descriptor: Descriptor,
        now: UnixMillis,
    ) -> Result<(Descriptor, Signed<Descriptor>), Rejection> {
        let version = descriptor.version.saturating_add(RAISED_BY);
        (descriptor.version, descriptor.issued_at) = (1, UnixMillis(0));
        let content = ArtifactId::of(&encoding::encode(&descriptor));
        descriptor.version = version;
        self.sign(descriptor, content, now)
    }

    fn sign(
        &self,
        mut descriptor: Descriptor,
        content: ArtifactId,
        now: UnixMillis,
    ) -> Result<(Descriptor, Signed<Descriptor>), Rejection> {
        descriptor.issued_at = now;
        let signed = Signed::seal(&descriptor, self.key);
        let record = Record {
            content,
            signed: signed.clone(),
        };
        durable::write(&self.path(&descriptor.entity), &record).map_err(|error| logged(&error))?;
        Ok((descriptor, signed))
    }

    fn path(&self, entity: &EntityId) -> PathBuf {
        self.state
            .join("descriptors")
            .join(format!("{}.{}.rec", entity.kind, entity.name))
    }
}

fn logged(error: &DurableError) -> Rejection {
    tracing::error!("a descriptor cannot be read or written: {error}");
    error.rejection()
}

#[cfg(test)]
mod tests {
    use super::*;
    use daitn_messages::descriptor::AggregatorBody;

    #[test]
    fn a_version_rises_with_the_content_and_not_with_restarts() {
        let state = tempfile::tempdir().unwrap();
        durable::make_directory(&state.path().join("descriptors")).unwrap();
        let key = NodeKey::from_bytes(&[3; 32]);
        let organisation = "st-mary".parse().unwrap();
        let describe = |storage_bytes: u64, now: u64| {
            let describer = Describer {
                key: &key,
                organisation: &organisation,
                state: state.path(),
            };
            let card = Card {
                title: "t".into(),
                description: String::new(),
                jurisdiction: "DE".into(),
            };
            let body = Body::Aggregator(AggregatorBody {
                storage_bytes,
                price_micros_per_gb: 0,
            });
            let (descriptor, signed) = describer
                .describe(&"main".parse().unwrap(), &card, body, UnixMillis(now))
                .unwrap();
            assert_eq!(signed.open(key.id()).unwrap(), descriptor);
            (descriptor.version, descriptor.issued_at.0)
        };
        assert_eq!(describe(10, 1), (1, 1));
        assert_eq!(describe(10, 2), (1, 1));
        assert_eq!(describe(20, 3), (2, 3));
        assert_eq!(describe(20, 4), (2, 3));
        assert_eq!(describe(10, 5), (3, 5));
        // Somebody knows a later version.
        let describer = Describer {
            key: &key,
            organisation: &organisation,
            state: state.path(),
        };
        let path = describer.path(&"aggregator:st-mary/main".parse().unwrap());
        let known: Record = durable::read(&path).unwrap().unwrap();
        let (raised, _) = describer
            .raise(known.signed.open(key.id()).unwrap(), UnixMillis(6))
            .unwrap();
        assert_eq!((raised.version, raised.issued_at.0), (1003, 6));
        assert_eq!(describe(10, 7), (1003, 6), "it is the same content");
        assert_eq!(describe(20, 8), (1004, 8));
    }
}
