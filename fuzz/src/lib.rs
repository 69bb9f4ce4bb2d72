//! What the fuzz targets share: a message that decodes must encode to something that decodes to the same.

use daitn_messages::encoding::{decode, encode};
use serde::{Serialize, de::DeserializeOwned};

/// Decodes a message; what it reads must survive a round trip.
pub fn message<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    if let Ok(value) = decode::<T>(bytes) {
        let encoded = encode(&value);
        let again = decode::<T>(&encoded).expect("what was encoded decodes");
        assert_eq!(encoded, encode(&again));
    }
}

/// Writes the bytes to a file of this process and hands its path on: for decoders that read files.
pub fn with_file(bytes: &[u8], extension: &str, read: impl FnOnce(&std::path::Path)) {
    let path = std::env::temp_dir().join(format!("daitn-fuzz-{}.{extension}", std::process::id()));
    std::fs::write(&path, bytes).expect("the temporary folder is writable");
    read(&path);
}

/// The model that the table and weights targets read for.
pub fn spec() -> daitn_messages::learning::ModelSpec {
    daitn_messages::learning::ModelSpec {
        architecture: daitn_messages::learning::Architecture::Mlp { hidden: vec![3] },
        features: vec!["a".to_owned(), "b".to_owned()],
        target: "label".to_owned(),
        task: daitn_messages::learning::Task::Classification { classes: vec!["0".to_owned(), "1".to_owned()] },
        scale: 1.0,
        offset: 0.0,
    }
}
