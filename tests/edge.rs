//! What a client sees of a single member over real gRPC and HTTP: texts, ends of streams, counts, an
//! orderly stop. One process, real sockets on ports of the system's choice; state machine and
//! consensus have tests of their own.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a client stands outside the server, in the real world"
)]

#[path = "edge/certificates.rs"]
mod certificates;
#[path = "edge/metadata.rs"]
mod metadata;

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http_body_util::{BodyExt as _, Collected, Full};
use prost::Message as _;
use quorate::client::Channel;
use quorate::env::tokio::env;
use quorate::limits;
use quorate::member::Options as MemberOptions;
use quorate::server::{Options, Server};
use quorate_proto::etcdserverpb::{
    AuthRoleAddRequest, AuthUserAddRequest, CompactionRequest, DeleteRangeRequest,
    DowngradeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest,
    LeaseRevokeRequest, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp,
    TxnRequest, WatchCreateRequest, WatchRequest, WatchResponse, auth_client::AuthClient,
    downgrade_request::DowngradeAction, kv_client::KvClient, lease_client::LeaseClient,
    maintenance_client::MaintenanceClient, request_op, watch_client::WatchClient,
    watch_request::RequestUnion,
};
use quorate_proto::health::{HealthCheckRequest, health_client::HealthClient};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};
use tower::Service as _;

/// Nothing here takes long; what does not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(10);

struct World {
    server: Server,
    channel: Channel,
    _dir: TempDir,
}

impl World {
    async fn new(change: impl FnOnce(&mut MemberOptions)) -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        let port = "127.0.0.1:0".parse().expect("an address");
        let mut member = MemberOptions::single("edge", dir.path(), port);
        // A small log: every test allocates a segment or two.
        member.wal_segment_bytes = 8 << 20;
        change(&mut member);
        let server = Server::start(env(), Options::new(member, vec![port])).await;
        let server = server.expect("a single member starts");
        let channel = Channel::new(env(), [server.addresses()[0].to_string()]);
        Self { server, channel, _dir: dir }
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    async fn watch(&self, timeout: Option<&'static str>) -> Watch {
        let (requests, stream) = mpsc::channel(4);
        requests.send(watch_on(b"w")).await.expect("there is room");
        let mut request = Request::new(ReceiverStream::new(stream));
        if let Some(timeout) = timeout {
            let value = timeout.parse().expect("a header value");
            request.metadata_mut().insert("grpc-timeout", value);
        }
        let responses = WatchClient::new(self.channel.clone()).watch(request).await;
        let responses = responses.expect("the stream opens").into_inner();
        let mut watch = Watch { requests, responses };
        let created = watch.next().await.expect("an answer").expect("not the end");
        assert!(created.created, "{created:?}");
        watch
    }

    async fn connect(&self) -> tokio::net::TcpStream {
        let address = self.server.addresses()[0];
        tokio::net::TcpStream::connect(address).await.expect("it listens")
    }

    /// `GET path` over HTTP/1.1, with the head.
    async fn get(&self, path: &str) -> String {
        self.http("GET", path, "").await
    }

    /// A request over HTTP/1.1, with the head.
    async fn http(&self, method: &str, path: &str, body: &str) -> String {
        let mut socket = self.connect().await;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        socket.write_all(request.as_bytes()).await.expect("it reads");
        let mut text = String::new();
        socket.read_to_string(&mut text).await.expect("it answers");
        text
    }

    /// A gRPC call with these headers and this body, as it is on the wire.
    async fn call(
        &self,
        path: &str,
        headers: &[(&'static str, &'static str)],
        body: Vec<u8>,
    ) -> http::Response<Collected<Bytes>> {
        let mut request = http::Request::post(path).header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = tonic::body::Body::new(Full::new(Bytes::from(body)));
        let request = request.body(body).expect("a request");
        let answer = self.channel.clone().call(request).await.expect("an answer");
        let (parts, body) = answer.into_parts();
        http::Response::from_parts(parts, body.collect().await.expect("it ends"))
    }
}

struct Watch {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

impl Watch {
    async fn next(&mut self) -> Result<Option<WatchResponse>, Status> {
        tokio::time::timeout(PATIENCE, self.responses.message()).await.expect("it comes in time")
    }

    /// The status that the stream ends with, without another answer.
    async fn end(&mut self) -> (Code, String) {
        let end = self.next().await.expect_err("the stream ends with a status");
        (end.code(), end.message().to_owned())
    }
}

fn watch_on(key: &[u8]) -> WatchRequest {
    let create =
        WatchCreateRequest { key: Bytes::copy_from_slice(key), ..WatchCreateRequest::default() };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

fn put(value: usize) -> PutRequest {
    let (key, value) = (Bytes::from_static(b"k"), vec![b'v'; value].into());
    PutRequest { key, value, ..PutRequest::default() }
}

/// A message with its prefix.
fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a small message").to_be_bytes();
    [&[flag][..], &length, message].concat()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).expect("a buffer grows");
    encoder.finish().expect("a buffer grows")
}

/// The messages of a body, each of which must be compressed.
fn gunzipped(mut body: Bytes) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while body.has_remaining() {
        assert_eq!(body.get_u8(), 1, "it is compressed");
        let length = body.get_u32() as usize;
        let mut message = Vec::new();
        let compressed = body.split_to(length);
        flate2::read::GzDecoder::new(&compressed[..]).read_to_end(&mut message).expect("gzip");
        messages.push(message);
    }
    messages
}

fn refusal<T: std::fmt::Debug>(answer: Result<tonic::Response<T>, Status>) -> (Code, String) {
    let status = answer.expect_err("it is refused");
    (status.code(), status.message().to_owned())
}

/// The same as a real etcd 3.4 answers, byte for byte.
#[tokio::test]
async fn large_late_and_unknown_requests_are_refused_in_etcds_words() {
    let world = World::new(|_| {}).await;
    let mut kv = world.kv();
    let refused = |code, text: &str| (code, text.to_owned());
    assert_eq!(
        refusal(kv.put(put(1_572_864)).await),
        refused(Code::InvalidArgument, "etcdserver: request is too large")
    );
    assert_eq!(
        refusal(kv.put(put(2_097_153)).await),
        refused(
            Code::ResourceExhausted,
            "grpc: received message larger than max (2097161 vs. 2097152)"
        )
    );
    let mut late = Request::new(put(1));
    late.metadata_mut().insert("grpc-timeout", "0m".parse().expect("a header value"));
    assert_eq!(
        refusal(kv.put(late).await),
        refused(Code::DeadlineExceeded, "context deadline exceeded")
    );
    let mut version = Request::new(put(1));
    let bytes = http::HeaderValue::from_bytes(b"\xff").expect("a header value");
    let mut headers = http::HeaderMap::new();
    headers.insert("client-api-version", bytes);
    *version.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
    assert_eq!(
        refusal(kv.put(version).await),
        refused(Code::InvalidArgument, "etcdserver: invalid client api version")
    );
    for (path, text) in [
        ("/a.B/C", "unknown service a.B"),
        ("/etcdserverpb.KV/Get", "unknown method Get for service etcdserverpb.KV"),
    ] {
        let mut grpc = tonic::client::Grpc::new(world.channel.clone());
        grpc.ready().await.expect("a channel is always ready");
        let codec = quorate_proto::codec::Codec::<PutRequest, PutResponse>::default();
        let path = path.parse().expect("a path");
        let answer = grpc.unary(Request::new(put(1)), path, codec).await;
        assert_eq!(refusal(answer), refused(Code::Unimplemented, text));
    }
}

#[tokio::test]
async fn a_watch_ends_at_its_deadline_and_at_what_cannot_be_read() {
    let world = World::new(|_| {}).await;
    let mut watch = world.watch(Some("300m")).await;
    let late = (Code::DeadlineExceeded, "context deadline exceeded".to_owned());
    assert_eq!(watch.end().await, late);

    let mut watch = world.watch(None).await;
    watch.requests.send(watch_on(&vec![b'k'; 3 << 20])).await.expect("the stream is open");
    assert_eq!(watch.end().await.0, Code::ResourceExhausted);
}

#[tokio::test]
async fn keep_alives_show_the_fate_of_a_lease() {
    let world = World::new(|_| {}).await;
    let mut lease = world.lease();
    for (id, ttl) in [(3, 500), (2, 100), (1, 300)] {
        let grant = lease.lease_grant(LeaseGrantRequest { id, ttl }).await;
        assert_eq!(grant.expect("granted").into_inner().ttl, ttl);
    }
    let short = lease.lease_grant(LeaseGrantRequest { id: 4, ttl: -1 }).await;
    assert_eq!(short.expect("granted").into_inner().ttl, 2, "raised to etcd's minimum");

    let (requests, stream) = mpsc::channel(4);
    let answers = lease.lease_keep_alive(ReceiverStream::new(stream)).await;
    let mut answers = answers.expect("the stream opens").into_inner();
    for (id, ttl) in [(99, 0), (2, 100)] {
        requests.send(LeaseKeepAliveRequest { id }).await.expect("the stream is open");
        let answer = answers.message().await.expect("an answer").expect("not the end");
        assert_eq!((answer.id, answer.ttl), (id, ttl));
    }
    drop(requests);
    assert_eq!(answers.message().await.expect("an orderly end"), None);

    // The first keep-alive has waited for the leader to keep the time.
    let leases = lease.lease_leases(LeaseLeasesRequest {}).await.expect("listed").into_inner();
    let ids: Vec<i64> = leases.leases.iter().map(|lease| lease.id).collect();
    assert_eq!(ids, [4, 2, 1, 3], "soonest to end first");
}

/// A watch from that revision on must not miss the deletion, whatever others write meanwhile.
#[tokio::test]
async fn a_revocations_answer_has_the_revision_of_its_own_deletion() {
    let world = World::new(|_| {}).await;
    let writers: Vec<_> = (0..6)
        .map(|_| {
            let mut kv = world.kv();
            tokio::spawn(async move {
                loop {
                    kv.put(put(1)).await.expect("it is put");
                }
            })
        })
        .collect();
    let (mut kv, mut lease) = (world.kv(), world.lease());
    for _ in 0..30 {
        let grant = LeaseGrantRequest { ttl: 60, id: 0 };
        let id = lease.lease_grant(grant).await.expect("it is granted").into_inner().id;
        let key = Bytes::from_static(b"leased");
        let leased = PutRequest { key: key.clone(), lease: id, ..PutRequest::default() };
        kv.put(leased).await.expect("it is put");
        let revoked = lease.lease_revoke(LeaseRevokeRequest { id }).await.expect("it is revoked");
        let gone_at = revoked.into_inner().header.expect("a header").revision;
        let mut there = Vec::new();
        for revision in [gone_at - 1, gone_at] {
            let read = RangeRequest { key: key.clone(), revision, ..RangeRequest::default() };
            there.push(kv.range(read).await.expect("it is read").into_inner().count);
        }
        assert_eq!(there, [1, 0], "before and at revision {gone_at}");
    }
    writers.iter().for_each(tokio::task::JoinHandle::abort);
}

/// The flag was forgotten, or a disk is not mounted: an empty store would serve as a new cluster.
#[test]
fn a_used_data_directory_without_its_log_is_not_begun_anew() {
    let (dir, logs) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    // A runtime each: the directory is locked until the last task of a server has ended.
    let run = |wal_dir: Option<&Path>| -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let port = "127.0.0.1:0".parse().expect("an address");
            let mut member = MemberOptions::single("edge", dir.path(), port);
            member.wal_segment_bytes = 8 << 20;
            member.wal_dir = wal_dir.map(Path::to_owned);
            let server = Server::start(env(), Options::new(member, vec![port])).await;
            server.map_err(|fatal| fatal.to_string())?.shutdown().await;
            Ok(())
        })
    };
    let apart = logs.path().join("wal");
    assert_eq!(run(Some(&apart)), Ok(()));
    let refused = run(None).expect_err("it is refused");
    let wanted = format!("whose log was in {}, and there is no log in", apart.display());
    assert!(refused.contains(&wanted) && refused.contains("--wal-dir"), "{refused}");
    assert_eq!(run(Some(&apart)), Ok(()), "nothing was changed by the refused start");
    std::fs::remove_dir_all(&apart).expect("it can be removed");
    let refused = run(Some(&apart)).expect_err("it is refused");
    assert!(refused.contains("its log is gone"), "{refused}");
}

/// Names are keys of buckets: a longer one would be in no snapshot.
#[tokio::test]
async fn names_that_no_snapshot_can_hold_are_refused() {
    let world = World::new(|_| {}).await;
    let mut auth = AuthClient::new(world.channel.clone());
    let add = |bytes: usize| AuthRoleAddRequest { name: "r".repeat(bytes) };
    auth.role_add(add(32_768)).await.expect("it is added");
    let too_large = (Code::InvalidArgument, "etcdserver: request is too large".to_owned());
    assert_eq!(refusal(auth.role_add(add(32_769)).await), too_large);
    let user = AuthUserAddRequest { name: "u".repeat(32_769), ..AuthUserAddRequest::default() };
    assert_eq!(refusal(auth.user_add(user).await), too_large);
}

#[tokio::test]
async fn a_full_store_refuses_leases_and_puts_but_not_reads() {
    let world = World::new(|member| member.quota_bytes = Some(1)).await;
    let full = (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded".to_owned());
    assert_eq!(refusal(world.kv().put(PutRequest::default()).await), full, "before the empty key");
    let grant = LeaseGrantRequest { id: 1, ttl: 9_000_000_001 };
    assert_eq!(refusal(world.lease().lease_grant(grant).await), full, "before the time to live");
    let read = RangeRequest { key: Bytes::from_static(b"k"), ..RangeRequest::default() };
    world.kv().range(read).await.expect("reads go on");
    let health = world.get("/health").await;
    assert!(health.contains(r#"{"health":"false","reason":"ALARM NOSPACE"}"#), "{health}");
}

/// As etcd counts since 3.7.1: the dearer branch, txns in it included.
#[tokio::test]
async fn what_a_txns_txns_write_counts_against_the_quota() {
    let quota = limits::STORE_BYTES_MIN + 5_000;
    let world = World::new(|member| member.quota_bytes = Some(quota)).await;
    let mut kv = world.kv();
    let txn =
        |op| TxnRequest { success: vec![RequestOp { request: Some(op) }], ..Default::default() };
    let nested = |size| {
        txn(request_op::Request::RequestTxn(txn(request_op::Request::RequestPut(put(size)))))
    };
    kv.txn(nested(1_000)).await.expect("it fits");
    let full = (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded".to_owned());
    assert_eq!(refusal(kv.txn(nested(4_500)).await), full);
}

/// etcd waits until an operator defragments and disarms.
#[tokio::test]
async fn a_full_store_that_was_emptied_takes_writes_again_by_itself() {
    let world = World::new(|member| {
        member.quota_bytes = Some(100_000);
        member.request_bytes_max = 10_000;
        member.txn_ops_max = 16;
    })
    .await;
    let mut kv = world.kv();
    let mut revision = 0;
    let full = loop {
        match kv.put(put(8_000)).await {
            Ok(answer) => revision = answer.into_inner().header.map_or(0, |header| header.revision),
            Err(status) => break (status.code(), status.message().to_owned()),
        }
        assert!(revision < 20, "more was taken than the quota allows");
    };
    assert_eq!(full.1, "etcdserver: mvcc: database space exceeded");
    let txn =
        |op| TxnRequest { success: vec![RequestOp { request: Some(op) }], ..Default::default() };
    let puts = txn(request_op::Request::RequestPut(put(1)));
    assert_eq!(refusal(kv.txn(puts).await), full, "a txn with a put");
    let reads = RangeRequest { key: Bytes::from_static(b"k"), ..RangeRequest::default() };
    kv.txn(txn(request_op::Request::RequestRange(reads))).await.expect("a txn that only reads");
    let delete = DeleteRangeRequest { key: Bytes::from_static(b"k"), ..Default::default() };
    kv.delete_range(delete).await.expect("deletes are served");
    let compact = CompactionRequest { revision: revision + 1, physical: true };
    kv.compact(compact).await.expect("compactions are served");
    let mut tries = 0;
    while let Err(status) = kv.put(put(8_000)).await {
        assert_eq!((status.code(), status.message().to_owned()), full);
        tries += 1;
        assert!(tries < 10_000, "the alarm stays");
    }
    let health = world.get("/health").await;
    assert!(health.contains(r#"{"health":"true","reason":""}"#), "{health}");
}

#[tokio::test]
async fn a_downgrade_is_begun_and_cancelled_in_etcds_words() {
    use DowngradeAction::{Cancel, Enable, Validate};
    let world = World::new(|_| {}).await;
    let mut service = MaintenanceClient::new(world.channel.clone());
    // The leader decides the cluster's version when it has begun.
    while world.get("/version").await.contains("not_decided") {}
    let mut ask = async |action: DowngradeAction, version: &str| {
        let request = DowngradeRequest { action: action as i32, version: version.into() };
        match service.downgrade(request).await {
            Ok(answer) => answer.into_inner().version,
            Err(status) => format!("{:?} {}", status.code(), status.message()),
        }
    };
    let format = "InvalidArgument etcdserver: wrong downgrade target version format";
    let target = "InvalidArgument etcdserver: invalid downgrade target version";
    let running = "FailedPrecondition etcdserver: cluster has a downgrade job in progress";
    assert_eq!(ask(Validate, "three").await, format);
    assert_eq!(ask(Validate, "3.5").await, target);
    assert_eq!(ask(Enable, "3.7.0").await, target);
    assert_eq!(ask(Cancel, "").await, "3.7", "there is nothing to cancel");
    assert_eq!(ask(Validate, "3.6").await, "3.7");
    assert_eq!(ask(Enable, "3.6.0").await, "3.7");
    let again = ask(Enable, "3.6").await;
    assert!(again == running || again == target, "before the version follows or after it: {again}");
    let version = |told: &str| format!("\"etcdcluster\":\"{told}\",\"storage\":\"{told}\"");
    wait_for(&world, "/version", &version("3.6.0")).await;
    assert_eq!(ask(Validate, "3.5").await, running);
    assert_eq!(ask(Cancel, "").await, "3.6");
    wait_for(&world, "/version", &version("3.7.0")).await;
}

/// Repeats the call until the answer contains this.
async fn wait_for(world: &World, path: &str, wanted: &str) {
    let answered = async { while !world.get(path).await.contains(wanted) {} };
    tokio::time::timeout(PATIENCE, answered).await.unwrap_or_else(|_| panic!("no {wanted}"));
}

#[tokio::test]
async fn what_happens_is_counted() {
    let world = World::new(|_| {}).await;
    let mut kv = world.kv();
    for _ in 0..3 {
        kv.put(put(100)).await.expect("put");
    }
    kv.range(RangeRequest { key: Bytes::from_static(b"k"), ..RangeRequest::default() })
        .await
        .expect("read");
    let _ = kv.put(PutRequest::default()).await;
    let watch = world.watch(None).await;
    world.lease().lease_grant(LeaseGrantRequest { id: 1, ttl: 60 }).await.expect("granted");
    kv.compact(CompactionRequest { revision: 4, physical: true }).await.expect("compacted");
    let page = world.get("/metrics").await;
    let put = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";
    for line in [
        "etcd_server_has_leader 1",
        "etcd_server_is_leader 1",
        "etcd_server_proposals_pending 0",
        "etcd_server_proposals_failed_total 0",
        "etcd_server_leader_changes_seen_total 1",
        "etcd_mvcc_put_total 3",
        "etcd_mvcc_range_total 1",
        "etcd_server_range_duration_seconds_count{success=\"true\"} 1",
        "etcd_debugging_mvcc_db_compaction_keys_total 2",
        "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count 1",
        "etcd_debugging_mvcc_total_put_size_in_bytes 303",
        "etcd_debugging_mvcc_keys_total 1",
        "etcd_debugging_mvcc_current_revision 4",
        "etcd_debugging_lease_granted_total 1",
        "etcd_debugging_mvcc_watch_stream_total 1",
        "etcd_debugging_mvcc_watcher_total 1",
        "etcd_server_client_requests_total{client_api_version=\"unknown\",type=\"stream\"} 1",
        "etcd_server_request_duration_seconds_count{success=\"true\",type=\"Put\"} 3",
        &format!("grpc_server_started_total{{{put}}} 4"),
        &format!("grpc_server_handled_total{{grpc_code=\"OK\",{put}}} 3"),
        &format!("grpc_server_handled_total{{grpc_code=\"InvalidArgument\",{put}}} 1"),
    ] {
        assert!(page.contains(&format!("\n{line}\n")), "{line} is not on the page:\n{page}");
    }
    for counted in [
        "etcd_disk_wal_fsync_duration_seconds",
        "etcd_disk_wal_write_duration_seconds",
        "etcd_disk_backend_commit_duration_seconds",
        "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
    ] {
        assert!(!page.contains(&format!("\n{counted}_count 0\n")), "{counted}:\n{page}");
    }
    drop(watch);
}

#[tokio::test]
async fn streams_that_cannot_be_read_are_counted() {
    let world = World::new(|_| {}).await;
    for method in ["Watch/Watch", "Lease/LeaseKeepAlive"] {
        // One message of one byte, which begins a number that does not end.
        let body = tonic::body::Body::new(Full::new(Bytes::from_static(&[0, 0, 0, 0, 1, 0xff])));
        let request = http::Request::post(format!("/etcdserverpb.{method}"))
            .header("content-type", "application/grpc")
            .body(body)
            .expect("a request");
        let answer = world.channel.clone().call(request).await.expect("an answer");
        let answer = answer.into_body().collect().await.expect("it ends");
        let trailers = answer.trailers().expect("a status");
        assert_eq!(trailers["grpc-status"], (Code::Internal as i32).to_string(), "{method}");
    }
    drop(world.watch(None).await);
    let page = world.get("/metrics").await;
    for api in ["lease-keepalive", "watch"] {
        let labels = format!("API=\"{api}\",Type=\"receive\"");
        let line = format!("\netcd_network_server_stream_failures_total{{{labels}}} 1\n");
        assert!(page.contains(&line), "{page}");
    }
}

#[tokio::test]
async fn a_stop_ends_streams_with_etcds_status_and_answers_what_is_under_way() {
    let world = World::new(|_| {}).await;
    let mut watches = [world.watch(None).await, world.watch(None).await];
    let mut health = HealthClient::new(world.channel.clone())
        .watch(HealthCheckRequest::default())
        .await
        .expect("the stream opens")
        .into_inner();
    let serving = health.message().await.expect("an answer").expect("not the end");
    assert_eq!(serving.status, 1);
    let puts: Vec<_> = (0..64)
        .map(|_| {
            let mut kv = world.kv();
            tokio::spawn(async move { kv.put(put(10)).await })
        })
        .collect();
    // As soon as one is answered, the others are on their way.
    let mut puts = puts.into_iter();
    let first = puts.next().expect("there are 64").await.expect("it does not panic");
    first.expect("a server at work answers");
    let World { server, _dir, .. } = world;
    let stop = tokio::spawn(async move {
        tokio::time::timeout(Duration::from_secs(3), server.shutdown()).await
    });
    let stopped = (Code::Unavailable, "etcdserver: server stopped".to_owned());
    for watch in &mut watches {
        assert_eq!(watch.end().await, stopped);
    }
    let turned = health.message().await.expect("health turns first").expect("not the end");
    assert_eq!(turned.status, 2);
    assert_eq!(health.message().await.expect_err("the end").message(), stopped.1);
    for put in puts {
        if let Err(status) = put.await.expect("it does not panic") {
            // Not sent before the server took no more; never half done.
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        }
    }
    stop.await.expect("it does not panic").expect("a stop with streams open does not take long");
}

/// Some clients compare the header as it is, which the library would write with `%20` for spaces.
#[tokio::test]
async fn texts_of_errors_are_on_the_wire_as_they_are() {
    let world = World::new(|_| {}).await;
    let empty = framed(0, b"");
    let refused = world.call("/etcdserverpb.KV/Put", &[], empty.clone()).await;
    assert_eq!(refused.headers()["grpc-message"], "etcdserver: key is not provided");
    let unknown = world.call("/etcdserverpb.KV/Get", &[], empty.clone()).await;
    let text = "unknown method Get for service etcdserverpb.KV";
    assert_eq!(unknown.headers()["grpc-message"], text);
    // A stream says it in its trailers.
    let headers = [("grpc-timeout", "100m")];
    let late = world.call("/etcdserverpb.Watch/Watch", &headers, Vec::new()).await;
    let trailers = late.body().trailers().expect("a result");
    assert_eq!(trailers["grpc-message"], "context deadline exceeded");
}

#[tokio::test]
async fn malformed_timeouts_are_refused_as_by_etcd() {
    let world = World::new(|_| {}).await;
    for (timeout, why) in [
        ("5s", "transport: timeout unit is not recognized: \"5s\""),
        ("-1S", "strconv.ParseUint: parsing \"-1\": invalid syntax"),
    ] {
        let headers = [("grpc-timeout", timeout)];
        let refused = world.call("/etcdserverpb.KV/Range", &headers, framed(0, b"")).await;
        assert_eq!(refused.status(), 400);
        assert_eq!(refused.headers()["grpc-status"], (Code::Internal as i32).to_string());
        let text = format!("malformed grpc-timeout: {why}");
        assert_eq!(refused.headers()["grpc-message"], text.as_str());
    }
}

#[tokio::test]
async fn compressed_calls_are_answered_compressed() {
    let world = World::new(|_| {}).await;
    let put = PutRequest { value: vec![b'v'; 200_000].into(), ..put(0) };
    let headers = [("grpc-encoding", "gzip")];
    let compressed = framed(1, &gzip(&put.encode_to_vec()));
    assert!(compressed.len() < 10_000);
    let answer = world.call("/etcdserverpb.KV/Put", &headers, compressed).await;
    assert_eq!(answer.headers()["grpc-encoding"], "gzip");
    assert_eq!(gunzipped(answer.into_body().to_bytes()).len(), 1);
    // Only announced.
    let range = RangeRequest { key: Bytes::from_static(b"k"), ..RangeRequest::default() };
    let range = framed(0, &range.encode_to_vec());
    let answer = world.call("/etcdserverpb.KV/Range", &headers, range.clone()).await;
    let body = answer.into_body().to_bytes();
    assert!(body.len() < 10_000, "{} bytes", body.len());
    let messages = gunzipped(body);
    let found = RangeResponse::decode(&messages[0][..]).expect("a message");
    assert_eq!(found.kvs[0].value.len(), 200_000);
    let answer = world.call("/etcdserverpb.KV/Range", &[], range).await;
    assert!(!answer.headers().contains_key("grpc-encoding"));
    // A stream.
    let snapshot = world.call("/etcdserverpb.Maintenance/Snapshot", &headers, framed(0, b"")).await;
    assert_eq!(snapshot.headers()["grpc-encoding"], "gzip");
    assert_eq!(snapshot.body().trailers().expect("a result")["grpc-status"], "0");
    assert!(!gunzipped(snapshot.into_body().to_bytes()).is_empty());
    let create = watch_on(b"w").encode_to_vec();
    let headers = [("grpc-encoding", "gzip"), ("grpc-timeout", "500m")];
    let watch = framed(1, &gzip(&create));
    let answer = world.call("/etcdserverpb.Watch/Watch", &headers, watch).await;
    let messages = gunzipped(answer.into_body().to_bytes());
    assert!(WatchResponse::decode(&messages[0][..]).expect("a message").created);
    // Bounded, and refused where it is no gzip and where it is another encoding.
    let bomb = framed(1, &gzip(&vec![0; 20 << 20]));
    for (encoding, body, code, text) in [
        (
            "gzip",
            bomb,
            Code::ResourceExhausted,
            "grpc: received message after decompression larger than max 2097152",
        ),
        (
            "gzip",
            framed(1, b"notgzip"),
            Code::Internal,
            "grpc: failed to decompress the message: unexpected EOF",
        ),
        (
            "snappy",
            framed(0, b""),
            Code::Unimplemented,
            "grpc: Decompressor is not installed for grpc-encoding \"snappy\"",
        ),
    ] {
        let headers = [("grpc-encoding", encoding)];
        let refused = world.call("/etcdserverpb.KV/Put", &headers, body).await;
        assert_eq!(refused.headers()["grpc-status"], (code as i32).to_string(), "{text}");
        assert_eq!(refused.headers()["grpc-message"], text);
    }
}

/// Trailers would be read as a part of the message.
#[tokio::test]
async fn a_deadline_within_a_message_resets_the_stream() {
    let world = World::new(|_| {}).await;
    let mut kv = world.kv();
    for key in [b"a", b"b", b"c"] {
        let put = PutRequest { key: Bytes::copy_from_slice(key), ..put(1 << 20) };
        kv.put(put).await.expect("put");
    }
    let mut client = h2::client::Builder::new();
    client.initial_window_size(65_535).initial_connection_window_size(1 << 20);
    let (mut sender, connection) =
        client.handshake::<_, Bytes>(world.connect().await).await.expect("a handshake");
    tokio::spawn(connection);
    let request = http::Request::post("http://x/etcdserverpb.KV/Range")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "400m")
        .body(())
        .expect("a request");
    let began = tokio::time::Instant::now();
    let (answer, mut body) = sender.send_request(request, false).expect("it is sent");
    let range = RangeRequest {
        key: Bytes::from_static(b"a"),
        range_end: Bytes::from_static(b"d"),
        ..RangeRequest::default()
    };
    body.send_data(framed(0, &range.encode_to_vec()).into(), true).expect("it is sent");
    let mut answer = answer.await.expect("it begins").into_body();
    let first = answer.data().await.expect("a part").expect("no error");
    // The window stays closed until the deadline is over.
    tokio::time::sleep_until(began + Duration::from_millis(800)).await;
    let mut seen = first.len();
    answer.flow_control().release_capacity(seen).expect("it was received");
    let end = loop {
        match tokio::time::timeout(PATIENCE, answer.data()).await.expect("it ends") {
            Some(Ok(part)) => {
                seen += part.len();
                answer.flow_control().release_capacity(part.len()).expect("it was received");
            }
            Some(Err(error)) => break error,
            None => panic!("it ends in order after {seen} bytes: {:?}", answer.trailers().await),
        }
    };
    assert_eq!(end.reason(), Some(h2::Reason::CANCEL), "{end}");
    assert!(seen < 3 << 20, "the message was not complete");
}

#[tokio::test]
async fn gauges_of_watches_go_down_however_a_client_leaves() {
    let world = World::new(|_| {}).await;
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(world.watch(None).await);
        // Requests end, the client still listens; then it is gone.
        let Watch { requests, responses } = world.watch(None).await;
        drop(requests);
        drop(responses);
        // The client is gone at once.
        drop(world.watch(None).await);
        let mut late = world.watch(Some("100m")).await;
        late.next().await.expect_err("its time is up");
        let broken = world.call("/etcdserverpb.Watch/Watch", &[], framed(0, &[0xff])).await;
        assert!(broken.body().trailers().is_some());
    }
    let gauges = |streams, watchers| {
        format!(
            "etcd_debugging_mvcc_watch_stream_total {streams}\n# HELP \
             etcd_debugging_mvcc_watcher_total Watchers on all streams.\n# TYPE \
             etcd_debugging_mvcc_watcher_total gauge\netcd_debugging_mvcc_watcher_total {watchers}\n"
        )
    };
    wait_for(&world, "/metrics", &gauges(10, 10)).await;
    drop(open);
    wait_for(&world, "/metrics", &gauges(0, 0)).await;
}

#[tokio::test]
async fn paths_of_the_gateway_are_read_as_gos_server_reads_them() {
    let world = World::new(|_| {}).await;
    let range = r#"{"key":"YQ=="}"#;
    let answer = world.http("POST", "/v3/kv/%72ange", range).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let answer = world.http("POST", "//v3/kv/range", range).await;
    assert!(answer.starts_with("HTTP/1.1 307 "), "{answer}");
    assert!(answer.contains("\r\nlocation: /v3/kv/range\r\n"), "{answer}");
    assert!(world.get("/%76ersion").await.contains("\"etcdserver\":"));
}

#[tokio::test]
async fn txns_that_nest_too_deep_or_hold_too_much_are_refused() {
    let world = World::new(|_| {}).await;
    let too_many = "etcdserver: too many operations in txn request";
    let mut txn = Vec::new();
    for _ in 0..2_000 {
        // TxnRequest.success { RequestOp.request_txn { .. } }
        let op = [&[0x22][..], &varint(txn.len()), &txn].concat();
        txn = [&[0x12][..], &varint(op.len()), &op].concat();
    }
    let refused = world.call("/etcdserverpb.KV/Txn", &[], framed(0, &txn)).await;
    assert_eq!(refused.headers()["grpc-message"], too_many);
    assert_eq!(refused.headers()["grpc-status"], (Code::InvalidArgument as i32).to_string());
    let json = r#"{"success":[{"request_txn":"#.repeat(2_000) + "{}" + &"}]}".repeat(2_000);
    let answer = world.http("POST", "/v3/kv/txn", &json).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(too_many), "{answer}");
    let wide = format!("{{\"success\":[{}]}}", vec!["{}"; 900_000].join(","));
    let answer = world.http("POST", "/v3/kv/txn", &wide).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(too_many), "{answer}");
    world.kv().put(put(1)).await.expect("the member serves on");
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// The messages of a client are not masked here, which means: with zeroes.
struct WebSocket(tokio::net::TcpStream);

impl WebSocket {
    async fn open(world: &World, path: &str) -> Self {
        let mut socket = world.connect().await;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.expect("it reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.expect("it answers"));
        }
        let head = String::from_utf8(head).expect("a head is text").to_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(
            head.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"),
            "{head}"
        );
        Self(socket)
    }

    async fn send(&mut self, text: &str) {
        let length = u8::try_from(text.len()).expect("a short text");
        assert!(length < 126);
        let frame = [&[0x81, 0x80 | length, 0, 0, 0, 0][..], text.as_bytes()].concat();
        self.0.write_all(&frame).await.expect("it reads");
    }

    /// The next text; none for a close.
    async fn next(&mut self) -> Option<String> {
        let reading = async {
            let mut text = Vec::new();
            loop {
                let first = self.0.read_u8().await.expect("it answers");
                let length = match self.0.read_u8().await.expect("it answers") {
                    126 => self.0.read_u16().await.expect("it answers").into(),
                    length => usize::from(length),
                };
                let mut part = vec![0; length];
                self.0.read_exact(&mut part).await.expect("it answers");
                match first & 0x0f {
                    0 | 1 => text.extend_from_slice(&part),
                    8 => return None,
                    other => panic!("a frame of kind {other}"),
                }
                if first & 0x80 != 0 {
                    return Some(String::from_utf8(text).expect("text"));
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("it comes in time")
    }
}

#[tokio::test]
async fn watches_and_keep_alives_are_served_by_websocket() {
    let world = World::new(|_| {}).await;
    let mut watch = WebSocket::open(&world, "/v3/watch").await;
    watch.send(r#"{"create_request":{"key":"aw=="}}"#).await;
    let created = watch.next().await.expect("an answer");
    assert!(
        created.starts_with("{\"result\":") && created.contains("\"created\":true"),
        "{created}"
    );
    world.kv().put(put(3)).await.expect("put");
    let event = watch.next().await.expect("an event");
    assert!(event.contains("\"value\":\"dnZ2\""), "{event}");
    watch.send(r#"{"cancel_request":{"watch_id":0}}"#).await;
    assert!(watch.next().await.expect("an answer").contains("\"canceled\":true"));

    world.lease().lease_grant(LeaseGrantRequest { id: 7, ttl: 100 }).await.expect("granted");
    let mut alive = WebSocket::open(&world, "/v3/lease/keepalive").await;
    for _ in 0..2 {
        alive.send(r#"{"ID":7}"#).await;
        let answer = alive.next().await.expect("an answer");
        assert!(answer.contains("\"TTL\":\"100\""), "{answer}");
    }
    // A call with one answer ends with it.
    let mut range = WebSocket::open(&world, "/v3/kv/range").await;
    range.send(r#"{"key":"aw=="}"#).await;
    assert!(range.next().await.expect("an answer").contains("\"count\":\"1\""));
    assert_eq!(range.next().await, None);
    drop((watch, alive));
    let gone = "etcd_debugging_mvcc_watch_stream_total 0\n";
    wait_for(&world, "/metrics", gone).await;
}
