//! The core by cases, and by random runs against what must always hold.

use super::*;
use daitn_messages::{ids::ArtifactId, session::ArtifactRef};
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};

fn course(chains: &[&[u32]], quorum: u32, cycles: u32) -> Course {
    Course {
        chains: chains.iter().map(|chain| chain.to_vec()).collect(),
        shuffle: false,
        seed: 1,
        quorum,
        cycles,
        deadline_ms: 1_000,
    }
}

fn step(site: u32, cycle: u32) -> Step {
    let id = ArtifactId::of(format!("{site} {cycle}").as_bytes());
    Step {
        site,
        output: ArtifactRef { id, bytes: 8 },
        control: None,
        examples: 10,
        loss: 1.0,
        train_ms: 1.0,
    }
}

fn lost() -> Rejection {
    Rejection::new(Code::NodeLost, "gone")
}

fn bad() -> Rejection {
    Rejection::new(Code::UpdateRefused, "not finite")
}

/// Runs the core and remembers what it asked for.
struct Bench {
    core: Core,
    now: u64,
    asks: VecDeque<(Ticket, u32, Input)>,
    checks: VecDeque<(Ticket, Step)>,
    watched: BTreeSet<u32>,
    wake: Option<u64>,
    closing: Option<Closing>,
    finished: bool,
    failed: Option<TrainingFailed>,
}

impl Bench {
    fn new(course: Course) -> Self {
        let mut bench = Self {
            core: Core::new(course, 0),
            now: 0,
            asks: VecDeque::new(),
            checks: VecDeque::new(),
            watched: BTreeSet::new(),
            wake: None,
            closing: None,
            finished: false,
            failed: None,
        };
        bench.on(Event::Begin);
        bench
    }

    fn on(&mut self, event: Event) {
        for effect in self.core.on(event, UnixMillis(self.now)) {
            match effect {
                Effect::Ask {
                    ticket, site, input, ..
                } => self.asks.push_back((ticket, site, input)),
                Effect::Check { ticket, step } => self.checks.push_back((ticket, step)),
                Effect::Forget(ticket) => {
                    self.asks.retain(|(other, ..)| *other != ticket);
                    self.checks.retain(|(other, _)| *other != ticket);
                }
                Effect::Watch { site } => {
                    self.watched.insert(site);
                }
                Effect::WakeAt(at) => self.wake = Some(at.0),
                Effect::Combine(closing) => assert!(self.closing.replace(closing).is_none(), "closed twice"),
                Effect::Finish => self.finished = true,
                Effect::Fail(reason) => self.failed = Some(reason),
            }
        }
    }

    /// The request to a site that is open now.
    fn asked(&mut self, site: u32) -> (Ticket, Input) {
        let place = self.asks.iter().position(|(_, asked, _)| *asked == site);
        let place = place.unwrap_or_else(|| panic!("site {site} is not asked: {:?}", self.asks));
        let (ticket, _, input) = self.asks.remove(place).unwrap();
        (ticket, input)
    }

    fn train(&mut self, site: u32) {
        let (ticket, _) = self.asked(site);
        let step = step(site, self.core.cycle());
        self.on(Event::Trained { ticket, step });
    }

    fn decline(&mut self, site: u32, reason: Rejection, fault: Fault) {
        let (ticket, _) = self.asked(site);
        self.on(Event::Declined {
            ticket,
            reason,
            fault,
        });
    }

    fn check(&mut self, site: u32, result: Result<(), Rejection>) {
        let (ticket, step) = self.checks.pop_front().expect("something is looked at");
        assert_eq!(step.site, site);
        self.on(Event::Checked { ticket, result });
    }

    fn tick_at(&mut self, now: u64) {
        self.now = now;
        self.on(Event::Tick);
    }

    fn sites(&self) -> Vec<Vec<u32>> {
        let closing = self.closing.as_ref().expect("the cycle is closed");
        closing
            .ends
            .iter()
            .map(|steps| steps.iter().map(|step| step.site).collect())
            .collect()
    }

    fn left_out(&self) -> Vec<(u32, Code)> {
        self.closing
            .as_ref()
            .unwrap()
            .left_out
            .iter()
            .map(|(site, reason)| (*site, reason.code))
            .collect()
    }

    fn combined(&mut self) {
        self.closing = None;
        self.on(Event::Combined);
    }
}

#[test]
fn a_round_closes_when_all_have_answered_in_the_order_of_the_sites() {
    let mut bench = Bench::new(course(&[&[2], &[0], &[1]], 2, 1));
    for site in [1, 2, 0] {
        bench.train(site);
        assert!(bench.closing.is_none());
    }
    for site in [1, 2, 0] {
        bench.check(site, Ok(()));
    }
    assert_eq!(bench.sites(), [vec![0], vec![1], vec![2]]);
    assert!(bench.left_out().is_empty());
    bench.combined();
    assert!(bench.finished);
}

#[test]
fn a_lost_site_does_not_stall_the_round() {
    let mut bench = Bench::new(course(&[&[0], &[1], &[2]], 2, 3));
    bench.decline(1, lost(), Fault::Way);
    for site in [0, 2] {
        bench.train(site);
        bench.check(site, Ok(()));
    }
    assert_eq!(bench.sites(), [vec![0], vec![2]]);
    assert_eq!(bench.left_out(), [(1, Code::NodeLost)]);
    assert!(bench.watched.contains(&1));
    // It is not asked in the next round either, until it is seen again.
    bench.combined();
    assert_eq!(bench.asks.iter().map(|ask| ask.1).collect::<Vec<_>>(), [0, 2]);
    bench.on(Event::Reachable { site: 1 });
    for site in [0, 2] {
        bench.train(site);
        bench.check(site, Ok(()));
    }
    assert_eq!(bench.left_out(), [(1, Code::NodeLost)]);
    bench.combined();
    assert_eq!(bench.asks.len(), 3);
}

#[test]
fn a_silent_site_costs_one_deadline_and_is_then_spared() {
    let mut bench = Bench::new(course(&[&[0], &[1], &[2]], 2, 4));
    for site in [0, 1] {
        bench.train(site);
        bench.check(site, Ok(()));
    }
    assert!(bench.closing.is_none(), "the round waits for the third");
    assert_eq!(bench.wake, Some(1_000));
    bench.tick_at(1_000);
    assert_eq!(bench.sites(), [vec![0], vec![1]]);
    assert_eq!(bench.left_out(), [(2, Code::DeadlinePassed)]);
    bench.combined();
    assert_eq!(bench.asks.len(), 2, "not asked in the next round");
    for site in [0, 1] {
        bench.train(site);
        bench.check(site, Ok(()));
    }
    bench.combined();
    assert_eq!(bench.asks.len(), 3, "asked again in the one after");
}

#[test]
fn a_late_answer_counts_for_nothing() {
    let mut bench = Bench::new(course(&[&[0], &[1]], 1, 2));
    let (late, _) = bench.asked(1);
    bench.train(0);
    bench.check(0, Ok(()));
    bench.tick_at(1_000);
    assert_eq!(bench.sites(), [vec![0]]);
    bench.on(Event::Trained {
        ticket: late,
        step: step(1, 0),
    });
    bench.combined();
    bench.on(Event::Trained {
        ticket: late,
        step: step(1, 0),
    });
    bench.train(0);
    bench.check(0, Ok(()));
    assert_eq!(bench.sites(), [vec![0]]);
}

#[test]
fn an_update_that_is_not_admitted_is_left_out() {
    let mut bench = Bench::new(course(&[&[0], &[1], &[2]], 2, 1));
    for site in [0, 1, 2] {
        bench.train(site);
    }
    bench.check(0, Ok(()));
    bench.check(1, Err(bad()));
    bench.check(2, Ok(()));
    assert_eq!(bench.sites(), [vec![0], vec![2]]);
    assert_eq!(bench.left_out(), [(1, Code::UpdateRefused)]);
}

#[test]
fn weights_travel_along_a_chain_and_only_the_end_is_looked_at() {
    let mut bench = Bench::new(course(&[&[0, 1, 2]], 2, 1));
    assert_eq!(bench.asked(0).1, Input::Global);
    let mut bench = Bench::new(course(&[&[0, 1, 2]], 2, 1));
    bench.train(0);
    let input = bench.asks[0].2;
    assert_eq!(
        input,
        Input::Of {
            step: step(0, 0),
            held: false
        }
    );
    bench.train(1);
    bench.train(2);
    bench.check(2, Ok(()));
    assert_eq!(bench.sites(), [vec![0, 1, 2]]);
}

#[test]
fn a_chain_skips_a_dead_site_and_goes_on_from_the_last_good_weights() {
    let mut bench = Bench::new(course(&[&[0, 1, 2]], 2, 1));
    bench.train(0);
    bench.decline(1, lost(), Fault::Way);
    let (ticket, input) = bench.asked(2);
    assert_eq!(
        input,
        Input::Of {
            step: step(0, 0),
            held: false
        }
    );
    bench.on(Event::Trained {
        ticket,
        step: step(2, 0),
    });
    bench.check(2, Ok(()));
    assert_eq!(bench.sites(), [vec![0, 2]]);
}

#[test]
fn a_site_that_dies_with_its_weights_is_dropped_from_the_chain() {
    let mut bench = Bench::new(course(&[&[0, 1, 2]], 2, 1));
    bench.train(0);
    bench.train(1);
    // Site 2 cannot get the weights of site 1, and neither can the conductor.
    bench.decline(2, Rejection::new(Code::Unreachable, "site 1"), Fault::Input);
    bench.check(1, Err(lost()));
    let (ticket, input) = bench.asked(2);
    assert_eq!(
        input,
        Input::Of {
            step: step(0, 0),
            held: false
        }
    );
    bench.on(Event::Trained {
        ticket,
        step: step(2, 0),
    });
    bench.check(2, Ok(()));
    assert_eq!(bench.sites(), [vec![0, 2]]);
    assert_eq!(bench.left_out(), [(1, Code::NodeLost)]);
}

#[test]
fn a_site_that_blames_a_good_predecessor_is_left_out_itself() {
    let mut bench = Bench::new(course(&[&[0, 1]], 1, 1));
    bench.train(0);
    bench.decline(1, bad(), Fault::Input);
    bench.check(0, Ok(()));
    let (ticket, input) = bench.asked(1);
    assert_eq!(
        input,
        Input::Of {
            step: step(0, 0),
            held: true
        }
    );
    bench.on(Event::Declined {
        ticket,
        reason: bad(),
        fault: Fault::Input,
    });
    assert_eq!(bench.sites(), [vec![0]]);
    assert_eq!(bench.left_out(), [(1, Code::UpdateRefused)]);
}

#[test]
fn the_bad_end_of_a_chain_is_cut_back_to_the_last_good_weights() {
    let mut bench = Bench::new(course(&[&[0, 1]], 1, 1));
    bench.train(0);
    bench.train(1);
    bench.check(1, Err(bad()));
    bench.check(0, Ok(()));
    assert_eq!(bench.sites(), [vec![0]]);
}

#[test]
fn a_missed_quorum_is_tried_again_and_then_fails_with_every_reason() {
    let mut bench = Bench::new(course(&[&[0], &[1]], 2, 1));
    for attempt in 1..=ATTEMPTS_MAX {
        bench.train(0);
        bench.check(0, Ok(()));
        bench.decline(1, lost(), Fault::Way);
        assert!(bench.failed.is_none() && bench.closing.is_none());
        bench.tick_at(bench.wake.unwrap());
        assert_eq!(bench.failed.is_some(), attempt == ATTEMPTS_MAX);
    }
    let failed = bench.failed.unwrap();
    assert_eq!((failed.reason.code, failed.cycle), (Code::QuorumMissed, 0));
    assert_eq!(failed.left_out, [(1, lost())]);
}

#[test]
fn a_site_that_comes_back_completes_the_quorum() {
    let mut bench = Bench::new(course(&[&[0], &[1]], 2, 1));
    bench.train(0);
    bench.check(0, Ok(()));
    bench.decline(1, lost(), Fault::Way);
    bench.on(Event::Reachable { site: 1 });
    for site in [0, 1] {
        bench.train(site);
        bench.check(site, Ok(()));
    }
    assert_eq!(bench.sites(), [vec![0], vec![1]]);
}

#[test]
fn an_owner_who_forbids_ends_the_job_where_the_quorum_needs_him() {
    let mut bench = Bench::new(course(&[&[0], &[1]], 2, 1));
    bench.decline(1, Rejection::new(Code::PolicyForbids, "no"), Fault::Site);
    bench.train(0);
    bench.check(0, Ok(()));
    let failed = bench.failed.unwrap();
    assert_eq!(failed.reason.code, Code::QuorumMissed);
    assert_eq!(failed.left_out[0].1.code, Code::PolicyForbids);
}

#[test]
fn a_training_that_diverges_everywhere_is_the_cause_and_not_the_sites() {
    let diverged = || Rejection::new(Code::Diverged, "at step 2");
    for (other, cause) in [
        (diverged(), Code::Diverged),
        (Rejection::new(Code::PolicyForbids, "no"), Code::QuorumMissed),
    ] {
        let mut bench = Bench::new(course(&[&[0], &[1]], 2, 1));
        bench.decline(0, diverged(), Fault::Site);
        bench.decline(1, other, Fault::Site);
        assert_eq!(bench.failed.unwrap().reason.code, cause);
    }
}

#[test]
fn sites_that_are_left_out_alike_are_told_of_together() {
    let told = |left_out: &[(u32, Rejection)]| {
        super::super::roster::reasons(left_out, |site| Some(format!("site {site}")))
    };
    assert_eq!(told(&[]), "");
    assert_eq!(
        told(&[(0, lost()), (1, bad()), (2, lost())]),
        "site 0, site 2: E0408: gone; site 1: E0403: not finite"
    );
    let many: Vec<(u32, Rejection)> = (0..10_000).map(|site| (site, bad())).collect();
    assert_eq!(
        told(&many),
        "site 0, site 1, site 2, site 3 and 9996 more: E0403: not finite"
    );
    let each: Vec<(u32, Rejection)> = (0..9)
        .map(|site| (site, Rejection::new(Code::DataUnusable, format!("row {site}"))))
        .collect();
    assert!(told(&each).ends_with("site 3: E0405: row 3 and 5 more"));
}

#[test]
fn orders_differ_by_cycle_and_repeat_by_seed() {
    let order = |seed, cycle| {
        let mut order: Vec<u32> = (0..8).collect();
        super::super::roster::shuffle(&mut order, seed, cycle, 0);
        order
    };
    assert_eq!(order(1, 0), order(1, 0));
    assert_ne!(order(1, 0), order(1, 1));
    assert_ne!(order(1, 0), order(2, 0));
    let mut sorted = order(1, 0);
    sorted.sort_unstable();
    assert_eq!(sorted, (0..8).collect::<Vec<_>>());
}

/// One thing that may happen next; numbers choose among what is open.
#[derive(Debug, Clone)]
enum Chance {
    Train(usize),
    Decline(usize, u8),
    Check(usize, bool),
    Again(usize),
    Reachable(u32),
    Tick,
    Pass(u64),
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        6 => any::<usize>().prop_map(Chance::Train),
        2 => (any::<usize>(), any::<u8>()).prop_map(|(n, code)| Chance::Decline(n, code)),
        6 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(n, good)| Chance::Check(n, good)),
        1 => any::<usize>().prop_map(Chance::Again),
        1 => (0..8_u32).prop_map(Chance::Reachable),
        1 => Just(Chance::Tick),
        1 => (1..2_000_u64).prop_map(Chance::Pass),
    ]
}

fn reason(code: u8) -> (Rejection, Fault) {
    match code % 5 {
        0 => (Rejection::new(Code::PolicyForbids, "no"), Fault::Site),
        1 => (bad(), Fault::Site),
        2 => (Rejection::new(Code::Unreachable, "input"), Fault::Input),
        _ => (lost(), Fault::Way),
    }
}

fn courses() -> impl Strategy<Value = Course> {
    (
        prop::collection::vec(0..4_usize, 1..8),
        1..5_u32,
        1..4_u32,
        any::<bool>(),
    )
        .prop_map(|(places, quorum, cycles, shuffle)| {
            let mut chains = vec![Vec::new(); 4];
            for (site, place) in (0..).zip(&places) {
                chains[*place].push(site);
            }
            let n_sites = u32::try_from(places.len()).unwrap();
            Course {
                chains,
                shuffle,
                seed: 7,
                quorum: quorum.min(n_sites),
                cycles,
                deadline_ms: 1_000,
            }
        })
}

/// What must hold of every closed cycle.
fn check_closing(course: &Course, closing: &Closing, cycle: u32) {
    assert_eq!(closing.cycle, cycle, "cycles close in order, each once");
    let sites: Vec<u32> = closing.ends.iter().flatten().map(|step| step.site).collect();
    let counted: BTreeSet<u32> = sites.iter().copied().collect();
    assert_eq!(counted.len(), sites.len(), "nobody is counted twice");
    assert!(
        sites.len() as u64 >= u64::from(course.quorum),
        "the quorum is kept"
    );
    let left_out: BTreeSet<u32> = closing.left_out.iter().map(|(site, _)| *site).collect();
    assert!(
        counted.is_disjoint(&left_out),
        "a site is in the result or left out"
    );
    let all: BTreeSet<u32> = course.chains.iter().flatten().copied().collect();
    assert_eq!(
        counted.union(&left_out).copied().collect::<BTreeSet<_>>(),
        all,
        "everybody is accounted for"
    );
    for steps in &closing.ends {
        let chain = course
            .chains
            .iter()
            .find(|chain| chain.contains(&steps[0].site))
            .unwrap();
        assert!(
            steps.iter().all(|step| chain.contains(&step.site)),
            "an end is of one chain"
        );
        assert!(
            steps
                .iter()
                .all(|step| step.output == super::tests::step(step.site, cycle).output),
            "of this cycle"
        );
    }
    let firsts: Vec<u32> = closing
        .ends
        .iter()
        .map(|steps| {
            let chain = course
                .chains
                .iter()
                .find(|chain| chain.contains(&steps[0].site))
                .unwrap();
            *chain.iter().min().unwrap()
        })
        .collect();
    assert!(firsts.is_sorted(), "sums are taken in one order");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_site_counts_twice_and_the_job_ends(
        course in courses(),
        chances in prop::collection::vec(chance(), 0..120),
    ) {
        let mut bench = Bench::new(course.clone());
        let mut cycle = 0;
        let mut used: Vec<(Ticket, u32)> = Vec::new();
        for chance in chances {
            match chance {
                Chance::Train(n) if !bench.asks.is_empty() => {
                    let (ticket, site, _) = bench.asks[n % bench.asks.len()];
                    used.push((ticket, site));
                    bench.train(site);
                }
                Chance::Decline(n, code) if !bench.asks.is_empty() => {
                    let (_, site, _) = bench.asks[n % bench.asks.len()];
                    let (reason, fault) = reason(code);
                    bench.decline(site, reason, fault);
                }
                Chance::Check(n, good) if !bench.checks.is_empty() => {
                    let place = n % bench.checks.len();
                    let (ticket, _) = bench.checks.remove(place).unwrap();
                    bench.on(Event::Checked { ticket, result: if good { Ok(()) } else { Err(bad()) } });
                }
                // What was answered is answered again.
                Chance::Again(n) if !used.is_empty() => {
                    let (ticket, site) = used[n % used.len()];
                    let step = step(site, bench.core.cycle());
                    bench.on(Event::Trained { ticket, step });
                }
                Chance::Reachable(site) => bench.on(Event::Reachable { site }),
                Chance::Tick => bench.on(Event::Tick),
                Chance::Pass(ms) => bench.tick_at(bench.now + ms),
                _ => {}
            }
            if let Some(closing) = &bench.closing {
                check_closing(&course, closing, cycle);
                bench.combined();
                cycle += 1;
            }
        }
        // From here on everybody is well, and time passes: the job comes to an end.
        for _ in 0..200 {
            while let Some((_, site, _)) = bench.asks.front().copied() {
                bench.train(site);
            }
            while let Some((ticket, _)) = bench.checks.pop_front() {
                bench.on(Event::Checked { ticket, result: Ok(()) });
            }
            if let Some(closing) = &bench.closing {
                check_closing(&course, closing, cycle);
                bench.combined();
                cycle += 1;
            } else if let Some(wake) = bench.wake {
                bench.tick_at(wake);
            }
        }
        prop_assert!(bench.finished || bench.failed.is_some());
        prop_assert!(!bench.finished || cycle == course.cycles);
        prop_assert!(bench.asks.is_empty() && bench.checks.is_empty());
    }
}
