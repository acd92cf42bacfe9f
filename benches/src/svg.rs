//! A picture of the ratios: one bar each, on a logarithmic axis, away from 1.

use crate::report::{Ratio, Report, Section};
use std::fmt::{self, Write};

const LABEL: f64 = 330.0;
const PLOT: f64 = 380.0;
const VALUE: f64 = 60.0;
const ROW: f64 = 20.0;
const HEAD: f64 = 34.0;

/// Draws a report.
///
/// # Errors
///
/// None: writing to a string does not fail.
pub fn draw(report: &Report) -> Result<String, fmt::Error> {
    let ratios = || report.sections.iter().flat_map(Section::ratios);
    let reach = ratios()
        .map(|ratio| ratio.median.log10().abs())
        .filter(|reach| reach.is_finite())
        .fold(0.5, f64::max)
        * 1.05;
    let heads = report.sections.len() as f64 * HEAD;
    let height = heads + ratios().count() as f64 * ROW + 40.0;
    let width = LABEL + PLOT + VALUE;
    let x = |value: f64| LABEL + PLOT * (value.log10() / reach + 1.0) / 2.0;

    let mut svg = String::new();
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#444\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"
    )?;
    // Decades, and 1 where the bars start.
    for power in -3..=3 {
        let value = 10f64.powi(power);
        if f64::from(power).abs() > reach {
            continue;
        }
        let (at, colour) = (x(value), if power == 0 { "#444" } else { "#ddd" });
        writeln!(
            svg,
            "<path d=\"M{at:.1} 8V{:.1}\" stroke=\"{colour}\"/>\n\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value}</text>",
            height - 28.0,
            height - 12.0,
        )?;
    }
    let mut y = 0.0;
    for section in &report.sections {
        y += HEAD;
        let name = escape(section.name());
        writeln!(
            svg,
            "<text x=\"8\" y=\"{:.1}\" font-weight=\"bold\">{name}</text>",
            y - 8.0
        )?;
        for ratio in section.ratios() {
            bar(&mut svg, ratio, y, x)?;
            y += ROW;
        }
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// A bar from 1 to the median, and a line over the quartiles.
fn bar(svg: &mut String, ratio: &Ratio, y: f64, x: impl Fn(f64) -> f64) -> fmt::Result {
    let (one, median) = (x(1.0), x(ratio.median));
    let (low, high) = (x(ratio.lower_quartile), x(ratio.upper_quartile));
    let middle = y + ROW / 2.0;
    writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
         <rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#5b8db8\"/>\n\
         <path d=\"M{low:.1} {middle:.1}H{high:.1}\" stroke=\"#1d3b53\" stroke-width=\"2\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\">{:.2}</text>",
        LABEL - 8.0,
        middle + 4.0,
        escape(&ratio.name),
        one.min(median),
        y + 4.0,
        (one - median).abs().max(0.5),
        ROW - 8.0,
        LABEL + PLOT + 8.0,
        middle + 4.0,
        ratio.median,
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
