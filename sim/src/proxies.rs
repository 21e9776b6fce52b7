//! gRPC proxies before the cluster, each on a host of its own, `p0`, `p1`, ...: the same code that
//! `grpc-proxy start` runs. Clients reach one as they reach a member.

use std::time::Duration;

use quorate::env::Env;
use quorate::http::vars::Process;
use quorate::proxy::grpc::watch::Bounds;
use quorate::proxy::grpc::{Options, Proxy};

use crate::cluster::{Cluster, Starting};
use crate::facts::addresses::{CLIENT_PORT, endpoint};

impl Cluster {
    /// The hosts of the proxies.
    pub fn proxies(&self) -> Vec<String> {
        (0..self.shape().proxies.count).map(|number| format!("p{number}")).collect()
    }

    /// Starts the proxy on one host, unless it runs.
    pub async fn start_proxy(&self, host: &str) {
        let Some(_starting) = Starting::mark(self, host) else { return };
        let (cluster, name, options) = (self.clone(), host.to_owned(), self.proxy_options());
        let serve = move |env: Env| async move {
            match Proxy::start(&env, options).await {
                Ok(_proxy) => std::future::pending().await,
                Err(why) => cluster.note_end(name, why),
            }
        };
        drop(self.world().start(host, serve).await);
    }

    fn proxy_options(&self) -> Options {
        let shape = self.shape();
        let usual = Bounds::default();
        let events = shape.watch_buffer;
        Options {
            listen: format!("0.0.0.0:{CLIENT_PORT}"),
            listen_metrics: None,
            listen_tls: self.tls(),
            // Those that there were in the beginning: it is started by the same command every time.
            endpoints: (0..shape.members).map(|n| endpoint(&format!("m{n}"))).collect(),
            srv: None,
            insecure_discovery: false,
            client: self.client_options(),
            namespace: shape.proxies.namespace.clone(),
            advertise: String::new(),
            resolver: None,
            endpoints_sync: shape.proxies.sync,
            ordered: shape.proxies.ordered,
            request_bytes_max: 2 << 20,
            answer_bytes_max: i32::MAX as usize,
            watch_bounds: Bounds {
                inbox: usual.inbox.min(events),
                answers: usual.answers.min(events),
            },
            concurrent_streams_max: u32::MAX,
            keep_alive_interval: Duration::from_secs(2 * 3600),
            keep_alive_timeout: Duration::from_secs(20),
            // Simulated clients ping every two seconds.
            ping_time_min: Duration::from_secs(1),
            debug: false,
            host_name: String::new(),
            pprof: false,
            process: Process::default(),
        }
    }
}
