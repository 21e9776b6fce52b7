//! A real etcd and our server beside each other on one machine, loaded by turns in short slices by one
//! generator: throughput, latency, server CPU for each request and resident memory, as ratios of slices that
//! follow each other, because machines differ and drift. With two processors or more the servers are kept on
//! one of them and the generator on the others.
//!
//! `cargo bench -p quorate --bench versus -- [--seconds 1] [--rounds 8] [--scenario put-256]`; the etcd is
//! that of `ci/etcd`, or the one that `ETCD` names; `QUORATE_BIN` names another server of ours.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the generator stands outside the server: real time, real sockets"
)]

mod h2;
mod load;
mod messages;
#[path = "../it/process.rs"]
#[allow(dead_code, reason = "the tests do more to servers")]
mod process;
mod procfs;
mod scenario;
mod table;
#[path = "../conformance/version.rs"]
#[allow(dead_code, reason = "cases compare versions")]
mod version;

use std::io;
use std::time::Duration;

use self::load::{Counted, Until};
use self::process::{Cluster, Kind, Server, etcd_program, scratch};
use self::scenario::{SCENARIOS, Scenario};
use self::table::Measured;
use self::version::Version;

/// The command line.
struct Options {
    seconds: u64,
    rounds: usize,
    scenario: Option<String>,
}

fn main() {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}\nusage: versus [--seconds N] [--rounds N] [--scenario NAME]");
            std::process::exit(2);
        }
    };
    let mut scenarios = SCENARIOS.to_vec();
    if let Some(name) = &options.scenario {
        scenarios.retain(|scenario| scenario.name.starts_with(name.as_str()));
    }
    if scenarios.is_empty() {
        let names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        eprintln!("no such scenario; there are: {}", names.join(", "));
        std::process::exit(2);
    }
    println!("beside etcd {}\n", Version::of(&etcd_program()));
    table::head();
    for scenario in &scenarios {
        if let Err(error) = compare(scenario, &options) {
            eprintln!("{}: {error}", scenario.name);
            std::process::exit(1);
        }
    }
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { seconds: 1, rounds: 8, scenario: None };
        while let Some(name) = arguments.next() {
            // cargo adds it.
            if name == "--bench" {
                continue;
            }
            let value = arguments.next().ok_or_else(|| format!("{name} wants a value"))?;
            let number = value.parse::<u64>().map_err(|e| format!("{name} {value}: {e}"));
            match name.as_str() {
                "--seconds" => options.seconds = number?.max(1),
                "--rounds" => options.rounds = number?.clamp(1, 1000) as usize,
                "--scenario" => options.scenario = Some(value),
                _ => return Err(format!("{name} is not known")),
            }
        }
        Ok(options)
    }
}

/// Fresh servers, their data on the disk below cargo's directory, loaded by turns.
fn compare(scenario: &Scenario, options: &Options) -> io::Result<()> {
    let dir = scratch();
    let kinds = [("etcd", Kind::Etcd(etcd_program())), ("ours", Kind::Quorate)];
    let mut clusters = Vec::new();
    run_on(Place::Servers);
    for (name, kind) in &kinds {
        let mut cluster = Cluster::new(kind, &dir.path().join(name), scenario.members, &[]);
        cluster.start();
        clusters.push(cluster);
    }
    run_on(Place::Generator);
    let mut prepared = Vec::new();
    for cluster in &clusters {
        let addresses = cluster.endpoints();
        let leases = scenario.prepare(&addresses)?;
        scenario.run(&addresses, &leases, Until::Time(Duration::from_secs(1)))?;
        prepared.push((addresses, leases));
    }
    let mut slices = [Vec::new(), Vec::new()];
    for _ in 0..options.rounds {
        for ((cluster, (addresses, leases)), slices) in
            clusters.iter().zip(&prepared).zip(&mut slices)
        {
            let before = cpu(cluster);
            let time = Until::Time(Duration::from_secs(options.seconds));
            let counted = scenario.run(addresses, leases, time)?;
            slices.push(measured(cluster, &counted, cpu(cluster) - before));
        }
    }
    table::rows(scenario.name, &slices[0], &slices[1]);
    Ok(())
}

fn measured(cluster: &Cluster, counted: &Counted, used: Duration) -> Measured {
    let requests = counted.latency.len().max(1) as f64;
    let micros = |quantile| counted.latency.value_at_quantile(quantile) as f64 / 1e3;
    let resident: u64 = pids(cluster).map(procfs::resident_bytes).sum();
    Measured {
        per_second: requests / counted.took.as_secs_f64(),
        p50_us: micros(0.5),
        p99_us: micros(0.99),
        cpu_us: used.as_secs_f64() * 1e6 / requests,
        resident_mb: resident as f64 / 1e6,
    }
}

fn pids(cluster: &Cluster) -> impl Iterator<Item = u32> {
    cluster.servers.iter().filter_map(Server::pid)
}

fn cpu(cluster: &Cluster) -> Duration {
    pids(cluster).map(procfs::cpu).sum()
}

/// What is placed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Servers,
    Generator,
}

/// Keeps this thread, and what it starts, on its processors; with one processor, or without taskset(1), all
/// share what there is.
fn run_on(place: Place) {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    static ALL: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    let all = *ALL.get_or_init(|| processors);
    if all < 2 {
        return;
    }
    let list = if place == Place::Servers { "0".to_owned() } else { format!("1-{}", all - 1) };
    let pid = std::process::id().to_string();
    let set = std::process::Command::new("taskset").args(["-cp", &list, &pid]).output();
    if !set.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "the servers share all processors with the generator: taskset does not work here"
        );
    }
}
