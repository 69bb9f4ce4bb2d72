//! What sites add, by hand and by the fixed points that the papers' equations have on quadratic losses.

use crate::little_endian;
use daitn_learning::{
    local::{Correction, ScaffoldRound},
    server::{ControlUpdate, Controls, Form, Server, Update},
};
use daitn_messages::learning::Strategy;

#[test]
fn corrections_by_hand() {
    let mut gradient = [1.0, 2.0];
    Correction::None.add_to(0, &[5.0, 6.0], &mut gradient);
    assert_eq!(gradient, [1.0, 2.0]);
    // 1 + 0.5*(5 - 4), 2 + 0.5*(6 - 8), from the second element on.
    Correction::Proximal {
        mu: 0.5,
        global: &[100.0, 4.0, 8.0],
    }
    .add_to(1, &[5.0, 6.0], &mut gradient);
    assert_eq!(gradient, [1.5, 1.0]);
    // 1.5 + 3 - 1, 1 + 0.25 - 4
    let controlled = Correction::Controlled {
        control: &[9.0, 3.0, 0.25],
        site_control: &[9.0, 1.0, 4.0],
    };
    controlled.add_to(1, &[5.0, 6.0], &mut gradient);
    assert_eq!(gradient, [3.5, -2.75]);
}

#[test]
#[should_panic(expected = "out of range")]
fn a_correction_of_another_model_is_refused() {
    Correction::Proximal {
        mu: 0.5,
        global: &[1.0],
    }
    .add_to(1, &[5.0], &mut [1.0]);
}

#[test]
fn site_control_by_hand() {
    let round = ScaffoldRound {
        control: &[0.5, 0.0],
        site_control: &[0.25, -1.0],
        received: &[2.0, 1.0],
        trained: &[1.0, 3.0],
        n_steps: 4,
        learning_rate: 0.125,
    };
    // 0.25 - 0.5 + (2 - 1)/0.5 = 1.75; -1 - 0 + (1 - 3)/0.5 = -5
    let site = round.site_control();
    assert_eq!(site.next, [1.75, -5.0]);
    assert_eq!(site.delta, [1.5, -4.0]);
    let idle = ScaffoldRound { n_steps: 0, ..round }.site_control();
    assert_eq!((idle.next, idle.delta), (vec![0.25, -1.0], vec![0.0, 0.0]));
}

/// Sites whose losses are `curvature/2 * (w - centre)²`, so that local training has a closed form.
const CURVATURES: [f32; 3] = [0.2, 1.0, 3.0];
const CENTRES: [f32; 3] = [-4.0, 1.0, 2.0];
const RATE: f32 = 0.1;
const N_STEPS: i32 = 8;
const N_ROUNDS: usize = 400;

fn train(site: usize, received: f32, correction: Correction<'_>) -> f32 {
    let mut w = received;
    for _ in 0..N_STEPS {
        let mut gradient = [CURVATURES[site] * (w - CENTRES[site])];
        correction.add_to(0, &[w], &mut gradient);
        w -= RATE * gradient[0];
    }
    w
}

/// Runs to the fixed point of rounds in which each site counts the same.
fn fixed_point(strategy: Strategy) -> f64 {
    let mut server = Server::new(strategy, vec![10.0]).unwrap();
    let mut site_controls = [[0f32]; 3];
    for _ in 0..N_ROUNDS {
        let global = server.global().to_vec();
        let control = server.control().map(<[f32]>::to_vec);
        let mut weights = Vec::new();
        let mut changes = Vec::new();
        for (site, site_control) in site_controls.iter_mut().enumerate() {
            let correction = match (&strategy, &control) {
                (Strategy::FedProx { mu }, _) => Correction::Proximal {
                    mu: *mu,
                    global: &global,
                },
                (_, Some(control)) => Correction::Controlled {
                    control,
                    site_control,
                },
                _ => Correction::None,
            };
            let trained = [train(site, global[0], correction)];
            if let Some(control) = &control {
                let round = ScaffoldRound {
                    control,
                    site_control,
                    received: &global,
                    trained: &trained,
                    n_steps: N_STEPS.unsigned_abs().into(),
                    learning_rate: RATE,
                };
                let next = round.site_control();
                site_control[0] = next.next[0];
                changes.push(little_endian(&next.delta));
            }
            weights.push(little_endian(&trained));
        }
        let updates = weights.iter().map(|bytes| Update {
            n_examples: 50,
            clip: 1.0,
            reader: bytes.as_slice(),
        });
        let controls = control.map(|_| Controls {
            updates: changes
                .iter()
                .map(|bytes| ControlUpdate {
                    clip: 1.0,
                    reader: bytes.as_slice(),
                })
                .collect(),
            n_sites: 3,
        });
        server
            .aggregate(Form::Weights, updates.collect(), controls)
            .unwrap();
    }
    f64::from(server.global()[0])
}

/// The mean of the centres, each weighed by what its curvature gives. After M local steps a site has gone the share
/// `1 - (1 - rate * a)^M` of the way to the centre of what it descends, so equal sites settle where those shares balance.
fn balance(weight: impl Fn(f64) -> f64) -> f64 {
    let weights = CURVATURES.map(|curvature| weight(f64::from(curvature)));
    let sum: f64 = weights
        .iter()
        .zip(CENTRES)
        .map(|(weight, centre)| weight * f64::from(centre))
        .sum();
    sum / weights.iter().sum::<f64>()
}

/// How far M steps lead on a quadratic of this curvature.
fn share(curvature: f64) -> f64 {
    1.0 - (1.0 - f64::from(RATE) * curvature).powi(N_STEPS)
}

#[test]
fn fedavg_settles_off_the_optimum_where_theory_says() {
    let (expected, optimum) = (balance(share), balance(|a| a));
    let found = fixed_point(Strategy::FedAvg);
    assert!((found - expected).abs() < 1e-5, "{found}, expected {expected}");
    assert!(
        (expected - optimum).abs() > 0.1,
        "the test must tell the two apart"
    );
}

#[test]
fn fedprox_settles_where_theory_says() {
    // Locally a(w - b) + mu(w - x) has curvature a + mu and its centre at x + a(b - x)/(a + mu).
    let mu = 0.7;
    let expected = balance(|a| share(a + mu) * a / (a + mu));
    let found = fixed_point(Strategy::FedProx { mu: 0.7 });
    assert!((found - expected).abs() < 1e-5, "{found}, expected {expected}");
    assert!(
        (found - fixed_point(Strategy::FedAvg)).abs() > 0.01,
        "the term must have had an effect"
    );
}

#[test]
fn scaffold_reaches_the_optimum_of_all_sites() {
    let optimum = balance(|a| a);
    let found = fixed_point(Strategy::Scaffold);
    assert!((found - optimum).abs() < 1e-4, "{found}, expected {optimum}");
}
