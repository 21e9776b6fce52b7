//! One HTTP/2 connection to one of several endpoints, made when needed and made anew when lost,
//! behind the `tower` service that generated clients take.
//!
//! A request that was certainly not sent is tried once more on a new connection; any other failure is
//! the caller's, as only the caller knows whether the request may happen twice.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::BodyExt;
use http_body_util::combinators::MapErr;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;
use tonic::Status;
use tonic::body::Body;

use super::{BadEndpoint, Options};
use crate::codec;
use crate::env::Env;
use crate::env::hyper::{Exec, Timer};
use crate::tls::target::Way;
use crate::tls::{Dialer, Target};

/// The connection, shared by clones. Dropping the last clone closes it once its streams have ended.
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
    /// Sent along with every request.
    headers: HeaderMap,
    note: Option<Note>,
}

/// The path and endpoint of the last request of a channel, for log lines.
#[derive(Clone, Debug, Default)]
pub struct Note(Arc<std::sync::Mutex<Noted>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// The path of the request, such as `/etcdserverpb.KV/Range`.
    pub method: String,
    /// The endpoint that it went to, once one was connected to.
    pub peer: Option<String>,
    pub secure: bool,
}

impl Note {
    pub fn read(&self) -> Noted {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self, change: impl FnOnce(&mut Noted)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

struct Shared {
    env: Env,
    options: Options,
    dialer: Dialer,
    connection: Mutex<Option<Connection>>,
    endpoints: std::sync::Mutex<Endpoints>,
}

/// Never empty.
struct Endpoints {
    all: Vec<Arc<Endpoint>>,
    /// The one that is connected to, or tried first.
    current: usize,
}

struct Endpoint {
    /// As it was given.
    text: String,
    /// What is wrong with it instead, in the words of Go's library.
    target: Result<Target, String>,
    /// As the server is called in requests.
    authority: Authority,
    secure: bool,
}

#[derive(Clone)]
struct Connection {
    sender: http2::SendRequest<Body>,
    endpoint: Arc<Endpoint>,
}

impl Channel {
    /// To one of `endpoints`, with the default options. Nothing is connected before the first request.
    ///
    /// # Panics
    /// When an endpoint is none of those that [`BadEndpoint`] lists, or there is none.
    pub fn new<S: AsRef<str>>(env: Env, endpoints: impl IntoIterator<Item = S>) -> Self {
        Self::with_options(env, endpoints, Options::default())
            .unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn with_options<S: AsRef<str>>(
        env: Env,
        endpoints: impl IntoIterator<Item = S>,
        options: Options,
    ) -> Result<Self, BadEndpoint> {
        let all = read(endpoints, &options)?;
        let endpoints = std::sync::Mutex::new(Endpoints { all, current: 0 });
        let connection = Mutex::new(None);
        let tls = options.tls.clone().unwrap_or_default();
        let dialer = Dialer::new(&env, &tls, &["h2"]);
        let shared = Shared { env, options, dialer, connection, endpoints };
        Ok(Self { shared: Arc::new(shared), headers: HeaderMap::new(), note: None })
    }

    /// The same connection with one more header on every request.
    pub fn with_header(&self, name: &'static str, value: HeaderValue) -> Self {
        let mut headers = self.headers.clone();
        headers.insert(name, value);
        Self { headers, ..self.clone() }
    }

    /// The same connection without a header.
    pub fn without_header(&self, name: &'static str) -> Self {
        let mut headers = self.headers.clone();
        headers.remove(name);
        Self { headers, ..self.clone() }
    }

    /// The same connection; `note` is kept up with its requests.
    pub fn with_note(&self, note: &Note) -> Self {
        Self { note: Some(note.clone()), ..self.clone() }
    }

    /// Whether no endpoint can ever be connected to.
    pub fn is_hopeless(&self) -> bool {
        self.shared.endpoints().all.iter().all(|endpoint| endpoint.target.is_err())
    }

    /// The endpoint in use, or tried first by the next request.
    pub fn endpoint(&self) -> String {
        self.shared.endpoints().current().authority.as_str().to_owned()
    }

    /// The options that the connection was made with.
    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// How many endpoints there are.
    pub fn endpoint_count(&self) -> usize {
        self.shared.endpoints().all.len()
    }

    /// Later requests go to the next endpoint; streams that are open stay where they are.
    pub async fn next_endpoint(&self) {
        let mut connection = self.shared.connection.lock().await;
        *connection = None;
        let mut endpoints = self.shared.endpoints();
        let current = endpoints.current();
        endpoints.advance(&current);
    }

    /// Replaces the endpoints. A connection to one that is no longer among them takes no more
    /// requests; streams that are open stay where they are.
    ///
    /// # Errors
    /// As for a new channel; nothing is changed then.
    pub async fn set_endpoints<S: AsRef<str>>(
        &self,
        endpoints: impl IntoIterator<Item = S>,
    ) -> Result<(), BadEndpoint> {
        let all = read(endpoints, &self.shared.options)?;
        let mut connection = self.shared.connection.lock().await;
        let is_there = |text: &str| all.iter().any(|endpoint| endpoint.text == text);
        if connection.as_ref().is_some_and(|live| !is_there(&live.endpoint.text)) {
            *connection = None;
        }
        self.shared.endpoints().replace(all);
        Ok(())
    }
}

/// Whether a request that failed with `status` certainly never left this process. Anything else may
/// have had its effect.
pub fn is_unsent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<Unsent>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Whether the server was lost or refused to work at the moment; the request may have had its effect.
pub fn is_unavailable(status: &Status) -> bool {
    status.code() == tonic::Code::Unavailable
}

/// Marks the statuses that [`is_unsent`] recognizes.
#[derive(Debug)]
struct Unsent;

impl fmt::Display for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request was not sent")
    }
}

impl std::error::Error for Unsent {}

/// Why a request was not encoded. The connection reports only that the stream was given up.
#[derive(Clone, Debug, Default)]
struct Refusal(Arc<OnceLock<Status>>);

impl Refusal {
    fn watch(&self, body: Body) -> Body {
        let refusal = self.clone();
        Body::new(body.map_err(move |status| {
            // The first one counts.
            let _ = refusal.0.set(in_gos_words(&status));
            status
        }))
    }

    fn into_status(self) -> Option<Status> {
        self.0.get().cloned()
    }
}

/// What tonic's text begins with for a message over the limit; the length and the limit follow.
const TOO_LARGE: &str = "Error, encoded message length too large";

/// The status of a message over the limit, as gRPC's Go library has it.
fn in_gos_words(status: &Status) -> Status {
    let numbers = status.message().split(|letter: char| !letter.is_ascii_digit());
    let numbers: Vec<_> = numbers.filter(|digits| !digits.is_empty()).collect();
    match &numbers[..] {
        [bytes, limit] if status.message().starts_with(TOO_LARGE) => Status::resource_exhausted(
            format!("trying to send message larger than max ({bytes} vs. {limit})"),
        ),
        _ => status.clone(),
    }
}

type BodyError = fn(hyper::Error) -> Status;
type CallResult = Result<Response<MapErr<Incoming, BodyError>>, Status>;

impl tower::Service<Request<Body>> for Channel {
    type Response = Response<MapErr<Incoming, BodyError>>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = CallResult> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        let note = self.note.clone();
        if let Some(note) = &note {
            let method = request.uri().path().to_owned();
            note.write(|noted| *noted = Noted { method, ..Noted::default() });
        }
        let timeout = request.headers().get("grpc-timeout");
        let timeout = timeout.and_then(|value| codec::grpc_timeout(value.to_str().ok()?));
        // Without a limit nothing is too large to be encoded.
        let limited = shared.options.request_bytes_max < usize::MAX;
        let refusal = limited.then(Refusal::default);
        if let Some(refusal) = &refusal {
            request = request.map(|body| refusal.watch(body));
        }
        Box::pin(async move {
            // The server keeps the deadline too, but its answer may be lost in a partition.
            let answer = match timeout {
                None => shared.send(request, note).await,
                Some(timeout) => {
                    match shared.env.timeout(timeout, shared.send(request, note)).await {
                        Ok(answer) => answer,
                        Err(_) => Err(Status::deadline_exceeded("context deadline exceeded")),
                    }
                }
            };
            answer.map_err(|status| refusal.and_then(Refusal::into_status).unwrap_or(status))
        })
    }
}

impl Shared {
    async fn send(&self, mut request: Request<Body>, note: Option<Note>) -> CallResult {
        let mut again = true;
        loop {
            let Connection { mut sender, endpoint } = self.connected().await?;
            if let Some(note) = &note {
                note.write(|noted| {
                    noted.peer = Some(endpoint.authority.as_str().to_owned());
                    noted.secure = endpoint.secure;
                });
            }
            address(&mut request, &endpoint);
            let mut failure = match sender.try_send_request(request).await {
                Ok(response) => return Ok(response.map(|body| body.map_err(lost as BodyError))),
                Err(failure) => failure,
            };
            match failure.take_message() {
                // The connection turned out to be closed.
                Some(unsent) if again => {
                    request = unsent;
                    again = false;
                    self.forget(&endpoint).await;
                }
                Some(_) => return Err(unsent(failure.into_error())),
                None => return Err(lost(failure.into_error())),
            }
        }
    }

    /// Returns the connection; the first request that needs one connects while others wait.
    async fn connected(&self) -> Result<Connection, Status> {
        let mut connection = self.connection.lock().await;
        if let Some(live) = connection.as_ref().filter(|live| !live.sender.is_closed()) {
            return Ok(live.clone());
        }
        if let Some(lost) = connection.take() {
            self.endpoints().advance(&lost.endpoint);
        }
        let mut failure = String::new();
        let count = self.endpoints().all.len();
        for _ in 0..count {
            let endpoint = self.endpoints().current();
            match self.connect(&endpoint).await {
                Ok(sender) => {
                    let made = Connection { sender, endpoint };
                    return Ok(connection.insert(made).clone());
                }
                Err(error) => {
                    failure = match &endpoint.target {
                        Ok(_) => format!("{}: {error}", endpoint.authority),
                        Err(_) => error,
                    };
                    self.endpoints().advance(&endpoint);
                }
            }
        }
        Err(unsent(failure))
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<http2::SendRequest<Body>, String> {
        let Options { connect_timeout, keep_alive_interval, keep_alive_timeout, .. } = self.options;
        let target = endpoint.target.as_ref().map_err(String::clone)?;
        let connect = async {
            let stream = target.connect(&self.env).await?;
            match endpoint.secure {
                true => self.dialer.secure(&target.name, stream).await,
                false => Ok(stream),
            }
        };
        let stream = match self.env.timeout(connect_timeout, connect).await {
            Ok(stream) => stream.map_err(|error| error.to_string())?,
            Err(elapsed) => return Err(elapsed.to_string()),
        };
        let rt = &self.env.rt;
        let mut http = http2::Builder::new(Exec(Arc::clone(rt)));
        http.timer(Timer(Arc::clone(rt)))
            .keep_alive_interval(keep_alive_interval)
            .keep_alive_timeout(keep_alive_timeout)
            .keep_alive_while_idle(self.options.keep_alive_while_idle);
        let (sender, connection) =
            http.handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        drop(self.env.spawn("client", async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection lost");
            }
        }));
        Ok(sender)
    }

    /// Drops the connection to `endpoint`, unless another has been made meanwhile.
    async fn forget(&self, endpoint: &Endpoint) {
        let mut connection = self.connection.lock().await;
        if connection.as_ref().is_some_and(|live| live.sender.is_closed()) {
            *connection = None;
            self.endpoints().advance(endpoint);
        }
    }

    /// Nothing that panics happens while it is held.
    fn endpoints(&self) -> MutexGuard<'_, Endpoints> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Endpoints {
    fn current(&self) -> Arc<Endpoint> {
        self.all[self.current].clone()
    }

    /// The endpoint after `failed` is tried first from now on; one that is not there any more has none.
    fn advance(&mut self, failed: &Endpoint) {
        let is_it = |endpoint: &Arc<Endpoint>| std::ptr::eq(&**endpoint, failed);
        if let Some(at) = self.all.iter().position(is_it) {
            self.current = (at + 1) % self.all.len();
        }
    }

    /// The one in use stays so if it is among them.
    fn replace(&mut self, mut all: Vec<Arc<Endpoint>>) {
        for endpoint in &mut all {
            if let Some(known) = self.all.iter().find(|known| known.text == endpoint.text) {
                *endpoint = known.clone();
            }
        }
        let used = self.current();
        self.current = all.iter().position(|endpoint| Arc::ptr_eq(endpoint, &used)).unwrap_or(0);
        self.all = all;
    }
}

/// Parses the endpoints and removes duplicates: members may advertise the same URL.
fn read<S: AsRef<str>>(
    endpoints: impl IntoIterator<Item = S>,
    options: &Options,
) -> Result<Vec<Arc<Endpoint>>, BadEndpoint> {
    let mut all: Vec<Arc<Endpoint>> = Vec::new();
    for text in endpoints {
        let endpoint = endpoint(text.as_ref(), options)?;
        if all.iter().all(|known| known.text != endpoint.text) {
            all.push(Arc::new(endpoint));
        }
    }
    if all.is_empty() { Err(BadEndpoint(String::new())) } else { Ok(all) }
}

fn endpoint(text: &str, options: &Options) -> Result<Endpoint, BadEndpoint> {
    let bad = || BadEndpoint(text.to_owned());
    let text_only = text.trim_end_matches('/');
    let parsed = Target::parse(text_only).ok().and_then(|target| {
        let authority: Authority = target.authority.parse().ok()?;
        Some((target, authority))
    });
    let (target, authority) = match parsed {
        Some(parsed) => parsed,
        None if options.any_endpoint => {
            return Ok(Endpoint {
                text: text.to_owned(),
                target: Err(dial_error(text)),
                authority: Authority::from_static("none"),
                secure: false,
            });
        }
        None => return Err(bad()),
    };
    let (_, address) = text_only.split_once("://").unwrap_or(("", text_only));
    if matches!(target.way, Way::Tcp(_)) && address.contains('/') && !options.any_endpoint {
        return Err(bad());
    }
    let secure = target.secure.unwrap_or(options.tls.is_some());
    Ok(Endpoint { text: text.to_owned(), target: Ok(target), authority, secure })
}

/// Go's error text for an invalid endpoint.
fn dial_error(text: &str) -> String {
    let why = match text.strip_prefix("http://").or(text.strip_prefix("https://")).unwrap_or(text) {
        "" => "missing address".to_owned(),
        address => match address.rsplit_once(':') {
            None => format!("address {address}: missing port in address"),
            Some((host, _)) if host.contains(':') => {
                format!("address {address}: too many colons in address")
            }
            Some((_, port)) if port.parse::<u64>().is_ok() => {
                format!("address {port}: invalid port")
            }
            Some((_, port)) => format!("lookup tcp/{port}: unknown port"),
        },
    };
    format!("dial tcp: {why}")
}

/// Generated clients name the method only.
fn address(request: &mut Request<Body>, endpoint: &Endpoint) {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(if endpoint.secure { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(endpoint.authority.clone());
    *request.uri_mut() = Uri::from_parts(parts).expect("the method's path was a valid one");
}

fn lost(error: hyper::Error) -> Status {
    Status::unavailable(format!("connection lost: {error}"))
}

fn unsent(error: impl fmt::Display) -> Status {
    let mut status = Status::unavailable(format!("connection error: {error}"));
    status.set_source(Arc::new(Unsent));
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_endpoint_is_refused_or_never_reached() {
        let strict = Options::default();
        let any = Options { any_endpoint: true, ..Options::default() };
        let check = |text: &str, why: &str| {
            assert!(endpoint(text, &strict).is_err(), "{text}");
            let target = endpoint(text, &any).expect("taken").target;
            assert_eq!(target.expect_err(text), format!("dial tcp: {why}"));
        };
        check("", "missing address");
        check("http://", "missing address");
        check("10.0.0.1", "address 10.0.0.1: missing port in address");
        check("ftp://a:1", "address ftp://a:1: too many colons in address");
        check("a:99999", "address 99999: invalid port");
        check("a:abc", "lookup tcp/abc: unknown port");
        // A path is one thing more that the library passes over.
        assert!(endpoint("http://a:1/path", &any).expect("taken").target.is_ok());
        assert!(endpoint("http://a:1/path", &strict).is_err());
    }

    #[test]
    fn a_message_over_the_limit_is_refused_in_gos_words() {
        let text =
            "Error, encoded message length too large: found 2006 bytes, the limit is: 1000 bytes";
        let refused = in_gos_words(&Status::out_of_range(text));
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert_eq!(refused.message(), "trying to send message larger than max (2006 vs. 1000)");
        let other = in_gos_words(&Status::out_of_range("revision 1 of 2"));
        assert_eq!(other.code(), tonic::Code::OutOfRange);
    }
}
