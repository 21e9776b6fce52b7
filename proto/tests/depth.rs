//! The scan for depth against the decoder: what passes decodes, at the edge and in the log; what is
//! too deep is refused without recursion.

use prost::Message;
use prost::encoding::encode_varint;
use quorate_proto::depth::{NESTED_MAX, OPERATIONS_MAX, Shape, TooDeep, check, check_shape};
use quorate_proto::{etcdserverpb as pb, raftpb};

/// Length-delimited field `tag` around `inside`.
fn field(tag: u64, inside: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(inside.len() + 8);
    encode_varint(tag << 3 | 2, &mut out);
    encode_varint(inside.len() as u64, &mut out);
    out.extend_from_slice(inside);
    out
}

/// The bytes of a txn with `nested` txns in each other, and a put in the innermost.
fn txn(nested: usize) -> Vec<u8> {
    let put = pb::PutRequest { key: "k".into(), value: "v".into(), ..<_>::default() };
    let innermost = field(2, &field(2, &put.encode_to_vec()));
    (0..nested).fold(innermost, |txn, n| field(2 + n as u64 % 2, &field(4, &txn)))
}

/// The bytes of the answer to such a txn.
fn answer(nested: usize) -> Vec<u8> {
    (0..nested).fold(field(3, &field(2, b"")), |answer, _| field(3, &field(4, &answer)))
}

fn raft(nested: usize) -> Vec<u8> {
    (0..nested).fold(vec![0x08, 0x03], |message, _| field(14, &message))
}

/// Like the decoder's, an unknown group may hold groups.
fn groups(depth: usize) -> Vec<u8> {
    let mark = |wire: u64| {
        let mut out = Vec::new();
        encode_varint(900 << 3 | wire, &mut out);
        out
    };
    [mark(3).repeat(depth), mark(4).repeat(depth)].concat()
}

#[test]
fn the_deepest_txn_that_passes_decodes_at_the_edge_and_in_the_log() {
    let deepest = txn(NESTED_MAX);
    assert_eq!(check::<pb::TxnRequest>(&deepest), Ok(()));
    let txn = pb::TxnRequest::decode(&deepest[..]).expect("decodes at the edge");
    let entry = pb::InternalRaftRequest { txn: Some(txn), ..<_>::default() }.encode_to_vec();
    assert_eq!(check::<pb::InternalRaftRequest>(&entry), Ok(()));
    pb::InternalRaftRequest::decode(&entry[..]).expect("decodes in the log");

    let answer = answer(NESTED_MAX);
    assert_eq!(check::<pb::TxnResponse>(&answer), Ok(()));
    pb::TxnResponse::decode(&answer[..]).expect("so does its answer");
}

#[test]
fn what_is_one_level_deeper_is_refused() {
    let deeper = txn(NESTED_MAX + 1);
    assert_eq!(check::<pb::TxnRequest>(&deeper), Err(TooDeep));
    assert_eq!(check::<pb::InternalRaftRequest>(&field(6, &deeper)), Err(TooDeep));
    assert_eq!(check::<pb::RequestOp>(&field(4, &deeper)), Err(TooDeep));
    assert_eq!(check::<pb::TxnResponse>(&answer(NESTED_MAX + 1)), Err(TooDeep));
    assert_eq!(check::<raftpb::Message>(&raft(NESTED_MAX)), Ok(()));
    assert_eq!(check::<raftpb::Message>(&raft(NESTED_MAX + 1)), Err(TooDeep));
}

#[test]
fn a_megabyte_of_nesting_takes_no_stack() {
    // Each level names the length of what is left: as deep as bytes allow, and malformed only at its end.
    let endless = |tags: &[u64]| {
        let mut out = Vec::new();
        let mut left = 1_u64 << 20;
        while left > 16 {
            for tag in tags {
                let before = out.len();
                encode_varint(tag << 3 | 2, &mut out);
                encode_varint(left - 8, &mut out);
                left -= (out.len() - before) as u64;
            }
        }
        out.resize(out.len() + left as usize, 0);
        out
    };
    for (shape, tags) in [
        (Shape::Txn, &[2, 4][..]),
        (Shape::TxnResponse, &[3, 4]),
        (Shape::RaftMessage, &[14]),
        (Shape::RequestOp, &[4, 3]),
    ] {
        assert_eq!(check_shape(shape, &endless(tags)), Err(TooDeep), "{shape:?}");
    }
}

#[test]
fn unknown_groups_are_skipped_with_all_they_nest() {
    let hidden = [&groups(3)[..], &txn(NESTED_MAX + 1)].concat();
    assert_eq!(check::<pb::TxnRequest>(&hidden), Err(TooDeep), "behind a group");
    assert_eq!(check::<pb::TxnRequest>(&[groups(3), txn(2)].concat()), Ok(()));
    assert_eq!(check::<pb::TxnRequest>(&groups(100_000)), Err(TooDeep));
}

#[test]
fn what_ends_behind_the_message_around_it_is_looked_into() {
    // The outer operation says that it is one byte long; the decoder still follows the inner length.
    let lying = |nested| [vec![2 << 3 | 2, 1], field(4, &txn(nested))].concat();
    assert_eq!(check::<pb::TxnRequest>(&lying(NESTED_MAX - 1)), Ok(()));
    assert_eq!(check::<pb::TxnRequest>(&lying(NESTED_MAX)), Err(TooDeep));
}

#[test]
fn malformed_bytes_are_left_to_the_decoder() {
    for bytes in [
        &b"\x12"[..],
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x12\x05\x22",
        b"\x00\x00",
        b"\x07",
        b"\x0c",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x0b\x14",
        b"\x12\x02\x21\x00",
    ] {
        assert_eq!(check::<pb::TxnRequest>(bytes), Ok(()), "{bytes:02x?}");
        assert!(pb::TxnRequest::decode(bytes).is_err(), "{bytes:02x?}");
    }
}

#[test]
fn messages_that_cannot_nest_are_not_scanned() {
    assert_eq!(Shape::of::<pb::PutRequest>(), None);
    assert_eq!(Shape::of::<raftpb::Entry>(), None);
    assert_eq!(check::<pb::PutRequest>(&txn(NESTED_MAX + 1)), Ok(()));
}

#[test]
fn a_txn_of_very_many_operations_is_refused_before_it_is_decoded() {
    let operations = |count| field(2, b"").repeat(count);
    let most = operations(OPERATIONS_MAX);
    assert_eq!(check::<pb::TxnRequest>(&most), Ok(()));
    assert_eq!(check::<pb::TxnRequest>(&operations(OPERATIONS_MAX + 1)), Err(TooDeep));
    // Those of a txn in it count as well, and so do comparisons.
    let nested = field(2, &field(4, &operations(OPERATIONS_MAX)));
    assert_eq!(check::<pb::TxnRequest>(&nested), Err(TooDeep));
    let compared = [most, field(1, b"")].concat();
    assert_eq!(check::<pb::TxnRequest>(&compared), Err(TooDeep));
}
