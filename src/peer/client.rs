//! Calls to other members: connecting, over TLS where the URL requires it, a few kept connections, and
//! requests with a time limit. Knows no path and no raft.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::body::{Body, ReadError, read_whole};
use super::stall::StallGuard;
use super::transport::Patience;
use crate::env::{Abort, Env};
use crate::limits::{PEER_ANSWER_BYTES_MAX, PEER_PIPELINE_IN_FLIGHT, PEER_PROBE_INTERVAL};
use crate::tls::{self, Dialer, Target, TlsError};

/// Makes HTTP/1.1 requests to peer URLs.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    env: Env,
    dial_timeout: Duration,
    patience: Patience,
    dialer: Dialer,
    /// Connections that wait for their next request.
    idle: Mutex<BTreeMap<Target, Vec<Idle>>>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// An open connection; dropping it closes it.
pub(super) struct Connection {
    sender: SendRequest<Body>,
    driver: Box<dyn Abort>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A whole answer. Whose cluster gave it is in its `X-Etcd-Cluster-ID`.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Client {
    /// `dial_timeout` limits resolving and connecting; a TLS handshake, by `tls`, has its own limit.
    pub fn new(env: Env, dial_timeout: Duration, tls: &tls::Settings) -> Self {
        Self::with_patience(env, dial_timeout, Patience::default(), tls)
    }

    /// As [`Self::new`], with connections that may be slower.
    pub fn with_patience(
        env: Env,
        dial_timeout: Duration,
        patience: Patience,
        tls: &tls::Settings,
    ) -> Self {
        // Go's client offers no protocol to a peer: both use HTTP/1.1.
        let dialer = Dialer::new(&env, tls, &[]);
        Self(Arc::new(Inner { env, dial_timeout, patience, dialer, idle: Mutex::default() }))
    }

    /// Whether the certificates can be used now.
    pub async fn check(&self) -> Result<(), TlsError> {
        self.0.dialer.check().await
    }

    /// `GET path` from the server at `url`, whose own path is ignored.
    pub async fn get(&self, url: &str, path: &str, limit: Duration) -> io::Result<HttpAnswer> {
        self.call(url, request(Method::GET, path, Body::empty())?, limit).await
    }

    /// `POST path` with a protobuf body.
    pub async fn post(
        &self,
        url: &str,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> io::Result<HttpAnswer> {
        let mut request = request(Method::POST, path, Body::from(body))?;
        request
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/protobuf"));
        self.call(url, request, limit).await
    }

    /// Any request; its URI is a path. The answer's status is the caller's to judge.
    pub(super) async fn call(
        &self,
        url: &str,
        request: Request<Body>,
        limit: Duration,
    ) -> io::Result<HttpAnswer> {
        self.0
            .env
            .timeout(limit, self.exchange(url, request))
            .await
            .map_err(|_| timed_out("request"))?
    }

    async fn exchange(&self, url: &str, request: Request<Body>) -> io::Result<HttpAnswer> {
        let server = Server::of(url)?;
        let (response, connection) = self.send(&server, request).await?;
        let (parts, mut body) = response.into_parts();
        let body =
            match read_whole(&self.0.env, self.0.patience.read, &mut body, PEER_ANSWER_BYTES_MAX)
                .await
            {
                Ok(body) => body,
                Err(ReadError::Io(error)) => return Err(error),
                Err(error @ ReadError::TooLarge) => return Err(io::Error::other(error)),
            };
        self.keep(server, connection);
        Ok(HttpAnswer { status: parts.status, headers: parts.headers, body })
    }

    /// Sends over a kept connection or a new one, and waits for the head of the answer.
    async fn send(
        &self,
        server: &Server,
        mut request: Request<Body>,
    ) -> io::Result<(Response<Incoming>, Connection)> {
        request.headers_mut().insert(HOST, server.host.clone());
        while let Some(mut connection) = self.take(&server.target) {
            match connection.sender.try_send_request(request).await {
                Ok(response) => return Ok((response, connection)),
                // The server closed the kept connection meanwhile. Only a request of which nothing
                // has been sent may be sent again.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(broken(error.into_error())),
                },
            }
        }
        let mut connection = self.connect(server).await?;
        let response = connection.sender.send_request(request).await.map_err(broken)?;
        Ok((response, connection))
    }

    /// Sends over a connection of its own, without a limit for the answer's body: streams. The
    /// connection must be kept until the body has been read.
    pub(super) async fn open(
        &self,
        url: &str,
        mut request: Request<Body>,
    ) -> io::Result<(Response<Incoming>, Connection)> {
        let server = Server::of(url)?;
        request.headers_mut().insert(HOST, server.host.clone());
        let mut connection = self.connect(&server).await?;
        let answer =
            self.0.env.timeout(self.0.patience.read, connection.sender.send_request(request)).await;
        let response = answer.map_err(|_| timed_out("response"))?.map_err(broken)?;
        Ok((response, connection))
    }

    /// As [`Client::open`], but the answer may take as long as the caller waits: snapshots.
    pub(super) async fn upload(
        &self,
        url: &str,
        mut request: Request<Body>,
    ) -> io::Result<(Response<Incoming>, Connection)> {
        let server = Server::of(url)?;
        request.headers_mut().insert(HOST, server.host.clone());
        let mut connection = self.connect(&server).await?;
        let response = connection.sender.send_request(request).await.map_err(broken)?;
        Ok((response, connection))
    }

    async fn connect(&self, server: &Server) -> io::Result<Connection> {
        let env = &self.0.env;
        let dial = env.timeout(self.0.dial_timeout, server.target.connect(env));
        let mut conn = dial.await.map_err(|_| timed_out("dial"))??;
        if server.target.secure == Some(true) {
            conn = self.0.dialer.secure(&server.target.name, conn).await?;
        }
        let io = TokioIo::new(StallGuard::new(env.clone(), self.0.patience.write, conn));
        let (sender, driver) = http1::handshake(io).await.map_err(broken)?;
        // The error reaches the waiter of the answer.
        let driver = env.spawn("peer-connection", async move { drop(driver.await) });
        Ok(Connection { sender, driver })
    }

    fn take(&self, target: &Target) -> Option<Connection> {
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.get_mut(target)?;
        let now = self.0.env.now();
        // Peers close a connection that is silent for their timeout.
        kept.retain(|idle| {
            now < idle.since + PEER_PROBE_INTERVAL && idle.connection.sender.is_ready()
        });
        kept.pop().map(|idle| idle.connection)
    }

    fn keep(&self, server: Server, connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.entry(server.target).or_default();
        if kept.len() < PEER_PIPELINE_IN_FLIGHT {
            kept.push(Idle { connection, since: self.0.env.now() });
        }
    }

    /// Closes the connections that wait for a request.
    pub(super) fn close_idle(&self) {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Where a peer URL leads.
struct Server {
    target: Target,
    host: HeaderValue,
}

impl Server {
    fn of(url: &str) -> io::Result<Self> {
        let invalid = |why: String| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("peer URL {url:?}: {why}"))
        };
        let target = Target::parse(url).map_err(invalid)?;
        if target.secure.is_none() {
            return Err(invalid("no scheme".to_owned()));
        }
        let host = HeaderValue::from_str(&target.authority);
        let host = host.map_err(|error| invalid(error.to_string()))?;
        Ok(Self { target, host })
    }
}

/// A request for a path; the host is added when it is sent.
pub(super) fn request(method: Method, path: &str, body: Body) -> io::Result<Request<Body>> {
    let uri: Uri = path.parse().map_err(io::Error::other)?;
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    Ok(request)
}

/// hyper's texts leave out the cause.
pub(super) fn broken(error: hyper::Error) -> io::Error {
    match error.source() {
        Some(cause) => io::Error::other(format!("{error}: {cause}")),
        None => io::Error::other(error),
    }
}

fn timed_out(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} timed out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lead_to_servers() {
        let server = |url| {
            let server = Server::of(url).map_err(|error| error.to_string())?;
            let host = server.host.to_str().expect("plain").to_owned();
            Ok::<_, String>((host, server.target.secure == Some(true)))
        };
        assert_eq!(server("http://a.example:2380"), Ok(("a.example:2380".into(), false)));
        assert_eq!(server("https://[::1]:2380/ignored"), Ok(("[::1]:2380".into(), true)));
        assert_eq!(server("unix://m0:2380"), Ok(("m0:2380".into(), false)));
        assert!(server("a:2380").expect_err("no scheme").contains("no scheme"));
        assert!(server("ftp://a:2380").is_err());
    }
}
