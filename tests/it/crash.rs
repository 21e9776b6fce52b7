//! `kill -9` under load on a real disk, again and again: what was acknowledged is there after every
//! start, revisions never go back, and what a hash covers has not changed. `QUORATE_CRASH_ROUNDS` sets
//! how often (default 200; a tenth of that with three members), `QUORATE_CRASH_SEED` repeats the
//! choices of a run, though not its timing.

use std::time::{Duration, Instant};

use super::client::Client;
use super::etcdctl::{Etcdctl, Release};
use super::load::{Load, Promises, scan};
use super::process::{Cluster, Kind, Server, loudly, scratch};

const WRITERS: usize = 8;

#[test]
fn one_member_keeps_what_it_acknowledged() {
    let dir = scratch();
    let flags = ["--heartbeat-interval=20", "--election-timeout=200"];
    let mut server = Server::single(Kind::subject(), dir.path(), &flags);
    let mut random = Random::seeded();
    let (started, rounds) = (Instant::now(), rounds());
    runtime().block_on(async {
        server.start();
        let mut load = Load::start(WRITERS, &[server.endpoint()]);
        for round in 0..rounds {
            load.progress(random.below(100)).await;
            let mut client = Client::connect(&server.endpoint()).await;
            let hashed = load.promises().revision;
            let hash = hash_at(&mut client, hashed).await;
            // Somewhere between two acknowledgements, not right after one.
            tokio::time::sleep(Duration::from_micros(random.below(5000))).await;
            server.kill();
            let promises = load.promises();
            server.start();
            let mut client = Client::connect(&server.endpoint()).await;
            check(&load, &promises, &mut client, &format!("round {round}")).await;
            assert_eq!(hash, hash_at(&mut client, hashed).await, "hash at revision {hashed}");
        }
        load.stop().await;
        report("one member", rounds, &load, started);
    });
}

/// Before the state was looked at it seemed empty, and the alarm was cleared.
#[test]
fn a_full_member_is_full_when_it_starts_again() {
    let dir = scratch();
    let flags = ["--quota-backend-bytes=70000"];
    let mut server = Server::single(Kind::Quorate, dir.path(), &flags);
    server.start();
    let ctl = Etcdctl::new(&Release::real(), &[server.endpoint()]);
    let value = "v".repeat(10_000);
    let refused =
        (0..20).map(|_| ctl.run(&["put", "k", &value], "")).find(|put| put.code != Some(0));
    let refused = refused.expect("the quota is small").stderr;
    assert!(refused.contains("database space exceeded"), "{refused}");
    for _ in 0..5 {
        server.restart();
        let alarms = ctl.run(&["alarm", "list"], "").stdout;
        assert!(alarms.contains("NOSPACE"), "{alarms}");
        assert_ne!(ctl.run(&["put", "k", "1"], "").code, Some(0));
        assert!(!server.has_logged("alarm cleared"), "{}", server.output());
    }
}

#[test]
fn three_members_keep_what_they_acknowledged() {
    let dir = scratch();
    let flags = ["--heartbeat-interval=50", "--election-timeout=500"];
    let mut cluster = Cluster::new(&Kind::subject(), dir.path(), 3, &flags);
    let mut random = Random::seeded();
    let (started, rounds) = (Instant::now(), rounds().div_ceil(10));
    runtime().block_on(async {
        cluster.start();
        let mut load = Load::start(WRITERS, &cluster.endpoints());
        for round in 0..rounds {
            load.progress(random.below(100)).await;
            if random.below(3) == 0 {
                for server in &mut cluster.servers {
                    server.kill();
                }
            } else {
                let victim = random.index(cluster.servers.len());
                cluster.servers[victim].kill();
                if random.below(2) == 0 {
                    load.progress(random.below(50)).await;
                }
            }
            let promises = load.promises();
            cluster.start();
            for server in &cluster.servers {
                let mut client = Client::connect(&server.endpoint()).await;
                let when = format!("round {round}, member {}", server.name);
                check(&load, &promises, &mut client, &when).await;
            }
            assert_same_hash(&cluster, promises.revision).await;
        }
        load.stop().await;
        report("three members", rounds, &load, started);
    });
}

/// Reads everything, linearizably, and holds it against the promises.
async fn check(load: &Load, promises: &Promises, client: &mut Client, when: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let scan = loop {
        match scan(client).await {
            Ok(scan) => break scan,
            // No leader yet.
            Err(status) if Instant::now() > deadline => panic!("{when}: {status}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    if let Err(why) = load.check(promises, &scan) {
        panic!("{when}: {why}");
    }
}

/// Every member has the same history up to `revision`. They have all read it before.
pub async fn assert_same_hash(cluster: &Cluster, revision: i64) {
    let mut hashes = Vec::new();
    for server in &cluster.servers {
        let mut client = Client::connect(&server.endpoint()).await;
        hashes.push(hash_at(&mut client, revision).await);
    }
    let same = hashes.iter().all(|hash| *hash == hashes[0]);
    assert!(same, "hashes at revision {revision} differ: {hashes:?}");
}

async fn hash_at(client: &mut Client, revision: i64) -> (u32, i64) {
    let answer = client.hash_kv(revision).await;
    let answer = answer.unwrap_or_else(|e| panic!("hash at revision {revision}: {e}"));
    (answer.hash, answer.compact_revision)
}

fn rounds() -> u64 {
    let rounds = std::env::var("QUORATE_CRASH_ROUNDS").ok();
    rounds.map_or(200, |rounds| rounds.parse().expect("QUORATE_CRASH_ROUNDS is a number"))
}

fn report(what: &str, rounds: u64, load: &Load, started: Instant) {
    let (puts, took) = (load.acknowledged(), started.elapsed());
    let each = took / u32::try_from(rounds.max(1)).expect("few rounds");
    loudly(&format!(
        "{what}: {rounds} kills, {puts} acknowledged puts, {took:.1?}, {each:.0?} each"
    ));
}

pub fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime starts")
}

/// Choices that a seed repeats (SplitMix64).
struct Random(u64);

impl Random {
    fn seeded() -> Self {
        let seed = std::env::var("QUORATE_CRASH_SEED").ok();
        let seed = seed.map(|seed| seed.parse().expect("QUORATE_CRASH_SEED is a number"));
        let now = || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            u64::from(now.expect("it is after 1970").subsec_nanos())
        };
        let seed = seed.unwrap_or_else(now);
        println!("QUORATE_CRASH_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }
}
