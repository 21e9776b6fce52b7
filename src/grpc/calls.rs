//! The methods of [`crate::rpc`] by their paths, and counts of their calls: started, handled by result, by
//! client version. A method without a row is answered as gRPC's Go library answers an unknown one.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use tonic::{Code, Status};

use super::status::status;
use super::{direct, spans, unread};
use crate::env::Env;
use crate::error::Unavailable;
use crate::limits;
use crate::metrics::{self, Metrics};
use crate::rpc::{self, Flow, RPCS, Rpc, Rule};
use crate::trace::Span;

#[derive(Debug)]
struct Method {
    rpc: &'static Rpc,
    /// For those that are served without the router. Their handlers log slow calls themselves: they know
    /// more about them.
    direct: Option<direct::Method>,
    counters: metrics::Calls,
}

/// The table and its counters; clones share them.
#[derive(Clone)]
pub struct Calls(Arc<Inner>);

struct Inner {
    metrics: Arc<Metrics>,
    /// By path.
    methods: HashMap<String, Arc<Method>>,
    /// The client versions seen so far; bounded, because clients choose them.
    versions: RwLock<BTreeSet<String>>,
    /// The clock for timing calls, if they are timed.
    clock: Option<Env>,
}

impl Calls {
    /// Calls are timed if there is a clock.
    pub fn new(metrics: Arc<Metrics>, clock: Option<Env>) -> Self {
        let codes = CODES.map(|(_, label)| label);
        let mut methods = HashMap::new();
        for rpc in RPCS {
            let of = [rpc.flow.label(), rpc.service, rpc.method];
            let counters = metrics.calls(of, &codes, clock.is_some());
            let direct = direct::Method::ALL.iter().find(|(name, _)| *name == rpc.method);
            let direct = direct.filter(|_| rpc.service == rpc::KV).map(|(_, method)| *method);
            let method = Arc::new(Method { rpc, direct, counters });
            methods.insert(rpc.path(), method);
        }
        Self(Arc::new(Inner { metrics, methods, versions: RwLock::default(), clock }))
    }

    /// Starts a call and counts it.
    pub fn begin(&self, path: &str) -> Result<Call, Status> {
        let Some(method) = self.0.methods.get(path).cloned() else { return Err(unknown(path)) };
        method.counters.started.inc();
        let clock = self.0.clock.clone().map(|env| (env.now(), env));
        Ok(Call { metrics: self.0.metrics.clone(), method, clock, span: None, ended: false })
    }

    /// Counts a call by the version in its client's header.
    pub fn count_version(&self, call: &Call, version: &str) {
        let kind = if call.method.rpc.flow == Flow::Unary { "unary" } else { "stream" };
        let version = if self.is_shown(version) { version } else { "other" };
        self.0.metrics.client_requests.with_label_values(&[kind, version]).inc();
    }

    fn is_shown(&self, version: &str) -> bool {
        let versions = &self.0.versions;
        if versions.read().unwrap_or_else(PoisonError::into_inner).contains(version) {
            return true;
        }
        let mut versions = versions.write().unwrap_or_else(PoisonError::into_inner);
        let room = versions.len() < limits::CLIENT_VERSIONS_MAX;
        if room {
            versions.insert(version.to_owned());
        }
        room
    }
}

/// Counts the bytes and messages that the client of a call sends.
pub struct Received {
    metrics: Arc<Metrics>,
    method: Arc<Method>,
}

impl Received {
    pub fn flow(&self) -> Flow {
        self.method.rpc.flow
    }

    pub fn bytes(&self, bytes: usize) {
        self.metrics.client_received_bytes.inc_by(bytes as u64);
    }

    pub fn message(&self) {
        self.method.counters.received.inc();
    }
}

/// One call. A call that is dropped without a result was cancelled by its client, or not read until its
/// deadline.
pub struct Call {
    metrics: Arc<Metrics>,
    method: Arc<Method>,
    /// When it began and the clock, if calls are timed.
    clock: Option<(Instant, Env)>,
    /// The span, if the call is traced.
    span: Option<Span>,
    ended: bool,
}

impl Call {
    /// What the method requires of its caller.
    pub fn rule(&self) -> Rule {
        self.method.rpc.rule
    }

    /// The row of the method.
    pub fn rpc(&self) -> &'static Rpc {
        self.method.rpc
    }

    /// Traces the call in this span, which ends with its result.
    pub fn trace(&mut self, span: Span) {
        self.span = Some(span);
    }

    /// Returns the counters for the body of the request.
    pub fn received(&self) -> Received {
        Received { metrics: self.metrics.clone(), method: self.method.clone() }
    }

    /// Whether it is a unary method whose slow calls are logged by the gate, see [`super::slow`].
    pub fn is_logged_by_gate(&self) -> bool {
        self.method.rpc.flow == Flow::Unary && self.method.direct.is_none()
    }

    /// The method, if it is served without the router.
    pub(super) fn direct(&self) -> Option<direct::Method> {
        self.method.direct
    }

    /// Counts bytes of the response.
    pub fn count_sent(&self, bytes: usize) {
        self.metrics.client_sent_bytes.inc_by(bytes as u64);
    }

    /// Counts a message of the response.
    pub fn count_message(&self) {
        self.method.counters.sent.inc();
    }

    /// Counts the result; a second one is ignored. `why` is evaluated only if a span records it.
    pub fn end(&mut self, code: Code, why: impl FnOnce() -> String) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if let Some(span) = &self.span {
            spans::end(span, code, why);
        }
        let counters = &self.method.counters;
        let at = CODES.iter().position(|(other, _)| *other == code);
        counters.handled[at.expect("the table has every code")].inc();
        if let (Some(seconds), Some((began, env))) = (&counters.seconds, &self.clock) {
            metrics::observe(seconds, env.now().saturating_duration_since(*began));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        match unread::is_late() {
            true => {
                let late = status(Unavailable::DeadlineExceeded.into());
                self.end(late.code(), || late.message().to_owned());
            }
            false => self.end(Code::Cancelled, String::new),
        }
    }
}

/// Every result and its name in grpc-go's metrics.
const CODES: [(Code, &str); 17] = [
    (Code::Ok, "OK"),
    (Code::Cancelled, "Canceled"),
    (Code::Unknown, "Unknown"),
    (Code::InvalidArgument, "InvalidArgument"),
    (Code::DeadlineExceeded, "DeadlineExceeded"),
    (Code::NotFound, "NotFound"),
    (Code::AlreadyExists, "AlreadyExists"),
    (Code::PermissionDenied, "PermissionDenied"),
    (Code::ResourceExhausted, "ResourceExhausted"),
    (Code::FailedPrecondition, "FailedPrecondition"),
    (Code::Aborted, "Aborted"),
    (Code::OutOfRange, "OutOfRange"),
    (Code::Unimplemented, "Unimplemented"),
    (Code::Internal, "Internal"),
    (Code::Unavailable, "Unavailable"),
    (Code::DataLoss, "DataLoss"),
    (Code::Unauthenticated, "Unauthenticated"),
];

fn unknown(path: &str) -> Status {
    let parts = path.strip_prefix('/').and_then(|path| path.rsplit_once('/'));
    Status::unimplemented(match parts {
        None => format!("malformed method name: {path:?}"),
        Some((service, method)) if RPCS.iter().any(|rpc| rpc.service == service) => {
            format!("unknown method {method} for service {service}")
        }
        Some((service, _)) => format!("unknown service {service}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_method_and_result() {
        let metrics = Arc::new(Metrics::new());
        let calls = Calls::new(metrics.clone(), None);
        let mut put = calls.begin("/etcdserverpb.KV/Put").expect("a method");
        calls.count_version(&put, "3.5");
        put.received().message();
        put.count_message();
        put.end(Code::Ok, String::new);
        put.end(Code::Internal, String::new);
        drop(put);
        drop(calls.begin("/etcdserverpb.Watch/Watch").expect("a method"));
        let page = metrics.text(Vec::new());
        let labels = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";
        for line in [
            format!("grpc_server_started_total{{{labels}}} 1"),
            format!("grpc_server_handled_total{{grpc_code=\"OK\",{labels}}} 1"),
            format!("grpc_server_handled_total{{grpc_code=\"Internal\",{labels}}} 0"),
            format!("grpc_server_msg_received_total{{{labels}}} 1"),
            format!("grpc_server_msg_sent_total{{{labels}}} 1"),
            "etcd_server_client_requests_total{client_api_version=\"3.5\",type=\"unary\"} 1".into(),
        ] {
            assert!(page.contains(&format!("\n{line}\n")), "{line} is not on the page:\n{page}");
        }
        let watch = "grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\"";
        let gone = format!("grpc_code=\"Canceled\",{watch},grpc_type=\"bidi_stream\"}} 1\n");
        assert!(page.contains(&gone), "{page}");
        assert!(!page.contains("handling_seconds"), "{page}");
    }

    #[test]
    fn client_versions_are_bounded() {
        let metrics = Arc::new(Metrics::new());
        let calls = Calls::new(metrics.clone(), None);
        let call = calls.begin("/etcdserverpb.KV/Put").expect("a method");
        for version in 0..2 * limits::CLIENT_VERSIONS_MAX {
            calls.count_version(&call, &version.to_string());
        }
        let other = metrics.client_requests.with_label_values(&["unary", "other"]).get();
        assert_eq!(other as usize, limits::CLIENT_VERSIONS_MAX);
    }

    #[test]
    fn unknown_methods_are_answered_as_grpc_go_does() {
        let calls = Calls::new(Arc::new(Metrics::new()), None);
        let text = |path: &str| calls.begin(path).err().expect("unknown").message().to_owned();
        assert_eq!(text("/a.B/C"), "unknown service a.B");
        assert_eq!(text("/etcdserverpb.KV/Get"), "unknown method Get for service etcdserverpb.KV");
        assert_eq!(text("/nothing"), "malformed method name: \"/nothing\"");
    }
}
