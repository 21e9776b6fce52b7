//! Reads of the past, of a past that is gone, and of a future that is not there yet; and compactions,
//! which end the past.

use bytes::Bytes;
use quorate_proto::etcdserverpb::{CompactionRequest, RangeRequest};

use super::ranges::dressed;
use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::request::{Op, get, list, put, txn};
use crate::facts::verdict::Violation;

const KEYS: u64 = 5;

pub struct Compaction;

impl Workload for Compaction {
    fn name(&self) -> &'static str {
        "compaction"
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            match client.below(24) {
                0 => compact(client).await,
                1..6 => {
                    let answer = client.put(put(key(client), client.value())).await;
                    client.rest(&answer, 30).await;
                }
                6..8 => {
                    // Refused as a whole if what it reads is gone, or not there yet.
                    let ops = vec![past(client).op(), put(key(client), client.value()).op()];
                    let answer = client.txn(txn(vec![], ops, vec![])).await;
                    client.rest(&answer, 30).await;
                }
                8..12 => {
                    let answer = client.range(dressed(client, past(client))).await;
                    client.rest(&answer, 30).await;
                }
                _ => {
                    let answer = client.range(past(client)).await;
                    client.rest(&answer, 30).await;
                }
            }
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

fn key(client: &Client) -> Bytes {
    format!("compaction/{}", client.below(KEYS)).into()
}

/// Up to some revision that the scribe has received; rarely one that is not there yet.
async fn compact(client: &Client) {
    let furthest = client.evidence.record().compactable();
    if furthest < 2 {
        return client.pause(100).await;
    }
    let behind = client.below(furthest as u64) as i64;
    let revision = match client.below(6) {
        0 => 1 << 40,
        1 => furthest - behind,
        2 => furthest,
        _ => furthest - behind.min(20),
    };
    let physical = client.chance(1, 3);
    let answer = client.compact(CompactionRequest { revision, physical }).await;
    client.rest(&answer, 300).await;
}

/// A read at a revision of all there ever were, mostly at one of the newer ones.
fn past(client: &Client) -> RangeRequest {
    let newest = client.evidence.record().last_revision();
    let recent = (newest - client.below(50) as i64).max(1);
    let revision = match client.below(10) {
        0 => 1 + client.below(newest as u64) as i64,
        1 => newest + client.below(30) as i64,
        _ => recent,
    };
    let range = match client.below(6) {
        0 => list("register/"),
        1 => list("txn/"),
        2 => RangeRequest { range_end: vec![0].into(), limit: 50, ..get("c") },
        3 => get(key(client)),
        _ => list("compaction/"),
    };
    RangeRequest { revision, ..range }
}
