//! How results look to people: one view for each kind of result. Views hold values of the vocabulary and print them;
//! in JSON they are those values, unchanged.

mod decision;
mod entity;
mod job;
mod model;
mod verdict;

pub(crate) use decision::{Answered, Decision};
pub(crate) use entity::{Card, Hits, described, label_bars, target_of};
pub(crate) use job::{Job, phase_word, phases, total_ms};
pub(crate) use model::{Deployed, Model, Models};
pub(crate) use verdict::Given;

use crate::{
    output::Shown,
    paint::Paint,
    render::{Table, date_time},
};
use daitn_messages::job::Waiting;
use serde::Serialize;

/// What a process waits for, in one line.
pub(crate) fn waiting_line(waiting: &Waiting) -> String {
    let until = waiting
        .until
        .map_or_else(String::new, |until| format!(" until {}", date_time(until)));
    format!(
        "waits since {}{until}: {}",
        date_time(waiting.since),
        waiting.reason
    )
}

/// A line of a list.
pub(crate) trait Row: Serialize {
    /// Names of the columns.
    const COLUMNS: &'static [&'static str];
    /// What is said where there is no line: with the command that makes the first.
    const EMPTY: &'static str;
    /// The name, for scripts.
    fn name(&self) -> String;
    /// A cell for each column.
    fn cells(&self, paint: Paint, wide: bool) -> Vec<String>;
}

/// A list.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct List<T>(pub(crate) Vec<T>);

impl<T: Row> Shown for List<T> {
    fn human(&self, paint: Paint, wide: bool) -> String {
        let mut table = Table::new(paint, T::COLUMNS, T::EMPTY);
        self.0.iter().for_each(|row| table.row(row.cells(paint, wide)));
        table.text()
    }
    fn names(&self) -> Vec<String> {
        self.0.iter().map(Row::name).collect()
    }
}

/// Something was done, and there is nothing more to show.
#[derive(Debug, Serialize)]
pub(crate) struct Done {
    /// What was done: `revoked`.
    done: &'static str,
    /// To what.
    name: String,
}

impl Done {
    /// This was done to that.
    pub(crate) fn new(done: &'static str, name: &impl ToString) -> Self {
        Self {
            done,
            name: name.to_string(),
        }
    }
}

impl Shown for Done {
    fn human(&self, paint: Paint, _: bool) -> String {
        format!("{} {}", paint.name(&self.name), self.done)
    }
    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}
