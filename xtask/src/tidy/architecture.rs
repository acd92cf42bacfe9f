//! Dependencies between the workspace's packages point down only, and the steps know each
//! protocol.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::Problems;
use crate::{
    protocols::{Check, PROTOCOLS},
    run::Workspace,
};

const BASE: &[&str] = &["polyshm-platform", "polyshm-wire"];

const BELOW_FACADE: &[&str] = &[
    "polyshm-eshm",
    "polyshm-platform",
    "polyshm-slots",
    "polyshm-wire",
    "polyshm-zerobuffer",
    "polyshm-zeroipc",
];

/// What the tests of every package may use: only they, since it is never published.
const TEST_KIT: &str = "polyshm-testkit";

/// Each library crate and the packages of the workspace that it may use, also in its tests.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("polyshm-wire", &[]),
    ("polyshm-platform", &[]),
    ("polyshm-zerobuffer", BASE),
    ("polyshm-zeroipc", BASE),
    ("polyshm-eshm", BASE),
    ("polyshm-eshm-c", &["polyshm-eshm"]),
    (
        "polyshm-slots",
        &["polyshm-platform", "polyshm-slots-derive", "polyshm-wire"],
    ),
    // Its tests expand for the crate that exports it.
    ("polyshm-slots-derive", &["polyshm-slots"]),
    ("polyshm", BELOW_FACADE),
    (TEST_KIT, &["polyshm-platform"]),
];

/// Nothing depends on these; they may use everything.
const TOOLS: &[&str] = &["polyshm-benches", "xtask"];

/// What the rules need to know of a package.
#[derive(Debug)]
struct Package {
    name: String,
    folder: String,
    published: bool,
    dependencies: Vec<Dependency>,
    /// Its test binaries.
    tests: Vec<String>,
}

#[derive(Debug)]
struct Dependency {
    name: String,
    /// For tests, examples and benches only.
    dev: bool,
    /// Without a version, a package's dependency for tests is left out of the package.
    versioned: bool,
}

pub(super) fn check(workspace: &Workspace) -> Result<Problems> {
    let packages = packages(&metadata(workspace)?)?;
    let mut problems = violations(&packages);
    problems.extend(unlisted(&packages));
    Ok(problems)
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
            // An empty list of registries is `publish = false`.
            published: package["publish"]
                .as_array()
                .is_none_or(|to| !to.is_empty()),
            dependencies: package["dependencies"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|dependency| Dependency {
                    name: text(&dependency["name"]),
                    dev: dependency["kind"] == "dev",
                    versioned: dependency["req"] != "*",
                })
                .collect(),
            tests: package["targets"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|target| target["kind"][0] == "test")
                .map(|target| text(&target["name"]))
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
            published,
            dependencies,
            ..
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
        if name == TEST_KIT && *published {
            problems.push(format!("{name}: is for tests; set `publish = false`"));
        }
        for dependency in dependencies {
            let Dependency {
                name: used,
                dev,
                versioned,
            } = dependency;
            if used == TEST_KIT && name != TEST_KIT {
                if !dev || *versioned {
                    problems.push(format!(
                        "{name}: depends on {used}, which is never published; make it a \
                         dev-dependency without a version"
                    ));
                }
            } else if ours.contains(used.as_str()) && !allowed.contains(&used.as_str()) {
                problems.push(format!(
                    "{name}: depends on {used}; it may use of the workspace: {}",
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

/// Tests that a step would run if it knew of them.
fn unlisted(packages: &[Package]) -> Problems {
    let mut problems = Vec::new();
    // The checks of polyshm-wire are quick, and run with its other tests.
    let checked = packages.iter().filter(|it| it.name != "polyshm-wire");
    for Package { name, tests, .. } in checked {
        let protocol = PROTOCOLS.iter().find(|protocol| protocol.package == name);
        for check in [Check::Crash, Check::Hostile] {
            let has = tests.iter().any(|test| test == check.name());
            if has && !protocol.is_some_and(|protocol| protocol.has(check)) {
                problems.push(format!(
                    "{name}: no step runs its test `{}` in full; list it in xtask's protocols.rs",
                    check.name()
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
            published: name != TEST_KIT,
            dependencies: dependencies.iter().map(|name| normal(name)).collect(),
            tests: Vec::new(),
        }
    }

    fn normal(name: &str) -> Dependency {
        Dependency {
            name: name.to_owned(),
            dev: false,
            versioned: true,
        }
    }

    fn dev(name: &str, versioned: bool) -> Dependency {
        Dependency {
            dev: true,
            versioned,
            ..normal(name)
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
    fn the_test_kit_is_for_tests_everywhere() {
        let mut packages = [
            package("polyshm-testkit", &["polyshm-platform", "serde_json"]),
            package("polyshm-platform", &[]),
            package("polyshm-wire", &[]),
            package("polyshm", &[]),
        ];
        for user in &mut packages[1..] {
            user.dependencies.push(dev(TEST_KIT, false));
        }
        assert_eq!(violations(&packages), Problems::new());

        packages[0].published = true;
        packages[0].dependencies.push(normal("polyshm-wire"));
        packages[1].dependencies = vec![normal(TEST_KIT)];
        packages[2].dependencies = vec![dev(TEST_KIT, true)];
        let problems = violations(&packages);
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(
            problems[1].starts_with("polyshm-testkit: depends on polyshm-wire;"),
            "{problems:?}"
        );
        assert!(
            problems[3].starts_with("polyshm-wire: depends on polyshm-testkit, which is never"),
            "{problems:?}"
        );
    }

    #[test]
    fn tests_that_no_step_runs_are_found() {
        let mut new = package("polyshm-new", &[]);
        new.tests = ["behaviour", "crash", "hostile"].map(str::to_owned).into();
        let mut wire = package("polyshm-wire", &[]);
        wire.tests = vec!["hostile".to_owned()];
        let mut listed = package(PROTOCOLS[0].package, &[]);
        listed.tests = vec!["crash".to_owned()];
        let problems = unlisted(&[new, wire, listed]);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("polyshm-new: no step runs its test `crash`"));
    }

    #[test]
    fn metadata_is_read() {
        let metadata = serde_json::json!({ "packages": [{
            "name": "polyshm",
            "manifest_path": "/x/crates/polyshm/Cargo.toml",
            "publish": [],
            "dependencies": [{ "name": "anyhow", "kind": "dev", "req": "*" }],
            "targets": [
                { "name": "polyshm", "kind": ["lib"] },
                { "name": "readme", "kind": ["test"] },
            ],
        }]});
        let packages = packages(&metadata).unwrap();
        assert_eq!(packages[0].folder, "polyshm");
        assert!(!packages[0].published);
        let dependency = &packages[0].dependencies[0];
        assert_eq!(dependency.name, "anyhow");
        assert!(dependency.dev && !dependency.versioned);
        assert_eq!(packages[0].tests, ["readme"]);
    }
}
