//! The server's strategies against numpy's vectors; state, refusals and atomicity by law.

use crate::{assert_near, floats, little_endian, vectors};
use daitn_learning::server::{
    AggregateError, ControlUpdate, Controls, Form, RoundError, Server, ServerError, Update, check,
};
use daitn_learning::{admission::clip_factors, aggregation::CHUNK_PARAMETERS};
use daitn_messages::learning::Strategy;
use proptest::prelude::{any, prop, prop_assert_eq, proptest};
use serde_json::Value;

const VECTORS: &str = include_str!("vectors/strategies.json");
/// The vectors keep `m` and `v` in 64 bits and we in 32; five rounds apart that is what is left.
const TOLERANCE: f64 = 2e-6;

/// One of each kind.
fn all_strategies() -> [Strategy; 7] {
    [
        Strategy::FedAvg,
        Strategy::FedProx { mu: 0.1 },
        Strategy::FedAvgM { beta: 0.9, eta: 1.0 },
        Strategy::FedAdagrad { eta: 0.1, tau: 1e-3 },
        Strategy::FedAdam {
            eta: 0.03,
            beta1: 0.9,
            beta2: 0.99,
            tau: 1e-3,
        },
        Strategy::FedYogi {
            eta: 0.03,
            beta1: 0.9,
            beta2: 0.99,
            tau: 1e-3,
        },
        Strategy::Scaffold,
    ]
}

fn update(n_examples: u64, bytes: &[u8]) -> Update<&[u8]> {
    Update {
        n_examples,
        clip: 1.0,
        reader: bytes,
    }
}

fn site_bytes(round: &Value) -> Vec<Vec<u8>> {
    round
        .as_array()
        .unwrap()
        .iter()
        .map(|values| little_endian(&floats(values)))
        .collect()
}

/// Takes a step by itself, with control variates where the strategy has them.
fn step(server: &mut Server, form: Form, sites: &[(u64, Vec<f32>)]) -> Result<(), AggregateError> {
    let bytes: Vec<_> = sites
        .iter()
        .map(|(n, values)| (*n, little_endian(values)))
        .collect();
    let updates = bytes.iter().map(|(n, bytes)| update(*n, bytes)).collect();
    let controls = server.control().is_some().then(|| Controls {
        updates: bytes
            .iter()
            .map(|(_, bytes)| ControlUpdate {
                clip: 1.0,
                reader: bytes.as_slice(),
            })
            .collect(),
        n_sites: sites.len(),
    });
    server.aggregate(form, updates, controls)
}

#[test]
fn strategies_agree_with_numpy() {
    let vectors = vectors(VECTORS);
    let counts: Vec<u64> = serde_json::from_value(vectors["n_examples"].clone()).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 6);
    for case in cases {
        let strategy: Strategy = serde_json::from_value(case["strategy"].clone()).unwrap();
        let mut server = Server::new(strategy, floats(&vectors["start"])).unwrap();
        for (round, expected) in vectors["weights"]
            .as_array()
            .unwrap()
            .iter()
            .zip(case["globals"].as_array().unwrap())
        {
            let bytes = site_bytes(round);
            let updates = counts
                .iter()
                .zip(&bytes)
                .map(|(n, bytes)| update(*n, bytes))
                .collect();
            server.aggregate(Form::Weights, updates, None).unwrap();
            assert_near(server.global(), expected, TOLERANCE);
        }
    }
}

#[test]
fn scaffold_agrees_with_numpy() {
    let vectors = vectors(VECTORS);
    let mut server = Server::new(Strategy::Scaffold, floats(&vectors["start"])).unwrap();
    for (round, expected) in vectors["scaffold"].as_array().unwrap().iter().enumerate() {
        let (differences, changes) = (
            site_bytes(&vectors["differences"][round]),
            site_bytes(&vectors["control_changes"][round]),
        );
        // Example counts are there and must not matter; the fourth site does not answer.
        let updates = (1..)
            .zip(&differences[..3])
            .map(|(n, bytes)| update(n * n, bytes))
            .collect();
        let changes = changes[..3].iter().map(|bytes| ControlUpdate {
            clip: 1.0,
            reader: bytes.as_slice(),
        });
        let controls = Controls {
            updates: changes.collect(),
            n_sites: 4,
        };
        server
            .aggregate(Form::Difference, updates, Some(controls))
            .unwrap();
        assert_near(server.global(), &expected["global"], TOLERANCE);
        assert_near(server.control().unwrap(), &expected["control"], TOLERANCE);
    }
}

#[test]
fn a_difference_is_as_good_as_weights() {
    // Values with few bits, so that weights and differences are exact in f32.
    let start = vec![1.0, -2.5, 0.25];
    let differences = [(3, vec![0.5, 0.25, -1.0]), (1, vec![-0.75, 2.0, 0.0])];
    let weights: Vec<(u64, Vec<f32>)> = differences
        .iter()
        .map(|(n, d)| (*n, d.iter().zip(&start).map(|(d, x)| d + x).collect()))
        .collect();
    for strategy in all_strategies()
        .into_iter()
        .filter(|strategy| *strategy != Strategy::Scaffold)
    {
        let mut by_weights = Server::new(strategy, start.clone()).unwrap();
        let mut by_differences = by_weights.clone();
        step(&mut by_weights, Form::Weights, &weights).unwrap();
        step(&mut by_differences, Form::Difference, &differences).unwrap();
        assert_eq!(by_weights, by_differences, "{strategy:?}");
    }
}

#[test]
fn a_step_by_hand() {
    // Weighted difference (3*0.5 + 1*(-0.5))/4 = 0.25, from x = 1.
    let sites = [(3, vec![1.5]), (1, vec![0.5])];
    let after = |strategy| {
        let mut server = Server::new(strategy, vec![1.0]).unwrap();
        step(&mut server, Form::Weights, &sites).unwrap();
        server.global()[0]
    };
    assert_eq!(after(Strategy::FedAvg), 1.25);
    assert_eq!(after(Strategy::FedAvgM { beta: 0.5, eta: 2.0 }), 1.5);
    // v = 0.75² + 0.25² = 0.625; x = 1 + 0.25/(sqrt(0.625) + 0.75)
    let expected = 1.0 + 0.25 / (0.625f32.sqrt() + 0.75);
    assert!((after(Strategy::FedAdagrad { eta: 1.0, tau: 0.75 }) - expected).abs() < 1e-6);
    // m = 0.125; Adam: v = 0.5*0.5625 + 0.5*0.0625 = 0.3125. Yogi: v - Δ² > 0, so v = 0.5625 - 0.5*0.0625 = 0.53125.
    let rule = |v: f32| 1.0 + 0.125 / (v.sqrt() + 0.75);
    let adam = Strategy::FedAdam {
        eta: 1.0,
        beta1: 0.5,
        beta2: 0.5,
        tau: 0.75,
    };
    let yogi = Strategy::FedYogi {
        eta: 1.0,
        beta1: 0.5,
        beta2: 0.5,
        tau: 0.75,
    };
    assert!((after(adam) - rule(0.3125)).abs() < 1e-6);
    assert!((after(yogi) - rule(0.53125)).abs() < 1e-6);
    // Two sites count the same: (0.5 - 0.5)/2.
    assert_eq!(after(Strategy::Scaffold), 1.0);
}

#[test]
fn yogi_stands_still_where_its_moment_is_the_square() {
    let strategy = Strategy::FedYogi {
        eta: 1.0,
        beta1: 0.0,
        beta2: 0.5,
        tau: 0.5,
    };
    let mut server = Server::new(strategy, vec![0.0]).unwrap();
    // v starts at 0.25, the square of this difference: the sign is 0 and v stays.
    step(&mut server, Form::Difference, &[(1, vec![0.5])]).unwrap();
    assert_eq!(server.state()[1], ("second-moment", [0.25f32].as_slice()));
}

#[test]
fn clipping_shortens_the_way_and_leaves_the_weights_of_the_others() {
    // Differences to x = 1 of length 1, 1 and 8; clipped at twice the median the last goes 2.
    let sites = [(1, 2.0f32), (1, 0.0), (2, 9.0)];
    let factors = clip_factors(&[1.0, 1.0, 8.0], 2.0).unwrap();
    for form in [Form::Weights, Form::Difference] {
        let mut server = Server::new(Strategy::FedAvg, vec![1.0]).unwrap();
        let received = if form == Form::Weights { 0.0 } else { 1.0 };
        let bytes: Vec<_> = sites
            .iter()
            .map(|(n, y)| (*n, little_endian(&[y - received])))
            .collect();
        let updates = bytes.iter().zip(&factors).map(|((n, bytes), clip)| Update {
            clip: *clip,
            ..update(*n, bytes)
        });
        server.aggregate(form, updates.collect(), None).unwrap();
        // 1 + (1*1 + 1*(-1) + 2*2)/4
        assert_eq!(server.global(), [2.0]);
    }
}

#[test]
fn state_is_what_each_strategy_keeps() {
    let names = |strategy| {
        let server = Server::new(strategy, vec![0.5; 2]).unwrap();
        server.state().iter().map(|(name, _)| *name).collect::<Vec<_>>()
    };
    let expected: [&[&str]; 7] = [
        &[],
        &[],
        &["momentum"],
        &["second-moment"],
        &["momentum", "second-moment"],
        &["momentum", "second-moment"],
        &["control"],
    ];
    assert_eq!(all_strategies().map(names), expected);
    let server = Server::new(Strategy::FedAdagrad { eta: 1.0, tau: 0.5 }, vec![0.0]).unwrap();
    assert_eq!(server.state(), [("second-moment", [0.25f32].as_slice())]);
}

fn owned_state(server: &Server) -> Vec<(String, Vec<f32>)> {
    server
        .state()
        .into_iter()
        .map(|(name, values)| (name.to_owned(), values.to_vec()))
        .collect()
}

proptest! {
    /// Stopped after any round and restored from what was persisted, a run ends in the same bits.
    #[test]
    fn restored_runs_end_the_same(
        rounds in prop::collection::vec(prop::collection::vec((1..50u64, prop::array::uniform5(-2f32..2.0)), 1..4), 1..6),
        stop in any::<prop::sample::Index>(),
    ) {
        for strategy in all_strategies() {
            let mut straight = Server::new(strategy, vec![0.1; 5]).unwrap();
            let mut stopped = straight.clone();
            for (i, round) in rounds.iter().enumerate() {
                let sites: Vec<_> = round.iter().map(|(n, values)| (*n, values.to_vec())).collect();
                step(&mut straight, Form::Weights, &sites).unwrap();
                step(&mut stopped, Form::Weights, &sites).unwrap();
                if i == stop.index(rounds.len()) {
                    stopped = Server::restore(strategy, stopped.global().to_vec(), owned_state(&stopped)).unwrap();
                }
            }
            prop_assert_eq!(straight, stopped);
        }
    }

    /// The end of a single chain becomes the global parameters bit for bit, whatever its examples.
    #[test]
    fn one_chain_comes_back_as_it_is(values in prop::collection::vec(-1e30f32..1e30, 1..50), n in 1..u64::MAX) {
        let mut server = Server::new(Strategy::FedAvg, vec![0.3; values.len()]).unwrap();
        step(&mut server, Form::Weights, &[(n, values.clone())]).unwrap();
        prop_assert_eq!(server.global(), values);
    }
}

#[test]
fn chunks_do_not_show() {
    let n = 2 * CHUNK_PARAMETERS + 5;
    let values: Vec<f32> = (0..n).map(|i| (i % 97) as f32 / 50.0 - 1.0).collect();
    for strategy in all_strategies() {
        let mut streamed = Server::new(strategy, vec![0.25; n]).unwrap();
        let mut whole = streamed.clone();
        for _ in 0..3 {
            step(&mut streamed, Form::Weights, &[(7, values.clone())]).unwrap();
            let control = (strategy == Strategy::Scaffold).then_some(values.as_slice());
            whole.apply(Form::Weights, &values, control).unwrap();
        }
        assert_eq!(streamed, whole, "{strategy:?}");
    }
}

#[test]
fn a_failed_round_has_not_happened() {
    let n = CHUNK_PARAMETERS + 2;
    for strategy in all_strategies() {
        let mut server = Server::new(strategy, vec![0.5; n]).unwrap();
        step(&mut server, Form::Weights, &[(1, vec![1.0; n])]).unwrap();
        let before = server.clone();
        // The second chunk is bad, the first has had its step.
        let mut values = vec![1.0; n];
        values[n - 1] = f32::NAN;
        assert!(matches!(
            step(&mut server, Form::Weights, &[(1, values)]),
            Err(AggregateError::Mean(_))
        ));
        assert_eq!(server, before);
        assert!(matches!(
            step(&mut server, Form::Weights, &[(0, vec![1.0; n])]),
            Err(AggregateError::Mean(_))
        ));
        let mut round = server.begin(Form::Weights, 1.0);
        round.advance(&vec![0.0; n - 1]).unwrap();
        let error = round.commit().unwrap_err();
        assert_eq!(
            error,
            RoundError::Incomplete {
                what: "updates",
                n_expected: n,
                n_found: n - 1
            }
        );
        assert_eq!(
            server.apply(Form::Weights, &vec![0.0; n + 1], None),
            Err(RoundError::TooLong { n_expected: n })
        );
        assert_eq!(server, before);
    }
}

#[test]
fn control_variates_are_for_scaffold() {
    let mut scaffold = Server::new(Strategy::Scaffold, vec![0.5]).unwrap();
    let missing = RoundError::Incomplete {
        what: "control variates",
        n_expected: 1,
        n_found: 0,
    };
    assert_eq!(scaffold.apply(Form::Weights, &[1.0], None), Err(missing));
    let bytes = little_endian(&[1.0]);
    let control = || ControlUpdate {
        clip: 1.0,
        reader: bytes.as_slice(),
    };
    let controls = Controls {
        updates: vec![control(), control()],
        n_sites: 1,
    };
    let error = scaffold
        .aggregate(Form::Weights, vec![update(1, &bytes)], Some(controls))
        .unwrap_err();
    assert!(matches!(
        error,
        AggregateError::TooManyControls {
            n_updates: 2,
            n_sites: 1
        }
    ));
    let mut fedavg = Server::new(Strategy::FedAvg, vec![0.5]).unwrap();
    assert_eq!(
        fedavg.apply(Form::Weights, &[1.0], Some(&[1.0])),
        Err(RoundError::NoControl)
    );
    assert_eq!(fedavg.control(), None);
}

#[test]
fn factors_lie_between_nothing_and_all() {
    let bytes = little_endian(&[1.0]);
    for clip in [-0.1, 1.1, f64::NAN] {
        let mut server = Server::new(Strategy::FedAvg, vec![0.5]).unwrap();
        let updates = vec![
            update(1, &bytes),
            Update {
                clip,
                ..update(1, &bytes)
            },
        ];
        let error = server.aggregate(Form::Weights, updates, None).unwrap_err();
        assert!(matches!(error, AggregateError::BadClip { term: 1, .. }));
    }
}

#[test]
fn a_step_out_of_f32_is_refused() {
    let mut server = Server::new(Strategy::FedAvgM { beta: 0.9, eta: 1e30 }, vec![0.0, 0.0]).unwrap();
    let before = server.clone();
    let error = server.apply(Form::Weights, &[0.0, 1e20], None).unwrap_err();
    assert_eq!(error, RoundError::Diverged { parameter: 1 });
    assert_eq!(server, before);
    // The second moment alone overflows.
    let mut server = Server::new(Strategy::FedAdagrad { eta: 0.1, tau: 1.0 }, vec![0.0, 0.0]).unwrap();
    assert_eq!(
        server.apply(Form::Weights, &[1e30, 0.0], None),
        Err(RoundError::Diverged { parameter: 0 })
    );
}

#[test]
fn broken_beginnings() {
    let momentum = |values: Vec<f32>| vec![("momentum".to_owned(), values)];
    let fedavgm = Strategy::FedAvgM { beta: 0.9, eta: 1.0 };
    let restore = |strategy, state| Server::restore(strategy, vec![0.0; 2], state).unwrap_err();
    assert_eq!(Server::new(fedavgm, Vec::new()), Err(ServerError::Empty));
    let error = ServerError::NotFinite {
        name: "global parameters",
        parameter: 1,
    };
    assert_eq!(Server::new(fedavgm, vec![0.0, f32::NAN]), Err(error));
    assert_eq!(
        restore(fedavgm, Vec::new()),
        ServerError::Missing { name: "momentum" }
    );
    let error = ServerError::WrongLength {
        name: "momentum",
        n_expected: 2,
        n_found: 3,
    };
    assert_eq!(restore(fedavgm, momentum(vec![0.0; 3])), error);
    let error = ServerError::NotFinite {
        name: "momentum",
        parameter: 0,
    };
    assert_eq!(restore(fedavgm, momentum(vec![f32::INFINITY, 0.0])), error);
    let unexpected = ServerError::Unexpected {
        name: "momentum".to_owned(),
    };
    assert_eq!(restore(Strategy::FedAvg, momentum(vec![0.0; 2])), unexpected);
    let twice = [momentum(vec![0.0; 2]), momentum(vec![0.0; 2])].concat();
    assert_eq!(restore(fedavgm, twice), unexpected);
}

#[test]
fn settings_that_make_no_sense() {
    for strategy in all_strategies() {
        check(&strategy).unwrap();
    }
    let (eta, beta1, beta2, tau) = (0.1, 0.9, 0.99, 1e-3);
    let bad = [
        ("mu", Strategy::FedProx { mu: -0.1 }),
        ("mu", Strategy::FedProx { mu: f32::NAN }),
        ("beta", Strategy::FedAvgM { beta: 1.0, eta }),
        ("eta", Strategy::FedAvgM { beta: 0.0, eta: 0.0 }),
        ("tau", Strategy::FedAdagrad { eta, tau: 0.0 }),
        (
            "eta",
            Strategy::FedAdagrad {
                eta: f32::INFINITY,
                tau,
            },
        ),
        (
            "beta1",
            Strategy::FedAdam {
                eta,
                beta1: -0.1,
                beta2,
                tau,
            },
        ),
        (
            "beta2",
            Strategy::FedAdam {
                eta,
                beta1,
                beta2: f32::NAN,
                tau,
            },
        ),
        (
            "tau",
            Strategy::FedYogi {
                eta,
                beta1,
                beta2,
                tau: -1.0,
            },
        ),
    ];
    for (expected, strategy) in bad {
        match check(&strategy) {
            Err(ServerError::BadSetting { name, .. }) => assert_eq!(name, expected),
            other => panic!("{strategy:?}: {other:?}"),
        }
        assert!(Server::new(strategy, vec![0.0]).is_err());
    }
}

/// Where every round goes the whole way to the goal, as a linear regression does, plain averaging is there after one round.
/// Momentum 0.9 swings about it: the offset follows `e(t+1) = 0.9·e(t) − 0.9·e(t−1)`, whose closed form is below, and
/// whose amplitude only shrinks by sqrt(0.9) a round. So nobody is given it for a regression unasked.
#[test]
#[expect(clippy::cast_possible_truncation, reason = "goals of few digits")]
fn momentum_swings_about_a_goal_that_averaging_reaches_at_once() {
    const GOAL: f32 = 4.0;
    let (radius, turn) = (0.9_f64.sqrt(), (0.9_f64.sqrt() / 2.0).acos());
    let mut momentum = Server::new(Strategy::FedAvgM { beta: 0.9, eta: 1.0 }, vec![GOAL + 1.0]).unwrap();
    let mut plain = Server::new(Strategy::FedAvg, vec![GOAL + 1.0]).unwrap();
    let mut last = Vec::new();
    for t in 1..=20 {
        for server in [&mut momentum, &mut plain] {
            step(server, Form::Weights, &[(10, vec![GOAL]), (30, vec![GOAL])]).unwrap();
        }
        let angle = turn * f64::from(t);
        let offset = radius.powi(t) * (angle.cos() - angle.sin() / turn.tan());
        let found = momentum.global()[0] - GOAL;
        assert!(
            (found - offset as f32).abs() < 1e-4,
            "round {t}: {found}, {offset}"
        );
        assert!((plain.global()[0] - GOAL).abs() < 1e-6, "round {t}");
        last.push(found.abs());
    }
    let swing = last[15..].iter().copied().fold(0.0, f32::max);
    assert!(swing > 0.3, "{swing}");
}
