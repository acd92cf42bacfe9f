//! `cargo xtask capi`: the C library, its headers and its tests.
//!
//! What a C program needs comes to `target/polyshm/capi`, laid out as below an installation prefix.

use std::{
    env::{
        self,
        consts::{DLL_PREFIX, DLL_SUFFIX},
    },
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};
use cbindgen::{Config, DocumentationStyle, Language, Style};
use serde_json::Value;

use crate::run::{Outcome, Step};

const PACKAGE: &str = "polyshm-eshm-c";

/// Of the interface, not of the crate: that of the library which this one replaces.
const VERSION: &str = "1.0.0";

/// The files with what C sees, in the order of the header.
const SOURCES: [&str; 3] = ["types.rs", "abi.rs", "data_handler.rs"];

/// What no function mentions.
const UNMENTIONED: [&str; 3] = ["ESHMError", "ESHMItemType", "ESHMBinary"];

const OPENING: &str = "\
/* The C interface of ESHM, by polyshm. Made by `cargo xtask capi`: change the source in its place. */

#ifndef ESHM_H
#define ESHM_H";

/// What cannot be made from the source: a function that is inlined, and a macro that programs may
/// set themselves.
const CLOSING: &str = "\
/**
 * The longest message of eshm_init. Larger ones need eshm_init_with_capacity.
 */
#ifndef ESHM_MAX_DATA_SIZE
#define ESHM_MAX_DATA_SIZE 4096
#endif

/**
 * The default settings, for a channel of that name.
 */
static inline ESHMConfig eshm_default_config(const char *shm_name) {
  ESHMConfig config;
  config.shm_name = shm_name;
  config.role = ESHM_ROLE_AUTO;
  config.disconnect_behavior = ESHM_DISCONNECT_ON_TIMEOUT;
  config.stale_threshold_ms = ESHM_DEFAULT_STALE_THRESHOLD_MS;
  config.reconnect_wait_ms = ESHM_DEFAULT_RECONNECT_WAIT_MS;
  config.reconnect_retry_interval_ms = ESHM_DEFAULT_RECONNECT_RETRY_INTERVAL_MS;
  config.max_reconnect_attempts = ESHM_DEFAULT_MAX_RECONNECT_ATTEMPTS;
  config.auto_cleanup = true;
  config.use_threads = true;
  return config;
}

#endif /* ESHM_H */
";

pub(crate) fn run(step: &mut Step<'_>) -> Result<Outcome> {
    let build = step.cargo(&["build", "--release", "-p", PACKAGE]);
    if !step.run(build)? {
        return Ok(step.outcome());
    }
    let prefix = step.workspace.reports.join("capi");
    // What an earlier version had must not stay beside this one's.
    if prefix.exists() {
        fs::remove_dir_all(&prefix)
            .with_context(|| format!("could not remove {}: remove it by hand", prefix.display()))?;
    }
    let library = prefix.join("lib");
    for (folder, file, text) in [
        (prefix.join("include"), "eshm.h", header(step)?),
        (library.join("pkgconfig"), "eshm.pc", pkg_config()),
    ] {
        make_folder(&folder)?;
        let path = folder.join(file);
        fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))?;
    }
    for file in built_files(step)? {
        install(&file, &library)?;
    }
    println!("the C library is in {}", step.workspace.show(&prefix));

    if !cfg!(target_os = "linux") {
        return Ok(Outcome::Skipped(
            "the library was built; its tests are for Linux: run them there".into(),
        ));
    }
    if let Some(missing) = missing_tool(step) {
        return Ok(missing);
    }
    let mut tests = step.cargo_test(&["-p", PACKAGE, "--test", "c", "--test", "python"]);
    tests
        .env("POLYSHM_CAPI", &prefix)
        .env_remove("POLYSHM_INTEROP");
    step.run_tests(tests)?;
    Ok(step.outcome())
}

/// The outcome if the tests lack a compiler or Python.
fn missing_tool(step: &Step<'_>) -> Option<Outcome> {
    let named = |variable: &str, usual: &str| env::var(variable).unwrap_or_else(|_| usual.into());
    let tools = [
        (named("CC", "cc"), "gcc libc6-dev", ", or name it in CC"),
        (named("CXX", "c++"), "g++", ", or name it in CXX"),
        ("python3".to_owned(), "python3", ""),
    ];
    tools.into_iter().find_map(|(tool, package, otherwise)| {
        let mut command = step.workspace.program(&tool);
        command
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let works = command.status().is_ok_and(|status| status.success());
        (!works).then(|| {
            step.missing(format!(
                "no `{tool}` to test the library with; install it (Debian: `apt-get install \
                 {package}`){otherwise}"
            ))
        })
    })
}

/// The header of everything that the sources export.
fn header(step: &Step<'_>) -> Result<String> {
    let config = Config {
        language: Language::C,
        cpp_compat: true,
        style: Style::Both,
        documentation_style: DocumentationStyle::Doxy,
        usize_is_size_t: true,
        line_length: 100,
        tab_width: 2,
        no_includes: true,
        sys_includes: ["stdbool.h", "stddef.h", "stdint.h"]
            .map(str::to_owned)
            .to_vec(),
        // Not cbindgen's own guard, which leaves the trailer out.
        header: Some(OPENING.to_owned()),
        trailer: Some(CLOSING.to_owned()),
        ..Config::default()
    };
    let sources = step.workspace.root.join("crates").join(PACKAGE).join("src");
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(sources.join(source));
    }
    for item in UNMENTIONED {
        builder = builder.include_item(item);
    }
    let bindings = builder
        .generate()
        .context("could not make the header from the source")?;
    let mut text = Vec::new();
    bindings.write(&mut text);
    let text = String::from_utf8(text).context("the header is not UTF-8")?;
    // A heading of Rust's documentation.
    Ok(text.replace(" * # Safety\n", " * The caller promises:\n"))
}

/// Found through the file's own place: the folder may be moved.
fn pkg_config() -> String {
    format!(
        "prefix=${{pcfiledir}}/../..\n\
         libdir=${{prefix}}/lib\n\
         includedir=${{prefix}}/include\n\
         \n\
         Name: eshm\n\
         Description: Master/slave channel in shared memory with heartbeats and reconnection\n\
         Version: {VERSION}\n\
         Libs: -L${{libdir}} -leshm\n\
         Cflags: -I${{includedir}}\n"
    )
}

/// The library and what belongs to it, wherever cargo put them.
fn built_files(step: &Step<'_>) -> Result<Vec<PathBuf>> {
    let output = step
        .cargo(&["build", "--release", "-p", PACKAGE, "--message-format=json"])
        .stderr(Stdio::null())
        .output()
        .context("could not start `cargo build`")?;
    let messages = String::from_utf8(output.stdout).context("cargo's messages are not UTF-8")?;
    let files = cdylib_files(&messages);
    if files.is_empty() {
        bail!("cargo built no C library; look at `crate-type` in the manifest of {PACKAGE}");
    }
    Ok(files)
}

fn cdylib_files(messages: &str) -> Vec<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| {
            let crate_types = message["target"]["crate_types"].as_array();
            message["reason"] == "compiler-artifact"
                && crate_types.is_some_and(|types| types.iter().any(|it| it == "cdylib"))
        })
        .filter_map(|message| message["filenames"].as_array().cloned())
        .flatten()
        .filter_map(|file| file.as_str().map(PathBuf::from))
        .filter(|file| file.extension().is_none_or(|extension| extension != "rlib"))
        .collect()
}

/// Copies a file that was built; the library itself gets the names of the system's custom.
fn install(file: &Path, folder: &Path) -> Result<()> {
    let built = file.file_name().unwrap_or_default().to_string_lossy();
    let (name, links) = if built == format!("{DLL_PREFIX}eshm{DLL_SUFFIX}") {
        names(DLL_PREFIX, DLL_SUFFIX)
    } else {
        (built.into_owned(), Vec::new())
    };
    let path = folder.join(&name);
    fs::copy(file, &path)
        .with_context(|| format!("could not copy {} to {}", file.display(), path.display()))?;
    for (link, to) in links {
        let link = folder.join(link);
        make_link(&to, &link).with_context(|| format!("could not make {}", link.display()))?;
    }
    Ok(())
}

/// The file's name, and links to it: the name that programs are linked against, the one that
/// linkers look for, and the one that `data_handler_native.py` loads.
fn names(prefix: &str, suffix: &str) -> (String, Vec<(String, String)>) {
    let major = VERSION.split('.').next().unwrap_or_default();
    let versioned = |version: &str| match suffix {
        ".so" => Some(format!("{prefix}eshm{suffix}.{version}")),
        ".dylib" => Some(format!("{prefix}eshm.{version}{suffix}")),
        _ => None,
    };
    let plain = format!("{prefix}eshm{suffix}");
    let (Some(file), Some(linked)) = (versioned(VERSION), versioned(major)) else {
        return (plain, Vec::new());
    };
    let links = vec![
        (linked.clone(), file.clone()),
        (plain, linked.clone()),
        (format!("{prefix}eshm_data{suffix}"), linked),
    ];
    (file, links)
}

#[cfg(unix)]
fn make_link(to: &str, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(to, link)
}

#[cfg(not(unix))]
fn make_link(to: &str, link: &Path) -> std::io::Result<()> {
    fs::copy(link.with_file_name(to), link).map(|_| ())
}

fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_gets_the_names_of_the_system() {
        let (file, links) = names("lib", ".so");
        assert_eq!(file, "libeshm.so.1.0.0");
        assert_eq!(
            links,
            [
                ("libeshm.so.1", "libeshm.so.1.0.0"),
                ("libeshm.so", "libeshm.so.1"),
                ("libeshm_data.so", "libeshm.so.1"),
            ]
            .map(|(link, to)| (link.to_owned(), to.to_owned()))
        );
        let (file, links) = names("lib", ".dylib");
        assert_eq!(file, "libeshm.1.0.0.dylib");
        assert_eq!(links[0].0, "libeshm.1.dylib");
        assert_eq!(names("", ".dll"), ("eshm.dll".to_owned(), Vec::new()));
    }

    #[test]
    fn the_files_of_the_library_are_found() {
        let messages = [
            r#"{"reason":"compiler-artifact","target":{"crate_types":["lib"]},"filenames":["/a/liba.rlib"]}"#,
            "no JSON",
            r#"{"reason":"compiler-artifact","target":{"crate_types":["cdylib","rlib"]},"filenames":["/a/libeshm.so","/a/libeshm.rlib"]}"#,
            r#"{"reason":"build-finished","success":true}"#,
        ];
        let files = cdylib_files(&messages.join("\n"));
        assert_eq!(files, [PathBuf::from("/a/libeshm.so")]);
    }
}
