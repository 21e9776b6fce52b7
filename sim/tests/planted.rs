//! Do the checkers see anything at all? A mistake for each kind of checker must be caught within a few
//! of the seeds that everybody plays; `sim score` hunts all of them.

use std::collections::BTreeSet;
use std::path::Path;

use quorate::plant;
use sim::plan::Plan;
use sim::play::play_with;
use sim::score::{SCRIPTED, hunt, script};

/// Seeds that a fault of this list may take to show.
const SEEDS: u64 = 24;

/// Faults that show soon, in different ways.
const SOON: &[&str] = &[
    "lost-write",
    "txn-compares-ignored",
    "watch-lost-publication",
    "lease-never-ends",
    "apply-depends-on-member",
    "snapshot-loses-rows",
];

#[test]
fn planted_faults_are_caught() {
    let missed: Vec<_> = SOON.iter().copied().filter(|name| !is_caught(name)).collect();
    assert!(missed.is_empty(), "not caught within {SEEDS} seeds: {missed:?}");
}

fn is_caught(name: &str) -> bool {
    let fault = plant::ALL.iter().find(|fault| fault.name == name);
    let caught = hunt(fault.unwrap_or_else(|| panic!("no fault is called {name}")), 0..SEEDS);
    println!("{name}: {caught:?}");
    caught.is_some()
}

/// Every script passes without a fault: see `chaos`.
#[test]
fn scripts_catch_what_they_are_for() {
    let mut missed = Vec::new();
    for (fault, name, checker) in SCRIPTED {
        let verdict = play_with(&script(name).expect("a script is a plan"), Some(fault));
        let said: Vec<_> = verdict.violations.iter().map(ToString::to_string).collect();
        let caught = verdict.violations.iter().any(|violation| violation.checker == *checker);
        println!("{fault}: {:?}", said.first());
        if !caught {
            missed.push(format!("{checker} does not see {fault}: {said:?}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// The server's own check for corruption is right about a member that differs: the checker, which knows
/// which one it is, has nothing to say.
#[test]
fn the_member_that_differs_is_accused() {
    let plan: Plan = include_str!("../scripts/members-are-compared.sim").parse().expect("a plan");
    let verdict = play_with(&plan, Some("row-silently-differs"));
    let said: Vec<_> = verdict.violations.iter().map(ToString::to_string).collect();
    assert!(verdict.violations.iter().any(|violation| violation.checker == "equal"), "{said:?}");
    let wrong = verdict.violations.iter().find(|violation| violation.checker == "corruption");
    assert!(wrong.is_none(), "{wrong:?}");
    // It is started again in the middle, and compares itself before it serves.
    let ended = said.iter().any(|text| text.contains("found data inconsistency with peers"));
    assert!(ended, "the member that differs was let in: {said:?}");
}

/// A name that only one side knows would be a fault that nothing plants, or that nothing hunts.
#[test]
fn every_fault_has_one_name_and_a_place() {
    let named: Vec<_> = plant::ALL.iter().map(|fault| fault.name.to_owned()).collect();
    let known: BTreeSet<_> = named.iter().cloned().collect();
    assert_eq!(known.len(), named.len(), "two faults share a name");
    let mut planted = BTreeSet::new();
    // Those about certificates are planted around the server.
    for folder in ["../src", "src"] {
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut planted);
    }
    assert_eq!(known, planted);
}

/// The README tells what each fault stands for, and in the row of each what stands for it.
#[test]
fn every_likeness_is_told() {
    let readme = include_str!("../README.md");
    for fault in plant::ALL {
        for number in fault.like.split_whitespace() {
            let row = readme.lines().find(|line| line.starts_with(&format!("| {number} |")));
            let row = row.unwrap_or_else(|| panic!("no row tells of {number}"));
            assert!(row.contains(&format!("`{}`", fault.name)), "{}: {row}", fault.name);
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the sources are read where they stand")]
fn collect(folder: &Path, planted: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("the sources are there") {
        let path = entry.expect("a folder that can be listed").path();
        if path.is_dir() {
            collect(&path, planted);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source is text");
            let names = text.split("plant::").skip(1);
            let names = names.filter_map(|rest| Some(rest.split_once(".is_planted()")?.0));
            planted.extend(names.map(|name| name.to_lowercase().replace('_', "-")));
        }
    }
}
