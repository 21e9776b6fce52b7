//! The HTTP endpoints of the client port beside gRPC: `/version`, `/health`, `/livez`, `/readyz`,
//! `/metrics`. Answers are etcd's to the byte, where etcd's are fixed. What is asked of the server is
//! behind [`Served`]; nothing here knows how it is found out.
//!
//! Reading order: this file (paths, methods), [`health`] (the checks), `member` (a member as what is
//! served), `rows` (its state as metrics).

mod health;
mod member;
mod rows;

use std::sync::Arc;

use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Request, Response, StatusCode};
use quorate_proto::etcdserverpb::AlarmMember;
use tonic::body::Body;

use crate::env::BoxFuture;
use crate::error::Error;
use crate::metrics::{Metrics, Row};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROMETHEUS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// What the endpoints ask of the server behind them.
pub(crate) trait Served: Send + Sync {
    fn versions(&self) -> Versions;
    fn alarms(&self) -> Vec<AlarmMember>;
    fn has_leader(&self) -> bool;
    fn is_learner(&self) -> bool;
    /// Reads from the store: what this member has, or what the cluster agrees on.
    fn read(&self, serializable: bool) -> BoxFuture<'_, Result<(), Error>>;
    fn metrics(&self) -> &Metrics;
    /// The metrics that are read from the present state.
    fn rows(&self) -> Vec<Row>;
}

/// The answer of `/version`.
#[derive(Clone, Debug)]
pub(crate) struct Versions {
    pub server: &'static str,
    /// `None` until the members have agreed.
    pub cluster: Option<String>,
    /// `None` until the store says.
    pub storage: Option<String>,
}

/// Every endpoint; clones share the server behind.
#[derive(Clone)]
pub struct Endpoints(Arc<dyn Served>);

impl Endpoints {
    pub fn new(member: crate::member::Member) -> Self {
        Self(Arc::new(member))
    }

    /// The answer to a request that is not gRPC. Its body is not read.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Body> {
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or(""));
        let check = health::find(path);
        let found = matches!(path, "/version" | "/health" | "/metrics") || check.is_some();
        if !found {
            return plain(StatusCode::NOT_FOUND, "404 page not found\n");
        }
        if request.method() != Method::GET {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            return response;
        }
        match (path, check) {
            (_, Some(check)) => health::run(&*self.0, check, query).await,
            ("/version", _) => self.version(),
            ("/health", _) => health::health(&*self.0, query).await,
            _ => self.metrics(),
        }
    }

    /// The same on a port for metrics, which has no versions.
    pub async fn answer_metrics<B>(&self, request: Request<B>) -> Response<Body> {
        match request.uri().path() {
            "/version" => plain(StatusCode::NOT_FOUND, "404 page not found\n"),
            _ => self.answer(request).await,
        }
    }

    fn version(&self) -> Response<Body> {
        let versions = self.0.versions();
        let cluster = versions.cluster.unwrap_or_else(|| "not_decided".into());
        let storage = versions.storage.unwrap_or_else(|| "unknown".into());
        let text = format!(
            "{{\"etcdserver\":\"{}\",\"etcdcluster\":\"{cluster}\",\"storage\":\"{storage}\"}}",
            versions.server
        );
        with_type(StatusCode::OK, JSON, text)
    }

    fn metrics(&self) -> Response<Body> {
        let text = self.0.metrics().text(self.0.rows());
        with_type(StatusCode::OK, PROMETHEUS, text)
    }
}

fn with_type(status: StatusCode, kind: HeaderValue, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Body::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Text, with the headers that Go's `http.Error` sets.
fn plain(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = with_type(status, TEXT, text);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests;
