//! The dialer's end of a secured stream: one handshake with the server that was connected to, by the
//! certificates of that moment.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::accept::Clock;
use super::certificate::Names;
use super::files::{Contents, End, Pair, Reloading};
use super::verify::{Anybody, Servers};
use super::{Settings, TlsError, reason};
use crate::env::{BoxConn, Disk, Env};
use crate::limits::TLS_HANDSHAKE_TIMEOUT;

/// Secures connections that were made. Clones share the certificates.
#[derive(Clone)]
pub struct Dialer {
    env: Env,
    configs: Arc<Reloading<ClientConfig>>,
    /// In place of the names of hosts, if not empty.
    server_name: String,
}

impl Dialer {
    /// `protocols` are offered by ALPN, the most wanted first. Nothing is read yet.
    pub fn new(env: &Env, settings: &Settings, protocols: &[&str]) -> Self {
        let protocols: Vec<Vec<u8>> =
            protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let clock = Clock::of(env);
        let build = move |disk: &dyn Disk, settings: &Settings, contents: &Contents| {
            config(disk, settings, contents, &clock, protocols.clone())
        };
        let configs = Reloading::new(env.clone(), settings.clone(), End::Dialer, Box::new(build));
        Self { env: env.clone(), configs, server_name: settings.server_name.clone() }
    }

    /// Whether the files can be used now.
    pub async fn check(&self) -> Result<(), TlsError> {
        self.configs.current().await.map(drop)
    }

    /// Secures a connection to the server called `name`, a host name or an address.
    pub async fn secure(&self, name: &str, conn: BoxConn) -> io::Result<BoxConn> {
        let config = self.configs.current().await.map_err(io::Error::other)?;
        let name = if self.server_name.is_empty() { name } else { &self.server_name };
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let handshake = TlsConnector::from(config).connect(name, conn);
        match self.env.timeout(TLS_HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(io::Error::new(error.kind(), reason::text(&error))),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "TLS handshake timed out")),
        }
    }
}

fn config(
    disk: &dyn Disk,
    settings: &Settings,
    contents: &Contents,
    clock: &Clock,
    protocols: Vec<Vec<u8>>,
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(settings.protocol.provider());
    let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(clock.clone()))
        .with_protocol_versions(&settings.protocol.versions())
        .map_err(|error| TlsError::new(error.to_string()))?
        .dangerous();
    let builder = match settings.insecure_skip_verify {
        true => builder.with_custom_certificate_verifier(Arc::new(Anybody)),
        false => {
            let servers = Servers::new(disk, settings, contents, provider)?;
            builder.with_custom_certificate_verifier(Arc::new(servers))
        }
    };
    if let Some(pair) = contents.pair.as_ref().filter(|_| settings.nameless) {
        check_nameless(pair)?;
    }
    let mut config = match &contents.pair {
        Some(pair) => builder
            .with_client_auth_cert(pair.chain()?, pair.private_key()?)
            .map_err(|error| pair.refused(&error))?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// With etcd's text.
fn check_nameless(pair: &Pair) -> Result<(), TlsError> {
    let chain = pair.chain()?;
    match Names::of(&chain[0]).and_then(|names| names.common).filter(|name| !name.is_empty()) {
        None => Ok(()),
        Some(name) => Err(TlsError::new(format!(
            "cert has non empty Common Name ({name}): {}",
            pair.cert_file.display()
        ))),
    }
}
