//! How the node stands with its center: what it was told, what it waits to tell, what it remembers of joining.

use crate::{
    clock::Clock,
    durable::{self, DurableError, blocking},
    status::Contact,
};
use daitn_messages::{
    control::{Enrolment, Link, Welcome},
    ids::EntityId,
    rejection::Rejection,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, watch};

/// Links that wait to be told; older ones make room.
const LINKS_MAX: usize = 1024;

/// What is remembered of joining.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Joined {
    enrolled: bool,
    relay: Option<String>,
}

/// What the center has said of a terminal, and of which version of its descriptor.
type Said = (u64, Result<(), Rejection>);

/// The node's side of the connection to the center.
pub(crate) struct Uplink {
    contact: watch::Sender<Contact>,
    enrolment: Mutex<Option<Enrolment>>,
    joined: PathBuf,
    /// The relay that the center has named, once it has named one or said that there is none.
    relay: Option<Option<String>>,
    attached: Mutex<BTreeMap<EntityId, Said>>,
    /// Terminals of which the center knew a later version once: a second time that is not the cause.
    conflicts: Mutex<BTreeSet<EntityId>>,
    links: Mutex<Vec<Link>>,
    linked: Notify,
    clock: Clock,
}

impl Uplink {
    pub(crate) fn open(
        enrolment: Option<Enrolment>,
        clock: Clock,
        path: PathBuf,
    ) -> Result<Self, DurableError> {
        let joined: Joined = durable::read(&path)?.unwrap_or_default();
        Ok(Self {
            contact: watch::Sender::new(Contact::Connecting { cause: None }),
            enrolment: Mutex::new(enrolment.filter(|_| !joined.enrolled)),
            relay: joined.enrolled.then_some(joined.relay),
            joined: path,
            attached: Mutex::default(),
            conflicts: Mutex::default(),
            links: Mutex::default(),
            linked: Notify::new(),
            clock,
        })
    }

    pub(crate) fn enrolment(&self) -> Option<Enrolment> {
        self.enrolment
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What the center said of the domain's relay before this start; none where it has said nothing yet.
    pub(crate) fn relay_before(&self) -> Option<Option<&str>> {
        self.relay.as_ref().map(Option::as_deref)
    }

    /// The center has taken the node: remembered, so that a spent token is not sent again.
    pub(crate) async fn welcomed(&self, welcome: Welcome) -> Result<(), Rejection> {
        let (path, joined) = (
            self.joined.clone(),
            Joined {
                enrolled: true,
                relay: welcome.relay,
            },
        );
        blocking(move || durable::write(&path, &joined))
            .await
            .map_err(|error| error.rejection())?;
        self.enrolment
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        tracing::info!(build = %welcome.build, "connected to the control center");
        self.set(Contact::Connected {
            since: self.clock.now(),
            build: welcome.build,
        });
        Ok(())
    }

    pub(crate) fn is_welcome(&self) -> bool {
        matches!(*self.contact.borrow(), Contact::Connected { .. })
    }

    pub(crate) fn lost(&self, cause: Rejection) {
        if self.is_welcome() {
            tracing::warn!("the control center is away; the node goes on: {cause}");
        } else {
            tracing::debug!("the control center cannot be reached: {cause}");
        }
        self.set(Contact::Connecting { cause: Some(cause) });
    }

    pub(crate) fn refused(&self, cause: Rejection) {
        tracing::error!(
            "the control center refuses this node: {cause}. {}",
            cause.hint_or_page()
        );
        self.set(Contact::Refused { cause });
    }

    pub(crate) fn revoked(&self) {
        self.set(Contact::Revoked);
    }

    pub(crate) fn attached(&self, entity: &EntityId, version: u64, result: Result<(), Rejection>) {
        self.attached
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(entity.clone(), (version, result));
        // Whoever looks at how the node stands looks again.
        self.contact.send_modify(|_| {});
    }

    /// Whether the center refuses this terminal for a conflict for the first time since the start.
    pub(crate) fn is_first_conflict(&self, entity: &EntityId) -> bool {
        let mut conflicts = self.conflicts.lock().unwrap_or_else(PoisonError::into_inner);
        conflicts.insert(entity.clone())
    }

    /// Whether the center has this terminal.
    pub(crate) fn is_attached(&self, entity: &EntityId) -> bool {
        matches!(self.told().get(entity), Some((_, Ok(()))))
    }

    /// What the center has said of this version of a terminal's descriptor; none: nothing yet.
    pub(crate) fn said(&self, entity: &EntityId, version: u64) -> Option<Result<(), Rejection>> {
        let told = self.told();
        let (known, said) = told.get(entity)?;
        (*known == version).then(|| said.clone())
    }

    fn told(&self) -> MutexGuard<'_, BTreeMap<EntityId, Said>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest contact; also told anew when the center has said something of a terminal.
    pub(crate) fn contact(&self) -> watch::Receiver<Contact> {
        self.contact.subscribe()
    }

    pub(crate) fn found(&self, found: Vec<Link>) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.extend(found);
        let surplus = links.len().saturating_sub(LINKS_MAX);
        links.drain(..surplus);
        self.linked.notify_one();
    }

    pub(crate) async fn links(&self) -> Vec<Link> {
        loop {
            let linked = self.linked.notified();
            let links = std::mem::take(&mut *self.links.lock().unwrap_or_else(PoisonError::into_inner));
            if !links.is_empty() {
                return links;
            }
            linked.await;
        }
    }

    fn set(&self, contact: Contact) {
        // Revoked stays, whatever the connection does.
        self.contact.send_if_modified(|current| {
            let changes = *current != contact
                && (*current != Contact::Revoked || matches!(contact, Contact::Connected { .. }));
            if changes {
                *current = contact;
            }
            changes
        });
    }
}
