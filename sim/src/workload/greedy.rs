//! Txns that write and also read: some of them more than a member has room for, which it must refuse
//! before the log has them, others as much as a few at a time may, some the states before their
//! deletions. A refusal because there are too many requests is an answer.

use futures::future::join_all;
use prost::Message as _;
use quorate_proto::etcdserverpb::{DeleteRangeRequest, RangeRequest, TxnRequest};

use super::{Client, Work, Workload, calls};
use crate::facts::evidence::Evidence;
use crate::facts::history::Call;
use crate::facts::request::{Op, list, put, txn};
use crate::facts::shape::ANSWERS;
use crate::facts::verdict::Violation;

const NAME: &str = "greedy";
const KEYS: u64 = 36;
const VALUE_BYTES: usize = 64 << 10;
/// Of these, txns that are served read at most.
const SERVED: u64 = 10;
/// Txns at a time.
const WIDTH: usize = 4;
const PAUSE_MS: u64 = 500;
/// What answers may take together: they are there as they are read and as they are encoded.
const MOST: usize = ANSWERS.most;

const _: () = assert!(2 * KEYS as usize * VALUE_BYTES > MOST);

pub struct Greedy;

impl Workload for Greedy {
    fn name(&self) -> &'static str {
        NAME
    }

    fn setup<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            for key in 0..KEYS {
                let _ = client.put(put(name(client, key), value(client))).await;
            }
        })
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            join_all((0..WIDTH).map(|_| async { drop(client.txn(one(client)).await) })).await;
            client.pause(PAUSE_MS).await;
        })
    }

    fn check(&self, evidence: &Evidence) -> Vec<Violation> {
        let record = evidence.record();
        let too_much = calls(&record, NAME).filter_map(|operation| match &operation.call {
            Call::Txn(_, Ok(answer)) if 2 * answer.encoded_len() > MOST => Some(answer),
            _ => None,
        });
        let told = too_much.map(|answer| {
            let text = format!("{} bytes where there is room for {MOST}", 2 * answer.encoded_len());
            Violation::new(NAME, "a txn reads no more than there is room for", text)
        });
        told.take(1).collect()
    }
}

/// A txn that writes one key of its own.
fn one(client: &Client) -> TxnRequest {
    let own = put(format!("{NAME}/own/{}", client.number), client.value());
    let read = match client.below(4) {
        // Nothing is deleted by it: it is refused.
        0 => all_of(client).op(),
        1 => {
            let RangeRequest { key, range_end, .. } = all_of(client);
            DeleteRangeRequest { key, range_end, prev_kv: true }.op()
        }
        _ => {
            let range_end = name(client, 1 + client.below(SERVED)).into();
            RangeRequest { range_end, ..all_of(client) }.op()
        }
    };
    txn(vec![], vec![own.op(), read], vec![])
}

fn all_of(client: &Client) -> RangeRequest {
    list(prefix(client))
}

fn prefix(client: &Client) -> String {
    format!("{NAME}/{}/", client.number)
}

fn name(client: &Client, key: u64) -> String {
    format!("{}{key:02}", prefix(client))
}

/// Its first word is what makes it unlike any other.
fn value(client: &Client) -> Vec<u8> {
    let mut value = client.value().to_vec();
    value.push(b' ');
    value.resize(VALUE_BYTES, b'g');
    value
}
