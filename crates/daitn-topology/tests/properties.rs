//! Verdicts on random tiny networks against an independent search: every set of sites, every choice of who combines and
//! who takes over, with the formulas for time, bytes and price written out again here.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use daitn_messages::{
    descriptor::Descriptor,
    learning::Strategy as Rule,
    plan::{Plan, Verdict},
    policy::{PolicyAnswer, UseContext},
    request::{PlanKind, TrainingRequest},
};
use daitn_topology::{Topology, site_context};
use proptest::prelude::*;
use std::collections::BTreeSet;
use support::*;

/// What one owner says.
#[derive(Debug, Clone)]
struct Owner {
    cohort_min: u32,
    cohort_max: u32,
    refuses_recipient: Option<&'static str>,
    refuses_algorithm: Option<&'static str>,
}

impl Owner {
    fn permits(&self, algorithm: &str, cohort: u32, recipients: &BTreeSet<String>) -> bool {
        cohort >= self.cohort_min
            && cohort <= self.cohort_max
            && self.refuses_recipient.is_none_or(|r| !recipients.contains(r))
            && self.refuses_algorithm.is_none_or(|a| a != algorithm)
    }
}

#[derive(Debug, Clone)]
struct Site {
    records: u64,
    rate: u64,
    price: u64,
    online: bool,
    owner: Owner,
}

#[derive(Debug, Clone)]
struct World {
    sites: Vec<Site>,
    /// Price of a gigabyte at each aggregator; its organisation is `agg-0`, `agg-1`.
    aggregators: Vec<u64>,
    /// Round trip and bytes a millisecond between two of the nodes; sites first.
    links: Vec<(usize, usize, u64, u64)>,
    rounds: u32,
    epochs: u32,
    itinerary: bool,
    sites_min: u32,
    sites_max: u32,
    records_min: u64,
    deadline_ms: Option<u64>,
    bytes_max: Option<u64>,
    cost_max: Option<u64>,
}

const ORGANISATIONS: [&str; 4] = ["org-0", "org-1", "org-2", "org-3"];

fn owner() -> impl Strategy<Value = Owner> {
    let recipients = vec![None, None, None, Some("agg-0"), Some("agg-1"), Some("org-1")];
    let algorithms = vec![None, None, None, Some("itinerary"), Some("fed-avg")];
    (
        0_u32..4,
        prop_oneof![4 => Just(99_u32), 1 => 1_u32..4],
        proptest::sample::select(recipients),
        proptest::sample::select(algorithms),
    )
        .prop_map(
            |(cohort_min, cohort_max, refuses_recipient, refuses_algorithm)| Owner {
                cohort_min,
                cohort_max,
                refuses_recipient,
                refuses_algorithm,
            },
        )
}

fn site() -> impl Strategy<Value = Site> {
    (
        1_u64..5,
        proptest::sample::select(vec![1_000_000_u64, 10_000_000, 1_000_000_000]),
        0_u64..4,
        proptest::bool::weighted(0.85),
        owner(),
    )
        .prop_map(|(records, rate, price, online, owner)| Site {
            records: records * 1_000,
            rate,
            price: price * 100,
            online,
            owner,
        })
}

prop_compose! {
    fn world()(
        sites in prop::collection::vec(site(), 1..5), aggregators in prop::collection::vec(0_u64..3, 1..3),
        links in prop::collection::vec((0_usize..6, 0_usize..6, 0_u64..200, 1_u64..50_000), 0..10),
        (rounds, epochs) in (1_u32..6, 1_u32..3), itinerary in any::<bool>(),
        (sites_min, sites_more) in (1_u32..4, 0_u32..3), records_min in 0_u64..12,
        deadline_ms in proptest::option::weighted(0.5, 400_u64..6_000),
        bytes_max in proptest::option::weighted(0.3, 3_000_u64..120_000),
        cost_max in proptest::option::weighted(0.3, 0_u64..20_000),
    ) -> World {
        World {
            sites, aggregators, links, rounds, epochs, itinerary, sites_min, sites_max: sites_min + sites_more,
            records_min: records_min * 1_000, deadline_ms, bytes_max, cost_max,
        }
    }
}

impl World {
    fn name(&self, i: usize) -> Option<String> {
        match i.checked_sub(self.sites.len()) {
            None => Some(format!("dataset:{}/data", ORGANISATIONS[i])),
            Some(i) if i < self.aggregators.len() => Some(format!("aggregator:agg-{i}/main")),
            Some(_) => None,
        }
    }

    fn net(&self) -> Net {
        let mut net = Net::default();
        net.verifier("verifier:judge/unit");
        for (i, site) in self.sites.iter().enumerate() {
            let name = self.name(i).unwrap();
            let body = dataset_with(site.records, None, |body| {
                body.compute_rate = site.rate;
                body.price_micros_per_thousand = site.price;
            });
            net.entity(&name, body).connected(&name, site.online);
        }
        for (i, price) in self.aggregators.iter().enumerate() {
            net.entity(&format!("aggregator:agg-{i}/main"), aggregator(*price));
        }
        for (a, b, rtt, speed) in &self.links {
            if let (Some(a), Some(b)) = (self.name(*a), self.name(*b))
                && a != b
            {
                net.link(&a, &b, *rtt, *speed);
            }
        }
        net
    }

    fn request(&self) -> TrainingRequest {
        let mut request = request();
        request.training.rounds = self.rounds;
        request.training.local.epochs = self.epochs;
        request.training.strategy = Some(Rule::FedAvg);
        request.training.kind = Some(if self.itinerary {
            PlanKind::Itinerary
        } else {
            PlanKind::Rounds
        });
        request.sla.sites_min = self.sites_min;
        request.sla.sites_max = self.sites_max;
        request.sla.records_min = self.records_min;
        request.sla.deadline_ms = self.deadline_ms;
        request.sla.bytes_max = self.bytes_max;
        request.sla.cost_micros_max = self.cost_max;
        request
    }

    fn permit(&self) -> impl FnMut(&Descriptor, &UseContext) -> PolicyAnswer {
        let owners: Vec<Owner> = self.sites.iter().map(|site| site.owner.clone()).collect();
        move |descriptor, context| {
            let i = ORGANISATIONS
                .iter()
                .position(|o| *o == descriptor.organisation().as_str())
                .unwrap();
            let recipients = context.recipients.iter().map(ToString::to_string).collect();
            if owners[i].permits(&context.algorithm, context.cohort, &recipients) {
                allow(&["yes"])
            } else {
                deny(&["no"])
            }
        }
    }

    fn verdict(&self, request: &TrainingRequest) -> Verdict {
        verdict_with(&self.net(), request, self.permit())
    }
}

/// Time, bytes and price of these sites under this aggregator with this many spares, by hand.
fn by_hand(
    world: &World,
    net: &Topology,
    set: &[usize],
    aggregator: usize,
    n_spares: usize,
) -> (f64, f64, f64) {
    let node = |i: usize| node(&world.name(i).unwrap());
    let agg = node(world.sites.len() + aggregator);
    let hop = |a, b| {
        let path = net.path(a, b);
        path.rtt_ms + MODEL_BYTES / path.bytes_per_ms
    };
    let (n, rounds, epochs) = (set.len() as f64, f64::from(world.rounds), f64::from(world.epochs));
    // Linear, 8 features, 4 classes: 32 multiply-adds forwards, three times that to train.
    let train = |i: usize| {
        let site = &world.sites[i];
        96.0 * site.records as f64 * epochs / (site.rate as f64 / 1_000.0)
    };
    let leg = |i: usize| hop(agg, node(i));
    let (cycle_ms, moved, combined) = if world.itinerary {
        let work: f64 = set.iter().map(|i| train(*i) + 10.0).sum();
        let mut pairs = Vec::new();
        for a in set {
            for b in set.iter().filter(|b| *b > a) {
                pairs.push(hop(node(*a), node(*b)));
            }
        }
        let mean = pairs.iter().sum::<f64>() / pairs.len().max(1) as f64;
        let mean_leg = set.iter().map(|i| leg(*i)).sum::<f64>() / n;
        let ms = work + (n - 1.0) * mean + 2.0 * mean_leg + MODEL_BYTES / 1e6 + 10.0;
        (ms, (n + 1.0) * MODEL_BYTES, MODEL_BYTES)
    } else {
        let slowest = set.iter().map(|i| 2.0 * leg(*i) + train(*i)).fold(0.0, f64::max);
        // The aggregator's fastest known link, or 20 Mbit/s.
        let fastest = (0..world.sites.len() + world.aggregators.len())
            .map(|i| net.path(agg, node(i)))
            .filter(|path| path.known && path.bytes_per_ms.is_finite())
            .map(|path| path.bytes_per_ms)
            .fold(0.0, f64::max);
        let access = if fastest > 0.0 { fastest } else { 2_500.0 };
        let ms = slowest.max(2.0 * n * MODEL_BYTES / access) + n * MODEL_BYTES / 1e6 + n + 10.0;
        (ms, 2.0 * n * MODEL_BYTES, n * MODEL_BYTES)
    };
    let judge = hop(agg, support::node("verifier:judge/unit")) + 32.0 * 100.0 / 1e5 + 30.0;
    let ms = 50.0 + n + rounds * cycle_ms + judge;
    let bytes = rounds * (moved + n_spares as f64 * MODEL_BYTES + n * 2_048.0) + MODEL_BYTES;
    let data: f64 = set
        .iter()
        .map(|i| {
            let site = &world.sites[*i];
            site.records as f64 * epochs * rounds / 1_000.0 * site.price as f64
        })
        .sum();
    let cost = data + rounds * combined / 1e9 * world.aggregators[aggregator] as f64;
    (ms, bytes, cost)
}

/// Whether these sites, this aggregator and these spares would do.
fn would_do(
    world: &World,
    net: &Topology,
    request: &TrainingRequest,
    set: &[usize],
    option: (usize, bool),
) -> bool {
    let (aggregator, with_spares) = option;
    let spares: Vec<usize> = (0..world.aggregators.len())
        .filter(|i| with_spares && *i != aggregator)
        .collect();
    let algorithm = if world.itinerary { "itinerary" } else { "fed-avg" };
    let agreed = set.iter().all(|i| {
        let mut recipients: BTreeSet<String> = spares
            .iter()
            .chain([&aggregator])
            .map(|a| format!("agg-{a}"))
            .collect();
        if world.itinerary {
            recipients.extend(
                set.iter()
                    .filter(|j| *j != i)
                    .map(|j| ORGANISATIONS[*j].to_owned()),
            );
        }
        // Each site is of another organisation. Where the model travels, each site's work leaves it alone.
        let cohort = if world.itinerary {
            1
        } else {
            u32::try_from(set.len()).unwrap()
        };
        world.sites[*i].online && world.sites[*i].owner.permits(algorithm, cohort, &recipients)
    });
    let (ms, bytes, cost) = by_hand(world, net, set, aggregator, spares.len());
    let records: u64 = set.iter().map(|i| world.sites[*i].records).sum();
    let sla = &request.sla;
    let within = |value: f64, bound: Option<u64>| bound.is_none_or(|bound| value.ceil() <= bound as f64);
    agreed
        && set.len() >= sla.sites_min as usize
        && set.len() <= sla.sites_max as usize
        && records >= sla.records_min
        && within(ms, sla.deadline_ms)
        && within(bytes, sla.bytes_max)
        && within(cost, sla.cost_micros_max)
}

fn subsets(n: usize) -> impl Iterator<Item = Vec<usize>> {
    (1_usize..1 << n).map(move |mask| (0..n).filter(|i| mask & (1 << i) != 0).collect())
}

fn exists(world: &World, net: &Topology, request: &TrainingRequest) -> bool {
    subsets(world.sites.len()).any(|set| {
        (0..world.aggregators.len())
            .flat_map(|a| [(a, true), (a, false)])
            .any(|option| would_do(world, net, request, &set, option))
    })
}

/// Everything that a plan promises, checked by hand.
fn check_plan(
    world: &World,
    net: &Topology,
    request: &TrainingRequest,
    plan: &Plan,
) -> Result<(), TestCaseError> {
    let set: Vec<usize> = plan
        .sites
        .iter()
        .map(|site| {
            let own = site.organisation.as_str();
            ORGANISATIONS.iter().position(|o| *o == own).unwrap()
        })
        .collect();
    let aggregator = &plan.aggregator.entity.organisation.as_str()[4..];
    let aggregator: usize = aggregator.parse().unwrap();
    let option = (aggregator, !plan.aggregator_spares.is_empty());
    prop_assert!(would_do(world, net, request, &set, option), "{plan:#?}");
    let mut permit = world.permit();
    for (i, site) in plan.sites.iter().enumerate() {
        let descriptor = net.get(&site.dataset).unwrap();
        prop_assert!(permit(descriptor, &site_context(plan, i)).allowed);
    }
    let (ms, bytes, cost) = by_hand(world, net, &set, aggregator, plan.aggregator_spares.len());
    let near = |a: u64, b: f64| (a as f64 - b).abs() <= 1.0 + 1e-6 * b;
    prop_assert!(near(plan.prediction.ms, ms), "{} {ms}", plan.prediction.ms);
    prop_assert!(
        near(plan.prediction.bytes, bytes),
        "{} {bytes}",
        plan.prediction.bytes
    );
    prop_assert!(
        near(plan.prediction.cost_micros, cost),
        "{} {cost}",
        plan.prediction.cost_micros
    );
    let mut ids: Vec<_> = plan.sites.iter().map(|site| site.dataset.clone()).collect();
    ids.sort();
    prop_assert!(
        ids.iter().eq(plan.sites.iter().map(|site| &site.dataset)),
        "sites are sorted"
    );
    Ok(())
}

fn is_feasible(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Feasible { .. })
}

/// Relaxes one bound.
fn relax(request: &mut TrainingRequest, which: usize, by: u64) {
    let more = |bound: &mut Option<u64>| *bound = bound.map(|b| b + by * 50);
    let sla = &mut request.sla;
    match which {
        0 => more(&mut sla.deadline_ms),
        1 => more(&mut sla.bytes_max),
        2 => more(&mut sla.cost_micros_max),
        3 => sla.sites_min = sla.sites_min.saturating_sub(1).max(1),
        4 => sla.sites_max += 1,
        5 => sla.records_min = sla.records_min.saturating_sub(by * 50),
        6 => sla.deadline_ms = None,
        7 => sla.bytes_max = None,
        _ => sla.cost_micros_max = None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_verdict_is_what_an_exhaustive_search_finds(world in world()) {
        let net = world.net();
        let request = world.request();
        match world.verdict(&request) {
            Verdict::Feasible { plan } => check_plan(&world, &net.0, &request, &plan)?,
            Verdict::Infeasible { binding, nearest, .. } => {
                prop_assert!(!exists(&world, &net.0, &request), "one exists");
                prop_assert!(!binding.is_empty());
                // The nearest request keeps everything but bounds, only relaxes, and can be met.
                if let Some(nearest) = nearest {
                    prop_assert!(nearest.sla.sites_min <= request.sla.sites_min);
                    prop_assert!(nearest.sla.sites_max >= request.sla.sites_max);
                    prop_assert!(nearest.sla.records_min <= request.sla.records_min);
                    prop_assert!(nearest.sla.deadline_ms >= request.sla.deadline_ms);
                    prop_assert!(nearest.sla.bytes_max >= request.sla.bytes_max);
                    prop_assert!(nearest.sla.cost_micros_max >= request.sla.cost_micros_max);
                    let mut same = (*nearest).clone();
                    same.sla = request.sla.clone();
                    prop_assert_eq!(&same, &request);
                    match world.verdict(&nearest) {
                        Verdict::Feasible { plan } => check_plan(&world, &net.0, &nearest, &plan)?,
                        Verdict::Infeasible { binding, .. } => prop_assert!(false, "{binding:?}"),
                    }
                } else {
                    // There is none only if nobody at all would take part.
                    let mut open = request.clone();
                    (open.sla.sites_min, open.sla.sites_max, open.sla.records_min) = (1, 99, 0);
                    (open.sla.deadline_ms, open.sla.bytes_max, open.sla.cost_micros_max) = (None, None, None);
                    prop_assert!(!exists(&world, &net.0, &open));
                }
            }
        }
    }

    #[test]
    fn relaxing_a_bound_never_makes_a_request_infeasible(world in world(), which in 0_usize..9, by in 1_u64..100) {
        let mut request = world.request();
        if matches!(world.verdict(&request), Verdict::Feasible { .. }) {
            relax(&mut request, which, by);
            prop_assert!(is_feasible(&world.verdict(&request)), "{:?}", request.sla);
        }
    }
}

/// Networks too large for an exhaustive search, with owners who only ask for company.
#[derive(Debug, Clone)]
struct Crowd {
    sites: Vec<(u64, u64, u64, u32)>,
    kind: Option<PlanKind>,
    sites_min: u32,
    sites_max: u32,
    records_min: u64,
    deadline_ms: Option<u64>,
    cost_max: Option<u64>,
}

prop_compose! {
    fn crowd()(
        sites in prop::collection::vec((1_u64..50, 1_u64..1_000, 0_u64..500, 0_u32..12), 9..40),
        kind in proptest::sample::select(vec![None, Some(PlanKind::Rounds), Some(PlanKind::Itinerary), Some(PlanKind::Hybrid)]),
        sites_min in 1_u32..8, sites_more in 0_u32..40, records_min in 0_u64..100_000,
        deadline_ms in proptest::option::of(600_u64..20_000), cost_max in proptest::option::of(0_u64..400_000),
    ) -> Crowd {
        Crowd { sites, kind, sites_min, sites_max: sites_min + sites_more, records_min, deadline_ms, cost_max }
    }
}

impl Crowd {
    fn net(&self) -> Net {
        let mut net = Net::default();
        net.furnished();
        for (i, (records, rate, price, _)) in self.sites.iter().enumerate() {
            let body = dataset_with(records * 100, None, |body| {
                body.compute_rate = rate * 1_000_000;
                body.price_micros_per_thousand = *price;
            });
            net.entity(&format!("dataset:org-{i:02}/data"), body);
        }
        net
    }

    fn request(&self) -> TrainingRequest {
        let mut request = request();
        request.training.kind = self.kind;
        request.sla.sites_min = self.sites_min;
        request.sla.sites_max = self.sites_max;
        request.sla.records_min = self.records_min;
        request.sla.deadline_ms = self.deadline_ms;
        request.sla.cost_micros_max = self.cost_max;
        request
    }

    fn verdict(&self, request: &TrainingRequest) -> Verdict {
        verdict_with(&self.net(), request, |descriptor, context| {
            let i: usize = descriptor.organisation().as_str()[4..].parse().unwrap();
            if context.cohort >= self.sites[i].3 {
                allow(&["company"])
            } else {
                deny(&["alone"])
            }
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_a_crowd_plans_keep_bounds_relaxing_helps_and_the_nearest_can_be_met(
        crowd in crowd(), which in 0_usize..9, by in 1_u64..100,
    ) {
        let request = crowd.request();
        match crowd.verdict(&request) {
            Verdict::Feasible { plan } => {
                let n = u32::try_from(plan.sites.len()).unwrap();
                prop_assert!(n >= crowd.sites_min && n <= crowd.sites_max);
                prop_assert!(plan.sites.iter().map(|s| s.records).sum::<u64>() >= crowd.records_min);
                prop_assert!(crowd.deadline_ms.is_none_or(|max| plan.prediction.ms <= max));
                prop_assert!(crowd.cost_max.is_none_or(|max| plan.prediction.cost_micros <= max));
                let mut visited = plan.chains.concat();
                visited.sort_unstable();
                prop_assert_eq!(visited, (0..n).collect::<Vec<u32>>());
                for site in &plan.sites {
                    let i: usize = site.organisation.as_str()[4..].parse().unwrap();
                    let company = if plan.kind == PlanKind::Rounds { n } else { 1 };
                    prop_assert!(company >= crowd.sites[i].3, "{} wants {}", site.dataset, crowd.sites[i].3);
                }
                let mut relaxed = request.clone();
                relax(&mut relaxed, which, by);
                prop_assert!(is_feasible(&crowd.verdict(&relaxed)), "{:?}", relaxed.sla);
            }
            Verdict::Infeasible { binding, nearest, .. } => {
                prop_assert!(!binding.is_empty());
                // Owners who ask for little enough company can always be brought together.
                let mut wanted: Vec<u32> = crowd.sites.iter().map(|site| site.3).collect();
                wanted.sort_unstable();
                let travels = matches!(crowd.kind, Some(PlanKind::Itinerary | PlanKind::Hybrid));
                let together = wanted.iter().zip(1..).any(|(wants, n)| *wants <= if travels { 1 } else { n });
                prop_assert_eq!(nearest.is_some(), together);
                if let Some(nearest) = nearest {
                    prop_assert!(is_feasible(&crowd.verdict(&nearest)), "{:?}", nearest.sla);
                }
            }
        }
    }
}
