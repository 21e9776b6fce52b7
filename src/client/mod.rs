//! The client used by the tools, the proxies, the simulator and the benchmark: a connection to one of
//! several endpoints, and the generated clients on it. It keeps no state of the cluster, repeats nothing
//! that a server may have seen, and knows no more of the requests than their encoding.
//!
//! ```no_run
//! # async fn example(env: quorate::env::Env) -> Result<(), Box<dyn std::error::Error>> {
//! use quorate::client::{Client, Options};
//! use quorate_proto::etcdserverpb::PutRequest;
//!
//! let client = Client::new(env, ["127.0.0.1:2379"], Options::default())?;
//! let put = PutRequest { key: "greeting".into(), value: "hello".into(), ..Default::default() };
//! client.kv().put(put).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Reading order: this file (the services), [`channel`] (the connection under them).

mod channel;
mod page;

use std::time::Duration;

use quorate_proto::etcdserverpb::auth_client::AuthClient;
use quorate_proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::health::health_client::HealthClient;
use quorate_proto::v3electionpb::election_client::ElectionClient;
use quorate_proto::v3lockpb::lock_client::LockClient;

use crate::env::Env;
use crate::tls;

pub use channel::{Channel, Note, Noted, is_unavailable, is_unsent};
pub use http::HeaderValue;
pub use page::get;
pub use tonic::{Response, Status, Streaming};

/// How the connection is made and watched. The defaults are what etcdctl's come to: gRPC's Go library
/// raises its keep-alive of 2 s to 10 s, and servers take more frequent ones as an attack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// For one endpoint.
    pub connect_timeout: Duration,
    /// The time without traffic after which the server is pinged while a request or stream is open.
    pub keep_alive_interval: Duration,
    /// Without a sign for this long, the connection is given up.
    pub keep_alive_timeout: Duration,
    /// Pings also while nothing is open. etcd takes pings without an open stream as an attack unless they
    /// are rare; a silent watch is an open one.
    pub keep_alive_while_idle: bool,
    /// For endpoints whose scheme requires TLS, and for those without a scheme. If it is `None`, the latter
    /// are plain and the former trust the CAs of the system.
    pub tls: Option<tls::Settings>,
    /// Takes every text for an endpoint, as etcd's client library does: one that is none fails as a server
    /// does that cannot be reached. Otherwise it is refused.
    pub any_endpoint: bool,
    /// The largest request and response, bytes. Servers have limits of their own for requests.
    pub request_bytes_max: usize,
    pub response_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            keep_alive_interval: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(6),
            keep_alive_while_idle: false,
            tls: None,
            any_endpoint: false,
            request_bytes_max: usize::MAX,
            response_bytes_max: RESPONSE_BYTES_MAX,
        }
    }
}

/// An endpoint that is not `host:port`, alone or behind `http://` or `https://`, and no unix socket
/// (`unix://path`, `unixs://path`), or no endpoint at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad endpoint {0:?}: want host:port, http://host:port, https://host:port or unix://path")]
pub struct BadEndpoint(pub String);

/// All services of a cluster over one connection; clones share it.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// Nothing is connected before the first request.
    pub fn new<S: AsRef<str>>(
        env: Env,
        endpoints: impl IntoIterator<Item = S>,
        options: Options,
    ) -> Result<Self, BadEndpoint> {
        Ok(Self { channel: Channel::with_options(env, endpoints, options)? })
    }

    /// The same connection, with `token` sent along with every request.
    pub fn with_token(&self, token: HeaderValue) -> Self {
        Self { channel: self.channel.with_header("token", token) }
    }

    /// The same connection; its streams end when the member they are on loses its leader.
    pub fn require_leader(&self) -> Self {
        let value = HeaderValue::from_static("true");
        Self { channel: self.channel.with_header("hasleader", value) }
    }

    /// The same connection; `note` is kept up with its requests.
    pub fn with_note(&self, note: &Note) -> Self {
        Self { channel: self.channel.with_note(note) }
    }

    pub fn channel(&self) -> &Channel {
        &self.channel
    }
}

/// The limit of etcd's client library.
const RESPONSE_BYTES_MAX: usize = i32::MAX as usize;

macro_rules! services {
    ($($method:ident: $client:ident,)*) => {
        impl Client {$(
            pub fn $method(&self) -> $client<Channel> {
                let options = self.channel.options();
                $client::new(self.channel.clone())
                    .max_decoding_message_size(options.response_bytes_max)
                    .max_encoding_message_size(options.request_bytes_max)
            }
        )*}
    };
}

services! {
    kv: KvClient,
    watch: WatchClient,
    lease: LeaseClient,
    cluster: ClusterClient,
    maintenance: MaintenanceClient,
    auth: AuthClient,
    lock: LockClient,
    election: ElectionClient,
    health: HealthClient,
}
