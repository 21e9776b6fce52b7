//! Transactions of all shapes: compares of every target, of single keys and of ranges, reads and writes
//! that see each other, nested ones; some hold keys on a lease, some must be refused.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest, TxnResponse,
    compare::{CompareResult, CompareTarget, TargetUnion},
    response_op::Response,
};
use quorate_proto::mvccpb::KeyValue;

use super::ranges::dressed;
use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::request::{Op, delete, delete_all, get, list, put};
use crate::facts::verdict::Violation;

const KEYS: u64 = 12;
const DEPTH_MAX: u32 = 2;
/// Longer than any run.
const LEASE_TTL_S: i64 = 36_000;

#[derive(Default)]
pub struct Txn {
    /// The last known states of the keys, for comparisons.
    known: BTreeMap<Bytes, KeyValue>,
    lease: i64,
    /// The suffix of the values of this step.
    value: Bytes,
    puts: u32,
}

impl Workload for Txn {
    fn name(&self) -> &'static str {
        "txn"
    }

    fn setup<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            let request = LeaseGrantRequest { id: client.unique(), ttl: LEASE_TTL_S };
            let granted = client.grant(request).await;
            self.lease = granted.map_or(request.id, |granted| granted.id);
        })
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            if client.chance(1, 80) {
                // A lease with that number exists already.
                let again = LeaseGrantRequest { id: self.lease, ttl: LEASE_TTL_S };
                drop(client.grant(again).await);
            }
            self.value = client.value();
            self.puts = 0;
            let answer = client.txn(self.request(client, 0)).await;
            if let Ok(answer) = &answer {
                self.learn(answer);
            }
            client.rest(&answer, 20).await;
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

/// A revision that no run reaches.
const TO_COME: i64 = 1 << 40;

fn key(client: &Client) -> Bytes {
    format!("txn/{:02}", client.below(KEYS)).into()
}

impl Txn {
    fn request(&mut self, client: &Client, depth: u32) -> TxnRequest {
        let compares = client.below(3);
        let compare = (0..compares).map(|_| self.compare(client)).collect();
        let (success, failure) = (self.branch(client, depth), self.branch(client, depth));
        TxnRequest { compare, success, failure }
    }

    fn branch(&mut self, client: &Client, depth: u32) -> Vec<RequestOp> {
        let ops = client.below(4);
        (0..ops).map(|_| self.op(client, depth)).collect()
    }

    fn op(&mut self, client: &Client, depth: u32) -> RequestOp {
        match client.below(20) {
            0..6 => get(key(client)).op(),
            6..9 => dressed(client, list("txn/")).op(),
            9..15 => self.put(client).op(),
            15..17 => deletion(client).op(),
            // An empty operation, or an impossible one: nothing of the txn may have an effect.
            17 if client.chance(1, 20) => RangeRequest::default().op(),
            17 if client.chance(1, 4) => {
                RangeRequest { revision: TO_COME, ..get(key(client)) }.op()
            }
            _ if depth < DEPTH_MAX => self.request(client, depth + 1).op(),
            _ => get(key(client)).op(),
        }
    }

    fn put(&mut self, client: &Client) -> PutRequest {
        self.puts += 1;
        let value = format!("{}.{}", String::from_utf8_lossy(&self.value), self.puts);
        let plain = PutRequest { prev_kv: client.chance(1, 3), ..put(key(client), value) };
        match client.below(12) {
            0 => PutRequest { ignore_value: true, value: Bytes::new(), ..plain },
            1 => PutRequest { ignore_lease: true, ..plain },
            2..5 => PutRequest { lease: self.lease, ..plain },
            // There is no such lease.
            5 if client.chance(1, 4) => PutRequest { lease: client.unique(), ..plain },
            _ => plain,
        }
    }

    /// Compares mostly with the last known state of the key, so that about half of the comparisons hold.
    fn compare(&self, client: &Client) -> Compare {
        let key = key(client);
        let known = self.known.get(&key).cloned().unwrap_or_default();
        let off = if client.chance(1, 4) { 1 } else { 0 };
        let (target, union) = match client.below(5) {
            0 => (CompareTarget::Version, TargetUnion::Version(known.version + off)),
            1 => (CompareTarget::Create, TargetUnion::CreateRevision(known.create_revision + off)),
            2 => (CompareTarget::Mod, TargetUnion::ModRevision(known.mod_revision + off)),
            3 => (CompareTarget::Value, TargetUnion::Value(known.value.clone())),
            _ => (CompareTarget::Lease, TargetUnion::Lease(known.lease + off)),
        };
        let result = match client.below(8) {
            0 => CompareResult::Greater,
            1 => CompareResult::Less,
            2 => CompareResult::NotEqual,
            _ => CompareResult::Equal,
        };
        let range_end = if client.chance(1, 8) { Bytes::from("txn0") } else { Bytes::new() };
        let target_union = if client.chance(1, 16) { None } else { Some(union) };
        Compare { result: result as i32, target: target as i32, key, range_end, target_union }
    }

    /// Records the states that were read.
    fn learn(&mut self, answer: &TxnResponse) {
        for op in &answer.responses {
            match &op.response {
                Some(Response::ResponseRange(range)) => {
                    let whole = range.kvs.iter().filter(|kv| !kv.value.is_empty());
                    self.known.extend(whole.map(|kv| (kv.key.clone(), kv.clone())));
                }
                Some(Response::ResponseTxn(nested)) => self.learn(nested),
                _ => {}
            }
        }
    }
}

fn deletion(client: &Client) -> DeleteRangeRequest {
    let request = match client.below(4) {
        0 => delete_all(format!("txn/{}", client.below(KEYS / 10 + 1))),
        _ => delete(key(client)),
    };
    DeleteRangeRequest { prev_kv: client.chance(1, 3), ..request }
}
