//! Dependencies between the workspace's packages point down only.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::Problems;
use crate::run::Workspace;

const BASE: &[&str] = &["polyshm-platform", "polyshm-wire"];

const BELOW_FACADE: &[&str] = &[
    "polyshm-eshm",
    "polyshm-platform",
    "polyshm-slots",
    "polyshm-wire",
    "polyshm-zerobuffer",
    "polyshm-zeroipc",
];

/// Each library crate and the packages of the workspace that it may use, also in its tests.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("polyshm-wire", &[]),
    ("polyshm-platform", &[]),
    ("polyshm-zerobuffer", BASE),
    ("polyshm-zeroipc", BASE),
    ("polyshm-eshm", BASE),
    ("polyshm-slots", BASE),
    ("polyshm", BELOW_FACADE),
];

/// Nothing depends on these; they may use everything.
const TOOLS: &[&str] = &["polyshm-benches", "xtask"];

/// What the rule needs to know of a package.
#[derive(Debug)]
struct Package {
    name: String,
    folder: String,
    dependencies: Vec<String>,
}

pub(super) fn check(workspace: &Workspace) -> Result<Problems> {
    Ok(violations(&packages(&metadata(workspace)?)?))
}

/// The output of `cargo metadata` for the workspace's own packages.
pub(super) fn metadata(workspace: &Workspace) -> Result<Value> {
    let output = workspace
        .cargo(&["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("could not start `cargo metadata`")?;
    if !output.status.success() {
        bail!(
            "`cargo metadata` failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    serde_json::from_slice(&output.stdout).context("`cargo metadata` printed no JSON")
}

fn packages(metadata: &Value) -> Result<Vec<Package>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = metadata["packages"]
        .as_array()
        .context("`cargo metadata` listed no packages")?;
    Ok(list
        .iter()
        .map(|package| Package {
            name: text(&package["name"]),
            folder: Path::new(package["manifest_path"].as_str().unwrap_or_default())
                .parent()
                .and_then(Path::file_name)
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            dependencies: package["dependencies"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|dependency| text(&dependency["name"]))
                .collect(),
        })
        .collect())
}

fn violations(packages: &[Package]) -> Problems {
    let mut problems = Vec::new();
    let ours: BTreeSet<&str> = packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    for package in packages {
        let Package {
            name,
            folder,
            dependencies,
        } = package;
        if TOOLS.contains(&name.as_str()) {
            continue;
        }
        let Some((_, allowed)) = LIBRARIES.iter().find(|(library, _)| library == name) else {
            problems.push(format!(
                "{name}: no layer is given for it; add it in xtask's tidy/architecture.rs"
            ));
            continue;
        };
        if folder != name {
            problems.push(format!(
                "{name}: its folder is `{folder}`; name the folder as the package"
            ));
        }
        for dependency in dependencies {
            if ours.contains(dependency.as_str()) && !allowed.contains(&dependency.as_str()) {
                problems.push(format!(
                    "{name}: depends on {dependency}; it may use of the workspace: {}",
                    if allowed.is_empty() {
                        "nothing".to_owned()
                    } else {
                        allowed.join(", ")
                    }
                ));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            folder: name.to_owned(),
            dependencies: dependencies.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    #[test]
    fn arrows_down_are_fine() {
        let packages = [
            package("polyshm-wire", &["zerocopy"]),
            package("polyshm-platform", &["rustix"]),
            package(
                "polyshm-zerobuffer",
                &["polyshm-wire", "polyshm-platform", "tracing"],
            ),
            package("polyshm", &["polyshm-zerobuffer"]),
            package("polyshm-benches", &["polyshm"]),
        ];
        assert_eq!(violations(&packages), Problems::new());
    }

    #[test]
    fn arrows_up_and_across_are_found() {
        let packages = [
            package("polyshm-wire", &["polyshm-platform"]),
            package("polyshm-platform", &[]),
            package("polyshm-zerobuffer", &["polyshm-eshm"]),
            package("polyshm-eshm", &["polyshm"]),
            package("polyshm", &["xtask"]),
            package("xtask", &[]),
            package("polyshm-new", &[]),
        ];
        let problems = violations(&packages);
        assert_eq!(problems.len(), 5, "{problems:?}");
        assert_eq!(
            problems[0],
            "polyshm-wire: depends on polyshm-platform; it may use of the workspace: nothing"
        );
    }

    #[test]
    fn metadata_is_read() {
        let metadata = serde_json::json!({ "packages": [{
            "name": "polyshm",
            "manifest_path": "/x/crates/polyshm/Cargo.toml",
            "dependencies": [{ "name": "anyhow", "kind": "dev" }],
        }]});
        let packages = packages(&metadata).unwrap();
        assert_eq!(packages[0].folder, "polyshm");
        assert_eq!(packages[0].dependencies, ["anyhow"]);
    }
}
