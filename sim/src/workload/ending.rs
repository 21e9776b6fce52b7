//! The end of history: everything written so far is deleted, the newest revision is compacted, members bring
//! that state to disk, and the past is read once more before writing goes on. Where this is the only
//! workload, the store is empty and compacted at its head again and again, and faults meet it so.

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb::{CompactionRequest, DeleteRangeRequest, RangeRequest};

use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::marks;
use crate::facts::request::{delete_all, get, list, put};
use crate::facts::verdict::Violation;

/// Keys that are written before they are deleted.
const KEYS: u64 = 4;
/// How long the scribe gets to have what is to be compacted.
const LOOKS: u32 = 50;
const LOOK: Duration = Duration::from_millis(20);

pub struct Ending;

impl Workload for Ending {
    fn name(&self) -> &'static str {
        "ending"
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            for n in 0..client.below(KEYS) {
                let key = format!("{}{n}", own(client));
                let answer = client.put(put(key, client.value())).await;
                client.rest(&answer, 10).await;
            }
            let deleted = client.delete(everything(client)).await;
            let Ok(answer) = &deleted else { return client.rest(&deleted, 100).await };
            let revision = answer.header.map_or(0, |header| header.revision);
            if end(client, revision).await {
                look_back(client, revision).await;
            }
            client.pause(150).await;
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

fn own(client: &Client) -> String {
    format!("ending/{}/", client.number)
}

/// All keys of this client, as a prefix or as the range that it is.
fn everything(client: &Client) -> DeleteRangeRequest {
    DeleteRangeRequest { prev_kv: client.chance(1, 4), ..delete_all(own(client)) }
}

/// Compacts the newest revision that the scribe has, which must be this one at least, and brings it to disk
/// on some members.
async fn end(client: &Client, revision: i64) -> bool {
    for _ in 0..LOOKS {
        if client.evidence.record().last_revision() >= revision {
            break;
        }
        client.env.sleep(LOOK).await;
    }
    let head = client.evidence.record().last_revision();
    if head < revision {
        return false;
    }
    let request = CompactionRequest { revision: head, physical: client.chance(1, 2) };
    let compacted = client.compact(request).await;
    if compacted.is_err() {
        client.rest(&compacted, 100).await;
        return false;
    }
    if compacted.is_ok_and(|answer| answer.header.is_some_and(|header| header.revision == head)) {
        marks::reach("compaction-at-head");
    }
    for host in client.cluster.names() {
        if client.chance(2, 3) {
            client.cluster.flush(&host).await;
        }
    }
    true
}

/// The past is gone at every member, the present is there.
async fn look_back(client: &Client, revision: i64) {
    let member = client.on_member(client.roll());
    let past = RangeRequest { revision: revision - 1, ..list(own(client)) };
    let _ = member.range(past).await;
    let all = RangeRequest { range_end: Bytes::from_static(&[0]), limit: 10, ..get(vec![0]) };
    let serializable = client.chance(1, 2);
    let found = member.range(RangeRequest { serializable, revision, ..all }).await;
    if found.is_ok_and(|answer| answer.count == 0) {
        marks::reach("empty-store");
    }
}
