//! What a client sees of a single member over real gRPC and HTTP: texts, ends of streams, counts, an
//! orderly stop. One process, real sockets on ports of the system's choice; state machine and
//! consensus have tests of their own.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a client stands outside the server, in the real world"
)]

mod certificates;
mod counts;
mod leases;
mod metadata;
mod refusals;
mod stop;
mod store;
mod unread;
mod websocket;
mod wire;

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
    AuthRoleAddRequest, AuthUserAddRequest, CompactionRequest, DefragmentRequest,
    DeleteRangeRequest, DowngradeRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseLeasesRequest, LeaseRevokeRequest, MemberListRequest, MemberUpdateRequest, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RequestOp, SnapshotRequest, StatusRequest,
    TxnRequest, WatchCreateRequest, WatchRequest, WatchResponse, auth_client::AuthClient,
    cluster_client::ClusterClient, downgrade_request::DowngradeAction, kv_client::KvClient,
    lease_client::LeaseClient, maintenance_client::MaintenanceClient, request_op,
    watch_client::WatchClient, watch_request::RequestUnion,
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

    /// The whole stream of `Snapshot`.
    async fn snapshot(&self) -> Vec<u8> {
        let mut maintenance = MaintenanceClient::new(self.channel.clone());
        let pieces = maintenance.snapshot(SnapshotRequest {}).await.expect("it begins");
        let mut pieces = pieces.into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.message().await.expect("it goes on") {
            bytes.extend_from_slice(&piece.blob);
        }
        bytes
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

/// Repeats the call until the answer contains this.
async fn wait_for(world: &World, path: &str, wanted: &str) {
    let answered = async { while !world.get(path).await.contains(wanted) {} };
    tokio::time::timeout(PATIENCE, answered).await.unwrap_or_else(|_| panic!("no {wanted}"));
}
