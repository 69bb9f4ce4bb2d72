//! Data files that are broken or meant to break something: each gets its typed error, in bounded memory, never a panic.

use crate::{
    digits,
    tables::{read_bytes, spec},
};
use daitn_engine::data::{self, COLUMNS_MAX, DataError, FIELD_BYTES_MAX};
use daitn_messages::rejection::{Code, Rejection};
use parquet::{
    basic::{Compression, Encoding, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, DoubleType, Int32Type},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use proptest::prelude::*;
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

fn refused(csv: &[u8]) -> DataError {
    read_bytes(csv, &spec(&["a", "b"], "y", Some(&["0", "1"]))).unwrap_err()
}

#[test]
fn broken_csv_is_refused_by_row_and_column() {
    assert!(matches!(refused(b""), DataError::Empty));
    assert!(matches!(refused(b"\n\n\n"), DataError::Empty));
    assert!(matches!(refused(b"\xef\xbb\xbf"), DataError::Empty));
    assert!(matches!(refused(b"a,b,y\n"), DataError::NoRows));
    assert!(matches!(refused(b"a,b,y"), DataError::NoRows));
    assert!(matches!(
        refused(b"a,b,y\n1,2,0\n1,2\n"),
        DataError::RaggedRow {
            row: 3,
            expected: 3,
            found: 2
        }
    ));
    assert!(matches!(
        refused(b"a,b,y\n1,2,0,9\n"),
        DataError::RaggedRow {
            row: 2,
            expected: 3,
            found: 4
        }
    ));
    assert!(matches!(
        refused(b"a,b,y\n1,2\0,0\n"),
        DataError::Nul { row: 2, column: 2 }
    ));
    assert!(matches!(
        refused(b"a,b\0,y\n1,2,0\n"),
        DataError::Nul { row: 1, column: 2 }
    ));
    assert!(matches!(
        refused(b"a,b,z,y\n1,2,\0,0\n"),
        DataError::Nul { row: 2, column: 3 }
    ));
    assert!(matches!(
        refused(b"a,\xff,y\n1,2,0\n"),
        DataError::NotUtf8 { row: 1, column: 2 }
    ));
    assert!(matches!(
        refused(b"a,b,y\n1,2,\xff\n"),
        DataError::NotUtf8 { row: 2, column: 3 }
    ));
    assert!(matches!(
        refused(b"a,,y\n1,2,0\n"),
        DataError::UnnamedColumn { column: 2 }
    ));
    assert!(matches!(
        refused(b"a,a,y\n1,2,0\n"),
        DataError::DuplicateColumn { .. }
    ));
    let missing = refused(b"a,c,y\n1,2,0\n");
    assert!(matches!(missing, DataError::MissingColumn { .. }));
    assert_eq!(missing.to_string(), "the file has no column `b`; it has a, c, y");
    for separated in ["a;b;y\n1;2;0\n", "a\tb\ty\n1\t2\t0\n"] {
        assert!(matches!(
            refused(separated.as_bytes()),
            DataError::Separator { .. }
        ));
    }
    assert!(matches!(refused(b"a,b\n1,2\n"), DataError::MissingColumn { .. }));
    for (cell, expected) in [
        ("", "MissingValue"),
        ("  ", "MissingValue"),
        ("x", "NotANumber"),
        ("1,5", "RaggedRow"),
        ("\"1,5\"", "NotANumber"),
        ("1_000", "NotANumber"),
        ("0x10", "NotANumber"),
        ("NaN", "NotFinite"),
        ("-inf", "NotFinite"),
        ("Infinity", "NotFinite"),
        ("1e39", "NotFinite"),
        ("1e999", "NotFinite"),
        ("\u{200b}1", "NotANumber"),
    ] {
        let error = refused(format!("a,b,y\n1,2,0\n1,{cell},0\n").as_bytes());
        assert!(format!("{error:?}").starts_with(expected), "{cell:?}: {error:?}");
        assert!(error.to_string().contains("row 3"), "{error}");
    }
    for label in ["17", "00", "0.0", "zero"] {
        let error = refused(format!("a,b,y\n1,2,0\n1,2,{label}\n").as_bytes());
        assert!(
            matches!(
                &error,
                DataError::UnseenLabel {
                    row: 3,
                    n_classes: 2,
                    ..
                }
            ),
            "{error}"
        );
        assert!(
            !error.to_string().contains(label),
            "an error must not carry values away: {error}"
        );
    }
    assert!(matches!(
        refused(b"a,b,y\n1,2,\n"),
        DataError::MissingValue { row: 2, .. }
    ));
}

#[test]
fn every_error_says_what_to_do() {
    for error in [
        refused(b""),
        refused(b"a,b,y\n1,2\n"),
        refused(b"a,c,y\n1,2,0\n"),
        refused(b"PK\x03\x04aaaa"),
    ] {
        let code = error.code();
        let rejection = Rejection::from(error);
        assert_eq!((rejection.code, code), (code, Code::DataUnusable));
        assert!(rejection.hint.len() > 20);
    }
}

#[test]
fn other_formats_are_named() {
    for (start, words) in [
        (&b"PK\x03\x04"[..], "zip"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\xff\xfea\x00", "UTF-16"),
        (b"ARROW1\0\0", "Arrow"),
    ] {
        let error = refused(&[start, b"whatever"].concat());
        assert!(matches!(error, DataError::Format { .. }));
        assert!(error.to_string().contains(words), "{error}");
    }
    let error = data::inspect(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap_err();
    assert!(
        matches!(error, DataError::Format { .. } | DataError::Io(_)),
        "{error}"
    );
}

#[test]
fn columns_and_fields_are_bounded() {
    let names = |n: usize| (0..n).map(|i| format!("c{i}")).collect::<Vec<_>>().join(",");
    let wide = format!("a,b,y,{}\n", names(COLUMNS_MAX));
    assert!(matches!(refused(wide.as_bytes()), DataError::TooManyColumns));
    let commas = ",".repeat(1_000_000);
    assert!(matches!(refused(commas.as_bytes()), DataError::TooManyColumns));
    assert!(matches!(
        refused(format!("a,b,y\n{commas}").as_bytes()),
        DataError::RaggedRow { row: 2, .. }
    ));
    let field = |n: usize| format!("a,b,y,note\n1,2,0,{}\n", "x".repeat(n));
    assert!(
        read_bytes(
            field(FIELD_BYTES_MAX).as_bytes(),
            &spec(&["a", "b"], "y", Some(&["0"]))
        )
        .is_ok()
    );
    let error = refused(field(FIELD_BYTES_MAX + 1).as_bytes());
    assert!(
        matches!(error, DataError::FieldTooLarge { row: 2, column: 4 }),
        "{error}"
    );
    let header = format!("a,{}", "x".repeat(FIELD_BYTES_MAX + 1));
    assert!(matches!(
        refused(header.as_bytes()),
        DataError::FieldTooLarge { row: 1, column: 2 }
    ));
    // Many fields below the bound make a row above it.
    let header: Vec<String> = (0..100).map(|i| format!("c{i}")).collect();
    let row = vec!["x".repeat(60_000); 100].join(",");
    let error = refused(
        format!("{}\n{row}\n", header.join(","))
            .replacen("c0,c1,c2", "a,b,y", 1)
            .as_bytes(),
    );
    assert!(matches!(error, DataError::RowTooLarge { row: 2 }), "{error}");
}

/// A Parquet file written by the library, from a schema and a function that writes its columns.
fn parquet(
    schema: &str,
    properties: WriterProperties,
    write: impl Fn(&mut SerializedFileWriter<Vec<u8>>),
) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    write(&mut writer);
    writer.into_inner().unwrap()
}

/// One page of zeros: 24 MiB that compress to almost nothing.
fn bomb() -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_enabled(false)
        .set_data_page_size_limit(1 << 30)
        .set_data_page_row_count_limit(usize::MAX)
        .set_write_batch_size(1 << 30)
        .build();
    parquet("message m { REQUIRED DOUBLE a; }", properties, |writer| {
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column
            .typed::<DoubleType>()
            .write_batch(&vec![0.0; 3 << 20], None, None)
            .unwrap();
        column.close().unwrap();
        group.close().unwrap();
    })
}

/// Thrift's compact form of a footer whose schema is a chain of groups.
fn deep_schema(depth: usize) -> Vec<u8> {
    let mut footer = vec![0x15, 0x02, 0x19, 0xfc];
    let mut n = depth as u64;
    while n >= 0x80 {
        footer.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    footer.push(n as u8);
    // SchemaElement: 3 repetition required, 4 name "g", 5 one child.
    footer.extend([0x35, 0x00, 0x18, 0x01, b'g', 0x15, 0x02, 0x00].repeat(depth));
    footer.extend([0x16, 0x00, 0x19, 0x0c, 0x00]);
    framed(&footer)
}

fn framed(footer: &[u8]) -> Vec<u8> {
    let mut bytes = b"PAR1".to_vec();
    bytes.extend(footer);
    bytes.extend((footer.len() as u32).to_le_bytes());
    bytes.extend(b"PAR1");
    bytes
}

fn hostile_parquet() -> Vec<(&'static str, Vec<u8>)> {
    let good = std::fs::read(digits::folder().join("digits.parquet")).unwrap();
    let plain = || WriterProperties::builder().build();
    let cut = good[..good.len() / 2].to_vec();
    let mut long_footer = good.clone();
    let n = long_footer.len();
    long_footer[n - 8..n - 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut footer_over_start = good;
    footer_over_start[n - 8..n - 4].copy_from_slice(&(n as u32 - 4).to_le_bytes());
    let nested = parquet(
        "message m { REQUIRED GROUP g { REQUIRED INT32 a; } }",
        plain(),
        |writer| {
            let mut group = writer.next_row_group().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            column
                .typed::<Int32Type>()
                .write_batch(&[1, 2], None, None)
                .unwrap();
            column.close().unwrap();
            group.close().unwrap();
        },
    );
    let not_utf8 = parquet("message m { REQUIRED BYTE_ARRAY a; }", plain(), |writer| {
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column
            .typed::<ByteArrayType>()
            .write_batch(&[ByteArray::from(vec![0xff])], None, None)
            .unwrap();
        column.close().unwrap();
        group.close().unwrap();
    });
    let no_rows = parquet("message m { REQUIRED INT32 a; }", plain(), |_| {});
    vec![
        ("only-mark", b"PAR1".to_vec()),
        ("two-marks", b"PAR1PAR1PAR1".to_vec()),
        ("cut", cut),
        ("long-footer", long_footer),
        ("footer-over-start", footer_over_start),
        ("empty-footer", framed(&[])),
        ("footer-of-stop", framed(&[0])),
        (
            "list-of-2-31",
            framed(&[0x15, 0x02, 0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07]),
        ),
        (
            "row-groups-of-2-31",
            framed(&[0x49, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07]),
        ),
        ("nested-structures", framed(&[0x1c; 1_000_000])),
        ("deep-schema", deep_schema(30_000)),
        ("bomb", bomb()),
        ("nested", nested),
        ("not-utf8", not_utf8),
        ("no-rows", no_rows),
    ]
}

#[test]
#[ignore = "the process that `hostile_files_are_refused_in_bounded_memory` starts"]
fn child() {
    let folder = PathBuf::from(std::env::var_os("HOSTILE_FILES").expect("the parent names the folder"));
    let spec = spec(&["a"], "a", None);
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let read = data::read(&path, &spec).map(|_| ()).map_err(|error| error.code());
        let inspected = data::inspect(&path).map(|_| ()).map_err(|error| error.code());
        println!("file {name}: {read:?} {inspected:?}");
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!(
        "{}",
        status.lines().find(|line| line.starts_with("VmHWM")).unwrap()
    );
}

#[test]
fn hostile_files_are_refused_in_bounded_memory() {
    let folder = tempfile::tempdir().unwrap();
    let files = hostile_parquet();
    for (name, bytes) in &files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    // A gigabyte in one field, unquoted and quoted, as files with a hole: no disk is used.
    for (name, start) in [
        ("gigabyte-field", "a\n1\n"),
        ("gigabyte-quoted", "a\n1\n\""),
        ("gigabyte-header", "a,"),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, start).unwrap();
        File::options()
            .append(true)
            .open(&path)
            .unwrap()
            .set_len(1 << 30)
            .unwrap();
    }
    // In a process of its own whose address space is bounded, so that a huge reservation fails even if never touched.
    let executable = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .arg("-c")
        .arg("ulimit -v 524288; exec \"$0\" --exact hostile::child --ignored --nocapture --test-threads=1")
        .arg(executable)
        .env("HOSTILE_FILES", folder.path())
        .env("RAYON_NUM_THREADS", "1")
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{text}");
    // The harness writes the name of the test before the first line.
    let lines: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once("file ").map(|(_, rest)| rest))
        .collect();
    assert_eq!(lines.len(), files.len() + 3, "{text}");
    for line in &lines {
        assert!(line.starts_with("nested:") || !line.contains("Ok("), "{line}");
    }
    assert!(
        !text.contains("panicked"),
        "the checks come before the library gives up: {text}"
    );
    let peak = text.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let peak_kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    println!("{} files, {peak}", lines.len());
    assert!(peak_kib < 64 * 1024, "{peak}");
}

#[test]
fn texts_by_differences_are_refused_before_their_lengths_are_believed() {
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_encoding(Encoding::DELTA_LENGTH_BYTE_ARRAY)
        .build();
    let bytes = parquet("message m { REQUIRED BYTE_ARRAY a; }", properties, |writer| {
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column
            .typed::<ByteArrayType>()
            .write_batch(&[ByteArray::from("1")], None, None)
            .unwrap();
        column.close().unwrap();
        group.close().unwrap();
    });
    let error = read_bytes(&bytes, &spec(&["a"], "a", None)).unwrap_err();
    assert!(matches!(error, DataError::Unsupported { .. }), "{error}");
}

#[test]
fn a_parquet_file_with_one_byte_changed_is_read_or_refused() {
    let good = std::fs::read(digits::folder().join("digits.parquet")).unwrap();
    let spec = digits::perceptron();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    let mut random = daitn_learning::random::SplitMix64::new(1);
    let (mut n_read, mut n_refused) = (0, 0);
    for i in 0..400 {
        let mut bytes = good.clone();
        // Half of the changes in the footer, where the structure is.
        let position = if i % 2 == 0 {
            good.len() - 1 - random.below(12_000)
        } else {
            random.below(good.len())
        };
        bytes[position] ^= 1 << random.below(8);
        std::fs::write(&path, &bytes).unwrap();
        match data::read(&path, &spec) {
            Ok(table) => {
                assert_eq!(table.n_features(), 64);
                n_read += 1;
            }
            Err(error) => {
                assert!(!error.remedy().is_empty());
                n_refused += 1;
            }
        }
        drop(data::inspect(&path));
    }
    println!("{n_read} read, {n_refused} refused");
    assert!(n_refused > 50, "changes that change nothing prove nothing");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_bytes_make_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        drop(read_bytes(&bytes, &spec(&["a"], "y", None)));
    }

    #[test]
    fn no_text_makes_a_panic(text in "[ab,y\"\n\r0-9.\0-]{0,200}") {
        drop(read_bytes(format!("a,y\n{text}").as_bytes(), &spec(&["a"], "y", None)));
    }

    #[test]
    fn no_footer_makes_a_panic(footer in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read_bytes(&framed(&footer), &spec(&["a"], "y", None)).is_err());
    }
}
