//! The load: so many clients, each with one request under way, over several connections, for so long. A
//! thread for each connection counts and times; what is sent is the scenario's.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::h2::{Connection, Messages, Piece};
use crate::messages;

/// What a time of load has brought.
pub struct Counted {
    /// Of each request or event, in nanoseconds.
    pub latency: Histogram<u64>,
    pub took: Duration,
}

/// When a load ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    Time(Duration),
    /// Each client, watchers aside, has sent so many requests; of watched puts there were so many.
    Rounds(u64),
}

impl Until {
    fn is_over(self, from: Instant, round: u64) -> bool {
        match self {
            Self::Time(time) => from.elapsed() >= time,
            Self::Rounds(rounds) => round >= rounds,
        }
    }
}

/// One request: a path and its message.
pub type Request = (&'static str, Vec<u8>);

/// Runs `request(number of the client, number of its request)` in `clients` loops, at most `per_connection`
/// on one connection; connections go round the addresses.
pub fn unary<F>(
    addresses: &[String],
    clients: usize,
    per_connection: usize,
    until: Until,
    request: F,
) -> io::Result<Counted>
where
    F: Fn(usize, u64) -> Request + Clone + Send + 'static,
{
    let from = Instant::now();
    let mut threads = Vec::new();
    let first_numbers = (0..clients).step_by(per_connection);
    for (n, first) in first_numbers.enumerate() {
        let mut connection = Connection::open(&addresses[n % addresses.len()])?;
        let numbers = first..clients.min(first + per_connection);
        let request = request.clone();
        threads.push(thread::spawn(move || {
            // Of each client: its call's stream, when it began, whether it has an answer, the next call's
            // number.
            let mut slots: Vec<(u32, Instant, bool, u64)> = Vec::new();
            let mut latency = histogram();
            for number in numbers.clone() {
                let (path, message) = request(number, 0);
                slots.push((connection.call(path, &message, true), Instant::now(), false, 1));
            }
            connection.flush()?;
            let mut open = slots.len();
            let mut ended = Vec::new();
            while open > 0 {
                connection.receive(|stream, piece| {
                    let Some(at) = slots.iter().position(|slot| slot.0 == stream) else { return };
                    match piece {
                        Piece::Data(_) => slots[at].2 = true,
                        Piece::End => ended.push(at),
                    }
                })?;
                let now = Instant::now();
                for at in ended.drain(..) {
                    let (_, began, answered, round) = slots[at];
                    if !answered {
                        return Err(io::Error::other("a request was refused"));
                    }
                    latency.saturating_record(nanos(now - began));
                    if until.is_over(from, round) {
                        (slots[at].0, open) = (0, open - 1);
                        continue;
                    }
                    let (path, message) = request(numbers.start + at, round);
                    slots[at] = (connection.call(path, &message, true), now, false, round + 1);
                }
                connection.flush()?;
            }
            Ok(latency)
        }));
    }
    Ok(Counted { latency: gathered(threads)?, took: from.elapsed() })
}

/// Keeps leases alive, each on a stream of its own, one request of each under way.
pub fn keep_alives(
    address: &str,
    leases: &[i64],
    per_connection: usize,
    until: Until,
) -> io::Result<Counted> {
    let from = Instant::now();
    let mut threads = Vec::new();
    for leases in leases.chunks(per_connection) {
        let mut connection = Connection::open(address)?;
        let leases = leases.to_vec();
        threads.push(thread::spawn(move || {
            let mut latency = histogram();
            let mut slots = Vec::new();
            for lease in leases {
                let message = messages::keep_alive(lease);
                let stream = connection.call(messages::KEEP_ALIVE, &message, false);
                slots.push((stream, Instant::now(), message, 1));
            }
            connection.flush()?;
            let mut open = slots.len();
            let mut answered = Vec::new();
            while open > 0 {
                connection.receive(|stream, piece| {
                    if let Some(at) = slots.iter().position(|slot| slot.0 == stream) {
                        answered.push((at, piece == Piece::End));
                    }
                })?;
                let now = Instant::now();
                for (at, ended) in answered.drain(..) {
                    if ended {
                        return Err(io::Error::other("a keep-alive stream has ended"));
                    }
                    latency.saturating_record(nanos(now - slots[at].1));
                    if until.is_over(from, slots[at].3) {
                        (slots[at].0, open) = (0, open - 1);
                        continue;
                    }
                    slots[at].1 = now;
                    slots[at].3 += 1;
                    let (stream, _, message, _) = &slots[at];
                    connection.send(*stream, message, false);
                }
                connection.flush()?;
            }
            Ok(latency)
        }));
    }
    Ok(Counted { latency: gathered(threads)?, took: from.elapsed() })
}

/// How watchers are spread.
#[derive(Clone, Copy, Debug)]
pub struct Watching {
    pub connections: usize,
    pub streams_per_connection: usize,
    pub watchers_per_stream: usize,
    /// Puts whose events have not all arrived.
    pub window: u64,
    /// Between two puts, at least.
    pub pause: Duration,
}

impl Watching {
    fn watchers(self) -> u64 {
        (self.connections * self.streams_per_connection * self.watchers_per_stream) as u64
    }
}

/// Puts one key that all watchers watch. Counts events; latency is from the put to the event.
pub fn watch(address: &str, watching: Watching, until: Until) -> io::Result<Counted> {
    let (stop, events) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let ready = Arc::new(Barrier::new(watching.connections + 1));
    let writer = thread::current();
    let mut threads = Vec::new();
    for _ in 0..watching.connections {
        let connection = Connection::open(address)?;
        let (stop, events, ready) = (stop.clone(), events.clone(), ready.clone());
        let writer = writer.clone();
        threads.push(thread::spawn(move || {
            watch_connection(connection, watching, began, &stop, &events, &ready, &writer)
        }));
    }
    let mut puts = Connection::open(address)?;
    ready.wait();
    let from = Instant::now();
    let mut sent = 0;
    while !until.is_over(from, sent) {
        let at = nanos(began.elapsed()).to_be_bytes();
        puts.call(messages::PUT, &messages::put(messages::WATCHED, &at), true);
        puts.flush()?;
        let mut answered = false;
        while !answered {
            puts.receive(|_, piece| answered |= piece == Piece::End)?;
        }
        sent += 1;
        while events.load(Relaxed) + watching.window * watching.watchers()
            <= sent * watching.watchers()
        {
            thread::park_timeout(Duration::from_millis(1));
        }
        thread::sleep(watching.pause);
    }
    while events.load(Relaxed) < sent * watching.watchers() {
        thread::park_timeout(Duration::from_millis(1));
    }
    let took = from.elapsed();
    stop.store(true, Relaxed);
    // Wakes every connection, so that it sees the end.
    puts.call(messages::PUT, &messages::put(messages::WATCHED, &[0; 8]), true);
    puts.flush()?;
    Ok(Counted { latency: gathered(threads)?, took })
}

fn watch_connection(
    mut connection: Connection,
    watching: Watching,
    zero: Instant,
    stop: &AtomicBool,
    events: &AtomicU64,
    ready: &Barrier,
    writer: &Thread,
) -> io::Result<Histogram<u64>> {
    let mut streams = Vec::new();
    for _ in 0..watching.streams_per_connection {
        let create = messages::watch(messages::WATCHED);
        let stream = connection.call(messages::WATCH, &create, false);
        for _ in 1..watching.watchers_per_stream {
            connection.send(stream, &create, false);
        }
        streams.push((stream, Messages::default()));
    }
    connection.flush()?;
    let mut latency = histogram();
    let (mut created, mut ended) = (0, false);
    let all = watching.streams_per_connection * watching.watchers_per_stream;
    let mut waits = true;
    loop {
        let mut arrived = 0;
        let now = |began: u64| nanos(zero.elapsed()).saturating_sub(began);
        connection.receive(|stream, piece| {
            let Piece::Data(data) = piece else {
                ended = true;
                return;
            };
            let Some(at) = streams.iter().position(|it| it.0 == stream) else { return };
            streams[at].1.follow(data, |message| {
                let values = messages::values(message);
                created += usize::from(values.is_empty());
                for began in values {
                    arrived += 1;
                    latency.saturating_record(now(began));
                }
            });
        })?;
        if ended {
            return Err(io::Error::other("a watch stream has ended"));
        }
        connection.flush()?;
        if waits && created >= all {
            waits = false;
            ready.wait();
        }
        events.fetch_add(arrived, Relaxed);
        if arrived > 0 {
            writer.unpark();
        }
        if stop.load(Relaxed) {
            return Ok(latency);
        }
    }
}

type Loop = thread::JoinHandle<io::Result<Histogram<u64>>>;

fn gathered(threads: Vec<Loop>) -> io::Result<Histogram<u64>> {
    let mut all = histogram();
    for thread in threads {
        let latency = thread.join().expect("a connection's thread does not panic")?;
        all.add(latency).expect("all histograms have the same bounds");
    }
    Ok(all)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn histogram() -> Histogram<u64> {
    // One microsecond to a minute, to one percent.
    Histogram::new_with_bounds(1_000, 60_000_000_000, 2).expect("the bounds are in order")
}
