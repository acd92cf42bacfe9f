//! What the tests of polyshm's crates share: unique names, children of the
//! very test binary that runs, skips that count, reports that xtask prints.
//!
//! It is a tool for tests and never published: who uses it names it as a
//! dev-dependency without a version, which packages leave out.
//!
//! # A test in two processes
//!
//! A test binary starts itself again as the peer. One of its tests, the entry,
//! does nothing in the parent and acts on its role in the child:
//!
//! ```no_run
//! use polyshm_testkit::{Outcome, child, role, tell};
//!
//! // #[test]
//! fn child_role() {
//!     let Some(role) = role() else { return };
//!     tell(&format!("ready for {role}"));
//!     std::thread::sleep(std::time::Duration::from_secs(60));
//! }
//!
//! // #[test]
//! fn a_child_is_killed() {
//!     let mut peer = child("child_role", "anything");
//!     assert!(peer.wait_for_line("ready for anything"));
//!     peer.0.kill().unwrap();
//!     assert!(Outcome::of(peer).killed());
//! }
//! ```
//!
//! Children are killed with their guard and what is left of a [`Name`] is
//! removed with it, also when the test fails.
#![forbid(unsafe_code)]
#![allow(clippy::missing_panics_doc, reason = "a test that cannot go on panics")]

mod hostile;
mod name;
mod peer;

pub use hostile::{Random, images_wanted, watch};
pub use name::Name;
pub use peer::{
    Guarded, Outcome, ROLE, WATCHDOG, child, hear_parent, role, tell, told_to_end, wait_until,
};

use std::{io::Write, path::Path};

/// Notes that a test could not run, where xtask counts it.
pub fn skip(test: &str, reason: &str) {
    println!("SKIPPED {test}: {reason}");
    if let Some(log) = std::env::var_os("POLYSHM_SKIP_LOG") {
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(log);
        if let Ok(mut file) = file {
            let _ = writeln!(file, "SKIPPED {test}: {reason}");
        }
    }
}

/// Writes a report beside the others, for xtask to print.
///
/// All crates write into one folder, so `file` starts with the protocol's
/// name: `zerobuffer-crash.json`.
pub fn report(file: &str, json: &serde_json::Value) {
    let Some(directory) = std::env::var_os("POLYSHM_REPORT_DIR") else {
        println!("{file}: {json}");
        return;
    };
    std::fs::create_dir_all(&directory).expect("the report directory can be made");
    let text = serde_json::to_string_pretty(json).expect("a JSON value prints");
    std::fs::write(Path::new(&directory).join(file), text).expect("the report can be written");
}
