//! The sites of a job with what each answered, counted as it changes: a job of 10,000 sites gets 10,000 answers.

use daitn_messages::{
    ids::{ArtifactId, OrderId},
    rejection::Rejection,
};
use serde::{Deserialize, Serialize};

/// One site of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Site {
    pub(crate) order: Option<OrderId>,
    pub(crate) answer: Answer,
    pub(crate) compute_order: Option<OrderId>,
    pub(crate) compute_answer: Answer,
    /// Hash of its newest answer.
    pub(crate) receipt: Option<ArtifactId>,
    /// It accepted an order of this job before.
    pub(crate) was_in: bool,
    /// From which cycle it is left out; none: from the first, or it is not.
    pub(crate) out_from: Option<u32>,
}

/// What was answered to an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Waiting,
    Accepted,
    Refused(Rejection),
}

impl Site {
    pub(crate) fn is_in(&self) -> bool {
        self.answer == Answer::Accepted && self.compute_answer == Answer::Accepted
    }

    pub(crate) fn refusal(&self) -> Option<&Rejection> {
        match (&self.answer, &self.compute_answer) {
            (Answer::Refused(rejection), _) | (_, Answer::Refused(rejection)) => Some(rejection),
            _ => None,
        }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !self.is_in() && self.refusal().is_none()
    }
}

/// All sites, in the order of the plan's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sites {
    list: Vec<Site>,
    n_in: usize,
    n_waiting: usize,
}

impl Sites {
    /// Sites that were not asked yet.
    pub(crate) fn new(n_sites: usize) -> Self {
        let site = Site {
            order: None,
            answer: Answer::Waiting,
            compute_order: None,
            compute_answer: Answer::Accepted,
            receipt: None,
            was_in: false,
            out_from: None,
        };
        Self {
            list: vec![site; n_sites],
            n_in: 0,
            n_waiting: n_sites,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn n_in(&self) -> usize {
        self.n_in
    }

    pub(crate) fn n_waiting(&self) -> usize {
        self.n_waiting
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Site> {
        self.list.iter()
    }

    pub(crate) fn get(&self, position: u32) -> Option<&Site> {
        self.list.get(position as usize)
    }

    /// Changes one site; nothing where there is none.
    pub(crate) fn update(&mut self, position: u32, change: impl FnOnce(&mut Site)) {
        let Some(site) = self.list.get_mut(position as usize) else {
            return;
        };
        self.n_in -= usize::from(site.is_in());
        self.n_waiting -= usize::from(site.is_waiting());
        change(site);
        self.n_in += usize::from(site.is_in());
        self.n_waiting += usize::from(site.is_waiting());
    }

    /// Positions of the sites of which this holds.
    pub(crate) fn positions(&self, holds: impl Fn(&Site) -> bool) -> Vec<u32> {
        (0u32..)
            .zip(&self.list)
            .filter(|(_, site)| holds(site))
            .map(|(position, _)| position)
            .collect()
    }
}
