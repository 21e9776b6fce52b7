//! The whole server as one value: a member and its client port, gRPC and HTTP together. This is what
//! the program starts on a real machine and the simulator on simulated ones; nothing of the server
//! is outside it. Parsing flags and setting up logs are.
//!
//! Data flow: a connection comes in on the client port, HTTP/2 and HTTP/1 alike; a gRPC request goes
//! through [`Gate`] to the services, everything else to [`crate::http`].

mod authority;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tonic::body::Body;
use tower::Service;
use tracing::{debug, info, warn};

use self::authority::Lenient;
use crate::env::hyper::{Exec, Timer};
use crate::env::{BoxConn, Env, Listener};
use crate::error::Fatal;
use crate::grpc::gate::Gate;
use crate::http::Endpoints;
use crate::latest;
use crate::member::{self, Member};

/// What a server is started with; validated.
#[derive(Clone)]
pub struct Options {
    pub member: member::Options,
    pub listen_client: Vec<SocketAddr>,
    /// HTTP/2 streams that one connection may have open.
    pub concurrent_streams_max: u32,
    /// Ping an idle client connection after this time, and give it up when no answer comes.
    pub keep_alive_interval: Duration,
    pub keep_alive_timeout: Duration,
}

impl Options {
    /// etcd's defaults around `member`.
    pub fn new(member: member::Options, listen_client: Vec<SocketAddr>) -> Self {
        Self {
            member,
            listen_client,
            concurrent_streams_max: u32::MAX,
            keep_alive_interval: Duration::from_secs(2 * 3600),
            keep_alive_timeout: Duration::from_secs(20),
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
    pub async fn start(env: Env, options: Options) -> Result<Self, Fatal> {
        let mut listeners = Vec::new();
        for address in &options.listen_client {
            let listener = env.net.listen(*address).await;
            listeners.push(
                listener
                    .map_err(|e| Fatal::new(format!("listening for clients on {address}"), e))?,
            );
        }
        let member = Member::start(env.clone(), options.member.clone()).await?;
        member.ready().await?;
        let (stop, stopped) = latest::channel(false);
        let mut addresses = Vec::new();
        for listener in listeners {
            let address = listener
                .local_addr()
                .map_err(|e| Fatal::new("reading the address of the client port", e))?;
            addresses.push(address);
            let port = Port::new(env.clone(), &options, member.clone(), stopped.clone());
            env.spawn("client port", port.accept(listener));
            info!(%address, "serving client traffic insecurely");
        }
        info!("ready to serve client requests");
        Ok(Self { env, member, addresses, stop: Arc::new(stop) })
    }

    pub fn member(&self) -> &Member {
        &self.member
    }

    /// Where clients connect, in the order of the options.
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

/// One listening address of the client port.
#[derive(Clone)]
struct Port {
    env: Env,
    builder: auto::Builder<Exec>,
    gate: Gate,
    endpoints: Endpoints,
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
        let endpoints = Endpoints::new(member.clone());
        Self { env, builder, gate: Gate::new(member), endpoints, stopped }
    }

    async fn accept(self, mut listener: Box<dyn Listener>) {
        loop {
            let mut signal = self.stopped.clone();
            tokio::select! {
                biased; // A server that stops takes nobody in.
                () = stopped(&mut signal) => return,
                accepted = listener.accept() => match accepted {
                    Ok((conn, from)) => {
                        debug!(%from, "client connected");
                        self.env.spawn("client connection", self.clone().serve(conn));
                    }
                    Err(error) => {
                        warn!(%error, "accepting a client connection failed");
                        self.env.sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }

    async fn serve(mut self, conn: BoxConn) {
        let (gate, endpoints) = (self.gate, self.endpoints);
        let service = service_fn(move |request: Request<Incoming>| {
            answer(gate.clone(), endpoints.clone(), request)
        });
        let connection = self.builder.serve_connection(TokioIo::new(Lenient::new(conn)), service);
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

async fn answer(
    mut gate: Gate,
    endpoints: Endpoints,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let content_type = request.headers().get(http::header::CONTENT_TYPE);
    let grpc = content_type.is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
    if grpc { gate.call(request).await } else { Ok(endpoints.answer(request).await) }
}
