//! A client that speaks JSON: each call a POST over HTTP/1, on a connection of its own, as a script with curl
//! makes it. It stands where a gRPC channel does, so that what is called, recorded and checked is the same.

use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream;
use http::header::HOST;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor};
use quorate::client::Channel;
use quorate::env::Env;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Code, Status};

use crate::cluster::Cluster;

/// A member that has not answered by then is left for another one.
const PATIENCE: Duration = Duration::from_secs(3);

/// What clients call, and where JSON is taken for it.
const PATHS: &[(&str, &str, &str)] = &[
    ("etcdserverpb.KV", "Range", "/v3/kv/range"),
    ("etcdserverpb.KV", "Put", "/v3/kv/put"),
    ("etcdserverpb.KV", "DeleteRange", "/v3/kv/deleterange"),
    ("etcdserverpb.KV", "Txn", "/v3/kv/txn"),
    ("etcdserverpb.KV", "Compact", "/v3/kv/compaction"),
    ("etcdserverpb.Lease", "LeaseGrant", "/v3/lease/grant"),
    ("etcdserverpb.Lease", "LeaseRevoke", "/v3/lease/revoke"),
    ("etcdserverpb.Lease", "LeaseTimeToLive", "/v3/lease/timetolive"),
    ("etcdserverpb.Lease", "LeaseLeases", "/v3/lease/leases"),
];

static DESCRIPTORS: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(quorate_proto::FILE_DESCRIPTOR_SET).expect("our compiler wrote it")
});

/// Calls in JSON to the member that a channel leads to.
#[derive(Clone)]
pub struct Json {
    pub env: Env,
    pub channel: Channel,
    pub cluster: Cluster,
}

impl Service<Request<Body>> for Json {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let json = self.clone();
        Box::pin(async move { json.ask(request).await })
    }
}

impl Json {
    async fn ask(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (path, asked, answered) = method(request.uri().path())?;
        let message = request.into_body().collect().await?.to_bytes();
        // Behind the prefix of gRPC.
        let text = write(asked, message.slice(5..))?;
        let (status, answer) = match self.env.timeout(PATIENCE, self.post(path, text)).await {
            Ok(Ok(answer)) => answer,
            failed => {
                self.channel.next_endpoint().await;
                // Whether it had an effect is not known, wherever it failed.
                let why = failed.err().map_or("broken".into(), |elapsed| elapsed.to_string());
                return Err(Status::unavailable(format!("POST {path}: {why}")));
            }
        };
        match status {
            StatusCode::OK => read(answered, &answer).map(respond),
            _ => Err(refusal(status, &answer)),
        }
    }

    async fn post(
        &self,
        path: &str,
        text: String,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let host = self.channel.endpoint();
        let stream = self.cluster.connect(&self.env, &host).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = async move { drop(connection.await) };
        self.env.spawn("JSON connection", connection);
        let body = Full::new(Bytes::from(text));
        let request = Request::post(path).header(HOST, host).body(body)?;
        let response = sender.send_request(request).await?;
        Ok((response.status(), response.into_body().collect().await?.to_bytes()))
    }
}

fn method(called: &str) -> Result<(&'static str, MessageDescriptor, MessageDescriptor), Status> {
    let row = PATHS.iter().find(|(service, name, _)| called == format!("/{service}/{name}"));
    let unknown = || Status::internal(format!("no path for {called}"));
    let (service, name, path) = row.ok_or_else(unknown)?;
    let service = DESCRIPTORS.get_service_by_name(service).ok_or_else(unknown)?;
    let method = service.methods().find(|method| method.name() == *name).ok_or_else(unknown)?;
    Ok((path, method.input(), method.output()))
}

/// A message of that name as text, and from text.
pub(super) fn text_of(name: &str, wire: Bytes) -> Result<String, Status> {
    write(kind(name)?, wire)
}

pub(super) fn wire_of(name: &str, json: &[u8]) -> Result<Bytes, Status> {
    read(kind(name)?, json)
}

fn kind(name: &str) -> Result<MessageDescriptor, Status> {
    let found = DESCRIPTORS.get_message_by_name(name);
    found.ok_or_else(|| Status::internal(format!("no message is called {name}")))
}

fn write(kind: MessageDescriptor, wire: Bytes) -> Result<String, Status> {
    let message = DynamicMessage::decode(kind, wire);
    let message = message.map_err(|why| Status::internal(why.to_string()))?;
    serde_json::to_string(&message).map_err(|why| Status::internal(why.to_string()))
}

/// An answer in the shape that etcd gives it: nothing in it is unknown.
fn read(kind: MessageDescriptor, json: &[u8]) -> Result<Bytes, Status> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let options = DeserializeOptions::new();
    let message = DynamicMessage::deserialize_with_options(kind, &mut reader, &options);
    let message = message.and_then(|message| reader.end().map(|()| message));
    let message = message.map_err(|why| Status::internal(format!("not an answer: {why}")))?;
    Ok(message.encode_to_vec().into())
}

fn refusal(status: StatusCode, json: &[u8]) -> Status {
    let Ok(told) = serde_json::from_slice::<serde_json::Value>(json) else {
        return Status::unknown(format!("{status}: {}", String::from_utf8_lossy(json)));
    };
    let code = told["code"].as_i64().and_then(|code| i32::try_from(code).ok());
    let message = told["message"].as_str().unwrap_or_default();
    Status::new(code.map_or(Code::Unknown, Code::from_i32), message)
}

/// An answer as gRPC gives it.
fn respond(message: Bytes) -> Response<Body> {
    let mut data = BytesMut::new();
    data.put_u8(0);
    data.put_u32(message.len() as u32);
    data.extend_from_slice(&message);
    let mut trailers = HeaderMap::new();
    trailers.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("0"));
    let frames = [Frame::data(data.freeze()), Frame::trailers(trailers)];
    let frames = frames.map(Ok::<_, Status>);
    Response::new(Body::new(StreamBody::new(stream::iter(frames))))
}
