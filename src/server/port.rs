//! One listening address: connections come in, are secured where the URL says so, speak HTTP/1 or HTTP/2,
//! are pinged and their pings counted, and end in order when the server stops. What is answered to a
//! request is [`Answers`]' matter; a member and a proxy have ports of the same kind.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::header::{CONTENT_TYPE, UPGRADE};
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tonic::body::Body;
use tracing::{debug, warn};

use super::authority::Lenient;
use super::pings::Policed;
use crate::env::hyper::{Exec, Timer};
use crate::env::{BoxConn, BoxFuture, Env, Listener, Place};
use crate::error::Fatal;
use crate::grpc::slow::Remote;
use crate::latest;
use crate::tls::{Accepted, Acceptor, ClientName, Listen, either};

/// HTTP/2 flow-control windows: larger than the protocol's 64 KiB so that a long range is not paced
/// by window updates.
const WINDOW_BYTES: u32 = 1 << 20;
/// After a failed accept, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who answers the requests of a port. A request carries who its client is, as far as that is known,
/// in its extensions: [`Remote`] and [`ClientName`].
pub trait Answers: Clone + Send + Sync + 'static {
    /// The same for those who come over TLS.
    fn secured(self) -> Self;
    fn answer(&self, request: Request<Incoming>) -> BoxFuture<'static, Response<Body>>;
}

/// Whether the request is gRPC, which is over HTTP/2 only: over HTTP/1 it is a request as any other, and
/// the host that it names is checked.
pub fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE);
    let is_http2 = request.version() == Version::HTTP_2;
    is_http2 && content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The request with an extension for the connection below, if the client wants to switch protocols on it.
pub fn with_upgrade<T: Clone + Send + Sync + 'static>(
    mut request: Request<Incoming>,
    extension: impl FnOnce(BoxFuture<'static, io::Result<BoxConn>>) -> T,
) -> Request<Incoming> {
    if request.headers().contains_key(UPGRADE) {
        let connecting = hyper::upgrade::on(&mut request);
        let connecting = async {
            let upgraded = connecting.await.map_err(io::Error::other)?;
            Ok(Box::new(TokioIo::new(upgraded)) as BoxConn)
        };
        let extension = extension(Box::pin(connecting));
        request.extensions_mut().insert(extension);
    }
    request
}

/// What is asked of clients' connections.
#[derive(Clone, Debug)]
pub struct Settings {
    /// HTTP/2 streams that one connection may have open.
    pub concurrent_streams_max: u32,
    /// Ping an idle connection after this time, and give it up when no answer comes.
    pub keep_alive_interval: Duration,
    pub keep_alive_timeout: Duration,
    /// Clients that ping more often than this are sent away.
    pub ping_time_min: Duration,
    /// HTTP/1 is not spoken.
    pub http2_only: bool,
}

/// An address that is listened on, and what is spoken there: one of both, or both.
pub struct Opened {
    pub place: Place,
    pub secure: bool,
    pub plain: bool,
    pub listener: Box<dyn Listener>,
}

/// Listens on all of `listens`; `whom` for is said when that fails.
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

/// One listening address and who answers there.
#[derive(Clone)]
pub struct Port<A> {
    env: Env,
    builder: auto::Builder<Exec>,
    answers: A,
    /// For TLS, if it is spoken here.
    acceptor: Option<Acceptor>,
    plain: bool,
    ping_time_min: Duration,
    stopped: latest::Receiver<bool>,
}

impl<A: Answers> Port<A> {
    /// The `acceptor` is for those addresses that are secured.
    pub fn new(
        env: &Env,
        settings: &Settings,
        opened: &Opened,
        acceptor: Option<Acceptor>,
        answers: A,
        stopped: latest::Receiver<bool>,
    ) -> Self {
        let mut builder = auto::Builder::new(Exec(env.rt.clone()));
        builder.http1().timer(Timer(env.rt.clone()));
        builder
            .http2()
            .timer(Timer(env.rt.clone()))
            .max_concurrent_streams(settings.concurrent_streams_max)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .keep_alive_interval(settings.keep_alive_interval)
            .keep_alive_timeout(settings.keep_alive_timeout);
        if settings.http2_only {
            builder = builder.http2_only();
        }
        let (acceptor, plain) = (acceptor.filter(|_| opened.secure), opened.plain);
        let (env, ping_time_min) = (env.clone(), settings.ping_time_min);
        Self { env, builder, answers, acceptor, plain, ping_time_min, stopped }
    }

    /// Takes connections in until the server stops.
    pub async fn accept(self, mut listener: Box<dyn Listener>) {
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
                true => {
                    let accepted = acceptor.accept(conn, from).await.ok()?;
                    Some((accepted, self.answers.clone().secured()))
                }
                false => Some((Accepted { conn, client: None }, self.answers.clone())),
            }
        };
        let mut signal = self.stopped.clone();
        let accepted = tokio::select! {
            biased; // Who has not come in when the server stops stays outside.
            () = stopped(&mut signal) => return,
            accepted = entering => accepted,
        };
        if let Some((Accepted { conn, client }, answers)) = accepted {
            Self { answers, ..self }.serve(conn, remote, client).await;
        }
    }

    async fn serve(mut self, conn: BoxConn, remote: Remote, client: Option<ClientName>) {
        let answers = self.answers;
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(remote);
            if let Some(client) = &client {
                request.extensions_mut().insert(client.clone());
            }
            let answer = answers.answer(request);
            async { Ok::<_, Infallible>(answer.await) }
        });
        let conn = Policed::new(conn, self.env.clone(), self.ping_time_min);
        let conn = TokioIo::new(Lenient::new(Box::new(conn)));
        let connection = self.builder.serve_connection_with_upgrades(conn, service);
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
pub(super) async fn stopped(signal: &mut latest::Receiver<bool>) {
    // An error means that the server itself has been dropped.
    let _ = signal.wait_for(|stop| *stop).await;
}
