//! What happens to a conductor and what it does about it, as values.

use daitn_messages::{
    receipt::TrainingFailed, rejection::Rejection, session::ArtifactRef, units::UnixMillis,
};

/// What the core needs to know of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Course {
    /// Sites of each chain, those that accepted only.
    pub(super) chains: Vec<Vec<u32>>,
    /// Whether the order inside a chain is drawn anew for each cycle.
    pub(super) shuffle: bool,
    /// Seed of that draw.
    pub(super) seed: u64,
    /// A cycle counts with this many sites.
    pub(super) quorum: u32,
    /// How many cycles there are.
    pub(super) cycles: u32,
    /// A cycle closes at the latest after this time.
    pub(super) deadline_ms: u64,
}

/// What one site made in one cycle, its receipt checked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Step {
    /// Which site.
    pub(super) site: u32,
    /// The weights that it ended with.
    pub(super) output: ArtifactRef,
    /// SCAFFOLD's change of its control variate.
    pub(super) control: Option<ArtifactRef>,
    /// Examples that it used.
    pub(super) examples: u64,
    /// Its loss.
    pub(super) loss: f64,
    /// Time of its own training.
    pub(super) train_ms: f64,
}

/// Names one request to a site or one look at its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ticket {
    /// Which of the chains.
    pub(super) chain: usize,
    /// Counts all tickets of a job.
    pub(super) number: u64,
}

/// What a site begins from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Input {
    /// The weights of the last cycle.
    Global,
    /// What another site of its chain made.
    Of {
        /// That site's step.
        step: Step,
        /// Whether the conductor has it too.
        held: bool,
    },
}

/// What happens to the conductor.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    /// Begin, or go on after a restart.
    Begin,
    /// A site has trained and its receipt is in order.
    Trained {
        /// The request that it answers.
        ticket: Ticket,
        /// What it made.
        step: Step,
    },
    /// A site did not do its step.
    Declined {
        /// The request that it answers.
        ticket: Ticket,
        /// Why.
        reason: Rejection,
        /// Where it lies.
        fault: Fault,
    },
    /// The conductor has looked at a site's work.
    Checked {
        /// The look that it answers.
        ticket: Ticket,
        /// Whether it is admitted.
        result: Result<(), Rejection>,
    },
    /// A site that was lost answers again.
    Reachable {
        /// Which.
        site: u32,
    },
    /// Time has passed.
    Tick,
    /// A cycle's result is durable.
    Combined,
    /// A cycle has no result and will have none.
    CombineFailed(Rejection),
}

/// Why a site did not do its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It refuses, or failed at its own work.
    Site,
    /// It could not get or use what it was to begin from.
    Input,
    /// It cannot be reached.
    Way,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    /// Ask a site for its step.
    Ask {
        /// To be answered under this ticket.
        ticket: Ticket,
        /// Which site.
        site: u32,
        /// In which cycle.
        cycle: u32,
        /// From where it begins.
        input: Input,
    },
    /// Fetch what a site made and see whether it is admitted.
    Check {
        /// To be answered under this ticket.
        ticket: Ticket,
        /// What it made.
        step: Step,
    },
    /// Nobody waits for this any more.
    Forget(Ticket),
    /// Find out when a lost site answers again.
    Watch {
        /// Which.
        site: u32,
    },
    /// Send [`Event::Tick`] at this time; replaces an earlier one.
    WakeAt(UnixMillis),
    /// Combine the ends of the chains.
    Combine(Closing),
    /// All cycles are done.
    Finish,
    /// The job cannot go on.
    Fail(TrainingFailed),
}

/// What is in a cycle's result.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Closing {
    /// Which cycle.
    pub(super) cycle: u32,
    /// When it began.
    pub(super) began_at: UnixMillis,
    /// For each chain that ended with something, its steps in order; chains in the order of their smallest site.
    pub(super) ends: Vec<Vec<Step>>,
    /// Sites that are not in it.
    pub(super) left_out: Vec<(u32, Rejection)>,
}
