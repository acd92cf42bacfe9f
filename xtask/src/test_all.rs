//! `cargo xtask test-all`: every check, one table.

use clap::ValueEnum;

use crate::{
    bench, capi, clippy, crash, doc, doc_test, examples, fmt, hostile, interop, leftovers, model,
    package, run::Session, sanitize, test, tidy, vectors,
};

/// Options of `test-all`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run these steps only
    #[arg(long, value_delimiter = ',', value_name = "STEPS")]
    only: Vec<Name>,
    /// Leave out these steps
    #[arg(long, value_delimiter = ',', value_name = "STEPS")]
    skip: Vec<Name>,
    /// Also run the tests under the sanitizers
    #[arg(long)]
    sanitizers: bool,
}

/// The steps, in the order in which they run: quick ones first, and `leftovers` after all that
/// makes shared objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    Fmt,
    Clippy,
    Test,
    DocTest,
    Doc,
    Tidy,
    Vectors,
    Hostile,
    Model,
    Crash,
    Interop,
    Capi,
    Package,
    BenchSmoke,
    Examples,
    Sanitize,
    Leftovers,
}

impl Args {
    fn wants(&self, name: Name) -> bool {
        let listed = if self.only.is_empty() {
            name != Name::Sanitize || self.sanitizers
        } else {
            self.only.contains(&name)
        };
        listed && !self.skip.contains(&name)
    }
}

pub(crate) fn run(session: &mut Session<'_>, args: &Args) {
    let before = leftovers::Snapshot::take();
    for &name in Name::value_variants() {
        if !args.wants(name) {
            continue;
        }
        match name {
            Name::Fmt => session.step("fmt", fmt::run),
            Name::Clippy => session.step("clippy", clippy::run),
            Name::Test => session.step("test", test::run),
            Name::DocTest => session.step("doc-test", doc_test::run),
            Name::Doc => session.step("doc", doc::run),
            Name::Tidy => session.step("tidy", |step| Ok(tidy::run(step))),
            Name::Vectors => session.step("vectors", vectors::run),
            Name::Hostile => {
                session.step("hostile", |step| {
                    hostile::run(step, &hostile::Args::default())
                });
            }
            Name::Model => session.step("model", model::run),
            Name::Crash => session.step("crash", crash::run),
            Name::Interop => session.step("interop", interop::run),
            Name::Capi => session.step("capi", capi::run),
            Name::Package => session.step("package", package::run),
            Name::BenchSmoke => session.step("bench-smoke", bench::smoke),
            Name::Examples => session.step("examples", examples::run),
            Name::Sanitize => session.step("sanitize", sanitize::run),
            Name::Leftovers => session.step("leftovers", |step| Ok(leftovers::run(step, &before))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(only: &[Name], skip: &[Name], sanitizers: bool) -> Args {
        Args {
            only: only.to_vec(),
            skip: skip.to_vec(),
            sanitizers,
        }
    }

    #[test]
    fn sanitizers_run_on_request() {
        assert!(!args(&[], &[], false).wants(Name::Sanitize));
        assert!(args(&[], &[], true).wants(Name::Sanitize));
        assert!(args(&[Name::Sanitize], &[], false).wants(Name::Sanitize));
    }

    #[test]
    fn only_and_skip_combine() {
        let args = args(&[Name::Fmt, Name::Tidy], &[Name::Tidy], false);
        assert!(args.wants(Name::Fmt));
        assert!(!args.wants(Name::Tidy));
        assert!(!args.wants(Name::Test));
    }
}
