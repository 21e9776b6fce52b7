//! Txns within txns, up to what the log can hold and above it, and compressed messages that are small on the
//! wire only: what exceeds the limits is refused before it is proposed, the rest is applied everywhere.

use bytes::{BufMut, BytesMut};
use quorate::limits::{GRPC_OVERHEAD_BYTES, TXN_NESTED_MAX};
use quorate_proto::etcdserverpb::TxnRequest;

use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::request::{Op, delete, get, put, txn, unchanged};
use crate::facts::shape::Speaks;
use crate::facts::verdict::Violation;

const NAME: &str = "deep";
const KEYS: u64 = 6;
/// A learner refuses every put before it looks at the message.
const LEARNER: &str = "etcdserver: rpc not supported for learner";
/// Of a txn that nests deeper than the log can hold.
const TOO_DEEP: &str = "etcdserver: too many operations in txn request";
/// Of a message that inflates to more than a request may be.
const TOO_LARGE: &str = "grpc: received message after decompression larger than max";

pub struct Deep;

impl Workload for Deep {
    fn name(&self) -> &'static str {
        NAME
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            if client.chance(1, 12) && client.proxy().is_none() {
                inflate(client).await;
            }
            let answer = client.txn(nested(client, levels(client))).await;
            if let Err(failure) = &answer
                && failure.is_refusal()
                && ![TOO_DEEP, LEARNER].contains(&failure.text.as_str())
            {
                let text = format!("a txn that nests was refused: {failure:?}");
                client.complain("what nests too deep is refused as too much", text);
            }
            client.rest(&answer, 120).await;
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

/// Often at an edge.
fn levels(client: &Client) -> usize {
    let edges = [TXN_NESTED_MAX - 1, TXN_NESTED_MAX, TXN_NESTED_MAX + 1, TXN_NESTED_MAX + 2];
    match client.below(4) {
        0 | 1 => edges[client.below(edges.len() as u64) as usize],
        2 => client.below(8) as usize,
        _ => client.below(2 * TXN_NESTED_MAX as u64) as usize,
    }
}

/// A txn with so many around it, each in either branch.
fn nested(client: &Client, levels: usize) -> TxnRequest {
    let key = || format!("{NAME}-{}", client.below(KEYS));
    let first = key();
    let innermost = match client.below(4) {
        0 => vec![delete(first).op()],
        1 => vec![get(first).op()],
        _ => vec![put(first, client.value()).op()],
    };
    let innermost = txn(Vec::new(), innermost, Vec::new());
    (0..levels).fold(innermost, |inner, _| match client.below(6) {
        // Held by a key that there never is.
        0 => txn(vec![unchanged("nowhere", 0)], vec![inner.op()], Vec::new()),
        1 => txn(vec![unchanged("nowhere", 1)], Vec::new(), vec![inner.op()]),
        _ => txn(Vec::new(), vec![inner.op()], Vec::new()),
    })
}

/// A put of zeros: a thousandth of it on the wire.
async fn inflate(client: &Client) {
    let most = client.cluster.shape().request_bytes_max + GRPC_OVERHEAD_BYTES;
    let mut value = BytesMut::zeroed(most + (1 << 10));
    value.put_slice(&client.value());
    let packed = client.clone().speaking(Speaks::Gzip);
    let answer = packed.put(put(format!("{NAME}-large"), value.freeze())).await;
    let refused = answer.as_ref().err().filter(|failure| failure.is_refusal());
    let fits = |text: &str| text.starts_with(TOO_LARGE) || text == LEARNER;
    if answer.is_ok() || refused.is_some_and(|failure| !fits(&failure.text)) {
        let text = format!("{most} bytes at most, answered {answer:?}");
        client.complain("what a message inflates to is bounded", text);
    }
}
