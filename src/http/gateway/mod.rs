//! The JSON gateway: translates a POST of JSON into a gRPC call to the same server, and the response into
//! JSON. The call passes the same gate as a gRPC client's, with the caller's token, and is checked and
//! counted there.
//!
//! Paths, status codes and bodies are etcd's (3.7, grpc-gateway 2.29) to the byte. A stream of responses is
//! written as lines, `{"result":{..}}`; a stream of requests is read as JSON objects for as long as the body
//! is open.
//!
//! A large response is translated while it is received, so that its memory is bounded where it is made.
//!
//! Reading order: this file (one call), `binary` (headers), `paths` (RPCs by path), `frames` (bodies),
//! `reader` with `scanner` and `scalar` (requests), `json` and `pieces` (answers), `refusal` (errors),
//! `websocket`, `judged` (checks of what its clients send).

mod binary;
mod frames;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod json;
mod judged;
mod paths;
mod pieces;
mod reader;
mod refusal;
mod scalar;
mod scanner;
mod websocket;

use std::borrow::Cow;
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
use self::paths::Rpc;
use self::pieces::Pieces;
use self::reader::Bounds;
pub use self::websocket::Upgrade;
use super::{JSON, target};
use crate::codec;
use crate::env::Env;
use crate::limits;
use crate::plant;

/// The gRPC side of this server.
pub type Grpc = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Root of the gateway's paths.
pub(super) const ROOT: &str = "/v3/";
/// Root of the paths in etcd 3.3.
const OLD_ROOT: &str = "/v3beta/";
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Prefix of headers that are passed to the call without it, and of the call's headers in the response.
const METADATA: &str = "grpc-metadata-";

/// The gateway of one server.
#[derive(Clone)]
pub struct Gateway {
    env: Env,
    grpc: Grpc,
    bounds: Bounds,
}

impl Gateway {
    /// Creates a gateway to `grpc`, which accepts messages of `request_bytes_max` and their overhead.
    pub fn new(env: Env, grpc: Grpc, request_bytes_max: usize) -> Self {
        Self { env, grpc, bounds: frames::bounds(request_bytes_max) }
    }

    /// Returns whether a path is the gateway's.
    pub fn serves(path: &str) -> bool {
        path.starts_with(ROOT) || path.starts_with(OLD_ROOT)
    }

    /// Returns the headers with the caller's credentials: a websocket has them in its sub-protocol or in a
    /// cookie.
    pub fn call_headers<B>(request: &Request<B>) -> Cow<'_, HeaderMap> {
        match websocket::is_upgrade(request) {
            true => Cow::Owned(websocket::call_headers(request.headers())),
            false => Cow::Borrowed(request.headers()),
        }
    }

    pub async fn answer(self, request: Request<Body>) -> Response<Body> {
        if websocket::is_upgrade(&request) {
            return websocket::answer(self, request);
        }
        self.answer_http(request).await
    }

    async fn answer_http(self, request: Request<Body>) -> Response<Body> {
        let path = target::decoded(request.uri().path());
        let path = match path.strip_prefix(OLD_ROOT) {
            Some(rest) => format!("{ROOT}{rest}").into(),
            None => path,
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
            let requests = Requests::new(body, rpc.request.clone(), self.bounds);
            return self.ask(rpc, metadata, Body::new(requests)).await;
        }
        let message = frames::read_one(body, &rpc.request, self.bounds).await?;
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
        let answers = Responses { body, frames: Frames::default(), over: false };
        match (Status::from_header_map(&parts.headers), rpc.many_responses) {
            (Some(status), _) if status.code() == Code::Ok => Err(no_message()),
            (Some(status), false) => Err(status),
            (Some(status), true) => Ok(lines(Some(Err(status)), answers, rpc.response.clone())),
            (None, true) => Ok(answers.into_lines(rpc.response.clone()).await),
            (None, false) => answers.into_one(&rpc.response).await,
        }
    }
}

/// Returns the metadata of a call from the request's headers.
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
            && binary::check(name, value)?
            // Headers of the protocol cannot be set.
            && !key.starts_with("grpc-")
            && !matches!(key, "content-type" | "te")
            && let Ok(key) = HeaderName::try_from(key)
        {
            metadata.append(key, value.clone());
        }
    }
    Ok(metadata)
}

/// The response messages of a call.
struct Responses {
    body: Body,
    frames: Frames,
    over: bool,
}

impl Responses {
    /// Returns the next message, or the status of a call that failed.
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

    /// Returns the next bytes of the body, or the status of a call that failed.
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
            // The result follows the message, and may still be an error.
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

    /// Translates a message while it is received. A later error truncates the response.
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

/// The text of a response. Holds the gRPC body until it is sent, and with it the body's memory budget.
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

/// Returns a body with a line for each message, and a last one for an error. An error before the first
/// message is also the HTTP status.
fn lines(
    first: Option<Result<Bytes, Status>>,
    answers: Responses,
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

/// Returns the headers of a call as the gateway passes them on.
fn call_headers() -> HeaderMap {
    let name = HeaderName::from_static("grpc-metadata-content-type");
    HeaderMap::from_iter([(name, GRPC)])
}

fn no_message() -> Status {
    Status::internal("the call ended without a message")
}

#[cfg(test)]
mod tests;
