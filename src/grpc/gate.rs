//! The checks that every gRPC call passes before its handler: the method, tracing, the deadline, the
//! encoding, learners, the client version, the requirement of a leader, the message size and the
//! permission rule of the method ([`crate::rpc`]). tonic implements these in its own server, which needs
//! tokio's clock; here they use the environment's.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Extensions, HeaderMap, Request, Response};
use http_body::Body as HttpBody;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tower::Service;

use super::body::{self, Limited, ResponseBody};
use super::calls::{Call, Calls};
use super::compression::Encoding;
use super::kv::Kv;
use super::paged::{AnswerCharge, Paged};
use super::slow::{Remote, Sizes, SlowCall};
use super::spans::Spans;
use super::status::{refusal, spell_refusal, status};
use super::{caller, deadline, direct, tapped, unread};
use crate::error::{Error, Refused, Unavailable};
use crate::limits;
use crate::member::Member;

const HAS_LEADER: &str = "hasleader";
const CLIENT_VERSION: &str = "client-api-version";

/// [`super::routes`] behind the checks that all calls share.
#[derive(Clone)]
pub struct Gate {
    routes: Routes,
    calls: Calls,
    spans: Option<Spans>,
    member: Member,
}

impl Gate {
    /// `timed` calls have a duration metric; with `spans`, calls are traced.
    pub fn new(member: Member, timed: bool, spans: Option<Spans>) -> Self {
        let clock = timed.then(|| member.env().clone());
        let calls = Calls::new(member.metrics().clone(), clock);
        Self { routes: super::routes(&member).prepare(), calls, spans, member }
    }

    /// Whether a request shows a caller that is known; where authentication is disabled, all are.
    pub fn knows(&self, headers: &HeaderMap, extensions: &Extensions) -> bool {
        self.member.knows(&caller::read(headers, extensions))
    }

    /// Runs the checks that need no message, in etcd's order, and returns the encoding of the messages.
    fn admit(
        &self,
        call: &Call,
        headers: &HeaderMap,
        deadline: Option<Instant>,
    ) -> Result<Encoding, Status> {
        let late = deadline.is_some_and(|at| at <= self.member.env().now());
        if late {
            return Err(status(Unavailable::DeadlineExceeded.into()));
        }
        let encoding = Encoding::of(headers)?;
        if self.member.is_learner() && !call.rpc().learner {
            return Err(status(Refused::NotSupportedForLearner.into()));
        }
        let version = headers
            .get(CLIENT_VERSION)
            .map_or(Ok("unknown"), |version| std::str::from_utf8(version.as_bytes()));
        let Ok(version) = version else {
            return Err(status(Refused::InvalidClientApiVersion.into()));
        };
        self.calls.count_version(call, version);
        let wants_leader = headers.get(HAS_LEADER).is_some_and(|v| v == "true");
        if wants_leader && !self.member.has_leader() {
            return Err(status(Unavailable::NoLeader.into()));
        }
        Ok(encoding)
    }
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
        let headers = request.headers();
        let timeout = match deadline::read(headers) {
            Ok(timeout) => timeout,
            Err(why) => return ready(deadline::malformed(&why)),
        };
        let mut caller = caller::read(headers, request.extensions());
        let remote = Remote::of(request.extensions());
        let path = request.uri().path();
        let mut call = match self.calls.begin(path) {
            Ok(call) => call,
            Err(unknown) => return ready(refusal(&unknown)),
        };
        let span = self.spans.as_ref().and_then(|spans| spans.begin(path, headers));
        let is_traced = span.is_some();
        if let Some(span) = span {
            call.trace(span.clone());
            caller = caller.traced(span);
        }
        let deadline = timeout.map(|duration| self.member.env().now() + duration);
        let encoding = match self.admit(&call, headers, deadline) {
            Ok(encoding) => encoding,
            Err(refused) => {
                call.end(refused.code(), || refused.message().to_owned());
                return ready(refusal(&refused));
            }
        };
        let limit = self.member.request_bytes_max() + limits::GRPC_OVERHEAD_BYTES;
        let mut request = request;
        if is_traced || !caller.is_anonymous() {
            request.extensions_mut().insert(caller.clone());
        }
        let watched = call
            .is_logged_by_gate()
            .then(|| (SlowCall::begin(&self.member, remote), request.uri().clone()));
        let direct =
            call.direct().filter(|_| encoding == Encoding::Identity && !tapped::is_listened_to());
        let (kv, mut routes) = (Kv { member: self.member.clone() }, self.routes.clone());
        let is_bounded = unread::is_bounded(call.rpc());
        Box::pin(async move {
            let (member, received) = (&kv.member, call.received());
            let env = member.env();
            let rule = call.rule();
            let answer = async {
                let answer = match (member.permit(&caller, rule).await, direct) {
                    (Err(refused), _) => status(refused).into_http(),
                    (Ok(()), Some(method)) => {
                        let request =
                            request.map(|body| Limited::new(body, limit, false, received));
                        direct::call(&kv, method, request, routes).await
                    }
                    (Ok(()), None) => {
                        let request = encoding.plain(request, limit, received);
                        let answer = routes.call(tapped::tap(member, request)).await;
                        answer.unwrap_or_else(|never| match never {})
                    }
                };
                if let Some((watched, uri)) = watched {
                    watched.end(|| (uri.path().to_owned(), Sizes::UNCOUNTED, String::new()));
                }
                answer
            };
            let mut response = match deadline {
                None => answer.await,
                Some(at) => {
                    let left = at.saturating_duration_since(env.now());
                    let late = || status(Error::from(Unavailable::DeadlineExceeded)).into_http();
                    env.timeout(left, answer).await.unwrap_or_else(|_| late())
                }
            };
            if let Some(code) = body::code(response.headers()) {
                spell_refusal(response.headers_mut(), call.rpc());
                call.end(code, || body::message(response.headers()));
                return Ok(response);
            }
            let extensions = response.extensions_mut();
            let (paged, held) = (extensions.remove::<Paged>(), extensions.remove::<AnswerCharge>());
            let response = match paged {
                // The length of a paged message precedes its content, so it cannot be compressed.
                Some(paged) => response.map(|_| paged.body()),
                None => encoding.encode(response),
            };
            unread::given(is_bounded, deadline);
            let deadline = deadline.map(|at| (at, env.sleep_until(at)));
            Ok(response
                .map(|body| Body::new(ResponseBody::new(body, call).bounded(deadline, held))))
        })
    }
}

/// Wraps a response that is already there.
fn ready(response: Response<Body>) -> BoxFuture<'static, Result<Response<Body>, Infallible>> {
    Box::pin(std::future::ready(Ok(response)))
}

/// Returns whether the stream must end when the member loses its leader.
pub fn needs_leader(metadata: &MetadataMap) -> bool {
    metadata.get(HAS_LEADER).is_some_and(|value| value == "true")
}
