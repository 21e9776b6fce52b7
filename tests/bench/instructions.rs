//! A guard: how many instructions our server executes for one request, as valgrind counts them. Wall time on
//! a shared machine varies by a factor, instructions by percents; what grows beyond the tolerance has to be
//! explained. Where valgrind does not work, the guard reports that it was skipped, and passes.
//!
//! The figures are those of the profile that the tests are compiled with, so they are greater than a
//! release's. After a change that is meant to cost more, or a new compiler, `cargo test --test instructions
//! -- --print` shows what to write into the table.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the generator stands outside the server: real time, real sockets"
)]

#[allow(dead_code, reason = "not everything is used by both programs")]
mod h2;
#[allow(dead_code, reason = "not everything is used by both programs")]
mod load;
mod messages;
#[path = "../it/process.rs"]
#[allow(dead_code, reason = "the tests do more to servers")]
mod process;
#[allow(dead_code, reason = "all scenarios here are of one member")]
mod scenario;

use std::path::Path;
use std::process::Command;

use self::load::Until;
use self::process::{Kind, Server, loudly, scratch};
use self::scenario::{SCENARIOS, Scenario};

/// Of each scenario: how many requests of each client are counted, and how many thousand instructions one
/// request, or one event, takes.
const TABLE: [(&str, u64, f64); 5] = [
    ("put-1", 300, 174.0),
    ("put-64", 20, 115.0),
    ("range-64", 20, 88.0),
    ("keep-alive-256", 6, 45.0),
    ("watch-streams", 4, 41.0),
];

/// What may be above the table: runs differ by a twentieth, as requests meet in other batches, and so do
/// machines, whose C libraries copy in other ways. Below the table is not looked at.
const TOLERANCE: f64 = 0.25;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let prints = words.iter().any(|word| word == "--print");
    // Of a filter for tests.
    let names: Vec<_> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let is_chosen = names.is_empty() || names.iter().any(|name| "instructions".contains(&***name));
    if !is_chosen || words.iter().any(|word| word == "--list") {
        return;
    }
    let works = Command::new("valgrind").args(["--tool=none", "true"]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        return loudly("SKIPPED: instructions are not counted, valgrind is not there");
    }
    let dir = scratch();
    let mut server = Server::single(Kind::Quorate, dir.path(), &[]);
    let out = dir.path().join("callgrind.out");
    let file = format!("--callgrind-out-file={}", out.display());
    server.run_under(&["valgrind", "--tool=callgrind", "--instr-atstart=no", &file]);
    server.start();
    let mut failed = false;
    for (n, (name, rounds, expected)) in TABLE.iter().enumerate() {
        let scenario = SCENARIOS.iter().find(|it| it.name == *name).expect("it is in the list");
        let dump = out.with_extension(format!("out.{}", n + 1));
        let Some(thousands) = count(&server, scenario, *rounds, &dump) else {
            return loudly("SKIPPED: instructions are not counted, valgrind cannot be controlled");
        };
        println!("{name:<16} {thousands:8.1} thousand instructions, expected {expected:.1}");
        failed |= thousands > expected * (1.0 + TOLERANCE);
    }
    server.kill();
    if failed && !prints {
        eprintln!("more than {:.0} % above the table of {}", 100.0 * TOLERANCE, file!());
        std::process::exit(1);
    }
}

/// Thousands of instructions for one request of the scenario; none where they cannot be counted.
fn count(server: &Server, scenario: &Scenario, rounds: u64, dump: &Path) -> Option<f64> {
    let addresses = [server.endpoint()];
    let leases = scenario.prepare(&addresses).expect("an idle server answers");
    scenario.run(&addresses, &leases, Until::Rounds(2)).expect("a server answers");
    control(server, &["-z"])?;
    control(server, &["-i", "on"])?;
    let counted = scenario.run(&addresses, &leases, Until::Rounds(rounds));
    control(server, &["-i", "off"])?;
    control(server, &["-d"])?;
    let requests = counted.expect("a server answers").latency.len();
    let text = std::fs::read_to_string(dump).ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "))?;
    Some(total.trim().parse::<f64>().ok()? / requests as f64 / 1e3)
}

fn control(server: &Server, arguments: &[&str]) -> Option<()> {
    let pid = server.pid().expect("the server runs").to_string();
    let output = Command::new("callgrind_control").args(arguments).arg(pid).output().ok()?;
    output.status.success().then_some(())
}
