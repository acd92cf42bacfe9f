//! `cargo xtask sanitize`: the tests under the address and thread sanitizers.

use std::{env, fs};

use anyhow::{Context as _, Result};

use crate::{
    hostile, protocols,
    run::{Outcome, Step},
};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The standard library and libtest come compiled without the thread sanitizer, which therefore
/// misses how libtest hands a test to its thread and takes the result back, the counts of what a
/// thread shares with who started it, the fence at which the last owner of an `Arc` drops what is
/// in it, the lock of standard output, the `Once` before proptest's default configuration, that the
/// C library's own mappings came and went before ours at the same address, and the lock of the tree
/// in which it keeps open semaphores. The names occur in those hand-overs only, not on the stack of
/// a running test, so nothing of ours is hidden. The last two take a picture of bytes that others
/// change, by a copy that bears it, and believe only what does not change.
const TSAN_SUPPRESSIONS: &str = "\
race:test::event::CompletedTest
race:Option<test::run_test
race:proptest::test_runner::config::Config as core::clone::Clone
race:Arc<std::thread::lifecycle::Packet
race:Arc<std::thread::thread::Inner
race:alloc::sync::Arc<*::drop_slow
race:std::io::stdio::StdoutLock
race:std::sync::lazy_lock::LazyLock
race:memmap2::os::MmapInner
race:__tdelete
race:polyshm_zeroipc::block::Block>::header
race:polyshm_zeroipc::memory::Memory>::image
race:polyshm_slots::slots::Slots>::read
";

/// The tests that the thread sanitizer can judge, where not all are: others hand over by the
/// standard library's own locks and scoped threads, which it does not see.
const VISIBLE_TO_TSAN: [(&str, &[&str]); 3] = [
    ("polyshm-zeroipc", &["threads", "processes"]),
    ("polyshm-eshm", &["threads", "processes"]),
    ("polyshm-slots", &["threads", "processes"]),
];

pub(crate) fn run(step: &mut Step<'_>) -> Result<Outcome> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Ok(Outcome::Skipped(format!(
            "set up for {TARGET} only; run this there"
        )));
    }
    let suppressions = step.workspace.reports.join("tsan-suppressions.txt");
    fs::write(&suppressions, TSAN_SUPPRESSIONS)
        .with_context(|| format!("could not write {}", suppressions.display()))?;
    // The caller's options come last and win.
    let tsan_options = format!(
        "suppressions={} {}",
        suppressions.display(),
        env::var("TSAN_OPTIONS").unwrap_or_default()
    );
    for (flags, dir) in [
        ("-Zsanitizer=address", "asan"),
        // The standard library comes without this sanitizer; the flag admits the mixture.
        (
            "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer",
            "tsan",
        ),
    ] {
        let apart: &[(&str, &[&str])] = if dir == "tsan" { &VISIBLE_TO_TSAN } else { &[] };
        let mut all = step.cargo_test(&["--lib", "--tests"]);
        protocols::select_all(&mut all, |package| {
            apart.iter().all(|(name, _)| *name != package)
        });
        let mut commands = vec![all];
        for (package, tests) in apart {
            let mut some = step.cargo_test(&["--lib", "-p", package]);
            for test in *tests {
                some.args(["--test", test]);
            }
            protocols::select_features(&mut some, |name| name == *package);
            commands.push(some);
        }
        for mut command in commands {
            command
                .args(["--target", TARGET, "--target-dir"])
                .arg(step.workspace.target.join(dir))
                // Sanitizers are a nightly option; this accepts it on the pinned compiler.
                .env("RUSTC_BOOTSTRAP", "1")
                .env("TSAN_OPTIONS", tsan_options.trim_end())
                // Tests forget a side on purpose, as if its process had died.
                .env("ASAN_OPTIONS", "detect_leaks=0")
                .env("POLYSHM_INTEROP", "off")
                .env("POLYSHM_HOSTILE_IMAGES", hostile::FEW_IMAGES);
            Step::add_rustflags(&mut command, flags);
            step.run_tests(command)?;
        }
    }
    Ok(step.outcome())
}
