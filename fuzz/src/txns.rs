//! Txns that nest: the scan for depth against the decoder, and the check of what a txn writes twice
//! against etcd's rule in its simplest form.

use arbitrary::Arbitrary;
use bytes::Bytes;
use prost::Message;
use quorate::error::Refused;
use quorate::mvcc::check_txn;
use quorate_proto::depth::{NESTED_MAX, Shape, check_shape};
use quorate_proto::etcdserverpb::{
    DeleteRangeRequest, InternalRaftRequest, PutRequest, RequestOp, ResponseOp, TxnRequest,
    TxnResponse, request_op::Request,
};
use quorate_proto::raftpb;

use crate::{noises, structured};

/// What passes the scan and decodes does so one level deeper in the log, too; what does not pass is
/// refused by the decoder, or deeper than the bound.
pub fn depth(input: &[u8]) {
    let Some((first, bytes)) = input.split_first() else { return };
    match first % 6 {
        0 => {
            let passes = check_shape(Shape::Txn, bytes).is_ok();
            let txn = TxnRequest::decode(bytes);
            if passes && let Ok(txn) = txn {
                assert!(nested(&txn) <= NESTED_MAX);
                let entry = InternalRaftRequest { txn: Some(txn), ..<_>::default() };
                let entry = entry.encode_to_vec();
                assert_eq!(check_shape(Shape::Internal, &entry), Ok(()));
                InternalRaftRequest::decode(&entry[..]).expect("decodes one level deeper");
            } else if let Ok(txn) = txn {
                assert!(nested(&txn) > NESTED_MAX);
            }
        }
        1 => agree::<InternalRaftRequest>(Shape::Internal, bytes),
        2 => agree::<TxnResponse>(Shape::TxnResponse, bytes),
        3 => agree::<RequestOp>(Shape::RequestOp, bytes),
        4 => agree::<ResponseOp>(Shape::ResponseOp, bytes),
        _ => agree::<raftpb::Message>(Shape::RaftMessage, bytes),
    }
}

/// The decoder never meets its own limit in what passes.
fn agree<M: Message + Default>(shape: Shape, bytes: &[u8]) {
    if check_shape(shape, bytes).is_ok()
        && let Err(error) = M::decode(bytes)
    {
        // Unknown groups inside of messages that the scan does not enter.
        let deep = error.to_string().contains("recursion");
        assert!(!deep || bytes.iter().filter(|byte| **byte & 7 == 3).count() > 1, "{error}");
    }
}

fn nested(txn: &TxnRequest) -> usize {
    let inside = txn.success.iter().chain(&txn.failure).filter_map(|op| match &op.request {
        Some(Request::RequestTxn(txn)) => Some(nested(txn) + 1),
        _ => None,
    });
    inside.max().unwrap_or(0)
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn deep(levels: usize) -> TxnRequest {
    let put = op(Request::RequestPut(PutRequest { key: "k".into(), ..<_>::default() }));
    let innermost = TxnRequest { success: vec![put], ..TxnRequest::default() };
    (0..levels).fold(innermost, |txn, _| TxnRequest {
        success: vec![op(Request::RequestTxn(txn))],
        ..TxnRequest::default()
    })
}

pub fn depth_seeds() -> Vec<Vec<u8>> {
    let txn = |levels| [vec![0], deep(levels).encode_to_vec()].concat();
    let entry = |levels| {
        let entry = InternalRaftRequest { txn: Some(deep(levels)), ..<_>::default() };
        [vec![1], entry.encode_to_vec()].concat()
    };
    let message = raftpb::Message {
        responses: vec![raftpb::Message { index: 7, ..<_>::default() }],
        ..<_>::default()
    };
    vec![
        txn(0),
        txn(3),
        txn(NESTED_MAX),
        txn(NESTED_MAX + 1),
        entry(0),
        entry(NESTED_MAX),
        entry(NESTED_MAX + 1),
        [vec![5], message.encode_to_vec()].concat(),
    ]
}

#[derive(Arbitrary, Debug)]
enum Op {
    Put(u8),
    Delete(u8, u8),
    Txn(Vec<Op>, Vec<Op>),
}

fn key(number: u8) -> Bytes {
    let keys = [&b"a"[..], b"a\0", b"b", b"ba", b"c", b"\0", b"\xff", b"d"];
    Bytes::from_static(keys[usize::from(number) % keys.len()])
}

fn ops(list: &[Op], depth: usize) -> Vec<RequestOp> {
    let of = |branch: &[Op]| if depth == 0 { Vec::new() } else { ops(branch, depth - 1) };
    list.iter()
        .take(12)
        .map(|it| {
            op(match it {
                Op::Put(number) => {
                    Request::RequestPut(PutRequest { key: key(*number), ..<_>::default() })
                }
                Op::Delete(from, to) => {
                    let range_end = if to % 3 == 0 { Bytes::new() } else { key(to / 3) };
                    let key = key(*from);
                    Request::RequestDeleteRange(DeleteRangeRequest {
                        key,
                        range_end,
                        prev_kv: false,
                    })
                }
                Op::Txn(success, failure) => Request::RequestTxn(TxnRequest {
                    compare: Vec::new(),
                    success: of(success),
                    failure: of(failure),
                }),
            })
        })
        .collect()
}

pub fn check(input: &[u8]) {
    let Some((success, failure)) = structured::<(Vec<Op>, Vec<Op>)>(input) else { return };
    let (success, failure) = (ops(&success, 6), ops(&failure, 6));
    let fits = writes(&success).and(writes(&failure)).is_some();
    let txn = TxnRequest { compare: Vec::new(), success, failure };
    let expected = if fits { Ok(()) } else { Err(Refused::DuplicateKey) };
    assert_eq!(check_txn(&txn, 1_000), expected, "{txn:?}");
}

type Writes = (Vec<Bytes>, Vec<(Bytes, Bytes)>);

/// etcd's rule (3.7 `checkIntervals`): keys put and intervals deleted; none for a key written twice.
fn writes(ops: &[RequestOp]) -> Option<Writes> {
    let (mut puts, mut deletes): Writes = Default::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            let behind = || Bytes::from([&delete.key[..], &[0]].concat());
            let end = Some(delete.range_end.clone()).filter(|end| !end.is_empty());
            deletes.push((delete.key.clone(), end.unwrap_or_else(behind)));
        }
    }
    let deleted =
        |deletes: &[(Bytes, Bytes)], key: &Bytes| deletes.iter().any(|(a, b)| a <= key && key < b);
    for op in ops {
        let Some(Request::RequestTxn(txn)) = &op.request else { continue };
        let (then, other) = (writes(&txn.success)?, writes(&txn.failure)?);
        let both = then.0.iter().chain(&other.0);
        if both.into_iter().any(|key| puts.contains(key) || deleted(&deletes, key)) {
            return None;
        }
        puts.extend(then.0.into_iter().chain(other.0));
        deletes.extend(then.1.into_iter().chain(other.1));
    }
    for op in ops {
        let Some(Request::RequestPut(put)) = &op.request else { continue };
        if puts.contains(&put.key) || deleted(&deletes, &put.key) {
            return None;
        }
        puts.push(put.key.clone());
    }
    Some((puts, deletes))
}

pub fn check_seeds() -> Vec<Vec<u8>> {
    noises()
}
