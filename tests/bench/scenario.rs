//! What is measured: the list, and how one of them is run.

use std::time::Duration;

use quorate_proto::etcdserverpb::{PutRequest, RangeRequest};
use tonic::Status;

use crate::client::Client;
use crate::load::{self, Counted};
use crate::process::{Cluster, Server};
use crate::procfs;
use crate::table::Measured;

const VALUE_BYTES: usize = 256;
/// Keys that there are, or are written to.
const KEYS: u64 = 100_000;
/// Keys that are there before ranges are measured.
const FILLED: u64 = 10_000;
const WARM_UP: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
pub enum Asks {
    /// One put of a key of many.
    Put,
    /// One linearizable range of one key.
    Range,
    /// A page of so many keys.
    Page(i64),
    /// How many keys there are.
    Count,
}

#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub members: usize,
    clients: usize,
    asks: Asks,
}

const fn scenario(name: &'static str, members: usize, clients: usize, asks: Asks) -> Scenario {
    Scenario { name, members, clients, asks }
}

pub const SCENARIOS: &[Scenario] = &[
    scenario("put-1", 1, 1, Asks::Put),
    scenario("put-256", 1, 256, Asks::Put),
    scenario("range-64", 1, 64, Asks::Range),
    scenario("range-256", 1, 256, Asks::Range),
    scenario("page-500", 1, 16, Asks::Page(500)),
    scenario("count", 1, 16, Asks::Count),
    scenario("put-256-three", 3, 256, Asks::Put),
    scenario("range-256-three", 3, 256, Asks::Range),
];

/// Clients on one connection.
const PER_CONNECTION: usize = 16;

/// Fills, warms up, measures.
pub async fn run(cluster: &Cluster, scenario: &Scenario, duration: Duration) -> Measured {
    let endpoints = cluster.endpoints();
    let (clients, asks) = (scenario.clients, scenario.asks);
    if !matches!(asks, Asks::Put) {
        fill(&endpoints).await;
    }
    let request = move |client, number, round| ask(client, asks, number, round);
    load::run(&endpoints, clients, PER_CONNECTION, WARM_UP, request).await;
    let before = cpu(cluster);
    let counted = load::run(&endpoints, clients, PER_CONNECTION, duration, request).await;
    let used = cpu(cluster) - before;
    measured(cluster, &counted, used)
}

fn measured(cluster: &Cluster, counted: &Counted, used: Duration) -> Measured {
    assert_eq!(counted.errors, 0, "requests were refused");
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

async fn ask(mut client: Client, asks: Asks, number: usize, round: u64) -> Result<(), Status> {
    let key = key(mix(number as u64, round) % KEYS);
    match asks {
        Asks::Put => put(&mut client, key).await,
        Asks::Range => {
            let key = self::key(mix(number as u64, round) % FILLED);
            one(&mut client, RangeRequest { key: key.into(), ..Default::default() }).await
        }
        Asks::Page(limit) => one(&mut client, RangeRequest { limit, ..all() }).await,
        Asks::Count => one(&mut client, RangeRequest { count_only: true, ..all() }).await,
    }
}

async fn put(client: &mut Client, key: String) -> Result<(), Status> {
    let value = vec![b'v'; VALUE_BYTES].into();
    let request = PutRequest { key: key.into(), value, ..Default::default() };
    client.kv.put(request).await.map(drop)
}

async fn one(client: &mut Client, request: RangeRequest) -> Result<(), Status> {
    let answer = client.kv.range(request).await?.into_inner();
    assert!(answer.count > 0, "what is asked for is there");
    Ok(())
}

fn all() -> RangeRequest {
    RangeRequest { key: "key/".into(), range_end: "key0".into(), ..Default::default() }
}

/// Puts the keys that ranges read.
async fn fill(endpoints: &[String]) {
    let mut tasks = Vec::new();
    const WRITERS: u64 = 64;
    for writer in 0..WRITERS {
        let mut client = Client::connect(&endpoints[writer as usize % endpoints.len()]).await;
        tasks.push(tokio::spawn(async move {
            for i in (writer..FILLED).step_by(WRITERS as usize) {
                put(&mut client, key(i)).await.expect("an idle server takes writes");
            }
        }));
    }
    for task in tasks {
        task.await.expect("a writer does not panic");
    }
}

fn key(number: u64) -> String {
    format!("key/{number:012}")
}

/// Spreads clients and rounds over the keys, the same in every run (SplitMix64's finish).
fn mix(number: u64, round: u64) -> u64 {
    let mut mixed = (number << 40) ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
