//! The aggregator's side of each strategy: global parameters and what a strategy remembers between rounds, as a plain
//! value that takes one step for each round.
//!
//! A round either takes effect as a whole or leaves the server as it was; what to persist is plain slices.

mod aggregate;
mod step;

pub use aggregate::{AggregateError, ControlUpdate, Controls, Update, Weighting};

use daitn_messages::learning::Strategy;

/// What the updates of a round hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The site's parameters after training, `y_k`.
    Weights,
    /// The difference to what it received, `y_k - x`.
    Difference,
}

/// Name of a vector that a strategy keeps: the momentum `m`.
pub const MOMENTUM: &str = "momentum";
/// Name of a vector that a strategy keeps: the second moment `v`.
pub const SECOND_MOMENT: &str = "second-moment";
/// Name of a vector that a strategy keeps: SCAFFOLD's control variate `c`.
pub const CONTROL: &str = "control";

/// Why there is no server.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ServerError {
    /// A setting of the strategy makes no sense.
    #[error("the strategy's {name} is {value}: give {range}")]
    BadSetting {
        /// Which.
        name: &'static str,
        /// What it is.
        value: f32,
        /// What it may be.
        range: &'static str,
    },
    /// A model without parameters.
    #[error("the model has no parameters")]
    Empty,
    /// A vector of the state is missing.
    #[error("the strategy's {name} is missing from the state")]
    Missing {
        /// Which.
        name: &'static str,
    },
    /// A vector is there that the strategy does not keep.
    #[error("the strategy keeps no {name}: the state is of another strategy")]
    Unexpected {
        /// Which.
        name: String,
    },
    /// A vector is not of this model.
    #[error("the {name} has {n_found} values where the model has {n_expected} parameters")]
    WrongLength {
        /// Which.
        name: &'static str,
        /// Parameters of the model.
        n_expected: usize,
        /// Values found.
        n_found: usize,
    },
    /// A value is NaN or infinite.
    #[error("value {parameter} of the {name} is NaN or infinite")]
    NotFinite {
        /// Which vector.
        name: &'static str,
        /// Index of the first such value.
        parameter: usize,
    },
}

/// Why a round's step was not taken. The server is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoundError {
    /// More values came than the model has parameters.
    #[error("the mean has more than the model's {n_expected} parameters")]
    TooLong {
        /// Parameters of the model.
        n_expected: usize,
    },
    /// Fewer came.
    #[error("the mean of the {what} has {n_found} of the model's {n_expected} parameters")]
    Incomplete {
        /// Which mean.
        what: &'static str,
        /// Parameters of the model.
        n_expected: usize,
        /// Values that came.
        n_found: usize,
    },
    /// The strategy keeps no control variate.
    #[error("this strategy has no control variate")]
    NoControl,
    /// The step leads out of what `f32` holds.
    #[error("parameter {parameter} is no longer finite after the step: lower the server's rate")]
    Diverged {
        /// Index of the first such parameter.
        parameter: usize,
    },
}

/// Global parameters and the strategy's memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    strategy: Strategy,
    global: Vec<f32>,
    /// Empty unless the strategy keeps one; likewise below.
    momentum: Vec<f32>,
    second_moment: Vec<f32>,
    control: Vec<f32>,
}

impl Server {
    /// A server before its first round: momentum and control are zero, the second moment is `tau²` (Reddi 2021, alg. 2).
    ///
    /// # Errors
    /// [`ServerError::BadSetting`], [`ServerError::Empty`], [`ServerError::NotFinite`].
    pub fn new(strategy: Strategy, initial: Vec<f32>) -> Result<Self, ServerError> {
        check(&strategy)?;
        if initial.is_empty() {
            return Err(ServerError::Empty);
        }
        check_finite("global parameters", &initial)?;
        let n = initial.len();
        let keep = |kept: bool, value: f32| if kept { vec![value; n] } else { Vec::new() };
        let tau = step::tau(&strategy);
        Ok(Self {
            momentum: keep(step::keeps_momentum(&strategy), 0.0),
            second_moment: keep(tau.is_some(), tau.map_or(0.0, |tau| tau * tau)),
            control: keep(strategy == Strategy::Scaffold, 0.0),
            strategy,
            global: initial,
        })
    }

    /// A server as it was after some round: from its global parameters and all that [`Self::state`] gave.
    ///
    /// # Errors
    /// As [`Self::new`]; [`ServerError::Missing`], [`ServerError::Unexpected`], [`ServerError::WrongLength`].
    pub fn restore(
        strategy: Strategy,
        global: Vec<f32>,
        state: impl IntoIterator<Item = (String, Vec<f32>)>,
    ) -> Result<Self, ServerError> {
        let mut server = Self::new(strategy, global)?;
        let n_expected = server.global.len();
        let mut missing: Vec<&'static str> = server.state().iter().map(|(name, _)| *name).collect();
        for (name, values) in state {
            let Some(position) = missing.iter().position(|missing| *missing == name) else {
                return Err(ServerError::Unexpected { name });
            };
            let name = missing.remove(position);
            if values.len() != n_expected {
                return Err(ServerError::WrongLength {
                    name,
                    n_expected,
                    n_found: values.len(),
                });
            }
            check_finite(name, &values)?;
            match name {
                MOMENTUM => server.momentum = values,
                SECOND_MOMENT => server.second_moment = values,
                _ => server.control = values,
            }
        }
        match missing.first() {
            Some(name) => Err(ServerError::Missing { name }),
            None => Ok(server),
        }
    }

    /// The strategy.
    #[must_use]
    pub fn strategy(&self) -> &Strategy {
        &self.strategy
    }

    /// The global parameters: what sites receive next.
    #[must_use]
    pub fn global(&self) -> &[f32] {
        &self.global
    }

    /// SCAFFOLD's control variate `c`, which sites receive beside the parameters; `None` for any other strategy.
    #[must_use]
    pub fn control(&self) -> Option<&[f32]> {
        (self.strategy == Strategy::Scaffold).then_some(&self.control)
    }

    /// What the strategy remembers besides the global parameters, by name, sorted: persist it with them after each
    /// round. Nothing for FedAvg and FedProx.
    #[must_use]
    pub fn state(&self) -> Vec<(&'static str, &[f32])> {
        [
            (CONTROL, &self.control),
            (MOMENTUM, &self.momentum),
            (SECOND_MOMENT, &self.second_moment),
        ]
        .into_iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(name, values)| (name, values.as_slice()))
        .collect()
    }

    /// Begins a round whose mean comes chunk by chunk. Nothing changes before [`Round::commit`].
    ///
    /// `coverage` is what [`crate::aggregation::Mean::coverage`] gives: 1 unless something was clipped. What clipping
    /// took away counts as the site's wish to stay where it was.
    pub fn begin(&mut self, form: Form, coverage: f64) -> Round<'_> {
        let next = self.clone();
        Round {
            server: self,
            next,
            form,
            coverage,
            differences: Vec::new(),
            n_done: 0,
            n_control_done: 0,
        }
    }

    /// Takes the step of one whole round from a mean in memory.
    ///
    /// # Errors
    /// [`RoundError`]; the server is then as it was.
    pub fn apply(
        &mut self,
        form: Form,
        mean: &[f32],
        mean_control: Option<&[f32]>,
    ) -> Result<(), RoundError> {
        let mut round = self.begin(form, 1.0);
        round.advance(&mean.iter().copied().map(f64::from).collect::<Vec<_>>())?;
        if let Some(mean_control) = mean_control {
            round.advance_control(&mean_control.iter().copied().map(f64::from).collect::<Vec<_>>())?;
        }
        round.commit()
    }
}

/// A round's step under way. Dropped without [`Self::commit`], it has not happened.
#[derive(Debug)]
pub struct Round<'a> {
    server: &'a mut Server,
    next: Server,
    form: Form,
    coverage: f64,
    differences: Vec<f64>,
    n_done: usize,
    n_control_done: usize,
}

impl Round<'_> {
    /// Takes the step for the next parameters, whose mean over the sites this is.
    ///
    /// # Errors
    /// [`RoundError::TooLong`], [`RoundError::Diverged`].
    pub fn advance(&mut self, mean: &[f64]) -> Result<(), RoundError> {
        let n_expected = self.next.global.len();
        let end = self.n_done + mean.len();
        if end > n_expected {
            return Err(RoundError::TooLong { n_expected });
        }
        let part = self.n_done..end;
        let global = &mut self.next.global[part.clone()];
        if self.form == Form::Weights && self.coverage == 1.0 && step::is_plain(&self.next.strategy) {
            // The mean is the result: `x + (mean - x)` could differ from it in the last bit.
            step::replace(global, mean);
        } else {
            self.differences.clear();
            match self.form {
                Form::Difference => self.differences.extend_from_slice(mean),
                Form::Weights => {
                    let received = global.iter().map(|x| self.coverage * f64::from(*x));
                    self.differences
                        .extend(mean.iter().zip(received).map(|(mean, x)| mean - x));
                }
            }
            let memory = step::Memory {
                momentum: of_part(&mut self.next.momentum, part.clone()),
                second_moment: of_part(&mut self.next.second_moment, part),
            };
            step::take(&self.next.strategy, &self.differences, global, memory);
        }
        self.check_part(end)?;
        self.n_done = end;
        Ok(())
    }

    /// Moves the next values of SCAFFOLD's control variate, whose mean change over *all* sites of the job this is,
    /// also those that did not answer: their change is zero.
    ///
    /// # Errors
    /// [`RoundError::NoControl`], [`RoundError::TooLong`], [`RoundError::Diverged`].
    pub fn advance_control(&mut self, mean: &[f64]) -> Result<(), RoundError> {
        if self.next.control.is_empty() {
            return Err(RoundError::NoControl);
        }
        let n_expected = self.next.control.len();
        let end = self.n_control_done + mean.len();
        if end > n_expected {
            return Err(RoundError::TooLong { n_expected });
        }
        let control = &mut self.next.control[self.n_control_done..end];
        step::add(control, mean);
        if let Some(i) = control.iter().position(|value| !value.is_finite()) {
            return Err(RoundError::Diverged {
                parameter: self.n_control_done + i,
            });
        }
        self.n_control_done = end;
        Ok(())
    }

    /// Makes the round's result the server's.
    ///
    /// # Errors
    /// [`RoundError::Incomplete`] unless every parameter has had its step; the server is then as it was.
    pub fn commit(self) -> Result<(), RoundError> {
        let n_expected = self.next.global.len();
        if self.n_done != n_expected {
            return Err(RoundError::Incomplete {
                what: "updates",
                n_expected,
                n_found: self.n_done,
            });
        }
        if self.n_control_done != self.next.control.len() {
            let n_found = self.n_control_done;
            return Err(RoundError::Incomplete {
                what: "control variates",
                n_expected,
                n_found,
            });
        }
        *self.server = self.next;
        Ok(())
    }

    /// The memory too: an infinite moment would freeze its parameter for ever.
    fn check_part(&self, end: usize) -> Result<(), RoundError> {
        for values in [&self.next.global, &self.next.momentum, &self.next.second_moment] {
            let part = values.get(self.n_done..end).unwrap_or_default();
            if let Some(i) = part.iter().position(|value| !value.is_finite()) {
                return Err(RoundError::Diverged {
                    parameter: self.n_done + i,
                });
            }
        }
        Ok(())
    }
}

/// The part of a vector that the strategy keeps, or nothing of one that it does not.
fn of_part(values: &mut [f32], part: std::ops::Range<usize>) -> &mut [f32] {
    values.get_mut(part).unwrap_or_default()
}

fn check_finite(name: &'static str, values: &[f32]) -> Result<(), ServerError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(parameter) => Err(ServerError::NotFinite { name, parameter }),
        None => Ok(()),
    }
}

/// Checks a strategy's settings: use it before a request is accepted, not only here.
///
/// # Errors
/// [`ServerError::BadSetting`] with what is allowed.
pub fn check(strategy: &Strategy) -> Result<(), ServerError> {
    let positive = |name, value: f32| {
        let ok = value.is_finite() && value > 0.0;
        ok.then_some(()).ok_or(ServerError::BadSetting {
            name,
            value,
            range: "a finite number above 0",
        })
    };
    let decay = |name, value: f32| {
        let ok = (0.0..1.0).contains(&value);
        ok.then_some(()).ok_or(ServerError::BadSetting {
            name,
            value,
            range: "a number from 0 and below 1",
        })
    };
    match *strategy {
        Strategy::FedAvg | Strategy::Scaffold => Ok(()),
        Strategy::FedProx { mu } => {
            let ok = mu.is_finite() && mu >= 0.0;
            ok.then_some(()).ok_or(ServerError::BadSetting {
                name: "mu",
                value: mu,
                range: "a finite number from 0",
            })
        }
        Strategy::FedAvgM { beta, eta } => decay("beta", beta).and_then(|()| positive("eta", eta)),
        Strategy::FedAdagrad { eta, tau } => positive("eta", eta).and_then(|()| positive("tau", tau)),
        Strategy::FedAdam {
            eta,
            beta1,
            beta2,
            tau,
        }
        | Strategy::FedYogi {
            eta,
            beta1,
            beta2,
            tau,
        } => {
            decay("beta1", beta1)?;
            decay("beta2", beta2)?;
            positive("eta", eta)?;
            positive("tau", tau)
        }
    }
}
