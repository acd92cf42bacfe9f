//! As its parent, for the ZeroIPC images.

use std::{fs, path::PathBuf};

use serde_json::Value;

/// Images of ZeroIPC segments.
pub(crate) const IMAGES: usize = 120;

pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/zeroipc")
}

pub(crate) fn load(file: &str) -> Vec<u8> {
    let path = folder().join(file);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn manifest() -> Value {
    serde_json::from_slice(&load("manifest.json")).expect("the manifest is JSON")
}

/// Every image with its entry, in the manifest's order.
pub(crate) fn images() -> Vec<(Value, Vec<u8>)> {
    let manifest = manifest();
    let entries = manifest["vectors"].as_array().expect("vectors is a list");
    let images: Vec<_> = entries
        .iter()
        .map(|entry| {
            let file = entry["file"].as_str().expect("file is a string");
            (entry.clone(), load(file))
        })
        .collect();
    assert_eq!(images.len(), IMAGES);
    images
}
