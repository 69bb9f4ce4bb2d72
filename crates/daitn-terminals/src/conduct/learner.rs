//! The conductor's arithmetic: looks at updates, combines them, writes and reads what a strategy remembers. Blocking;
//! called from threads for that.

use super::events::Step;
use crate::shared::file_bytes;
use daitn_engine::{
    Engine, Layout,
    weights::{self, Numbers, Section},
};
use daitn_fabric::artifact::{ArtifactReader, Store};
use daitn_learning::{
    admission,
    aggregation::MeanError,
    server::{AggregateError, ControlUpdate, Controls, Form, RoundError, Server, Update},
};
use daitn_messages::{
    ids::ArtifactId,
    learning::Strategy,
    plan::Plan,
    rejection::{Code, Rejection},
    session::ArtifactRef,
};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError, RwLock},
};

/// The protection that a request names for clipped updates.
const NORM_CLIP: &str = "norm-clip";
/// Updates longer than this many times the median are shortened where the protection is promised without a number.
const NORM_CLIP_DEFAULT: f32 = 3.0;

/// The model of a job as its conductor knows it.
pub(super) struct Learner {
    layout: Layout,
    control_layout: Layout,
    state_layout: Layout,
    strategy: Strategy,
    clip: Option<f64>,
    /// Sites of the job.
    n_sites: usize,
    server: RwLock<Server>,
    /// Length of each update of this cycle that was admitted.
    norms: Mutex<HashMap<ArtifactId, f64>>,
}

/// Why a cycle has no result.
#[derive(Debug)]
pub(super) enum CombineError {
    /// The end of one chain is to blame: without it there may be one.
    Blamed {
        /// Which, in the order given.
        end: usize,
        /// What is wrong with it.
        reason: Rejection,
    },
    /// Nobody is.
    Failed(Rejection),
}

impl From<Rejection> for CombineError {
    fn from(reason: Rejection) -> Self {
        Self::Failed(reason)
    }
}

/// The files of a cycle's result.
pub(super) struct Files {
    /// The combined weights.
    pub global: Vec<u8>,
    /// SCAFFOLD's control variate.
    pub control: Option<Vec<u8>>,
    /// Weights and memory in one, where the strategy remembers anything.
    pub state: Option<Vec<u8>>,
}

impl Learner {
    /// The model before the first cycle.
    ///
    /// # Errors
    /// Where the specification or the strategy cannot be used.
    pub(super) fn new(engine: &dyn Engine, plan: &Plan, n_sites: usize) -> Result<Self, Rejection> {
        let spec = plan.model_spec();
        let layout = engine.layout(&spec)?;
        let initial = engine.initial(&spec, plan.request.training.local.seed)?;
        let server = Server::new(plan.strategy, initial)
            .map_err(|error| Rejection::malformed("strategy", &error.to_string()))?;
        let n = layout.n_elements();
        let vectors: Vec<(&str, usize)> = server.state().iter().map(|(name, _)| (*name, n)).collect();
        let state_layout = layout
            .with_vectors(&vectors)
            .map_err(|error| Rejection::new(Code::TooLarge, error.to_string()))?;
        let promised = plan.request.protections.iter().any(|name| name == NORM_CLIP);
        let clip = plan
            .request
            .training
            .norm_clip
            .or(promised.then_some(NORM_CLIP_DEFAULT));
        Ok(Self {
            control_layout: crate::dataset::control_layout(n)?,
            layout,
            state_layout,
            strategy: plan.strategy,
            clip: clip.map(f64::from),
            n_sites,
            server: RwLock::new(server),
            norms: Mutex::default(),
        })
    }

    /// Length of a file of weights, bytes.
    #[must_use]
    pub(super) fn weights_bytes(&self) -> u64 {
        file_bytes(&self.layout)
    }

    /// Length of a file of a control variate, bytes; none unless the strategy has one.
    #[must_use]
    pub(super) fn control_bytes(&self) -> Option<u64> {
        (self.strategy == Strategy::Scaffold).then(|| file_bytes(&self.control_layout))
    }

    /// Length of a file of the state, bytes.
    #[must_use]
    pub(super) fn state_bytes(&self) -> u64 {
        file_bytes(&self.state_layout)
    }

    /// Goes on from a state.
    ///
    /// # Errors
    /// Where the file is not one of this job.
    pub(super) fn restore(&self, reader: ArtifactReader) -> Result<(), Rejection> {
        let n_bytes = reader.n_bytes();
        let mut section = Section::open(reader, n_bytes, &self.state_layout, Numbers::Finite)?;
        let mut read = || {
            let mut numbers = vec![0.0; self.layout.n_elements()];
            section.read(&mut numbers).map(|()| numbers)
        };
        let global = read()?;
        let names: Vec<String> = self
            .server()
            .state()
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect();
        let mut state = Vec::new();
        for name in names {
            state.push((name, read()?));
        }
        let server = Server::restore(self.strategy, global, state)
            .map_err(|error| Rejection::malformed("conductor's state", &error.to_string()))?;
        *self.server.write().unwrap_or_else(PoisonError::into_inner) = server;
        Ok(())
    }

    /// Looks at an update: its header, and each of its numbers.
    ///
    /// # Errors
    /// [`Code::UpdateRefused`] with the reason.
    pub(super) fn inspect(&self, reader: ArtifactReader) -> Result<(), Rejection> {
        let (id, n_bytes) = (reader.id(), reader.n_bytes());
        let mut data = Section::open(reader, n_bytes, &self.layout, Numbers::Any)
            .map_err(|e| refused(&e))?
            .into_reader();
        let server = self.server();
        let norm = admission::inspect(&mut data, self.layout.n_elements(), Some(server.global()));
        let norm = norm.map_err(|error| refused(&error))?;
        self.norms
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, norm);
        Ok(())
    }

    /// Looks at the change of a control variate.
    ///
    /// # Errors
    /// [`Code::UpdateRefused`] with the reason.
    pub(super) fn inspect_control(&self, reader: ArtifactReader) -> Result<(), Rejection> {
        let n_bytes = reader.n_bytes();
        let section =
            Section::open(reader, n_bytes, &self.control_layout, Numbers::Any).map_err(|e| refused(&e))?;
        let inspected = admission::inspect(&mut section.into_reader(), self.layout.n_elements(), None);
        inspected.map(drop).map_err(|error| refused(&error))
    }

    /// Takes the step of a cycle from the ends of its chains, in their order. Memory is a chunk of each.
    ///
    /// # Errors
    /// Where there is no result; the model is then as it was.
    pub(super) fn combine(&self, store: &Store, ends: &[Vec<Step>]) -> Result<Files, CombineError> {
        let (mut updates, mut changes, mut changed_by) =
            (Vec::with_capacity(ends.len()), Vec::new(), Vec::new());
        let blamed = |end| move |reason| CombineError::Blamed { end, reason };
        for (end, (steps, clip)) in ends.iter().zip(self.clips(ends)?).enumerate() {
            let last = steps.last().expect("a chain that ended with something has steps");
            let reader = data(store, last.output, &self.layout).map_err(blamed(end))?;
            let n_examples = steps.iter().map(|step| step.examples).sum();
            updates.push(Update {
                n_examples,
                clip,
                reader,
            });
            for control in steps.iter().filter_map(|step| step.control) {
                let reader = data(store, control, &self.control_layout).map_err(blamed(end))?;
                changes.push(ControlUpdate { clip: 1.0, reader });
                changed_by.push(end);
            }
        }
        let scaffold = self.strategy == Strategy::Scaffold;
        let controls = scaffold.then_some(Controls {
            updates: changes,
            n_sites: self.n_sites,
        });
        let aggregated = {
            let mut server = self.server.write().unwrap_or_else(PoisonError::into_inner);
            server.aggregate(Form::Weights, updates, controls)
        };
        aggregated.map_err(|error| {
            let end = match &error {
                AggregateError::Mean(mean) => term_of(mean),
                AggregateError::ControlMean(mean) => {
                    term_of(mean).and_then(|term| changed_by.get(term).copied())
                }
                _ => None,
            };
            let reason = match &error {
                AggregateError::Round(RoundError::Diverged { .. }) => {
                    Rejection::new(Code::Diverged, error.to_string())
                }
                _ => Rejection::new(Code::UpdateRefused, format!("the updates have no mean: {error}")),
            };
            match end {
                Some(end) => CombineError::Blamed { end, reason },
                None => CombineError::Failed(reason),
            }
        })?;
        self.norms.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(self.files()?)
    }

    /// The files of the model as it is.
    ///
    /// # Errors
    /// Where a number is not finite, which the server does not let happen.
    pub(super) fn files(&self) -> Result<Files, Rejection> {
        let server = self.server();
        let memory = server.state();
        let mut parts = vec![server.global()];
        parts.extend(memory.iter().map(|(_, values)| *values));
        Ok(Files {
            global: weights::write(server.global(), &self.layout)?,
            control: server
                .control()
                .map(|control| weights::write(control, &self.control_layout))
                .transpose()?,
            state: if memory.is_empty() {
                None
            } else {
                Some(weights::write_parts(&parts, &self.state_layout)?)
            },
        })
    }

    fn clips(&self, ends: &[Vec<Step>]) -> Result<Vec<f64>, Rejection> {
        let Some(multiple) = self.clip else {
            return Ok(vec![1.0; ends.len()]);
        };
        let norms = self.norms.lock().unwrap_or_else(PoisonError::into_inner);
        let norm = |steps: &Vec<Step>| steps.last().and_then(|step| norms.get(&step.output.id)).copied();
        let norms: Vec<f64> = ends.iter().map(|steps| norm(steps).unwrap_or(0.0)).collect();
        admission::clip_factors(&norms, multiple)
            .map_err(|error| Rejection::malformed("training.norm_clip", &error.to_string()))
    }

    fn server(&self) -> std::sync::RwLockReadGuard<'_, Server> {
        self.server.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The data section of an artifact.
fn data(store: &Store, artifact: ArtifactRef, layout: &Layout) -> Result<ArtifactReader, Rejection> {
    let reader = store.reader(artifact.id).map_err(|error| error.rejection())?;
    let n_bytes = reader.n_bytes();
    Ok(Section::open(reader, n_bytes, layout, Numbers::Any)?.into_reader())
}

/// The update that is to blame, if one is.
fn term_of(error: &MeanError) -> Option<usize> {
    match error {
        MeanError::BadWeight { term, .. }
        | MeanError::NotFinite { term, .. }
        | MeanError::WrongLength { term, .. }
        | MeanError::Read { term, .. } => Some(*term),
        MeanError::NoTerms | MeanError::NoWeight { .. } | MeanError::Spent => None,
    }
}

fn refused(error: &dyn std::error::Error) -> Rejection {
    Rejection::new(Code::UpdateRefused, error.to_string())
}
