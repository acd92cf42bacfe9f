//! Every check and chore of the polyshm repository, run as `cargo xtask <command>`.
//!
//! Each command is one module and one *step*: it prints a heading, streams the output of what it
//! runs, and ends as a row of the table printed last. `cargo xtask test-all` runs the steps one
//! after another, goes on after a failure so that the table is complete, and exits nonzero if any
//! step failed.

mod bench;
mod capi;
mod clippy;
mod crash;
mod doc;
mod doc_test;
mod examples;
mod fmt;
mod hostile;
mod interop;
mod leftovers;
mod libtest;
mod model;
mod package;
mod protocols;
mod run;
mod sanitize;
mod summary;
mod test;
mod test_all;
mod tidy;
mod vectors;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::run::{Session, Workspace};

/// The repository's checks and chores.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check that rustfmt would change nothing
    Fmt,
    /// Run clippy on everything, also as built for `model` and `crash`
    Clippy,
    /// Run unit, integration and example tests in debug mode
    Test,
    /// Run the examples in the documentation comments
    DocTest,
    /// Build the documentation with warnings as errors
    Doc,
    /// Check prose against code: layouts, links, commands, unsafe code, dependencies
    Tidy,
    /// Check the codecs against the golden byte images
    Vectors,
    /// Open many damaged images: each must give an error or work, never harm
    Hostile(hostile::Args),
    /// Check the shipped algorithms under every interleaving (loom)
    Model,
    /// Kill a process before each of its numbered operations and check its peers
    Crash,
    /// Exchange data with the Python implementation
    Interop,
    /// Build the C library and its headers into target/polyshm/capi, and test them with C and Python
    Capi,
    /// Package every publishable crate and build it from its package; nothing is uploaded
    Package,
    /// Run the paired process benchmarks and write target/polyshm/bench.json
    Bench(bench::Args),
    /// Run the paired benchmarks for a moment to see that they work
    BenchSmoke,
    /// Run the facade's example
    Examples,
    /// Run the tests under the address and thread sanitizers
    Sanitize,
    /// Look for shared-memory objects that tests left behind
    Leftovers,
    /// Run every check and print one table
    TestAll(test_all::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match execute(&cli.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one command; false means that a step failed.
fn execute(command: &Command) -> anyhow::Result<bool> {
    let workspace = Workspace::find()?;
    let mut session = Session::start(&workspace)?;
    match command {
        Command::Fmt => session.step("fmt", fmt::run),
        Command::Clippy => session.step("clippy", clippy::run),
        Command::Test => session.step("test", test::run),
        Command::DocTest => session.step("doc-test", doc_test::run),
        Command::Doc => session.step("doc", doc::run),
        Command::Tidy => session.step("tidy", |step| Ok(tidy::run(step))),
        Command::Vectors => session.step("vectors", vectors::run),
        Command::Hostile(args) => session.step("hostile", |step| hostile::run(step, args)),
        Command::Model => session.step("model", model::run),
        Command::Crash => session.step("crash", crash::run),
        Command::Interop => session.step("interop", interop::run),
        Command::Capi => session.step("capi", capi::run),
        Command::Package => session.step("package", package::run),
        Command::Bench(args) => session.step("bench", |step| bench::run(step, args)),
        Command::BenchSmoke => session.step("bench-smoke", bench::smoke),
        Command::Examples => session.step("examples", examples::run),
        Command::Sanitize => session.step("sanitize", sanitize::run),
        Command::Leftovers => session.step("leftovers", |step| {
            Ok(leftovers::run(step, &leftovers::Snapshot::empty()))
        }),
        Command::TestAll(args) => test_all::run(&mut session, args),
    }
    Ok(session.finish())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
