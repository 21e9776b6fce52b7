//! Many small keys: written, deleted by the range, and read with every option that a range has, whole
//! and as streams.

use bytes::Bytes;
use quorate_proto::etcdserverpb::{DeleteRangeRequest, RangeRequest};

use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::request::{delete_all, list, put};
use crate::facts::verdict::Violation;

const KEYS: u64 = 40;

pub struct Ranges;

impl Workload for Ranges {
    fn name(&self) -> &'static str {
        "ranges"
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            match client.below(10) {
                0..5 => {
                    let answer = client.put(put(key(client), client.value())).await;
                    client.rest(&answer, 10).await;
                }
                5 => {
                    let answer = client.delete(deletion(client)).await;
                    client.rest(&answer, 10).await;
                }
                6 => {
                    let answer = client.range_stream(streamed(client)).await;
                    client.rest(&answer, 10).await;
                }
                _ => {
                    let answer = client.range(dressed(client, span(client))).await;
                    client.rest(&answer, 10).await;
                }
            }
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

fn key(client: &Client) -> Bytes {
    format!("ranges/{:02}", client.below(KEYS)).into()
}

/// Some keys: all, ten, those between two, none, or from one on up to the end of everything.
fn span(client: &Client) -> RangeRequest {
    let range = |key, range_end| RangeRequest { key, range_end, ..Default::default() };
    match client.below(8) {
        0 => list(format!("ranges/{}", client.below(KEYS / 10))),
        1 | 2 => range(key(client), key(client)),
        3 => range(key(client), vec![0].into()),
        _ => list("ranges/"),
    }
}

fn deletion(client: &Client) -> DeleteRangeRequest {
    let prev_kv = client.chance(1, 2);
    let request = match client.below(4) {
        0 => delete_all("ranges/"),
        1 => delete_all(format!("ranges/{}", client.below(KEYS / 10))),
        _ => {
            let (key, range_end) = (key(client), key(client));
            DeleteRangeRequest { key, range_end, ..Default::default() }
        }
    };
    DeleteRangeRequest { prev_kv, ..request }
}

/// Some keys with the options that a stream knows, now and then of the past.
fn streamed(client: &Client) -> RangeRequest {
    let about = client.evidence.record().last_revision();
    RangeRequest {
        limit: if client.chance(1, 3) { 1 + client.below(KEYS) as i64 } else { 0 },
        revision: if client.chance(1, 4) { (about - client.below(60) as i64).max(1) } else { 0 },
        keys_only: client.chance(1, 6),
        count_only: client.chance(1, 8),
        ..span(client)
    }
}

/// The same keys, with some of the options that a range has.
pub fn dressed(client: &Client, request: RangeRequest) -> RangeRequest {
    let some = |value: i64| if client.chance(1, 6) { value } else { 0 };
    let about = client.evidence.record().last_revision();
    let near = || (about - client.below(60) as i64).max(1);
    RangeRequest {
        limit: if client.chance(1, 3) { 1 + client.below(8) as i64 } else { 0 },
        sort_order: client.below(3) as i32,
        sort_target: if client.chance(1, 2) { client.below(5) as i32 } else { 0 },
        keys_only: client.chance(1, 6),
        count_only: client.chance(1, 8),
        min_mod_revision: some(near()),
        max_mod_revision: some(near()),
        min_create_revision: some(near()),
        max_create_revision: some(near()),
        ..request
    }
}
