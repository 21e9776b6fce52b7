//! Logs unary calls that take longer than `--warning-unary-request-duration`, with etcd's fields: remote
//! address, content, counts and sizes. At level debug every call is logged.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use prost::Message;
use quorate_proto::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    RequestOp, TxnRequest, TxnResponse,
};
use tonic::{Request, Response, Status};
use tracing::{Level, debug, enabled, warn};

use crate::codec;
use crate::env::Env;
use crate::member::{Member, loggable};

/// The remote address of a call's connection, as an extension of the request; none for a unix socket and
/// for calls of the JSON gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote(pub Option<SocketAddr>);

impl Remote {
    pub(super) fn of(extensions: &http::Extensions) -> Self {
        extensions.get().copied().unwrap_or(Self(None))
    }

    fn text(self) -> String {
        // Go's name for a unix socket without a name.
        self.0.map_or_else(|| "@".to_owned(), |address| address.to_string())
    }
}

/// A call that is logged if it is slow.
pub(super) struct SlowCall {
    env: Env,
    limit: Duration,
    began: Instant,
    wall: SystemTime,
    remote: Remote,
}

/// Counts and sizes of requests and responses; -1 where they are not counted.
pub(super) struct Sizes {
    request_count: i64,
    request_bytes: i64,
    response_count: i64,
    response_bytes: i64,
}

impl SlowCall {
    pub fn begin(member: &Member, remote: Remote) -> Self {
        let env = member.env().clone();
        let (began, wall, limit) = (env.now(), env.wall(), member.unary_warning());
        Self { env, limit, began, wall, remote }
    }

    /// Logs the call if it was slow. `what` is evaluated only then.
    pub fn end(self, what: impl FnOnce() -> (String, Sizes, String)) {
        let took = self.env.now() - self.began;
        let slow = took > self.limit;
        let all = enabled!(Level::DEBUG);
        if !slow && !all {
            return;
        }
        let (method, sizes, content) = what();
        let (start, took) = (codec::timestamp(self.wall), codec::go_duration(took));
        let remote = self.remote.text();
        let Sizes { request_count, request_bytes, response_count, response_bytes } = sizes;
        // As in etcd, level debug replaces the warning.
        macro_rules! log {
            ($level:ident) => {
                $level!(
                    "start time" = start,
                    "time spent" = took,
                    remote,
                    "response type" = method,
                    "request count" = request_count,
                    "request size" = request_bytes,
                    "response count" = response_count,
                    "response size" = response_bytes,
                    "request content" = content,
                    "request stats"
                )
            };
        }
        if all {
            log!(debug);
        } else {
            log!(warn);
        }
    }
}

impl Sizes {
    pub const UNCOUNTED: Self =
        Self { request_count: -1, request_bytes: -1, response_count: -1, response_bytes: -1 };
}

/// A request of service KV with its counts.
pub(super) trait Counted: Message + Clone {
    type Response: Message;
    const METHOD: &'static str;
    /// Returns the number of requests, which may depend on the response, and their size.
    fn request(&self, answer: Option<&Self::Response>) -> (i64, i64);
    fn response(answer: &Self::Response) -> i64;
    fn content(&self) -> String;
}

/// A call of service KV that is logged if it is slow. The message is kept for the log; its bytes are
/// shared, not copied.
pub(super) struct SlowKvCall<R> {
    watched: SlowCall,
    message: R,
}

impl<R: Counted> SlowKvCall<R> {
    pub fn begin(member: &Member, request: &Request<R>) -> Self {
        let watched = SlowCall::begin(member, Remote::of(request.extensions()));
        Self { watched, message: request.get_ref().clone() }
    }

    /// Logs the call if it was slow, and returns the response.
    pub fn end(
        self,
        answer: Result<Response<R::Response>, Status>,
    ) -> Result<Response<R::Response>, Status> {
        self.log(answer.as_ref().ok().map(Response::get_ref), 0);
        answer
    }

    /// Logs the call if it was slow. `keys_bytes` are read while the response is sent.
    pub fn log(self, answer: Option<&R::Response>, keys_bytes: u64) {
        let Self { watched, message } = self;
        watched.end(|| {
            let (request_count, request_bytes) = message.request(answer);
            let keys_bytes = i64::try_from(keys_bytes).unwrap_or(i64::MAX);
            let sizes = Sizes {
                request_count,
                request_bytes,
                response_count: answer.map_or(0, R::response),
                response_bytes: answer.map_or(0, bytes).saturating_add(keys_bytes),
            };
            (R::METHOD.to_owned(), sizes, message.content())
        });
    }
}

fn bytes(message: &impl Message) -> i64 {
    i64::try_from(message.encoded_len()).unwrap_or(i64::MAX)
}

impl Counted for RangeRequest {
    type Response = RangeResponse;
    const METHOD: &'static str = "/etcdserverpb.KV/Range";

    fn request(&self, _answer: Option<&RangeResponse>) -> (i64, i64) {
        (0, bytes(self))
    }

    fn response(answer: &RangeResponse) -> i64 {
        answer.count
    }

    fn content(&self) -> String {
        loggable::range(self)
    }
}

impl Counted for PutRequest {
    type Response = PutResponse;
    const METHOD: &'static str = "/etcdserverpb.KV/Put";

    fn request(&self, _answer: Option<&PutResponse>) -> (i64, i64) {
        (1, bytes(self))
    }

    fn response(_answer: &PutResponse) -> i64 {
        0
    }

    fn content(&self) -> String {
        loggable::put(self)
    }
}

impl Counted for DeleteRangeRequest {
    type Response = DeleteRangeResponse;
    const METHOD: &'static str = "/etcdserverpb.KV/DeleteRange";

    fn request(&self, _answer: Option<&DeleteRangeResponse>) -> (i64, i64) {
        (0, bytes(self))
    }

    fn response(answer: &DeleteRangeResponse) -> i64 {
        answer.deleted
    }

    fn content(&self) -> String {
        loggable::delete_range(self)
    }
}

impl Counted for TxnRequest {
    type Response = TxnResponse;
    const METHOD: &'static str = "/etcdserverpb.KV/Txn";

    /// Counts the operations of the branch that was taken.
    fn request(&self, answer: Option<&TxnResponse>) -> (i64, i64) {
        let Some(answer) = answer else { return (0, 0) };
        let taken: &[RequestOp] = if answer.succeeded { &self.success } else { &self.failure };
        let count = i64::try_from(taken.len()).unwrap_or(i64::MAX);
        (count, taken.iter().map(bytes).sum())
    }

    fn response(_answer: &TxnResponse) -> i64 {
        0
    }

    fn content(&self) -> String {
        loggable::txn(self)
    }
}
