//! The choice of replicas: spread, failures, return.

use super::*;
use daitn_messages::ids::NodeId;

const SECOND: u64 = 1_000_000;

fn replicas(n: usize) -> Vec<Arc<Replica>> {
    (0..n)
        .map(|i| {
            Arc::new(Replica {
                host: format!("model-host:acme/host-{i}").parse().unwrap(),
                peer: Peer {
                    node: NodeId([u8::try_from(i % 256).unwrap(); 32]),
                    addresses: Vec::new(),
                    relay: None,
                },
                telemetry: None,
                health: Arc::default(),
            })
        })
        .collect()
}

fn shares(replicas: &[Arc<Replica>], now: u64, n_draws: usize) -> Vec<usize> {
    let random = Random::new(7);
    let mut counts = vec![0; replicas.len()];
    for _ in 0..n_draws {
        counts[pick(replicas, &[], now, &random).unwrap().chosen.index] += 1;
    }
    counts
}

#[test]
fn equal_replicas_share_evenly() {
    let counts = shares(&replicas(10), SECOND, 10_000);
    assert!(
        counts.iter().all(|count| (800..1200).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn the_best_replica_gets_at_most_twice_its_fair_share() {
    // Two draws of ten hold the best one with probability 1 - (9/10)(8/9) = 0.2.
    let replicas = replicas(10);
    for replica in &replicas[1..] {
        replica.health.succeeded(SECOND, 0.5, 1);
    }
    let counts = shares(&replicas, SECOND, 10_000);
    assert!((1_800..2_200).contains(&counts[0]), "{counts:?}");
}

#[test]
fn a_busy_replica_is_avoided_and_its_count_returns_to_zero() {
    let replicas = replicas(2);
    let held: Vec<InFlight> = (0..3).map(|_| replicas[0].health.enter()).collect();
    assert_eq!(shares(&replicas, SECOND, 100), [0, 100]);
    drop(held);
    assert_eq!(replicas[0].health.in_flight(), 0);
    let counts = shares(&replicas, SECOND, 1_000);
    assert!(counts[0] > 300, "{counts:?}");
}

#[test]
fn what_was_seen_rises_at_once_and_fades() {
    let replica = &replicas(1)[0];
    replica.health.succeeded(0, 0.010, 1);
    replica.health.succeeded(0, 1.0, 1);
    assert!((replica.predicted_seconds(0) - 1.0).abs() < 1e-9);
    // After ten seconds 1/e of it is left: the closed form of the average.
    assert!((replica.predicted_seconds(10 * SECOND) - (-1f64).exp()).abs() < 1e-9);
    replica.health.succeeded(10 * SECOND, 0.010, 1);
    let expected = (-1f64).exp() + 0.010 * (1.0 - (-1f64).exp());
    assert!((replica.predicted_seconds(10 * SECOND) - expected).abs() < 1e-9);
}

#[test]
fn a_failing_replica_is_taken_out_and_returns_slowly() {
    let replicas = replicas(3);
    let failing = &replicas[1].health;
    for n in 1..FAILURES_MAX {
        assert!(!failing.failed(SECOND, &replicas), "after {n} failures");
    }
    assert!(failing.failed(SECOND, &replicas));
    assert_eq!(failing.out(SECOND), Some(Out::Ejected));
    assert_eq!(shares(&replicas, SECOND, 1_000)[1], 0);
    let back = SECOND + EJECTION_MICROS;
    assert_eq!(failing.out(back), None);
    // As seen long ago, but ten times slower by the slow start.
    let plain = replicas[0].predicted_seconds(back);
    assert!(replicas[1].predicted_seconds(back) > 9.0 * plain);
    // One more failure takes it out again, for twice as long.
    assert!(failing.failed(back, &replicas));
    assert_eq!(failing.out(back + EJECTION_MICROS), Some(Out::Ejected));
    assert_eq!(failing.out(back + 2 * EJECTION_MICROS), None);
}

#[test]
fn not_all_are_taken_out_and_a_last_one_is_still_tried() {
    let pair = replicas(2);
    for replica in &pair {
        for _ in 0..2 * FAILURES_MAX {
            replica.health.failed(SECOND, &pair);
        }
    }
    assert_eq!(pair.iter().filter(|r| r.health.out(SECOND).is_some()).count(), 1);
    let single = replicas(1);
    single[0].health.full(SECOND);
    assert_eq!(single[0].health.out(SECOND), Some(Out::Resting));
    assert_eq!(
        pick(&single, &[], SECOND, &Random::new(1)).unwrap().chosen.index,
        0
    );
    assert_eq!(pick(&single, &[0], SECOND, &Random::new(1)), None);
}

#[test]
fn no_replica_is_tried_twice() {
    let replicas = replicas(4);
    let random = Random::new(3);
    let mut tried = Vec::new();
    while let Some(pick) = pick(&replicas, &tried, SECOND, &random) {
        tried.push(pick.chosen.index);
    }
    tried.sort_unstable();
    assert_eq!(tried, [0, 1, 2, 3]);
}

#[test]
fn telemetry_that_is_no_number_is_not_believed() {
    let mut replica = Arc::into_inner(replicas(1).remove(0)).unwrap();
    for service_seconds in [f32::NAN, f32::INFINITY, -1.0] {
        replica.telemetry = Some(Telemetry {
            entity: replica.host.clone(),
            measured_at: daitn_messages::units::UnixMillis(0),
            load: 0.0,
            queued: 0,
            in_flight: 0,
            free_memory_bytes: 0,
            service_seconds,
        });
        let predicted = replica.predicted_seconds(SECOND);
        assert!(
            predicted.is_finite() && predicted > 0.0,
            "{service_seconds}: {predicted}"
        );
    }
}
