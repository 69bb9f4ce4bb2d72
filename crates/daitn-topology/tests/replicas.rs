//! The choice of a replica and of hosts: by hand, and in a small simulation with known answers.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use daitn_messages::{descriptor::Telemetry, units::UnixMillis};
use daitn_topology::{
    placement::{self, Wanted},
    replicas::{Candidate, Observed, RETURN_MS, choose, explain, predicted_seconds},
};
use support::*;

fn candidate(rtt_ms: f64, service_ms: f64) -> Candidate {
    Candidate {
        rtt_seconds: rtt_ms / 1e3,
        bytes_per_second: 1e6,
        queued: 0,
        in_flight: 0,
        service_seconds: service_ms / 1e3,
        observed: Observed::default(),
    }
}

#[test]
fn predicted_seconds_by_hand() {
    let mut c = candidate(20.0, 5.0);
    // 20 ms + 10 kB at 1 MB/s + one service time.
    assert!((predicted_seconds(&c, 10_000, NOW) - 0.035).abs() < 1e-12);
    (c.queued, c.in_flight) = (3, 2);
    assert!((predicted_seconds(&c, 10_000, NOW) - (0.030 + 6.0 * 0.005)).abs() < 1e-12);
    // Our own in flight are among those that the host counts.
    c.observed.in_flight = 4;
    assert!((predicted_seconds(&c, 10_000, NOW) - (0.030 + 8.0 * 0.005)).abs() < 1e-12);
    // A failure doubles the service part.
    c.observed.failures_in_a_row = 1;
    assert!((predicted_seconds(&c, 10_000, NOW) - (0.030 + 16.0 * 0.005)).abs() < 1e-12);
}

#[test]
fn a_peak_counts_at_once_and_is_half_forgotten_after_five_seconds() {
    let mut observed = Observed::default();
    observed.sent();
    observed.answered(1.0, NOW);
    let c = Candidate {
        observed,
        ..candidate(0.0, 0.0)
    };
    let at = |ms: u64| predicted_seconds(&c, 0, UnixMillis(NOW.0 + ms));
    assert!((at(0) - 1.0).abs() < 1e-9);
    assert!((at(5_000) - 0.5).abs() < 1e-9);
    assert!((at(10_000) - 0.25).abs() < 1e-9);
    // A fast answer at once after hardly lowers it, a slow one raises it at once.
    observed.answered(0.1, NOW);
    assert!((observed.service_seconds - 1.0).abs() < 1e-9);
    observed.answered(0.1, UnixMillis(NOW.0 + 5_000));
    assert!((observed.service_seconds - 0.55).abs() < 1e-9);
    observed.answered(3.0, UnixMillis(NOW.0 + 5_001));
    assert!((observed.service_seconds - 3.0).abs() < 1e-9);
    observed.answered(f64::NAN, NOW);
    assert!(observed.service_seconds.is_finite());
}

#[test]
fn failures_eject_and_a_success_takes_back() {
    let mut observed = Observed::default();
    for _ in 0..2 {
        observed.sent();
        observed.failed(NOW);
    }
    assert!(!observed.ejected(NOW));
    observed.sent();
    observed.failed(NOW);
    assert!(observed.ejected(NOW) && !observed.ejected(UnixMillis(NOW.0 + 1_000)));
    observed.failed(NOW);
    assert!(observed.ejected(UnixMillis(NOW.0 + 1_999)), "twice as long");
    for _ in 0..100 {
        observed.failed(NOW);
    }
    assert!(
        !observed.ejected(UnixMillis(NOW.0 + 60_000)),
        "never longer than a minute"
    );
    assert_eq!(observed.in_flight, 0);
    observed.answered(0.01, NOW);
    assert_eq!(observed.failures_in_a_row, 0);
    // Bad requests and clients that leave tell nothing of the replica.
    let mut blameless = Observed::default();
    for _ in 0..1_000 {
        blameless.sent();
        blameless.ended();
    }
    assert_eq!(blameless, Observed::default());
}

#[test]
fn one_that_is_outpaced_is_slow_and_out_only_if_it_is_silent() {
    let mut alive = Observed::default();
    for _ in 0..10 {
        alive.sent();
        alive.outpaced(0.05, false, NOW);
    }
    assert_eq!((alive.in_flight, alive.ejected(NOW)), (0, false));
    assert!((alive.service_seconds - 0.05).abs() < 1e-12);
    // Of one that is gone further queries of the same moment do not add to the three that put it out, for a second.
    let mut gone = Observed::default();
    for n in 1..=10 {
        gone.sent();
        gone.outpaced(0.05, true, NOW);
        assert_eq!(gone.ejected(NOW), n >= 3, "{n}");
    }
    assert_eq!(
        (gone.in_flight, gone.ejected_until),
        (0, UnixMillis(NOW.0 + 1_000))
    );
    // Still silent when it is tried again: twice as long. An answer takes it back.
    let later = gone.ejected_until;
    gone.sent();
    gone.outpaced(0.05, true, later);
    assert_eq!(gone.ejected_until, UnixMillis(later.0 + 2_000));
    gone.answered(0.001, later);
    assert_eq!(gone.failures_in_a_row, 0);
}

fn randoms(n: u64) -> impl Iterator<Item = u64> {
    // SplitMix64 (Steele 2014).
    let mut state = 1_u64;
    (0..n).map(move |_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

#[test]
fn the_better_of_two_drawn_is_chosen() {
    let all = [
        candidate(1.0, 1.0),
        candidate(2.0, 1.0),
        candidate(3.0, 1.0),
        candidate(4.0, 1.0),
    ];
    let mut counts = [0_u32; 4];
    for random in randoms(60_000) {
        let choice = choose(4, |i| Some(all[i]), 100, NOW, random).unwrap();
        let (other, other_seconds) = choice.other.unwrap();
        assert!(choice.seconds < other_seconds && choice.chosen < other);
        counts[choice.chosen] += 1;
    }
    // Of the six pairs the best is in three, the second is better in two, the third in one.
    for (count, expected) in counts.into_iter().zip([30_000_u32, 20_000, 10_000, 0]) {
        assert!(count.abs_diff(expected) < 600, "{counts:?}");
    }
    assert!(choose(0, |_| None, 1, NOW, 5).is_none());
    assert!(choose(3, |_| None, 1, NOW, 5).is_none());
    assert_eq!(choose(1, |_| Some(all[0]), 1, NOW, 5).unwrap().chosen, 0);
}

#[test]
fn who_is_ejected_or_ruled_out_is_not_chosen_while_there_is_another() {
    let mut all = vec![candidate(1.0, 1.0); 10];
    for c in &mut all[..5] {
        c.observed.ejected_until = UnixMillis(NOW.0 + 1);
    }
    for random in randoms(1_000) {
        let choice = choose(10, |i| Some(all[i]), 100, NOW, random).unwrap();
        assert!(choice.chosen >= 5 && !choice.desperate);
        // Rule the others out as well: somebody ejected is tried all the same, and it is said so.
        let choice = choose(10, |i| (i < 5).then_some(all[i]), 100, NOW, random).unwrap();
        assert!(choice.chosen < 5 && choice.desperate);
    }
}

/// How often each is chosen.
fn counts(all: &[Candidate], now: UnixMillis, n_draws: u64) -> Vec<f64> {
    let mut counts = vec![0.0; all.len()];
    for random in randoms(n_draws) {
        counts[choose(all.len(), |i| Some(all[i]), 0, now, random)
            .unwrap()
            .chosen] += 1.0;
    }
    counts.iter().map(|count| count / n_draws as f64).collect()
}

/// One that was ejected until this long ago.
fn returned(ms_ago: u64) -> Candidate {
    let mut c = candidate(1.0, 1.0);
    c.observed.failures_in_a_row = 3;
    c.observed.ejected_until = UnixMillis(NOW.0 - ms_ago);
    c
}

#[test]
fn never_more_than_half_are_out() {
    // Ten alike; seven fail, and their ejections end one after the other. Five may be out: the two that are over first
    // are spared. All that count are alike in this test, so each pair is decided by a coin.
    let mut all = vec![candidate(1.0, 1.0); 10];
    for (i, c) in all[..7].iter_mut().enumerate() {
        c.observed.ejected_until = UnixMillis(NOW.0 + 100 + i as u64);
    }
    let shares = counts(&all, NOW, 40_000);
    assert!(shares[2..7].iter().all(|share| *share == 0.0), "{shares:?}");
    // A draw of one of the five that count and one that does not goes to the first: 2 * 5 * 5 / 90; of two that count
    // to either: 20 / 90; of two that do not to the next that counts, which is the eighth: 20 / 90.
    let fair = (50.0 + 20.0) / 90.0 / 5.0;
    assert!((shares[7] - fair - 20.0 / 90.0).abs() < 0.01, "{shares:?}");
    for i in [0, 1, 8, 9] {
        assert!((shares[i] - fair).abs() < 0.01, "{i}: {shares:?}");
    }
    // A single one is never out, nor is more than one of two or three.
    for n in 1..=3 {
        let mut few = vec![candidate(1.0, 1.0); n];
        for (i, c) in few.iter_mut().enumerate() {
            c.observed.ejected_until = UnixMillis(NOW.0 + 100 + i as u64);
        }
        few[n - 1].observed.ejected_until = UnixMillis(0);
        let n_used = counts(&few, NOW, 2_000)
            .iter()
            .filter(|share| **share > 0.0)
            .count();
        assert_eq!(n_used, n - n / 2, "of {n}");
    }
}

#[test]
fn where_all_fail_nobody_is_out() {
    let mut all = vec![candidate(1.0, 1.0); 8];
    for c in &mut all {
        c.observed.failures_in_a_row = 3;
        c.observed.ejected_until = UnixMillis(NOW.0 + 1_000);
    }
    for share in counts(&all, NOW, 40_000) {
        assert!((share - 1.0 / 8.0).abs() < 0.01, "{share}");
    }
    assert!(choose(8, |i| Some(all[i]), 0, NOW, 7).unwrap().desperate);
}

/// Ten alike, of which one comes back. It is drawn in two of ten draws, taken into account as often as its share says,
/// and then chosen in every other: share / 10.
#[test]
fn one_that_comes_back_gets_its_share_little_by_little() {
    for (ms_ago, share) in [
        (0, 0.05),
        (RETURN_MS / 4, 0.25),
        (RETURN_MS / 2, 0.5),
        (RETURN_MS, 1.0),
        (RETURN_MS * 9, 1.0),
    ] {
        let mut all = vec![candidate(1.0, 1.0); 10];
        all[4] = returned(ms_ago);
        let found = counts(&all, NOW, 60_000)[4];
        // Four standard deviations of a share of 0.1 in 60,000 draws are 0.005.
        assert!((found - share / 10.0).abs() < 0.005, "after {ms_ago} ms: {found}");
    }
    // Alone it gets everything, however little its share is.
    assert_eq!(counts(&[returned(0)], NOW, 100), [1.0]);
    // A further failure throws it out again, for longer than before; the share begins anew after that.
    let mut observed = returned(1).observed;
    observed.failed(NOW);
    assert!(observed.ejected(UnixMillis(NOW.0 + 1_999)));
    assert!((observed.share(UnixMillis(NOW.0 + 2_000)) - 0.05).abs() < 1e-12);
}

/// Gateways that all hold the same stale numbers: the share of the replica that looks best stays at most twice the fair
/// one (with full knowledge and no sampling it would get everything).
#[test]
fn stale_numbers_do_not_herd() {
    let n = 8;
    let stale: Vec<Candidate> = (0..n).map(|i| candidate(1.0 + 0.1 * i as f64, 1.0)).collect();
    let mut counts = vec![0_u32; n];
    for random in randoms(80_000) {
        counts[choose(n, |i| Some(stale[i]), 100, NOW, random).unwrap().chosen] += 1;
    }
    let largest = *counts.iter().max().unwrap();
    assert!(f64::from(largest) <= 2.02 * 80_000.0 / n as f64, "{counts:?}");
}

#[test]
fn the_explanation_names_everybody() {
    let all: Vec<(String, Candidate)> = (0..3)
        .map(|i| (format!("host-{i}"), candidate(f64::from(i), 1.0)))
        .collect();
    let choice = choose(3, |i| Some(all[i].1), 100, NOW, 3).unwrap();
    let lines = explain(&all, &choice, 100, NOW);
    assert_eq!(lines.len(), 3);
    assert!(lines[choice.chosen].contains("chosen"));
    assert_eq!(lines.iter().filter(|line| line.contains("not drawn")).count(), 1);
}

#[test]
fn hosts_are_spread_and_have_room() {
    let mut net = Net::default();
    net.on("big-node", "model-host:big/one", host(1 << 30));
    net.on("big-node", "model-host:big/two", host(1 << 30));
    net.on("other-node", "model-host:big/three", host(1 << 30));
    net.entity("model-host:small/one", host(1_000));
    net.entity("model-host:lone/one", host(1 << 30));
    net.entity("model-host:off/one", host(1 << 30))
        .connected("model-host:off/one", false);
    let spec = request().model_spec();
    let chosen = |net: &Net, replicas: usize, exclude: &[&str], seed: u64| -> Vec<String> {
        let exclude: Vec<_> = exclude.iter().map(|e| entity(e)).collect();
        let wanted = Wanted {
            spec: &spec,
            replicas,
            exclude: &exclude,
            now: NOW,
            seed,
        };
        let hosts = placement::hosts(&net.0, &wanted, &mut |_| true);
        hosts.iter().map(|h| h.entity.to_string()).collect()
    };
    for seed in 0..20 {
        let two = chosen(&net, 2, &[], seed);
        assert!(
            two.contains(&"model-host:lone/one".to_owned()),
            "two organisations: {two:?}"
        );
        let three = chosen(&net, 3, &[], seed);
        assert!(
            three.contains(&"model-host:big/three".to_owned()),
            "three nodes: {three:?}"
        );
        let all = chosen(&net, 9, &[], seed);
        assert_eq!(all.len(), 4, "neither the small nor the lost one");
        assert_eq!(all[..2], two[..], "more replicas keep the first");
        assert!(!chosen(&net, 2, &[&two[0]], seed).contains(&two[0]));
        assert_eq!(chosen(&net, 2, &[], seed), two, "the same seed, the same hosts");
    }
    let firsts: std::collections::BTreeSet<String> = (0..20)
        .map(|seed| chosen(&net, 1, &[], seed)[0].clone())
        .collect();
    assert!(firsts.len() > 1, "equal hosts take turns");
    // A loaded host comes last, one that tells of too little memory not at all.
    let telemetry = |id: &str, load: f32, free_memory_bytes: u64| Telemetry {
        entity: entity(id),
        measured_at: NOW,
        load,
        queued: 0,
        in_flight: 0,
        free_memory_bytes,
        service_seconds: 0.0,
    };
    net.0.telemetry(telemetry("model-host:lone/one", 0.9, 1 << 30));
    net.0.telemetry(telemetry("model-host:big/three", 0.0, 1_000));
    for seed in 0..20 {
        assert!(!chosen(&net, 1, &[], seed)[0].contains("lone"));
        assert_eq!(chosen(&net, 9, &[], seed).len(), 3);
    }
}
