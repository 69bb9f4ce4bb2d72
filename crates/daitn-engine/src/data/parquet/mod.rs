//! Parquet, flat columns only, by the library's column readers: no Arrow, one column of one row group at a time.

mod guard;
mod thrift;

use super::{
    DataError, ROWS_MAX,
    cells::{Selection, shortened},
    inspection::{Inspection, Inspector},
};
use crate::{Table, Targets};
use daitn_messages::learning::ModelSpec;
use parquet::{
    basic::{ConvertedType, LogicalType},
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::{ByteArray, DataType},
    errors::ParquetError,
    file::{metadata::ColumnChunkMetaData, reader::FileReader, serialized_reader::SerializedFileReader},
    schema::types::ColumnDescriptor,
};
use std::{fs::File, panic::AssertUnwindSafe};

/// Values decoded at a time.
const BATCH: usize = 4096;

pub(super) fn read(file: File, spec: &ModelSpec) -> Result<Table, DataError> {
    guarded(|| {
        let mut source = Source::open(file)?;
        let selection = Selection::new(spec, &source.names)?;
        let mut features = Vec::new();
        let mut targets = selection.no_targets();
        for group in 0..source.reader.num_row_groups() {
            let first_row = targets.len() as u64 + 1;
            let n_rows = source.n_rows(group)?;
            selection.check_size(first_row - 1 + n_rows as u64)?;
            // The target first: its rows are there before memory is taken for as many rows of features.
            read_targets(&mut source, group, &selection, &mut targets)?;
            let start = features.len();
            let n_features = selection.features.len();
            features.resize(start + n_rows * n_features, 0.0);
            for index in 0..n_features {
                let mut slots = features[start + index..].iter_mut().step_by(n_features);
                let place = Place {
                    row: first_row,
                    column: selection.features[index],
                };
                source.each(group, place, "a feature", |row, cell| {
                    *slots.next().expect("no more cells than rows") = match cell {
                        Cell::Number(value) => selection.feature(value, row, index)?,
                        Cell::Text(bytes) => selection.feature_text(bytes, row, index)?,
                        Cell::Missing => return Err(selection.missing(row, &spec.features[index])),
                    };
                    Ok(())
                })?;
            }
        }
        selection.table(features, targets)
    })
}

fn read_targets(
    source: &mut Source,
    group: usize,
    selection: &Selection<'_>,
    targets: &mut Targets,
) -> Result<(), DataError> {
    let name = source.names[selection.target].clone();
    let place = Place {
        row: targets.len() as u64 + 1,
        column: selection.target,
    };
    let use_as = if selection.classifies() {
        "labels"
    } else {
        "a target"
    };
    source.each(group, place, use_as, |row, cell| {
        match (&mut *targets, cell) {
            (_, Cell::Missing) => return Err(selection.missing(row, &name)),
            (Targets::Classes { labels, .. }, Cell::Number(value)) => {
                labels.push(selection.class(&value.to_string(), row)?);
            }
            (Targets::Classes { labels, .. }, Cell::Text(bytes)) => {
                labels.push(selection.class_text(bytes, row)?);
            }
            (Targets::Values(values), Cell::Number(value)) => values.push(selection.value(value, row)?),
            (Targets::Values(values), Cell::Text(bytes)) => values.push(selection.value_text(bytes, row)?),
        }
        Ok(())
    })
}

pub(super) fn inspect(file: File) -> Result<Inspection, DataError> {
    guarded(|| {
        let mut source = Source::open(file)?;
        let mut inspector = Inspector::new(source.names.clone())?;
        let mut n_rows = 0_u64;
        for group in 0..source.reader.num_row_groups() {
            let first_row = n_rows + 1;
            n_rows += source.n_rows(group)? as u64;
            if n_rows > ROWS_MAX {
                return Err(DataError::TooManyRows);
            }
            for column in 0..source.names.len() {
                let place = Place {
                    row: first_row,
                    column,
                };
                source.each(group, place, "a described column", |row, cell| {
                    match cell {
                        Cell::Number(value) => inspector.see(column, row, &value.to_string()),
                        Cell::Missing => inspector.see(column, row, ""),
                        Cell::Text(bytes) => {
                            let text = std::str::from_utf8(bytes).map_err(|_| DataError::NotUtf8 {
                                row,
                                column: column + 1,
                            })?;
                            inspector.see(column, row, text.trim());
                        }
                    }
                    Ok(())
                })?;
            }
        }
        inspector.finish(n_rows)
    })
}

/// The library has been known to panic on hostile files; whatever it leaves behind is dropped with the file.
fn guarded<T>(work: impl FnOnce() -> Result<T, DataError>) -> Result<T, DataError> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(DataError::Structure {
            why: "the library that reads it gave up on a contradiction in it".to_owned(),
        })
    })
}

/// One value of a column.
enum Cell<'a> {
    Number(f64),
    Text(&'a [u8]),
    Missing,
}

/// Which column is read, and the number of the row group's first row.
#[derive(Clone, Copy)]
struct Place {
    row: u64,
    column: usize,
}

/// An open file whose footer was checked.
struct Source {
    file: File,
    reader: SerializedFileReader<File>,
    names: Vec<String>,
}

impl Source {
    fn open(mut file: File) -> Result<Self, DataError> {
        guard::check_footer(&mut file)?;
        let reader = SerializedFileReader::new(file.try_clone()?).map_err(broken)?;
        let schema = reader.metadata().file_metadata().schema_descr();
        let names = schema
            .columns()
            .iter()
            .map(|column| column.path().string())
            .collect();
        Ok(Self { file, reader, names })
    }

    fn n_rows(&self, group: usize) -> Result<usize, DataError> {
        let n_rows = self.reader.metadata().row_group(group).num_rows();
        usize::try_from(n_rows).map_err(|_| DataError::Structure {
            why: "a row group has a negative number of rows".to_owned(),
        })
    }

    /// Calls `visit` with each cell of a column in a row group; there are as many as the group has rows.
    fn each(
        &mut self,
        group: usize,
        place: Place,
        use_as: &'static str,
        mut visit: impl FnMut(u64, Cell<'_>) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let n_rows = self.n_rows(group)?;
        let chunk = self
            .reader
            .metadata()
            .row_group(group)
            .column(place.column)
            .clone();
        let descriptor = chunk.column_descr();
        if descriptor.max_rep_level() > 0 || descriptor.path().parts().len() > 1 {
            return refuse(descriptor, "nested values", use_as);
        }
        let decimals = decimals(descriptor);
        if let Some(kind) = decimals {
            return refuse(descriptor, kind, use_as);
        }
        check_pages(&mut self.file, &chunk)?;
        let group_reader = self.reader.get_row_group(group).map_err(broken)?;
        let reader = group_reader.get_column_reader(place.column).map_err(broken)?;
        let unsigned = is_unsigned(descriptor);
        let mut row = place.row;
        let mut visit = |cell: Cell<'_>| {
            visit(row, cell)?;
            row += 1;
            Ok(())
        };
        match reader {
            ColumnReader::BoolColumnReader(reader) => cells(reader, n_rows, &mut visit, |value| {
                Cell::Number(f64::from(u8::from(*value)))
            }),
            ColumnReader::Int32ColumnReader(reader) => cells(reader, n_rows, &mut visit, |value| {
                Cell::Number(if unsigned {
                    f64::from(value.cast_unsigned())
                } else {
                    f64::from(*value)
                })
            }),
            ColumnReader::Int64ColumnReader(reader) => cells(reader, n_rows, &mut visit, |value| {
                Cell::Number(if unsigned {
                    value.cast_unsigned() as f64
                } else {
                    *value as f64
                })
            }),
            ColumnReader::FloatColumnReader(reader) => cells(reader, n_rows, &mut visit, |value| {
                Cell::Number(f64::from(*value))
            }),
            ColumnReader::DoubleColumnReader(reader) => {
                cells(reader, n_rows, &mut visit, |value| Cell::Number(*value))
            }
            ColumnReader::ByteArrayColumnReader(reader) => {
                cells(reader, n_rows, &mut visit, |value: &ByteArray| {
                    Cell::Text(value.data())
                })
            }
            ColumnReader::Int96ColumnReader(_) => refuse(descriptor, "times", use_as),
            ColumnReader::FixedLenByteArrayColumnReader(_) => refuse(descriptor, "raw bytes", use_as),
        }
    }
}

/// Decodes a column in batches and gives each row's cell, in order.
fn cells<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    n_rows: usize,
    visit: &mut impl FnMut(Cell<'_>) -> Result<(), DataError>,
    cell: impl for<'a> Fn(&'a T::T) -> Cell<'a>,
) -> Result<(), DataError> {
    let mut values: Vec<T::T> = Vec::with_capacity(BATCH);
    let mut levels: Vec<i16> = Vec::with_capacity(BATCH);
    let mut n_read = 0;
    loop {
        values.clear();
        levels.clear();
        let (n_records, n_values, n_levels) = reader
            .read_records(BATCH, Some(&mut levels), None, &mut values)
            .map_err(broken)?;
        if n_records == 0 {
            break;
        }
        n_read += n_records;
        if n_read > n_rows || n_levels != n_records {
            return contradiction();
        }
        // Without nulls the library gives no levels.
        if n_values == n_records {
            values.iter().try_for_each(|value| visit(cell(value)))?;
            continue;
        }
        let mut present = values.iter();
        for level in &levels {
            let next = if *level > 0 {
                present.next().map(&cell)
            } else {
                Some(Cell::Missing)
            };
            visit(next.ok_or_else(|| DataError::Structure {
                why: "a column lacks values".to_owned(),
            })?)?;
        }
    }
    if n_read == n_rows { Ok(()) } else { contradiction() }
}

fn contradiction<T>() -> Result<T, DataError> {
    Err(DataError::Structure {
        why: "a column has not as many values as its row group has rows".to_owned(),
    })
}

fn check_pages(file: &mut File, chunk: &ColumnChunkMetaData) -> Result<(), DataError> {
    let start = chunk
        .dictionary_page_offset()
        .unwrap_or_else(|| chunk.data_page_offset());
    guard::check_pages(file, start, chunk.compressed_size())
}

/// Numbers that would be read wrongly as they are stored.
fn decimals(descriptor: &ColumnDescriptor) -> Option<&'static str> {
    match (descriptor.logical_type_ref(), descriptor.converted_type()) {
        (Some(LogicalType::Decimal(_)), _) | (_, ConvertedType::DECIMAL) => Some("decimals"),
        _ => None,
    }
}

fn is_unsigned(descriptor: &ColumnDescriptor) -> bool {
    matches!(
        descriptor.converted_type(),
        ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64
    )
}

fn refuse<T>(descriptor: &ColumnDescriptor, kind: &str, use_as: &'static str) -> Result<T, DataError> {
    Err(DataError::ColumnKind {
        name: shortened(&descriptor.path().string()),
        kind: kind.to_owned(),
        use_as,
    })
}

fn broken(error: ParquetError) -> DataError {
    match error {
        ParquetError::NYI(what) => DataError::Unsupported { what },
        other => {
            let text = other.to_string();
            let why = text.chars().filter(|c| !c.is_control()).take(200).collect();
            if text.contains("Disabled feature at compile time") {
                DataError::Unsupported {
                    what: "a compression that this build does not have".to_owned(),
                }
            } else {
                DataError::Structure { why }
            }
        }
    }
}
