//! Step 2: what a set of sites costs. Time, bytes and price of each kind of plan, as closed formulas.
//!
//! With model bytes `B`, one-way transfer between aggregator and site `x_i = rtt + B/bandwidth`, local work `t_i` and `n`
//! sites, one cycle takes
//!
//! ```text
//! rounds      max( max_i(2·f·x_i + t_i), 2·f·n·B/A ) + n·f·B/G + n·a + b
//! itinerary   Σ_i (t_i + d) + (n − 1)·mean hop + 2·mean x + B/G + b
//! hybrid      max over chains of itinerary's sums, + c·B/G + b
//! ```
//!
//! where `f` is 2 for SCAFFOLD (control variates travel too) and 1 otherwise, `A` the aggregator's best throughput, `G`
//! the speed of combining, and `a`, `b`, `d` the overheads below. The whole job is preparation, all cycles, verification
//! and deployment.

// The overheads below are of a network of processes on two cores, see bench/README.md.

use super::situation::{Candidate, Conductors, Situation};
use crate::{numbers, reachability::Path};
use daitn_messages::{ids::NodeId, learning::Strategy};

/// Preparing a job: sign orders, evaluate policies, answer, begin.
const PREPARE_MS: f64 = 50.0;
/// Preparing one site: an order signed, stored and answered; the center does them in sequence.
const PREPARE_SITE_MS: f64 = 1.0;
/// A cycle's own overhead: state written and synced at the aggregator, report to the control center.
const CYCLE_MS: f64 = 10.0;
/// One more site in a round: a session, a receipt checked, an update admitted.
const SITE_MS: f64 = 1.0;
/// One hop of a travelling model: a session, a verified artifact, weights loaded, a receipt signed and stored.
const HOP_MS: f64 = 10.0;
/// Combining updates, bytes a millisecond: a weighted mean in 64-bit runs at about 1 GB/s on one core.
const COMBINE_BYTES_PER_MS: f64 = 1_000_000.0;
/// Speed that is assumed of a verification unit, multiply-adds a millisecond: one slow core.
const VERIFY_RATE_PER_MS: f64 = 100_000.0;
/// Judging and registering besides: an order, a report, signatures.
const VERIFY_MS: f64 = 30.0;
/// Loading a model on a host and telling the gateways.
const DEPLOY_MS: f64 = 50.0;
/// Bytes of control messages for a site and cycle: session header, receipt, report.
const MESSAGE_BYTES: f64 = 2_048.0;

/// What one candidate contributes.
pub(super) struct Leg {
    /// Moving the model between aggregator and site, one way.
    pub(super) transfer_ms: f64,
    /// One cycle's local work, with what it takes to reach the compute.
    pub(super) train_ms: f64,
    /// The table that goes to a facility in each cycle.
    pub(super) table_bytes: f64,
    /// Data and compute for the whole job, micro-units.
    pub(super) cost_micros: f64,
    pub(super) records: u64,
    /// Whether the way to it was measured.
    known: bool,
}

/// How sites are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrangement {
    Rounds,
    Itinerary,
    /// In this many chains for each site there is.
    Hybrid(Chains),
}

/// How many chains a hybrid has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chains {
    Two,
    Root,
    Quarter,
}

impl Chains {
    /// For this many sites.
    pub(super) fn count(self, n_sites: usize) -> usize {
        let wanted = match self {
            Self::Two => 2,
            Self::Root => n_sites.isqrt(),
            Self::Quarter => n_sites / 4,
        };
        wanted.clamp(2, (n_sites / 2).max(2)).min(n_sites)
    }
}

/// What a set of sites costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Totals {
    pub(super) ms: f64,
    pub(super) cycle_ms: f64,
    pub(super) bytes: f64,
    pub(super) cost_micros: f64,
    pub(super) records: u64,
    pub(super) known: bool,
}

/// Transfer times between candidates that a model may travel through.
pub(super) struct Hops {
    /// Candidate to row; `None` for those too many.
    rows: Vec<Option<u32>>,
    n: usize,
    ms: Vec<f64>,
}

impl Hops {
    /// Of these candidates.
    pub(super) fn new(situation: &Situation<'_>, pool: &[u32]) -> Self {
        let mut rows = vec![None; situation.candidates.len()];
        for (row, candidate) in pool.iter().enumerate() {
            rows[*candidate as usize] = Some(numbers::index(row));
        }
        let node = |c: &u32| situation.candidates[*c as usize].descriptor.node;
        let n = pool.len();
        let mut ms = vec![0.0; n * n];
        for (a, from) in pool.iter().enumerate() {
            for (b, to) in pool.iter().enumerate().skip(a + 1) {
                let path = situation.topology.path(node(from), node(to));
                let hop_ms = path.transfer_ms(situation.model.bytes);
                ms[a * n + b] = hop_ms;
                ms[b * n + a] = hop_ms;
            }
        }
        Self { rows, n, ms }
    }

    /// Between two candidates.
    pub(super) fn between(&self, a: u32, b: u32) -> f64 {
        let row = |c: u32| self.rows[c as usize].expect("chained plans are made of the pool") as usize;
        self.ms[row(a) * self.n + row(b)]
    }

    /// Mean over all pairs of a chain; zero for one site.
    fn mean(&self, chain: &[u32]) -> f64 {
        let mut total = 0.0;
        for (i, a) in chain.iter().enumerate() {
            for b in &chain[i + 1..] {
                total += self.between(*a, *b);
            }
        }
        let n_pairs = chain.len() * chain.len().saturating_sub(1) / 2;
        total / n_pairs.max(1) as f64
    }
}

/// The prices and times of all candidates under one aggregator and strategy.
pub(super) struct Costing<'s, 'a> {
    pub(super) situation: &'s Situation<'a>,
    pub(super) legs: Vec<Leg>,
    pub(super) hops: Option<&'s Hops>,
    bytes: f64,
    /// SCAFFOLD moves twice as much.
    factor: f64,
    aggregator_bytes_per_ms: f64,
    price_micros_per_gb: f64,
    /// What goes to spares after each cycle.
    spare_bytes: f64,
    n_rounds: f64,
    /// Verification and deployment.
    tail_ms: f64,
    tail_bytes: f64,
}

impl<'s, 'a> Costing<'s, 'a> {
    pub(super) fn new(
        situation: &'s Situation<'a>,
        conductors: &Conductors<'_>,
        strategy: &Strategy,
        hops: Option<&'s Hops>,
    ) -> Self {
        let bytes = situation.model.bytes as f64;
        let (tail_ms, tail_bytes) = tail(situation, conductors.main.node);
        let aggregator = conductors.main.node;
        Self {
            situation,
            legs: situation
                .candidates
                .iter()
                .map(|candidate| leg(situation, candidate, aggregator))
                .collect(),
            hops,
            bytes,
            factor: if matches!(strategy, Strategy::Scaffold) {
                2.0
            } else {
                1.0
            },
            aggregator_bytes_per_ms: situation.topology.reachability.access(aggregator),
            price_micros_per_gb: conductors.price_micros_per_gb as f64,
            spare_bytes: conductors.spares.len() as f64 * bytes * state_models(strategy),
            n_rounds: f64::from(situation.request.training.rounds),
            tail_ms,
            tail_bytes,
        }
    }

    /// What this set costs in this arrangement; a hybrid's chains are formed by nearness.
    pub(super) fn totals(&self, arrangement: Arrangement, set: &[u32]) -> Totals {
        match arrangement {
            Arrangement::Rounds => self.rounds(set),
            Arrangement::Itinerary => self.chained(&[set.to_vec()], None),
            Arrangement::Hybrid(chains) => {
                self.chained(&super::chains::near(self, set, chains.count(set.len())), None)
            }
        }
    }

    fn rounds(&self, set: &[u32]) -> Totals {
        let n = set.len() as f64;
        let legs = || set.iter().map(|i| &self.legs[*i as usize]);
        let moved = 2.0 * self.factor * n * self.bytes;
        let slowest_ms = legs()
            .map(|leg| 2.0 * self.factor * leg.transfer_ms + leg.train_ms)
            .fold(0.0, f64::max);
        let cycle_ms = slowest_ms.max(moved / self.aggregator_bytes_per_ms)
            + self.factor * n * self.bytes / COMBINE_BYTES_PER_MS
            + n * SITE_MS
            + CYCLE_MS;
        self.sum_up(set, cycle_ms, moved, self.factor * n * self.bytes)
    }

    /// What these chains cost. The mean over all orders, or, where an order is given, that order.
    pub(super) fn chained(&self, chains: &[Vec<u32>], order: Option<&[Vec<u32>]>) -> Totals {
        let set: Vec<u32> = chains.concat();
        let hops = self.hops.expect("chained plans are costed with hops");
        let chain_ms = |chain: &Vec<u32>| {
            let n = chain.len() as f64;
            let legs = || chain.iter().map(|i| &self.legs[*i as usize]);
            let work: f64 = legs().map(|leg| leg.train_ms + HOP_MS).sum();
            let mean_leg = legs().map(|leg| leg.transfer_ms).sum::<f64>() / n.max(1.0);
            work + (n - 1.0).max(0.0) * hops.mean(chain) + 2.0 * mean_leg
        };
        let ordered_ms = |chain: &Vec<u32>| {
            let work: f64 = chain
                .iter()
                .map(|i| self.legs[*i as usize].train_ms + HOP_MS)
                .sum();
            let ends = chain
                .first()
                .into_iter()
                .chain(chain.last())
                .map(|i| self.legs[*i as usize].transfer_ms);
            let between = chain.windows(2).map(|pair| hops.between(pair[0], pair[1]));
            work + ends.sum::<f64>() + between.sum::<f64>()
        };
        let longest_ms = match order {
            Some(order) => order.iter().map(ordered_ms).fold(0.0, f64::max),
            None => chains.iter().map(chain_ms).fold(0.0, f64::max),
        };
        let ends = chains.len() as f64 * self.bytes;
        let cycle_ms = longest_ms + ends / COMBINE_BYTES_PER_MS + CYCLE_MS;
        self.sum_up(&set, cycle_ms, set.len() as f64 * self.bytes + ends, ends)
    }

    /// The whole job from one cycle: its time, what it moves, and what of that reaches the aggregator.
    fn sum_up(&self, set: &[u32], cycle_ms: f64, moved: f64, combined: f64) -> Totals {
        let n = set.len() as f64;
        let mut records = 0_u64;
        let (mut tables, mut cost, mut known) = (0.0, 0.0, true);
        for leg in set.iter().map(|i| &self.legs[*i as usize]) {
            records = records.saturating_add(leg.records);
            tables += leg.table_bytes;
            cost += leg.cost_micros;
            known &= leg.known;
        }
        let cycle_bytes = moved + tables + self.spare_bytes + n * MESSAGE_BYTES;
        Totals {
            ms: PREPARE_MS + n * PREPARE_SITE_MS + self.n_rounds * cycle_ms + self.tail_ms,
            cycle_ms,
            bytes: self.n_rounds * cycle_bytes + self.tail_bytes,
            cost_micros: cost + self.n_rounds * combined / 1e9 * self.price_micros_per_gb,
            records,
            known,
        }
    }
}

/// Models that a strategy's state holds: weights, and momenta or control variates.
fn state_models(strategy: &Strategy) -> f64 {
    match strategy {
        Strategy::FedAvg | Strategy::FedProx { .. } => 1.0,
        Strategy::FedAvgM { .. } | Strategy::FedAdagrad { .. } | Strategy::Scaffold => 2.0,
        Strategy::FedAdam { .. } | Strategy::FedYogi { .. } => 3.0,
    }
}

fn leg(situation: &Situation<'_>, candidate: &Candidate<'_>, aggregator: NodeId) -> Leg {
    let request = situation.request;
    let records = candidate.body.records;
    let epochs = f64::from(request.training.local.epochs);
    let n_rounds = f64::from(request.training.rounds);
    let path = situation.topology.path(aggregator, candidate.descriptor.node);
    let work_ms = situation.model.train(records) * epochs / candidate.rate_per_ms;
    let used = records as f64 * epochs * n_rounds / 1_000.0;
    let data_micros = used * candidate.body.price_micros_per_thousand as f64;
    let (to_facility, table_bytes, compute_micros) = match candidate.facility {
        None => (Path::SELF, 0.0, 0.0),
        Some(facility) => {
            let columns = request.features.len() as f64 + 1.0;
            let path = situation
                .topology
                .path(candidate.descriptor.node, facility.descriptor.node);
            let hours = work_ms * n_rounds / 3.6e6;
            (
                path,
                records as f64 * columns * 4.0 + 2.0 * situation.model.bytes as f64,
                hours * facility.body.price_micros_per_hour as f64,
            )
        }
    };
    Leg {
        transfer_ms: path.transfer_ms(situation.model.bytes),
        train_ms: work_ms + to_facility.rtt_ms + table_bytes / to_facility.bytes_per_ms,
        table_bytes,
        cost_micros: data_micros + compute_micros,
        records,
        known: path.known && to_facility.known,
    }
}

/// Verification and deployment: time and bytes, whatever the sites.
fn tail(situation: &Situation<'_>, aggregator: NodeId) -> (f64, f64) {
    let bytes = situation.model.bytes;
    let n_units = situation.n_units().min(situation.units.len());
    let to = |node: NodeId| situation.topology.path(aggregator, node).transfer_ms(bytes);
    let records = situation.units.iter().filter_map(|unit| match &unit.body {
        daitn_messages::descriptor::Body::Verifier(body) => Some(body.records),
        _ => None,
    });
    let judged = situation.model.forward as f64 * records.max().unwrap_or(0) as f64;
    let slowest_unit = situation
        .units
        .iter()
        .map(|unit| to(unit.node))
        .fold(0.0, f64::max);
    let slowest_host = situation
        .hosts
        .iter()
        .map(|host| to(host.node))
        .fold(0.0, f64::max);
    let deploy_ms = if situation.hosts.is_empty() {
        0.0
    } else {
        DEPLOY_MS + slowest_host
    };
    let ms = VERIFY_MS + slowest_unit + judged / VERIFY_RATE_PER_MS + deploy_ms;
    let moved = (n_units + situation.hosts.len()) as f64 * bytes as f64;
    (ms, moved)
}
