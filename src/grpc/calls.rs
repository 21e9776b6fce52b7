//! Which methods there are, and counts of their calls: begun, ended by result, by client version. A
//! method that is not in the table is answered as gRPC's Go library answers an unknown one.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use tonic::{Code, Status};

use crate::auth::{self, Rule};
use crate::env::Env;
use crate::limits;
use crate::metrics::{Metrics, observe};

/// How messages flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Unary,
    ServerStream,
    BidiStream,
}

impl Flow {
    fn label(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// A service's name, its unary methods, and the others.
type Service = (&'static str, &'static [&'static str], &'static [(&'static str, Flow)]);

/// etcd's services.
const SERVICES: &[Service] = &[
    (
        "etcdserverpb.KV",
        &["Range", "Put", "DeleteRange", "Txn", "Compact"],
        &[("RangeStream", Flow::ServerStream)],
    ),
    ("etcdserverpb.Watch", &[], &[("Watch", Flow::BidiStream)]),
    (
        "etcdserverpb.Lease",
        &["LeaseGrant", "LeaseRevoke", "LeaseTimeToLive", "LeaseLeases"],
        &[("LeaseKeepAlive", Flow::BidiStream)],
    ),
    (
        "etcdserverpb.Cluster",
        &["MemberAdd", "MemberRemove", "MemberUpdate", "MemberList", "MemberPromote"],
        &[],
    ),
    (
        "etcdserverpb.Maintenance",
        &["Alarm", "Status", "Defragment", "Hash", "HashKV", "MoveLeader", "Downgrade"],
        &[("Snapshot", Flow::ServerStream)],
    ),
    (
        "etcdserverpb.Auth",
        &[
            "AuthEnable",
            "AuthDisable",
            "AuthStatus",
            "Authenticate",
            "UserAdd",
            "UserGet",
            "UserList",
            "UserDelete",
            "UserChangePassword",
            "UserGrantRole",
            "UserRevokeRole",
            "RoleAdd",
            "RoleGet",
            "RoleList",
            "RoleDelete",
            "RoleGrantPermission",
            "RoleRevokePermission",
        ],
        &[],
    ),
    ("v3lockpb.Lock", &["Lock", "Unlock"], &[]),
    (
        "v3electionpb.Election",
        &["Campaign", "Proclaim", "Leader", "Resign"],
        &[("Observe", Flow::ServerStream)],
    ),
    ("grpc.health.v1.Health", &["Check", "List"], &[("Watch", Flow::ServerStream)]),
];

#[derive(Clone, Copy, Debug)]
struct Method {
    service: &'static str,
    name: &'static str,
    flow: Flow,
    rule: Rule,
}

/// The table and its counters; clones share them.
#[derive(Clone)]
pub struct Calls(Arc<Inner>);

struct Inner {
    metrics: Arc<Metrics>,
    /// What calls are timed by, if they are.
    clock: Option<Env>,
    /// By path.
    methods: HashMap<String, Method>,
    /// The client versions that have been seen; bounded, because clients choose them.
    versions: RwLock<BTreeSet<String>>,
}

impl Calls {
    #[cfg(test)]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self::timed(metrics, None)
    }

    /// Calls take their time by the clock, if there is one.
    pub fn timed(metrics: Arc<Metrics>, clock: Option<Env>) -> Self {
        let mut methods = HashMap::new();
        for &(service, unary, streams) in SERVICES {
            let unary = unary.iter().map(|name| (*name, Flow::Unary));
            for (name, flow) in unary.chain(streams.iter().copied()) {
                // Without a rule it is not served.
                let Some(rule) = auth::rule(service, name) else { continue };
                methods.insert(format!("/{service}/{name}"), Method { service, name, flow, rule });
            }
        }
        Self(Arc::new(Inner { metrics, clock, methods, versions: RwLock::default() }))
    }

    /// Counts a call that has begun.
    pub fn begin(&self, path: &str) -> Result<Call, Status> {
        let Some(method) = self.0.methods.get(path).copied() else { return Err(unknown(path)) };
        let labels = [method.flow.label(), method.service, method.name];
        self.0.metrics.grpc_started.with_label_values(&labels).inc();
        let began = self.0.clock.as_ref().map(|clock| (clock.clone(), clock.now()));
        Ok(Call { metrics: self.0.metrics.clone(), method, began, ended: false })
    }

    /// Counts a call by what its client says it is.
    pub fn count_version(&self, call: &Call, version: &str) {
        let kind = if call.method.flow == Flow::Unary { "unary" } else { "stream" };
        let version = if self.is_shown(version) { version } else { "other" };
        self.0.metrics.client_requests.with_label_values(&[kind, version]).inc();
    }

    /// For the bodies of requests.
    pub fn received_bytes(&self) -> ReceivedBytes {
        ReceivedBytes(self.0.metrics.clone())
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

/// Counts what clients send.
pub struct ReceivedBytes(Arc<Metrics>);

impl ReceivedBytes {
    pub fn add(&self, bytes: usize) {
        self.0.client_received_bytes.inc_by(bytes as u64);
    }
}

/// One call; dropped without a result, its client has gone away.
pub struct Call {
    metrics: Arc<Metrics>,
    method: Method,
    began: Option<(Env, Instant)>,
    ended: bool,
}

impl Call {
    /// What the method asks of its caller.
    pub fn rule(&self) -> Rule {
        self.method.rule
    }

    /// The path of a unary method that is not watched where it is carried out, see [`super::slow`].
    pub fn unwatched(&self) -> Option<impl FnOnce() -> String + use<>> {
        const WATCHED: [&str; 4] = ["Range", "Put", "DeleteRange", "Txn"];
        let Method { service, name, flow, .. } = self.method;
        let watched = service == "etcdserverpb.KV" && WATCHED.contains(&name);
        (flow == Flow::Unary && !watched).then_some(move || format!("/{service}/{name}"))
    }

    /// Counts a part of the answer.
    pub fn count_sent(&self, bytes: usize) {
        self.metrics.client_sent_bytes.inc_by(bytes as u64);
    }

    /// Counts the result. Only the first counts.
    pub fn end(&mut self, code: Code) {
        if !std::mem::replace(&mut self.ended, true) {
            let Method { service, name, flow, .. } = self.method;
            let labels = [flow.label(), service, name, label(code)];
            self.metrics.grpc_handled.with_label_values(&labels).inc();
            if let Some((clock, began)) = &self.began {
                let histogram = self.metrics.grpc_seconds.with_label_values(&labels[..3]);
                observe(&histogram, clock.now() - *began);
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

fn label(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

fn unknown(path: &str) -> Status {
    let parts = path.strip_prefix('/').and_then(|path| path.rsplit_once('/'));
    Status::unimplemented(match parts {
        None => format!("malformed method name: {path:?}"),
        Some((service, method)) if SERVICES.iter().any(|(name, ..)| *name == service) => {
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
        let calls = Calls::new(metrics.clone());
        let mut put = calls.begin("/etcdserverpb.KV/Put").expect("a method");
        calls.count_version(&put, "3.5");
        put.end(Code::Ok);
        put.end(Code::Internal);
        drop(put);
        drop(calls.begin("/etcdserverpb.Watch/Watch").expect("a method"));
        let page = metrics.text(Vec::new());
        let labels = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";
        for line in [
            format!("grpc_server_started_total{{{labels}}} 1"),
            format!("grpc_server_handled_total{{grpc_code=\"OK\",{labels}}} 1"),
            "etcd_server_client_requests_total{client_api_version=\"3.5\",type=\"unary\"} 1".into(),
        ] {
            assert!(page.contains(&format!("\n{line}\n")), "{line} is not on the page:\n{page}");
        }
        assert!(page.contains("grpc_code=\"Canceled\",grpc_method=\"Watch\""), "{page}");
        assert!(!page.contains("Internal"), "{page}");
    }

    #[test]
    fn client_versions_are_bounded() {
        let metrics = Arc::new(Metrics::new());
        let calls = Calls::new(metrics.clone());
        let call = calls.begin("/etcdserverpb.KV/Put").expect("a method");
        for version in 0..2 * limits::CLIENT_VERSIONS_MAX {
            calls.count_version(&call, &version.to_string());
        }
        let other = metrics.client_requests.with_label_values(&["unary", "other"]).get();
        assert_eq!(other as usize, limits::CLIENT_VERSIONS_MAX);
    }

    #[test]
    fn unknown_methods_are_answered_as_grpc_go_does() {
        let calls = Calls::new(Arc::new(Metrics::new()));
        let text = |path: &str| calls.begin(path).err().expect("unknown").message().to_owned();
        assert_eq!(text("/a.B/C"), "unknown service a.B");
        assert_eq!(text("/etcdserverpb.KV/Get"), "unknown method Get for service etcdserverpb.KV");
        assert_eq!(text("/nothing"), "malformed method name: \"/nothing\"");
    }
}
