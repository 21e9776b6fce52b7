//! The client used by the tools, the simulator and the benchmark: one HTTP/2 connection at a time
//! to one of several endpoints, behind the generated gRPC clients. It connects when a call needs it
//! and goes on to the next endpoint when one does not answer. It never repeats a call: whether that
//! is safe is the caller's to know.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;
use tonic::Status;
use tonic::body::Body;

use crate::env::Env;
use crate::env::hyper::{Exec, Timer};

/// How a [`Channel`] behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// For resolving, connecting and the HTTP/2 handshake with one endpoint.
    pub connect_timeout: Duration,
    /// Ping the server after this time without a sign of life, and give the connection up when no
    /// answer comes: without it a call over a broken network hangs until its own deadline.
    pub keep_alive_interval: Duration,
    pub keep_alive_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            keep_alive_interval: Duration::from_secs(2),
            keep_alive_timeout: Duration::from_secs(2),
        }
    }
}

/// Carries gRPC calls; give a clone to each generated client. Clones share the connection.
#[derive(Clone)]
pub struct Channel(Arc<Inner>);

struct Inner {
    env: Env,
    options: Options,
    state: Mutex<State>,
}

struct State {
    /// `host:port`, the one to try next in front.
    endpoints: VecDeque<Authority>,
    open: Option<(Authority, SendRequest<Body>)>,
}

impl Channel {
    /// Connects lazily to one of `endpoints`, each `host:port`.
    ///
    /// # Panics
    /// When an endpoint is not of that form, or there is none.
    pub fn new<S: AsRef<str>>(env: Env, endpoints: impl IntoIterator<Item = S>) -> Self {
        Self::with_options(env, endpoints, Options::default())
    }

    /// As [`Channel::new`].
    ///
    /// # Panics
    /// As [`Channel::new`].
    pub fn with_options<S: AsRef<str>>(
        env: Env,
        endpoints: impl IntoIterator<Item = S>,
        options: Options,
    ) -> Self {
        let endpoints: VecDeque<Authority> = endpoints
            .into_iter()
            .map(|endpoint| endpoint.as_ref().parse().expect("an endpoint is host:port"))
            .collect();
        assert!(!endpoints.is_empty(), "a channel needs an endpoint");
        let state = Mutex::new(State { endpoints, open: None });
        Self(Arc::new(Inner { env, options, state }))
    }
}

impl Inner {
    /// The open connection, or a new one to the first endpoint that takes it.
    async fn sender(&self) -> Result<(Authority, SendRequest<Body>), Status> {
        let mut state = self.state.lock().await;
        if let Some(open) = state.open.as_ref().filter(|(_, sender)| !sender.is_closed()) {
            return Ok(open.clone());
        }
        state.open = None;
        let mut reason = Status::unavailable("no endpoint");
        for _ in 0..state.endpoints.len() {
            let endpoint = state.endpoints[0].clone();
            let dial = self.dial(&endpoint);
            match self.env.timeout(self.options.connect_timeout, dial).await {
                Ok(Ok(sender)) => {
                    state.open = Some((endpoint.clone(), sender.clone()));
                    return Ok((endpoint, sender));
                }
                Ok(Err(error)) => reason = Status::unavailable(format!("{endpoint}: {error}")),
                Err(_) => reason = Status::unavailable(format!("{endpoint}: connecting timed out")),
            }
            state.endpoints.rotate_left(1);
        }
        Err(reason)
    }

    async fn dial(&self, endpoint: &Authority) -> std::io::Result<SendRequest<Body>> {
        let io = self.env.net.connect(endpoint.to_string()).await?;
        let (sender, connection) = http2::Builder::new(Exec(self.env.rt.clone()))
            .timer(Timer(self.env.rt.clone()))
            .keep_alive_interval(self.options.keep_alive_interval)
            .keep_alive_timeout(self.options.keep_alive_timeout)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(io))
            .await
            .map_err(std::io::Error::other)?;
        self.env.spawn("client connection", async move {
            // Its end is seen by the calls it carries.
            let _ = connection.await;
        });
        Ok(sender)
    }

    /// Tries another endpoint next time, unless that has happened already.
    async fn give_up(&self, endpoint: &Authority) {
        let mut state = self.state.lock().await;
        if state.open.as_ref().is_some_and(|(open, sender)| open == endpoint && sender.is_closed())
        {
            state.open = None;
            state.endpoints.rotate_left(1);
        }
    }

    async fn call(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Status> {
        let (endpoint, mut sender) = self.sender().await?;
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(endpoint.clone());
        *request.uri_mut() = Uri::from_parts(parts).expect("scheme, authority and a path");
        let response = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        match response.await {
            Ok(response) => Ok(response),
            Err(error) => {
                self.give_up(&endpoint).await;
                Err(Status::unavailable(format!("{endpoint}: {error}")))
            }
        }
    }
}

impl tower::Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let inner = self.0.clone();
        Box::pin(async move { inner.call(request).await })
    }
}
