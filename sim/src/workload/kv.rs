//! Puts, reads, deletes and optimistic transactions on a few keys, each written value unique.

use std::time::Duration;

use bytes::Bytes;
use quorate::client::Channel;
use quorate::env::Env;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    compare::CompareResult, compare::CompareTarget, compare::TargetUnion, request_op::Request,
};

use super::{Stop, below};
use crate::facts::history::{Call, History, Operation};

const KEYS: u64 = 8;
/// A call that has not been answered by then is given up.
const PATIENCE: Duration = Duration::from_secs(4);

/// One client, until it is stopped.
pub async fn run(env: Env, channel: Channel, client: usize, history: History, stop: Stop) {
    let mut kv = KvClient::new(channel);
    let mut serial = 0_u64;
    while !stop.is_set() {
        serial += 1;
        let value = Bytes::from(format!("c{client}-{serial}"));
        let began = env.now();
        let call = next_call(&env, value);
        let call = perform(&env, &mut kv, call).await;
        let failed = matches!(
            &call,
            Call::Put(_, None) | Call::Delete(_, None) | Call::Txn(_, None) | Call::Range(_, None)
        );
        history.record(Operation { client, began, ended: env.now(), call });
        let pause = if failed { 100 } else { below(&env, 20) };
        env.sleep(Duration::from_millis(pause)).await;
    }
}

fn next_call(env: &Env, value: Bytes) -> Call {
    let key = Bytes::from(format!("k{}", below(env, KEYS)));
    match below(env, 10) {
        0..5 => Call::Put(PutRequest { key, value, ..Default::default() }, None),
        5 => Call::Delete(DeleteRangeRequest { key, ..Default::default() }, None),
        6 => Call::Range(all(), None),
        7 => Call::Range(RangeRequest { key, ..Default::default() }, None),
        _ => Call::Txn(guarded(env, key, value), None),
    }
}

fn all() -> RangeRequest {
    RangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() }
}

/// Writes if the key has not changed since some revision, and reads it otherwise: often a guess, as
/// clients that lost a race make it.
fn guarded(env: &Env, key: Bytes, value: Bytes) -> TxnRequest {
    let op = |request| RequestOp { request: Some(request) };
    let read = RangeRequest { key: key.clone(), ..Default::default() };
    let missing = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Version as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::Version(i64::from(below(env, 2) == 0))),
        ..Default::default()
    };
    TxnRequest {
        compare: vec![missing],
        success: vec![
            op(Request::RequestRange(read.clone())),
            op(Request::RequestPut(PutRequest { key, value, ..Default::default() })),
        ],
        failure: vec![op(Request::RequestRange(read))],
    }
}

async fn perform(env: &Env, kv: &mut KvClient<Channel>, call: Call) -> Call {
    macro_rules! ask {
        ($kind:ident, $method:ident, $request:expr) => {{
            let answer = env.timeout(PATIENCE, kv.$method($request.clone())).await;
            let answer = answer.ok().and_then(Result::ok).map(tonic::Response::into_inner);
            Call::$kind($request, answer)
        }};
    }
    match call {
        Call::Put(request, _) => ask!(Put, put, request),
        Call::Delete(request, _) => ask!(Delete, delete_range, request),
        Call::Txn(request, _) => ask!(Txn, txn, request),
        Call::Range(request, _) => ask!(Range, range, request),
    }
}
