//! Puts, reads and deletes of single keys, with every option that a single key has, and now and then
//! one that must be refused.

use bytes::Bytes;
use quorate_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};

use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::request::{delete, get, list, put};
use crate::facts::verdict::Violation;

const KEYS: u64 = 6;

#[derive(Default)]
pub struct Register {
    /// A revision at which something was read.
    seen: i64,
}

impl Workload for Register {
    fn name(&self) -> &'static str {
        "register"
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            match client.below(20) {
                0..8 => {
                    let answer = client.put(self.put(client)).await;
                    client.rest(&answer, 20).await;
                }
                8..10 => {
                    let prev_kv = client.chance(1, 2);
                    let request = DeleteRangeRequest { prev_kv, ..delete(key(client)) };
                    let answer = client.delete(request).await;
                    client.rest(&answer, 20).await;
                }
                _ => {
                    let answer = client.range(self.range(client)).await;
                    if let Some(header) = answer.as_ref().ok().and_then(|answer| answer.header) {
                        self.seen = header.revision;
                    }
                    client.rest(&answer, 20).await;
                }
            }
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

fn key(client: &Client) -> Bytes {
    format!("register/{}", client.below(KEYS)).into()
}

impl Register {
    fn put(&self, client: &Client) -> PutRequest {
        let plain = PutRequest { prev_kv: client.chance(1, 3), ..put(key(client), client.value()) };
        match client.below(16) {
            0 => PutRequest { ignore_value: true, value: Bytes::new(), ..plain },
            1 => PutRequest { ignore_lease: true, ..plain },
            // What follows must be refused.
            2 => PutRequest { ignore_value: true, ..plain },
            3 if client.chance(1, 2) => PutRequest { ignore_lease: true, lease: 1, ..plain },
            3 => PutRequest { key: Bytes::new(), ..plain },
            _ => plain,
        }
    }

    fn range(&self, client: &Client) -> RangeRequest {
        match client.below(10) {
            0..5 => get(key(client)),
            5..8 => list("register/"),
            8 => RangeRequest { revision: self.seen, ..get(key(client)) },
            // To be refused.
            _ => RangeRequest { sort_order: 9, ..get(key(client)) },
        }
    }
}
