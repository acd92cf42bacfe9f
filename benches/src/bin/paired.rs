//! The paired two-process benchmarks; see the library's page for the method.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    polyshm_benches::cli::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    println!("SKIPPED: the paired benchmarks need Linux");
    ExitCode::SUCCESS
}
