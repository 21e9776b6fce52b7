//! A cluster of real servers on simulated hosts: the whole [`Server`], started as the program starts
//! it. What is done to the hosts is the nemesis's matter; how members come and go is in
//! [`crate::members`], how they are reached in [`crate::endpoints`], what stands before them in
//! [`crate::proxies`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::join_all;
use http::HeaderValue;
use quorate::apply::Release;
use quorate::client::Channel;
use quorate::engine;
use quorate::env::Env;
use quorate::error::Fatal;
use quorate::limits;
use quorate::member;
use quorate::member::compactor::AutoCompaction;
use quorate::plant;
use quorate::server::{self, Server};
use quorate::tls::Listen;
use quorate::trace;
use quorate::watch;
use quorate_proto::etcdserverpb::auth_client::AuthClient;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{
    AuthenticateRequest, HashKvRequest, RangeRequest, StatusRequest, StatusResponse,
};
use tokio::sync::{mpsc, oneshot};

use crate::World;
use crate::certificates::Certificates;
use crate::facts::addresses::{CLIENT_PORT, COLLECTOR, COLLECTOR_PORT, PEER_PORT, endpoint};
use crate::facts::shape::{ANSWERS, DATA, FRESH_MAX, Flag, Shape, WAL_APART};

/// The data directory of a server that is started without one.
const ELSEWHERE: &str = "/default.etcd";
/// Proposals for which there is room beside clients', where there is little for these.
const RESERVED: usize = 32;
/// The user with every permission; its password is its name.
pub const ROOT: &str = "root";
/// What a member gets to answer a status call.
const STATUS_LIMIT: Duration = Duration::from_millis(500);
/// One look at whether a cluster has settled, and what each question in it may take.
const LOOK: Duration = Duration::from_millis(200);
const LOOK_LIMIT: Duration = Duration::from_secs(3);
/// What a server gets to stop in good order.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// What it gets to bring its state to disk.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Servers on hosts `m0`, `m1`, ...
#[derive(Clone)]
pub struct Cluster {
    /// None where the members are real ones, on machines of their own.
    world: Option<World>,
    shape: Shape,
    certificates: Option<Arc<Certificates>>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(crate) struct State {
    /// In the order in which they came.
    pub(crate) hosts: Vec<String>,
    /// Gone for good: their disks are not to be trusted.
    pub(crate) retired: BTreeSet<String>,
    /// Hosts whose members joined when the cluster was there already, each with the members it was then
    /// given, as `--initial-cluster` has them.
    pub(crate) joined: BTreeMap<String, Vec<(String, Vec<String>)>>,
    /// Hosts whose removal was requested: they may end by themselves.
    pub(crate) leaving: BTreeSet<String>,
    /// Ids whose removal was requested.
    pub(crate) removed: BTreeSet<u64>,
    /// Calls about the membership so far, so that each goes to another member.
    pub(crate) asked: usize,
    /// Hosts whose members do not vote.
    pub(crate) learners: BTreeSet<String>,
    /// Hosts whose disks are broken on purpose: their servers may end with an error.
    pub(crate) excused: BTreeSet<String>,
    /// Servers that ended by themselves: host and why.
    ended: Vec<(String, String)>,
    /// Hosts whose servers were started without one of their flags.
    odd: BTreeSet<String>,
    /// Hosts whose members began as etcd's, and are ours from their next start on.
    migrated: BTreeSet<String>,
    /// Hosts on which a server is being started, or is being stopped.
    starting: BTreeSet<String>,
    stopping: BTreeSet<String>,
    /// To running servers.
    orders: BTreeMap<String, mpsc::Sender<Order>>,
    /// Root's, where permissions are on: every channel that is made shows it.
    pub(crate) token: Option<HeaderValue>,
}

impl Cluster {
    /// Adds the hosts; nothing runs yet.
    pub fn new(world: &World, shape: Shape) -> Self {
        let hosts: Vec<_> = (0..shape.members).map(|n| format!("m{n}")).collect();
        let certificates = shape.tls.then(|| Arc::new(Certificates::new(world)));
        let state = Arc::new(Mutex::new(State { hosts: hosts.clone(), ..State::default() }));
        let cluster = Self { world: Some(world.clone()), shape, certificates, state };
        hosts.into_iter().chain(cluster.proxies()).for_each(|host| cluster.add_host(&host));
        cluster
    }

    /// Real members, on hosts of the same names that something else has started. Nothing can be done to
    /// them from here.
    pub fn real(shape: Shape) -> Self {
        let hosts = (0..shape.members).map(|n| format!("m{n}")).collect();
        let state = Arc::new(Mutex::new(State { hosts, ..State::default() }));
        Self { world: None, shape, certificates: None, state }
    }

    /// Whether the members are real ones.
    pub fn is_real(&self) -> bool {
        self.world.is_none()
    }

    /// A host for a member, a proxy or a client.
    pub fn add_host(&self, host: &str) {
        self.world().add_host(host);
        if host.starts_with('m') {
            self.world().set_descriptors(host, self.shape.descriptors);
        }
        self.furnish(host);
    }

    /// Gives a host with an empty disk the files that it needs for TLS, where the cluster uses TLS.
    pub fn furnish(&self, host: &str) {
        if let Some(certificates) = &self.certificates {
            certificates.furnish(host);
        }
    }

    /// Where all is TLS.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_deref()
    }

    /// # Panics
    /// Where the members are real ones.
    pub fn world(&self) -> &World {
        self.world.as_ref().expect("the members are on simulated hosts")
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Every host that is or was a member's.
    pub fn hosts(&self) -> Vec<String> {
        self.state().hosts.clone()
    }

    /// The hosts of the members that there are.
    pub fn names(&self) -> Vec<String> {
        let state = self.state();
        state.hosts.iter().filter(|host| !state.retired.contains(*host)).cloned().collect()
    }

    /// Where clients connect.
    pub fn endpoints(&self) -> Vec<String> {
        self.voters().iter().map(|host| endpoint(host)).collect()
    }

    /// The hosts of the members that vote, and so serve everything.
    pub fn voters(&self) -> Vec<String> {
        let names = self.names();
        let state = self.state();
        names.into_iter().filter(|host| !state.learners.contains(host)).collect()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("what is known of the members")
    }
}

/// Starting and stopping.
impl Cluster {
    pub async fn start_all(&self) {
        for host in self.names() {
            self.start(&host).await;
        }
        for host in self.proxies() {
            self.start_proxy(&host).await;
        }
    }

    /// Starts the server on one host, unless it runs or is being started.
    pub async fn start(&self, host: &str) {
        self.state().odd.remove(host);
        self.start_with(host, self.options(host)).await;
    }

    /// The same by a command without one of its flags.
    pub async fn start_without(&self, host: &str, flag: Flag) {
        let mut options = self.options(host);
        match flag {
            Flag::WalDir => options.member.wal_dir = None,
            Flag::DataDir => options.member.data_dir = ELSEWHERE.into(),
        }
        self.state().odd.insert(host.to_owned());
        self.start_with(host, options).await;
    }

    /// From its next start on the member is ours, or again one of etcd's.
    pub fn migrate(&self, host: &str, back: bool) {
        let mut state = self.state();
        match back {
            true => state.migrated.remove(host),
            false => state.migrated.insert(host.to_owned()),
        };
    }

    /// Members that came later, or have migrated, are ours.
    fn release(&self, host: &str) -> Release {
        let first = (0..self.shape.members).any(|n| format!("m{n}") == host);
        let older = self.shape.etcd.filter(|_| first && !self.state().migrated.contains(host));
        older.unwrap_or_default()
    }

    /// Whether its last start was by a command without a flag.
    pub fn was_started_oddly(&self, host: &str) -> bool {
        self.state().odd.contains(host)
    }

    async fn start_with(&self, host: &str, options: server::Options) {
        let Some(_starting) = Starting::mark(self, host) else { return };
        if let Some(certificates) = &self.certificates {
            certificates.take_up(host);
        }
        let (to_server, orders) = mpsc::channel(1);
        self.state().orders.insert(host.to_owned(), to_server);
        let (cluster, host_name) = (self.clone(), host.to_owned());
        let serve = move |env| async move {
            let served = if cluster.state().joined.contains_key(&host_name) {
                cluster.serve_joining(env, &host_name, options, orders).await
            } else {
                serve(env, options, orders).await
            };
            let mut state = cluster.state();
            match served {
                Err(fatal) if fatal.is_removal() && state.leaving.contains(&host_name) => {}
                Err(_) if state.excused.contains(&host_name) => {}
                Err(fatal) => state.ended.push((host_name, fatal.to_string())),
                Ok(()) => {}
            }
        };
        drop(self.world().start(host, serve).await);
    }

    /// Stops the server on one host in good order, or kills it when that takes too long.
    pub async fn stop(&self, host: &str) {
        let orders = {
            let mut state = self.state();
            state.stopping.insert(host.to_owned());
            state.orders.remove(host)
        };
        if orders.is_some_and(|orders| orders.try_send(Order::Stop).is_ok()) {
            self.world().wait_until(STOP_LIMIT, || !self.world().is_running(host)).await;
        }
        self.world().kill(host);
        self.state().stopping.remove(host);
    }

    /// Finishes stops that no step waits for any more.
    pub async fn finish_stops(&self) {
        let stopping = self.state().stopping.clone();
        for host in stopping {
            self.stop(&host).await;
        }
    }

    /// Makes a running server bring its state to disk as it is now, so that it can be looked at.
    pub async fn flush(&self, host: &str) {
        let orders = self.state().orders.get(host).cloned();
        let (done, mut flushed) = oneshot::channel();
        if orders.is_some_and(|orders| orders.try_send(Order::Flush(done)).is_ok()) {
            // A server that is still starting takes no orders.
            let over = || !matches!(flushed.try_recv(), Err(oneshot::error::TryRecvError::Empty));
            self.world().wait_until(FLUSH_LIMIT, over).await;
        }
    }

    fn options(&self, host: &str) -> server::Options {
        let mut options = self.server(host, DATA);
        let member = &mut options.member;
        member.wal_dir = self.shape.wal_apart.then(|| WAL_APART.into());
        member.release = self.release(host);
        // Held, so that members may migrate back.
        member.cluster_version_max = self.shape.cluster_version().into();
        // Which learners were promoted by then no plan can know: there is room for all that it may add.
        member.learners_max = self.shape.learners + FRESH_MAX;
        let first = (0..self.shape.members).map(|n| format!("m{n}"));
        let first = first.map(|name| (name.clone(), vec![self.peer_url(&name)]));
        member.initial_cluster = first.collect();
        member.heartbeat = self.shape.heartbeat;
        member.election_timeout = self.shape.election_timeout;
        member.pre_vote = self.shape.pre_vote;
        member.snapshot_count = self.shape.snapshot_count;
        member.catchup_entries = self.shape.catchup_entries;
        member.wal_segment_bytes = self.shape.wal_segment_bytes;
        member.request_bytes_max = self.shape.request_bytes_max;
        member.txn_ops_max = self.shape.txn_ops_max;
        member.response_memory = ANSWERS;
        member.lease_checkpoint_interval = self.shape.lease_checkpoint;
        member.auto_compaction = self.shape.auto_compaction.map(AutoCompaction::Age);
        if let Some(common) = self.shape.proposals {
            let number = common + RESERVED;
            member.proposals = member::Proposals {
                number,
                number_reserved: RESERVED,
                ..member::Proposals::default()
            };
        }
        member.quota_bytes = self.shape.quota_bytes.or(member.quota_bytes);
        if let Some(pause) = self.shape.corrupt_check {
            (member.initial_corrupt_check, member.compact_hash_check) = (true, true);
            (member.corrupt_check_time, member.compact_hash_check_time) = (pause, pause);
        }
        member.watch_progress_interval = self.shape.watch_progress_interval;
        member.watch_bounds = watch_bounds(self.shape.watch_buffer);
        // As little work as there is: simulated passwords protect nothing.
        member.bcrypt_cost = *limits::BCRYPT_COSTS.start();
        let traced = self.shape.traced;
        options.tracing = (traced > 0).then(|| tracing_of(host, traced));
        options
    }

    /// The server of a cluster of one on a host of this run, with its data in a folder there.
    pub(crate) fn server(&self, host: &str, data: &str) -> server::Options {
        let address = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let listen = |port| Listen { secure: self.shape.tls, ..address(port).into() };
        let mut member = member::Options::single(host, data, address(PEER_PORT));
        member.listen_peer = vec![listen(PEER_PORT)];
        member.peer_tls = self.tls().unwrap_or_default();
        member.peer_tls.skip_client_san_verification =
            plant::MEMBER_COMES_FROM_ANYWHERE.is_planted();
        member.advertise_peer_urls = vec![self.peer_url(host)];
        member.advertise_client_urls = vec![self.client_url(host)];
        member.initial_cluster = vec![(host.to_owned(), vec![self.peer_url(host)])];
        member.engine = engine::Options::in_memory(self.world().mem_env(host));
        let mut options = server::Options::new(member, [listen(CLIENT_PORT)]);
        options.tls = self.tls().unwrap_or_default();
        if plant::CLIENT_WITHOUT_CERTIFICATE_SERVED.is_planted() {
            options.tls.client_cert_auth = false;
            options.tls.trusted_ca_file = PathBuf::new();
        }
        // Simulated clients ping every two seconds.
        options.ping_time_min = Duration::from_secs(1);
        options
    }
}

/// Traces so many calls of a million, to the collector.
fn tracing_of(host: &str, per_million: u32) -> trace::Settings {
    trace::Settings {
        collector: format!("{COLLECTOR}:{COLLECTOR_PORT}"),
        service_name: "cluster".to_owned(),
        instance_id: host.to_owned(),
        per_million,
    }
}

/// Small where `events` is small.
fn watch_bounds(events: usize) -> watch::Bounds {
    let usual = watch::Bounds::default();
    watch::Bounds {
        buffer_events: events,
        buffer_matches: usual.buffer_matches.min(4 * events),
        outbox_responses: usual.outbox_responses.min(events),
        catchup_revisions: usual.catchup_revisions.min(events),
        catchup_readers: usual.catchup_readers.min(events),
        ring_publications: usual.ring_publications.min(events),
        events_bytes: usual.events_bytes.min(256 * events),
        ..usual
    }
}

/// Of two starts of one server at a time, the second does nothing.
pub(crate) struct Starting<'a> {
    cluster: &'a Cluster,
    host: &'a str,
}

impl<'a> Starting<'a> {
    pub(crate) fn mark(cluster: &'a Cluster, host: &'a str) -> Option<Self> {
        let free = !cluster.world().is_running(host);
        let marked = free && cluster.state().starting.insert(host.to_owned());
        // Made only where the mark was: to drop one is to take the mark away.
        marked.then(|| Self { cluster, host })
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.cluster.state().starting.remove(self.host);
    }
}

/// Orders to a running server.
pub(crate) enum Order {
    /// Bring the state to disk, and acknowledge that.
    Flush(oneshot::Sender<()>),
    /// Stop in good order.
    Stop,
}

/// Serves until it is stopped; the error with which the server ended, if it did.
pub(crate) async fn serve(
    env: Env,
    options: server::Options,
    orders: mpsc::Receiver<Order>,
) -> Result<(), Fatal> {
    until_stopped(Server::start(env, options).await?, orders).await
}

pub(crate) async fn until_stopped(
    server: Server,
    mut orders: mpsc::Receiver<Order>,
) -> Result<(), Fatal> {
    loop {
        let order = tokio::select! {
            biased; // A server that cannot go on takes no orders.
            fatal = server.fatal() => return Err(fatal),
            order = orders.recv() => order,
        };
        match order {
            Some(Order::Flush(done)) => {
                server.member().store().flush()?;
                // The receiver may be gone.
                let _ = done.send(());
            }
            Some(Order::Stop) => {
                server.shutdown().await;
                return Ok(());
            }
            // No order to stop can come any more.
            None => return Err(server.fatal().await),
        }
    }
}

/// What was done to members on purpose, and what they did by themselves.
impl Cluster {
    /// The member's disk is broken on purpose: its server may end with an error.
    pub fn excuse(&self, host: &str) {
        self.state().excused.insert(host.to_owned());
    }

    /// The disk is sound again.
    pub fn expect_sound(&self, host: &str) {
        self.state().excused.remove(host);
    }

    /// The member does not come back.
    pub fn retire(&self, host: &str) {
        self.world().kill(host);
        self.state().retired.insert(host.to_owned());
    }

    /// A process has ended by itself, and should not have.
    pub(crate) fn note_end(&self, host: String, why: String) {
        self.state().ended.push((host, why));
    }

    /// Servers that ended by themselves on sound disks: host and why.
    pub fn ended(&self) -> Vec<(String, String)> {
        self.state().ended.clone()
    }
}

/// What members report.
impl Cluster {
    /// From now on channels show root's token, which is `token`.
    pub fn show(&self, token: HeaderValue) {
        self.state().token = Some(token);
    }

    /// Logs root in again where permissions are on: a member that was started again, or that has got
    /// its state from another one, knows no token from before.
    pub async fn log_in_again(&self, env: &Env) {
        if self.state().token.is_none() {
            return;
        }
        if let Some(token) = self.log_in(&self.channel(env, None), env, ROOT).await {
            self.show(token);
        }
    }

    /// A token for a user whose password is its name.
    pub async fn log_in(&self, channel: &Channel, env: &Env, user: &str) -> Option<HeaderValue> {
        let request = AuthenticateRequest { name: user.into(), password: user.into() };
        let mut service = AuthClient::new(channel.clone());
        let answer = env.timeout(LOOK_LIMIT, service.authenticate(request)).await.ok()?.ok()?;
        HeaderValue::from_str(&answer.into_inner().token).ok()
    }

    /// The member that reports, in the newest term, that it leads; none while there is no such member.
    pub async fn leader(&self, env: &Env) -> Option<String> {
        let running = self.names().into_iter().filter(|host| self.world().is_running(host));
        let asked = running.map(|host| async move {
            let status = self.status(env, &host).await?;
            let leads = status.header.is_some_and(|header| header.member_id == status.leader);
            leads.then_some((status.raft_term, host))
        });
        let leaders = join_all(asked).await.into_iter().flatten();
        leaders.max().map(|(_, host)| host)
    }

    /// A member's own account of itself.
    pub async fn status(&self, env: &Env, host: &str) -> Option<StatusResponse> {
        let mut client = MaintenanceClient::new(self.channel(env, Some(host)));
        let answer = env.timeout(STATUS_LIMIT, client.status(StatusRequest {})).await;
        answer.ok()?.ok().map(tonic::Response::into_inner)
    }

    /// Waits until every voter answers a linearizable read, which takes a leader that all reach, and
    /// all have the same hash at one revision; clients may go on writing. Learners answer neither, and
    /// need only answer. The error describes what is missing when that does not come to pass within
    /// `limit`.
    pub async fn settled(&self, env: &Env, limit: Duration) -> Result<(), String> {
        let deadline = env.now() + limit;
        loop {
            let hashes = self.hashes(env).await;
            let equal = |hashes: &[Hash]| {
                hashes.windows(2).all(|pair| {
                    let ((_, one), (_, other)) = (&pair[0], &pair[1]);
                    // A fingerprint is kept from each compaction; one that applied two at once has another
                    // kind. What is kept after the last compaction is compared when the run has ended.
                    one == other || (one.0 == other.0 && one.2 != other.2)
                })
            };
            match hashes {
                Ok(hashes) if equal(&hashes) => return Ok(()),
                Ok(hashes) if env.now() >= deadline => {
                    return Err(format!("the members differ: {hashes:?}"));
                }
                Err(host) if env.now() >= deadline => {
                    return Err(format!("{host} does not answer a linearizable read"));
                }
                Ok(_) => env.sleep(LOOK).await,
                Err(_) => {
                    self.log_in_again(env).await;
                    env.sleep(LOOK).await;
                }
            }
        }
    }

    /// Of every member at the revision that the first one was at: the read before it makes sure that
    /// each has come so far. The first host that did not answer, otherwise.
    async fn hashes(&self, env: &Env) -> Result<Vec<Hash>, String> {
        let mut hashes = Vec::new();
        let mut common = None;
        for host in self.names() {
            if self.status(env, &host).await.is_some_and(|status| status.is_learner) {
                continue;
            }
            let hash = self.hash(env, &host, &mut common).await;
            hashes.push((host.clone(), hash.ok_or(host)?));
        }
        Ok(hashes)
    }

    async fn hash(
        &self,
        env: &Env,
        host: &str,
        common: &mut Option<i64>,
    ) -> Option<(i64, u32, i64)> {
        let channel = self.channel(env, Some(host));
        let mut kv = KvClient::new(channel.clone());
        let read = RangeRequest { key: "settled?".into(), ..Default::default() };
        let read = env.timeout(LOOK_LIMIT, kv.range(read)).await.ok()?.ok()?;
        let revision = *common.get_or_insert(read.into_inner().header?.revision);
        let mut maintenance = MaintenanceClient::new(channel);
        let hash = maintenance.hash_kv(HashKvRequest { revision });
        let hash = env.timeout(LOOK_LIMIT, hash).await.ok()?.ok()?.into_inner();
        Some((revision, hash.hash, hash.compact_revision))
    }
}

/// A host, and the revision, hash and compact revision of its member.
type Hash = (String, (i64, u32, i64));
