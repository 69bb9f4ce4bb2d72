//! Planning for 10,000 sites among 100,000 descriptors, structured search over them, and the choice of a replica.
//!
//! Bars: a plan in at most 200 ms; a search in at most 5 ms at the 99th percentile; a choice under 2 µs. divan prints
//! medians; the percentiles of searches are printed before.
#![allow(missing_docs, clippy::print_stdout, clippy::cast_possible_truncation)]

use daitn_messages::{
    control::Link,
    descriptor::{AggregatorBody, Body, DatasetBody, Descriptor, VerifierBody},
    ids::{ArtifactId, DecisionId, EntityId, EntityKind, NodeId, OrganisationId, PlanId},
    learning::{Architecture, LocalTraining, Metric, Task},
    policy::{PolicyAnswer, Verb},
    request::{DataFilter, PlanKind, Search, Sla, TrainingParameters, TrainingRequest, Verification},
    units::UnixMillis,
};
use daitn_topology::{
    NodeState, PlanIds, Sight, Topology, plan,
    replicas::{Candidate, Observed, choose},
};
use divan::black_box;
use std::{sync::LazyLock, time::Instant};

const NOW: UnixMillis = UnixMillis(1_000_000);
const N_DESCRIPTORS: usize = 100_000;
const N_SITES: usize = 10_000;

static TOPOLOGY: LazyLock<Topology> = LazyLock::new(topology);

fn main() {
    search_percentiles();
    search_percentiles_of_another();
    divan::main();
}

fn node(i: usize) -> NodeId {
    NodeId(*ArtifactId::of(&i.to_le_bytes()).as_bytes())
}

fn digits() -> Task {
    Task::Classification {
        classes: (0..10).map(|c| c.to_string()).collect(),
    }
}

fn features() -> Vec<String> {
    (0..64).map(|f| format!("p{f}")).collect()
}

fn dataset(i: usize) -> Body {
    // A tenth are digits; the rest spread over 500 other shapes of table.
    let is_site = i < N_SITES;
    let features = if is_site {
        features()
    } else {
        (0..12).map(|f| format!("c{}", (i % 500) * 3 + f)).collect()
    };
    let mut shares = vec![0.05_f32; 10];
    shares[i % 10] = 0.55;
    Body::Dataset(Box::new(DatasetBody {
        features,
        target: if is_site {
            "label".into()
        } else {
            format!("t{}", i % 50)
        },
        task: if is_site { digits() } else { Task::Regression },
        records: (i as u64 % 97 + 3) * 10,
        label_distribution: is_site.then_some(shares),
        schema_fingerprint: ArtifactId::of(b"schema"),
        license: "CC-BY-4.0".into(),
        creator: "Somebody".into(),
        date_published: "2026-01-01".into(),
        url: "https://example.org".into(),
        usage: String::new(),
        policy: format!("// number {}\npermit (principal, action, resource);", i % 20),
        data_version: "1".into(),
        price_micros_per_thousand: i as u64 % 5,
        compute_rate: 1_000_000_000,
        compute_allowed: Vec::new(),
    }))
}

fn descriptor(id: &str, i: usize, body: Body) -> Descriptor {
    Descriptor {
        entity: id.parse().expect("an entity"),
        version: 1,
        node: node(i),
        title: "A title".into(),
        description: "A description".into(),
        jurisdiction: ["DE", "FR", "IT", "ES", "PL"][i % 5].into(),
        issued_at: UnixMillis(0),
        body,
    }
}

fn topology() -> Topology {
    let mut topology = Topology::default();
    let online = NodeState {
        online: true,
        draining: false,
    };
    for i in 0..N_DESCRIPTORS {
        let id = format!("dataset:org-{}/data-{i}", i % 3_000);
        topology.upsert(descriptor(&id, i, dataset(i)));
        topology.set_node(node(i), online);
    }
    for i in 0..3 {
        let aggregator = Body::Aggregator(AggregatorBody {
            storage_bytes: 1 << 40,
            price_micros_per_gb: 0,
        });
        let at = N_DESCRIPTORS + i;
        topology.upsert(descriptor(&format!("aggregator:agg-{i}/main"), at, aggregator));
        topology.set_node(node(at), online);
        let verifier = Body::Verifier(VerifierBody {
            features: features(),
            target: "label".into(),
            task: digits(),
            records: 100,
        });
        let at = N_DESCRIPTORS + 10 + i;
        topology.upsert(descriptor(&format!("verifier:judge-{i}/unit"), at, verifier));
        topology.set_node(node(at), online);
    }
    for i in 0..N_SITES {
        topology.link(Link {
            from: node(i),
            to: node(N_DESCRIPTORS),
            rtt_micros: 10_000 + i as u64 % 50_000,
            bytes_per_second: 1_000_000 + i as u64 * 1_000,
            relayed: false,
            measured_at: NOW,
        });
    }
    topology
}

fn request() -> TrainingRequest {
    TrainingRequest {
        model: "digits".parse().expect("a slug"),
        organisation: "university".parse().expect("a slug"),
        jurisdiction: "DE".into(),
        purpose: "research".into(),
        architecture: Architecture::Mlp { hidden: vec![32] },
        features: features(),
        target: "label".into(),
        task: digits(),
        scale: 1.0,
        offset: 0.0,
        data: DataFilter::default(),
        training: TrainingParameters {
            strategy: None,
            kind: None,
            rounds: 50,
            local: LocalTraining {
                epochs: 2,
                batch_size: 32,
                learning_rate: 0.1,
                seed: 1,
            },
            quorum: None,
            round_deadline_ms: None,
            norm_clip: None,
        },
        protections: Vec::new(),
        sla: Sla::default(),
        verification: Verification {
            metric: Metric::Accuracy,
            target: 0.9,
            required: 2,
            units: None,
        },
        deployment: None,
    }
}

/// Plans, with a policy that costs nothing; prints nothing, returns how often it was asked.
fn planned(request: &TrainingRequest) -> (bool, u64) {
    let ids = PlanIds {
        plan: PlanId::new(1, [1; 10]),
        decision: DecisionId::new(1, [2; 10]),
    };
    let mut n_asked = 0;
    let mut permit = |verb, _: &Descriptor, _: &_| {
        n_asked += u64::from(verb == Verb::Train);
        PolicyAnswer {
            allowed: true,
            determining: vec!["all".into()],
            errors: vec![],
        }
    };
    let verdict = plan(&TOPOLOGY, request, &mut permit, ids, NOW, 1);
    let feasible = matches!(verdict, daitn_messages::plan::Verdict::Feasible { .. });
    (feasible, n_asked)
}

/// 10,000 sites take part.
#[divan::bench(sample_count = 20)]
fn plan_10_000_sites(bencher: divan::Bencher<'_, '_>) {
    let request = request();
    let (feasible, n_asked) = planned(&request);
    assert!(feasible);
    println!("policies asked for 10,000 candidates: {n_asked}");
    bencher.bench_local(|| planned(black_box(&request)));
}

/// Half of them fall to a deadline.
#[divan::bench(sample_count = 20)]
fn plan_with_a_deadline(bencher: divan::Bencher<'_, '_>) {
    let mut request = request();
    request.sla.deadline_ms = Some(9_000);
    bencher.bench_local(|| planned(black_box(&request)));
}

/// A model travels through the 256 largest.
#[divan::bench(sample_count = 20)]
fn plan_forced_itinerary(bencher: divan::Bencher<'_, '_>) {
    let mut request = request();
    request.training.kind = Some(PlanKind::Itinerary);
    bencher.bench_local(|| planned(black_box(&request)));
}

/// Every kind is considered for this many sites.
#[divan::bench(args = [5, 50, 250, 1_000], sample_count = 20)]
fn plan_few_sites(bencher: divan::Bencher<'_, '_>, n_sites: usize) {
    let mut request = request();
    request.data.organisations = (0..n_sites.div_ceil(4))
        .map(|i| format!("org-{i}").parse().expect("a slug"))
        .collect();
    bencher.bench_local(|| planned(black_box(&request)));
}

/// Nothing would do: all constraints, the nearest request, every exclusion.
#[divan::bench(sample_count = 5)]
fn infeasible_10_000_sites(bencher: divan::Bencher<'_, '_>) {
    let mut request = request();
    request.sla.sites_min = 10_000;
    request.sla.deadline_ms = Some(10);
    request.sla.bytes_max = Some(10);
    assert!(!planned(&request).0);
    bencher.bench_local(|| planned(black_box(&request)));
}

fn searches() -> Vec<Search> {
    let organisation = |i: usize| -> OrganisationId { format!("org-{i}").parse().expect("a slug") };
    (0..2_000)
        .map(|i| {
            let mut search = Search {
                kind: Some(EntityKind::Dataset),
                ..Search::default()
            };
            match i % 8 {
                0 => {}
                1 => search.organisations = vec![organisation(i % 3_000)],
                2 => search.jurisdictions = vec!["DE".into()],
                3 => search.features = vec![format!("c{}", i % 1_500)],
                4 => search.target = Some(format!("t{}", i % 50)),
                5 => {
                    search.features = features();
                    search.records_min = 500;
                    search.jurisdictions = vec!["FR".into(), "IT".into()];
                }
                6 => {
                    search.kind = None;
                    search.records_min = 900;
                }
                _ => {
                    search.jurisdictions = vec!["PL".into()];
                    search.offset = 1_000;
                    search.limit = 100;
                }
            }
            search
        })
        .collect()
}

fn search_percentiles() {
    let searches = searches();
    black_box(TOPOLOGY.search(&searches[0]));
    let mut micros: Vec<u128> = searches
        .iter()
        .map(|search| {
            let begun = Instant::now();
            black_box(TOPOLOGY.search(black_box(search)));
            begun.elapsed().as_micros()
        })
        .collect();
    micros.sort_unstable();
    let at = |share: f64| micros[((micros.len() - 1) as f64 * share) as usize];
    println!(
        "search over {N_DESCRIPTORS} descriptors, 2,000 of eight kinds: p50 {} µs, p90 {} µs, p99 {} µs, max {} µs",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}

/// The same as somebody sees it who must ask the owners' policies: of twenty texts three hide.
fn search_percentiles_of_another() {
    let asker: OrganisationId = "asker".parse().expect("a slug");
    let searches = searches();
    let mut n_asked = 0_u64;
    let mut micros: Vec<u128> = searches
        .iter()
        .map(|search| {
            let begun = Instant::now();
            let seen = TOPOLOGY
                .matches(black_box(search))
                .seen_by(&asker, &mut |descriptor| {
                    n_asked += 1;
                    let Body::Dataset(body) = &descriptor.body else {
                        return Sight::OfPolicy(true);
                    };
                    Sight::OfPolicy(!body.policy.contains("number 1\n"))
                });
            black_box((seen.len(), seen.page(search.offset as usize, 50)));
            begun.elapsed().as_micros()
        })
        .collect();
    micros.sort_unstable();
    let at = |share: f64| micros[((micros.len() - 1) as f64 * share) as usize];
    println!(
        "the same for another organisation, {n_asked} questions to policies: p50 {} µs, p90 {} µs, p99 {} µs, max {} µs",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}

/// The widest filters: every dataset, a fifth of them, by record count alone.
#[divan::bench(args = [0, 2, 6])]
fn search_wide(bencher: divan::Bencher<'_, '_>, which: usize) {
    let search = &searches()[which];
    bencher.bench_local(|| TOPOLOGY.search(black_box(search)));
}

#[divan::bench]
fn upsert_into_100_000(bencher: divan::Bencher<'_, '_>) {
    let mut topology = TOPOLOGY.clone();
    let mut known = (**topology
        .get(&"dataset:org-7/data-7".parse::<EntityId>().expect("an entity"))
        .expect("it is there"))
    .clone();
    bencher.bench_local(|| {
        known.version += 1;
        topology.upsert(known.clone())
    });
}

/// The choice that a gateway makes for each query.
#[divan::bench(args = [2, 1_000])]
fn choose_replica(bencher: divan::Bencher<'_, '_>, n: usize) {
    let candidates: Vec<Candidate> = (0..n)
        .map(|i| Candidate {
            rtt_seconds: i as f64 / 1e4,
            bytes_per_second: 1e7,
            queued: 0,
            in_flight: 1,
            service_seconds: 0.002,
            observed: Observed::default(),
        })
        .collect();
    let mut random = 1_u64;
    bencher.bench_local(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        choose(n, |i| Some(candidates[i]), 1_000, NOW, random ^ (random >> 29))
    });
}
