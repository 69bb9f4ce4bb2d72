//! Comma-separated values (RFC 4180), in bounded memory: the parser writes into a buffer of ours that never grows
//! beyond the longest row allowed, so a field of a gigabyte costs what a field of 64 KiB costs.

use super::{
    COLUMNS_MAX, DataError, FIELD_BYTES_MAX, ROW_BYTES_MAX, ROWS_MAX,
    cells::Selection,
    inspection::{Inspection, Inspector},
};
use crate::{Table, Targets};
use csv_core::ReadRecordResult;
use daitn_messages::learning::ModelSpec;
use std::io::Read;

/// Bytes read from the file at a time.
const INPUT_BYTES: usize = 64 * 1024;
/// First size of the buffer for a row, bytes.
const ROW_BYTES_START: usize = 16 * 1024;

pub(super) fn read(file: impl Read, spec: &ModelSpec) -> Result<Table, DataError> {
    let mut records = Records::new(file);
    let columns = records.header()?;
    let selection = Selection::new(spec, &columns)?;
    let mut features = Vec::new();
    let mut targets = selection.no_targets();
    while records.next()? {
        let row = records.row;
        selection.check_size(targets.len() as u64 + 1)?;
        for (index, position) in selection.features.iter().enumerate() {
            features.push(selection.feature_text(records.field(*position), row, index)?);
        }
        let field = records.field(selection.target);
        match &mut targets {
            Targets::Classes { labels, .. } => labels.push(selection.class_text(field, row)?),
            Targets::Values(values) => values.push(selection.value_text(field, row)?),
        }
    }
    selection.table(features, targets)
}

pub(super) fn inspect(file: impl Read) -> Result<Inspection, DataError> {
    let mut records = Records::new(file);
    let columns = records.header()?;
    let n_columns = columns.len();
    let mut inspector = Inspector::new(columns)?;
    let mut n_rows = 0;
    while records.next()? {
        n_rows += 1;
        if n_rows > ROWS_MAX {
            return Err(DataError::TooManyRows);
        }
        for position in 0..n_columns {
            let field = std::str::from_utf8(records.field(position)).map_err(|_| DataError::NotUtf8 {
                row: records.row,
                column: position + 1,
            })?;
            inspector.see(position, records.row, field.trim());
        }
    }
    inspector.finish(n_rows)
}

/// The records of a file, one at a time.
struct Records<R> {
    reader: R,
    parser: csv_core::Reader,
    input: Vec<u8>,
    /// What of `input` is still to be parsed.
    pending: std::ops::Range<usize>,
    /// Fields of the current record, one after the other.
    bytes: Vec<u8>,
    /// Where each field ends.
    ends: Vec<usize>,
    /// Fields of the current record.
    n_fields: usize,
    /// Number of the current record; the header is 1.
    row: u64,
    /// Fields that each record must have; none before the header was read.
    n_columns: Option<usize>,
}

impl<R: Read> Records<R> {
    fn new(reader: R) -> Self {
        Self {
            reader,
            parser: csv_core::Reader::new(),
            input: vec![0; INPUT_BYTES],
            pending: 0..0,
            bytes: vec![0; ROW_BYTES_START],
            ends: vec![0; COLUMNS_MAX + 1],
            n_fields: 0,
            row: 0,
            n_columns: None,
        }
    }

    /// The names of the columns.
    fn header(&mut self) -> Result<Vec<String>, DataError> {
        if !self.next()? {
            return Err(DataError::Empty);
        }
        let mut names = Vec::with_capacity(self.n_fields);
        for position in 0..self.n_fields {
            let name = std::str::from_utf8(self.field(position)).map_err(|_| DataError::NotUtf8 {
                row: 1,
                column: position + 1,
            })?;
            names.push(name.trim().to_owned());
        }
        if let [only] = &names[..] {
            // Nothing can be predicted from a single column: the fields are separated by something else.
            let separators = [(';', "semicolons"), ('\t', "tabs"), ('|', "bars")];
            if let Some((_, found)) = separators
                .into_iter()
                .find(|(separator, _)| only.contains(*separator))
            {
                return Err(DataError::Separator { found });
            }
        }
        self.n_columns = Some(names.len());
        Ok(names)
    }

    fn field(&self, position: usize) -> &[u8] {
        let start = if position == 0 { 0 } else { self.ends[position - 1] };
        &self.bytes[start..self.ends[position]]
    }

    /// Goes to the next record; `false` at the end of the file.
    fn next(&mut self) -> Result<bool, DataError> {
        self.row += 1;
        let (mut n_bytes, mut n_ends) = (0, 0);
        loop {
            if self.pending.is_empty() {
                self.fill()?;
            }
            let input = &self.input[self.pending.clone()];
            let (result, n_read, n_written, n_ended) =
                self.parser
                    .read_record(input, &mut self.bytes[n_bytes..], &mut self.ends[n_ends..]);
            self.pending.start += n_read;
            n_bytes += n_written;
            n_ends += n_ended;
            let start = if n_ends == 0 { 0 } else { self.ends[n_ends - 1] };
            if n_bytes.saturating_sub(start) > FIELD_BYTES_MAX {
                return Err(DataError::FieldTooLarge {
                    row: self.row,
                    column: n_ends + 1,
                });
            }
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.grow()?,
                ReadRecordResult::OutputEndsFull => return Err(self.too_many_fields()),
                ReadRecordResult::End => return Ok(false),
                ReadRecordResult::Record => {
                    self.n_fields = n_ends;
                    return self.check(n_bytes).map(|()| true);
                }
            }
        }
    }

    /// Reads the next part of the file, whole: a byte-order mark must not be cut in two.
    fn fill(&mut self) -> Result<(), DataError> {
        let mut n = 0;
        while n < self.input.len() {
            match self.reader.read(&mut self.input[n..]) {
                Ok(0) => break,
                Ok(more) => n += more,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.pending = 0..n;
        Ok(())
    }

    fn grow(&mut self) -> Result<(), DataError> {
        if self.bytes.len() >= ROW_BYTES_MAX {
            return Err(DataError::RowTooLarge { row: self.row });
        }
        self.bytes.resize((2 * self.bytes.len()).min(ROW_BYTES_MAX), 0);
        Ok(())
    }

    fn too_many_fields(&self) -> DataError {
        match self.n_columns {
            Some(expected) => DataError::RaggedRow {
                row: self.row,
                expected,
                found: expected + 1,
            },
            None => DataError::TooManyColumns,
        }
    }

    fn check(&mut self, n_bytes: usize) -> Result<(), DataError> {
        match self.n_columns {
            None if self.n_fields > COLUMNS_MAX => return Err(DataError::TooManyColumns),
            Some(expected) if self.n_fields > expected => return Err(self.too_many_fields()),
            Some(expected) if self.n_fields < expected => {
                return Err(DataError::RaggedRow {
                    row: self.row,
                    expected,
                    found: self.n_fields,
                });
            }
            _ => {}
        }
        // A short field at the end of a long row is seen only here.
        let mut start = 0;
        for (position, end) in self.ends[..self.n_fields].iter().enumerate() {
            if end - start > FIELD_BYTES_MAX {
                return Err(DataError::FieldTooLarge {
                    row: self.row,
                    column: position + 1,
                });
            }
            start = *end;
        }
        if let Some(nul) = self.bytes[..n_bytes].iter().position(|byte| *byte == 0) {
            let column = self.ends[..self.n_fields].partition_point(|end| *end <= nul) + 1;
            return Err(DataError::Nul {
                row: self.row,
                column,
            });
        }
        Ok(())
    }
}
