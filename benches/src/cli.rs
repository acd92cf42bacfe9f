//! The command line of `paired`.

use crate::{
    copying, eshm,
    latency::{self, Effort},
    machine::{Cores, Machine},
    names, peer,
    report::Report,
    slots, svg, throughput,
    zeroipc::{calls, streams, wake},
};
use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Compares polyshm with its protocol's own limit, the kernel's channels and
/// plain copies, as ratios between runs in the same short block
#[derive(Debug, Parser)]
#[command(name = "paired")]
struct Args {
    /// How many blocks
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..))]
    blocks: u16,
    /// A short run that checks all content; its numbers mean nothing
    #[arg(long)]
    smoke: bool,
    /// Measures these kinds only, separated by commas
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Lets the system choose the cores
    #[arg(long)]
    no_pin: bool,
    /// Where the results go [default: target/polyshm/bench.json of the workspace]
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Draws the ratios
    #[arg(long, value_name = "PATH")]
    svg: Option<PathBuf>,
    /// The second process's job
    #[arg(long, hide = true)]
    peer: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Latency,
    Throughput,
    Copy,
    /// Of ZeroIPC's structures, on one thread
    Calls,
    /// Of elements, through ZeroIPC's queue and ring
    Streams,
    /// Wake-ups through ZeroIPC's semaphore
    Wake,
    /// Writes to an ESHM channel that nobody reads
    EshmWrite,
    /// Round trips through an ESHM channel
    EshmLatency,
    /// The load of an ESHM channel that nobody uses
    EshmIdle,
    /// Writes and reads of a record of four floats, on one thread
    SlotsCalls,
    /// The same between two processes, the writer at full speed
    SlotsRecord,
    /// Writes and reads of a record with an image
    SlotsImage,
    /// Round trips through two records
    SlotsLatency,
    /// Items through a FIFO of records
    SlotsFifo,
}

/// The program's main function.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(job) = &args.peer {
        return peer::main(job);
    }
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let _names = names::Guard::new();
    let blocks = if args.smoke {
        1
    } else {
        usize::from(args.blocks)
    };
    let wanted = |kind| args.only.is_empty() || args.only.contains(&kind);
    let cores = Cores::pick();
    let pin = !args.no_pin;
    let mut report = Report {
        schema: Report::SCHEMA,
        machine: Machine::look(),
        pinned: pin && cores.is_some(),
        smoke: args.smoke,
        notes: Vec::new(),
        sections: Vec::new(),
    };
    if wanted(Kind::Latency) {
        let effort = if args.smoke {
            Effort::SMOKE
        } else {
            Effort::FULL
        };
        let (section, notes) = latency::section(blocks, effort, cores, pin)?;
        report.notes.extend(notes);
        report.sections.push(section);
    }
    if wanted(Kind::Throughput) {
        let section = throughput::section(blocks, args.smoke, cores, pin)?;
        report.sections.push(section);
    }
    if wanted(Kind::Copy) {
        let section = copying::section(blocks, args.smoke)?;
        report.sections.push(section);
    }
    if wanted(Kind::Calls) {
        let core = cores.filter(|_| pin).map(|cores| cores.own);
        let section = calls::section(blocks, args.smoke, core)?;
        report.sections.push(section);
    }
    if wanted(Kind::Streams) {
        let (section, notes) = streams::section(blocks, args.smoke, cores, pin)?;
        report.notes.extend(notes);
        report.sections.push(section);
    }
    if wanted(Kind::Wake) {
        let section = wake::section(blocks, args.smoke, cores, pin)?;
        report.sections.push(section);
    }
    if wanted(Kind::EshmWrite) {
        let core = cores.filter(|_| pin).map(|cores| cores.own);
        let section = eshm::write::section(blocks, args.smoke, core)?;
        report.sections.push(section);
    }
    if wanted(Kind::EshmLatency) {
        let (section, notes) = eshm::latency::section(blocks, args.smoke, cores, pin)?;
        report.notes.extend(notes);
        report.sections.push(section);
    }
    if wanted(Kind::EshmIdle) {
        let (section, notes) = eshm::idle::section(blocks, args.smoke)?;
        report.notes.extend(notes);
        report.sections.push(section);
    }
    if wanted(Kind::SlotsCalls) {
        let core = cores.filter(|_| pin).map(|cores| cores.own);
        let section = slots::calls::section(blocks, args.smoke, core)?;
        report.sections.push(section);
    }
    if wanted(Kind::SlotsRecord) {
        let (section, notes) = slots::record::section(blocks, args.smoke, cores, pin)?;
        report.notes.extend(notes);
        report.sections.extend(section);
    }
    if wanted(Kind::SlotsImage) {
        let core = cores.filter(|_| pin).map(|cores| cores.own);
        let section = slots::image::section(blocks, args.smoke, core)?;
        report.sections.push(section);
    }
    if wanted(Kind::SlotsLatency) {
        let (section, notes) = slots::latency::section(blocks, args.smoke, cores, pin)?;
        report.notes.extend(notes);
        report.sections.extend(section);
    }
    if wanted(Kind::SlotsFifo) {
        let core = cores.filter(|_| pin).map(|cores| cores.own);
        let section = slots::fifo::section(blocks, args.smoke, core)?;
        report.sections.push(section);
    }
    print!("{report}");

    let json = args.json.clone().unwrap_or_else(default_json);
    report.save(&json)?;
    println!("\nresults: {}", json.display());
    if let Some(path) = &args.svg {
        let picture = svg::draw(&report).context("drawing the ratios")?;
        fs::write(path, picture).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn default_json() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = package.parent().unwrap_or(package);
    workspace.join("target/polyshm/bench.json")
}
