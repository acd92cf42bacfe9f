//! Not yet.
use crate::report::Section;
use anyhow::Result;
/// .
pub fn section(_blocks: usize, _smoke: bool, _core: Option<usize>) -> Result<Section> {
    Ok(Section::new("x", "ns"))
}
