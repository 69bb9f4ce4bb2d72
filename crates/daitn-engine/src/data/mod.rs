//! Tables out of CSV and Parquet files that nobody vouches for.
//!
//! Every size is bounded before memory is taken. Errors name rows and columns but never a value: they leave the node
//! in a job's record, the data does not. Rows are counted as a spreadsheet does: the header is row 1.

mod cells;
mod csv;
mod error;
mod inspection;
mod parquet;

pub use error::DataError;
pub use inspection::{ColumnInspection, DISTINCT_MAX, Inspection, Kind, Rows, Unfit};

use crate::Table;
use daitn_messages::{learning::ModelSpec, limits::FEATURES_MAX};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// Most columns of a file: as many features as a model may have, and as many again that it does not use.
pub const COLUMNS_MAX: usize = 2 * FEATURES_MAX;
/// Most rows of a file.
pub const ROWS_MAX: u64 = 50_000_000;
/// Largest field of a CSV file, bytes.
pub const FIELD_BYTES_MAX: usize = 64 * 1024;
/// Longest row of a CSV file, bytes: the most columns with 64 characters each.
pub const ROW_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Largest table in memory, bytes.
pub const TABLE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// Formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values with a header (RFC 4180), UTF-8.
    Csv,
    /// Apache Parquet: flat columns of numbers and texts; Snappy, Zstandard or no compression.
    Parquet,
}

/// The rows of a file as a model wants them: its feature columns in its order, shifted and scaled, and its target.
///
/// # Errors
/// Whatever the file has that a model cannot be trained on, with row and column.
pub fn read(path: &Path, spec: &ModelSpec) -> Result<Table, DataError> {
    spec.validate().map_err(DataError::Spec)?;
    let (file, format) = open(path)?;
    match format {
        Format::Csv => csv::read(file, spec),
        Format::Parquet => parquet::read(file, spec),
    }
}

/// What a file holds, without a model in mind: for describing it.
///
/// # Errors
/// Whatever makes the file unreadable, with row and column.
pub fn inspect(path: &Path) -> Result<Inspection, DataError> {
    let (file, format) = open(path)?;
    match format {
        Format::Csv => csv::inspect(file),
        Format::Parquet => parquet::inspect(file),
    }
}

/// Opens a file and tells its format by its first bytes, not by its name.
fn open(path: &Path) -> Result<(File, Format), DataError> {
    // Asked before opening: a pipe would be waited for.
    if !std::fs::metadata(path)?.is_file() {
        return Err(DataError::Format {
            found: "not a regular file",
        });
    }
    let mut file = File::open(path)?;
    let mut first = Vec::with_capacity(8);
    (&mut file).take(8).read_to_end(&mut first)?;
    file.seek(SeekFrom::Start(0))?;
    let magics: [(&[u8], &'static str); 7] = [
        (b"PK\x03\x04", "a zip archive (spreadsheets are such)"),
        (b"\x1f\x8b", "a gzip file"),
        (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
        (b"ARROW1", "an Arrow IPC file"),
        (b"\xff\xfe", "text in UTF-16"),
        (b"\xfe\xff", "text in UTF-16"),
        (b"PARE", "an encrypted Parquet file"),
    ];
    if first.is_empty() {
        return Err(DataError::Empty);
    }
    if let Some((_, found)) = magics.iter().find(|(magic, _)| first.starts_with(magic)) {
        return Err(DataError::Format { found });
    }
    let format = if first.starts_with(b"PAR1") {
        Format::Parquet
    } else {
        Format::Csv
    };
    Ok((file, format))
}
