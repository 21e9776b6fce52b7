//! Rules about what is depended on: both workspaces resolve to the same versions, and no dependency
//! switches a feature on that is dangerous for the server.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Features that no crate of the tree may have, and why. Features unite over a build: whatever crate
/// switches one on, the server has it.
const FORBIDDEN: &[(&str, &str, &str)] =
    &[("prost", "no-recursion-limit", "a nested message of a stranger would overflow the stack")];

#[test]
fn both_workspaces_have_the_same_versions() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| {
        let text = fs::read_to_string(root.join(path));
        Versions::parse(&text.unwrap_or_else(|error| panic!("{path}: {error}")))
    };
    let apart = differences(&read("Cargo.lock"), &read("sim/Cargo.lock"));
    assert!(apart.is_empty(), "run cargo update in one of them:\n{}", apart.join("\n"));
}

#[test]
fn no_dependency_weakens_the_server() {
    for folder in [".", "sim"] {
        for (package, feature, why) in FORBIDDEN {
            let tree = features(folder, package);
            assert!(tree.contains(&format!("{package} feature ")), "{folder}: {tree}");
            let found = tree.contains(&format!("{package} feature \"{feature}\""));
            assert!(!found, "{folder}: `{feature}` of `{package}`: {why}\n{tree}");
        }
    }
}

/// Which features of `package` are on, and what has switched them on.
fn features(folder: &str, package: &str) -> String {
    let output = Command::new(env!("CARGO"))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
        .args(["tree", "--locked", "--offline", "--edges=features", "--invert", package])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo writes text")
}

/// The versions of each crate of a lock file.
struct Versions(BTreeMap<String, BTreeSet<String>>);

impl Versions {
    fn parse(lock: &str) -> Self {
        let mut versions: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        let mut name = None;
        for line in lock.lines() {
            let value = |key| Some(line.strip_prefix(key)?.trim_matches('"').to_owned());
            if let Some(found) = value("name = ") {
                name = Some(found);
            } else if let Some(version) = value("version = ")
                // The first line is the version of the file itself.
                && let Some(name) = name.take()
            {
                versions.entry(name).or_default().insert(version);
            }
        }
        Self(versions)
    }
}

/// Versions that one of two could take from the other and has not.
fn differences(ours: &Versions, theirs: &Versions) -> Vec<String> {
    let mut found = Vec::new();
    for (name, ours) in &ours.0 {
        for theirs in theirs.0.get(name).into_iter().flatten().filter(|it| !ours.contains(*it)) {
            let compatible = |it: &&String| compatible(it) == compatible(theirs);
            if let Some(ours) = ours.iter().find(compatible) {
                found.push(format!("{name}: {ours} and {theirs}"));
            }
        }
    }
    found
}

/// The part of a version that stays as long as nothing breaks (SemVer as cargo reads it).
fn compatible(version: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in version.split('.') {
        parts.push(part);
        if part != "0" {
            break;
        }
    }
    parts
}

#[test]
fn versions_that_differ_are_found() {
    let lock = |packages: &[(&str, &str)]| {
        let lines = packages.iter().map(|(name, version)| {
            format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n")
        });
        Versions::parse(&format!("version = 4\n{}", lines.collect::<String>()))
    };
    let ours = lock(&[("a", "1.2.0"), ("a", "2.0.1"), ("b", "0.3.1"), ("c", "1.0.0")]);
    let theirs = lock(&[("a", "1.2.0"), ("a", "2.1.0"), ("b", "0.4.0"), ("d", "1.0.0")]);
    assert_eq!(differences(&ours, &theirs), ["a: 2.0.1 and 2.1.0"]);
}
