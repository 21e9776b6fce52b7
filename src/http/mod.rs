//! The HTTP endpoints of the client port beside gRPC: `/version`, `/health`, `/livez`, `/readyz`,
//! `/metrics`, `/debug/vars`, `/debug/pprof`, and the JSON gateway below `/v3/`. Responses are etcd's to the
//! byte where etcd's are fixed. The server is accessed through [`Served`] and, by the gateway, through gRPC.
//!
//! Reading order: this file (paths, methods), `target` (escapes and redirections), [`access`] (hosts and
//! origins), [`health`] (probes), [`gateway`] (gRPC calls as JSON), [`vars`] (command line and raft status),
//! [`pprof`] (profiles), `member` (a member as [`Served`]), `rows` (its state as metrics).

pub mod access;
pub mod gateway;
mod health;
mod member;
pub mod pprof;
mod rows;
mod target;
pub mod vars;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue,
    X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use quorate_proto::etcdserverpb::AlarmMember;
use tonic::body::Body;

use self::access::Access;
use self::gateway::Gateway;
pub(crate) use self::health::verdict;
use self::vars::{Process, Raft};
use crate::env::BoxFuture;
use crate::error::Error;
use crate::metrics::{Metrics, Row};
use crate::tls::ClientName;
use crate::types::Revision;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const VARS: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const PROMETHEUS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Which revision was the newest some time ago. Not in etcd.
const REVISION: &str = "/debug/revision";

/// The refusal of a client certificate that names a user: the gateway's calls do not carry it.
const NAME_IGNORED: &str = "CommonName of client sending a request against gateway will be ignored and \
                               not used as expected\n";

/// The server as the endpoints see it.
pub(crate) trait Served: Send + Sync {
    fn versions(&self) -> Versions;
    fn alarms(&self) -> Vec<AlarmMember>;
    fn has_leader(&self) -> bool;
    fn is_learner(&self) -> bool;
    /// The newest revision that was there `ago`, if that is known.
    fn revision_before(&self, ago: Duration) -> Option<Revision>;
    /// Whether authentication is enabled.
    fn has_users(&self) -> bool;
    /// Reads a key, serializable or linearizable.
    fn read(&self, serializable: bool) -> BoxFuture<'_, Result<(), Error>>;
    /// The status of raft.
    fn raft(&self) -> BoxFuture<'_, Raft>;
    fn metrics(&self) -> &Metrics;
    /// Metrics that are computed from the present state.
    fn rows(&self) -> Vec<Row>;
}

/// The versions that `/version` shows.
#[derive(Clone, Debug)]
pub(crate) struct Versions {
    pub server: &'static str,
    /// `None` until the members have agreed.
    pub cluster: Option<String>,
    /// `None` until the store has one.
    pub storage: Option<String>,
}

/// Every endpoint; clones share the server.
#[derive(Clone)]
pub struct Endpoints {
    served: Arc<dyn Served>,
    gateway: Option<Gateway>,
    access: Arc<Access>,
    process: Arc<Process>,
    secure: bool,
}

impl Endpoints {
    /// Without a gateway, its paths are not found.
    pub fn new(
        member: crate::member::Member,
        gateway: Option<Gateway>,
        access: Access,
        process: Process,
    ) -> Self {
        let (access, process) = (Arc::new(access), Arc::new(process));
        Self { served: Arc::new(member), gateway, access, process, secure: false }
    }

    /// Returns the endpoints for connections over TLS.
    pub fn secured(self) -> Self {
        Self { secure: true, ..self }
    }

    /// Answers a request that is not gRPC.
    pub async fn answer(&self, request: Request<Body>) -> Response<Body> {
        if target::is_malformed(request.uri().path()) {
            return target::bad_request();
        }
        if let Some(refused) = self.access.refuse(&request, self.secure) {
            return refused;
        }
        let path = target::decoded(request.uri().path());
        let gateway = self.gateway.clone().filter(|_| Gateway::serves(&path));
        if gateway.is_some() && self.names_user(&request) {
            return plain(StatusCode::BAD_REQUEST, NAME_IGNORED);
        }
        let headers = self.access.headers(request.headers());
        let (parts, body) = request.into_parts();
        let folder = self.gateway.as_ref().map(|_| gateway::ROOT);
        let redirection = target::redirection(&parts.method, &parts.uri, folder);
        let mut response = match (gateway, redirection) {
            // Browsers send it before the request itself.
            _ if parts.method == Method::OPTIONS => Response::new(Body::empty()),
            (_, Some(redirection)) => redirection,
            (Some(gateway), None) => gateway.answer(Request::from_parts(parts, body)).await,
            (None, None) => self.find(&parts).await,
        };
        response.headers_mut().extend(headers);
        response
    }

    /// Whether the client's certificate names a user, which calls of the gateway do not carry.
    fn names_user(&self, request: &Request<Body>) -> bool {
        self.served.has_users()
            && request.extensions().get::<ClientName>().is_some_and(|name| !name.0.is_empty())
    }

    /// Answers the endpoints that ignore a request's body.
    async fn find(&self, request: &Parts) -> Response<Body> {
        let Parts { method, uri, headers, .. } = request;
        let (path, query) = (&*target::decoded(uri.path()), uri.query().unwrap_or(""));
        if let Some(response) = pprof::answer(&self.process, path, query).await {
            return response;
        }
        let check = health::find(path);
        let known = matches!(path, "/version" | "/health" | "/metrics" | "/debug/vars" | REVISION);
        let found = known || check.is_some();
        if !found {
            return plain(StatusCode::NOT_FOUND, "404 page not found\n");
        }
        // Prometheus' handler accepts every method.
        if *method != Method::GET && path != "/metrics" {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            return response;
        }
        match (path, check) {
            (_, Some(check)) => health::run(&*self.served, check, query).await,
            ("/version", _) => self.version(),
            ("/health", _) => health::health(&*self.served, query).await,
            (REVISION, _) => self.revision(query),
            ("/debug/vars", _) => {
                let page = vars::page(&self.process, &self.served.raft().await);
                with_type(StatusCode::OK, VARS, page)
            }
            _ => metrics(headers, self.served.metrics().text(self.served.rows())),
        }
    }

    /// Answers a request to a metrics port, which serves neither versions nor `/debug`.
    pub async fn answer_metrics(&self, request: Request<Body>) -> Response<Body> {
        let (parts, _) = request.into_parts();
        match parts.uri.path() {
            path if target::is_malformed(path) => target::bad_request(),
            path if path == "/version" || path.starts_with("/debug/") => {
                plain(StatusCode::NOT_FOUND, "404 page not found\n")
            }
            _ => self.find(&parts).await,
        }
    }

    /// The revision of a moment in the past, so many seconds `ago`.
    fn revision(&self, query: &str) -> Response<Body> {
        let ago = query.split('&').find_map(|pair| pair.strip_prefix("ago="));
        let Some(seconds) = ago.and_then(|seconds| seconds.parse().ok()) else {
            return plain(StatusCode::BAD_REQUEST, "ago is not a number of seconds\n");
        };
        match self.served.revision_before(Duration::from_secs(seconds)) {
            Some(revision) => plain(StatusCode::OK, format!("{revision}\n")),
            None => plain(StatusCode::NOT_FOUND, "not known\n"),
        }
    }

    fn version(&self) -> Response<Body> {
        let versions = self.served.versions();
        let cluster = versions.cluster.unwrap_or_else(|| "not_decided".into());
        let storage = versions.storage.unwrap_or_else(|| "unknown".into());
        let text = format!(
            "{{\"etcdserver\":\"{}\",\"etcdcluster\":\"{cluster}\",\"storage\":\"{storage}\"}}",
            versions.server
        );
        with_type(StatusCode::OK, JSON, text)
    }
}

/// Returns a page of metrics, compressed if the request accepts it.
pub(crate) fn metrics(request: &HeaderMap, text: String) -> Response<Body> {
    let values = request.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut codings = values.flat_map(|value| value.split(',')).map(str::trim);
    if !codings
        .any(|coding| coding == "gzip" || coding.starts_with("gzip;") && coding != "gzip;q=0")
    {
        return with_type(StatusCode::OK, PROMETHEUS, text);
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).expect("a buffer grows");
    let compressed = encoder.finish().expect("a buffer grows");
    let mut response = with_type(StatusCode::OK, PROMETHEUS, compressed);
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response
}

fn with_type(status: StatusCode, kind: HeaderValue, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(text.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Returns a text with the headers of Go's `http.Error`.
pub(crate) fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = with_type(status, TEXT, text);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests;
