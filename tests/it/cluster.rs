//! Three members of which one goes: how long writes stop, and that it is as the others when it is
//! back.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::client::Client;
use super::crash::{assert_same_hash, runtime};
use super::load::{Load, scan};
use super::process::{Cluster, Kind, loudly, scratch};

const ELECTION: Duration = Duration::from_secs(1);
/// Two cores run three members, the writers and whatever else the machine does.
const NOISE: f64 = 1.5;
const PROBE_EVERY: Duration = Duration::from_millis(10);

#[test]
fn writes_go_on_after_the_leader_is_killed() {
    leader_goes("kill -9 of the leader", ELECTION * 2, |cluster, leader| {
        cluster.servers[leader].kill();
    });
}

/// A leader that stops in an orderly way hands over first, so there is no election timeout.
#[test]
fn writes_go_on_at_once_after_the_leader_is_stopped() {
    leader_goes("SIGTERM of the leader", ELECTION / 2, |cluster, leader| {
        let status = cluster.servers[leader].terminate();
        let stopped = match cluster.servers[leader].kind {
            Kind::Quorate => status.success(),
            // etcd ends itself with the signal.
            Kind::Etcd(_) => true,
        };
        assert!(stopped, "SIGTERM ended the leader with {status}");
    });
}

/// Removes the leader by `remove` while others write, measures the pause, brings it back.
fn leader_goes(what: &str, bound: Duration, remove: impl Fn(&mut Cluster, usize)) {
    let dir = scratch();
    let mut cluster = Cluster::new(&Kind::subject(), dir.path(), 3, &[]);
    runtime().block_on(async {
        cluster.start();
        let mut load = Load::start(4, &cluster.endpoints());
        load.progress(200).await;
        let leader = leader(&cluster).await;
        let others: Vec<String> =
            (0..3).filter(|i| *i != leader).map(|i| cluster.servers[i].endpoint()).collect();
        let probe = Probe::start(&others).await;
        probe.acknowledged_since(Instant::now()).await;
        let gone = Instant::now();
        remove(&mut cluster, leader);
        // Long enough that the pause, if it is within bounds, is over.
        tokio::time::sleep(bound.mul_f64(NOISE)).await;
        probe.acknowledged_since(gone + bound.mul_f64(NOISE)).await;
        let pause = probe.longest_pause(gone);
        loudly(&format!("{what}: writes stopped for {} ms", pause.as_millis()));
        assert!(pause < bound.mul_f64(NOISE), "{what}: writes stopped for {pause:?}");
        let promises = load.promises();
        cluster.start();
        load.progress(100).await;
        load.stop().await;
        let promises_after = load.promises();
        for server in &cluster.servers {
            let mut client = Client::connect(&server.endpoint()).await;
            let scan = scan(&mut client).await.expect("a member that is ready reads");
            load.check(&promises, &scan).expect("what was written without the leader is there");
            load.check(&promises_after, &scan).expect("what was written with it is there");
        }
        assert_same_hash(&cluster, promises_after.revision).await;
    });
}

/// A put that a move loses would be answered after the timeout of a request, 5 s and two election timeouts.
#[test]
fn writes_go_on_while_leadership_is_moved_again_and_again() {
    const MOVES: usize = 6;
    const EVERY: Duration = Duration::from_millis(700);
    let dir = scratch();
    let mut cluster = Cluster::new(&Kind::subject(), dir.path(), 3, &[]);
    runtime().block_on(async {
        cluster.start();
        let mut load = Load::start(24, &cluster.endpoints());
        load.progress(200).await;
        let mut members = Vec::new();
        for server in &cluster.servers {
            let mut client = Client::connect(&server.endpoint()).await;
            let status = client.status().await.expect("a member that is ready has a status");
            members.push((client, status.header.expect("it has a header").member_id));
        }
        let mut moved = 0;
        let mut ticks = tokio::time::interval(EVERY);
        for _ in 0..MOVES {
            ticks.tick().await;
            let leader = leader(&cluster).await;
            let (_, next) = members[(leader + 1) % 3];
            moved += usize::from(members[leader].0.move_leader(next).await.is_ok());
        }
        ticks.tick().await;
        load.stop().await;
        let longest = load.longest_wait();
        loudly(&format!("{moved} moves: the longest put took {} ms", longest.as_millis()));
        assert!(moved >= MOVES / 2, "leadership was moved {moved} times only");
        assert!(longest < Duration::from_secs(7), "a put took {longest:?}");
        let promises = load.promises();
        for (client, _) in &mut members {
            let scan = scan(client).await.expect("a member that is ready reads");
            load.check(&promises, &scan).expect("what was written meanwhile is there");
        }
        assert_same_hash(&cluster, promises.revision).await;
    });
}

/// A member that was away for longer than the others keep their log gets a snapshot.
#[test]
fn a_member_far_behind_catches_up_by_snapshot() {
    let kind = Kind::subject();
    let flags: &[&str] = match &kind {
        // etcd 3.4 always keeps more than is written here.
        Kind::Etcd(_) => &[],
        Kind::Quorate => &["--snapshot-count=100", "--snapshot-catchup-entries=10"],
    };
    let dir = scratch();
    let mut cluster = Cluster::new(&kind, dir.path(), 3, flags);
    runtime().block_on(async {
        cluster.start();
        let mut load = Load::start(4, &cluster.endpoints());
        load.progress(100).await;
        let away = (leader(&cluster).await + 1) % 3;
        cluster.servers[away].kill();
        load.progress(1000).await;
        cluster.start();
        load.stop().await;
        let promises = load.promises();
        for server in &cluster.servers {
            let mut client = Client::connect(&server.endpoint()).await;
            let scan = scan(&mut client).await.expect("a member that is ready reads");
            load.check(&promises, &scan).expect("what was written while one was away is there");
        }
        assert_same_hash(&cluster, promises.revision).await;
    });
}

/// The index of the server that leads.
async fn leader(cluster: &Cluster) -> usize {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        for (i, server) in cluster.servers.iter().enumerate() {
            let mut client = Client::connect(&server.endpoint()).await;
            let status = client.status().await.expect("a member that is ready has a status");
            if status.header.is_some_and(|header| header.member_id == status.leader) {
                return i;
            }
        }
        assert!(Instant::now() < deadline, "no leader");
    }
}

/// Puts at a steady rate, none waiting for another: a put that is lost with the leader is answered only
/// after the request timeout and must not hide that others go through.
pub struct Probe {
    moments: Arc<Mutex<Vec<Instant>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Probe {
    pub async fn start(endpoints: &[String]) -> Self {
        let mut clients = Vec::new();
        for endpoint in endpoints {
            clients.push(Client::connect(endpoint).await);
        }
        let moments: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let acknowledged = moments.clone();
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(PROBE_EVERY);
            for probe in 0_usize.. {
                ticks.tick().await;
                let mut client = clients[probe % clients.len()].clone();
                let acknowledged = acknowledged.clone();
                tokio::spawn(async move {
                    if client.put(b"probe", b"").await.is_ok() {
                        acknowledged.lock().expect("no probe panics").push(Instant::now());
                    }
                });
            }
        });
        Self { moments, task }
    }

    /// Waits for an acknowledgement after `since`.
    pub async fn acknowledged_since(&self, since: Instant) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.moments.lock().expect("no probe panics").last().is_none_or(|m| *m < since) {
            assert!(Instant::now() < deadline, "no put is acknowledged any more");
            tokio::time::sleep(PROBE_EVERY).await;
        }
    }

    /// The longest time without an acknowledgement that ended after `since`.
    pub fn longest_pause(&self, since: Instant) -> Duration {
        let moments = self.moments.lock().expect("no probe panics");
        let pairs = moments.windows(2).filter(|pair| pair[1] > since);
        pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.task.abort();
    }
}
