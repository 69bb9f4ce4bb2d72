//! Each strategy's step for a part of the parameters: element by element, in `f64`, rounded once.

use crate::nearest_f32;
use daitn_messages::learning::Strategy;

/// The parts of what the strategy keeps that belong to the parameters; empty where it keeps none.
pub(super) struct Memory<'a> {
    pub(super) momentum: &'a mut [f32],
    pub(super) second_moment: &'a mut [f32],
}

/// Whether the mean of the weights is already the next global.
pub(super) fn is_plain(strategy: &Strategy) -> bool {
    matches!(
        strategy,
        Strategy::FedAvg | Strategy::FedProx { .. } | Strategy::Scaffold
    )
}

/// Whether the strategy keeps `m`. FedAdagrad's is the difference itself (its first decay is 0): nothing to keep.
pub(super) fn keeps_momentum(strategy: &Strategy) -> bool {
    matches!(
        strategy,
        Strategy::FedAvgM { .. } | Strategy::FedAdam { .. } | Strategy::FedYogi { .. }
    )
}

/// What is added to the root of the second moment, where the strategy keeps one.
pub(super) fn tau(strategy: &Strategy) -> Option<f32> {
    match *strategy {
        Strategy::FedAdagrad { tau, .. } | Strategy::FedAdam { tau, .. } | Strategy::FedYogi { tau, .. } => {
            Some(tau)
        }
        _ => None,
    }
}

/// Moves `global` by the mean difference, as the strategy has it.
pub(super) fn take(strategy: &Strategy, differences: &[f64], global: &mut [f32], memory: Memory<'_>) {
    match *strategy {
        Strategy::FedAvg | Strategy::FedProx { .. } | Strategy::Scaffold => add(global, differences),
        Strategy::FedAvgM { beta, eta } => {
            let (beta, eta) = (f64::from(beta), f64::from(eta));
            for ((x, m), difference) in global.iter_mut().zip(memory.momentum).zip(differences) {
                *m = nearest_f32(beta * f64::from(*m) + difference);
                *x = nearest_f32(f64::from(*x) + eta * f64::from(*m));
            }
        }
        Strategy::FedAdagrad { eta, tau } => {
            let (eta, tau) = (f64::from(eta), f64::from(tau));
            for ((x, v), difference) in global.iter_mut().zip(memory.second_moment).zip(differences) {
                *v = nearest_f32(f64::from(*v) + difference * difference);
                *x = nearest_f32(f64::from(*x) + eta * difference / (f64::from(*v).sqrt() + tau));
            }
        }
        Strategy::FedAdam {
            eta,
            beta1,
            beta2,
            tau,
        } => {
            let rule = Adaptive { eta, beta1, tau };
            let keep = f64::from(beta2);
            rule.take(differences, global, memory, |v, square| {
                keep * v + (1.0 - keep) * square
            });
        }
        Strategy::FedYogi {
            eta,
            beta1,
            beta2,
            tau,
        } => {
            let rule = Adaptive { eta, beta1, tau };
            let gain = 1.0 - f64::from(beta2);
            rule.take(differences, global, memory, |v, square| {
                v - gain * square * sign(v - square)
            });
        }
    }
}

/// Sets each value to the mean.
pub(super) fn replace(values: &mut [f32], mean: &[f64]) {
    for (value, mean) in values.iter_mut().zip(mean) {
        *value = nearest_f32(*mean);
    }
}

/// Adds the mean difference to each value.
pub(super) fn add(values: &mut [f32], differences: &[f64]) {
    for (value, difference) in values.iter_mut().zip(differences) {
        *value = nearest_f32(f64::from(*value) + difference);
    }
}

/// What FedAdam and FedYogi share (Reddi 2021, alg. 2): no bias correction.
struct Adaptive {
    eta: f32,
    beta1: f32,
    tau: f32,
}

impl Adaptive {
    fn take(
        &self,
        differences: &[f64],
        global: &mut [f32],
        memory: Memory<'_>,
        second_moment: impl Fn(f64, f64) -> f64,
    ) {
        let (eta, beta1, tau) = (f64::from(self.eta), f64::from(self.beta1), f64::from(self.tau));
        let kept = memory.momentum.iter_mut().zip(memory.second_moment);
        for ((x, (m, v)), difference) in global.iter_mut().zip(kept).zip(differences) {
            *m = nearest_f32(beta1 * f64::from(*m) + (1.0 - beta1) * difference);
            *v = nearest_f32(second_moment(f64::from(*v), difference * difference));
            *x = nearest_f32(f64::from(*x) + eta * f64::from(*m) / (f64::from(*v).sqrt() + tau));
        }
    }
}

/// The sign with 0 for 0, unlike [`f64::signum`].
fn sign(value: f64) -> f64 {
    if value > 0.0 {
        1.0
    } else if value < 0.0 {
        -1.0
    } else {
        0.0
    }
}
