//! The whole server as one value: a member and its client port, gRPC and HTTP together. This is what
//! the program starts on a real machine and the simulator on simulated ones; nothing of the server
//! is outside it. Parsing flags and setting up logs are.
//!
//! Data flow: a connection comes in on the client port, HTTP/2 and HTTP/1 alike, and is secured there if
//! its URL says so ([`port`]); a gRPC request goes through [`Gate`] to the services, everything else to
//! [`crate::http`], which hands what comes as JSON to [`Gate`] again. Calls that are traced leave spans, which
//! the exporter takes to a collector.

mod authority;
mod exporter;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod pings;
pub mod port;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tonic::body::Body;
use tower::Service;
use tracing::{info, warn};

use self::exporter::Exporter;
use self::port::{Answers, Opened, Port};
use crate::env::{BoxFuture, Env, Place};
use crate::error::Fatal;
use crate::grpc::gate::Gate;
use crate::grpc::spans::Spans;
use crate::http::Endpoints;
use crate::http::access::Access;
use crate::http::gateway::{Gateway, Grpc};
use crate::http::vars::Process;
use crate::latest;
use crate::member::{self, Member};
use crate::tls::{self, Acceptor, Listen};
use crate::trace;

/// What a server is started with; validated.
#[derive(Clone)]
pub struct Options {
    pub member: member::Options,
    pub listen_client: Vec<Listen>,
    /// Where clients of HTTP are served, and no others; if anywhere, those above are for gRPC only.
    pub listen_client_http: Vec<Listen>,
    /// Where only metrics and health are served, also before the member takes part in its cluster.
    pub listen_metrics: Vec<Listen>,
    /// For those of both that are secured.
    pub tls: tls::Settings,
    /// HTTP/2 streams that one connection may have open.
    pub concurrent_streams_max: u32,
    /// Ping an idle client connection after this time, and give it up when no answer comes.
    pub keep_alive_interval: Duration,
    pub keep_alive_timeout: Duration,
    /// Serve gRPC calls as JSON over HTTP, too.
    pub gateway: bool,
    /// Who may use the HTTP side from a browser.
    pub access: Access,
    /// Have a metric of how long gRPC calls take.
    pub time_calls: bool,
    /// What the program that starts the server is.
    pub process: Process,
    /// Clients that ping more often than this are sent away.
    pub ping_time_min: Duration,
    /// Tell a collector what becomes of calls.
    pub tracing: Option<trace::Settings>,
}

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
            keep_alive_interval: Duration::from_secs(2 * 3600),
            keep_alive_timeout: Duration::from_secs(20),
            gateway: true,
            access: Access::default(),
            time_calls: false,
            process: Process::default(),
            ping_time_min: Duration::from_secs(5),
            tracing: None,
        }
    }
}

/// What calls in flight get at shutdown before they are cut off.
const DRAIN: Duration = Duration::from_secs(5);

/// A server that runs.
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
        let port = |opened: &Opened, speaks: Speaks| {
            let settings = port::Settings {
                concurrent_streams_max: options.concurrent_streams_max,
                keep_alive_interval: options.keep_alive_interval,
                keep_alive_timeout: options.keep_alive_timeout,
                ping_time_min: options.ping_time_min,
                http2_only: speaks == Speaks::Grpc,
            };
            let spans = tracer.clone().map(|tracer| Spans::new(tracer, opened.place.address()));
            let services = Services::new(&options, member.clone(), speaks, spans);
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
                info!(address = %place, traffic, "serving client traffic securely");
            }
            if opened.plain {
                info!(address = %place, traffic, "serving client traffic insecurely");
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

    /// Where clients connect, in the order of the options, HTTP's last; unix sockets left out.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Ready when the member cannot go on.
    pub async fn fatal(&self) -> Fatal {
        self.member.fatal().await
    }

    /// Takes no new connection, lets calls in flight end, hands leadership over and stops the member.
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
    /// HTTP, but only what tells how the server does.
    Metrics,
}

impl Speaks {
    fn name(self) -> &'static str {
        match self {
            Self::Both => "grpc+http",
            Self::Grpc => "grpc",
            Self::Http => "http",
            Self::Metrics => "metrics",
        }
    }
}

/// Who answers at one listening address.
#[derive(Clone)]
struct Services {
    gate: Gate,
    endpoints: Endpoints,
    speaks: Speaks,
}

impl Services {
    fn new(options: &Options, member: Member, speaks: Speaks, spans: Option<Spans>) -> Self {
        let gate = Gate::new(member.clone(), options.time_calls, spans);
        let gateway = options
            .gateway
            .then(|| Gateway::new(Grpc::new(gate.clone()), member.request_bytes_max()));
        let (access, process) = (options.access.clone(), options.process.clone());
        Self { gate, endpoints: Endpoints::new(member, gateway, access, process), speaks }
    }
}

impl Answers for Services {
    fn secured(self) -> Self {
        Self { endpoints: self.endpoints.secured(), ..self }
    }

    /// What is no gRPC goes to HTTP, wherever there is any.
    fn answer(&self, request: Request<Incoming>) -> BoxFuture<'static, Response<Body>> {
        // gRPC calls are the hot path: clone only what they need.
        if port::is_grpc(&request) && matches!(self.speaks, Speaks::Both | Speaks::Grpc) {
            let mut gate = self.gate.clone();
            return Box::pin(async move {
                gate.call(request).await.unwrap_or_else(|never| match never {})
            });
        }
        let (endpoints, speaks) = (self.endpoints.clone(), self.speaks);
        Box::pin(async move {
            match speaks {
                Speaks::Metrics => endpoints.answer_metrics(request.map(Body::new)).await,
                Speaks::Both | Speaks::Http => endpoints.answer(request.map(Body::new)).await,
                Speaks::Grpc => {
                    let mut response = Response::new(Body::empty());
                    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
                    response
                }
            }
        })
    }
}
