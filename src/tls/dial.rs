//! The dialer's end of a secured stream: one handshake with the server that was connected to, by the
//! certificates of that moment.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::accept::Clock;
use super::certificate::Names;
use super::files::{Contents, End, Pair, Reloading};
use super::reason::{self, Peer};
use super::verify::{Anybody, Servers};
use super::{Settings, TlsError};
use crate::env::{BoxConn, Disk, Env};
use crate::limits::TLS_HANDSHAKE_TIMEOUT;

/// Secures connections that were made. Clones share the certificates.
#[derive(Clone)]
pub struct Dialer {
    env: Env,
    configs: Arc<Reloading<Config>>,
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
        let judge = Arc::new(Judge { by: config.judge.clone(), why: OnceLock::new() });
        let mut tls = config.tls.clone();
        tls.dangerous().set_certificate_verifier(judge.clone());
        let handshake = TlsConnector::from(Arc::new(tls)).connect(name, conn);
        match self.env.timeout(TLS_HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => {
                let why = match judge.why.get() {
                    Some(why) => reason::described(why, Peer::Server),
                    None => reason::text(&error, Peer::Server),
                };
                Err(io::Error::new(error.kind(), why))
            }
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "TLS handshake timed out")),
        }
    }
}

/// What is made of the files.
struct Config {
    tls: ClientConfig,
    judge: Arc<dyn ServerCertVerifier>,
}

/// Refuses what `by` refuses, always with the alert for a bad certificate, as Go's clients do: operators find
/// that in the server's log. The reason is kept for the client's own.
#[derive(Debug)]
struct Judge {
    by: Arc<dyn ServerCertVerifier>,
    why: OnceLock<Error>,
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.by
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|why| {
                // The only one of this connection.
                let _ = self.why.set(why);
                // Has that alert.
                CertificateError::BadEncoding.into()
            })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by.supported_verify_schemes()
    }
}

fn config(
    disk: &dyn Disk,
    settings: &Settings,
    contents: &Contents,
    clock: &Clock,
    protocols: Vec<Vec<u8>>,
) -> Result<Config, TlsError> {
    let provider = Arc::new(settings.protocol.provider());
    let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(clock.clone()))
        .with_protocol_versions(&settings.protocol.versions())
        .map_err(|error| TlsError::new(error.to_string()))?
        .dangerous();
    let judge: Arc<dyn ServerCertVerifier> = match settings.insecure_skip_verify {
        true => Arc::new(Anybody),
        false => Arc::new(Servers::new(disk, settings, contents, provider)?),
    };
    let builder = builder.with_custom_certificate_verifier(judge.clone());
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
    Ok(Config { tls: config, judge })
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
