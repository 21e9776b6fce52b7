//! gRPC to one server over one HTTP/2 connection, made of nothing of ours but the generated messages:
//! what the tests measure and check must not depend on what they test. No retries, no second endpoint.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{
    HashKvRequest, HashKvResponse, MoveLeaderRequest, MoveLeaderResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, StatusRequest, StatusResponse,
};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

/// Longer than the timeout of a request in etcd.
const CALL: Duration = Duration::from_secs(15);

/// A connection; clones share it.
#[derive(Clone)]
pub struct Channel(SendRequest<Body>);

impl Channel {
    /// One attempt.
    pub async fn connect(endpoint: &str) -> std::io::Result<Self> {
        Self::connect_with(endpoint, 4 << 20, 16 << 20).await
    }

    /// With windows of so many unread bytes, of one stream and of all.
    pub async fn connect_with(
        endpoint: &str,
        stream_bytes: u32,
        all_bytes: u32,
    ) -> std::io::Result<Self> {
        let stream = tokio::net::TcpStream::connect(endpoint).await?;
        stream.set_nodelay(true)?;
        let (send, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(stream_bytes)
            .initial_connection_window_size(all_bytes)
            .max_send_buf_size(4 << 20)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self(send))
    }

    /// Tries until the server takes the connection.
    pub async fn connect_within(endpoint: &str, patience: Duration) -> std::io::Result<Self> {
        let deadline = Instant::now() + patience;
        loop {
            match Self::connect(endpoint).await {
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                connected => return connected,
            }
        }
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// The calls that the tests make.
#[derive(Clone)]
pub struct Client {
    pub kv: KvClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
}

impl Client {
    pub fn new(channel: &Channel, endpoint: &str) -> Self {
        let origin = origin(endpoint);
        let kv = KvClient::with_origin(channel.clone(), origin.clone());
        let maintenance = MaintenanceClient::with_origin(channel.clone(), origin);
        Self { kv: kv.max_decoding_message_size(usize::MAX), maintenance }
    }

    /// Connects with patience: the server is known to serve, or to be about to.
    pub async fn connect(endpoint: &str) -> Self {
        let channel = Channel::connect_within(endpoint, Duration::from_secs(20)).await;
        let channel = channel.unwrap_or_else(|e| panic!("connecting to {endpoint}: {e}"));
        Self::new(&channel, endpoint)
    }

    pub async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<PutResponse, Status> {
        let (key, value) = (key.to_vec().into(), value.to_vec().into());
        within(self.kv.put(PutRequest { key, value, ..Default::default() })).await
    }

    /// Everything that begins with `prefix`.
    pub async fn scan(&mut self, prefix: &[u8]) -> Result<RangeResponse, Status> {
        let mut end = prefix.to_vec();
        *end.last_mut().expect("a prefix is not empty") += 1;
        let (key, range_end) = (prefix.to_vec().into(), end.into());
        self.range(RangeRequest { key, range_end, ..Default::default() }).await
    }

    pub async fn range(&mut self, request: RangeRequest) -> Result<RangeResponse, Status> {
        within(self.kv.range(request)).await
    }

    pub async fn status(&mut self) -> Result<StatusResponse, Status> {
        within(self.maintenance.status(StatusRequest {})).await
    }

    pub async fn move_leader(&mut self, target_id: u64) -> Result<MoveLeaderResponse, Status> {
        within(self.maintenance.move_leader(MoveLeaderRequest { target_id })).await
    }

    pub async fn hash_kv(&mut self, revision: i64) -> Result<HashKvResponse, Status> {
        let request = HashKvRequest { revision };
        within(self.maintenance.hash_kv(request)).await
    }
}

/// What requests to this endpoint are addressed to.
pub fn origin(endpoint: &str) -> Uri {
    format!("http://{endpoint}").parse().expect("host and port make a URI")
}

/// A server that was killed can leave a call without an end.
async fn within<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(CALL, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("the server does not answer")),
    }
}
