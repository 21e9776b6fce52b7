//! One listening address: connections take a place, are secured where the URL requires it, speak HTTP/1
//! or HTTP/2, and end in order when the server stops or their place is needed. Requests are answered by a
//! [`Handler`]; a member and a proxy have ports of the same kind.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, UPGRADE};
use http::{Request, Response, Version};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tonic::Status;
use tonic::body::Body;
use tracing::{debug, warn};

use super::outlet::Outlet;
use super::upgraded::KeptPlace;
use super::wire::Wire;
use crate::env::hyper::Timer;
use crate::env::places::{self, Places};
use crate::env::{BoxConn, BoxFuture, Env, Listener, Place};
use crate::error::Fatal;
use crate::grpc::slow::Remote;
use crate::grpc::unread;
use crate::latest;
use crate::limits;
use crate::tls::{Accepted, Acceptor, Listen, either};

/// HTTP/2 flow-control windows: larger than the protocol's 64 KiB so that a long range is not paced
/// by window updates.
const WINDOW_BYTES: u32 = 1 << 20;
/// After a failed accept, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers the requests of a port. A request has in its extensions where it comes from, [`Remote`], and
/// whose certificate was verified, [`crate::tls::ClientName`].
pub trait Handler: Clone + Send + Sync + 'static {
    /// The same for connections that are secured.
    fn secured(self) -> Self;
    /// Whether the request proves that its connection is a client's, not a stranger's (see `limits`).
    fn is_clients(&self, request: &Request<Incoming>) -> bool {
        is_grpc(request)
    }
    /// The connection is `known` to be a client's, or it is a stranger's.
    fn handle(&self, request: Request<Incoming>, known: bool)
    -> BoxFuture<'static, Response<Body>>;
}

/// Places for the connections of all client ports of a process.
pub fn places(env: &Env) -> Places {
    Places::new(limits::connections_max(env.net.descriptors_max()))
}

/// Whether the request is gRPC, which is over HTTP/2 only: over HTTP/1 it is a request as any other, and
/// the host that it names is checked.
pub fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE);
    let is_http2 = request.version() == Version::HTTP_2;
    is_http2 && content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// What is required of clients' connections.
#[derive(Clone)]
pub struct Settings {
    /// HTTP/2 streams that one connection may have open.
    pub concurrent_streams_max: u32,
    /// Pings an idle connection after this time, and closes it when no answer comes.
    pub keep_alive_interval: Duration,
    pub keep_alive_timeout: Duration,
    /// Clients that ping more often than this are disconnected.
    pub ping_time_min: Duration,
    /// HTTP/1 is not spoken.
    pub http2_only: bool,
    /// Taken by every connection.
    pub places: Places,
}

/// An open listener, and whether it takes TLS, plain connections or both.
pub struct Opened {
    pub place: Place,
    pub secure: bool,
    pub plain: bool,
    pub listener: Box<dyn Listener>,
}

/// Listens on all of `listens`. `whom` names the users of the port in the error.
pub async fn open(env: &Env, listens: &[Listen], whom: &str) -> Result<Vec<Opened>, Fatal> {
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

/// Where the tasks of HTTP/2 streams run.
#[derive(Clone)]
struct Streams(Env);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, task: F) {
        let task = unread::bounded(self.0.clone(), task, limits::ANSWER_STALL);
        drop(self.0.spawn("hyper", Box::pin(task)));
    }
}

/// One listening address and its handler.
#[derive(Clone)]
pub struct Port<H> {
    env: Env,
    builder: auto::Builder<Streams>,
    handler: H,
    /// For TLS, if the address takes it.
    acceptor: Option<Acceptor>,
    plain: bool,
    http2_only: bool,
    ping_time_min: Duration,
    places: Places,
    stopped: latest::Receiver<bool>,
}

impl<H: Handler> Port<H> {
    /// The `acceptor` is for those addresses that are secured.
    pub fn new(
        env: &Env,
        settings: &Settings,
        opened: &Opened,
        acceptor: Option<Acceptor>,
        handler: H,
        stopped: latest::Receiver<bool>,
    ) -> Self {
        let mut builder = auto::Builder::new(Streams(env.clone()));
        builder.http1().timer(Timer(env.rt.clone())).header_read_timeout(limits::HTTP_HEAD_TIMEOUT);
        builder
            .http2()
            .timer(Timer(env.rt.clone()))
            .max_header_list_size(limits::METADATA_READ_BYTES_MAX)
            .max_concurrent_streams(settings.concurrent_streams_max)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .keep_alive_interval(settings.keep_alive_interval)
            .keep_alive_timeout(settings.keep_alive_timeout);
        if settings.http2_only {
            builder = builder.http2_only();
        }
        let (acceptor, plain) = (acceptor.filter(|_| opened.secure), opened.plain);
        let (env, places) = (env.clone(), settings.places.clone());
        let Settings { http2_only, ping_time_min, .. } = *settings;
        Self { env, builder, handler, acceptor, plain, http2_only, ping_time_min, places, stopped }
    }

    /// Accepts connections until the server stops.
    pub async fn accept(self, mut listener: Box<dyn Listener>) {
        loop {
            let mut signal = self.stopped.clone();
            let accepted = tokio::select! {
                biased; // The signal first: no connection is accepted after it.
                () = stopped(&mut signal) => return,
                accepted = listener.accept() => accepted,
            };
            let (conn, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "accepting a client connection failed");
                    self.env.sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let place = tokio::select! {
                biased; // As above.
                () = stopped(&mut signal) => return,
                place = self.places.enter(from.map(|from| from.ip())) => place,
            };
            let Some(place) = place else {
                debug!(?from, "refused a client connection: all places are taken");
                continue;
            };
            debug!(?from, "client connected");
            self.env.spawn("client connection", self.clone().run(conn, from, place));
        }
    }

    /// Serves a connection until it ends or its place is needed.
    async fn run(mut self, conn: BoxConn, from: Option<SocketAddr>, place: places::Place) {
        let mut signal = self.stopped.clone();
        let secured = tokio::select! {
            biased; // Handshakes do not hold up the end of the server.
            () = stopped(&mut signal) => return,
            () = place.gives_way() => return,
            secured = self.secure(conn, from) => secured,
        };
        let Some((Accepted { conn, client }, handler)) = secured else { return };
        // The client has a verified certificate.
        if client.is_some() {
            place.standing().make_known();
        }
        let (remote, standing) = (Remote(from), place.standing().clone());
        // Shared with a connection that switches protocols, which goes on without this task.
        let place = Arc::new(place);
        let held = KeptPlace(place.clone());
        let outlet = Outlet::new(conn);
        let wire =
            Wire::new(outlet.clone(), self.env.clone(), standing.clone(), self.ping_time_min);
        let service = service_fn(move |mut request: Request<Incoming>| {
            // The streams of HTTP/2 are counted by their frames.
            let open = (request.version() < Version::HTTP_2).then(|| standing.open());
            let extensions = request.extensions_mut();
            extensions.insert(remote);
            if let Some(client) = &client {
                extensions.insert(client.clone());
            }
            if request.headers().contains_key(UPGRADE) {
                request.extensions_mut().insert(held.clone());
            }
            if !standing.is_known() && handler.is_clients(&request) {
                standing.make_known();
            }
            let answer = handler.handle(request, standing.is_known());
            async {
                let answer = answer.await;
                Ok::<_, Infallible>(match open {
                    None => answer,
                    Some(open) => answer.map(|body| Body::new(Until { body, _open: open })),
                })
            }
        });
        let (conn, builder) = (TokioIo::new(wire), self.builder.clone());
        // Where upgrades are served, the builder reads the version from the connection.
        let ended = match self.http2_only {
            true => {
                let connection = builder.serve_connection(conn, service);
                self.drive(connection, auto::Connection::graceful_shutdown, outlet, from, place)
                    .await
            }
            false => {
                let connection = builder.serve_connection_with_upgrades(conn, service);
                let leave = auto::UpgradeableConnection::graceful_shutdown;
                self.drive(connection, leave, outlet, from, place).await
            }
        };
        if let Err(error) = ended {
            debug!(%error, "client connection ended");
        }
    }

    /// Serves a connection until it ends, asked to `leave` when the server stops or its place is needed.
    async fn drive<C: Future<Output = Result<(), E>>, E>(
        &mut self,
        connection: C,
        leave: impl FnOnce(Pin<&mut C>),
        outlet: Outlet,
        from: Option<SocketAddr>,
        place: Arc<places::Place>,
    ) -> Result<(), E> {
        tokio::pin!(connection);
        tokio::select! {
            biased; // Progress of the connection first; the signals are for idle ones.
            ended = poll_fn(|cx| outlet.poll(connection.as_mut(), cx)) => ended,
            () = stopped(&mut self.stopped) => {
                leave(connection.as_mut());
                poll_fn(|cx| outlet.poll(connection.as_mut(), cx)).await
            }
            () = place.gives_way() => {
                debug!(?from, "a client connection is closed: its place is needed");
                if !place.standing().is_known() {
                    return Ok(());
                }
                leave(connection.as_mut());
                tokio::select! {
                    biased; // A connection that ends in time ends in order.
                    ended = poll_fn(|cx| outlet.poll(connection.as_mut(), cx)) => ended,
                    () = self.env.sleep(limits::CONNECTION_LEAVE) => Ok(()),
                }
            }
        }
    }

    /// The connection, secured where that is required; `None` if that fails, of which the acceptor logs
    /// the reason.
    async fn secure(&self, conn: BoxConn, from: Option<SocketAddr>) -> Option<(Accepted, H)> {
        let handler = self.handler.clone();
        let plain = |conn| Accepted { conn, client: None };
        let Some(acceptor) = &self.acceptor else { return Some((plain(conn), handler)) };
        let (tls, conn) = match self.plain {
            true => either::is_tls(&self.env, conn).await?,
            false => (true, conn),
        };
        if !tls {
            return Some((plain(conn), handler));
        }
        Some((acceptor.accept(conn, from).await.ok()?, handler.secured()))
    }
}

/// A response body of HTTP/1: its connection is not idle until it has ended.
struct Until {
    body: Body,
    _open: places::Open,
}

impl http_body::Body for Until {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Waits for the signal to stop, or for the server to be dropped.
pub(super) async fn stopped(signal: &mut latest::Receiver<bool>) {
    // An error means that the sender has been dropped.
    let _ = signal.wait_for(|stop| *stop).await;
}
