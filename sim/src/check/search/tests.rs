//! Histories with an order and without one.

use quorate_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, RequestOp, ResponseOp,
};

use super::super::fixture::{Fixture, get, kv, put, texts};
use super::*;
use crate::facts::history::Failure;

fn said(calls: Vec<(u64, u64, Call)>) -> String {
    let fixture = calls
        .into_iter()
        .fold(Fixture::default(), |fixture, (began, ended, call)| fixture.call(began, ended, call));
    texts(&check(&fixture.record))
}

fn read(value: Option<&'static str>) -> Call {
    get("k", 0, value.map(|value| kv(0, "k", value)).into_iter().collect())
}

fn delete(deleted: i64) -> Call {
    let request = DeleteRangeRequest { key: "k".into(), ..Default::default() };
    Call::Delete(request, Ok(DeleteRangeResponse { deleted, ..Default::default() }))
}

/// Writes if the key is not there yet, and reads it otherwise.
fn create(value: &'static str, succeeded: bool, found: Option<&'static str>) -> Call {
    let op = |request| RequestOp { request: Some(request) };
    let missing = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Version as i32,
        key: "k".into(),
        target_union: Some(TargetUnion::Version(0)),
        ..Default::default()
    };
    let Call::Range(range, Ok(answer)) = read(found) else { unreachable!("it is a read") };
    let write = PutRequest { key: "k".into(), value: value.into(), ..Default::default() };
    let txn = TxnRequest {
        compare: vec![missing],
        success: vec![op(Request::RequestPut(write))],
        failure: vec![op(Request::RequestRange(range))],
    };
    let response = match succeeded {
        true => Response::ResponsePut(Default::default()),
        false => Response::ResponseRange(answer),
    };
    let responses = vec![ResponseOp { response: Some(response) }];
    Call::Txn(txn, Ok(TxnResponse { header: None, succeeded, responses }))
}

const NONE: &str = "no earlier call";

#[test]
fn what_has_an_order_is_accepted() {
    assert_eq!(said(vec![(0, 1, put("k", "a", Some(2))), (2, 3, read(Some("a")))]), "");
    // Two writes at once: any order.
    let two = |last| {
        vec![
            (0, 5, put("k", "a", Some(2))),
            (1, 4, put("k", "b", Some(3))),
            (6, 7, read(Some(last))),
        ]
    };
    assert_eq!(said(two("a")), "");
    assert_eq!(said(two("b")), "");
    // What was not answered may come late, or never.
    let late = vec![
        (0, 1, put("k", "a", None)),
        (2, 3, read(None)),
        (4, 5, read(Some("a"))),
        (6, 7, put("k", "b", Some(2))),
        (8, 9, read(Some("b"))),
    ];
    assert_eq!(said(late), "");
    let txns = vec![
        (0, 1, create("a", true, None)),
        (2, 3, create("b", false, Some("a"))),
        (4, 5, delete(1)),
        (6, 7, delete(0)),
        (8, 9, create("c", true, None)),
    ];
    assert_eq!(said(txns), "");
}

#[test]
fn what_has_none_is_refused() {
    let stale = vec![
        (0, 1, put("k", "a", Some(2))),
        (2, 3, put("k", "b", Some(3))),
        (4, 5, read(Some("a"))),
    ];
    assert!(said(stale).contains(NONE));
    let lost = vec![(0, 1, put("k", "a", Some(2))), (2, 3, read(None))];
    assert!(said(lost).contains(NONE));
    let back = vec![(0, 9, put("k", "a", Some(2))), (1, 2, read(Some("a"))), (3, 4, read(None))];
    assert!(said(back).contains(NONE));
    // A write that was refused has not happened.
    let refused = Failure::new(&tonic::Status::invalid_argument("no"));
    let Call::Put(request, _) = put("k", "a", None) else { unreachable!("it is a put") };
    let refused = vec![
        (0, 1, Call::Put(request, Err(refused))),
        (2, 3, read(Some("a"))),
        (2, 3, put("k", "b", Some(2))),
    ];
    assert!(said(refused).contains(NONE));
    let both = vec![(0, 1, create("a", true, None)), (2, 3, create("b", true, None))];
    assert!(said(both).contains(NONE));
    let gone = vec![(0, 1, put("k", "a", Some(2))), (2, 3, delete(0))];
    assert!(said(gone).contains(NONE));
}

/// Keys that go by themselves, and reads of the past, prove nothing.
#[test]
fn what_cannot_be_judged_is_not() {
    let Call::Put(request, answer) = put("k", "a", Some(2)) else { unreachable!("it is a put") };
    let leased = Call::Put(PutRequest { lease: 7, ..request }, answer);
    assert_eq!(said(vec![(0, 1, leased), (2, 3, read(None))]), "");
    let Call::Range(request, answer) = read(None) else { unreachable!("it is a read") };
    let past = Call::Range(RangeRequest { serializable: true, ..request }, answer);
    assert_eq!(said(vec![(0, 1, put("k", "a", Some(2))), (2, 3, past)]), "");
}

/// Many unanswered writes are more than can be remembered; then nothing is claimed.
#[test]
fn the_search_gives_up_in_bounded_time() {
    const VALUES: [&str; 20] = [
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r",
        "s", "t",
    ];
    let mut calls: Vec<_> = VALUES.iter().map(|value| (0, 1, put("k", value, None))).collect();
    calls.push((2, 3, read(Some("zzz"))));
    assert_eq!(said(calls), "");
}
