//! What is measured: the list, and how one of them is run for a slice of time.

use std::io;
use std::time::Duration;

use quorate_proto::etcdserverpb::RangeRequest;

use crate::load::{self, Counted, Until, Watching};
use crate::messages;

/// Keys that there are, or are written to.
const KEYS: u64 = 100_000;
/// Keys that are there before ranges are measured.
const FILLED: u64 = 2_000;
/// Clients that put them.
const WRITERS: usize = 64;

#[derive(Clone, Copy)]
pub enum Does {
    /// One put of a key of many.
    Put,
    /// One range of one key.
    Range { serializable: bool },
    /// A page of so many keys.
    Page(i64),
    /// How many keys there are.
    Count,
    /// One renewal of a lease, each client on a stream of its own.
    KeepAlive,
    /// Events of one key; the clients are watchers.
    Watch(Watching),
}

#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub members: usize,
    clients: usize,
    does: Does,
}

const fn scenario(name: &'static str, members: usize, clients: usize, does: Does) -> Scenario {
    Scenario { name, members, clients, does }
}

const fn watch(name: &'static str, watching: Watching) -> Scenario {
    Scenario { name, members: 1, clients: 0, does: Does::Watch(watching) }
}

const LINEARIZABLE: Does = Does::Range { serializable: false };

/// A thousand streams.
const STREAMS: Watching = Watching {
    connections: 16,
    streams_per_connection: 63,
    watchers_per_stream: 1,
    window: 8,
    pause: Duration::ZERO,
};
/// A thousand watchers on few streams.
const SHARED: Watching = Watching { streams_per_connection: 1, watchers_per_stream: 63, ..STREAMS };
/// Latency where nothing queues.
const CALM: Watching = Watching { window: 1, pause: Duration::from_millis(10), ..STREAMS };

pub const SCENARIOS: &[Scenario] = &[
    scenario("put-1", 1, 1, Does::Put),
    scenario("put-64", 1, 64, Does::Put),
    scenario("put-256", 1, 256, Does::Put),
    scenario("put-1000", 1, 1_000, Does::Put),
    scenario("range-1", 1, 1, LINEARIZABLE),
    scenario("range-64", 1, 64, LINEARIZABLE),
    scenario("range-256", 1, 256, LINEARIZABLE),
    scenario("serializable-64", 1, 64, Does::Range { serializable: true }),
    scenario("page-500", 1, 16, Does::Page(500)),
    scenario("count", 1, 16, Does::Count),
    scenario("keep-alive-256", 1, 256, Does::KeepAlive),
    watch("watch-streams", STREAMS),
    watch("watch-shared", SHARED),
    watch("watch-calm", CALM),
    scenario("put-256-three", 3, 256, Does::Put),
    scenario("range-256-three", 3, 256, LINEARIZABLE),
];

/// Clients on one connection.
const PER_CONNECTION: usize = 16;

impl Scenario {
    /// Puts what the scenario reads, and returns the leases that it renews.
    pub fn prepare(&self, addresses: &[String]) -> io::Result<Vec<i64>> {
        match self.does {
            Does::Put | Does::Watch(_) => {}
            Does::Range { .. } | Does::Page(_) | Does::Count => fill(addresses)?,
            Does::KeepAlive => {
                return (1..=self.clients as i64).map(|id| grant(addresses, id)).collect();
            }
        }
        Ok(Vec::new())
    }

    /// Loads the servers.
    pub fn run(&self, addresses: &[String], leases: &[i64], until: Until) -> io::Result<Counted> {
        let does = self.does;
        match does {
            Does::Watch(watching) => load::watch(&addresses[0], watching, until),
            Does::KeepAlive => load::keep_alives(&addresses[0], leases, PER_CONNECTION, until),
            _ => {
                load::unary(addresses, self.clients, PER_CONNECTION, until, move |number, round| {
                    request(does, mix(number as u64, round))
                })
            }
        }
    }
}

fn request(does: Does, random: u64) -> load::Request {
    let range = |request: RangeRequest| (messages::RANGE, messages::range(&request));
    match does {
        Does::Range { serializable } => {
            let key = key(random % FILLED).into();
            range(RangeRequest { key, serializable, ..RangeRequest::default() })
        }
        Does::Page(limit) => range(RangeRequest { limit, ..all() }),
        Does::Count => range(RangeRequest { count_only: true, ..all() }),
        Does::Put | Does::KeepAlive | Does::Watch(_) => {
            (messages::PUT, messages::put(&key(random % KEYS), b""))
        }
    }
}

fn all() -> RangeRequest {
    RangeRequest { key: "key/".into(), range_end: "key0".into(), ..RangeRequest::default() }
}

/// Puts all keys that ranges read.
fn fill(addresses: &[String]) -> io::Result<()> {
    let put = |number: usize, round: u64| {
        let key = key((number as u64 + round * WRITERS as u64) % FILLED);
        (messages::PUT, messages::put(&key, b""))
    };
    let rounds = Until::Rounds(FILLED.div_ceil(WRITERS as u64));
    load::unary(addresses, WRITERS, PER_CONNECTION, rounds, put).map(drop)
}

fn grant(addresses: &[String], id: i64) -> io::Result<i64> {
    let mut connection = crate::h2::Connection::open(&addresses[0])?;
    let (mut granted, mut ended) = (0, false);
    connection.call(messages::GRANT, &messages::grant(id), true);
    connection.flush()?;
    while !ended {
        connection.receive(|_, piece| match piece {
            crate::h2::Piece::Data(data) => granted = messages::granted(&data[5..]),
            crate::h2::Piece::End => ended = true,
        })?;
    }
    Ok(granted)
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
