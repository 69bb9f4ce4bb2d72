//! Weights files: round trips, the library of other authors as a reference, and everything that is not one.

use daitn_engine::{
    Layout, TensorSpec,
    weights::{self, Numbers, Section, TensorProblem, WeightsError, Writer},
};
use daitn_messages::rejection::Code;
use proptest::prelude::*;
use safetensors::{SafeTensors, tensor::TensorView};

fn layout() -> Layout {
    Layout::new(vec![
        TensorSpec::new("00.dense.weight", &[2, 3]),
        TensorSpec::new("00.dense.bias", &[2]),
    ])
    .unwrap()
}

fn numbers() -> Vec<f32> {
    vec![1.0, -2.0, 0.5, f32::MIN_POSITIVE, -0.0, f32::MAX, 7.25, 1e-40]
}

/// A file with this header and so many bytes of zeros.
fn file(header: &str, n_data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + n_data, 0);
    bytes
}

const BIAS: &str = r#""00.dense.bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
const WEIGHT: &str = r#""00.dense.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]}"#;

#[test]
fn a_file_is_what_the_format_says() {
    let bytes = weights::write(&numbers(), &layout()).unwrap();
    // By hand: the length of the header, the header padded with spaces to a multiple of 8, the numbers.
    let header = format!("{{{BIAS},{WEIGHT}}}");
    let padded = header.len().next_multiple_of(8);
    let mut expected = (padded as u64).to_le_bytes().to_vec();
    expected.extend(format!("{header:padded$}").as_bytes());
    numbers().iter().for_each(|x| expected.extend(x.to_le_bytes()));
    assert_eq!(bytes, expected);
    assert_eq!(weights::header(&layout()), expected[..8 + padded]);
    assert_eq!(weights::read(&bytes, &layout()).unwrap(), numbers());
}

#[test]
fn files_go_both_ways_between_us_and_the_reference() {
    let bytes = weights::write(&numbers(), &layout()).unwrap();
    let theirs = SafeTensors::deserialize(&bytes).unwrap();
    let weight = theirs.tensor("00.dense.weight").unwrap();
    assert_eq!(weight.shape(), [2, 3]);
    assert_eq!(weight.data()[..4], 0.5_f32.to_le_bytes());
    // With metadata, as Python's library writes it.
    let data: Vec<u8> = numbers().iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = |shape: &[usize], range: std::ops::Range<usize>| {
        TensorView::new(safetensors::Dtype::F32, shape.to_vec(), &data[range]).unwrap()
    };
    let tensors = [
        ("00.dense.weight", view(&[2, 3], 8..32)),
        ("00.dense.bias", view(&[2], 0..8)),
    ];
    let metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(tensors, Some(metadata)).unwrap();
    assert_eq!(weights::read(&bytes, &layout()).unwrap(), numbers());
}

#[test]
fn files_on_disk_are_read_and_streamed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("update.safetensors");
    let layout = layout().with_vectors(&[("delta-c", 3)]).unwrap();
    weights::write_file(&path, &[&numbers(), &[9.0, 8.0, 7.0]], &layout).unwrap();
    // The parameters come first, whatever the further vectors are called.
    assert_eq!(layout.range_of("delta-c"), Some(8..11));
    let mut section = weights::open_file(&path, &layout, Numbers::Finite).unwrap();
    let (mut parameters, mut control) = ([0.0; 8], [0.0; 3]);
    section.read(&mut parameters).unwrap();
    assert_eq!(section.n_remaining(), 3);
    section.read(&mut control).unwrap();
    assert_eq!((parameters.to_vec(), control), (numbers(), [9.0, 8.0, 7.0]));
    assert!(matches!(
        section.read(&mut [0.0]),
        Err(WeightsError::Count { .. })
    ));
    assert_eq!(weights::read_file(&path, &layout).unwrap().len(), 11);
    let missing = weights::read_file(&folder.path().join("other"), &layout).unwrap_err();
    assert!(matches!(missing, WeightsError::Io(_)));
}

#[test]
fn named_vectors_come_back_in_the_order_asked_for() {
    let bytes = weights::write_named(&[("momentum", &[1.0, 2.0]), ("control", &[3.0])]).unwrap();
    let back = weights::read_named(&bytes, &[("momentum", 2), ("control", 1)]).unwrap();
    assert_eq!(back, [vec![1.0, 2.0], vec![3.0]]);
    assert!(weights::read_named(&bytes, &[("momentum", 2)]).is_err());
    assert!(weights::read_named(&bytes, &[("momentum", 1), ("control", 2)]).is_err());
    assert!(weights::write_named(&[("a", &[1.0]), ("a", &[2.0])]).is_err());
    assert!(weights::write_named(&[]).is_err());
}

#[test]
fn a_writer_gives_no_file_that_is_not_whole_or_not_finite() {
    let layout = layout();
    let mut writer = Writer::new(Vec::new(), &layout).unwrap();
    writer.write(&numbers()[..5]).unwrap();
    assert!(matches!(
        writer.finish(),
        Err(WeightsError::Count {
            expected: 8,
            found: 5
        })
    ));
    assert!(matches!(
        weights::write(&[0.0; 9], &layout),
        Err(WeightsError::Count { .. })
    ));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut holed = numbers();
        holed[4] = bad;
        let error = weights::write(&holed, &layout).unwrap_err();
        assert!(matches!(&error, WeightsError::NotFinite { name, index: 2 } if name == "00.dense.weight"));
    }
}

#[test]
fn what_is_not_finite_is_found_or_let_through_as_asked() {
    let layout = layout();
    let mut bytes = weights::write(&numbers(), &layout).unwrap();
    let start = bytes.len() - 32;
    bytes[start + 12..start + 16].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = weights::read(&bytes, &layout).unwrap_err();
    assert!(matches!(&error, WeightsError::NotFinite { name, index: 1 } if name == "00.dense.weight"));
    assert_eq!(error.code(), Code::UpdateRefused);
    let section = Section::open(bytes.as_slice(), bytes.len() as u64, &layout, Numbers::Any).unwrap();
    assert!(section.read_all().unwrap()[3].is_nan());
}

#[test]
fn other_formats_are_named_and_never_opened() {
    let pad = |start: &[u8]| [start, &[0x77; 64]].concat();
    for (bytes, words) in [
        (pad(b"PK\x03\x04\x14\x00\x00\x00"), "zip"),
        (pad(b"7z\xbc\xaf\x27\x1c\x00\x04"), "7z"),
        (pad(b"\x80\x02}q\x00X\x05\x00\x00\x00"), "pickle"),
        (pad(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00"), "pickle"),
        (pad(b"GGUF\x03\x00\x00\x00"), "GGUF"),
        (pad(b"\x1f\x8b\x08\x00"), "gzip"),
        (pad(b"\x89HDF\r\n\x1a\n"), "HDF5"),
    ] {
        let error = weights::read(&bytes, &layout()).unwrap_err();
        assert!(matches!(error, WeightsError::Format { .. }), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.remedy().contains("safetensors"));
        assert_eq!(error.code(), Code::Malformed);
    }
}

#[test]
fn hostile_headers_are_refused_by_cause() {
    let refused = |bytes: &[u8]| weights::read(bytes, &layout()).unwrap_err();
    assert!(matches!(refused(b""), WeightsError::Truncated { found: 0 }));
    assert!(matches!(
        refused(&[1, 2, 3]),
        WeightsError::Truncated { found: 3 }
    ));
    assert!(matches!(
        refused(&1_000_u64.to_le_bytes()),
        WeightsError::Truncated { .. }
    ));
    assert!(matches!(
        refused(&(1_u64 << 63).to_le_bytes()),
        WeightsError::HeaderTooLarge { .. }
    ));
    assert!(matches!(
        refused(&u64::MAX.to_le_bytes()),
        WeightsError::HeaderTooLarge { .. }
    ));
    assert!(matches!(
        refused(&file(&"[".repeat(100_000_000), 0)),
        WeightsError::HeaderTooLarge { .. }
    ));
    assert!(matches!(
        refused(&file(&"[".repeat(1_000_000), 0)),
        WeightsError::Header { .. }
    ));
    assert!(matches!(
        refused(&file(&r#"{"a":"#.repeat(200_000), 0)),
        WeightsError::Header { .. }
    ));
    let nested = format!(r#"{{"__metadata__":{}}}"#, r#"{"a":"#.repeat(100_000));
    assert!(matches!(refused(&file(&nested, 0)), WeightsError::Header { .. }));
    assert!(matches!(
        refused(&file("{\"\u{fffd}", 0)),
        WeightsError::Header { .. }
    ));
    let many: String = (0..2000)
        .map(|i| format!(r#""t{i}":{{"dtype":"F32","shape":[],"data_offsets":[0,4]}},"#))
        .collect();
    assert!(matches!(
        refused(&file(&format!("{{{many}{BIAS}}}"), 8000)),
        WeightsError::Header { .. }
    ));
    let unknown_field = format!("{{{},{WEIGHT}}}", BIAS.replace("[0,8]}", r#"[0,8],"code":"x"}"#));
    assert!(matches!(
        refused(&file(&unknown_field, 32)),
        WeightsError::Header { .. }
    ));
    let twice_inside = format!(
        "{{{},{WEIGHT}}}",
        BIAS.replace("[0,8]}", r#"[0,8],"dtype":"F32"}"#)
    );
    assert!(matches!(
        refused(&file(&twice_inside, 32)),
        WeightsError::Header { .. }
    ));
}

#[test]
fn hostile_tensors_are_refused_by_cause() {
    let problem = |header: String, n_data| match weights::read(&file(&header, n_data), &layout()).unwrap_err()
    {
        WeightsError::Tensor { problem, .. } => problem,
        other => panic!("{header}: {other}"),
    };
    let with = |bias: &str, weight: &str| format!("{{{bias},{weight}}}");
    assert_eq!(problem(format!("{{{BIAS}}}"), 8), TensorProblem::Missing);
    assert_eq!(
        problem(with(BIAS, &format!("{BIAS},{WEIGHT}")), 32),
        TensorProblem::Duplicate
    );
    let extra = WEIGHT
        .replace("00.dense.weight", "payload")
        .replace("[8,32]", "[32,56]");
    assert_eq!(
        problem(with(BIAS, &format!("{WEIGHT},{extra}")), 56),
        TensorProblem::Unknown
    );
    let long = WEIGHT.replace("00.dense.weight", &"x".repeat(100_000));
    assert_eq!(problem(with(BIAS, &long), 32), TensorProblem::Unknown);
    for dtype in ["F16", "BF16", "I64", "pickle"] {
        let typed = WEIGHT.replace("F32", dtype);
        assert!(matches!(
            problem(with(BIAS, &typed), 32),
            TensorProblem::Type { .. }
        ));
    }
    for shape in [
        "[3,2]",
        "[6]",
        "[]",
        "[2,3,1]",
        "[4294967296,4294967296]",
        "[18446744073709551615,2]",
        "[0]",
    ] {
        let shaped = WEIGHT.replace("[2,3]", shape);
        assert!(
            matches!(problem(with(BIAS, &shaped), 32), TensorProblem::Shape { .. }),
            "{shape}"
        );
    }
    // Overlapping, leaving a gap, out of range, backwards, in another order.
    for offsets in [
        "[0,24]",
        "[4,28]",
        "[12,36]",
        "[8,40]",
        "[32,8]",
        "[18446744073709551608,18446744073709551615]",
    ] {
        let moved = WEIGHT.replace("[8,32]", offsets);
        assert!(
            matches!(problem(with(BIAS, &moved), 32), TensorProblem::Offsets { .. }),
            "{offsets}"
        );
    }
    let swapped = with(
        &BIAS.replace("[0,8]", "[24,32]"),
        &WEIGHT.replace("[8,32]", "[0,24]"),
    );
    assert!(matches!(problem(swapped, 32), TensorProblem::Offsets { .. }));
    for shape in [
        "[-1]",
        "[2.5]",
        "[1e30]",
        "\"2\"",
        "null",
        "[99999999999999999999999]",
    ] {
        let error =
            weights::read(&file(&with(&BIAS.replace("[2]", shape), WEIGHT), 32), &layout()).unwrap_err();
        assert!(matches!(error, WeightsError::Header { .. }), "{shape}: {error}");
    }
}

#[test]
fn files_that_are_cut_or_padded_are_refused() {
    let bytes = weights::write(&numbers(), &layout()).unwrap();
    for n in 0..bytes.len() {
        assert!(weights::read(&bytes[..n], &layout()).is_err(), "cut to {n}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(matches!(
        weights::read(&longer, &layout()),
        Err(WeightsError::Size { .. })
    ));
}

#[test]
fn a_file_that_claims_more_than_there_is_takes_no_memory_for_it() {
    // Four billion numbers are expected; the reader has nothing but a header.
    let layout = Layout::vectors(&[("x", 1 << 32)]).unwrap();
    let header = weights::header(&layout);
    assert!(matches!(
        weights::read(&header, &layout),
        Err(WeightsError::Size { .. })
    ));
}

proptest! {
    #[test]
    fn every_layout_comes_back(
        shapes in prop::collection::btree_map("[a-z0-9][a-z0-9._-]{0,20}", prop::collection::vec(0_usize..5, 0..4), 1..8),
        seed in any::<u32>(),
    ) {
        let tensors = shapes.iter().map(|(name, shape)| TensorSpec::new(name.clone(), shape)).collect();
        let layout = Layout::new(tensors).unwrap();
        let numbers: Vec<f32> = (0..layout.n_elements() as u32)
            .map(|i| f32::from_bits(i.wrapping_mul(seed | 1)))
            .map(|x| if x.is_finite() { x } else { 0.0 })
            .collect();
        let bytes = weights::write(&numbers, &layout).unwrap();
        let back = weights::read(&bytes, &layout).unwrap();
        prop_assert_eq!(
            back.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
            numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        );
        prop_assert_eq!(SafeTensors::deserialize(&bytes).unwrap().len(), shapes.len());
    }

    #[test]
    fn no_change_of_bytes_makes_a_panic_or_another_shape(position in 0_usize..240, byte in any::<u8>()) {
        let mut bytes = weights::write(&numbers(), &layout()).unwrap();
        let position = position % bytes.len();
        bytes[position] = byte;
        if let Ok(back) = weights::read(&bytes, &layout()) {
            prop_assert_eq!(back.len(), 8);
            prop_assert!(back.iter().all(|x| x.is_finite()));
        }
    }

    #[test]
    fn no_bytes_make_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(weights::read(&bytes, &layout()).is_err());
    }
}
