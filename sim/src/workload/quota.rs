//! Writes until there is no space, then deletes, compacts and waits until there is space again. Checking
//! the members' alarms is for [`crate::check::quota`]; that a refused write has no effect is for the
//! replay.

use quorate_proto::etcdserverpb::{CompactionRequest, LeaseGrantRequest};

use super::{Client, Work, Workload};
use crate::check::quota::NO_SPACE;
use crate::facts::evidence::Evidence;
use crate::facts::history::Answer;
use crate::facts::request::{Op, delete_all, get, put, txn};
use crate::facts::verdict::Violation;

const KEYS: u64 = 16;
/// Of a value at most.
const VALUE_BYTES: u64 = 6_000;

#[derive(Default)]
pub struct Quota {
    /// Whether the last answers were that there is no space.
    full: bool,
}

impl Workload for Quota {
    fn name(&self) -> &'static str {
        "quota"
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            if self.full {
                make_room(client).await;
            }
            self.full = match client.below(12) {
                0 => {
                    let ops = vec![put(key(client), value(client)).op(), get(key(client)).op()];
                    rest(client, &client.txn(txn(vec![], ops, vec![])).await).await
                }
                1 => {
                    let grant = LeaseGrantRequest { id: client.unique(), ttl: 2 };
                    rest(client, &client.grant(grant).await).await
                }
                _ => rest(client, &client.put(put(key(client), value(client))).await).await,
            };
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

/// Pauses after an answer; returns whether it was that there is no space.
async fn rest<T>(client: &Client, answer: &Answer<T>) -> bool {
    client.rest(answer, 40).await;
    answer.as_ref().err().is_some_and(|failure| failure.text == NO_SPACE)
}

/// What frees space is served although there is none.
async fn make_room(client: &Client) {
    if client.chance(1, 2) {
        let deleted = client.delete(delete_all(prefix(client))).await;
        client.rest(&deleted, 40).await;
    }
    let revision = client.evidence.record().compactable();
    if revision > 1 {
        let _ = client.compact(CompactionRequest { revision, physical: false }).await;
    }
    client.pause(600).await;
}

fn prefix(client: &Client) -> String {
    format!("quota/{}/", client.number)
}

fn key(client: &Client) -> String {
    format!("{}{:02}", prefix(client), client.below(KEYS))
}

/// Its first word is what makes it unlike any other.
fn value(client: &Client) -> Vec<u8> {
    let mut value = client.value().to_vec();
    value.push(b' ');
    value.resize(value.len() + client.below(VALUE_BYTES) as usize, b'q');
    value
}
