//! What a file holds: for describing a dataset before anybody asks for it.

use super::{DataError, ROWS_MAX, cells};
use std::collections::BTreeMap;

/// Most distinct values of a column that are kept: the most classes that a task may have.
pub const DISTINCT_MAX: usize = daitn_messages::limits::CLASSES_MAX;
/// Longest value that is kept as a distinct one, bytes.
const VALUE_BYTES_MAX: usize = 200;
/// Most bytes of distinct values over all columns, so that a file of thousands of wide columns takes no more.
const DISTINCT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What an entry of a map costs beside its text, roughly.
const ENTRY_BYTES: usize = 64;

/// What a column's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Whole numbers.
    Integer,
    /// Numbers, some of them not whole.
    Number,
    /// Anything else.
    Text,
}

/// What was seen of one column.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnInspection {
    /// Its name.
    pub name: String,
    /// What its values are; text where there are none, or where not all are finite.
    pub kind: Kind,
    /// Numbers that are none: NaN and infinities, where all values are written as numbers.
    pub n_not_finite: u64,
    /// Empty fields and nulls.
    pub n_missing: u64,
    /// Smallest and largest value of numbers.
    pub range: Option<(f64, f64)>,
    /// Each value and how often it occurs, sorted as text; `None` beyond [`DISTINCT_MAX`] or where values are long.
    pub distinct: Option<BTreeMap<String, u64>>,
}

/// What was seen of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// Rows of data.
    pub n_rows: u64,
    /// The columns, in the order of the file.
    pub columns: Vec<ColumnInspection>,
}

impl ColumnInspection {
    /// Why models cannot be fed from the column, if they cannot.
    #[must_use]
    pub fn unfit(&self) -> Option<Unfit> {
        if self.name.chars().any(char::is_control) {
            Some(Unfit::Name)
        } else if self.n_not_finite > 0 {
            Some(Unfit::NotFinite(self.n_not_finite))
        } else if self.kind == Kind::Text {
            Some(Unfit::Text)
        } else if self.n_missing > 0 {
            Some(Unfit::Missing(self.n_missing))
        } else if self
            .range
            .is_some_and(|(low, high)| low.abs().max(high.abs()) > f64::from(f32::MAX))
        {
            Some(Unfit::TooLarge)
        } else {
            None
        }
    }
}

/// Why models cannot be fed from a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Its name.
    #[error("its name has control characters")]
    Name,
    /// NaN or infinities.
    #[error("NaN or infinite in {0} rows")]
    NotFinite(u64),
    /// Not numbers, or nothing.
    #[error("text, or no values")]
    Text,
    /// Empty fields.
    #[error("no value in {0} rows")]
    Missing(u64),
    /// Beyond single precision.
    #[error("numbers beyond 3.4e38")]
    TooLarge,
}

impl Inspection {
    /// The column of this name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&ColumnInspection> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// Looks at values as they come.
pub(super) struct Inspector {
    columns: Vec<Column>,
    /// Bytes that all distinct values take.
    distinct_bytes: usize,
}

struct Column {
    name: String,
    all_integers: bool,
    all_numbers: bool,
    n_not_finite: u64,
    n_values: u64,
    n_missing: u64,
    range: Option<(f64, f64)>,
    distinct: Option<BTreeMap<String, u64>>,
}

impl Inspector {
    /// Nothing seen yet.
    pub(super) fn new(names: Vec<String>) -> Result<Self, DataError> {
        cells::positions(&names)?;
        let columns = names.into_iter().map(|name| Column {
            name,
            all_integers: true,
            all_numbers: true,
            n_not_finite: 0,
            n_values: 0,
            n_missing: 0,
            range: None,
            distinct: Some(BTreeMap::new()),
        });
        Ok(Self {
            columns: columns.collect(),
            distinct_bytes: 0,
        })
    }

    /// One value of a column; empty where there is none.
    pub(super) fn see(&mut self, position: usize, text: &str) {
        let column = &mut self.columns[position];
        if text.is_empty() {
            column.n_missing += 1;
            return;
        }
        column.n_values += 1;
        if column.all_numbers {
            match text.parse::<f64>() {
                Ok(value) if !value.is_finite() => column.n_not_finite += 1,
                Ok(value) => {
                    let (low, high) = column.range.unwrap_or((value, value));
                    column.range = Some((low.min(value), high.max(value)));
                    column.all_integers = column.all_integers && text.parse::<i64>().is_ok();
                }
                Err(_) => column.all_numbers = false,
            }
        }
        self.count(position, text);
    }

    fn count(&mut self, position: usize, text: &str) {
        let Some(distinct) = &mut self.columns[position].distinct else {
            return;
        };
        if let Some(n) = distinct.get_mut(text) {
            *n += 1;
            return;
        }
        let cost = text.len() + ENTRY_BYTES;
        let fits = text.len() <= VALUE_BYTES_MAX
            && distinct.len() < DISTINCT_MAX
            && self.distinct_bytes + cost <= DISTINCT_BYTES_MAX;
        if fits {
            distinct.insert(text.to_owned(), 1);
            self.distinct_bytes += cost;
        } else {
            let freed: usize = distinct.keys().map(|text| text.len() + ENTRY_BYTES).sum();
            self.distinct_bytes -= freed;
            self.columns[position].distinct = None;
        }
    }

    /// What was seen of `n_rows` rows.
    pub(super) fn finish(self, n_rows: u64) -> Result<Inspection, DataError> {
        if n_rows == 0 {
            return Err(DataError::NoRows);
        }
        if n_rows > ROWS_MAX {
            return Err(DataError::TooManyRows);
        }
        let columns = self.columns.into_iter().map(|column| {
            let n_not_finite = if column.all_numbers {
                column.n_not_finite
            } else {
                0
            };
            let finite = column.n_values > 0 && column.all_numbers && n_not_finite == 0;
            let kind = match (finite, column.all_integers) {
                (true, true) => Kind::Integer,
                (true, false) => Kind::Number,
                (false, _) => Kind::Text,
            };
            let range = column.range.filter(|_| kind != Kind::Text);
            ColumnInspection {
                name: column.name,
                kind,
                n_not_finite,
                n_missing: column.n_missing,
                range,
                distinct: column.distinct,
            }
        });
        Ok(Inspection {
            n_rows,
            columns: columns.collect(),
        })
    }
}
