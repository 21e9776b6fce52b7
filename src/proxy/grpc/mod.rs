//! `grpc-proxy start`: one connection to the cluster for many clients. Ranges may be answered from a cache,
//! watchers of the same keys share a watch, and all keys may have a prefix; other calls are forwarded.
//!
//! ```text
//!  client === port --- gRPC --- kv, watch, names of keys --- Channel === cluster
//!                `---- HTTP --- /metrics /health /proxy/metrics /proxy/health
//! ```
//!
//! Differences from etcd's (3.7, `server/proxy/grpcproxy`): names of locks and elections are inside the
//! namespace as well; keep-alive streams are forwarded one by one; MemberPromote is forwarded; all metadata
//! is forwarded; ordering covers all reads, not only the proxy's first; message bounds cover all calls.
//!
//! Reading order: this file (start, dispatch), `upstream` (the connection to the cluster), `forward`
//! (forwarded calls), [`namespace`], [`cache`], `ordering` and `kv`, [`watch`], `cluster` (proxies as
//! members), `http`, `metrics`.

pub mod cache;
mod cluster;
mod forward;
mod http;
mod kv;
mod metrics;
pub mod namespace;
mod ordering;
mod upstream;
pub mod watch;

use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response};
use hyper::body::Incoming;
use quorate_proto::codec::Codec;
use quorate_proto::etcdserverpb::kv_server::KvServer;
use quorate_proto::etcdserverpb::watch_server::WatchServer;
use quorate_proto::etcdserverpb::{
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, MemberListRequest, MemberListResponse,
};
use quorate_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use quorate_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tonic::Status;
use tonic::body::Body;
use tower::Service as _;
use tracing::info;

use self::cluster::Cluster;
use self::http::Pages;
use self::kv::Kv;
use self::metrics::Counters;
use self::namespace::Namespace;
use self::ordering::Newest;
use self::upstream::Upstream;
use self::watch::Watch;
use crate::client::{self, Client};
use crate::config::Srv;
use crate::config::urls::Url;
use crate::discovery::srv;
use crate::env::{BoxFuture, Env, Place};
use crate::grpc::body::{self, ResponseBody};
use crate::grpc::calls::Calls;
use crate::grpc::compression::Encoding;
use crate::grpc::status::{refusal, spell_refusal};
use crate::http::vars::Process;
use crate::latest;
use crate::limits::PROXY_REQUEST_BYTES_MAX;
use crate::rpc::{self, Rpc};
use crate::server::port::{self, Handler, Port};
use crate::tls::{self, Acceptor, Dialer, Listen};

/// Options of a proxy; validated.
#[derive(Clone, Debug)]
pub struct Options {
    /// Host and port.
    pub listen: String,
    /// A further address for HTTP.
    pub listen_metrics: Option<Url>,
    /// TLS for clients; none for plain connections.
    pub listen_tls: Option<tls::Settings>,
    pub endpoints: Vec<String>,
    pub srv: Option<Srv>,
    pub insecure_discovery: bool,
    /// Options of the connection to the cluster.
    pub client: client::Options,
    pub namespace: String,
    /// The address that clients use; empty if it is not advertised.
    pub advertise: String,
    pub resolver: Option<Resolver>,
    /// Interval of updating the endpoints from the member list.
    pub endpoints_sync: Option<Duration>,
    /// Whether the revisions of responses never decrease.
    pub ordered: bool,
    /// Bounds of messages to the cluster, and from it.
    pub request_bytes_max: usize,
    pub answer_bytes_max: usize,
    pub watch_bounds: watch::Bounds,
    pub concurrent_streams_max: u32,
    pub keep_alive_interval: Duration,
    pub keep_alive_timeout: Duration,
    pub ping_time_min: Duration,
    pub debug: bool,
    /// Whether profiles are served.
    pub pprof: bool,
    /// Name of this machine.
    pub host_name: String,
    pub process: Process,
}

/// Prefix and TTL of the proxies' registrations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    pub prefix: String,
    pub ttl_s: i64,
}

/// A running proxy.
pub struct Proxy {
    /// The ports end with it.
    _stop: latest::Sender<bool>,
}

impl Proxy {
    /// Resolves the endpoints and serves. The cluster need not be reachable.
    pub async fn start(env: &Env, mut options: Options) -> Result<Self, String> {
        let mut acceptor = None;
        if let Some(tls) = &mut options.listen_tls {
            tls.prepare(env).await.map_err(|error| error.to_string())?;
            let made = Acceptor::new(env, tls, tls::Port::Client).await;
            acceptor = Some(made.map_err(|error| error.to_string())?);
            info!(tls_info = %tls, "gRPC proxy server TLS");
        }
        if let Some(tls) = &options.client.tls {
            // A certificate that names a user is refused at once: every call would be that user's.
            let checked = Dialer::new(env, tls, &[]).check().await;
            checked.map_err(|error| error.to_string())?;
        }
        let endpoints = endpoints(env, &options).await?;
        let proxy = Services::new(env, &options, &endpoints)?;
        let (_, address) = super::listen_address(env, &options.listen).await?;
        let secure = acceptor.is_some();
        let mut listens = vec![Listen { place: Place::Tcp(address), secure }];
        if let Some(url) = &options.listen_metrics {
            listens.push(url.listen()?);
        }
        proxy.cluster.follow(options.endpoints_sync);
        let settings = port::Settings {
            concurrent_streams_max: options.concurrent_streams_max,
            keep_alive_interval: options.keep_alive_interval,
            keep_alive_timeout: options.keep_alive_timeout,
            ping_time_min: options.ping_time_min,
            http2_only: false,
            places: port::places(env),
        };
        let (stop, stopped) = latest::channel(false);
        let opened = port::open(env, &listens, "clients").await.map_err(|e| e.to_string())?;
        if options.ordered {
            let recovering = proxy.clone();
            env.spawn("proxy ordering", async move { recovering.recovered().await });
        }
        for (opened, listen) in opened.into_iter().zip(&listens) {
            let handler = Services { grpc: listen.place == listens[0].place, ..proxy.clone() };
            info!(address = %opened.place, "listening for gRPC proxy client requests");
            let port =
                Port::new(env, &settings, &opened, acceptor.clone(), handler, stopped.clone());
            env.spawn("proxy port", port.accept(opened.listener));
        }
        proxy.cluster.register();
        info!(address = %address, "started gRPC proxy");
        Ok(Self { _stop: stop })
    }
}

async fn endpoints(env: &Env, options: &Options) -> Result<Vec<String>, String> {
    if let Some(srv) = &options.srv {
        let tls = options.client.tls.clone().unwrap_or_default();
        let ca = tls.trusted_ca_file.to_string_lossy();
        let found = srv::clients(env, srv, &ca, options.insecure_discovery).await?;
        if !found.is_empty() {
            return Ok(found.into_iter().map(|endpoint| endpoint.url).collect());
        }
    }
    Ok(options.endpoints.clone())
}

/// The services of a port.
#[derive(Clone)]
struct Services {
    env: Env,
    upstream: Upstream,
    namespace: Namespace,
    calls: Calls,
    kv: Kv,
    watch: Watch,
    cluster: Cluster,
    pages: Pages,
    /// The newest revision, if responses are ordered.
    newest: Option<Arc<Newest>>,
    /// Whether gRPC is served.
    grpc: bool,
}

impl Services {
    fn new(env: &Env, options: &Options, endpoints: &[String]) -> Result<Self, String> {
        let client = Client::new(env.clone(), endpoints, options.client.clone());
        let client = client.map_err(|error| error.to_string())?;
        let namespace = Namespace::new(options.namespace.clone());
        let counters = Arc::new(Counters::default());
        let metrics = Arc::new(crate::metrics::Metrics::new());
        let Options { request_bytes_max, answer_bytes_max, watch_bounds, .. } = *options;
        let upstream = client.channel().clone();
        let upstream = Upstream::new(upstream, request_bytes_max, answer_bytes_max);
        let newest = options.ordered.then(Arc::<Newest>::default);
        let kv = Kv::new(upstream.clone(), namespace.clone(), counters.clone(), newest.clone());
        let (env_of_watch, watched) = (env.clone(), upstream.clone());
        let watch =
            Watch::new(env_of_watch, watched, namespace.clone(), counters.clone(), watch_bounds);
        let pages = Pages::new(env, options, endpoints, &client, &namespace, {
            let (kv, watch, metrics) = (kv.clone(), watch.clone(), metrics.clone());
            Arc::new(move || metrics.text(counters.rows(kv.kept(), watch.sharing())))
        })?;
        Ok(Self {
            env: env.clone(),
            cluster: Cluster::new(env, options, &client, &namespace),
            calls: Calls::new(metrics, None),
            grpc: true,
            upstream,
            namespace,
            kv,
            watch,
            pages,
            newest,
        })
    }

    /// Waits for the ordering to be recovered. As in etcd, calls wait and pages do not.
    async fn recovered(&self) {
        if let Some(newest) = &self.newest {
            newest.recovered(&self.env, &self.upstream).await;
        }
    }

    async fn call(self, request: Request<Incoming>) -> Response<Body> {
        self.recovered().await;
        let mut call = match self.calls.begin(request.uri().path()) {
            Ok(call) if call.rpc().service == rpc::HEALTH => {
                let text = format!("unknown service {}", rpc::HEALTH);
                return refusal(&Status::unimplemented(text));
            }
            Ok(call) => call,
            Err(unknown) => return refusal(&unknown),
        };
        let encoding = match Encoding::of(request.headers()) {
            Ok(encoding) => encoding,
            Err(refused) => {
                call.end(refused.code(), String::new);
                return refusal(&refused);
            }
        };
        let rpc = call.rpc();
        let request = encoding.plain(request, PROXY_REQUEST_BYTES_MAX, call.received());
        let mut response = self.dispatch(rpc, request).await;
        if let Some(code) = body::code(response.headers()) {
            call.end(code, String::new);
            spell_refusal(response.headers_mut(), rpc);
            return response;
        }
        encoding.encode(response).map(|body| Body::new(ResponseBody::new(body, call)))
    }

    async fn dispatch(self, rpc: &Rpc, request: Request<Body>) -> Response<Body> {
        let infallible = |never| match never {};
        if rpc.service == rpc::KV {
            let service = KvServer::new(self.kv).max_decoding_message_size(usize::MAX);
            return { service }.call(request).await.unwrap_or_else(infallible);
        }
        if rpc.service == rpc::WATCH {
            let service = WatchServer::new(self.watch).max_decoding_message_size(usize::MAX);
            return { service }.call(request).await.unwrap_or_else(infallible);
        }
        if (rpc.service, rpc.method) == (rpc::CLUSTER, "MemberList") && self.cluster.is_proxies() {
            return self.cluster.answer(request).await;
        }
        match self.namespace.is_empty() {
            true => forward::whole(self.upstream, request).await,
            false => self.renamed(rpc, request).await,
        }
    }

    /// Forwards a call outside KV and Watch whose messages have keys.
    async fn renamed(self, rpc: &Rpc, request: Request<Body>) -> Response<Body> {
        let (ns, upstream) = (self.namespace, self.upstream);
        match (rpc.service, rpc.method) {
            (rpc::LEASE, "LeaseTimeToLive") => {
                let leave = move |lease: &mut LeaseTimeToLiveResponse| ns.leave_lease(lease);
                forward::changed(upstream, request, |_: &mut LeaseTimeToLiveRequest| {}, leave)
                    .await
            }
            (rpc::LOCK, "Lock") => {
                let outer = ns.clone();
                let enter = |lock: &mut LockRequest| outer.enter_key(&mut lock.name);
                let leave = move |lock: &mut LockResponse| ns.leave_key(&mut lock.key);
                forward::changed(upstream, request, enter, leave).await
            }
            (rpc::LOCK, "Unlock") => {
                let enter = |unlock: &mut UnlockRequest| ns.enter_key(&mut unlock.key);
                forward::changed(upstream, request, enter, |_: &mut UnlockResponse| {}).await
            }
            (rpc::ELECTION, "Campaign") => {
                let outer = ns.clone();
                let enter = |campaign: &mut CampaignRequest| outer.enter_key(&mut campaign.name);
                let leave = move |won: &mut CampaignResponse| ns.leave_leader(&mut won.leader);
                forward::changed(upstream, request, enter, leave).await
            }
            (rpc::ELECTION, "Proclaim") => {
                let enter = |proclaim: &mut ProclaimRequest| ns.enter_leader(&mut proclaim.leader);
                forward::changed(upstream, request, enter, |_: &mut ProclaimResponse| {}).await
            }
            (rpc::ELECTION, "Resign") => {
                let enter = |resign: &mut ResignRequest| ns.enter_leader(&mut resign.leader);
                forward::changed(upstream, request, enter, |_: &mut ResignResponse| {}).await
            }
            (rpc::ELECTION, "Leader" | "Observe") => {
                let outer = ns.clone();
                let enter = |leader: &mut LeaderRequest| outer.enter_key(&mut leader.name);
                let leave = move |leader: &mut LeaderResponse| ns.leave_candidate(&mut leader.kv);
                forward::changed(upstream, request, enter, leave).await
            }
            _ => forward::whole(upstream, request).await,
        }
    }
}

impl Cluster {
    /// Answers MemberList with the proxies.
    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let handler = tower::service_fn(move |_: tonic::Request<MemberListRequest>| {
            let cluster = self.clone();
            async move { cluster.list().await.map(tonic::Response::new) }
        });
        let codec = Codec::<MemberListResponse, MemberListRequest>::default();
        tonic::server::Grpc::new(codec).unary(handler, request).await
    }
}

impl Handler for Services {
    fn secured(self) -> Self {
        self
    }

    fn handle(&self, request: Request<Incoming>, _: bool) -> BoxFuture<'static, Response<Body>> {
        let this = self.clone();
        Box::pin(async move {
            match this.grpc && port::is_grpc(&request) {
                true => this.call(request).await,
                false => {
                    let (parts, _) = request.into_parts();
                    this.pages.answer(&parts, this.grpc).await
                }
            }
        })
    }
}
