//! The load generator: so many clients, each with one request under way, over several connections,
//! for so long. It counts and times; the requests are the scenario's.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::client::Client;

/// What a time of load has brought.
pub struct Counted {
    /// Of each request, in nanoseconds.
    pub latency: Histogram<u64>,
    pub errors: u64,
    pub took: Duration,
}

/// Runs `request(client, number of the client, number of its request)` in `clients` loops. The clients
/// share connections, at most `per_connection` on one; connections go round the endpoints.
pub async fn run<F, R>(
    endpoints: &[String],
    clients: usize,
    per_connection: usize,
    duration: Duration,
    request: F,
) -> Counted
where
    F: Fn(Client, usize, u64) -> R + Clone + Send + 'static,
    R: Future<Output = Result<(), tonic::Status>> + Send,
{
    let mut connections = Vec::new();
    for i in 0..clients.div_ceil(per_connection) {
        connections.push(Client::connect(&endpoints[i % endpoints.len()]).await);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let begin = Instant::now();
    let mut loops = Vec::new();
    for number in 0..clients {
        let client = connections[number % connections.len()].clone();
        let (stop, request) = (stop.clone(), request.clone());
        loops.push(tokio::spawn(async move {
            let (mut latency, mut errors) = (histogram(), 0);
            for round in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let begin = Instant::now();
                match request(client.clone(), number, round).await {
                    Ok(()) => latency.saturating_record(begin.elapsed().as_nanos() as u64),
                    Err(_) => errors += 1,
                }
            }
            (latency, errors)
        }));
    }
    tokio::time::sleep(duration).await;
    stop.store(true, Ordering::Relaxed);
    let mut counted = Counted { latency: histogram(), errors: 0, took: Duration::ZERO };
    for task in loops {
        let (latency, errors) = task.await.expect("a client does not panic");
        counted.latency.add(latency).expect("all histograms have the same bounds");
        counted.errors += errors;
    }
    counted.took = begin.elapsed();
    counted
}

fn histogram() -> Histogram<u64> {
    // One microsecond to a minute, to one percent.
    Histogram::new_with_bounds(1_000, 60_000_000_000, 2).expect("the bounds are in order")
}
