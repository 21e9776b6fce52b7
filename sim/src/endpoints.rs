//! Where members and proxies are reached, and how: addresses, channels and plain connections for what
//! calls them, over TLS where the plan has it. Requests are not known here.

use std::io;
use std::time::Duration;

use quorate::client::{self, Channel};
use quorate::env::{BoxConn, Env};
use quorate::tls::{self, Dialer};

use crate::certificates;
use crate::cluster::Cluster;
use crate::facts::addresses::{CLIENT_PORT, PEER_PORT, TOKEN, endpoint, host_of};

impl Cluster {
    /// The settings of every host, where all is TLS: members, proxies and clients show certificates alike.
    pub(crate) fn tls(&self) -> Option<tls::Settings> {
        self.shape().tls.then(certificates::settings)
    }

    pub(crate) fn peer_url(&self, host: &str) -> String {
        self.url(host, PEER_PORT)
    }

    pub(crate) fn client_url(&self, host: &str) -> String {
        self.url(host, CLIENT_PORT)
    }

    pub(crate) fn url(&self, host: &str, port: u16) -> String {
        let scheme = if self.shape().tls { "https" } else { "http" };
        format!("{scheme}://{host}:{port}")
    }

    /// Quicker than in production to notice a dead member: simulated time is dear. Real servers take pings
    /// that are more frequent than every 5 s for an attack (etcd, `--grpc-keepalive-min-time`).
    pub(crate) fn client_options(&self) -> client::Options {
        let interval = if self.is_real() { 6 } else { 2 };
        client::Options {
            connect_timeout: Duration::from_secs(2),
            keep_alive_interval: Duration::from_secs(interval),
            keep_alive_timeout: Duration::from_secs(2),
            tls: self.tls(),
            ..client::Options::default()
        }
    }

    /// A connection from the host of `env` to an endpoint, for HTTP/1.
    pub async fn connect(&self, env: &Env, endpoint: &str) -> io::Result<BoxConn> {
        let plain = env.net.connect(endpoint.to_owned()).await?;
        match self.tls() {
            Some(tls) => Dialer::new(env, &tls, &[]).secure(host_of(endpoint), plain).await,
            None => Ok(plain),
        }
    }

    /// A channel from the host of `env` to one member or proxy, or to any member in turn.
    pub fn channel(&self, env: &Env, member: Option<&str>) -> Channel {
        let endpoints = match member {
            Some(name) => vec![endpoint(name)],
            None => self.endpoints(),
        };
        let channel = Channel::with_options(env.clone(), endpoints, self.client_options());
        let channel = channel.expect("endpoints are host:port");
        match &self.state().token {
            Some(token) => channel.with_header(TOKEN, token.clone()),
            None => channel,
        }
    }
}
