//! Conducts a job: asks sites for their steps, admits and combines what they made, keeps the state after each cycle so
//! that anybody who has it can go on.
//!
//! [`core`] decides and is pure; [`drive`] does what it says. One task runs a job; each request to a site, each look at
//! an update and each wait for a lost site is a task of its own that sends one event back:
//!
//! ```text
//!   ask, check, watch ──events──▶ drive ⇄ core
//!                                   │ combine (blocking), journal
//!                                   └──closed cycles──▶ report ──▶ spares, outbox
//! ```

mod events;

mod core;

mod roster;

mod check;

mod journal;

mod learner;

mod ask;

mod publish;

mod report;

mod start;

mod drive;

pub(crate) use drive::{Running, conduct};
pub(crate) use journal::Journal;
pub(crate) use publish::scope_name;
