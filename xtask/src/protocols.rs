//! The protocol crates and what the steps find in each: the one list of them.

use std::process::Command;

use Check::{Crash, Hostile, Model};

/// Package, the feature that its tests need, and which checks it has.
pub(crate) const PROTOCOLS: &[Protocol] = &[
    // A protocol is one line.
    protocol("polyshm-zerobuffer", "testing", &[Model, Crash, Hostile]),
    protocol("polyshm-zeroipc", "testing", &[Model, Crash, Hostile]),
    protocol("polyshm-eshm", "testing", &[Model, Crash, Hostile]),
    protocol("polyshm-slots", "testing", &[Model, Crash, Hostile]),
];

/// Below every protocol, and built in the same ways.
pub(crate) const PLATFORM: &str = "polyshm-platform";

/// What only some packages have; `test` and the rest run what they find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Unit tests named `model*`, under `--cfg loom`.
    Model,
    /// A test binary `crash`, under `--cfg crash_points`, with a report.
    Crash,
    /// A test binary `hostile`, with a report.
    Hostile,
}

impl Check {
    /// Of the test binary, and in the report's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Model => "model",
            Crash => "crash",
            Hostile => "hostile",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Protocol {
    pub(crate) package: &'static str,
    feature: &'static str,
    checks: &'static [Check],
}

const fn protocol(
    package: &'static str,
    feature: &'static str,
    checks: &'static [Check],
) -> Protocol {
    Protocol {
        package,
        feature,
        checks,
    }
}

impl Protocol {
    pub(crate) fn has(&self, check: Check) -> bool {
        self.checks.contains(&check)
    }

    /// The file that a check's test writes into the folder of reports, which all crates share.
    pub(crate) fn report(&self, check: Check) -> String {
        let name = self.package.strip_prefix("polyshm-");
        format!("{}-{}.json", name.unwrap_or(self.package), check.name())
    }

    /// Selects the test binary of a check.
    pub(crate) fn select(&self, check: Check, command: &mut Command) {
        command
            .args(["-p", self.package, "--test", check.name()])
            .args(["--features", self.feature]);
    }
}

/// Those that have this check.
pub(crate) fn with(check: Check) -> impl Iterator<Item = &'static Protocol> {
    PROTOCOLS.iter().filter(move |protocol| protocol.has(check))
}

/// Selects the platform and every wanted protocol, with what its tests need.
pub(crate) fn select_all(command: &mut Command, wanted: impl Fn(&str) -> bool) {
    command.args(["-p", PLATFORM]);
    for Protocol { package, .. } in PROTOCOLS {
        if wanted(package) {
            command.args(["-p", package]);
        }
    }
    select_features(command, wanted);
}

/// Turns on what the tests of every wanted protocol need.
pub(crate) fn select_features(command: &mut Command, wanted: impl Fn(&str) -> bool) {
    for Protocol {
        package, feature, ..
    } in PROTOCOLS
    {
        if wanted(package) {
            command.args(["--features", &format!("{package}/{feature}")]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_protocols_differ() {
        let protocol = &PROTOCOLS[0];
        assert_eq!(protocol.report(Crash), "zerobuffer-crash.json");
        assert_eq!(protocol.report(Hostile), "zerobuffer-hostile.json");
    }

    #[test]
    fn one_protocols_test_is_selected() {
        let mut command = Command::new("cargo");
        PROTOCOLS[0].select(Crash, &mut command);
        let args: Vec<_> = command.get_args().collect();
        assert_eq!(
            args.join(std::ffi::OsStr::new(" ")),
            "-p polyshm-zerobuffer --test crash --features testing"
        );
    }
}
