//! Results: the table, and the file.
//!
//! # The file
//!
//! One JSON object:
//!
//! | key | value |
//! |---|---|
//! | `schema` | 1 |
//! | `machine` | `cpu`, `cores` (that the program may use), `kernel` |
//! | `pinned` | whether the two processes were each kept on one core |
//! | `smoke` | whether this was a smoke run, whose numbers mean nothing |
//! | `notes` | what was left out, and choices made on this machine |
//! | `sections` | one object each for latency, throughput, copy, ZeroIPC's calls, streams and wake-ups, ESHM's writes, latency and idleness, and slots' calls, records, images, latency and FIFO |
//!
//! A section has `name`, `unit`, `contenders` and `ratios`. A contender has
//! `name`, `median` (of its blocks, in the section's unit), `per_block`, and
//! where it applies `p99` (the median of its blocks' p99) and `bytes` (per
//! frame). A ratio has `name` (always "how many times as good as": for latency,
//! calls, writes, wake-ups and idleness the quotient of times, for throughput,
//! copies and streams that of rates), `median`, `lower_quartile`, `upper_quartile`, `min`, `max` and
//! `per_block`; where it has a target also `target_at_most` or `target_at_least`,
//! and `met` (whether the median is within it).

use crate::machine::Machine;
use anyhow::{Context, Result};
use serde::Serialize;
use std::{fmt, fs, path::Path};

/// Everything of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The version of the file's form.
    pub schema: u32,
    /// Where it ran.
    pub machine: Machine,
    /// Whether each process was kept on a core of its own.
    pub pinned: bool,
    /// Whether the numbers mean nothing.
    pub smoke: bool,
    /// What was left out, and choices made on this machine.
    pub notes: Vec<String>,
    /// The results.
    pub sections: Vec<Section>,
}

impl Report {
    /// The form that the page describes.
    pub const SCHEMA: u32 = 1;

    /// Writes the file, and the directories above it.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cores, kernel } = &self.machine;
        writeln!(f, "{cpu}, {cores} cores, kernel {kernel}")?;
        if self.pinned {
            writeln!(f, "each process is pinned to a core of its own")?;
        } else {
            writeln!(f, "the processes are not pinned")?;
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        if self.smoke {
            writeln!(
                f,
                "a smoke run: content was checked, the numbers mean nothing"
            )?;
        }
        self.sections
            .iter()
            .try_for_each(|section| section.fmt(f))?;
        let ratios = || self.sections.iter().flat_map(Section::ratios);
        let mut aims = ratios()
            .filter_map(|ratio| Some((ratio, ratio.aim.as_ref()?)))
            .peekable();
        if aims.peek().is_none() {
            return Ok(());
        }
        writeln!(f, "\nTARGETS")?;
        aims.try_for_each(|(ratio, aim)| {
            writeln!(f, "  {aim}: {:.3}  {}", ratio.median, ratio.name)
        })
    }
}

/// The results of one kind of measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Section {
    name: &'static str,
    unit: &'static str,
    contenders: Vec<Contender>,
    ratios: Vec<Ratio>,
}

/// What one contender reached.
#[derive(Clone, Debug, Serialize)]
pub struct Contender {
    name: String,
    median: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
    per_block: Vec<f64>,
    #[serde(skip)]
    p99_per_block: Vec<f64>,
}

/// A result: how two contenders compare.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    /// What is compared.
    pub name: String,
    /// Of the blocks.
    pub median: f64,
    /// A quarter of the blocks gave less.
    pub lower_quartile: f64,
    /// A quarter of the blocks gave more.
    pub upper_quartile: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// One value for each block.
    pub per_block: Vec<f64>,
    /// What it should be.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub aim: Option<Aim>,
}

/// What a ratio should be.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Aim {
    /// Where the median should be.
    #[serde(flatten)]
    pub bound: Bound,
    /// Whether it is.
    pub met: bool,
}

/// Which side of a value is good.
#[derive(Clone, Copy, Debug, Serialize)]
pub enum Bound {
    /// Less, and the value itself.
    #[serde(rename = "target_at_most")]
    AtMost(f64),
    /// More, and the value itself.
    #[serde(rename = "target_at_least")]
    AtLeast(f64),
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let met = if self.met { "met" } else { "MISSED" };
        match self.bound {
            Bound::AtMost(bound) => write!(f, "target of at most {bound:.2} {met}"),
            Bound::AtLeast(bound) => write!(f, "target of at least {bound:.2} {met}"),
        }
    }
}

impl Section {
    /// An empty section.
    #[must_use]
    pub const fn new(name: &'static str, unit: &'static str) -> Self {
        Self {
            name,
            unit,
            contenders: Vec::new(),
            ratios: Vec::new(),
        }
    }

    /// The section's name.
    #[must_use]
    pub const fn name(&self) -> &str {
        self.name
    }

    /// The comparisons.
    #[must_use]
    pub fn ratios(&self) -> &[Ratio] {
        &self.ratios
    }

    /// Adds a contender's result in the next block.
    pub fn add(&mut self, name: &str, value: f64, p99: Option<f64>, bytes: Option<usize>) {
        let known = self.contenders.iter().position(|known| known.name == name);
        let at = known.unwrap_or_else(|| {
            self.contenders.push(Contender {
                name: name.to_owned(),
                median: f64::NAN,
                p99: None,
                bytes,
                per_block: Vec::new(),
                p99_per_block: Vec::new(),
            });
            self.contenders.len() - 1
        });
        let contender = &mut self.contenders[at];
        contender.per_block.push(value);
        contender.median = quantile(&contender.per_block, 500);
        if let Some(p99) = p99 {
            contender.p99_per_block.push(p99);
            contender.p99 = Some(quantile(&contender.p99_per_block, 500));
        }
    }

    /// Puts the fastest contender first.
    pub fn sort(&mut self) {
        self.contenders
            .sort_by(|a, b| a.median.total_cmp(&b.median));
    }

    /// Compares two contenders block by block: the first one's value over the
    /// second one's. Without one of them, nothing. Gives whether both are there.
    pub fn ratio(&mut self, name: &str, over: &str, under: &str) -> bool {
        let blocks = |name: &str| {
            let found = self.contenders.iter().find(|known| known.name == name);
            found.map(|contender| contender.per_block.as_slice())
        };
        let (Some(over), Some(under)) = (blocks(over), blocks(under)) else {
            return false;
        };
        let per_block: Vec<f64> = over.iter().zip(under).map(|(o, u)| o / u).collect();
        self.ratios.push(Ratio {
            name: name.to_owned(),
            median: quantile(&per_block, 500),
            lower_quartile: quantile(&per_block, 250),
            upper_quartile: quantile(&per_block, 750),
            min: quantile(&per_block, 0),
            max: quantile(&per_block, 1000),
            per_block,
            aim: None,
        });
        true
    }

    /// Says what the last ratio should be.
    pub fn aim_at_most(&mut self, bound: f64) {
        if let Some(ratio) = self.ratios.last_mut() {
            ratio.aim = Some(Aim {
                bound: Bound::AtMost(bound),
                met: ratio.median <= bound,
            });
        }
    }

    /// Says what the last ratio should be.
    pub fn aim_at_least(&mut self, bound: f64) {
        if let Some(ratio) = self.ratios.last_mut() {
            ratio.aim = Some(Aim {
                bound: Bound::AtLeast(bound),
                met: ratio.median >= bound,
            });
        }
    }
}

/// The value below which so many thousandths of the values lie, with linear
/// interpolation between neighbours.
pub(crate) fn quantile(values: &[f64], thousandths: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let at = thousandths * last;
    let (below, part) = (at / 1000, (at % 1000) as f64 / 1000.0);
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * part
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .contenders
            .iter()
            .map(|contender| contender.name.len())
            .chain(self.ratios.iter().map(|ratio| ratio.name.len()))
            .max()
            .unwrap_or(0);
        writeln!(f, "\n{} ({})", self.name.to_uppercase(), self.unit)?;
        for contender in &self.contenders {
            write!(f, "  {:width$}  {:>12.1}", contender.name, contender.median)?;
            if let Some(p99) = contender.p99 {
                write!(f, "   p99 {p99:>10.1}")?;
            }
            if let Some(bytes) = contender.bytes {
                // Bytes per nanosecond are gigabytes per second.
                let rate = bytes as f64 / contender.median * 1000.0;
                write!(f, "   {rate:>10.0} MB/s")?;
            }
            writeln!(f)?;
        }
        writeln!(
            f,
            "  {:width$}  {:>8}   quartiles         range",
            "ratio", "median"
        )?;
        for ratio in &self.ratios {
            let quartiles = format!("{:.3}..{:.3}", ratio.lower_quartile, ratio.upper_quartile);
            let range = format!("{:.3}..{:.3}", ratio.min, ratio.max);
            write!(
                f,
                "  {:width$}  {:>8.3}   {quartiles:16}  {range}",
                ratio.name, ratio.median
            )?;
            if let Some(aim) = ratio.aim {
                write!(f, "   {aim}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        let values = [4.0, 1.0, 3.0, 2.0];
        let all = [0, 500, 1000].map(|q| quantile(&values, q));
        assert!((all[0] - 1.0).abs() < 1e-9);
        assert!((all[1] - 2.5).abs() < 1e-9);
        assert!((all[2] - 4.0).abs() < 1e-9);
        assert!(quantile(&[], 500).is_nan());
    }

    #[test]
    fn ratios_are_taken_block_by_block() {
        let mut section = Section::new("test", "ns");
        // The machine is three times slower in the second block.
        for speed in [1.0, 3.0, 1.0] {
            section.add("slow", 20.0 * speed, None, None);
            section.add("fast", 10.0 * speed, None, None);
        }
        assert!(section.ratio("slow / fast", "slow", "fast"));
        assert!(!section.ratio("slow / absent", "slow", "absent"));
        let [ratio] = section.ratios() else {
            panic!("one of the two contenders of the second ratio is absent");
        };
        assert!((ratio.min - 2.0).abs() < 1e-9 && (ratio.max - 2.0).abs() < 1e-9);
    }

    #[test]
    fn targets_have_a_side() {
        let mut section = Section::new("test", "ns");
        section.add("slow", 20.0, None, None);
        section.add("fast", 10.0, None, None);
        let mut met = |aim: fn(&mut Section, f64), bound| {
            section.ratio("slow / fast", "slow", "fast");
            aim(&mut section, bound);
            let last = section.ratios().last().and_then(|ratio| ratio.aim);
            last.is_some_and(|aim| aim.met)
        };
        assert!(met(Section::aim_at_most, 2.5) && !met(Section::aim_at_most, 1.5));
        assert!(met(Section::aim_at_least, 1.5) && !met(Section::aim_at_least, 2.5));
    }
}
