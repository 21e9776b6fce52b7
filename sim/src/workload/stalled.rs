//! Watch streams in JSON, over connections that are not read, while the watched keys are written
//! continuously: what the member buffers for them stays within its bounds, and they delay no other stream.
//! Only for plans with a small `watch-buffer`.

use std::time::Duration;

use futures::future::join_all;
use quorate::env::BoxConn;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::request::put;
use crate::facts::verdict::{Proof, Violation};

const NAME: &str = "stalled";
const STREAMS: usize = 3;
const KEYS: u64 = 8;
const VALUE_BYTES: usize = 16 << 10;
/// Concurrent writers, and the bytes that each writes: more than the connections buffer.
const WRITERS: usize = 4;
const WRITES: usize = 80;
/// Long enough for the observer to read the member's metrics.
const HOLD: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(2);
/// What may be buffered for each stream where the buffer has eight events: these, and a page of history.
const WAITING_MAX: f64 = 64.0;

pub struct Stalled;

impl Workload for Stalled {
    fn name(&self) -> &'static str {
        NAME
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            let mut held = Vec::new();
            for _ in 0..STREAMS {
                held.extend(client.env.timeout(PATIENCE, open(client)).await.ok().flatten());
            }
            let write = async || {
                for _ in 0..WRITES {
                    let key = format!("{NAME}/{}", client.below(KEYS));
                    let _ = client.put(put(key, value(client))).await;
                }
            };
            join_all((0..WRITERS).map(|_| write())).await;
            client.env.sleep(HOLD).await;
            drop(held);
        })
    }

    fn check(&self, evidence: &Evidence) -> Vec<Violation> {
        let record = evidence.record();
        let mut told = record.seen.pages.iter().filter_map(|page| {
            let figure = |name| page.figures.get(name).copied().unwrap_or(0.0);
            let waiting = figure("etcd_debugging_mvcc_pending_events_total");
            let streams = figure("etcd_debugging_mvcc_watch_stream_total");
            let at_us = record.at(page.at).as_micros() as u64;
            let host = page.host.clone();
            (waiting > streams * WAITING_MAX).then(|| {
                let text = format!("{host}: {waiting} events wait for {streams} streams");
                Violation::new(NAME, "buffers of unread streams are bounded", text)
                    .proved_by(Proof::Member { host, at_us })
            })
        });
        told.next().into_iter().collect()
    }
}

/// A watch of all keys of this workload; once it is answered, nothing more is read.
async fn open(client: &Client) -> Option<BoxConn> {
    let host = client.channel.endpoint().to_owned();
    let mut connection = client.cluster.connect(&client.env, &host).await.ok()?;
    // From `stalled/` to `stalled0`.
    let json = r#"{"create_request":{"key":"c3RhbGxlZC8=","range_end":"c3RhbGxlZDA="}}"#;
    let request = format!(
        "POST /v3/watch HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n{json}",
        json.len()
    );
    connection.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("\"created\":true") {
        if connection.read_buf(&mut answer).await.ok()? == 0 {
            return None;
        }
    }
    Some(connection)
}

/// A large value whose first word makes it unique.
fn value(client: &Client) -> Vec<u8> {
    let mut value = client.value().to_vec();
    value.push(b' ');
    value.resize(VALUE_BYTES, b's');
    value
}
