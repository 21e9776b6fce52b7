//! A cluster of real servers on simulated hosts: the whole [`Server`], started as the program starts
//! it, and channels for clients. What is done to the hosts is the scenario's matter.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate::client::{self, Channel};
use quorate::engine;
use quorate::env::Env;
use quorate::member;
use quorate::server::{self, Server};
use quorate_proto::etcdserverpb::HashKvRequest;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{RangeRequest, StatusRequest, StatusResponse};

use crate::World;

const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
/// How long a healed cluster may take to settle.
const PATIENCE: Duration = Duration::from_secs(120);
/// One look at whether it has.
const LOOK: Duration = Duration::from_millis(200);

/// What differs between clusters; small bounds make rare paths common.
#[derive(Clone, Debug)]
pub struct Shape {
    pub members: usize,
    pub snapshot_count: u64,
    pub catchup_entries: u64,
    pub wal_segment_bytes: u64,
}

impl Shape {
    /// Members with bounds small enough that segments are cut and states flushed all the time.
    pub fn small(members: usize) -> Self {
        Self { members, snapshot_count: 200, catchup_entries: 100, wal_segment_bytes: 64 << 10 }
    }
}

/// Servers on hosts `m0`, `m1`, ...
#[derive(Clone)]
pub struct Cluster {
    world: World,
    shape: Shape,
    names: Vec<String>,
    /// Why servers ended by themselves, which none should.
    ended: Arc<Mutex<Vec<String>>>,
}

impl Cluster {
    /// Adds the hosts; nothing runs yet.
    pub fn new(world: &World, shape: Shape) -> Self {
        let names: Vec<_> = (0..shape.members).map(|n| format!("m{n}")).collect();
        for name in &names {
            world.add_host(name);
        }
        Self { world: world.clone(), shape, names, ended: Arc::default() }
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Where clients connect.
    pub fn endpoints(&self) -> Vec<String> {
        self.names.iter().map(|name| endpoint(name)).collect()
    }

    pub async fn start_all(&self) {
        for name in &self.names {
            self.start(name).await;
        }
    }

    /// Starts, or restarts, the server on one host.
    pub async fn start(&self, name: &str) {
        let options = self.options(name);
        let (ended, host) = (self.ended.clone(), name.to_owned());
        let process = self
            .world
            .start(name, move |env| async move {
                let fatal = match Server::start(env, options).await {
                    Ok(server) => server.fatal().await,
                    Err(fatal) => fatal,
                };
                let mut ended = ended.lock().expect("a list of texts");
                ended.push(format!("{host}: {fatal}"));
            })
            .await;
        drop(process);
    }

    fn options(&self, name: &str) -> server::Options {
        let address = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let url = |name: &str| vec![format!("http://{name}:{PEER_PORT}")];
        let mut member = member::Options::single(name, "/data", address(PEER_PORT));
        member.advertise_peer_urls = url(name);
        member.advertise_client_urls = vec![format!("http://{}", endpoint(name))];
        member.initial_cluster = self.names.iter().map(|n| (n.clone(), url(n))).collect();
        member.snapshot_count = self.shape.snapshot_count;
        member.catchup_entries = self.shape.catchup_entries;
        member.wal_segment_bytes = self.shape.wal_segment_bytes;
        member.engine = engine::Options::in_memory(self.world.mem_env(name));
        server::Options::new(member, vec![address(CLIENT_PORT)])
    }

    /// A channel from the host of `env` to one member, or to any of them in turn.
    pub fn channel(&self, env: &Env, member: Option<&str>) -> Channel {
        let endpoints = match member {
            Some(name) => vec![endpoint(name)],
            None => self.endpoints(),
        };
        // Quicker than in production to notice a dead member: simulated time is dear.
        let options = client::Options {
            connect_timeout: Duration::from_secs(2),
            keep_alive_interval: Duration::from_secs(2),
            keep_alive_timeout: Duration::from_secs(2),
        };
        Channel::with_options(env.clone(), endpoints, options).expect("endpoints are host:port")
    }

    /// The member that a running member takes for the leader; none while there is no answer.
    pub async fn leader(&self, env: &Env) -> Option<String> {
        for name in self.running() {
            let Some(status) = self.status(env, &name).await else { continue };
            for other in self.running() {
                let Some(theirs) = self.status(env, &other).await else { continue };
                let header = theirs.header.expect("every answer has a header");
                if status.leader != 0 && header.member_id == status.leader {
                    return Some(other);
                }
            }
        }
        None
    }

    fn running(&self) -> Vec<String> {
        self.names.iter().filter(|name| self.world.is_running(name)).cloned().collect()
    }

    /// A member's own account of itself.
    pub async fn status(&self, env: &Env, name: &str) -> Option<StatusResponse> {
        let mut client = MaintenanceClient::new(self.channel(env, Some(name)));
        let call = client.status(StatusRequest {});
        let answer = env.timeout(Duration::from_secs(2), call).await;
        answer.ok()?.ok().map(tonic::Response::into_inner)
    }

    /// Waits until every member answers a linearizable read, which takes a leader that all reach, and
    /// all have the same hash at one revision; clients may go on writing. Panics when that does not
    /// come to pass.
    pub async fn settled(&self, env: &Env) {
        let start = env.now();
        loop {
            self.assert_none_ended();
            if let Some(hashes) = self.hashes(env).await
                && hashes.windows(2).all(|pair| pair[0] == pair[1])
            {
                return;
            }
            let waited = env.now() - start;
            assert!(
                waited < PATIENCE,
                "the members differ or do not answer: {:?}",
                self.hashes(env).await
            );
            env.sleep(LOOK).await;
        }
    }

    /// `(revision, hash, compact revision)` of every member, all at the revision that the first one
    /// was at: the read before it makes sure that each has come so far.
    async fn hashes(&self, env: &Env) -> Option<Vec<(i64, u32, i64)>> {
        let mut hashes = Vec::new();
        let mut common = None;
        for name in &self.names {
            let limit = Duration::from_secs(3);
            let mut kv = KvClient::new(self.channel(env, Some(name)));
            let read = RangeRequest { key: "settled?".into(), ..Default::default() };
            let read = env.timeout(limit, kv.range(read)).await.ok()?.ok()?;
            let revision = *common.get_or_insert(read.into_inner().header?.revision);
            let mut maintenance = MaintenanceClient::new(self.channel(env, Some(name)));
            let hash = maintenance.hash_kv(HashKvRequest { revision });
            let hash = env.timeout(limit, hash).await.ok()?.ok()?.into_inner();
            hashes.push((revision, hash.hash, hash.compact_revision));
        }
        Some(hashes)
    }

    /// No server may have ended by itself.
    pub fn assert_none_ended(&self) {
        let ended = self.ended.lock().expect("a list of texts");
        assert!(ended.is_empty(), "servers ended by themselves: {ended:?}");
    }

    /// Takes note that servers ended, where a scenario breaks disks on purpose.
    pub fn forgive_ended(&self) -> Vec<String> {
        std::mem::take(&mut *self.ended.lock().expect("a list of texts"))
    }
}

fn endpoint(name: &str) -> String {
    format!("{name}:{CLIENT_PORT}")
}
