//! A ring of pointers. Transactions swap neighbours; a read of all of it must find one ring, with
//! every node in it.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_proto::mvccpb::KeyValue;

use super::{Client, Work, Workload, calls};
use crate::facts::evidence::Evidence;
use crate::facts::history::{Call, Operation};
use crate::facts::request::{Op, created, list, put, txn, unchanged};
use crate::facts::verdict::Violation;

const NODES: usize = 6;
const PREFIX: &str = "cycle/";

pub struct Cycle;

impl Workload for Cycle {
    fn name(&self) -> &'static str {
        "cycle"
    }

    fn setup<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            let point = |node: usize| put(key(node), pointer(client, (node + 1) % NODES)).op();
            let absent = vec![created(key(0), 0)];
            // The first client makes the ring; the others find it.
            let _ = client.txn(txn(absent, (0..NODES).map(point).collect(), vec![])).await;
        })
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            let answer = client.range(list(PREFIX)).await;
            if let Ok(found) = &answer
                && client.chance(2, 3)
                && let Some(swap) = swap(client, &found.kvs)
            {
                let answer = client.txn(swap).await;
                return client.rest(&answer, 20).await;
            }
            client.rest(&answer, 20).await;
        })
    }

    fn check(&self, evidence: &Evidence) -> Vec<Violation> {
        let record = evidence.record();
        calls(&record, self.name()).filter_map(examine).collect()
    }
}

fn key(node: usize) -> Bytes {
    format!("{PREFIX}{node}").into()
}

fn pointer(client: &Client, to: usize) -> String {
    format!("{to} {}", String::from_utf8_lossy(&client.value()))
}

fn target(kv: &KeyValue) -> Option<usize> {
    let text = std::str::from_utf8(&kv.value).ok()?;
    text.split(' ').next()?.parse().ok()
}

/// Of four nodes in a row, the second and the third change places.
fn swap(client: &Client, kvs: &[KeyValue]) -> Option<quorate_proto::etcdserverpb::TxnRequest> {
    let at = |node: usize| kvs.iter().find(|kv| kv.key == key(node));
    let first = client.below(NODES as u64) as usize;
    let second = target(at(first)?)?;
    let third = target(at(second)?)?;
    let fourth = target(at(third)?)?;
    let compares =
        [first, second, third].map(|node| Some(unchanged(key(node), at(node)?.mod_revision)));
    let point = |from: usize, to: usize| put(key(from), pointer(client, to)).op();
    let success = vec![point(first, third), point(third, second), point(second, fourth)];
    let compares = compares.into_iter().collect::<Option<Vec<_>>>()?;
    Some(txn(compares, success, vec![list(PREFIX).op()]))
}

fn examine(operation: &Operation) -> Option<Violation> {
    let Call::Range(_, Ok(answer)) = &operation.call else { return None };
    let next: BTreeMap<_, _> =
        answer.kvs.iter().filter_map(|kv| Some((kv.key.clone(), target(kv)?))).collect();
    // Before the ring was made there is nothing.
    if answer.kvs.is_empty() {
        return None;
    }
    let mut visited = Vec::new();
    let mut node = 0;
    while !visited.contains(&node) {
        visited.push(node);
        node = *next.get(&key(node)).unwrap_or(&node);
    }
    let ring = node == 0 && visited.len() == NODES && next.len() == NODES;
    (!ring).then(|| {
        let text = format!("{operation}: {next:?}");
        Violation::new("cycle", "the ring stays one ring", text).proved_by(operation.proof())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixture::{Fixture, get, kv};

    #[test]
    fn a_broken_ring_is_found() {
        let said = |targets: [&'static str; NODES]| {
            let keys = ["cycle/0", "cycle/1", "cycle/2", "cycle/3", "cycle/4", "cycle/5"];
            let kvs = keys.into_iter().zip(targets).map(|(key, to)| kv(2, key, to)).collect();
            let fixture = Fixture::default().call(0, 1, get("cycle/", 2, kvs));
            examine(&fixture.record.operations[0]).is_some()
        };
        assert!(!said(["1 a", "2 b", "3 c", "4 d", "5 e", "0 f"]));
        assert!(!said(["2 a", "3 b", "1 c", "4 d", "5 e", "0 f"]));
        assert!(said(["1 a", "2 b", "0 c", "4 d", "5 e", "3 f"]), "two rings");
        assert!(said(["1 a", "1 b", "3 c", "4 d", "5 e", "0 f"]), "a loop");
    }
}
