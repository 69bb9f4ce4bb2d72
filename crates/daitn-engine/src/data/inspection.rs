//! What a file holds: for describing a dataset before anybody asks for it.

use super::{DataError, ROWS_MAX, cells};
use std::{collections::BTreeMap, fmt};

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
    pub not_finite: Rows,
    /// Empty fields and nulls.
    pub missing: Rows,
    /// The first row whose value is no number.
    pub first_text: Option<u64>,
    /// Smallest and largest value of numbers.
    pub range: Option<(f64, f64)>,
    /// Each value and how often it occurs, sorted as text; `None` beyond [`DISTINCT_MAX`] or where values are long.
    pub distinct: Option<BTreeMap<String, u64>>,
}

/// Rows of which the same is to be said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rows {
    /// How many.
    pub n: u64,
    /// The first, counted as [`DataError`] does; 0 where there is none.
    pub first: u64,
}

impl Rows {
    fn add(&mut self, row: u64) {
        if self.n == 0 {
            self.first = row;
        }
        self.n += 1;
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.n {
            1 => write!(f, "row {}", self.first),
            n => write!(f, "{n} rows, the first of them row {}", self.first),
        }
    }
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
        } else if self.not_finite.n > 0 {
            Some(Unfit::NotFinite(self.not_finite))
        } else if self.kind == Kind::Text {
            Some(self.first_text.map_or(Unfit::Empty, Unfit::Text))
        } else if self.missing.n > 0 {
            Some(Unfit::Missing(self.missing))
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
    #[error("NaN or infinite in {0}")]
    NotFinite(Rows),
    /// Not numbers, from this row on.
    #[error("row {0} has a value that is no number")]
    Text(u64),
    /// Nothing at all.
    #[error("no row has a value")]
    Empty,
    /// Empty fields.
    #[error("no value in {0}")]
    Missing(Rows),
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

    /// The column of this name.
    ///
    /// # Errors
    /// That there is none, with the names that there are.
    pub fn named(&self, name: &str) -> Result<&ColumnInspection, DataError> {
        self.column(name)
            .ok_or_else(|| DataError::missing_column(name, self.columns.iter().map(|column| &column.name)))
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
    not_finite: Rows,
    n_values: u64,
    missing: Rows,
    first_text: Option<u64>,
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
            not_finite: Rows::default(),
            n_values: 0,
            missing: Rows::default(),
            first_text: None,
            range: None,
            distinct: Some(BTreeMap::new()),
        });
        Ok(Self {
            columns: columns.collect(),
            distinct_bytes: 0,
        })
    }

    /// The value of a column in a row; empty where there is none.
    pub(super) fn see(&mut self, position: usize, row: u64, text: &str) {
        let column = &mut self.columns[position];
        if text.is_empty() {
            column.missing.add(row);
            return;
        }
        column.n_values += 1;
        if column.first_text.is_none() {
            match text.parse::<f64>() {
                Ok(value) if !value.is_finite() => column.not_finite.add(row),
                Ok(value) => {
                    let (low, high) = column.range.unwrap_or((value, value));
                    column.range = Some((low.min(value), high.max(value)));
                    column.all_integers = column.all_integers && text.parse::<i64>().is_ok();
                }
                Err(_) => column.first_text = Some(row),
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
            let not_finite = match column.first_text {
                None => column.not_finite,
                Some(_) => Rows::default(),
            };
            let finite = column.n_values > 0 && column.first_text.is_none() && not_finite.n == 0;
            let kind = match (finite, column.all_integers) {
                (true, true) => Kind::Integer,
                (true, false) => Kind::Number,
                (false, _) => Kind::Text,
            };
            let range = column.range.filter(|_| kind != Kind::Text);
            ColumnInspection {
                name: column.name,
                kind,
                not_finite,
                missing: column.missing,
                first_text: column.first_text,
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
