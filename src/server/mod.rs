//! The whole server as one value: a member and its client port, gRPC and HTTP together. The program
//! starts it on a real machine and the simulator on simulated ones; only parsing flags and setting up
//! logs is outside it.
//!
//! Data flow: a connection is accepted on the client port, HTTP/2 and HTTP/1 alike, and secured there if
//! its URL requires it ([`port`]); its bytes pass through `wire`. A gRPC request goes through [`Gate`] to the
//! services, any other to [`crate::http`], whose JSON gateway calls [`Gate`] again. Requests count while
//! they arrive (`arriving`). Spans of traced calls are sent to a collector by the exporter.
//!
//! Reading order: this file, [`port`], `wire` (a connection's bytes), `outlet` (how they are written),
//! `frames`, `pings`, `authority` (what is done to them), `arriving`, `upgraded`, `exporter`.

mod arriving;
mod authority;
mod exporter;
mod frames;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod outlet;
mod pings;
pub mod port;
mod upgraded;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tower::Service;
use tracing::{info, warn};

use self::arriving::{Arrivals, Kind};
use self::exporter::Exporter;
use self::port::{Handler, Opened, Port};
use crate::env::{BoxFuture, Env, Place};
use crate::error::Fatal;
use crate::grpc::gate::Gate;
use crate::grpc::spans::Spans;
use crate::grpc::status::refusal;
use crate::http::Endpoints;
use crate::http::access::Access;
use crate::http::gateway::{Gateway, Grpc};
use crate::http::vars::Process;
use crate::latest;
use crate::limits::{self, METADATA_BYTES_MAX};
use crate::member::{self, Member};
use crate::tls::{self, Acceptor, Listen};
use crate::trace;

/// The validated settings of a server.
#[derive(Clone)]
pub struct Options {
    pub member: member::Options,
    pub listen_client: Vec<Listen>,
    /// Addresses for HTTP only; if there are any, those above are for gRPC only.
    pub listen_client_http: Vec<Listen>,
    /// Addresses for metrics and health only, also before the member takes part in its cluster.
    pub listen_metrics: Vec<Listen>,
    /// For the addresses that are secured.
    pub tls: tls::Settings,
    /// HTTP/2 streams that one connection may have open.
    pub concurrent_streams_max: u32,
    /// Pings an idle client connection after this time, and closes it when no answer comes.
    pub keep_alive_interval: Duration,
    pub keep_alive_timeout: Duration,
    /// Serves gRPC calls as JSON over HTTP, too.
    pub gateway: bool,
    /// Hosts and origins that browsers may use.
    pub access: Access,
    /// Exports a metric of how long gRPC calls take.
    pub time_calls: bool,
    /// Describes the program that starts the server.
    pub process: Process,
    /// Clients that ping more often than this are disconnected.
    pub ping_time_min: Duration,
    /// Sends spans of calls to a collector.
    pub tracing: Option<trace::Settings>,
}

/// etcd's default of the time between two pings of a connection, and of that in which one is answered.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2 * 3600);
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

impl Options {
    /// etcd's defaults around `member`.
    pub fn new(
        member: member::Options,
        listen_client: impl IntoIterator<Item = impl Into<Listen>>,
    ) -> Self {
        Self {
            member,
            listen_client: listen_client.into_iter().map(Into::into).collect(),
            listen_client_http: Vec::new(),
            listen_metrics: Vec::new(),
            tls: tls::Settings::default(),
            concurrent_streams_max: u32::MAX,
            keep_alive_interval: KEEP_ALIVE_INTERVAL,
            keep_alive_timeout: KEEP_ALIVE_TIMEOUT,
            gateway: true,
            access: Access::default(),
            time_calls: false,
            process: Process::default(),
            ping_time_min: Duration::from_secs(5),
            tracing: None,
        }
    }
}

/// The time that calls in flight have to end at shutdown.
const DRAIN: Duration = Duration::from_secs(5);

/// A running server.
pub struct Server {
    env: Env,
    member: Member,
    addresses: Vec<SocketAddr>,
    stop: Arc<latest::Sender<bool>>,
    exporter: Option<Exporter>,
}

impl Server {
    /// Starts the member, waits until it takes part in its cluster and opens the client port.
    pub async fn start(env: Env, mut options: Options) -> Result<Self, Fatal> {
        let made = options.member.peer_tls.prepare(&env).await;
        made.map_err(|e| Fatal::new("starting with peer TLS", e))?;
        let made = options.tls.prepare(&env).await;
        made.map_err(|e| Fatal::new("starting with client TLS", e))?;
        let listens = options.listen_client.iter().chain(&options.listen_client_http);
        let acceptor = match listens.chain(&options.listen_metrics).any(|listen| listen.secure) {
            true => {
                let acceptor = Acceptor::new(&env, &options.tls, tls::Port::Client).await;
                Some(acceptor.map_err(|e| Fatal::new("starting with client TLS", e))?)
            }
            false => None,
        };
        let clients = port::open(&env, &options.listen_client, "clients").await?;
        let http = port::open(&env, &options.listen_client_http, "clients of HTTP").await?;
        let metrics = port::open(&env, &options.listen_metrics, "metrics").await?;
        let member = Member::start(env.clone(), options.member.clone()).await?;
        let (exporter, tracer) = match &options.tracing {
            Some(settings) => {
                let (exporter, tracer) = Exporter::start(&env, settings, member.metrics().clone())?;
                info!(address = settings.collector, "distributed tracing setup enabled");
                (Some(exporter), Some(tracer))
            }
            None => (None, None),
        };
        let (stop, stopped) = latest::channel(false);
        let bytes_max = limits::arriving_bytes_max(options.member.request_bytes_max);
        let (places, arrivals) = (port::places(&env), Arrivals::new(&env, bytes_max));
        let port = |opened: &Opened, speaks: Speaks| {
            let settings = port::Settings {
                concurrent_streams_max: options.concurrent_streams_max,
                keep_alive_interval: options.keep_alive_interval,
                keep_alive_timeout: options.keep_alive_timeout,
                ping_time_min: options.ping_time_min,
                http2_only: speaks == Speaks::Grpc,
                places: places.clone(),
            };
            let spans = tracer.clone().map(|tracer| Spans::new(tracer, opened.place.address()));
            let services = Services::new(&options, member.clone(), speaks, spans, arrivals.clone());
            Port::new(&env, &settings, opened, acceptor.clone(), services, stopped.clone())
        };
        for opened in metrics {
            let port = port(&opened, Speaks::Metrics);
            env.spawn("metrics port", port.accept(opened.listener));
            info!(address = %opened.place, "serving metrics");
        }
        member.ready().await?;
        let mut addresses = Vec::new();
        let speaks = if http.is_empty() { Speaks::Both } else { Speaks::Grpc };
        let clients = clients.into_iter().map(|opened| (speaks, opened));
        for (speaks, opened) in clients.chain(http.into_iter().map(|http| (Speaks::Http, http))) {
            let (port, place) = (port(&opened, speaks), opened.place);
            env.spawn("client port", port.accept(opened.listener));
            let traffic = speaks.name();
            if opened.secure {
                info!(traffic, address = %place, "serving client traffic securely");
            }
            if opened.plain {
                info!(
                    traffic, address = %place,
                    "serving client traffic insecurely; this is strongly discouraged!"
                );
            }
            if let Place::Tcp(address) = place {
                addresses.push(address);
            }
        }
        info!("ready to serve client requests");
        Ok(Self { env, member, addresses, stop: Arc::new(stop), exporter })
    }

    pub fn member(&self) -> &Member {
        &self.member
    }

    /// The addresses for clients, in the order of the options, HTTP's last, without unix sockets.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Waits until the member cannot go on.
    pub async fn fatal(&self) -> Fatal {
        self.member.fatal().await
    }

    /// Stops accepting connections, lets calls in flight end, transfers leadership and stops the member.
    pub async fn shutdown(self) {
        self.member.stopping();
        self.stop.send_replace(true);
        if self.env.timeout(DRAIN, self.stop.closed()).await.is_err() {
            warn!("some client calls were cut off at shutdown");
        }
        self.member.shutdown().await;
        if let Some(exporter) = self.exporter {
            exporter.stop().await;
        }
    }
}

/// What is served at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Both,
    Grpc,
    Http,
    /// HTTP, metrics and health only.
    Metrics,
}

impl Speaks {
    fn grpc(self) -> bool {
        matches!(self, Self::Both | Self::Grpc)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Both => "grpc+http",
            Self::Grpc => "grpc",
            Self::Http => "http",
            Self::Metrics => "metrics",
        }
    }
}

/// What one listening address serves.
#[derive(Clone)]
struct Services {
    gate: Gate,
    endpoints: Endpoints,
    arrivals: Arrivals,
    speaks: Speaks,
}

impl Services {
    fn new(
        options: &Options,
        member: Member,
        speaks: Speaks,
        spans: Option<Spans>,
        arrivals: Arrivals,
    ) -> Self {
        let gate = Gate::new(member.clone(), options.time_calls, spans);
        let gateway = options.gateway.then(|| {
            let grpc = Grpc::new(gate.clone());
            Gateway::new(member.env().clone(), grpc, member.request_bytes_max())
        });
        let (access, process) = (options.access.clone(), options.process.clone());
        Self { gate, endpoints: Endpoints::new(member, gateway, access, process), arrivals, speaks }
    }
}

impl Handler for Services {
    fn secured(self) -> Self {
        Self { endpoints: self.endpoints.secured(), ..self }
    }

    /// Where authentication is enabled, only users are no strangers.
    fn is_clients(&self, request: &Request<Incoming>) -> bool {
        let is_call = port::is_grpc(request) || Gateway::serves(request.uri().path());
        is_call && self.gate.knows(&Gateway::call_headers(request), request.extensions())
    }

    /// Requests that are not gRPC are HTTP's, where there is any.
    fn handle(
        &self,
        request: Request<Incoming>,
        known: bool,
    ) -> BoxFuture<'static, Response<Body>> {
        let is_grpc = port::is_grpc(&request) && self.speaks.grpc();
        let (parts, body) = request.into_parts();
        let lengths = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        let metadata: usize = lengths.sum();
        if metadata > METADATA_BYTES_MAX {
            let text =
                format!("received metadata larger than max ({metadata} vs. {METADATA_BYTES_MAX})");
            let refused = refusal(&Status::resource_exhausted(text));
            return Box::pin(async { refused });
        }
        let watch = |kind| self.arrivals.watch(body, metadata, kind, !known);
        // gRPC calls are the hot path: clone only what they need.
        if is_grpc {
            let (mut gate, body) = (self.gate.clone(), watch(Kind::Grpc));
            let request = Request::from_parts(parts, body);
            return Box::pin(async move {
                gate.call(request).await.unwrap_or_else(|never| match never {})
            });
        }
        let kind = match parts.uri.path() {
            path if path.ends_with("/watch") || path.ends_with("/lease/keepalive") => Kind::Pieces,
            _ => Kind::Whole,
        };
        let body = Body::new(watch(kind));
        let request = Request::from_parts(parts, body);
        let (endpoints, speaks) = (self.endpoints.clone(), self.speaks);
        let request = upgraded::prepare(request, &self.arrivals, known);
        Box::pin(async move {
            match speaks {
                Speaks::Metrics => endpoints.answer_metrics(request).await,
                Speaks::Both | Speaks::Http => endpoints.answer(request).await,
                Speaks::Grpc => not_grpc(&request),
            }
        })
    }
}

/// The response to a request of another content type than gRPC's, where nothing else is served.
fn not_grpc<B>(request: &Request<B>) -> Response<Body> {
    let content_type = request.headers().get(CONTENT_TYPE).map(|it| it.as_bytes());
    let content_type = String::from_utf8_lossy(content_type.unwrap_or_default());
    let text = format!("invalid gRPC request content-type {content_type:?}");
    let mut response = refusal(&Status::invalid_argument(text));
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}
