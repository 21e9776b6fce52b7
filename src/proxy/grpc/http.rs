//! HTTP beside gRPC: health and metrics of the proxy and of the cluster. No other paths are served.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, HOST, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{RangeRequest, WatchCreateRequest, WatchRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::{Code, Status};

use super::Options;
use super::namespace::Namespace;
use crate::client::{self, Client};
use crate::env::Env;
use crate::http as pages;
use crate::http::vars::Process;
use crate::tls::{Dialer, Target};

const READ_TIMEOUT: Duration = Duration::from_secs(1);
const WATCH_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum size of a member's metrics page, and the timeout of reading it.
const METRICS_BYTES_MAX: usize = 64 << 20;
const METRICS_TIMEOUT: Duration = Duration::from_secs(10);
/// The key of health checks.
const KEY: &str = "a";

/// The text of the proxy's own metrics.
type OwnMetrics = Arc<dyn Fn() -> String + Send + Sync>;

#[derive(Clone)]
pub(super) struct Pages {
    env: Env,
    cluster: Client,
    namespace: Namespace,
    /// A client of the proxy itself.
    own: Option<Client>,
    /// The member whose metrics are shown.
    backend: Target,
    dialer: Dialer,
    secure: bool,
    metrics: OwnMetrics,
    process: Arc<Process>,
}

impl Pages {
    pub fn new(
        env: &Env,
        options: &Options,
        endpoints: &[String],
        cluster: &Client,
        namespace: &Namespace,
        metrics: OwnMetrics,
    ) -> Result<Self, String> {
        let own = match options.advertise.as_str() {
            "" => None,
            advertise => {
                let tls = options.listen_tls.clone();
                let options = client::Options { tls, ..client::Options::default() };
                let own = Client::new(env.clone(), [advertise], options);
                Some(own.map_err(|error| error.to_string())?)
            }
        };
        // Random, so that proxies do not all use the same one.
        let chosen = env.random_u64() % endpoints.len().max(1) as u64;
        let backend = endpoints.get(chosen as usize).map(String::as_str).unwrap_or_default();
        let tls = options.client.tls.clone();
        let secure = tls.is_some();
        Ok(Self {
            env: env.clone(),
            cluster: cluster.clone(),
            namespace: namespace.clone(),
            own,
            backend: Target::parse(backend.trim_end_matches('/'))?,
            dialer: Dialer::new(env, &tls.unwrap_or_default(), &["http/1.1"]),
            secure,
            metrics,
            process: Arc::new(options.process.clone()),
        })
    }

    /// Answers a request. Profiles are served only `beside_grpc`, not on a metrics port.
    pub async fn answer(&self, request: &Parts, beside_grpc: bool) -> Response<Body> {
        let Parts { method, uri, headers, .. } = request;
        let (path, query) = (uri.path(), uri.query().unwrap_or_default());
        if beside_grpc && let Some(answer) = pages::pprof::answer(&self.process, path, query).await
        {
            return answer;
        }
        let is_health = matches!(path, "/health" | "/proxy/health");
        if is_health && *method != Method::GET {
            let text = "Method Not Allowed\n";
            let mut response = pages::plain(StatusCode::METHOD_NOT_ALLOWED, text);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            return response;
        }
        match path {
            "/metrics" => match self.backend_metrics().await {
                Ok(text) => pages::metrics(headers, text),
                Err(why) => {
                    tracing::warn!(error = why, "reading a member's metrics failed");
                    let text = "Internal server error\n";
                    pages::plain(StatusCode::INTERNAL_SERVER_ERROR, text)
                }
            },
            "/proxy/metrics" => pages::metrics(headers, (self.metrics)()),
            "/health" => pages::verdict(self.read(&self.cluster, &self.namespace).await.err()),
            "/proxy/health" => pages::verdict(self.own_health().await.err()),
            _ => pages::plain(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    /// Reads a key. A refused permission is a success.
    async fn read(&self, client: &Client, namespace: &Namespace) -> Result<(), String> {
        let mut key = KEY.into();
        namespace.enter_key(&mut key);
        let range = RangeRequest { key, ..RangeRequest::default() };
        let mut kv = client.kv();
        let status = match self.env.timeout(READ_TIMEOUT, kv.range(range)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(status)) if status.code() == Code::PermissionDenied => return Ok(()),
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded("context deadline exceeded"),
        };
        Err(format!("GET ERROR:{}", status.message()))
    }

    async fn own_health(&self) -> Result<(), String> {
        let own = self.own.as_ref().ok_or("no connection to proxy")?;
        // The proxy adds its namespace itself.
        self.read(own, &Namespace::default()).await?;
        let create = WatchCreateRequest { key: KEY.into(), ..WatchCreateRequest::default() };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let (open, requests) = mpsc::channel(1);
        open.try_send(request).expect("it is empty");
        let mut watch = own.watch();
        let watching = async {
            let mut responses = watch.watch(ReceiverStream::new(requests)).await?.into_inner();
            responses.message().await
        };
        match self.env.timeout(WATCH_TIMEOUT, watching).await {
            // As in etcd, any response is a success.
            Ok(_) => Ok(()),
            Err(_) => Err("WATCH TIMEOUT".into()),
        }
    }

    async fn backend_metrics(&self) -> Result<String, String> {
        let fetching = self.env.timeout(METRICS_TIMEOUT, self.fetch_metrics()).await;
        fetching.map_err(|elapsed| elapsed.to_string())?
    }

    async fn fetch_metrics(&self) -> Result<String, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let mut conn = self.backend.connect(&self.env).await.map_err(|error| text(&error))?;
        if self.backend.secure.unwrap_or(self.secure) {
            conn = self.dialer.secure(&self.backend.name, conn).await.map_err(|e| text(&e))?;
        }
        let handshake = http1::handshake(TokioIo::new(conn)).await;
        let (mut sender, connection) = handshake.map_err(|error| text(&error))?;
        self.env.spawn("proxy metrics", async move { drop(connection.await) });
        let request = Request::get("/metrics").header(HOST, &self.backend.authority);
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| text(&error))?;
        let response = sender.send_request(request).await.map_err(|error| text(&error))?;
        let body = Limited::new(response.into_body(), METRICS_BYTES_MAX).collect().await;
        let bytes = body.map_err(|error| text(&error))?.to_bytes();
        String::from_utf8(bytes.into()).map_err(|error| text(&error))
    }
}
