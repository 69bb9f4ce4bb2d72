//! Pieces of text for people: tables, lists of facts, bars, sizes, times. Nothing here knows a command.

mod measures;
mod pieces;

/// Width of prose in characters: what people read without losing the line.
pub(crate) const PROSE_WIDTH: usize = 100;

pub(crate) use measures::{age, bytes, count, counted, date_time, duration_ms, loss, percent};
pub(crate) use pieces::{Table, bar, facts, listed, section, shortened, sparkline, wrapped};
