//! The eyes on members from outside: they see a sound cluster as sound, and what they would look for
//! in a broken one is there to be looked at.

use std::time::Duration;

use quorate::env::Env;
use quorate::plant;
use quorate_proto::etcdserverpb::PutRequest;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use sim::cluster::Cluster;
use sim::facts::evidence::Evidence;
use sim::facts::shape::Shape;
use sim::facts::story::Story;
use sim::facts::verdict::Violation;
use sim::{World, check, observe, offline, run};
use tokio::sync::oneshot;

const LIMIT: Duration = Duration::from_secs(60);

struct Watched {
    world: World,
    cluster: Cluster,
    env: Env,
    evidence: Evidence,
}

impl Watched {
    /// Three members under observation, with some writes in them.
    async fn begin(world: World) -> Self {
        world.add_host("eye");
        let (give, take) = oneshot::channel();
        let process = world.start("eye", |env| async move {
            let _ = give.send(env);
            std::future::pending::<()>().await;
        });
        drop(process.await);
        let env = take.await.expect("the process has just begun");
        let evidence = Evidence::default();
        evidence.record().start = Some(env.now() - world.elapsed());
        let cluster = Cluster::new(&world, Shape { snapshot_count: 40, ..Shape::small(3) });
        observe::start(&cluster, &env, &evidence, &Story::default());
        cluster.start_all().await;
        cluster.settled(&env, LIMIT).await.expect("a new cluster serves");
        let watched = Self { world, cluster, env, evidence };
        watched.write().await;
        watched
    }

    async fn write(&self) {
        let mut kv = KvClient::new(self.cluster.channel(&self.env, None));
        for n in 0..100_u32 {
            let (key, value) = (format!("k{}", n % 7).into(), n.to_string().into());
            let put = PutRequest { key, value, ..Default::default() };
            drop(self.env.timeout(Duration::from_secs(5), kv.put(put)).await);
            self.env.sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until there have been a few looks of each kind.
    async fn looked_around(&self) {
        let enough = || {
            let record = self.evidence.record();
            let seen = &record.seen;
            record.samples.len() > 60 && seen.pages.len() >= 6 && seen.hashes.len() >= 3
        };
        let looks = async {
            while !enough() {
                self.env.sleep(Duration::from_millis(100)).await;
            }
        };
        self.env.timeout(LIMIT, looks).await.expect("a few looks of each kind");
    }

    /// All lose their power at once; their disks are looked at before they start again.
    async fn black_out(&self) {
        let names = self.cluster.names();
        names.iter().for_each(|host| self.world.power_off(host));
        for host in &names {
            offline::after_crash(&self.world, host, &self.evidence).await;
        }
        self.cluster.start_all().await;
    }

    async fn verdict(&self) -> Vec<Violation> {
        self.cluster.settled(&self.env, LIMIT).await.expect("a healed cluster serves");
        for host in self.cluster.names() {
            self.cluster.flush(&host).await;
        }
        for host in self.cluster.names() {
            self.world.kill(&host);
        }
        let mut violations = offline::check(&self.world, &self.cluster, &self.evidence).await;
        violations.extend(check::raft::check(&self.evidence.record()));
        violations.extend(check::equal::check(&self.evidence.record()));
        violations.extend(self.evidence.record().violations.clone());
        violations
    }
}

#[test]
fn a_sound_cluster_is_seen_as_sound() {
    run(1, |world| async move {
        let watched = Watched::begin(world).await;
        watched.looked_around().await;
        watched.black_out().await;
        let violations = watched.verdict().await;
        assert!(violations.is_empty(), "{violations:?}");
        let record = watched.evidence.record();
        let seen = &record.seen;
        assert!(seen.pages.iter().all(|page| page.figures.len() >= 7), "{:?}", seen.pages[0]);
        assert!(!seen.reigns.is_empty(), "somebody has led");
        // Three looks at three logs in the dark, and the last one at each.
        assert_eq!((seen.logs.len(), seen.stores.len()), (12, 3));
        assert!(seen.logs.iter().all(|log| log.last() > 100 && !log.votes.is_empty()));
        let applied: Vec<_> = seen.stores.iter().map(|store| store.applied).collect();
        assert!(applied.windows(2).all(|pair| pair[0] == pair[1]), "{applied:?}");
    });
}

#[test]
fn an_answer_before_its_fsync_is_seen_on_the_platters() {
    let found = (1..=40).any(|seed| {
        run(seed, |world| async move {
            plant::set(Some("ack-before-fsync"));
            let watched = Watched::begin(world).await;
            // Its own log is what the leader waits for.
            let leader = watched.cluster.leader(&watched.env).await;
            for host in
                watched.cluster.names().into_iter().filter(|host| leader.as_ref() != Some(host))
            {
                let slow = (Duration::from_millis(200), Duration::from_millis(900));
                watched.world.set_log_latency(&host, Some(slow));
            }
            watched.write().await;
            let names = watched.cluster.names();
            names.iter().for_each(|host| watched.world.power_off(host));
            for host in &names {
                offline::after_crash(&watched.world, host, &watched.evidence).await;
            }
            let violations = watched.evidence.record().violations.clone();
            violations.iter().any(|violation| violation.property.contains("durable on a majority"))
        })
    });
    assert!(found, "not seen in forty runs");
}
