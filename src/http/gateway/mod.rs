//! The JSON gateway: a POST of JSON to a path of etcd's becomes a gRPC call to this very server, and the
//! answer becomes JSON. It serves nothing itself: the call enters where gRPC clients' calls do, with the
//! caller's token, and is checked, counted and answered there.
//!
//! What is etcd's (3.7, grpc-gateway 2.29) to the byte: paths, status codes, bodies of answers and errors.
//! An RPC with many responses answers a line each, `{"result":{..}}`, and begins to answer with the first;
//! one with many requests takes JSON objects one after the other, for as long as the body is open.
//!
//! A large answer is never here as a whole: it is written while it comes, so that it is bounded where
//! it is made.
//!
//! Reading order: this file (one call), `paths` (which RPC), `json` (messages as JSON), `pieces` (large
//! ones), `frames` (bodies of gRPC), `refusal` (errors).

mod frames;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod json;
mod paths;
mod pieces;
mod refusal;

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full, StreamBody};
use prost_reflect::MessageDescriptor;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service as _;
use tower::util::BoxCloneSyncService;

use self::frames::{Frames, Requests, frame};
use self::json::Objects;
use self::paths::Rpc;
use self::pieces::Pieces;
use super::JSON;
use crate::codec;
use crate::limits;
use crate::plant;

/// The gRPC side of this server.
pub type Grpc = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// All paths below it are the gateway's.
const ROOT: &str = "/v3/";
/// Where etcd 3.3 had them.
const OLD_ROOT: &str = "/v3beta/";
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// A header of this name goes to the call without it; one of the call's comes back with it.
const METADATA: &str = "grpc-metadata-";

/// The gateway of one server.
#[derive(Clone)]
pub struct Gateway {
    grpc: Grpc,
    json_bytes_max: usize,
}

impl Gateway {
    /// In front of `grpc`, which takes messages of so many bytes.
    pub fn new(grpc: Grpc, request_bytes_max: usize) -> Self {
        Self { grpc, json_bytes_max: frames::json_bytes_max(request_bytes_max) }
    }

    /// Whether a request with this path is for the gateway.
    pub fn serves(path: &str) -> bool {
        path.starts_with(ROOT) || path.starts_with(OLD_ROOT)
    }

    pub async fn answer(self, request: Request<Body>) -> Response<Body> {
        let path = match request.uri().path().strip_prefix(OLD_ROOT) {
            Some(rest) => format!("{ROOT}{rest}"),
            None => request.uri().path().to_owned(),
        };
        let Some(rpc) = paths::find(&path) else {
            return refusal::answer(&Status::not_found("Not Found"));
        };
        if request.method() != Method::POST {
            return refusal::answer(&Status::unimplemented("Method Not Allowed"));
        }
        self.call(rpc, request).await.unwrap_or_else(|status| refusal::answer(&status))
    }

    async fn call(mut self, rpc: &Rpc, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        let metadata = metadata(&parts.headers)?;
        if rpc.many_requests {
            let requests = Requests::new(body, rpc.request.clone(), self.json_bytes_max);
            return self.ask(rpc, metadata, Body::new(requests)).await;
        }
        let message = read_one(body, &rpc.request, self.json_bytes_max).await?;
        let one = || Body::new(Full::new(frame(&message)));
        if plant::GATEWAY_ASKS_TWICE.is_planted() && message.len() % 3 == 0 {
            drop(self.ask(rpc, metadata.clone(), one()).await);
        }
        self.ask(rpc, metadata, one()).await
    }

    async fn ask(
        &mut self,
        rpc: &Rpc,
        metadata: HeaderMap,
        body: Body,
    ) -> Result<Response<Body>, Status> {
        let mut call = Request::post(&rpc.path).body(body).expect("the table's paths are paths");
        *call.headers_mut() = metadata;
        let Ok(response) = self.grpc.call(call).await;
        let (parts, body) = response.into_parts();
        let answers = Answers { body, frames: Frames::default(), over: false };
        match (Status::from_header_map(&parts.headers), rpc.many_responses) {
            (Some(status), _) if status.code() == Code::Ok => Err(no_message()),
            (Some(status), false) => Err(status),
            (Some(status), true) => Ok(lines(Some(Err(status)), answers, rpc.response.clone())),
            (None, true) => Ok(answers.into_lines(rpc.response.clone()).await),
            (None, false) => answers.into_one(&rpc.response).await,
        }
    }
}

/// What of a request's headers its call has.
fn metadata(headers: &HeaderMap) -> Result<HeaderMap, Status> {
    let mut metadata = HeaderMap::new();
    metadata.insert(CONTENT_TYPE, GRPC);
    for (name, value) in headers {
        if *name == AUTHORIZATION {
            metadata.append(AUTHORIZATION, value.clone());
        } else if *name == TIMEOUT {
            let text = value.to_str().unwrap_or_default();
            if codec::grpc_timeout(text).is_none() {
                let text = format!("invalid grpc-timeout: {text}");
                return Err(Status::invalid_argument(text));
            }
            metadata.insert(TIMEOUT, value.clone());
        } else if let Some(key) = name.as_str().strip_prefix(METADATA)
            // gRPC keeps its own for itself.
            && !key.starts_with("grpc-")
            && !matches!(key, "content-type" | "te")
            && let Ok(key) = HeaderName::try_from(key)
        {
            metadata.append(key, value.clone());
        }
    }
    Ok(metadata)
}

/// The message that a body's first object says. As in etcd, nothing says the default, and what comes
/// behind is not looked at.
async fn read_one(
    mut body: Body,
    kind: &MessageDescriptor,
    bytes_max: usize,
) -> Result<Bytes, Status> {
    let mut objects = Objects::default();
    let mut found = None;
    while let Some(part) = body.frame().await {
        let part = part?.into_data().unwrap_or_default();
        if found.is_some() {
            continue;
        }
        objects.push(&part);
        found = objects.next().map_err(Status::invalid_argument)?;
        if found.is_none() && objects.len() > bytes_max {
            let text = format!("request larger than max ({} vs. {bytes_max})", objects.len());
            return Err(Status::resource_exhausted(text));
        }
    }
    match found {
        Some(object) => json::read(kind, &object).map_err(Status::invalid_argument),
        None if objects.len() > 0 => Err(Status::invalid_argument("unexpected EOF")),
        None => Ok(Bytes::new()),
    }
}

/// The responses of a call.
struct Answers {
    body: Body,
    frames: Frames,
    over: bool,
}

impl Answers {
    /// The next message, or how the call ended if not well.
    async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        loop {
            if let Some(message) = self.frames.next() {
                return Some(Ok(message));
            }
            match self.part().await? {
                Ok(data) => self.frames.push(&data),
                Err(status) => return Some(Err(status)),
            }
        }
    }

    /// The next bytes of the body, or how the call ended if not well.
    async fn part(&mut self) -> Option<Result<Bytes, Status>> {
        if self.over {
            return None;
        }
        match self.body.frame().await.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => Some(Ok(data)),
            Some(Ok(Err(last))) => {
                self.over = true;
                let status = last.trailers_ref().and_then(Status::from_header_map);
                status.filter(|status| status.code() != Code::Ok).map(Err)
            }
            Some(Err(broken)) => {
                self.over = true;
                Some(Err(broken))
            }
            None => {
                self.over = true;
                None
            }
        }
    }

    async fn into_one(mut self, kind: &MessageDescriptor) -> Result<Response<Body>, Status> {
        let length = loop {
            if let Some(length) = self.frames.length() {
                break length;
            }
            let data = self.part().await.unwrap_or_else(|| Err(no_message()))?;
            self.frames.push(&data);
        };
        let body = if length <= limits::GATEWAY_WHOLE_BYTES {
            let message = self.next().await.unwrap_or_else(|| Err(no_message()))?;
            let text = json::write(kind, message).map_err(Status::internal)?;
            // The result comes behind the message, and the call is not over before.
            if let Some(Err(status)) = self.next().await {
                return Err(status);
            }
            Body::new(Kept { text: Full::new(text.into()), _from: self.body })
        } else {
            self.into_pieces(Pieces::new(kind.clone(), length, limits::GATEWAY_WHOLE_BYTES))
        };
        let mut response = Response::new(body);
        response.headers_mut().insert(CONTENT_TYPE, JSON);
        response.headers_mut().extend(call_headers());
        Ok(response)
    }

    /// A message that has begun, while it comes. An error that comes behind its beginning breaks the
    /// answer off.
    fn into_pieces(mut self, mut pieces: Pieces) -> Body {
        pieces.push(&self.frames.open());
        let parts = stream::try_unfold((self, pieces), |(mut answers, mut pieces)| async move {
            loop {
                let piece = pieces.next(limits::GATEWAY_PIECE_BYTES).map_err(Status::internal)?;
                if !piece.is_empty() {
                    return Ok(Some((Frame::data(piece), (answers, pieces))));
                }
                if pieces.is_over() {
                    return answers.next().await.map_or(Ok(None), |behind| behind.map(|_| None));
                }
                match answers.part().await {
                    Some(data) => pieces.push(&data?),
                    None => return Err(Status::internal("the call ended within a message")),
                }
            }
        });
        Body::new(StreamBody::new(Box::pin(parts)))
    }

    async fn into_lines(mut self, kind: MessageDescriptor) -> Response<Body> {
        let first = self.next().await;
        let mut response = lines(first, self, kind);
        response.headers_mut().extend(call_headers());
        response
    }
}

/// The text of an answer. Keeps what the answer was made of until it is sent: what was set aside for the
/// one is also for the other.
struct Kept {
    text: Full<Bytes>,
    _from: Body,
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.text).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.text.size_hint()
    }
}

/// A line for each message, the last one for the error if there is one, which is the status if it came
/// before any message.
fn lines(
    first: Option<Result<Bytes, Status>>,
    answers: Answers,
    kind: MessageDescriptor,
) -> Response<Body> {
    let status = match &first {
        Some(Err(status)) => refusal::http_status(status.code()),
        Some(Ok(_)) | None => StatusCode::OK,
    };
    let lines = stream::unfold((first, Some(answers)), move |(first, answers)| {
        let kind = kind.clone();
        async move {
            let mut answers = answers?;
            let next = match first {
                Some(first) => first,
                None => answers.next().await?,
            };
            let text =
                next.and_then(|message| json::write(&kind, message).map_err(Status::internal));
            let (line, rest) = match text {
                Ok(text) => (json::result_line(&text), Some(answers)),
                Err(status) => (refusal::line(&status), None),
            };
            let frame = Frame::data(Bytes::from(line));
            Some((Ok::<_, Infallible>(frame), (None, rest)))
        }
    });
    let mut response = Response::new(Body::new(StreamBody::new(lines)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// The headers of a call that answered, as its gateway shows them.
fn call_headers() -> HeaderMap {
    let name = HeaderName::from_static("grpc-metadata-content-type");
    HeaderMap::from_iter([(name, GRPC)])
}

fn no_message() -> Status {
    Status::internal("the call ended without a message")
}

#[cfg(test)]
mod tests;
