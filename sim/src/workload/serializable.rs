//! Reads that any member may answer at once from what it has, at whichever member, alone and in txns.

use quorate_proto::etcdserverpb::{Compare, RangeRequest};

use super::ranges::dressed;
use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::request::{Op, get, list, put, txn, unchanged};
use crate::facts::verdict::Violation;

pub struct Serializable;

impl Workload for Serializable {
    fn name(&self) -> &'static str {
        "serializable"
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            let member = client.on_member(client.roll());
            match client.below(8) {
                0 => {
                    let key = format!("serializable/{}", client.below(3));
                    let answer = client.put(put(key, client.value())).await;
                    client.rest(&answer, 30).await;
                }
                1 | 2 => {
                    let reads = (0..1 + client.below(3)).map(|_| read(client).op()).collect();
                    let known = client.below(3) as i64;
                    let compare: Vec<Compare> = vec![unchanged("serializable/0", known)];
                    let failure = vec![read(client).op()];
                    let answer = member.txn(txn(compare, reads, failure)).await;
                    client.rest(&answer, 30).await;
                }
                _ => {
                    let answer = member.range(read(client)).await;
                    client.rest(&answer, 30).await;
                }
            }
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

fn read(client: &Client) -> RangeRequest {
    const PREFIXES: [&str; 6] =
        ["register/", "txn/", "ranges/", "serializable/", "cycle/", "compaction/"];
    let prefix = PREFIXES[client.below(PREFIXES.len() as u64) as usize];
    let request = match client.below(4) {
        0 => get(format!("{prefix}{}", client.below(4))),
        1 => dressed(client, list(prefix)),
        _ => list(prefix),
    };
    RangeRequest { serializable: true, ..request }
}
