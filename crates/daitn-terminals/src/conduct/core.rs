//! The conductor's decisions, pure: `(state, event, now) -> (state, effects)`. No clock, randomness, I/O, channel or
//! await.
//!
//! A job runs `cycles` cycles. In each, all chains run side by side, the sites inside a chain one after the other; a
//! round plan has chains of one site, an itinerary has one chain. What a site made is *kept* when its receipt came and
//! *held* when the conductor has the bytes and has admitted them. A cycle closes when every chain has ended, or at its
//! deadline, if the quorum's work is in it. A site that is dead, refuses or sends what is not admitted is skipped: its
//! chain goes on from the last good weights.
//!
//! Every request to a site carries a ticket; what answers another ticket than the one a chain waits for is ignored, so
//! nobody is counted twice.

use super::{
    events::{Closing, Course, Effect, Event, Fault, Input, Step, Ticket},
    roster::Roster,
};
use daitn_messages::{
    receipt::TrainingFailed,
    rejection::{Code, Rejection},
    units::UnixMillis,
};
use std::collections::BTreeMap;

/// A cycle that misses its quorum is tried this often before the job fails: three deadlines outlast a restart.
pub(super) const ATTEMPTS_MAX: u32 = 3;
/// After its deadline a cycle waits this long for updates that are known of but not here yet.
pub(super) const CLOSING_MS: u64 = 5_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Sites work.
    Training,
    /// The deadline is over, the last updates are on their way.
    Closing,
    /// Too few answered: until the deadline a site may come back.
    Waiting,
    /// The cycle's result is being made.
    Combining,
    /// Nothing more happens.
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Kept {
    step: Step,
    held: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Asking(Ticket),
    Checking(Ticket),
    Ended,
}

/// One chain in one cycle.
#[derive(Debug, Clone, PartialEq)]
struct Run {
    order: Vec<u32>,
    /// Index of the site that is asked, or is to be asked next.
    next: usize,
    kept: Vec<Kept>,
    doing: Doing,
}

/// The state of a job's training at its conductor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Core {
    course: Course,
    roster: Roster,
    phase: Phase,
    cycle: u32,
    attempt: u32,
    began_at: UnixMillis,
    deadline: UnixMillis,
    runs: Vec<Run>,
    left_out: BTreeMap<u32, Rejection>,
    n_tickets: u64,
}

impl Core {
    /// Before cycle `cycles_done`.
    #[must_use]
    pub(super) fn new(mut course: Course, cycles_done: u32) -> Self {
        course.chains.retain(|chain| !chain.is_empty());
        // The order of the sums is the order of the sites, however the plan lists its chains.
        course.chains.sort_by_key(|chain| chain.iter().min().copied());
        Self {
            roster: Roster::new(course.chains.iter().flatten().copied()),
            course,
            phase: Phase::Ended,
            cycle: cycles_done,
            attempt: 0,
            began_at: UnixMillis(0),
            deadline: UnixMillis(0),
            runs: Vec::new(),
            left_out: BTreeMap::new(),
            n_tickets: 0,
        }
    }

    /// The cycle that runs, from 0.
    #[cfg(test)]
    pub(super) fn cycle(&self) -> u32 {
        self.cycle
    }

    /// Takes an event and says what is to be done.
    #[must_use]
    pub(super) fn on(&mut self, event: Event, now: UnixMillis) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Begin => self.begin_cycle(now, &mut effects),
            Event::Trained { ticket, step } => self.trained(ticket, step, &mut effects),
            Event::Declined {
                ticket,
                reason,
                fault,
            } => self.declined(ticket, reason, fault, &mut effects),
            Event::Checked { ticket, result } => self.checked(ticket, result, &mut effects),
            Event::Reachable { site } => self.reachable(site, now, &mut effects),
            Event::Tick => self.tick(now, &mut effects),
            Event::Combined => self.combined(now, &mut effects),
            Event::CombineFailed(reason) if self.phase == Phase::Combining => self.fail(reason, &mut effects),
            Event::CombineFailed(_) => {}
        }
        self.close_if_complete(now, &mut effects);
        effects
    }

    fn begin_cycle(&mut self, now: UnixMillis, effects: &mut Vec<Effect>) {
        if self.cycle >= self.course.cycles {
            self.phase = Phase::Ended;
            effects.push(Effect::Finish);
            return;
        }
        self.attempt = 0;
        self.began_at = now;
        self.begin_attempt(now, effects);
    }

    fn begin_attempt(&mut self, now: UnixMillis, effects: &mut Vec<Effect>) {
        self.deadline = now.plus(self.course.deadline_ms);
        effects.push(Effect::WakeAt(self.deadline));
        // Those who were lost are asked as well where the quorum needs them.
        let patient = self.attempt == 0 && self.roster.n_ready(self.cycle) >= self.course.quorum;
        self.ask_all(patient, effects);
    }

    fn ask_all(&mut self, patient: bool, effects: &mut Vec<Effect>) {
        self.left_out = self.roster.absent(self.cycle, patient);
        if self.roster.n_willing() < self.course.quorum {
            return self.fail(self.quorum_missed(self.roster.n_willing()), effects);
        }
        self.phase = Phase::Training;
        let (course, cycle) = (&self.course, self.cycle);
        let orders = (0_u32..).zip(&course.chains).map(|(chain, sites)| {
            let mut order: Vec<u32> = sites
                .iter()
                .copied()
                .filter(|site| !self.left_out.contains_key(site))
                .collect();
            if course.shuffle {
                super::roster::shuffle(&mut order, course.seed, cycle, chain);
            }
            Run {
                order,
                next: 0,
                kept: Vec::new(),
                doing: Doing::Ended,
            }
        });
        self.runs = orders.collect();
        for chain in 0..self.runs.len() {
            self.go_on(chain, effects);
        }
    }

    /// Asks the next site of a chain, or looks at the chain's end, or ends it.
    fn go_on(&mut self, chain: usize, effects: &mut Vec<Effect>) {
        let ticket = Ticket {
            chain,
            number: self.n_tickets,
        };
        let run = &mut self.runs[chain];
        let last = run.kept.last().copied();
        if let Some(site) = run.order.get(run.next).copied() {
            let input = last.map_or(Input::Global, |kept| Input::Of {
                step: kept.step,
                held: kept.held,
            });
            run.doing = Doing::Asking(ticket);
            effects.push(Effect::Ask {
                ticket,
                site,
                cycle: self.cycle,
                input,
            });
        } else if let Some(kept) = last.filter(|kept| !kept.held) {
            run.doing = Doing::Checking(ticket);
            effects.push(Effect::Check {
                ticket,
                step: kept.step,
            });
        } else {
            run.doing = Doing::Ended;
            return;
        }
        self.n_tickets += 1;
    }

    /// The chain that waits for this ticket.
    fn chain_of(&self, ticket: Ticket, doing: Doing) -> Option<usize> {
        let works = matches!(self.phase, Phase::Training | Phase::Closing);
        let run = self.runs.get(ticket.chain).filter(|_| works)?;
        (run.doing == doing).then_some(ticket.chain)
    }

    fn trained(&mut self, ticket: Ticket, step: Step, effects: &mut Vec<Effect>) {
        let Some(chain) = self.chain_of(ticket, Doing::Asking(ticket)) else {
            return;
        };
        let run = &mut self.runs[chain];
        if run.order.get(run.next) != Some(&step.site) {
            return;
        }
        run.kept.push(Kept { step, held: false });
        run.next += 1;
        self.roster.answered(step.site);
        self.go_on(chain, effects);
    }

    fn declined(&mut self, ticket: Ticket, reason: Rejection, fault: Fault, effects: &mut Vec<Effect>) {
        let Some(chain) = self.chain_of(ticket, Doing::Asking(ticket)) else {
            return;
        };
        let run = &mut self.runs[chain];
        let site = run.order[run.next];
        let input = run.kept.last().filter(|kept| !kept.held).map(|kept| kept.step);
        if let (Fault::Input, Some(step)) = (fault, input) {
            // Its word against that of the site before it: look oneself, then ask again.
            let ticket = Ticket {
                chain,
                number: self.n_tickets,
            };
            self.n_tickets += 1;
            run.doing = Doing::Checking(ticket);
            effects.push(Effect::Check { ticket, step });
            return;
        }
        run.next += 1;
        if fault == Fault::Way {
            self.roster.lost(site, reason.clone());
            effects.push(Effect::Watch { site });
        } else {
            self.roster.declined(site, &reason);
        }
        self.left_out.insert(site, reason);
        self.go_on(chain, effects);
    }

    fn checked(&mut self, ticket: Ticket, result: Result<(), Rejection>, effects: &mut Vec<Effect>) {
        let Some(chain) = self.chain_of(ticket, Doing::Checking(ticket)) else {
            return;
        };
        let kept = &mut self.runs[chain].kept;
        match result {
            Ok(()) => kept.iter_mut().last().expect("what is looked at is kept").held = true,
            Err(reason) => {
                let site = kept.pop().expect("what is looked at is kept").step.site;
                if reason.code == Code::NodeLost {
                    self.roster.lost(site, reason.clone());
                    effects.push(Effect::Watch { site });
                }
                self.left_out.insert(site, reason);
            }
        }
        self.go_on(chain, effects);
    }

    fn reachable(&mut self, site: u32, now: UnixMillis, effects: &mut Vec<Effect>) {
        self.roster.found(site);
        // The deadline stays, so that a site that comes and goes cannot hold the cycle open.
        if self.phase == Phase::Waiting && now < self.deadline {
            self.ask_all(false, effects);
        }
    }

    fn tick(&mut self, now: UnixMillis, effects: &mut Vec<Effect>) {
        if now < self.deadline {
            if matches!(self.phase, Phase::Training | Phase::Closing | Phase::Waiting) {
                effects.push(Effect::WakeAt(self.deadline));
            }
            return;
        }
        match self.phase {
            Phase::Training => self.begin_closing(now, effects),
            Phase::Closing => self.give_up_late_updates(effects),
            Phase::Waiting => self.try_again(now, effects),
            Phase::Combining | Phase::Ended => {}
        }
    }

    /// The deadline: nobody is asked any more; what is known of is still fetched.
    fn begin_closing(&mut self, now: UnixMillis, effects: &mut Vec<Effect>) {
        self.phase = Phase::Closing;
        self.deadline = now.plus(CLOSING_MS);
        effects.push(Effect::WakeAt(self.deadline));
        for chain in 0..self.runs.len() {
            let run = &mut self.runs[chain];
            let late = run.order.split_off(run.next.min(run.order.len()));
            if let (Doing::Asking(ticket), Some(site)) = (run.doing, late.first()) {
                effects.push(Effect::Forget(ticket));
                self.roster.late(*site, self.cycle);
            }
            for site in &late {
                let message = format!("no update before the deadline of {} ms", self.course.deadline_ms);
                self.left_out
                    .insert(*site, Rejection::new(Code::DeadlinePassed, message));
            }
            if matches!(self.runs[chain].doing, Doing::Asking(_)) {
                self.go_on(chain, effects);
            }
        }
    }

    fn give_up_late_updates(&mut self, effects: &mut Vec<Effect>) {
        for run in &mut self.runs {
            if let Doing::Checking(ticket) = run.doing {
                effects.push(Effect::Forget(ticket));
                run.doing = Doing::Ended;
                while let Some(kept) = run.kept.pop_if(|kept| !kept.held) {
                    let message = "its update could not be fetched before the deadline";
                    self.left_out
                        .insert(kept.step.site, Rejection::new(Code::DeadlinePassed, message));
                }
            }
        }
    }

    fn try_again(&mut self, now: UnixMillis, effects: &mut Vec<Effect>) {
        self.attempt += 1;
        if self.attempt < ATTEMPTS_MAX {
            return self.begin_attempt(now, effects);
        }
        self.fail(self.quorum_missed(self.n_answered()), effects);
    }

    fn combined(&mut self, now: UnixMillis, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Combining {
            self.cycle += 1;
            self.begin_cycle(now, effects);
        }
    }

    fn n_answered(&self) -> u32 {
        u32::try_from(self.runs.iter().map(|run| run.kept.len()).sum::<usize>()).unwrap_or(u32::MAX)
    }

    fn close_if_complete(&mut self, now: UnixMillis, effects: &mut Vec<Effect>) {
        let works = matches!(self.phase, Phase::Training | Phase::Closing);
        if !works || self.runs.iter().any(|run| run.doing != Doing::Ended) {
            return;
        }
        if self.n_answered() < self.course.quorum {
            let closing = self.phase == Phase::Closing;
            self.phase = Phase::Waiting;
            if self.roster.n_willing() < self.course.quorum {
                // Nobody who comes back can change that.
                self.fail(self.quorum_missed(self.n_answered()), effects);
            } else if closing || now >= self.deadline {
                self.try_again(now, effects);
            }
            return;
        }
        self.phase = Phase::Combining;
        let ends = self
            .runs
            .iter()
            .map(|run| run.kept.iter().map(|kept| kept.step).collect::<Vec<_>>());
        effects.push(Effect::Combine(Closing {
            cycle: self.cycle,
            began_at: self.began_at,
            ends: ends.filter(|steps| !steps.is_empty()).collect(),
            left_out: self.all_left_out(),
        }));
    }

    fn all_left_out(&self) -> Vec<(u32, Rejection)> {
        self.left_out
            .iter()
            .map(|(site, reason)| (*site, reason.clone()))
            .collect()
    }

    fn quorum_missed(&self, n_found: u32) -> Rejection {
        let message = format!(
            "{n_found} of the {} sites needed in cycle {}",
            self.course.quorum,
            self.cycle + 1
        );
        // Sites that are all kept from answering by the requester's own numbers are not the cause.
        let diverged =
            !self.left_out.is_empty() && self.left_out.values().all(|reason| reason.code == Code::Diverged);
        if diverged {
            Rejection::new(Code::Diverged, message)
        } else {
            Rejection::new(Code::QuorumMissed, message)
        }
    }

    fn fail(&mut self, reason: Rejection, effects: &mut Vec<Effect>) {
        self.end(effects);
        effects.push(Effect::Fail(TrainingFailed {
            cycle: self.cycle,
            reason,
            left_out: self.all_left_out(),
        }));
    }

    fn end(&mut self, effects: &mut Vec<Effect>) {
        self.phase = Phase::Ended;
        for run in std::mem::take(&mut self.runs) {
            if let Doing::Asking(ticket) | Doing::Checking(ticket) = run.doing {
                effects.push(Effect::Forget(ticket));
            }
        }
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
