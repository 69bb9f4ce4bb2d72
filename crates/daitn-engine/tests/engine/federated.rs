//! Whole federated runs on the digits, against published or independently computed figures: the engine at the sites
//! and `daitn-learning` at the aggregator, without a network between.

use crate::digits;
use daitn_engine::{Engine, LocalRule, Table, Targets, Work, builtin::Builtin};
use daitn_learning::{
    aggregation,
    random::SplitMix64,
    server::{Form, Server, Weighting},
    split::{self, Skew},
};
use daitn_messages::learning::{Architecture, LocalTraining, Metric, ModelSpec, Strategy};
use std::ops::ControlFlow;

/// One site's round: parameters, examples, change of the control variate.
fn site_round(spec: &ModelSpec, start: &[f32], table: &Table, work: Work<'_>) -> daitn_engine::TrainOutcome {
    Builtin
        .train(spec, start, table, &work, &mut |_| ControlFlow::Continue(()))
        .unwrap()
}

/// A seed of its own for each site and round.
fn seed_of(seed: u64, round: usize, site: usize) -> u64 {
    seed * 1_000_000 + round as u64 * 1000 + site as u64
}

struct Run<'a> {
    spec: &'a ModelSpec,
    sites: &'a [Table],
    training: LocalTraining,
    seed: u64,
}

impl Run<'_> {
    fn rounds(&self, strategy: Strategy, n_rounds: usize) -> Vec<f32> {
        let initial = Builtin.initial(self.spec, self.seed).unwrap();
        let n = initial.len();
        let mut server = Server::new(strategy, initial).unwrap();
        let mut controls = vec![vec![0.0_f32; n]; self.sites.len()];
        for round in 0..n_rounds {
            let (mut updates, mut changes) = (Vec::new(), Vec::new());
            for (k, table) in self.sites.iter().enumerate() {
                let rule = match (&strategy, server.control()) {
                    (Strategy::FedProx { mu }, _) => LocalRule::Prox { mu: *mu },
                    (_, Some(c)) => LocalRule::Scaffold { c, c_k: &controls[k] },
                    _ => LocalRule::Plain,
                };
                let work = Work {
                    training: self.training,
                    seed: seed_of(self.seed, round, k),
                    rule,
                };
                let outcome = site_round(self.spec, server.global(), table, work);
                let weight = Weighting::of(&strategy).weight(outcome.n_examples);
                updates.push((weight, outcome.parameters));
                if let Some(control) = outcome.control {
                    controls[k] = control.next;
                    changes.push((1.0, control.delta));
                }
            }
            let mean = mean(&updates);
            let change = (!changes.is_empty()).then(|| self::mean(&changes));
            server.apply(Form::Weights, &mean, change.as_deref()).unwrap();
        }
        server.global().to_vec()
    }

    /// The weights travel from site to site, in another order each cycle.
    fn itinerary(&self, n_cycles: usize) -> Vec<f32> {
        let mut weights = Builtin.initial(self.spec, self.seed).unwrap();
        let mut order: Vec<usize> = (0..self.sites.len()).collect();
        for cycle in 0..n_cycles {
            SplitMix64::new(seed_of(self.seed, cycle, 999)).shuffle(&mut order);
            for k in &order {
                let seed = seed_of(self.seed, cycle, *k);
                let work = Work {
                    training: self.training,
                    seed,
                    rule: LocalRule::Plain,
                };
                weights = site_round(self.spec, &weights, &self.sites[*k], work).parameters;
            }
        }
        weights
    }
}

fn mean(updates: &[(f64, Vec<f32>)]) -> Vec<f32> {
    let slices: Vec<(f64, &[f32])> = updates
        .iter()
        .map(|(weight, update)| (*weight, update.as_slice()))
        .collect();
    aggregation::mean_of(&slices).unwrap()
}

fn training(epochs: u32) -> LocalTraining {
    LocalTraining {
        epochs,
        batch_size: 32,
        learning_rate: 0.1,
        seed: 0,
    }
}

#[test]
fn softmax_regression_reaches_the_loss_that_other_systems_reach() {
    // Flower, NVFlare and a plain loop all give loss 0.3443 and accuracy 0.9472; the test images and the order of
    // examples are not known, so the mean of several splits is compared.
    let spec = digits::spec(Architecture::Linear);
    let (mut losses, mut accuracies) = (Vec::new(), Vec::new());
    for seed in 1..=8 {
        let (train, test) = digits::train_and_test(seed);
        let shares = split::even(train.n_rows(), 3, seed).unwrap();
        let sites: Vec<Table> = shares.iter().map(|rows| train.select(rows)).collect();
        let run = Run {
            spec: &spec,
            sites: &sites,
            training: training(5),
            seed,
        };
        let evaluation = Builtin
            .evaluate(&spec, &run.rounds(Strategy::FedAvg, 10), &test)
            .unwrap();
        losses.push(evaluation.loss);
        accuracies.push(evaluation.metric(Metric::Accuracy).unwrap());
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    println!(
        "losses {losses:.4?} mean {:.4}, accuracies {accuracies:.4?} mean {:.4}",
        mean(&losses),
        mean(&accuracies)
    );
    assert!((mean(&losses) - 0.3443).abs() < 0.03);
    assert!((mean(&accuracies) - 0.9472).abs() < 0.02);
}

/// A row of the reference table: accuracy for IID, Dirichlet 0.5 and Dirichlet 0.1. Ten sites, 50 rounds, two local
/// epochs, batches of 32, rate 0.1. The figures are of one seed and one split that are not known; the mean over six
/// has to lie within 0.02 of each.
#[expect(clippy::print_stdout, reason = "the table that the bench's report is made of")]
fn check(name: &str, strategy: Option<Strategy>, reference: [f64; 3]) {
    let spec = digits::perceptron();
    let n_seeds = 6;
    let mut lines = String::new();
    let mut worst = 0.0_f64;
    for (alpha, reference) in [None, Some(0.5), Some(0.1)].into_iter().zip(reference) {
        let accuracies: Vec<f64> = (1..=n_seeds)
            .map(|seed| {
                let (train, test) = digits::train_and_test(seed);
                let sites = sites(&train, alpha, seed);
                let run = Run {
                    spec: &spec,
                    sites: &sites,
                    training: training(2),
                    seed,
                };
                let weights = match strategy {
                    Some(strategy) => run.rounds(strategy, 50),
                    None => run.itinerary(50),
                };
                let evaluation = Builtin.evaluate(&spec, &weights, &test).unwrap();
                evaluation.metric(Metric::Accuracy).unwrap()
            })
            .collect();
        let mean = accuracies.iter().sum::<f64>() / n_seeds as f64;
        worst = worst.max((mean - reference).abs());
        let line = format!("{name} {alpha:?}: {mean:.3} where {reference:.3} is expected {accuracies:.3?}\n");
        lines.push_str(&line);
    }
    println!("{lines}");
    assert!(worst <= 0.02, "{lines}");
}

fn sites(train: &Table, alpha: Option<f64>, seed: u64) -> Vec<Table> {
    let Targets::Classes { labels, .. } = train.targets() else {
        panic!("digits are classes")
    };
    let shares = match alpha {
        None => split::even(train.n_rows(), 10, seed).unwrap(),
        Some(alpha) => split::dirichlet(
            labels,
            Skew {
                n_sites: 10,
                alpha,
                n_min: 10,
                seed,
            },
        )
        .unwrap(),
    };
    shares.iter().map(|rows| train.select(rows)).collect()
}

#[test]
fn fed_avg_is_within_its_band() {
    check("FedAvg", Some(Strategy::FedAvg), [0.972, 0.964, 0.897]);
}

#[test]
fn fed_prox_is_within_its_band() {
    check(
        "FedProx",
        Some(Strategy::FedProx { mu: 0.1 }),
        [0.972, 0.961, 0.894],
    );
}

#[test]
fn fed_avg_m_is_within_its_band() {
    check(
        "FedAvgM",
        Some(Strategy::FedAvgM { beta: 0.9, eta: 1.0 }),
        [0.958, 0.967, 0.953],
    );
}

#[test]
fn fed_adam_is_within_its_band() {
    let strategy = Strategy::FedAdam {
        eta: 0.031_622_776,
        beta1: 0.9,
        beta2: 0.99,
        tau: 1e-3,
    };
    check("FedAdam", Some(strategy), [0.975, 0.969, 0.947]);
}

#[test]
fn fed_yogi_is_within_its_band() {
    let strategy = Strategy::FedYogi {
        eta: 0.031_622_776,
        beta1: 0.9,
        beta2: 0.99,
        tau: 1e-3,
    };
    check("FedYogi", Some(strategy), [0.975, 0.969, 0.947]);
}

#[test]
fn fed_adagrad_is_within_its_band() {
    check(
        "FedAdagrad",
        Some(Strategy::FedAdagrad { eta: 0.1, tau: 1e-3 }),
        [0.981, 0.972, 0.958],
    );
}

#[test]
fn scaffold_is_within_its_band() {
    check("SCAFFOLD", Some(Strategy::Scaffold), [0.969, 0.964, 0.956]);
}

#[test]
fn an_itinerary_in_random_order_is_within_its_band() {
    check("itinerary", None, [0.969, 0.975, 0.964]);
}

#[test]
fn centralised_training_is_within_its_band() {
    // One site that holds everything: an itinerary of one stop.
    let spec = digits::perceptron();
    let accuracies = (1..=6).map(|seed| {
        let (train, test) = digits::train_and_test(seed);
        let run = Run {
            spec: &spec,
            sites: &[train],
            training: training(2),
            seed,
        };
        Builtin
            .evaluate(&spec, &run.itinerary(50), &test)
            .unwrap()
            .metric(Metric::Accuracy)
            .unwrap()
    });
    let mean = accuracies.sum::<f64>() / 6.0;
    assert!((mean - 0.969).abs() <= 0.02, "{mean}");
}
