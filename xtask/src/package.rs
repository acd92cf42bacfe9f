//! `cargo xtask package`: what a release would upload, built from its packages.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::run::{Outcome, Step};

pub(crate) fn run(step: &mut Step<'_>) -> Result<Outcome> {
    forget_earlier_packages()?;
    // Nor may a build of an earlier run be taken for this one's.
    let target = step.workspace.target.join("package-check");
    if target.exists() {
        fs::remove_dir_all(&target)
            .with_context(|| format!("could not remove {}: remove it by hand", target.display()))?;
    }
    // Dry: nothing is uploaded. With `--workspace` cargo lets the packages find each other in a
    // temporary registry though none is published yet, builds each from its package, and leaves
    // out those with `publish = false`.
    let mut command = step.cargo(&["publish", "--dry-run", "--workspace", "--allow-dirty"]);
    command.arg("--target-dir").arg(target);
    step.run(command)?;
    Ok(step.outcome())
}

/// Cargo keeps what it unpacked from the temporary registry of an earlier run, and takes it for
/// this one's, since the version is the same.
fn forget_earlier_packages() -> Result<()> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let Some(sources) = home.map(|home| home.join("registry/src")) else {
        return Ok(());
    };
    let Ok(registries) = fs::read_dir(&sources) else {
        // Nothing was ever unpacked.
        return Ok(());
    };
    for registry in registries.flatten() {
        // `HOST-HASH`: a registry in a folder has no host.
        if !registry.file_name().to_string_lossy().starts_with('-') {
            continue;
        }
        for package in fs::read_dir(registry.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            if package.file_name().to_string_lossy().starts_with("polyshm") {
                let path = package.path();
                fs::remove_dir_all(&path).with_context(|| {
                    format!("could not remove {}: remove it by hand", path.display())
                })?;
            }
        }
    }
    Ok(())
}
