//! The whole server as one value: a member and its client port, gRPC and HTTP together. This is what
//! the program starts on a real machine and the simulator on simulated ones; nothing of the server
//! is outside it. Parsing flags and setting up logs are.
//!
//! Data flow: a connection comes in on the client port, HTTP/2 and HTTP/1 alike, and is secured there if
//! its URL says so; a gRPC request goes through [`Gate`] to the services, everything else to
//! [`crate::http`], which hands what comes as JSON to [`Gate`] again.

mod authority;
mod pings;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tonic::body::Body;
use tower::Service;
use tracing::{debug, info, warn};

use self::authority::Lenient;
use self::pings::Policed;
use crate::env::hyper::{Exec, Timer};
use crate::env::{BoxConn, Env, Listener, Place};
use crate::error::Fatal;
use crate::grpc::gate::Gate;
use crate::grpc::slow::Remote;
use crate::http::Endpoints;
use crate::http::access::Access;
use crate::http::gateway::{Gateway, Grpc};
use crate::http::vars::Process;
use crate::latest;
use crate::member::{self, Member};
use crate::tls::{self, Accepted, Acceptor, ClientName, Listen, either};

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
        }
    }
}

/// HTTP/2 flow-control windows: larger than the protocol's 64 KiB so that a long range is not paced
/// by window updates.
const WINDOW_BYTES: u32 = 1 << 20;
/// After a failed accept, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What calls in flight get at shutdown before they are cut off.
const DRAIN: Duration = Duration::from_secs(5);

/// A server that runs.
pub struct Server {
    env: Env,
    member: Member,
    addresses: Vec<SocketAddr>,
    stop: Arc<latest::Sender<bool>>,
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
        let clients = open(&env, &options.listen_client, "clients").await?;
        let http = open(&env, &options.listen_client_http, "clients of HTTP").await?;
        let metrics = open(&env, &options.listen_metrics, "metrics").await?;
        let member = Member::start(env.clone(), options.member.clone()).await?;
        let (stop, stopped) = latest::channel(false);
        let port = |opened: &Opened| {
            let mut port = Port::new(env.clone(), &options, member.clone(), stopped.clone());
            port.acceptor = acceptor.clone().filter(|_| opened.secure);
            port.plain = opened.plain;
            port
        };
        for opened in metrics {
            let port = Port { speaks: Speaks::Metrics, ..port(&opened) };
            env.spawn("metrics port", port.accept(opened.listener));
            info!(address = %opened.place, "serving metrics");
        }
        member.ready().await?;
        let mut addresses = Vec::new();
        let speaks = if http.is_empty() { Speaks::Both } else { Speaks::Grpc };
        let clients = clients.into_iter().map(|opened| (speaks, opened));
        for (speaks, opened) in clients.chain(http.into_iter().map(|http| (Speaks::Http, http))) {
            let (port, place) = (Port { speaks, ..port(&opened) }, opened.place);
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
        Ok(Self { env, member, addresses, stop: Arc::new(stop) })
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
    }
}

/// A port, and what is spoken there: one of both, or both.
struct Opened {
    place: Place,
    secure: bool,
    plain: bool,
    listener: Box<dyn Listener>,
}

async fn open(env: &Env, listens: &[Listen], whom: &str) -> Result<Vec<Opened>, Fatal> {
    let mut all: Vec<Opened> = Vec::new();
    for Listen { place, secure } in listens {
        if let Some(opened) = all.iter_mut().find(|opened| opened.place == *place) {
            opened.secure |= secure;
            opened.plain |= !secure;
            continue;
        }
        let failed = |e| Fatal::new(format!("listening for {whom} on {place}"), e);
        let listener = env.listen(place).await.map_err(failed)?;
        let place = match place {
            // Port 0 was any port.
            Place::Tcp(_) => Place::Tcp(listener.local_addr().map_err(failed)?),
            Place::Unix(_) => place.clone(),
        };
        all.push(Opened { place, secure: *secure, plain: !secure, listener });
    }
    Ok(all)
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

/// One listening address of the client port.
#[derive(Clone)]
struct Port {
    env: Env,
    builder: auto::Builder<Exec>,
    gate: Gate,
    endpoints: Endpoints,
    /// For TLS, if it is spoken here.
    acceptor: Option<Acceptor>,
    plain: bool,
    speaks: Speaks,
    ping_time_min: Duration,
    stopped: latest::Receiver<bool>,
}

impl Port {
    fn new(env: Env, options: &Options, member: Member, stopped: latest::Receiver<bool>) -> Self {
        let mut builder = auto::Builder::new(Exec(env.rt.clone()));
        builder.http1().timer(Timer(env.rt.clone()));
        builder
            .http2()
            .timer(Timer(env.rt.clone()))
            .max_concurrent_streams(options.concurrent_streams_max)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .keep_alive_interval(options.keep_alive_interval)
            .keep_alive_timeout(options.keep_alive_timeout);
        let gate = Gate::new(member.clone(), options.time_calls);
        let gateway = options
            .gateway
            .then(|| Gateway::new(Grpc::new(gate.clone()), member.request_bytes_max()));
        let (access, process) = (options.access.clone(), options.process.clone());
        let endpoints = Endpoints::new(member, gateway, access, process);
        let acceptor = None;
        let (plain, speaks) = (true, Speaks::Both);
        let ping_time_min = options.ping_time_min;
        Self { env, builder, gate, endpoints, acceptor, plain, speaks, ping_time_min, stopped }
    }

    async fn accept(self, mut listener: Box<dyn Listener>) {
        loop {
            let mut signal = self.stopped.clone();
            tokio::select! {
                biased; // A server that stops takes nobody in.
                () = stopped(&mut signal) => return,
                accepted = listener.accept() => match accepted {
                    Ok((conn, from)) => {
                        debug!(?from, "client connected");
                        self.env.spawn("client connection", self.clone().secure(conn, from));
                    }
                    Err(error) => {
                        warn!(%error, "accepting a client connection failed");
                        self.env.sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }

    async fn secure(self, conn: BoxConn, from: Option<SocketAddr>) {
        let remote = Remote(from);
        let Some(acceptor) = &self.acceptor else { return self.serve(conn, remote, None).await };
        let entering = async {
            let (tls, conn) = match self.plain {
                true => either::is_tls(&self.env, conn).await?,
                false => (true, conn),
            };
            match tls {
                // The acceptor says itself why it takes somebody not.
                true => Some((
                    acceptor.accept(conn, from).await.ok()?,
                    self.endpoints.clone().secured(),
                )),
                false => Some((Accepted { conn, client: None }, self.endpoints.clone())),
            }
        };
        let mut signal = self.stopped.clone();
        let accepted = tokio::select! {
            biased; // Who has not come in when the server stops stays outside.
            () = stopped(&mut signal) => return,
            accepted = entering => accepted,
        };
        if let Some((Accepted { conn, client }, endpoints)) = accepted {
            Self { endpoints, ..self }.serve(conn, remote, client).await;
        }
    }

    async fn serve(mut self, conn: BoxConn, remote: Remote, client: Option<ClientName>) {
        let (gate, endpoints, speaks) = (self.gate, self.endpoints, self.speaks);
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(remote);
            if let Some(client) = &client {
                request.extensions_mut().insert(client.clone());
            }
            answer(speaks, gate.clone(), endpoints.clone(), request)
        });
        let conn = Policed::new(conn, self.env.clone(), self.ping_time_min);
        let conn = TokioIo::new(Lenient::new(Box::new(conn)));
        let builder = match speaks {
            Speaks::Grpc => self.builder.http2_only(),
            _ => self.builder,
        };
        let connection = builder.serve_connection(conn, service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            biased; // Progress of the connection first; the stop signal is for idle ones.
            ended = connection.as_mut() => ended,
            () = stopped(&mut self.stopped) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(%error, "client connection ended");
        }
    }
}

/// Waits for the word to stop, or for its giver to be gone.
async fn stopped(signal: &mut latest::Receiver<bool>) {
    // An error means that the server itself has been dropped.
    let _ = signal.wait_for(|stop| *stop).await;
}

/// What is no gRPC goes to HTTP, wherever there is any.
async fn answer(
    speaks: Speaks,
    mut gate: Gate,
    endpoints: Endpoints,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let content_type = request.headers().get(http::header::CONTENT_TYPE);
    let grpc = content_type.is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
    match speaks {
        Speaks::Metrics => Ok(endpoints.answer_metrics(request.map(Body::new)).await),
        Speaks::Both | Speaks::Grpc if grpc => gate.call(request).await,
        Speaks::Both | Speaks::Http => Ok(endpoints.answer(request.map(Body::new)).await),
        Speaks::Grpc => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            Ok(response)
        }
    }
}
