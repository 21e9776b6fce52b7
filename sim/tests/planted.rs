//! Do the checkers detect anything at all? A fault for each kind of checker must be caught within a few
//! of the seeds of every sweep; `sim score` hunts all of them.

use std::collections::BTreeSet;
use std::path::Path;

use quorate::plant::{self, Fault};
use sim::plan::Plan;
use sim::play::play_with;
use sim::score::{SCRIPTED, hunt, in_scenario};

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
    let caught = hunt(fault(name), 0..SEEDS);
    println!("{name}: {caught:?}");
    caught.is_some()
}

#[test]
fn scripts_catch_what_they_are_for() {
    let mut missed = Vec::new();
    for (name, script, checker) in SCRIPTED {
        let caught = in_scenario(fault(name), script, checker).expect("a script is a plan");
        println!("{name}: {caught:?}");
        if caught.is_none() {
            missed.push(format!("{checker} does not see {name} in {script}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

fn fault(name: &str) -> &'static Fault {
    let fault = plant::ALL.iter().find(|fault| fault.name == name);
    fault.unwrap_or_else(|| panic!("no fault is called {name}"))
}

/// The server's own check for corruption reports the member that differs: the checker, which knows the
/// right one, finds no violation.
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
    assert!(ended, "the member that differs has started: {said:?}");
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

/// After a fault is added or described anew, `sim score --write` makes the table again.
#[test]
fn the_table_of_caught_faults_is_of_those_there_are() {
    let readme = include_str!("../README.md");
    let table = readme
        .split_once("<!-- score: begin -->")
        .and_then(|(_, rest)| rest.split_once("<!-- score: end -->"));
    let rows =
        table.expect("the README has the table").0.lines().filter(|line| line.starts_with("| "));
    let rows: Vec<Vec<_>> =
        rows.skip(1).map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect();
    let listed: Vec<_> = rows.iter().map(|row| (row[0], row[1])).collect();
    let planted: Vec<_> = plant::ALL.iter().map(|fault| (fault.name, fault.does)).collect();
    let names = |of: &[(&str, &str)], others: &[(&str, &str)]| -> Vec<_> {
        of.iter().filter(|one| !others.contains(one)).map(|(name, _)| name.to_string()).collect()
    };
    let (new, gone) = (names(&planted, &listed), names(&listed, &planted));
    assert!(new.is_empty() && gone.is_empty(), "new: {new:?}, gone: {gone:?}");
    assert!(listed == planted, "the rows are in the order of the faults");
    let missed: Vec<_> = rows.iter().filter(|row| row[4] == "-").map(|row| row[0]).collect();
    assert!(missed.is_empty(), "not caught: {missed:?}");
    for (fault, script, _) in SCRIPTED {
        let row = rows.iter().find(|row| row[0] == *fault).expect("it is listed");
        assert_eq!(row[4], format!("{script}.sim"), "{fault}");
    }
}

/// The README states what each fault stands for, and in the row of each what stands for it.
#[test]
fn every_likeness_is_in_the_readme() {
    let readme = include_str!("../README.md");
    for fault in plant::ALL {
        for number in fault.like.split_whitespace() {
            let row = readme.lines().find(|line| line.starts_with(&format!("| {number} |")));
            let row = row.unwrap_or_else(|| panic!("no row is of {number}"));
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
