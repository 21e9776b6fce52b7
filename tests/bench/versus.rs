//! A real etcd and our server, in turn on one machine with one load generator: throughput, latency,
//! server CPU for each request and resident memory, as ratios, because machines differ. Rounds are
//! interleaved (etcd, ours, etcd, ours, ...) and medians taken, because machines drift.
//!
//! `cargo bench -p quorate --bench versus -- [--seconds 5] [--rounds 3] [--scenario put-256]`; The etcd is
//! that of `ci/etcd`, or the one that `ETCD` names; `QUORATE_BIN` names another server of ours.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the generator stands outside the server: real time, real sockets"
)]

#[path = "../it/client.rs"]
#[allow(dead_code, reason = "the tests call more than the load does")]
mod client;
mod load;
#[path = "../it/process.rs"]
#[allow(dead_code, reason = "the tests do more to servers")]
mod process;
mod procfs;
mod scenario;
mod table;
#[path = "../conformance/version.rs"]
#[allow(dead_code, reason = "cases compare versions")]
mod version;

use std::time::Duration;

use self::process::{Cluster, Kind, etcd_program, scratch};
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
        let (mut etcd, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            etcd.push(round(&Kind::Etcd(etcd_program()), scenario, options.seconds));
            ours.push(round(&Kind::Quorate, scenario, options.seconds));
        }
        table::rows(scenario.name, &Measured::median(&etcd), &Measured::median(&ours));
    }
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { seconds: 5, rounds: 3, scenario: None };
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

/// Fresh servers, their data on the disk below cargo's directory, one measurement.
fn round(kind: &Kind, scenario: &Scenario, seconds: u64) -> Measured {
    let dir = scratch();
    let mut cluster = Cluster::new(kind, dir.path(), scenario.members, &[]);
    cluster.start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    let measured =
        runtime.block_on(scenario::run(&cluster, scenario, Duration::from_secs(seconds)));
    for server in &mut cluster.servers {
        server.kill();
    }
    measured
}
