//! Deletions of very many keys: what they take of the server's memory. `QUORATE_DELETE_KEYS` sets how
//! many; a million takes a few minutes:
//!
//! ```sh
//! QUORATE_DELETE_KEYS=1000000 cargo test --workspace --test it deletions -- --nocapture
//! ```

use std::time::Instant;

use futures::future::join_all;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request as Op,
};

use super::client::{Channel, origin};
use super::crash::runtime;
use super::overload::{BYTES, Peak, VALUE_BYTES, fill, key};
use super::process::{Server, loudly};
use super::procfs::resident_bytes;

/// Without the variable.
const KEYS: usize = 200_000;
const SMALL_BYTES: usize = 256;
/// Keys in one txn.
const TOGETHER: usize = 128;
/// What a deleted key may take while it is deleted: its tombstones in the batch and in the memory
/// tables. Nothing of its value, or of events without a watcher.
const KEY_BYTES_MAX: u64 = 1_200;
/// What else may happen meanwhile.
const EXTRA: u64 = 64 << 20;

#[test]
fn a_deletion_of_many_keys_takes_little_for_each() {
    let keys = std::env::var("QUORATE_DELETE_KEYS").ok();
    let keys: usize = keys.map_or(KEYS, |keys| keys.parse().expect("a number of keys"));
    let (_dir, server) = Server::serving();
    let (endpoint, pid) = (server.endpoint(), server.pid().expect("it runs"));
    runtime().block_on(async {
        fill_small(&endpoint, keys).await;
        let mut client = connect(&endpoint).await;
        let before = resident_bytes(pid);
        let (began, peak) = (Instant::now(), Peak::start(pid));
        let deleted = client.delete_range(all(false)).await;
        let took = began.elapsed();
        // One that takes long is not waited for, but is done.
        while count(&mut client).await > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let extra = peak.stop().saturating_sub(before);
        loudly(&format!(
            "{keys} keys of {SMALL_BYTES} bytes deleted in {took:.1?}: {} MB resident before, {} MB \
             more, {} bytes a key",
            before >> 20,
            extra >> 20,
            extra / keys as u64
        ));
        if let Ok(deleted) = deleted {
            let deleted = deleted.into_inner();
            assert_eq!((deleted.deleted, deleted.prev_kvs.len()), (keys as i64, 0));
        }
        assert!(extra < keys as u64 * KEY_BYTES_MAX + EXTRA, "{} MB", extra >> 20);
    });
}

#[test]
fn a_deletion_with_more_previous_values_than_there_is_room_for_is_refused() {
    const KEYS: usize = BYTES / VALUE_BYTES;
    let (_dir, server) = Server::serving();
    let endpoint = server.endpoint();
    runtime().block_on(async {
        fill(&endpoint, KEYS).await;
        let mut client = connect(&endpoint).await;
        let alone = client.delete_range(all(true)).await.expect_err("80 MB are there twice");
        assert_eq!(alone.message(), "etcdserver: too many requests");
        let op = RequestOp { request: Some(Op::RequestDeleteRange(all(true))) };
        let txn = TxnRequest { success: vec![op], ..TxnRequest::default() };
        let in_txn = client.txn(txn).await.expect_err("80 MB are there twice");
        assert_eq!(in_txn.message(), "etcdserver: too many requests");
        assert_eq!(count(&mut client).await, KEYS as i64);

        let half = DeleteRangeRequest { range_end: key(KEYS / 2), ..all(true) };
        let told = client.delete_range(half).await.expect("there is room for 40 MB").into_inner();
        assert_eq!((told.deleted, told.prev_kvs.len()), (KEYS as i64 / 2, KEYS / 2));
        let rest =
            client.delete_range(all(false)).await.expect("it returns no values").into_inner();
        assert_eq!((rest.deleted, rest.prev_kvs.len()), ((KEYS - KEYS / 2) as i64, 0));
    });
}

fn all(prev_kv: bool) -> DeleteRangeRequest {
    DeleteRangeRequest { key: "\0".into(), range_end: "\0".into(), prev_kv }
}

async fn connect(endpoint: &str) -> KvClient<Channel> {
    let channel = Channel::connect(endpoint).await.expect("it serves");
    KvClient::with_origin(channel, origin(endpoint)).max_decoding_message_size(usize::MAX)
}

async fn count(client: &mut KvClient<Channel>) -> i64 {
    let (key, range_end) = ("\0".into(), "\0".into());
    let all = RangeRequest { key, range_end, count_only: true, ..RangeRequest::default() };
    client.range(all).await.map_or(i64::MAX, |answer| answer.into_inner().count)
}

async fn fill_small(endpoint: &str, keys: usize) {
    const WRITERS: usize = 16;
    let client = connect(endpoint).await;
    let write = |writer: usize| {
        let mut client = client.clone();
        async move {
            for first in (writer * TOGETHER..keys).step_by(WRITERS * TOGETHER) {
                let put = |n| PutRequest { key: key(n), value: small(n), ..PutRequest::default() };
                let puts = (first..keys.min(first + TOGETHER)).map(put);
                let ops = puts.map(|put| RequestOp { request: Some(Op::RequestPut(put)) });
                let txn = TxnRequest { success: ops.collect(), ..TxnRequest::default() };
                client.txn(txn).await.expect("written");
            }
        }
    };
    join_all((0..WRITERS).map(write)).await;
}

fn small(n: usize) -> bytes::Bytes {
    format!("{n:0SMALL_BYTES$}").into()
}
