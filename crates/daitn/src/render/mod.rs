//! Pieces of text for people: tables, lists of facts, bars, sizes, times. Nothing here knows a command.

mod measures;
mod pieces;

pub(crate) use measures::{age, bytes, count, date_time, duration_ms, percent};
pub(crate) use pieces::{Table, bar, facts, section, shortened, sparkline};
