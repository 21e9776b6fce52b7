//! Many large requests at once, half of which are given up: lists of large values, whole,
//! sorted and as streams, and puts of such values. A refusal because there are too many is an answer.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use quorate_proto::etcdserverpb::{
    RangeRequest,
    range_request::{SortOrder, SortTarget},
};

use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::request::{list, put};
use crate::facts::verdict::Violation;

const PREFIX: &str = "flood/";
const KEYS: u64 = 24;
/// Requests at a time.
const WIDTH: usize = 10;
const VALUE_BYTES: u64 = 4_000;
/// Between two floods.
const PAUSE_MS: u64 = 1_500;
/// A request that is given up is so within this.
const IMPATIENCE_MS: u64 = 30;

pub struct Flood;

impl Workload for Flood {
    fn name(&self) -> &'static str {
        "flood"
    }

    fn setup<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            for key in 0..KEYS {
                let _ = client.put(put(name(key), value(client))).await;
            }
        })
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            join_all((0..WIDTH).map(|_| one(client))).await;
            client.pause(PAUSE_MS).await;
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

async fn one(client: &Client) {
    let (kind, leaves) = (client.below(8), client.chance(1, 2));
    let request = async {
        match kind {
            0 => drop(client.put(put(name(client.below(KEYS)), value(client))).await),
            1..4 => drop(client.range_stream(list(PREFIX)).await),
            4 => drop(client.range(newest_first()).await),
            _ => drop(client.range(list(PREFIX)).await),
        }
    };
    if leaves {
        let patience = Duration::from_millis(client.below(IMPATIENCE_MS));
        let _ = client.env.timeout(patience, request).await;
    } else {
        request.await;
    }
}

fn newest_first() -> RangeRequest {
    RangeRequest {
        sort_order: SortOrder::Descend as i32,
        sort_target: SortTarget::Mod as i32,
        ..list(PREFIX)
    }
}

fn name(key: u64) -> Bytes {
    format!("{PREFIX}{key:02}").into()
}

/// Its first word is what makes it unlike any other.
fn value(client: &Client) -> Bytes {
    let mut value = client.value().to_vec();
    value.push(b' ');
    let size = value.len() + client.below(VALUE_BYTES) as usize;
    value.resize(size, b'f');
    value.into()
}
