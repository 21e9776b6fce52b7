//! Connections that must be rejected: without TLS, without a certificate, with one of another authority of
//! the same name, with an expired or revoked one, or, among members, with another host's. None of them may
//! ever be answered, at either port. A connection with a good certificate is accepted, gets a certificate
//! that was on the member's disk at some time since, and stays open when the files change. Only for plans
//! with `tls`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use quorate::env::BoxConn;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::{Client, Work, Workload};
use crate::certificates::{Certificates, Flaw, Pair};
use crate::facts::addresses::{CLIENT_PORT, PEER_PORT};
use crate::facts::evidence::Evidence;
use crate::facts::verdict::Violation;

/// The timeout of one connection.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE_MS: u64 = 200;
/// The time in which a changed certificate must take effect.
const FRESH: Duration = Duration::from_secs(1);

const LET_IN: &str = "every connection with a valid certificate is accepted";

#[derive(Default)]
pub struct Stranger {
    /// An accepted connection, and the address that it leads to.
    held: Option<(String, BoxConn)>,
}

/// The certificate with which a connection is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shows {
    /// A certificate of its own.
    Good,
    Flawed(Flaw),
    /// The certificate of the host that it connects to.
    Another,
    NoCertificate,
    /// Without TLS.
    Plain,
}

impl Workload for Stranger {
    fn name(&self) -> &'static str {
        "stranger"
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            let voters = client.cluster.voters();
            let host = voters[client.below(voters.len() as u64) as usize].clone();
            let port = if client.chance(1, 2) { CLIENT_PORT } else { PEER_PORT };
            let shows = match client.below(8) {
                0 => Shows::Plain,
                1 => Shows::NoCertificate,
                2 => Shows::Flawed(Flaw::Foreign),
                3 => Shows::Flawed(Flaw::Expired),
                4 => Shows::Flawed(Flaw::Revoked),
                5 if port == PEER_PORT => Shows::Another,
                _ => Shows::Good,
            };
            let visit = Visit { client, host, port, shows };
            let let_in = client.env.timeout(PATIENCE, visit.make()).await.ok().flatten();
            if port == CLIENT_PORT && self.held.is_none() {
                self.held = let_in.map(|conn| (visit.endpoint(), conn));
            }
            self.ask_again(client).await;
            client.pause(PAUSE_MS).await;
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

impl Stranger {
    /// An accepted connection stays open, unless there is a fault of a member or of the network.
    async fn ask_again(&mut self, client: &Client) {
        let Some((endpoint, conn)) = &mut self.held else { return };
        let asked = client.env.timeout(PATIENCE, ask(conn, endpoint)).await;
        let broken = match asked {
            Ok(Ok(answer)) if is_answer(&answer) => return,
            Ok(Ok(_)) => "it has ended".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(elapsed) => elapsed.to_string(),
        };
        if client.evidence.record().steady {
            let text = format!("a connection to {endpoint}: {broken}");
            client.complain("no accepted connection is closed", text);
        }
        self.held = None;
    }
}

/// A connection to a port.
struct Visit<'a> {
    client: &'a Client,
    host: String,
    port: u16,
    shows: Shows,
}

impl Visit<'_> {
    fn endpoint(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// A connection that was accepted and had to be.
    async fn make(&self) -> Option<BoxConn> {
        let certificates = self.client.cluster.certificates()?;
        let endpoint = self.endpoint();
        let mut plain = self.client.env.net.connect(endpoint.clone()).await.ok()?;
        if self.shows == Shows::Plain {
            let answer = ask(&mut plain, &endpoint).await.ok()?;
            self.examine(&answer);
            return None;
        }
        let began = self.client.cluster.world().elapsed();
        let connector = TlsConnector::from(Arc::new(self.config(certificates)));
        let name = ServerName::try_from(self.host.clone()).expect("the name of a host");
        let secured = async {
            let mut conn = connector.connect(name, plain).await?;
            let answer = ask(&mut conn, &endpoint).await?;
            io::Result::Ok((conn, answer))
        };
        let (conn, answer) = match secured.await {
            Ok(secured) => secured,
            Err(error) => {
                self.judge_refusal(&error);
                return None;
            }
        };
        self.examine(&answer);
        let shown = conn.get_ref().1.peer_certificates().and_then(<[_]>::first)?;
        let since = began.saturating_sub(FRESH);
        if !certificates.since(&self.host, since).iter().any(|laid| **laid == **shown) {
            let text = format!("{endpoint} shows another one than lies there since {began:?}");
            self.client.complain("a changed certificate counts within a second", text);
        }
        let keeps = self.shows == Shows::Good && is_answer(&answer);
        keeps.then(|| Box::new(conn) as BoxConn)
    }

    fn config(&self, certificates: &Certificates) -> ClientConfig {
        let own = format!("c{}", self.client.number);
        let pair = match self.shows {
            Shows::Good => Some(certificates.issue(&own, None)),
            Shows::Flawed(flaw) => Some(certificates.issue(&own, Some(flaw))),
            Shows::Another => Some(certificates.issue(&self.host, None)),
            Shows::NoCertificate | Shows::Plain => None,
        };
        let mut roots = RootCertStore::empty();
        roots.add(certificates.authority().into()).expect("a certificate");
        // The two versions send certificates in different ways.
        let version = if self.client.chance(1, 4) { &TLS12 } else { &TLS13 };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("there are suites for it")
            .with_root_certificates(roots);
        let Some(Pair { cert, key }) = pair else { return builder.with_no_client_auth() };
        let chain = vec![CertificateDer::from(cert)];
        let key = PrivatePkcs8KeyDer::from(key).into();
        builder.with_client_auth_cert(chain, key).expect("a key of its own")
    }

    fn examine(&self, answer: &[u8]) {
        let (good, answered) = (self.shows == Shows::Good, is_answer(answer));
        if answered && !good {
            let text = format!("{} answers to {:?}", self.endpoint(), self.shows);
            self.client.complain("no connection without a valid certificate is accepted", text);
        }
        if good && !answered && self.client.evidence.record().steady {
            self.client.complain(LET_IN, format!("{} hangs up", self.endpoint()));
        }
    }

    /// Connections break for many reasons; an alert means that the peer has rejected one.
    fn judge_refusal(&self, error: &io::Error) {
        let why = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        if let (Shows::Good, Some(rustls::Error::AlertReceived(alert))) = (self.shows, why) {
            self.client.complain(LET_IN, format!("{} answers {alert:?}", self.endpoint()));
        }
    }
}

fn is_answer(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/")
}

/// Requests the version, which both ports serve; returns all that comes until that or the end.
async fn ask<C>(conn: &mut C, endpoint: &str) -> io::Result<Vec<u8>>
where
    C: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let request = format!("GET /version HTTP/1.1\r\nhost: {endpoint}\r\n\r\n");
    conn.write_all(request.as_bytes()).await?;
    conn.flush().await?;
    let mut answer = Vec::new();
    while !answer.contains(&b'}') && conn.read_buf(&mut answer).await? > 0 {}
    Ok(answer)
}
