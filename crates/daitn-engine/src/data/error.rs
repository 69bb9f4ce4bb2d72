//! Why a file is not read.

use super::{COLUMNS_MAX, FIELD_BYTES_MAX, ROW_BYTES_MAX, ROWS_MAX, TABLE_BYTES_MAX, cells::shortened};
use daitn_messages::rejection::{Code, Rejection};
use std::io;

/// Why a file is not read. Rows are counted from 1, the header of a CSV file being row 1; a Parquet file has no header
/// row, and its first row is row 1.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The specification to read for is not valid.
    #[error("the model specification is not valid")]
    Spec(#[source] Rejection),
    /// The disk failed.
    #[error("the data file cannot be read")]
    Io(#[from] io::Error),
    /// Neither CSV nor Parquet.
    #[error("the file is {found}")]
    Format {
        /// What it looks like.
        found: &'static str,
    },
    /// No bytes, or no header.
    #[error("the file is empty")]
    Empty,
    /// A header and nothing else.
    #[error("the file has no rows of data")]
    NoRows,
    /// Over [`COLUMNS_MAX`].
    #[error("the file has more than {COLUMNS_MAX} columns")]
    TooManyColumns,
    /// Over [`ROWS_MAX`].
    #[error("the file has more than {ROWS_MAX} rows")]
    TooManyRows,
    /// Over [`TABLE_BYTES_MAX`].
    #[error("the table would take more than {TABLE_BYTES_MAX} bytes of memory")]
    TableTooLarge,
    /// Over [`FIELD_BYTES_MAX`].
    #[error("row {row}, column {column}: the field is longer than {FIELD_BYTES_MAX} bytes")]
    FieldTooLarge {
        /// Row.
        row: u64,
        /// Number of the column, from 1.
        column: usize,
    },
    /// Over [`ROW_BYTES_MAX`].
    #[error("row {row} is longer than {ROW_BYTES_MAX} bytes")]
    RowTooLarge {
        /// Row.
        row: u64,
    },
    /// More or fewer fields than the header.
    #[error("row {row} has {found} fields, the header has {expected}")]
    RaggedRow {
        /// Row.
        row: u64,
        /// Fields of the header.
        expected: usize,
        /// Fields of this row; one more than the header's where there are more.
        found: usize,
    },
    /// A NUL byte.
    #[error("row {row}, column {column}: a NUL byte")]
    Nul {
        /// Row.
        row: u64,
        /// Number of the column, from 1.
        column: usize,
    },
    /// Not UTF-8.
    #[error("row {row}, column {column}: not UTF-8")]
    NotUtf8 {
        /// Row.
        row: u64,
        /// Number of the column, from 1.
        column: usize,
    },
    /// A column without a name.
    #[error("column {column} has no name in the header")]
    UnnamedColumn {
        /// Number of the column, from 1.
        column: usize,
    },
    /// Two columns of one name.
    #[error("the column `{name}` is there twice")]
    DuplicateColumn {
        /// Its name, shortened.
        name: String,
    },
    /// Fields of CSV that are not separated by commas.
    #[error("the fields are separated by {found}, not by commas")]
    Separator {
        /// What separates them.
        found: &'static str,
    },
    /// A column that is wanted.
    #[error("the file has no column `{name}`{meant}; it has {columns}")]
    MissingColumn {
        /// Its name, shortened.
        name: String,
        /// The question whether the column that is nearest was meant; empty where none is near.
        meant: String,
        /// Columns of the file, the first of them.
        columns: String,
    },
    /// A column of a kind that the model cannot use there.
    #[error("the column `{name}` holds {kind}, which cannot be used as {use_as}")]
    ColumnKind {
        /// Its name.
        name: String,
        /// What it holds.
        kind: String,
        /// What the model wants it for.
        use_as: &'static str,
    },
    /// An empty field or a null.
    #[error("row {row}, column `{column}`: no value")]
    MissingValue {
        /// Row.
        row: u64,
        /// Name of the column.
        column: String,
    },
    /// Not a number.
    #[error("row {row}, column `{column}`: not a number")]
    NotANumber {
        /// Row.
        row: u64,
        /// Name of the column.
        column: String,
    },
    /// NaN, infinity, or beyond what 32 bits hold after shifting and scaling.
    #[error("row {row}, column `{column}`: not a finite number")]
    NotFinite {
        /// Row.
        row: u64,
        /// Name of the column.
        column: String,
    },
    /// A label that is none of the model's classes.
    #[error("row {row}, column `{column}`: a label that is none of the {n_classes} classes of the model")]
    UnseenLabel {
        /// Row.
        row: u64,
        /// Name of the column.
        column: String,
        /// How many classes there are.
        n_classes: usize,
    },
    /// A Parquet file whose structure breaks a bound or contradicts itself.
    #[error("the Parquet file is damaged or hostile: {why}")]
    Structure {
        /// What is wrong.
        why: String,
    },
    /// A Parquet file that uses something that is not read.
    #[error("the Parquet file uses {what}, which is not read")]
    Unsupported {
        /// What it uses.
        what: String,
    },
}

/// Columns that are named where one is missing.
const NAMED_MAX: usize = 20;

impl DataError {
    /// That none of these columns has this name.
    pub(super) fn missing_column<'a>(
        name: &str,
        columns: impl ExactSizeIterator<Item = &'a String> + Clone,
    ) -> Self {
        let like = daitn_messages::written::nearest(name, columns.clone());
        let more = columns.len().saturating_sub(NAMED_MAX);
        let named: Vec<String> = columns.take(NAMED_MAX).map(|column| shortened(column)).collect();
        let and_more = match more {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Self::MissingColumn {
            name: shortened(name),
            meant: like.map_or(String::new(), |like| {
                format!(" (did you mean `{}`?)", shortened(like))
            }),
            columns: format!("{}{and_more}", named.join(", ")),
        }
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Spec(rejection) => rejection.code,
            Self::Io(_) => Code::Internal,
            Self::TooManyColumns
            | Self::TooManyRows
            | Self::TableTooLarge
            | Self::FieldTooLarge { .. }
            | Self::RowTooLarge { .. } => Code::TooLarge,
            _ => Code::DataUnusable,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Spec(_) => "correct the field that is named and ask again",
            Self::Io(_) => "check that the file exists and that the node's user may read it",
            Self::Format { .. } => {
                "save the table as CSV (UTF-8, comma-separated, with a header) or as Parquet"
            }
            Self::Empty | Self::NoRows => "use a file with a header and at least one row of data",
            Self::TooManyColumns => "leave out columns that are not needed",
            Self::TooManyRows | Self::TableTooLarge => "split the file into several datasets",
            Self::FieldTooLarge { .. } | Self::RowTooLarge { .. } => {
                "look for a quotation mark that is never closed, or leave out columns of long text"
            }
            Self::RaggedRow { .. } => {
                "look for a comma that should be in quotation marks, or for a broken line"
            }
            Self::Nul { .. } | Self::NotUtf8 { .. } => "save the file as UTF-8 text",
            Self::UnnamedColumn { .. } | Self::DuplicateColumn { .. } => "give each column a name of its own",
            Self::Separator { .. } => {
                "save the file with commas between the fields and points in the numbers, or as Parquet"
            }
            Self::MissingColumn { .. } => "correct the name, or rename the column in the file",
            Self::ColumnKind { .. } => "turn the column into numbers, or leave it out of the features",
            Self::MissingValue { .. } => {
                "fill in the value or leave the row out: what is missing is never guessed"
            }
            Self::NotANumber { .. } => {
                "write numbers with a decimal point and without units or thousands separators"
            }
            Self::NotFinite { .. } => {
                "replace the value, or leave the row out; check the declared offset and scale"
            }
            Self::UnseenLabel { .. } => {
                "correct the label, leave the row out, or ask for the class to be declared"
            }
            Self::Structure { .. } => "write the file again; if it came from somebody else, do not trust it",
            Self::Unsupported { .. } => {
                "write the file with Snappy, Zstandard or no compression, plain or dictionary encoding, and pages \
                 below 16 MiB (the defaults of most writers)"
            }
        }
    }
}

impl From<DataError> for Rejection {
    fn from(error: DataError) -> Self {
        match error {
            DataError::Spec(rejection) => rejection,
            other => {
                let cause = std::error::Error::source(&other).map(|source| format!(": {source}"));
                Self::new(other.code(), format!("{other}{}", cause.unwrap_or_default()))
                    .with_hint(other.remedy())
            }
        }
    }
}
