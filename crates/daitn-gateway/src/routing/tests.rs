//! What the gateway adds to the choice: who is ruled out, what is remembered, and that every query is counted down.

use super::*;
use daitn_messages::ids::NodeId;

fn replicas(n: u8) -> Vec<Arc<Replica>> {
    let replica = |i: u8| {
        Arc::new(Replica {
            host: format!("model-host:acme/host-{i}").parse().unwrap(),
            peer: Peer {
                node: NodeId([i; 32]),
                addresses: Vec::new(),
                relay: None,
            },
            telemetry: None,
            health: Arc::default(),
        })
    };
    (0..n).map(replica).collect()
}

fn at(ms: u64) -> Now {
    Now {
        steady: UnixMillis(3_600_000 + ms),
        wall: UnixMillis(1_700_000_000_000 + ms),
    }
}

/// How often each replica is chosen.
fn shares(replicas: &[Arc<Replica>], now: Now, n_draws: usize) -> Vec<usize> {
    let random = Random::new(7);
    let mut counts = vec![0; replicas.len()];
    for _ in 0..n_draws {
        counts[pick(replicas, &[], 0, now, random.next()).unwrap().chosen.index] += 1;
    }
    counts
}

#[test]
fn equal_replicas_share_evenly() {
    let counts = shares(&replicas(10), at(0), 10_000);
    // The mean is 1,000 and the standard deviation 30.
    assert!(
        counts.iter().all(|count| (850..1150).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn the_best_replica_gets_at_most_twice_its_fair_share() {
    let replicas = replicas(10);
    for replica in &replicas[1..] {
        replica
            .health
            .enter()
            .answered(at(0), Duration::from_millis(500), 1, None);
    }
    // Two of ten hold the best one with probability 1 - 9/10 * 8/9 = 0.2.
    let counts = shares(&replicas, at(0), 10_000);
    assert!((1_850..2_150).contains(&counts[0]), "{counts:?}");
}

#[test]
fn every_end_of_a_query_counts_down() {
    let replica = &replicas(1)[0];
    let health = &replica.health;
    health.enter().answered(at(0), Duration::from_millis(1), 1, None);
    health.enter().full(at(0));
    health.enter().failed(at(0));
    health.enter().outpaced(at(0), Duration::from_millis(1));
    drop(health.enter());
    assert_eq!(health.in_flight(), 0);
    let panicked = std::panic::catch_unwind(|| {
        let _in_flight = health.enter();
        panic!("in the middle of a query");
    });
    assert!(panicked.is_err());
    assert_eq!(health.in_flight(), 0);
}

#[test]
fn a_replica_with_queries_under_way_is_avoided() {
    let replicas = replicas(2);
    let held: Vec<InFlight> = (0..3).map(|_| replicas[0].health.enter()).collect();
    assert_eq!(shares(&replicas, at(0), 100), [0, 100]);
    drop(held);
    assert!(shares(&replicas, at(0), 1_000)[0] > 300);
}

#[test]
fn a_full_replica_rests_unless_it_is_the_only_one_left() {
    let replicas = replicas(2);
    replicas[0].health.enter().full(at(0));
    assert_eq!(shares(&replicas, at(REST_MS - 1), 100), [0, 100]);
    assert!(shares(&replicas, at(REST_MS), 1_000)[0] > 300);
    assert_eq!(pick(&replicas, &[1], 0, at(0), 1).unwrap().chosen.index, 0);
    // One that fails is no better than one that rests.
    for _ in 0..9 {
        replicas[1].health.enter().failed(at(0));
    }
    assert_eq!(shares(&replicas, at(0), 100), [100, 0]);
    replicas[1].health.enter().full(at(0));
    assert!(pick(&replicas, &[], 0, at(0), 1).is_some());
}

#[test]
fn failures_take_a_replica_out_and_bad_queries_do_not() {
    let replicas = replicas(2);
    for _ in 0..1_000 {
        drop(replicas[0].health.enter());
    }
    assert!(shares(&replicas, at(0), 1_000)[0] > 300);
    let out: Vec<bool> = (0..4).map(|_| replicas[0].health.enter().failed(at(0))).collect();
    // The third in a row does it, and a further one tells nothing new.
    assert_eq!(out, [false, false, true, false]);
    assert_eq!(shares(&replicas, at(0), 100), [0, 100]);
}

#[test]
fn one_that_is_outpaced_gets_no_further_queries_for_a_while() {
    let replicas = replicas(2);
    let waited = Duration::from_millis(50);
    assert!(!replicas[0].health.enter().outpaced(at(0), waited));
    assert_eq!(shares(&replicas, at(0), 100), [0, 100]);
    // However many wait in one pause, it is one pause.
    let paused: Vec<InFlight> = (0..10).map(|_| replicas[0].health.enter()).collect();
    assert!(paused.into_iter().all(|query| !query.outpaced(at(0), waited)));
    // It answers somebody else meanwhile: it is slow, not gone.
    for _ in 0..10 {
        let slow = replicas[0].health.enter();
        replicas[0].health.enter().answered(at(0), waited, 1, None);
        assert!(!slow.outpaced(at(0), waited));
    }
    let out: Vec<bool> = (0..4)
        .map(|_| replicas[0].health.enter().outpaced(at(0), waited))
        .collect();
    assert_eq!(out, [false, false, true, false]);
}

#[test]
fn who_rests_or_is_out_is_no_second_one_to_ask() {
    let replicas = replicas(2);
    assert_eq!(pick_fit(&replicas, &[0], 0, at(0), 1).unwrap().chosen.index, 1);
    replicas[1].health.enter().full(at(0));
    assert_eq!(pick_fit(&replicas, &[0], 0, at(0), 1), None);
    assert_eq!(pick(&replicas, &[0], 0, at(0), 1).unwrap().chosen.index, 1);
    assert!(pick_fit(&replicas, &[0], 0, at(REST_MS), 1).is_some());
    for _ in 0..3 {
        replicas[1].health.enter().failed(at(REST_MS));
    }
    assert_eq!(pick_fit(&replicas, &[0], 0, at(REST_MS), 1), None);
}

#[test]
fn no_replica_is_tried_twice() {
    let replicas = replicas(4);
    let random = Random::new(3);
    let mut tried = Vec::new();
    while let Some(pick) = pick(&replicas, &tried, 0, at(0), random.next()) {
        tried.push(pick.chosen.index);
    }
    tried.sort_unstable();
    assert_eq!(tried, [0, 1, 2, 3]);
    assert_eq!(pick(&[], &[], 0, at(0), 1), None);
}

fn telemetry(replica: &Replica, measured_at: UnixMillis, in_flight: u32, service_seconds: f32) -> Telemetry {
    Telemetry {
        entity: replica.host.clone(),
        measured_at,
        load: 0.0,
        queued: 0,
        in_flight,
        free_memory_bytes: 0,
        service_seconds,
    }
}

#[test]
fn telemetry_that_is_no_number_is_not_believed() {
    let mut replica = Arc::into_inner(replicas(1).remove(0)).unwrap();
    for service_seconds in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0] {
        replica.telemetry = Some(telemetry(&replica, at(0).wall, 0, service_seconds));
        assert_eq!(replica.candidate(at(0)).service_seconds, 0.0, "{service_seconds}");
    }
}

#[test]
fn of_what_a_host_told_the_newest_counts_until_it_is_too_old() {
    let mut replica = Arc::into_inner(replicas(1).remove(0)).unwrap();
    replica.telemetry = Some(telemetry(&replica, at(0).wall, 9, 0.0));
    assert_eq!(replica.candidate(at(5)).in_flight, 9);
    replica
        .health
        .enter()
        .answered(at(10), Duration::from_millis(1), 4, None);
    assert_eq!(replica.candidate(at(20)).in_flight, 3);
    replica.telemetry = Some(telemetry(&replica, at(30).wall, 7, 0.0));
    assert_eq!(replica.candidate(at(40)).in_flight, 7);
    assert_eq!(replica.candidate(at(31 + TOLD_MS_MAX)).in_flight, 0);
}

#[test]
fn the_way_is_not_taken_for_the_hosts_work() {
    let replica = &replicas(1)[0];
    replica.health.enter().answered(
        at(0),
        Duration::from_millis(210),
        1,
        Some(Duration::from_millis(200)),
    );
    let candidate = replica.candidate(at(0));
    assert!((candidate.rtt_seconds - 0.2).abs() < 1e-9);
    assert!((candidate.observed.service_seconds - 0.01).abs() < 1e-9);
}
