//! A plan from beginning to verdict: the cluster is set up, the clients go to work, the nemesis does
//! what the plan has, everything is healed, the cluster must serve again, the load ends, and then
//! every checker runs; at last each member is closed and its files are
//! looked at.
//!
//! A run never panics: a panic in it, the server's or the simulator's, is a violation, and the story
//! up to there is kept.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate::env::Env;
use quorate::{mark, plant};
use tokio::sync::oneshot;

use crate::check;
use crate::cluster::Cluster;
use crate::coverage::Uses;
use crate::dice::Dice;
use crate::facts::addresses::proxy_number;
use crate::facts::evidence::Evidence;
use crate::facts::history::{Call, Log, Operation};
use crate::facts::marks::{self, Ledger};
use crate::facts::story::{Story, What};
use crate::facts::verdict::{Verdict, Violation};
use crate::nemesis::Nemesis;
use crate::nemesis::fault::Fault;
use crate::plan::{Branch, ClientPlan, Plan};
use crate::workload::{self, Client, Stop, Surroundings, closing, drive, scribe};
use crate::world::{self, World};
use crate::{observe, offline};

/// The host from which the run itself looks at the cluster.
pub const EYE: &str = "eye";

/// Its number as a client, above those of all others.
const EYE_NUMBER: usize = 900;

/// A new cluster serves, and a healed one serves again with equal members, within this time.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// Each client has prepared what it needs within this.
const SETUP_LIMIT: Duration = Duration::from_secs(30);
/// Every client that was ever answered is answered again, once the cluster has settled.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// What the load goes on for in the healed cluster.
const AFTERMATH: Duration = Duration::from_secs(2);
/// For what the clients have under way to come to an end.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// For leases that are no longer renewed to run out.
pub const WIND_DOWN: Duration = Duration::from_secs(16);
/// One look at a condition.
const LOOK: Duration = Duration::from_millis(200);
/// Simulated time beside the faults after which a run is stuck.
const OVERHEAD: Duration = Duration::from_secs(900);

/// Plays a plan.
pub fn play(plan: &Plan) -> Verdict {
    play_with(plan, None)
}

/// Plays a plan on servers with one planted fault.
pub fn play_with(plan: &Plan, plant: Option<&str>) -> Verdict {
    play_watched(plan, plant, None)
}

/// Plays a plan, and returns what its clients used of the protocol, too.
pub fn play_covered(plan: &Plan) -> (Verdict, Uses) {
    let uses = Arc::new(Mutex::new(Uses::default()));
    let verdict = play_watched(plan, None, Some(Arc::clone(&uses)));
    let uses = uses.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (verdict, uses)
}

fn play_watched(plan: &Plan, plant: Option<&str>, uses: Option<Arc<Mutex<Uses>>>) -> Verdict {
    let (story, evidence) = (Story::default(), Evidence::default());
    let violations = Arc::new(Mutex::new(Vec::new()));
    let run = Run {
        plan: plan.clone(),
        story: story.clone(),
        evidence: evidence.clone(),
        violations: Arc::clone(&violations),
    };
    let plant = plant.map(str::to_owned);
    let ledger = Ledger::default();
    let (marks, branch) = (ledger.clone(), plan.branch.map(|Branch { at, seed }| (at, seed)));
    let ended = world::attempt(plan.seed, plan.lasts + OVERHEAD, move |world| async move {
        plant::set(plant.as_deref());
        ledger.begin(world.here());
        mark::listen(Some(Box::new(marks::reach)));
        mark::listen_to_requests(uses.map(|uses| -> Box<mark::RequestListener> {
            Box::new(move |path, role, message| {
                uses.lock().unwrap_or_else(PoisonError::into_inner).add(path, role, message);
            })
        }));
        world.branch_at(branch);
        run.perform(&world).await;
        mark::listen(None);
        mark::listen_to_requests(None);
        ledger.end();
        (world.elapsed(), world.digest())
    });
    let mut violations = std::mem::take(&mut *violations.lock().expect("a list of violations"));
    let story = story.events();
    let last = story.last().map_or(Duration::ZERO, |event| event.at);
    let (simulated, digest) = ended.unwrap_or_else(|panic| {
        violations.push(Violation::new("panic", "nothing panics", panic));
        (last, 0)
    });
    let record = evidence.record();
    let answered = record.operations.iter().filter(|operation| operation.answered()).count();
    let revision = record.log.keys().next_back().copied().unwrap_or(1);
    let (plan, seed) = (plan.to_string(), plan.seed);
    let marks = marks.marks();
    Verdict { plan, seed, violations, story, answered, revision, simulated, digest, marks }
}

/// What one run is made of.
struct Run {
    plan: Plan,
    story: Story,
    evidence: Evidence,
    violations: Arc<Mutex<Vec<Violation>>>,
}

/// What has been set up.
struct Stage {
    cluster: Cluster,
    /// The environment of the host [`EYE`].
    eye: Env,
    /// Ends the clients.
    stop: Stop,
    /// Ends the scribe.
    stop_scribe: Stop,
}

impl Run {
    async fn perform(&self, world: &World) {
        if let Err(violation) = self.phases(world).await {
            self.complain([violation]);
        }
    }

    /// The error is what made all further phases senseless.
    async fn phases(&self, world: &World) -> Result<(), Violation> {
        self.phase(world, "setup");
        let stage = self.set_up(world).await?;
        self.prepare(&stage).await?;
        let nemesis = self.nemesis(&stage);
        self.phase(world, "faults");
        nemesis.run(&self.plan.steps, self.plan.lasts).await;
        self.phase(world, "heal");
        let healed = nemesis.heal().await;
        self.phase(world, "liveness");
        let healed = healed
            .map_err(|text| Violation::new("liveness", "changes of members come to an end", text));
        let lively = match healed {
            Ok(()) => self.lively(&stage).await,
            Err(violation) => Err(violation),
        };
        let lively = self.unless_doomed(lively)?;
        if !lively {
            self.evidence.record().healthy = None;
        }
        stage.stop.now();
        if lively {
            self.wind_down(&stage).await?;
        }
        self.phase(world, "verify");
        self.expect_none_ended(&stage);
        self.close(&stage).await;
        self.verify(&stage).await;
        Ok(())
    }

    /// Whether all is well; in a plan that need not be survived, it may not be.
    fn unless_doomed(&self, outcome: Result<(), Violation>) -> Result<bool, Violation> {
        match outcome {
            Ok(()) => Ok(true),
            Err(_) if !self.plan.survivable => Ok(false),
            Err(violation) => {
                // Safety is checked all the same.
                self.complain([violation]);
                Ok(false)
            }
        }
    }

    fn phase(&self, world: &World, name: &str) {
        self.story.note(world.elapsed(), What::Phase { name: name.to_owned() });
    }

    fn complain(&self, violations: impl IntoIterator<Item = Violation>) {
        self.violations.lock().expect("a list of violations").extend(violations);
    }
}

/// Beginning.
impl Run {
    async fn set_up(&self, world: &World) -> Result<Stage, Violation> {
        world.set_story(self.story.clone());
        world.set_latency(self.plan.weather.latency.0, self.plan.weather.latency.1);
        world.add_host(EYE);
        let eye = doors(world, EYE).await;
        self.describe(&eye, world);
        let cluster = Cluster::new(world, self.plan.shape.clone());
        cluster.furnish(EYE);
        if self.plan.shape.traced > 0 {
            observe::spans::start(world, &self.evidence).await;
        }
        observe::start(&cluster, &eye, &self.evidence, &self.story);
        cluster.start_all().await;
        let settled = cluster.settled(&eye, SETTLE_LIMIT).await;
        settled.map_err(|text| Violation::new("liveness", "a new cluster serves", text))?;
        for number in 0..self.plan.shape.learners {
            let host = format!("m{}", self.plan.shape.members + number);
            let added = cluster.add_member(&eye, &host, true, SETTLE_LIMIT).await;
            added.map_err(|text| Violation::new("liveness", "a new cluster serves", text))?;
        }
        let stage = Stage { cluster, eye, stop: Stop::default(), stop_scribe: Stop::default() };
        let scribe = self.eye(&stage, "scribe", stage.stop_scribe.clone());
        drop(stage.eye.spawn("scribe", scribe::run(scribe)));
        Ok(stage)
    }

    /// What checkers have to know of the plan.
    fn describe(&self, eye: &Env, world: &World) {
        let mut record = self.evidence.record();
        record.start = Some(eye.now() - world.elapsed());
        record.request_bytes_max = self.plan.shape.request_bytes_max;
        record.txn_ops_max = self.plan.shape.txn_ops_max;
        record.quota_bytes = self.plan.shape.quota_bytes;
        record.cluster_version = self.plan.shape.cluster_version().to_owned();
        record.traced = self.plan.shape.traced > 0;
        record.lease_checkpoint = self.plan.shape.lease_checkpoint;
        record.auto_compaction = self.plan.shape.auto_compaction;
        let steady = |f: &Fault| matches!(f, Fault::MoveLeader(_) | Fault::RotateCerts(_));
        let calm = |f: &Fault| {
            steady(f) || matches!(f, Fault::Restart(_) | Fault::Migrate(..) | Fault::Compact)
        };
        record.steady = self.plan.steps.iter().all(|step| steady(&step.fault));
        record.calm = self.plan.steps.iter().all(|step| calm(&step.fault));
        record.corrupt_check = self.plan.shape.corrupt_check;
        record.election_timeout = self.plan.shape.election_timeout;
        let proxies = &self.plan.shape.proxies;
        // A new disk begins with nothing.
        let rots = self.plan.steps.iter().any(|step| matches!(step.fault, Fault::Rot(..)));
        let one_member = self.plan.shape.members == 1 && proxies.sync.is_none() && !rots;
        record.proxies_see_their_writes = proxies.ordered || one_member;
        record.proxies_ordered = proxies.ordered;
        let drift = self.plan.weather.clocks.iter().map(|clock| clock.drift_ppm.unsigned_abs());
        record.clock_rate_ppm = drift.max().unwrap_or(0) as u32;
    }

    /// The run itself as a client of the cluster.
    fn eye(&self, stage: &Stage, workload: &'static str, stop: Stop) -> Client {
        let surroundings = Surroundings {
            env: stage.eye.clone(),
            channel: stage.cluster.channel(&stage.eye, None),
            cluster: stage.cluster.clone(),
            evidence: self.evidence.clone(),
            story: self.story.clone(),
            stop,
        };
        let dice = Dice::of(self.plan.seed, workload);
        Client::new(EYE_NUMBER, workload, dice, surroundings)
    }

    fn nemesis(&self, stage: &Stage) -> Nemesis {
        let (cluster, eye) = (stage.cluster.clone(), stage.eye.clone());
        Nemesis::new(cluster, eye, &self.plan, self.evidence.clone(), self.story.clone())
    }

    /// Starts the clients, each on a host of its own, and waits until each has what it needs.
    async fn prepare(&self, stage: &Stage) -> Result<(), Violation> {
        let mut ready = Vec::new();
        for client in &self.plan.clients {
            stage.cluster.add_host(&client.host());
            let (is_ready, when_ready) = oneshot::channel();
            self.start(stage, client, is_ready).await?;
            ready.push((client.host(), when_ready));
        }
        for (host, ready) in ready {
            if stage.eye.timeout(SETUP_LIMIT, ready).await.is_err() {
                let text = format!("{host} could not prepare its work");
                return Err(Violation::new("liveness", "a new cluster serves", text));
            }
        }
        Ok(())
    }

    async fn start(
        &self,
        stage: &Stage,
        plan: &ClientPlan,
        ready: oneshot::Sender<()>,
    ) -> Result<(), Violation> {
        let Some(mut workload) = workload::make(&plan.workload) else {
            let text = format!("no workload is called {}", plan.workload);
            return Err(Violation::new("plan", "a plan can be played", text));
        };
        let (host, plan, stop) = (plan.host(), plan.clone(), stage.stop.clone());
        let (evidence, story) = (self.evidence.clone(), self.story.clone());
        let cluster = stage.cluster.clone();
        let dice = Dice::of(self.plan.seed, &host);
        let work = move |env: Env| async move {
            let channel = cluster.channel(&env, plan.member.as_deref());
            let surroundings = Surroundings { env, channel, cluster, evidence, story, stop };
            let client = Client::new(plan.number, workload.name(), dice, surroundings);
            let client = client.speaking(plan.speaks);
            workload.setup(&client).await;
            let _ = ready.send(());
            drive(workload, client, plan.steps_max).await;
        };
        drop(stage.cluster.world().start(&host, work).await);
        Ok(())
    }
}

/// The end.
impl Run {
    /// All members serve and are of one mind, and every client is answered.
    async fn lively(&self, stage: &Stage) -> Result<(), Violation> {
        let healthy = stage.eye.now();
        self.evidence.record().healthy = Some(healthy);
        let settled = stage.cluster.settled(&stage.eye, SETTLE_LIMIT).await;
        settled.map_err(|text| Violation::new("liveness", "a healed cluster serves", text))?;
        let deadline = stage.eye.now() + ANSWER_LIMIT;
        loop {
            let silent = self.silent(stage, healthy);
            if silent.is_empty() {
                break;
            }
            if stage.eye.now() > deadline {
                let text = format!("clients {silent:?} get no answer any more");
                return Err(Violation::new("liveness", "clients are answered", text));
            }
            stage.eye.sleep(LOOK).await;
        }
        stage.eye.sleep(AFTERMATH).await;
        Ok(())
    }

    /// Clients at work that were answered before, and since then have only failed. Those of whose
    /// members, one or the first ones, none is left do so for good.
    fn silent(&self, stage: &Stage, since: std::time::Instant) -> Vec<usize> {
        let record = self.evidence.record();
        let answered = |number: usize, after: bool| {
            let of = record.operations.iter().rev().filter(|operation| operation.client == number);
            of.take_while(|operation| !after || operation.ended > since)
                .any(|operation| operation.answered())
        };
        let failed = |number: usize| {
            let last = record.operations.iter().rev().find(|operation| operation.client == number);
            last.is_some_and(|operation| operation.ended > since && !operation.answered())
        };
        let (world, voters) = (stage.cluster.world(), stage.cluster.voters());
        let at_work = self.plan.clients.iter().filter(|client| {
            let served = match &client.member {
                Some(member) if proxy_number(member).is_none() => voters.contains(member),
                // A proxy knows the first ones.
                Some(_) | None => {
                    (0..self.plan.shape.members).any(|n| voters.contains(&format!("m{n}")))
                }
            };
            served && world.is_running(&client.host())
        });
        let numbers = at_work.map(|client| client.number);
        let silent = numbers.filter(|number| {
            failed(*number) && answered(*number, false) && !answered(*number, true)
        });
        silent.collect()
    }

    /// The load ends, what it left behind runs out, and all members are of one mind once more.
    async fn wind_down(&self, stage: &Stage) -> Result<(), Violation> {
        let world = stage.cluster.world();
        let at_work =
            || self.plan.clients.iter().map(ClientPlan::host).find(|host| world.is_running(host));
        world.wait_until(STOP_LIMIT, || at_work().is_none()).await;
        if let Some(host) = at_work() {
            let text = format!("{host} does not come to an end");
            self.complain([Violation::new("liveness", "clients are answered", text)]);
        }
        stage.eye.sleep(WIND_DOWN).await;
        let settled = stage.cluster.settled(&stage.eye, SETTLE_LIMIT).await;
        settled.map_err(|text| Violation::new("liveness", "a healed cluster serves", text))?;
        self.evidence.record().ended = Some(stage.eye.now());
        closing::read(&self.eye(stage, "closing", Stop::default()), SETTLE_LIMIT).await?;
        self.evidence.record().whole = true;
        stage.stop_scribe.now();
        Ok(())
    }

    fn expect_none_ended(&self, stage: &Stage) {
        for (host, text) in stage.cluster.ended() {
            let text = format!("{host}: {text}");
            self.complain([Violation::new("ended", "no server ends by itself", text)]);
        }
    }

    /// Runs all checkers, on what lies on the disks first.
    async fn verify(&self, stage: &Stage) {
        let world = stage.cluster.world();
        self.complain(offline::check(world, &stage.cluster, &self.evidence).await);
        let mut names: Vec<_> = self.plan.clients.iter().map(|client| &client.workload).collect();
        names.sort_unstable();
        names.dedup();
        for workload in names.into_iter().filter_map(|name| workload::make(name)) {
            self.complain(workload.check(&self.evidence));
        }
        let record = self.evidence.record();
        record.operations.iter().filter(|it| it.unknown() && happened(it, &record.log)).for_each(
            |_| {
                marks::reach("unknown-outcome");
            },
        );
        self.complain(check::all(&record));
    }

    /// Closes every member in good order, with all states at one place if nothing happens meanwhile;
    /// what is left of it is checked by its files.
    async fn close(&self, stage: &Stage) {
        for host in stage.cluster.hosts() {
            stage.cluster.flush(&host).await;
        }
        for host in stage.cluster.hosts() {
            stage.cluster.stop(&host).await;
        }
    }
}

/// Whether a put has happened: no other call writes its value.
fn happened(operation: &Operation, log: &Log) -> bool {
    let Call::Put(put, _) = &operation.call else { return false };
    let mut values = log.values().flatten().filter_map(|event| event.kv.as_ref());
    values.any(|kv| kv.key == put.key && kv.value == put.value)
}

/// The environment of a host whose process does nothing by itself.
async fn doors(world: &World, host: &str) -> Env {
    let (give, take) = oneshot::channel();
    let process = world.start(host, |env| async move {
        // The run is there as long as this process is.
        let _ = give.send(env);
        std::future::pending::<()>().await;
    });
    drop(process.await);
    take.await.expect("the process has just begun")
}
