//! A past that ends by itself: leaders compact what is older than `auto-compaction`, and plans without
//! that have no use for this. That nothing younger goes is checked in [`crate::check::past`]; that what is
//! much older does go, under any leader, is checked here.

use std::collections::VecDeque;
use std::time::Instant;

use quorate_proto::etcdserverpb::RangeRequest;

use super::{Client, Work, Workload};
use crate::check::model::COMPACTED;
use crate::facts::evidence::Evidence;
use crate::facts::request::{list, put};
use crate::facts::verdict::Violation;

const NAME: &str = "aging";
const KEYS: u64 = 5;
/// After so many times the age a revision must be gone: one until it is old enough, one until the next
/// compaction, the others for a leader to be found.
const LATE: u32 = 4;

#[derive(Default)]
pub struct Aging {
    /// Revisions that may still be there, the oldest first.
    written: VecDeque<(Instant, i64)>,
}

impl Workload for Aging {
    fn name(&self) -> &'static str {
        NAME
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            let key = format!("{NAME}/{}", client.below(KEYS));
            let answer = client.put(put(key, client.value())).await;
            if let Ok(header) = answer.as_ref().map(|put| put.header.unwrap_or_default()) {
                self.written.push_back((client.env.now(), header.revision));
            }
            self.look_back(client).await;
            client.rest(&answer, 300).await;
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

impl Aging {
    /// Reads some revision, and the oldest one if its time has come.
    async fn look_back(&mut self, client: &Client) {
        let at = client.below(self.written.len().max(1) as u64) as usize;
        if let Some((_, revision)) = self.written.get(at) {
            let _ = client.range(past(*revision)).await;
        }
        let Some(age) = client.cluster.shape().auto_compaction else { return };
        let Some((since, oldest)) = self.written.front().copied() else { return };
        if client.env.now() - since < age * LATE {
            return;
        }
        match client.range(past(oldest)).await {
            Ok(_) => {
                let text = format!("{oldest} is there after {LATE} times {age:?}");
                client.complain("what is old goes by itself", text);
            }
            Err(failure) if failure.text == COMPACTED => {}
            // The call is repeated.
            Err(_) => return,
        }
        self.written.pop_front();
    }
}

fn past(revision: i64) -> RangeRequest {
    RangeRequest { revision, ..list(format!("{NAME}/")) }
}
