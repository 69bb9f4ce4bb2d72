//! Which artifacts the node needs, what for, and who else may have them.
//!
//! An artifact is held under a scope (a job's work at one terminal, a deployment). It may be fetched by the readers of
//! any of its holds and by nobody else, and is removed when its last hold ends. Hold first, then put or fetch: what is
//! held is not removed under one's feet.

use crate::limits::{HOLDS_MAX, READERS_MAX};
use daitn_messages::{
    ids::{ArtifactId, NodeId},
    rejection::{Code, Rejection},
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

/// Who may have an artifact.
pub(crate) type Readers = Arc<HashSet<NodeId>>;

/// Scopes under which models are held that an order to serve may open: not those of sites' updates or of states, which
/// their owners let nobody have but who was named.
const RESULT_SCOPES: [&str; 3] = ["conduct/", "verify/", "serve/"];

/// What is held.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_artifact: HashMap<ArtifactId, HashMap<Arc<str>, Readers>>,
    by_scope: HashMap<Arc<str>, HashSet<ArtifactId>>,
    n_holds: usize,
}

impl Holds {
    /// Holds an artifact under a scope; its readers replace those of an earlier hold under the same scope.
    ///
    /// # Errors
    /// Where too much is held.
    pub(crate) fn hold(&self, scope: &Arc<str>, id: ArtifactId, readers: &Readers) -> Result<(), Rejection> {
        let mut inner = self.inner();
        if let Some(held) = inner
            .by_artifact
            .get_mut(&id)
            .and_then(|holds| holds.get_mut(scope))
        {
            *held = readers.clone();
            return Ok(());
        }
        if inner.n_holds >= HOLDS_MAX {
            return Err(Rejection::new(
                Code::Overloaded,
                format!("the node holds {HOLDS_MAX} artifacts already"),
            ));
        }
        inner
            .by_artifact
            .entry(id)
            .or_default()
            .insert(scope.clone(), readers.clone());
        inner.by_scope.entry(scope.clone()).or_default().insert(id);
        inner.n_holds += 1;
        Ok(())
    }

    /// Ends a hold; whether it was the last one, so that the artifact can go.
    #[must_use]
    pub(crate) fn release(&self, scope: &str, id: ArtifactId) -> bool {
        let mut inner = self.inner();
        if let Some(held) = inner.by_scope.get_mut(scope) {
            held.remove(&id);
            if held.is_empty() {
                inner.by_scope.remove(scope);
            }
        }
        inner.drop_hold(scope, id)
    }

    /// Ends every hold of a scope; gives the artifacts that nobody holds any more.
    #[must_use]
    pub(crate) fn release_all(&self, scope: &str) -> Vec<ArtifactId> {
        let mut inner = self.inner();
        let held = inner.by_scope.remove(scope).unwrap_or_default();
        held.into_iter()
            .filter(|id| inner.drop_hold(scope, *id))
            .collect()
    }

    /// Whether a node may have an artifact.
    #[must_use]
    pub(crate) fn may_fetch(&self, node: NodeId, id: ArtifactId) -> bool {
        let inner = self.inner();
        inner
            .by_artifact
            .get(&id)
            .is_some_and(|holds| holds.values().any(|readers| readers.contains(&node)))
    }

    /// Lets one more node have an artifact, where it is held as a result; false where it is not.
    pub(crate) fn permit(&self, node: NodeId, id: ArtifactId) -> bool {
        let mut inner = self.inner();
        let holds = inner.by_artifact.get_mut(&id).into_iter().flatten();
        let results = holds.filter(|(scope, _)| RESULT_SCOPES.iter().any(|kind| scope.starts_with(kind)));
        let mut permitted = false;
        for (_, readers) in results.filter(|(_, readers)| readers.len() < READERS_MAX) {
            Arc::make_mut(readers).insert(node);
            permitted = true;
        }
        permitted
    }

    /// Does something about an artifact that nobody holds; whoever comes to hold it waits until it is done.
    pub(crate) fn unless_held(&self, id: ArtifactId, act: impl FnOnce()) {
        let inner = self.inner();
        if !inner.by_artifact.contains_key(&id) {
            act();
        }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Whether the artifact has no hold left, and had one.
    fn drop_hold(&mut self, scope: &str, id: ArtifactId) -> bool {
        let Some(holds) = self.by_artifact.get_mut(&id) else {
            return false;
        };
        if holds.remove(scope).is_none() {
            return false;
        }
        self.n_holds -= 1;
        let last = holds.is_empty();
        if last {
            self.by_artifact.remove(&id);
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_reader_is_let_in_to_results_only() {
        let (alice, bob) = (NodeId([1; 32]), NodeId([2; 32]));
        let readers: Readers = Arc::new(HashSet::from([alice]));
        let (model, update) = (ArtifactId::of(b"model"), ArtifactId::of(b"update"));
        let holds = Holds::default();
        holds.hold(&"verify/order".into(), model, &readers).unwrap();
        holds.hold(&"train/job/0".into(), update, &readers).unwrap();
        assert!(!holds.permit(bob, ArtifactId::of(b"other")) && !holds.permit(bob, update));
        assert!(holds.permit(bob, model));
        assert!(holds.may_fetch(bob, model) && !holds.may_fetch(bob, update));
        assert!(!readers.contains(&bob), "the others' list is as it was");
    }

    #[test]
    fn an_artifact_goes_with_its_last_hold_and_is_read_by_named_nodes_only() {
        let (alice, bob) = (NodeId([1; 32]), NodeId([2; 32]));
        let readers = |nodes: &[NodeId]| -> Readers { Arc::new(nodes.iter().copied().collect()) };
        let (x, y) = (ArtifactId::of(b"x"), ArtifactId::of(b"y"));
        let (job, deployment): (Arc<str>, Arc<str>) = ("job".into(), "deployment".into());
        let holds = Holds::default();
        holds.hold(&job, x, &readers(&[alice])).unwrap();
        holds.hold(&job, y, &readers(&[])).unwrap();
        holds.hold(&deployment, x, &readers(&[])).unwrap();
        assert!(holds.may_fetch(alice, x) && !holds.may_fetch(bob, x) && !holds.may_fetch(alice, y));
        assert_eq!(holds.release_all("job"), [y]);
        let is_free = |id| {
            let mut free = false;
            holds.unless_held(id, || free = true);
            free
        };
        assert!(!is_free(x) && is_free(y) && !holds.may_fetch(alice, x));
        assert!(holds.release("deployment", x));
        assert!(is_free(x) && !holds.release("deployment", x));
    }
}
