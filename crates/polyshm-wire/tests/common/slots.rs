//! As its parent, for the images of slot segments.

use std::{fs, path::PathBuf};

use polyshm_wire::slots::{Layout, Schema};
use serde_json::Value;

/// Segments after a step.
pub(crate) const IMAGES: usize = 213;
/// Sequences of steps, each with a schema.
pub(crate) const CASES: usize = 26;

pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/slots")
}

pub(crate) fn load(file: &str) -> Vec<u8> {
    let path = folder().join(file);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn manifest() -> Value {
    serde_json::from_slice(&load("manifest.json")).expect("the manifest is JSON")
}

/// A list of the manifest.
pub(crate) fn list<'a>(value: &'a Value, key: &str) -> &'a Vec<Value> {
    let list = value[key].as_array();
    list.unwrap_or_else(|| panic!("{key} is no list in {value}"))
}

pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    let text = value[key].as_str();
    text.unwrap_or_else(|| panic!("{key} is no text in {value}"))
}

/// What a case or a layout was made for.
pub(crate) fn layout(entry: &Value) -> Layout {
    let fields = list(entry, "schema").iter();
    let fields = fields.map(|field| (text(field, "name"), text(field, "annotation")));
    let schema = Schema::from_pairs(fields).expect("the schema is accepted");
    let slots = entry["slots"].as_u64().expect("slots is a number");
    Layout::new(&schema, slots).expect("the layout is accepted")
}

/// Every image with the layout of its case, in the manifest's order.
pub(crate) fn images() -> Vec<(Layout, Vec<u8>)> {
    let manifest = manifest();
    let mut images = Vec::new();
    for case in list(&manifest, "cases") {
        let layout = layout(case);
        for step in list(case, "steps") {
            if let Some(file) = step["segment_after"].as_str() {
                images.push((layout.clone(), load(file)));
            }
        }
    }
    assert_eq!(images.len(), IMAGES);
    images
}

pub(crate) fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "{hex}");
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits"))
        .collect()
}
