//! Which pieces of an artifact to ask for next, and of whom. Pure: time is an argument.

use crate::limits::{RUN_PIECES_FIRST, RUN_PIECES_MAX, RUN_TARGET};
use std::{
    ops::Range,
    time::{Duration, Instant},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Missing,
    Asked,
    Here,
}

/// What a fetch knows of one holder.
#[derive(Debug, Clone)]
struct Holder {
    /// Not asked any more.
    out: bool,
    /// Not asked before this time.
    not_before: Option<Instant>,
    lanes: usize,
    run_pieces: u64,
}

/// A run of pieces to ask one holder for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) holder: usize,
    pub(super) pieces: Range<u64>,
}

/// What a lane is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask for these.
    Ask(Claim),
    /// Everything is here or asked for, or nobody may be asked before this time: wait for news, or until then.
    Wait(Option<Instant>),
    /// Everything is here.
    Done,
    /// Nobody is left to ask.
    NobodyLeft,
}

/// The state of a fetch.
#[derive(Debug)]
pub(super) struct Schedule {
    pieces: Vec<Piece>,
    /// No piece before this one is missing.
    first_missing: usize,
    n_here: usize,
    holders: Vec<Holder>,
}

impl Schedule {
    pub(super) fn new(n_pieces: u64, n_holders: usize, here: &[u64]) -> Self {
        let n_pieces = usize::try_from(n_pieces).expect("the bound on artifacts bounds their pieces");
        let holder = Holder {
            out: false,
            not_before: None,
            lanes: 0,
            run_pieces: RUN_PIECES_FIRST,
        };
        let mut schedule = Self {
            pieces: vec![Piece::Missing; n_pieces],
            first_missing: 0,
            n_here: 0,
            holders: vec![holder; n_holders],
        };
        for piece in here {
            schedule.here(*piece);
        }
        schedule
    }

    pub(super) fn is_done(&self) -> bool {
        self.n_here == self.pieces.len()
    }

    pub(super) fn next(&mut self, now: Instant) -> Next {
        if self.is_done() {
            return Next::Done;
        }
        let able = |holder: &Holder| !holder.out && holder.not_before.is_none_or(|at| at <= now);
        let candidates = self.holders.iter().enumerate().filter(|(_, holder)| able(holder));
        // The least busy, and of those the one with the longest runs: it has been the fastest.
        let chosen = candidates.min_by_key(|(_, holder)| (holder.lanes, u64::MAX - holder.run_pieces));
        let Some(holder) = chosen.map(|(holder, _)| holder) else {
            let wait = self
                .holders
                .iter()
                .filter(|holder| !holder.out)
                .filter_map(|holder| holder.not_before);
            return wait.min().map_or(Next::NobodyLeft, |at| Next::Wait(Some(at)));
        };
        match self.claim(holder, self.holders[holder].run_pieces) {
            Some(claim) => Next::Ask(claim),
            None => Next::Wait(None),
        }
    }

    /// Claims the first missing pieces, at most so many, for one holder.
    pub(super) fn claim(&mut self, holder: usize, n_pieces_max: u64) -> Option<Claim> {
        let found = self.pieces[self.first_missing..]
            .iter()
            .position(|piece| *piece == Piece::Missing);
        let Some(found) = found else {
            self.first_missing = self.pieces.len();
            return None;
        };
        let start = self.first_missing + found;
        let most = usize::try_from(n_pieces_max).unwrap_or(usize::MAX);
        let run = self.pieces[start..]
            .iter()
            .take(most)
            .take_while(|piece| **piece == Piece::Missing);
        let end = start + run.count();
        self.pieces[start..end].fill(Piece::Asked);
        self.first_missing = end;
        self.holders[holder].lanes += 1;
        Some(Claim {
            holder,
            pieces: start as u64..end as u64,
        })
    }

    /// A piece has been verified and written.
    pub(super) fn here(&mut self, piece: u64) {
        let slot = usize::try_from(piece)
            .ok()
            .and_then(|piece| self.pieces.get_mut(piece));
        if let Some(slot) = slot
            && *slot != Piece::Here
        {
            *slot = Piece::Here;
            self.n_here += 1;
        }
    }

    /// A run has ended well, in this time.
    pub(super) fn finished(&mut self, claim: &Claim, took: Duration) {
        self.give_back(claim);
        let holder = &mut self.holders[claim.holder];
        holder.not_before = None;
        let n_pieces = claim.pieces.end - claim.pieces.start;
        if took < RUN_TARGET && n_pieces >= holder.run_pieces {
            holder.run_pieces = (holder.run_pieces * 2).min(RUN_PIECES_MAX);
        } else if took > RUN_TARGET * 2 {
            holder.run_pieces = (holder.run_pieces / 2).max(1);
        }
    }

    /// A run has broken off: the holder is not asked before this time, or never again.
    pub(super) fn failed(&mut self, claim: &Claim, not_before: Option<Instant>) {
        self.give_back(claim);
        let holder = &mut self.holders[claim.holder];
        holder.run_pieces = RUN_PIECES_FIRST;
        match not_before {
            Some(at) => holder.not_before = Some(at),
            None => holder.out = true,
        }
    }

    /// Whoever was to be spared for a while may be asked now.
    pub(super) fn ask_now(&mut self) {
        for holder in &mut self.holders {
            holder.not_before = None;
        }
    }

    fn give_back(&mut self, claim: &Claim) {
        self.holders[claim.holder].lanes -= 1;
        for piece in claim.pieces.clone() {
            let piece = usize::try_from(piece).expect("claimed from a vector");
            if self.pieces[piece] == Piece::Asked {
                self.pieces[piece] = Piece::Missing;
                self.first_missing = self.first_missing.min(piece);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(next: Next) -> Claim {
        match next {
            Next::Ask(claim) => claim,
            other => panic!("expected a claim, found {other:?}"),
        }
    }

    #[test]
    fn what_is_there_is_not_asked_for() {
        let mut schedule = Schedule::new(6, 1, &[0, 1, 3]);
        let now = Instant::now();
        assert_eq!(ask(schedule.next(now)).pieces, 2..3);
        assert_eq!(ask(schedule.next(now)).pieces, 4..6);
        assert_eq!(schedule.next(now), Next::Wait(None));
    }

    #[test]
    fn holders_share_the_work_and_a_liar_is_left_out() {
        let mut schedule = Schedule::new(100, 2, &[]);
        let now = Instant::now();
        let (a, b) = (ask(schedule.next(now)), ask(schedule.next(now)));
        assert_ne!(a.holder, b.holder);
        schedule.failed(&a, None);
        let c = ask(schedule.next(now));
        assert_eq!(
            (c.holder, c.pieces),
            (b.holder, a.pieces),
            "the other holder takes over what was given back"
        );
        schedule.failed(&b, None);
        assert_eq!(schedule.next(now), Next::NobodyLeft);
    }

    #[test]
    fn a_holder_set_back_is_waited_for() {
        let mut schedule = Schedule::new(10, 1, &[]);
        let now = Instant::now();
        let claim = ask(schedule.next(now));
        let later = now + Duration::from_secs(1);
        schedule.failed(&claim, Some(later));
        assert_eq!(schedule.next(now), Next::Wait(Some(later)));
        assert_eq!(ask(schedule.next(later)).pieces.start, 0);
    }

    #[test]
    fn runs_follow_the_speed_of_their_holder() {
        let mut schedule = Schedule::new(10_000, 1, &[]);
        let now = Instant::now();
        let mut run = |took| {
            let claim = ask(schedule.next(now));
            claim.pieces.clone().for_each(|piece| schedule.here(piece));
            schedule.finished(&claim, took);
            claim.pieces.end - claim.pieces.start
        };
        let fast: Vec<u64> = (0..6).map(|_| run(Duration::from_millis(10))).collect();
        assert_eq!(fast, [4, 8, 16, 32, 64, 64]);
        let slow: Vec<u64> = (0..8).map(|_| run(Duration::from_secs(9))).collect();
        assert_eq!(slow, [64, 32, 16, 8, 4, 2, 1, 1]);
    }

    proptest! {
        /// Whatever fails in whatever order: every piece is asked for by one lane at a time, and all come in the end.
        #[test]
        fn every_piece_comes_once(n_pieces in 1u64..300, steps in prop::collection::vec((0usize..8, 0u64..70), 0..200)) {
            let mut schedule = Schedule::new(n_pieces, 3, &[]);
            let now = Instant::now();
            let mut lanes: Vec<Option<Claim>> = vec![None; 8];
            let mut asked = std::collections::HashSet::new();
            for (lane, delivered) in steps {
                match lanes[lane].take() {
                    None => if let Next::Ask(claim) = schedule.next(now) {
                        for piece in claim.pieces.clone() {
                            prop_assert!(asked.insert(piece), "piece {} asked for twice", piece);
                        }
                        lanes[lane] = Some(claim);
                    },
                    Some(claim) => {
                        for piece in claim.pieces.clone() {
                            if piece < claim.pieces.start + delivered {
                                schedule.here(piece);
                            } else {
                                asked.remove(&piece);
                            }
                        }
                        schedule.failed(&claim, Some(now));
                    }
                }
            }
            for claim in lanes.into_iter().flatten() {
                schedule.failed(&claim, Some(now));
            }
            while let Next::Ask(claim) = schedule.next(now) {
                claim.pieces.clone().for_each(|piece| schedule.here(piece));
                schedule.finished(&claim, Duration::ZERO);
            }
            prop_assert!(schedule.is_done());
        }
    }
}
