//! The listener's end of a secured stream: one handshake with a client or a member, by the
//! certificates of that moment.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{NoClientAuth, NoServerSessionStorage};
use rustls::time_provider::TimeProvider;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, info, warn};

use super::certificate::Names;
use super::files::{Contents, End, Reloading};
use super::reason::{self, Peer};
use super::verify::Clients;
use super::{ClientName, Settings, TlsError, origin};
use crate::env::{BoxConn, Disk, Env};
use crate::limits::TLS_HANDSHAKE_TIMEOUT;

/// Which port is listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// HTTP/2 and HTTP/1; clients may come from anywhere.
    Client,
    /// HTTP/1; members connect from the addresses in their certificates.
    Peer,
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Peer => "peer",
        })
    }
}

/// A connection whose other end is authenticated.
pub struct Accepted {
    pub conn: BoxConn,
    /// Only with `client-cert-auth`, as in etcd.
    pub client: Option<ClientName>,
}

/// The handshake failed; the reason is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the TLS handshake failed")]
pub struct Rejected;

/// Secures accepted connections. Clones share the certificates.
#[derive(Clone)]
pub struct Acceptor(Arc<Inner>);

struct Inner {
    env: Env,
    port: Port,
    asks_origin: bool,
    names_clients: bool,
    configs: Arc<Reloading<ServerConfig>>,
}

impl Acceptor {
    /// Fails when the settings contradict themselves or their files cannot be used now.
    pub async fn new(env: &Env, settings: &Settings, port: Port) -> Result<Self, TlsError> {
        settings.check()?;
        let clock = Clock::of(env);
        let build = move |disk: &dyn Disk, settings: &Settings, contents: &Contents| {
            config(disk, settings, contents, &clock, port)
        };
        let configs = Reloading::new(env.clone(), settings.clone(), End::Listener, Box::new(build));
        configs.current().await?;
        info!(tls_info = %settings, "starting with {port} TLS");
        Ok(Self(Arc::new(Inner {
            env: env.clone(),
            port,
            asks_origin: port == Port::Peer && !settings.skip_client_san_verification,
            names_clients: settings.client_cert_auth,
            configs,
        })))
    }

    /// Takes a connection through its handshake, which may take `TLS_HANDSHAKE_TIMEOUT`. Handshakes do
    /// not wait for each other: how many there are is bounded by the places of connections.
    pub async fn accept(
        &self,
        conn: BoxConn,
        from: Option<SocketAddr>,
    ) -> Result<Accepted, Rejected> {
        let inner = &*self.0;
        let mut server_name = String::new();
        let handshake = inner.handshake(conn, from, &mut server_name);
        let shaken = inner.env.timeout(TLS_HANDSHAKE_TIMEOUT, handshake).await;
        let why = match shaken {
            Ok(Ok(accepted)) => return Ok(accepted),
            Ok(Err(why)) => why,
            Err(elapsed) => Why::Failed(elapsed.to_string()),
        };
        let (port, from) = (inner.port, from.map(|from| from.to_string()));
        match why {
            // A check whether the port is open.
            Why::Gone => debug!(from, %port, "a connection was closed before its handshake"),
            Why::Failed(error) => {
                warn!(
                    remote_addr = from,
                    server_name, error, "rejected connection on {port} endpoint"
                );
            }
        }
        Err(Rejected)
    }

    /// Why a connection is refused, as it is logged.
    #[cfg(test)]
    pub(super) async fn refusal(&self, conn: BoxConn, from: Option<SocketAddr>) -> Option<String> {
        match self.0.handshake(conn, from, &mut String::new()).await {
            Ok(_) => None,
            Err(Why::Gone) => Some("gone".into()),
            Err(Why::Failed(why)) => Some(why),
        }
    }
}

enum Why {
    Gone,
    Failed(String),
}

impl<E: std::error::Error> From<E> for Why {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Inner {
    async fn handshake(
        &self,
        conn: BoxConn,
        from: Option<SocketAddr>,
        server_name: &mut String,
    ) -> Result<Accepted, Why> {
        let greeted = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), conn).await;
        let hello = greeted.map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => Why::Gone,
            _ => Why::Failed(reason::text(&error, Peer::Client)),
        })?;
        *server_name = hello.client_hello().server_name().unwrap_or_default().to_owned();
        let config = self.configs.current().await?;
        let stream = hello.into_stream(config).await;
        let stream = stream.map_err(|error| Why::Failed(reason::text(&error, Peer::Client)))?;
        let names = names(&stream);
        if let (true, Some(names), Some(from)) = (self.asks_origin, &names, from) {
            origin::check(&self.env, names, from.ip()).await?;
        }
        // A certificate without a common name is not no certificate: its client is a caller without a name.
        let names = names.filter(|_| self.names_clients);
        let client = names.map(|names| ClientName(names.common.unwrap_or_default().into()));
        Ok(Accepted { conn: Box::new(stream), client })
    }
}

/// The names in the certificate that the client has shown.
fn names(stream: &TlsStream<BoxConn>) -> Option<Names> {
    let (_, session) = stream.get_ref();
    Names::of(session.peer_certificates()?.first()?)
}

fn config(
    disk: &dyn Disk,
    settings: &Settings,
    contents: &Contents,
    clock: &Clock,
    port: Port,
) -> Result<ServerConfig, TlsError> {
    let pair = contents.pair.as_ref().expect("a listener has a certificate: it was checked");
    let provider = Arc::new(settings.protocol.provider());
    let builder = ServerConfig::builder_with_details(provider.clone(), Arc::new(clock.clone()))
        .with_protocol_versions(&settings.protocol.versions())
        .map_err(|error| TlsError::new(error.to_string()))?;
    let builder = match settings.asks_clients() {
        true => {
            let clients = Clients::new(disk, settings, contents, provider)?;
            builder.with_client_cert_verifier(Arc::new(clients))
        }
        false => builder.with_client_cert_verifier(Arc::new(NoClientAuth)),
    };
    let mut config = builder
        .with_single_cert(pair.chain()?, pair.private_key()?)
        .map_err(|error| pair.refused(&error))?;
    config.alpn_protocols = match port {
        Port::Client => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Port::Peer => vec![b"http/1.1".to_vec()],
    };
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The environment's wall clock, by which certificates are valid or not.
#[derive(Clone)]
pub(super) struct Clock(Env);

impl Clock {
    pub fn of(env: &Env) -> Self {
        Self(env.clone())
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        let since = self.0.wall().duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(rustls::pki_types::UnixTime::since_unix_epoch(since))
    }
}
