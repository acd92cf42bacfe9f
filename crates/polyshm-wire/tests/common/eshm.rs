//! As its parent, for the ESHM objects and messages.

use std::{fs, path::PathBuf};

use serde_json::Value;

/// Dumps of whole objects.
pub(crate) const IMAGES: usize = 35;
/// Messages of items.
pub(crate) const MESSAGES: usize = 141;
/// Inputs of the reference decoders.
pub(crate) const CORPUS: usize = 96;

pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/eshm")
}

pub(crate) fn manifest() -> Value {
    let text = fs::read(folder().join("manifest.json")).expect("the manifest is there");
    serde_json::from_slice(&text).expect("the manifest is JSON")
}

/// Every vector of a kind with its bytes, in the manifest's order.
fn vectors(kind: &str, count: usize) -> Vec<(Value, Vec<u8>)> {
    let manifest = manifest();
    let entries = manifest["vectors"].as_array().expect("vectors is a list");
    let vectors: Vec<_> = entries
        .iter()
        .filter(|entry| entry["kind"] == kind)
        .map(|entry| {
            let file = entry["file"].as_str().expect("file is a string");
            let bytes = fs::read(folder().join(file));
            let bytes = bytes.unwrap_or_else(|error| panic!("{file}: {error}"));
            (entry.clone(), bytes)
        })
        .collect();
    assert_eq!(vectors.len(), count);
    vectors
}

pub(crate) fn images() -> Vec<(Value, Vec<u8>)> {
    vectors("shm_dump", IMAGES)
}

pub(crate) fn messages() -> Vec<(Value, Vec<u8>)> {
    vectors("datahandler_message", MESSAGES)
}

/// The inputs of the reference decoders with what those said.
pub(crate) fn corpus() -> Vec<(Value, Vec<u8>)> {
    let manifest = manifest();
    let cases = manifest["decode_corpus"]["cases"].as_array();
    let cases = cases.expect("cases is a list");
    let corpus: Vec<_> = cases
        .iter()
        .map(|case| {
            let hex = case["hex"].as_str().expect("hex is a string");
            (case.clone(), unhex(hex))
        })
        .collect();
    assert_eq!(corpus.len(), CORPUS);
    corpus
}

pub(crate) fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "{hex}");
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits"))
        .collect()
}
