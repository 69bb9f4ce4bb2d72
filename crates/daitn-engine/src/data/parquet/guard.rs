//! Looks at a Parquet file's own claims about sizes before the library allocates by them: the footer's schema (which
//! the library reads by recursion) and lists, and the header of every page (by which it makes its buffers).
//!
//! Format: <https://github.com/apache/parquet-format>, `parquet.thrift`.

use super::super::{COLUMNS_MAX, DataError};
use super::thrift::{Broken, Cursor, I32, I64, LIST, STRUCT};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
};

/// Largest footer, bytes: about 50,000 column chunks.
const FOOTER_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Most row groups.
const ROW_GROUPS_MAX: u64 = 10_000;
/// Deepest schema, the root being 1. Only flat columns are read, but others may lie beside them.
const SCHEMA_DEPTH_MAX: usize = 32;
/// Largest page, bytes, compressed and not. Writers aim at 1 MiB.
const PAGE_BYTES_MAX: i64 = 16 * 1024 * 1024;
/// Most values of a dictionary; writers give up on a dictionary of 1 MiB.
const DICTIONARY_VALUES_MAX: i64 = 1024 * 1024;
/// Bytes of a page's header that are read at first, and at most.
const HEADER_BYTES_START: u64 = 1024;
const HEADER_BYTES_MAX: u64 = 64 * 1024;
/// Encodings (numbers of the format) by which the library would allocate before it reads: texts by differences.
const ENCODINGS_REFUSED: [i64; 2] = [6, 7];

fn structure<T>(why: impl Into<String>) -> Result<T, DataError> {
    Err(DataError::Structure { why: why.into() })
}

/// Checks the footer.
pub(super) fn check_footer(file: &mut File) -> Result<(), DataError> {
    let n_bytes = file.metadata()?.len();
    if n_bytes < 12 {
        return structure("it is shorter than its two marks");
    }
    let mut tail = [0; 8];
    file.seek(SeekFrom::End(-8))?;
    file.read_exact(&mut tail)?;
    let [a, b, c, d, mark @ ..] = tail;
    match &mark {
        b"PAR1" => {}
        b"PARE" => {
            return Err(DataError::Unsupported {
                what: "encryption".to_owned(),
            });
        }
        _ => return structure("its last bytes are not its mark, so it is not whole"),
    }
    let footer_bytes = u64::from(u32::from_le_bytes([a, b, c, d]));
    if footer_bytes > FOOTER_BYTES_MAX {
        return structure(format!(
            "its footer claims {footer_bytes} bytes, over the bound of {FOOTER_BYTES_MAX}"
        ));
    }
    if footer_bytes + 12 > n_bytes {
        return structure("its footer claims more bytes than the file has");
    }
    file.seek(SeekFrom::Start(n_bytes - 8 - footer_bytes))?;
    let mut footer = vec![0; usize::try_from(footer_bytes).expect("at most 8 MiB")];
    file.read_exact(&mut footer)?;
    check_metadata(&mut Cursor::new(&footer))
}

/// `FileMetaData`: 2 is the schema, 4 are the row groups.
fn check_metadata(cursor: &mut Cursor<'_>) -> Result<(), DataError> {
    let mut last = 0;
    while let Some((kind, number)) = cursor.field(last)? {
        last = number;
        match (number, kind) {
            (2, LIST) => check_schema(cursor)?,
            (4, LIST) => {
                let (element, n) = cursor.clone().list()?;
                if n > ROW_GROUPS_MAX || element != STRUCT {
                    return structure(format!("it has more than {ROW_GROUPS_MAX} row groups"));
                }
                cursor.skip(kind)?;
            }
            _ => cursor.skip(kind)?,
        }
    }
    Ok(())
}

/// A list of `SchemaElement`, depth first; 5 is the number of children.
fn check_schema(cursor: &mut Cursor<'_>) -> Result<(), DataError> {
    let (element, n) = cursor.list()?;
    if element != STRUCT || n > 2 * COLUMNS_MAX as u64 {
        return Err(DataError::TooManyColumns);
    }
    // Children still to come, for each open group.
    let mut open: Vec<i64> = Vec::new();
    for _ in 0..n {
        let mut n_children = 0;
        let mut last = 0;
        while let Some((kind, number)) = cursor.field(last)? {
            last = number;
            match (number, kind) {
                (5, I32) => n_children = cursor.integer()?,
                _ => cursor.skip(kind)?,
            }
        }
        if n_children < 0 || n_children > i64::from(i32::MAX) {
            return structure("its schema has a group with an impossible number of columns");
        }
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        if n_children > 0 {
            open.push(n_children);
        }
        if open.len() > SCHEMA_DEPTH_MAX {
            return structure("its schema is nested too deeply");
        }
        while open.last() == Some(&0) {
            open.pop();
        }
    }
    Ok(())
}

/// Checks the header of every page in a column chunk's bytes.
pub(super) fn check_pages(file: &mut File, start: i64, n_bytes: i64) -> Result<(), DataError> {
    let file_bytes = file.metadata()?.len();
    let range = u64::try_from(start).ok().zip(u64::try_from(n_bytes).ok());
    let range = range.and_then(|(start, n)| Some(start..start.checked_add(n)?));
    let Some(range) = range.filter(|range| range.end <= file_bytes) else {
        return structure("a column lies outside the file");
    };
    let mut position = range.start;
    while position < range.end {
        let page = page_header(file, position, range.end)?;
        page.check()?;
        let page_bytes = u64::try_from(page.compressed).unwrap_or(u64::MAX);
        position = position
            .saturating_add(page.header_bytes)
            .saturating_add(page_bytes);
    }
    Ok(())
}

/// What a page's header claims.
#[derive(Debug, Default)]
struct Page {
    header_bytes: u64,
    uncompressed: i64,
    compressed: i64,
    /// Encodings of values, of a data page.
    encoding: i64,
    /// Values of a dictionary page.
    n_dictionary_values: i64,
}

impl Page {
    fn check(&self) -> Result<(), DataError> {
        if !(0..=PAGE_BYTES_MAX).contains(&self.compressed)
            || !(0..=PAGE_BYTES_MAX).contains(&self.uncompressed)
        {
            return Err(DataError::Unsupported {
                what: format!("pages over {PAGE_BYTES_MAX} bytes"),
            });
        }
        if !(0..=DICTIONARY_VALUES_MAX).contains(&self.n_dictionary_values) {
            let what = format!("dictionaries of more than {DICTIONARY_VALUES_MAX} values");
            return Err(DataError::Unsupported { what });
        }
        if ENCODINGS_REFUSED.contains(&self.encoding) {
            return Err(DataError::Unsupported {
                what: "texts encoded by their differences".to_owned(),
            });
        }
        Ok(())
    }
}

fn page_header(file: &mut File, position: u64, end: u64) -> Result<Page, DataError> {
    let mut n = HEADER_BYTES_START;
    loop {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(position))?;
        file.by_ref()
            .take(n.min(end - position))
            .read_to_end(&mut bytes)?;
        match parse_page(&mut Cursor::new(&bytes)) {
            Err(Broken::End) if n < HEADER_BYTES_MAX && bytes.len() as u64 == n => n = HEADER_BYTES_MAX,
            Err(broken) => return Err(broken.into()),
            Ok(page) => return Ok(page),
        }
    }
}

/// `PageHeader`: 2 and 3 are sizes; 5, 7 and 8 the headers of data pages, dictionary pages and data pages version 2.
fn parse_page(cursor: &mut Cursor<'_>) -> Result<Page, Broken> {
    let mut page = Page::default();
    let mut last = 0;
    while let Some((kind, number)) = cursor.field(last)? {
        last = number;
        match (number, kind) {
            (2, I32 | I64) => page.uncompressed = cursor.integer()?,
            (3, I32 | I64) => page.compressed = cursor.integer()?,
            (5, STRUCT) => page.encoding = member(cursor, 2)?,
            (7, STRUCT) => page.n_dictionary_values = member(cursor, 1)?,
            (8, STRUCT) => page.encoding = member(cursor, 4)?,
            _ => cursor.skip(kind)?,
        }
    }
    page.header_bytes = cursor.position() as u64;
    Ok(page)
}

/// One number of a structure.
fn member(cursor: &mut Cursor<'_>, wanted: i64) -> Result<i64, Broken> {
    let mut found = 0;
    let mut last = 0;
    while let Some((kind, number)) = cursor.field(last)? {
        last = number;
        if number == wanted && kind == I32 {
            found = cursor.integer()?;
        } else {
            cursor.skip(kind)?;
        }
    }
    Ok(found)
}
