//! A run from beginning to verdict: a cluster under load, something done to it by the caller, and in
//! the end every question that the checkers can ask.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use quorate::env::Env;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::{
    RangeRequest, WatchCreateRequest, WatchRequest, watch_request::RequestUnion,
};
use tokio::sync::oneshot;

use crate::World;
use crate::check;
use crate::check::replay::Log;
use crate::cluster::{Cluster, Shape};
use crate::history::History;
use crate::workload::leases::Ledger;
use crate::workload::watch::Seen;
use crate::workload::{Stop, kv, leases, watch};

/// How long a lease may outlive its end in a whole cluster: an election, a look, a commit.
const LEASE_GRACE: Duration = Duration::from_secs(6);
/// What a watcher may take to notice a broken stream, resume and catch up.
const WATCH_GRACE: Duration = Duration::from_secs(40);
/// For what the workloads have under way to come to an end.
const WIND_DOWN: Duration = Duration::from_secs(16);

/// A run that does not fit usually does so in many places for one reason.
const FAULTS_SHOWN: usize = 8;

/// What clients run against the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub kv: usize,
    pub watchers: usize,
    pub leases: usize,
}

impl Default for Load {
    fn default() -> Self {
        Self { kv: 4, watchers: 2, leases: 1 }
    }
}

/// A cluster under load.
pub struct Run {
    pub cluster: Cluster,
    /// The doors of the host on which all clients run.
    pub env: Env,
    pub history: History,
    watchers: Vec<Seen>,
    ledger: Ledger,
    stop: Stop,
    stop_watching: Stop,
}

/// What a run that passed did.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Calls that were answered.
    pub answered: usize,
    /// The last revision.
    pub revision: i64,
}

impl Run {
    /// Starts all members, waits until they serve, then starts the clients.
    pub async fn begin(world: &World, shape: Shape, load: Load) -> Self {
        let cluster = Cluster::new(world, shape);
        world.add_host("clients");
        cluster.start_all().await;
        let (give, take) = oneshot::channel();
        let clients = world
            .start("clients", |env| async move {
                // The scenario is there as long as its clients are.
                let _ = give.send(env);
                std::future::pending::<()>().await;
            })
            .await;
        drop(clients);
        let env = take.await.expect("the clients' process has just begun");
        cluster.settled(&env).await;
        let (history, ledger) = (History::default(), Ledger::default());
        let (stop, stop_watching) = (Stop::default(), Stop::default());
        let watchers: Vec<_> = (0..load.watchers).map(|_| Seen::default()).collect();
        let names = cluster.names();
        for client in 0..load.kv {
            // One client keeps to one member, the next goes wherever it is answered.
            let member = (client % 2 == 0).then(|| names[client % names.len()].as_str());
            let channel = cluster.channel(&env, member);
            let task = kv::run(env.clone(), channel, client, history.clone(), stop.clone());
            drop(env.spawn("kv client", task));
        }
        for (at, seen) in watchers.iter().enumerate() {
            let channel = cluster.channel(&env, (at > 0).then(|| names[at % names.len()].as_str()));
            let task = watch::run(env.clone(), channel, seen.clone(), stop_watching.clone());
            drop(env.spawn("watcher", task));
        }
        for client in 0..load.leases {
            let channel = cluster.channel(&env, None);
            let (ledger, history) = (ledger.clone(), history.clone());
            let id = load.kv + client;
            let task = leases::run(env.clone(), channel, id, ledger, history, stop.clone());
            drop(env.spawn("lease client", task));
        }
        Self { cluster, env, history, watchers, ledger, stop, stop_watching }
    }

    /// Ends the load on a cluster that is whole again and asks everything. Panics with all that does
    /// not fit.
    pub async fn end(self) -> Summary {
        let healthy = self.env.now();
        self.cluster.settled(&self.env).await;
        self.stop.now();
        // What is under way ends, and the last leases run out, while the cluster is whole.
        self.env.sleep(WIND_DOWN).await;
        self.cluster.settled(&self.env).await;
        let log = self.log().await;
        let revision = log.keys().next_back().copied().unwrap_or(1);
        self.watched(revision).await;
        let faults = self.faults(&log, revision, healthy).await;
        self.cluster.assert_none_ended();
        let some = faults.iter().take(FAULTS_SHOWN).cloned().collect::<Vec<_>>().join("\n");
        assert!(faults.is_empty(), "{} things do not fit, the first:\n{some}", faults.len());
        Summary { answered: self.history.answered(), revision }
    }

    /// Waits until every watcher has been told everything, for as long as that may take a sound one.
    async fn watched(&self, revision: i64) {
        let deadline = self.env.now() + WATCH_GRACE;
        let behind = || self.watchers.iter().any(|seen| seen.revision() < revision);
        while behind() && self.env.now() < deadline {
            self.env.sleep(Duration::from_millis(100)).await;
        }
        self.stop_watching.now();
    }

    async fn faults(&self, log: &Log, revision: i64, healthy: Instant) -> Vec<String> {
        let mut faults = check::replay::check(log, &self.history.operations());
        let now = self.env.now();
        for (at, seen) in self.watchers.iter().enumerate() {
            let responses = seen.responses();
            let judged = check::watches::check(log, &responses);
            faults.extend(judged.into_iter().map(|fault| format!("watcher {at}: {fault}")));
            let held = self.ledger.held();
            faults.extend(check::leases::check(&responses, &held, healthy, now, LEASE_GRACE));
        }
        if let Some(behind) = self.watchers.iter().find(|seen| seen.revision() != revision) {
            faults.push(format!("a watcher ended at {}, not {revision}", behind.revision()));
        }
        faults
    }

    /// Every event there ever was, from a watch that begins at the first revision.
    async fn log(&self) -> Log {
        let channel = self.cluster.channel(&self.env, None);
        let read = RangeRequest { key: "any".into(), ..Default::default() };
        let answer = KvClient::new(channel.clone()).range(read).await.expect("a whole cluster");
        let last = answer.into_inner().header.expect("every answer has a header").revision;
        let create = WatchCreateRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            start_revision: 1,
            ..Default::default()
        };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let requests = stream::iter([request]).chain(stream::pending());
        let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        let mut responses = client.watch(requests).await.expect("a whole cluster").into_inner();
        let mut log: Log = BTreeMap::new();
        while log.keys().next_back().copied().unwrap_or(1) < last {
            let response = responses.message().await.expect("a whole cluster").expect("a stream");
            for event in response.events {
                let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
                log.entry(revision).or_default().push(event);
            }
        }
        log
    }
}
