//! Reads whose clients wait for less time than an election takes, at every member in turn, and that write
//! nothing: while there is no leader, or only one that does not know it is replaced, they give up and try
//! again. Clients that also write hang on their writes then, and never read in that time.

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb::RangeRequest;

use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::request::get;
use crate::facts::verdict::Violation;

/// How long one read is waited for.
const LIMITS_MS: [u64; 4] = [20, 60, 150, 400];
/// Keys of one answer.
const KEYS: i64 = 8;

#[derive(Default)]
pub struct Impatient {
    turn: u64,
}

impl Workload for Impatient {
    fn name(&self) -> &'static str {
        "impatient"
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            self.turn += 1;
            let limit = LIMITS_MS[client.below(LIMITS_MS.len() as u64) as usize];
            let reader = client.on_member(self.turn).patient_for(Duration::from_millis(limit));
            let all = RangeRequest { range_end: Bytes::from_static(&[0]), ..get(vec![0]) };
            let first = RangeRequest { limit: KEYS, ..all };
            let count = RangeRequest { count_only: client.chance(1, 3), ..first };
            let _ = reader.range(count).await;
            client.pause(40).await;
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}
