//! Members come and go under load: nothing that was acknowledged is lost, and the cluster is never
//! away for longer than elections take.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quorate::env::Env;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::{PutRequest, RangeRequest};
use sim::World;
use sim::cluster::Cluster;
use sim::facts::shape::Shape;

const LIMIT: Duration = Duration::from_secs(60);
/// What a write gets before the next one is tried.
const WRITE_LIMIT: Duration = Duration::from_secs(2);
/// Two elections: a leader that is removed by others is missed only after an election timeout.
const GAP_MAX: Duration = Duration::from_secs(5);

/// Writes one key after the other and remembers which were acknowledged, and when.
#[derive(Clone, Default)]
struct Load(Arc<Mutex<(Vec<u64>, Vec<Instant>)>>);

impl Load {
    async fn start(&self, cluster: &Cluster) {
        let (load, cluster) = (self.clone(), cluster.clone());
        let world = cluster.world().clone();
        world.add_host("load");
        let write = move |env: Env| async move {
            let mut turn = 0;
            for n in 0.. {
                // Another member, of those that there are then, whenever one does not answer.
                let names = cluster.names();
                let member = &names[turn % names.len()];
                let mut kv = KvClient::new(cluster.channel(&env, Some(member)));
                let put = PutRequest { key: key(n).into(), ..PutRequest::default() };
                if let Ok(Ok(_)) = env.timeout(WRITE_LIMIT, kv.put(put)).await {
                    let mut seen = load.0.lock().expect("a list");
                    seen.0.push(n);
                    seen.1.push(env.now());
                } else {
                    turn += 1;
                }
                env.sleep(Duration::from_millis(20)).await;
            }
        };
        drop(world.start("load", write).await);
    }

    /// All acknowledged writes are there, and none was long in coming.
    async fn check(&self, cluster: &Cluster, env: &Env) {
        self.check_written(cluster, env).await;
        let times = self.0.lock().expect("a list").1.clone();
        let gap = times.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(gap < Some(GAP_MAX), "no write was acknowledged for {gap:?}");
    }

    async fn check_written(&self, cluster: &Cluster, env: &Env) {
        cluster.world().kill("load");
        let written = self.0.lock().expect("a list").0.clone();
        assert!(written.len() > 100, "only {} writes", written.len());
        let mut kv = KvClient::new(cluster.channel(env, None));
        let all = RangeRequest { key: "n".into(), range_end: "o".into(), ..Default::default() };
        let answer = kv.range(all).await.expect("a whole cluster answers").into_inner();
        let keys: Vec<_> = answer.kvs.into_iter().map(|kv| kv.key).collect();
        let lost = written.iter().find(|n| keys.binary_search(&key(**n).into()).is_err());
        assert_eq!(lost, None, "an acknowledged write is lost");
    }
}

fn key(n: u64) -> String {
    format!("n{n:08}")
}

/// Three members under load, and the environment of a host that observes them.
async fn cluster(world: &World) -> (Cluster, Env, Load) {
    world.add_host("eye");
    let (give, take) = tokio::sync::oneshot::channel();
    let eye = world.start("eye", |env| async move {
        let _ = give.send(env);
        std::future::pending::<()>().await;
    });
    drop(eye.await);
    let env = take.await.expect("the process has begun");
    let cluster = Cluster::new(world, Shape::small(3));
    cluster.start_all().await;
    cluster.settled(&env, LIMIT).await.expect("a new cluster serves");
    let load = Load::default();
    load.start(&cluster).await;
    (cluster, env, load)
}

async fn finish(cluster: &Cluster, env: &Env, load: &Load) {
    cluster.settled(env, LIMIT).await.expect("the new members serve");
    load.check(cluster, env).await;
    assert_eq!(cluster.ended(), [], "no server ends by itself");
}

/// A learner that is promoted, then the old member removed; the cluster stays as large as it was.
#[test]
fn each_member_is_replaced_in_turn() {
    sim::run_for(1, Duration::from_secs(900), |world| async move {
        let (cluster, env, load) = cluster(&world).await;
        for (old, fresh) in [("m0", "m3"), ("m1", "m4"), ("m2", "m5")] {
            cluster.replace(&env, old, fresh, LIMIT).await.expect("it is replaced");
        }
        assert_eq!(cluster.names(), ["m3", "m4", "m5"]);
        finish(&cluster, &env, &load).await;
    });
}

/// The machine is the same, its disk is new, and so is the member's id.
#[test]
fn a_removed_member_comes_back_under_another_id() {
    sim::run_for(2, Duration::from_secs(900), |world| async move {
        let (cluster, env, load) = cluster(&world).await;
        for host in ["m0", "m1", "m2"] {
            cluster.remove_member(&env, host, LIMIT).await.expect("it is removed");
            cluster.add_member(&env, host, false, LIMIT).await.expect("it is added");
        }
        finish(&cluster, &env, &load).await;
        let members = cluster.members(&env).await.expect("a list");
        assert_eq!(members.len(), 3, "{members:?}");
    });
}

/// A member that missed its own removal is informed by the others, and does not start again.
#[test]
fn a_member_that_was_away_hears_that_it_was_removed() {
    sim::run_for(3, Duration::from_secs(900), |world| async move {
        let (cluster, env, load) = cluster(&world).await;
        for lost in ["m2", "m0"] {
            // Only the member itself: clients go on reaching the others.
            for other in cluster.names().iter().filter(|other| *other != lost) {
                world.partition(lost, other);
            }
            let asked = cluster.ask_to_remove(&env, lost, LIMIT);
            asked.await.expect("the others are a quorum");
            assert!(world.is_running(lost), "it cannot know");
            world.heal_all();
            let ends = || !world.is_running(lost);
            assert!(world.wait_until(Duration::from_secs(10), ends).await, "it hears of it");
            cluster.start(lost).await;
            assert!(world.wait_until(Duration::from_secs(10), ends).await, "it knows");
            cluster.retire(lost);
            cluster.add_member(&env, lost, false, LIMIT).await.expect("another takes its place");
        }
        finish(&cluster, &env, &load).await;
    });
}

/// As above, while members are killed, cut off and paused: slower, but nothing is lost.
fn under_faults(seed: u64) {
    sim::run_for(seed, Duration::from_secs(3600), |world| async move {
        let (cluster, env, load) = cluster(&world).await;
        let nemesis = trouble(cluster.clone());
        let mut fresh = 3;
        let changes = async {
            for round in 0..4 {
                let names = cluster.names();
                let old = names[world.random(0..names.len())].clone();
                let limit = Duration::from_secs(300);
                let done = if world.chance(0.5) {
                    fresh += 1;
                    cluster.replace(&env, &old, &format!("m{}", fresh - 1), limit).await
                } else {
                    match cluster.remove_member(&env, &old, limit).await {
                        Ok(()) => cluster.add_member(&env, &old, world.chance(0.5), limit).await,
                        refused => refused,
                    }
                };
                done.unwrap_or_else(|why| panic!("round {round}, {old}: {why}"));
                for host in cluster.names() {
                    cluster.promote(&env, &host, limit).await.expect("a learner is promoted");
                }
            }
        };
        tokio::select! {
            biased; // The end of the changes is the end of the trouble.
            () = changes => {}
            () = nemesis => {}
        }
        world.heal_all();
        for host in cluster.names() {
            world.resume(&host);
            if !world.is_running(&host) {
                cluster.start(&host).await;
            }
        }
        cluster.settled(&env, LIMIT).await.expect("the members serve");
        load.check_written(&cluster, &env).await;
        assert_eq!(cluster.ended(), [], "no server ends by itself");
    });
}

/// One member at a time is down, cut off or paused for a while.
async fn trouble(cluster: Cluster) {
    let world = cluster.world().clone();
    loop {
        world.sleep(Duration::from_millis(world.random(500..6_000))).await;
        let names = cluster.names();
        let host = names[world.random(0..names.len())].clone();
        let lasts = Duration::from_millis(world.random(200..5_000));
        match world.random(0..4) {
            how @ (0 | 1) => {
                if how == 0 {
                    world.kill(&host);
                } else {
                    world.power_off(&host);
                    world.power_on(&host);
                }
                world.sleep(lasts).await;
                if cluster.names().contains(&host) && !world.is_running(&host) {
                    cluster.start(&host).await;
                }
            }
            2 => {
                world.isolate(&host);
                world.sleep(lasts).await;
                world.heal_all();
            }
            _ => {
                world.pause(&host);
                world.sleep(lasts).await;
                world.resume(&host);
            }
        }
    }
}

#[test]
fn changes_survive_faults() {
    (1..=8).for_each(under_faults);
}
