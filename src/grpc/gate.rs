//! What every gRPC call passes before its handler: the message size, the caller's deadline and its
//! wish for a leader. tonic leaves these to its own server, which needs tokio's clock; here they run
//! on the environment's.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tower::Service;

use super::status::status;
use crate::error::{Error, Refused, Unavailable};
use crate::limits;
use crate::member::Member;

const TIMEOUT: &str = "grpc-timeout";
const HAS_LEADER: &str = "hasleader";
const CLIENT_VERSION: &str = "client-api-version";
/// A gRPC message's prefix: a compression flag and a length, big-endian.
const PREFIX_BYTES: usize = 5;

/// [`super::routes`] behind the checks that all calls share.
#[derive(Clone)]
pub struct Gate {
    routes: Routes,
    member: Member,
}

impl Gate {
    pub fn new(member: Member) -> Self {
        Self { routes: super::routes(&member).prepare(), member }
    }

    fn refusal(&self, path: &str, headers: &HeaderMap) -> Option<Status> {
        if headers.get(CLIENT_VERSION).is_some_and(|v| v.to_str().is_err()) {
            return Some(status(Refused::InvalidClientApiVersion.into()));
        }
        let wants_leader = headers.get(HAS_LEADER).is_some_and(|v| v == "true");
        if wants_leader && !self.member.has_leader() {
            return Some(status(Unavailable::NoLeader.into()));
        }
        if self.member.is_learner() && !served_by_learners(path) {
            return Some(status(Refused::NotSupportedForLearner.into()));
        }
        None
    }
}

/// Range is let through here; that it is serializable is checked where the request is decoded.
fn served_by_learners(path: &str) -> bool {
    matches!(
        path,
        "/etcdserverpb.KV/Range"
            | "/etcdserverpb.Maintenance/Status"
            | "/etcdserverpb.Maintenance/Snapshot"
            | "/grpc.health.v1.Health/Check"
    )
}

impl<B> Service<Request<B>> for Gate
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if let Some(refusal) = self.refusal(request.uri().path(), request.headers()) {
            return Box::pin(async move { Ok(refusal.into_http()) });
        }
        let limit = self.member.request_bytes_max() + limits::GRPC_OVERHEAD_BYTES;
        let deadline = deadline(request.headers());
        let request = request.map(|body| Body::new(Limited::new(body, limit)));
        let answer = self.routes.call(request);
        let env = self.member.env().clone();
        Box::pin(async move {
            let Some(duration) = deadline else { return answer.await };
            env.timeout(duration, answer).await.unwrap_or_else(|_| {
                Ok(status(Error::from(Unavailable::DeadlineExceeded)).into_http())
            })
        })
    }
}

/// Whether the caller wants its stream to end when the member loses its leader.
pub fn needs_leader(metadata: &MetadataMap) -> bool {
    metadata.get(HAS_LEADER).is_some_and(|value| value == "true")
}

/// `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// A request body whose messages are bounded; a longer one fails with the text that gRPC's Go
/// library gives, as soon as its length has been read.
struct Limited<B> {
    body: B,
    limit: usize,
    /// The part of a message's prefix that has been read, and the bytes of the message still to come.
    prefix: Vec<u8>,
    rest: usize,
}

impl<B> Limited<B> {
    fn new(body: B, limit: usize) -> Self {
        Self { body, limit, prefix: Vec::with_capacity(PREFIX_BYTES), rest: 0 }
    }

    /// Follows the message boundaries through `data`.
    fn check(&mut self, mut data: &[u8]) -> Result<(), Status> {
        while !data.is_empty() {
            if self.rest > 0 {
                let skip = self.rest.min(data.len());
                self.rest -= skip;
                data = &data[skip..];
                continue;
            }
            let take = (PREFIX_BYTES - self.prefix.len()).min(data.len());
            self.prefix.extend_from_slice(&data[..take]);
            data = &data[take..];
            if let [_, a, b, c, d] = self.prefix[..] {
                self.rest = u32::from_be_bytes([a, b, c, d]) as usize;
                self.prefix.clear();
                if self.rest > self.limit {
                    return Err(Status::resource_exhausted(format!(
                        "grpc: received message larger than max ({} vs. {})",
                        self.rest, self.limit
                    )));
                }
            }
        }
        Ok(())
    }
}

impl<B> HttpBody for Limited<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            return Poll::Pending;
        };
        Poll::Ready(match frame {
            None => None,
            Some(Err(error)) => Some(Err(Status::from_error(error.into()))),
            Some(Ok(frame)) => {
                let checked = frame.data_ref().map_or(Ok(()), |data| self.check(data));
                Some(checked.map(|()| frame))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT, text.parse().expect("a header value"));
            deadline(&headers)
        };
        assert_eq!(read("1S"), Some(Duration::from_secs(1)));
        assert_eq!(read("4999750u"), Some(Duration::from_micros(4_999_750)));
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("123456789m"), None);
        assert_eq!(read("5"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn messages_are_bounded_across_frames() {
        let mut limited = Limited::new((), 4);
        assert!(limited.check(&[0, 0, 0]).is_ok());
        assert!(limited.check(&[0, 4, 1, 2]).is_ok());
        assert!(limited.check(&[3, 4, 0, 0, 0, 0]).is_ok());
        let error = limited.check(&[5]).expect_err("five is above the limit of four");
        assert_eq!(error.message(), "grpc: received message larger than max (5 vs. 4)");
        assert_eq!(error.code(), tonic::Code::ResourceExhausted);
    }
}
