//! Tables that are well: CSV and Parquet, against values that another program wrote.

use crate::digits;
use daitn_engine::{
    Table, Targets,
    data::{self, DataError, Kind},
};
use daitn_messages::learning::{Architecture, ModelSpec, Task};
use proptest::prelude::*;
use std::path::{Path, PathBuf};

pub(crate) fn spec(features: &[&str], target: &str, classes: Option<&[&str]>) -> ModelSpec {
    ModelSpec {
        architecture: Architecture::Linear,
        features: features.iter().map(|f| (*f).to_owned()).collect(),
        target: target.to_owned(),
        task: classes.map_or(Task::Regression, |classes| Task::Classification {
            classes: classes.iter().map(|c| (*c).to_owned()).collect(),
        }),
        scale: 1.0,
        offset: 0.0,
    }
}

pub(crate) fn read_bytes(bytes: &[u8], spec: &ModelSpec) -> Result<Table, DataError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    std::fs::write(&path, bytes).unwrap();
    data::read(&path, spec)
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn labels(table: &Table) -> Vec<u32> {
    match table.targets() {
        Targets::Classes { labels, .. } => labels.clone(),
        Targets::Values(_) => panic!("expected classes"),
    }
}

fn values(table: &Table) -> Vec<f32> {
    match table.targets() {
        Targets::Values(values) => values.clone(),
        Targets::Classes { .. } => panic!("expected values"),
    }
}

#[test]
fn columns_are_chosen_by_name_and_brought_to_scale() {
    let csv = b"b,note,y,a\n3,x,no,1\n4,\"a, \"\"b\"\"\",yes,2\n";
    let mut spec = spec(&["a", "b"], "y", Some(&["yes", "no"]));
    (spec.offset, spec.scale) = (1.0, 0.5);
    let table = read_bytes(csv, &spec).unwrap();
    assert_eq!(table.features(), [0.0, 1.0, 0.5, 1.5]);
    assert_eq!(labels(&table), [1, 0]);
    assert_eq!(table.class_counts(), [1, 1]);
}

#[test]
fn csv_as_people_write_it() {
    let spec = spec(&["a"], "y", None);
    let expected = (vec![1.0, -2.5], vec![3.0, 4e3]);
    for text in [
        "a,y\n1,3\n-2.5,4e3\n",
        "a,y\r\n1,3\r\n-2.5,4e3",
        "\u{feff}a,y\n1,3\n-2.5,4e3\n",
        "\"a\" , y\n 1 ,\"3\"\n\n-2.5, +4E3\n",
        "a,text,y\n1,\"two\nlines\",3\n-2.5,,4000.0\n",
    ] {
        let table = read_bytes(text.as_bytes(), &spec).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!((table.features().to_vec(), values(&table)), expected, "{text:?}");
    }
}

#[test]
fn digits_are_the_same_in_both_formats() {
    let spec = digits::perceptron();
    let csv = data::read(&digits::folder().join("digits.csv"), &spec).unwrap();
    let parquet = data::read(&digits::folder().join("digits.parquet"), &spec).unwrap();
    assert_eq!(csv, parquet);
    assert_eq!((csv.n_rows(), csv.n_features()), (1797, 64));
    // Counted by the publisher.
    assert_eq!(
        csv.class_counts(),
        [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    );
    let first: Vec<f32> = csv.row(0)[..8].iter().map(|x| x * 16.0).collect();
    assert_eq!(first, [0.0, 0.0, 5.0, 13.0, 9.0, 1.0, 0.0, 0.0]);
}

#[test]
fn parquet_types_become_numbers() {
    for name in ["mixed.parquet", "flat-v2.parquet"] {
        let features = ["half", "unsigned", "signed", "flag", "number_text"];
        let table = data::read(&file(name), &spec(&features, "half", None)).unwrap();
        assert_eq!(table.row(0), [0.5, 0.0, -1.0, 1.0, 1.0], "{name}");
        assert_eq!(table.row(2), [-2.5, 2_147_483_653.0, 1.0, 1.0, -300.0]);
        assert_eq!(table.row(3), [3.25, 4_294_967_295.0, -2_147_483_648.0, 1.0, 4.0]);
        assert_eq!(values(&table), [0.5, 1.5, -2.5, 3.25]);
        let table = data::read(&file(name), &spec(&["half"], "name", Some(&["nein", "ja"]))).unwrap();
        assert_eq!(labels(&table), [1, 0, 1, 1]);
        let table = data::read(
            &file(name),
            &spec(&["half"], "signed", Some(&["-1", "0", "1", "-2147483648"])),
        );
        assert_eq!(labels(&table.unwrap()), [0, 1, 2, 3]);
    }
}

#[test]
fn parquet_that_cannot_be_used_says_why() {
    let refused =
        |name: &str, feature: &str| data::read(&file(name), &spec(&[feature], "half", None)).unwrap_err();
    let gap = refused("mixed.parquet", "gap");
    assert!(
        matches!(&gap, DataError::MissingValue { row: 2, column } if column == "gap"),
        "{gap}"
    );
    let wide = refused("mixed.parquet", "real");
    assert!(
        matches!(&wide, DataError::NotFinite { row: 2, column } if column == "real"),
        "{wide}"
    );
    let text = refused("mixed.parquet", "name");
    assert!(matches!(&text, DataError::NotANumber { row: 1, .. }), "{text}");
    assert!(matches!(
        refused("mixed.parquet", "money"),
        DataError::ColumnKind { .. }
    ));
    assert!(matches!(
        refused("mixed.parquet", "list"),
        DataError::MissingColumn { .. }
    ));
    let nested = refused("mixed.parquet", "list.list.element");
    assert!(matches!(nested, DataError::ColumnKind { .. }), "{nested}");
    assert!(matches!(
        refused("mixed.parquet", "absent"),
        DataError::MissingColumn { .. }
    ));
    let gzip = refused("gzip.parquet", "half");
    assert!(matches!(gzip, DataError::Unsupported { .. }), "{gzip}");
    assert!(data::read(&file("delta.parquet"), &spec(&["half"], "half", None)).is_ok());
    let delta = data::read(
        &file("delta.parquet"),
        &spec(&["half"], "name", Some(&["ja", "nein"])),
    );
    assert!(matches!(delta, Err(DataError::Unsupported { .. })), "{delta:?}");
    let unseen = data::read(&file("mixed.parquet"), &spec(&["half"], "name", Some(&["ja"])));
    assert!(
        matches!(unseen, Err(DataError::UnseenLabel { row: 2, .. })),
        "{unseen:?}"
    );
}

#[test]
fn an_inspection_tells_kinds_and_labels() {
    for name in ["digits.csv", "digits.parquet"] {
        let inspection = data::inspect(&digits::folder().join(name)).unwrap();
        assert_eq!((inspection.n_rows, inspection.columns.len()), (1797, 65));
        let label = inspection.column("label").unwrap();
        assert_eq!(
            (label.kind, label.missing.n, label.range),
            (Kind::Integer, 0, Some((0.0, 9.0)))
        );
        let counts: Vec<u64> = label.distinct.as_ref().unwrap().values().copied().collect();
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        assert_eq!(inspection.column("p5").unwrap().range, Some((0.0, 16.0)));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.csv");
    let rows: String = (0..5000)
        .map(|i| format!("{i},{}.5,,{}\n", i % 3, i % 2))
        .collect();
    std::fs::write(&path, format!("id,real,empty,flag\n{rows}")).unwrap();
    let inspection = data::inspect(&path).unwrap();
    let kinds: Vec<_> = inspection.columns.iter().map(|c| (c.kind, c.missing.n)).collect();
    assert_eq!(
        kinds,
        [
            (Kind::Integer, 0),
            (Kind::Number, 0),
            (Kind::Text, 5000),
            (Kind::Integer, 0)
        ]
    );
    assert_eq!(
        inspection.column("id").unwrap().distinct,
        None,
        "too many to be labels"
    );
    assert_eq!(
        inspection.column("real").unwrap().distinct.as_ref().unwrap()["2.5"],
        1666
    );
    let flat = data::inspect(&file("flat-v2.parquet")).unwrap();
    assert_eq!(flat.column("gap").unwrap().missing.n, 1);
    assert_eq!(flat.column("name").unwrap().distinct.as_ref().unwrap()["ja"], 3);
}

/// A spreadsheet shows row 3 where this says row 3.
#[test]
fn what_keeps_a_column_from_being_a_feature_is_told_with_its_first_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.csv");
    std::fs::write(&path, "gap,gaps,word,odd,none\n1,,1,1,\n,,NA,inf,\n3,3,x,nan,\n").unwrap();
    let inspection = data::inspect(&path).unwrap();
    let told: Vec<String> = inspection
        .columns
        .iter()
        .map(|column| column.unfit().unwrap().to_string())
        .collect();
    assert_eq!(
        told,
        [
            "no value in row 3",
            "no value in 2 rows, the first of them row 2",
            "row 3 has a value that is no number",
            "NaN or infinite in 2 rows, the first of them row 3",
            "no row has a value",
        ]
    );
    let error = inspection.named("gapps").unwrap_err().to_string();
    assert_eq!(
        error,
        "the file has no column `gapps` (did you mean `gaps`?); it has gap, gaps, word, odd, none"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_written_as_csv_is_read(
        rows in prop::collection::vec((any::<f32>().prop_filter("finite", |x| x.is_finite()), 0_usize..3), 1..40),
        quoted in any::<bool>(),
    ) {
        let classes = ["plain", "with, comma", "with \"quotes\""];
        let quote = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let mut text = "y,x\n".to_owned();
        for (x, class) in &rows {
            let x = if quoted { quote(&x.to_string()) } else { x.to_string() };
            text += &format!("{},{x}\n", quote(classes[*class]));
        }
        let table = read_bytes(text.as_bytes(), &spec(&["x"], "y", Some(&classes))).unwrap();
        prop_assert_eq!(table.features().to_vec(), rows.iter().map(|(x, _)| *x).collect::<Vec<_>>());
        prop_assert_eq!(labels(&table), rows.iter().map(|(_, c)| *c as u32).collect::<Vec<_>>());
    }
}
