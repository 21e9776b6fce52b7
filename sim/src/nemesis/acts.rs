//! Carries a plan's steps out on a cluster, each in its own time, and heals it in the end.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use quorate::env::Env;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{CompactionRequest, DefragmentRequest, MoveLeaderRequest};

use super::fault::{Fault, Step, Target};
use super::force::Force;
use super::pending::Changes;
use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::disk::DiskFaults;
use crate::facts::evidence::Evidence;
use crate::facts::marks;
use crate::facts::story::{Story, What};
use crate::offline;
use crate::plan::{Plan, Weather};
use crate::workload::{Client, Stop, Surroundings};

/// How long the nemesis waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Its number as a client, above those of all others.
const NUMBER: usize = 901;
/// Bytes that still fit on a full disk: the next record or two.
const LAST_BYTES: u64 = 300;
/// What a started member gets before the next one is restarted.
const RESTART_LIMIT: Duration = Duration::from_secs(10);

pub struct Nemesis {
    pub(super) cluster: Cluster,
    /// Doors of the host from which it speaks to members.
    pub(super) env: Env,
    weather: Weather,
    /// Whether a quorum must always be left sound.
    pub(super) survivable: bool,
    pub(super) evidence: Evidence,
    story: Story,
    /// What each step that lasts holds.
    forces: RefCell<BTreeMap<usize, Force>>,
    in_force: RefCell<Force>,
    pub(super) changes: Changes,
}

impl Nemesis {
    pub fn new(cluster: Cluster, env: Env, plan: &Plan, evidence: Evidence, story: Story) -> Self {
        let (weather, survivable) = (plan.weather.clone(), plan.survivable);
        let (forces, in_force) = Default::default();
        let changes = Changes::default();
        let nemesis =
            Self { cluster, env, weather, survivable, evidence, story, forces, in_force, changes };
        nemesis.apply(&Force::default());
        nemesis
    }

    /// Everything in its time, until `lasts` is over.
    pub async fn run(&self, steps: &[Step], lasts: Duration) {
        let steps = steps.iter().enumerate().map(|(number, step)| self.step(number, step));
        let all = async {
            join_all(steps).await;
            std::future::pending::<()>().await;
        };
        // An elapsed time is how it ends: `all` never does.
        let _ = self.env.timeout(lasts, all).await;
    }

    /// Undoes everything, starts all that does not run, and waits for the changes of the membership that
    /// are under way. The error names those that do not come to an end.
    pub async fn heal(&self) -> Result<(), String> {
        let begun: Vec<_> = self.forces.borrow().keys().copied().collect();
        for number in begun {
            self.release(number);
            self.note(What::FaultEnded { step: number });
        }
        self.cluster.finish_stops().await;
        self.revive().await;
        self.finish_changes().await
    }

    async fn step(&self, number: usize, step: &Step) {
        self.env.sleep(step.at).await;
        let there = match &step.upon {
            None => None,
            Some(mark) => marks::next(mark).await,
        };
        if step.fault.is_there() && there.is_none() {
            return;
        }
        marks::reach(&format!("step {}", step.fault.name()));
        let hosts = self.hosts_of(&step.fault, there).await;
        let named = hosts.iter().flatten().cloned().collect::<BTreeSet<_>>();
        let (label, named) = (step.to_string(), named.into_iter().collect());
        self.note(What::FaultBegan { step: number, label, hosts: named });
        // In force from now on, if only to be found and ended by the heal.
        self.hold(number, Force::default());
        self.begin(number, step, &hosts).await;
        match step.lasts {
            Some(lasts) if !matches!(step.fault, Fault::Flaky(..)) => self.env.sleep(lasts).await,
            Some(_) => {}
            None if step.fault.is_over_at_once() => {}
            None => std::future::pending().await,
        }
        self.release(number);
        self.note(What::FaultEnded { step: number });
        self.revive().await;
    }

    async fn begin(&self, number: usize, step: &Step, groups: &[Vec<String>]) {
        let hosts = groups.first().map_or(&[][..], Vec::as_slice);
        let each = |force: &mut dyn FnMut(&mut Force, &String)| {
            let mut sum = Force::default();
            hosts.iter().for_each(|host| force(&mut sum, host));
            self.hold(number, sum);
        };
        match &step.fault {
            Fault::Partition(_) => self.hold(number, Force::partition(groups)),
            Fault::OneWay(..) => self.hold(number, one_way(groups)),
            Fault::Flaky(_, every) => self.flaky(number, step.lasts, groups, *every).await,
            Fault::Delay(_, by) => each(&mut |force, host| {
                force.delays.insert(host.clone(), *by);
            }),
            Fault::Loss(share) => self.hold(number, Force { loss: *share, ..Force::default() }),
            Fault::Reset(_) => hosts.iter().for_each(|host| self.cluster.world().reset(host)),
            Fault::Kill(_) => {
                each(&mut |force, host| {
                    force.down.insert(host.clone());
                });
                hosts.iter().for_each(|host| self.cluster.world().kill(host));
            }
            Fault::Power(_, operation) => {
                each(&mut |force, host| {
                    force.down.insert(host.clone());
                });
                hosts.iter().for_each(|host| self.cut_power(host, *operation));
            }
            Fault::Pause(_) => each(&mut |force, host| {
                force.paused.insert(host.clone());
            }),
            Fault::Jump(_, ms) => each(&mut |force, host| {
                force.clocks.insert(host.clone(), (0, *ms));
            }),
            Fault::Drift(_, ppm) => each(&mut |force, host| {
                force.clocks.insert(host.clone(), (*ppm, 0));
            }),
            Fault::SlowDisk(_, by) => each(&mut |force, host| {
                force.slow_disks.insert(host.clone(), *by);
            }),
            Fault::StallLog(_, by) => each(&mut |force, host| {
                force.stalled_logs.insert(host.clone(), *by);
            }),
            Fault::FailSync(_) => each(&mut |force, host| {
                self.cluster.excuse(host);
                force.failing_syncs.insert(host.clone());
            }),
            Fault::FullDisk(_) => each(&mut |force, host| {
                self.cluster.excuse(host);
                force.full_disks.insert(host.clone());
            }),
            Fault::Rot(_, place) => {
                for host in hosts {
                    self.rot(number, host, *place).await;
                }
            }
            Fault::MoveLeader(_) => self.move_leader(hosts).await,
            Fault::Compact => self.compact().await,
            Fault::Defrag(_) => self.defrag(hosts).await,
            Fault::Restart(pause) => self.restart(*pause).await,
            Fault::RotateCerts(_) => {
                let certificates = self.cluster.certificates().into_iter();
                certificates.for_each(|all| hosts.iter().for_each(|host| all.rotate(host)));
            }
            Fault::Forget(_, flag) => self.start_oddly(number, hosts, *flag).await,
            Fault::Migrate(_, back) => self.migrate(hosts, *back).await,
            Fault::Backup(_) => self.backup(number, hosts).await,
            Fault::Swap(..) => {
                if let [one, other] = groups
                    && let ([one], [other]) = (&one[..], &other[..])
                    && one != other
                {
                    let swaps = [(one.clone(), other.clone())].into();
                    self.hold(number, Force { swaps, ..Force::default() });
                }
            }
            Fault::Update(_) => self.update(hosts).await,
            Fault::AskPromotions => self.ask_promotions().await,
            Fault::Add(..) | Fault::Promote(_) | Fault::Remove(_) | Fault::Replace(..) => {
                self.change(&step.fault).await;
            }
        }
    }
}

/// What is in force.
impl Nemesis {
    pub(super) fn hold(&self, number: usize, force: Force) {
        self.forces.borrow_mut().insert(number, force);
        self.reconsider();
    }

    fn release(&self, number: usize) {
        if let Some(force) = self.forces.borrow_mut().remove(&number) {
            // A power cut that has not come by now does not come.
            force.down.iter().for_each(|host| self.cluster.world().disk(host).disarm());
        }
        self.reconsider();
    }

    fn reconsider(&self) {
        let sum = Force::sum(self.forces.borrow().values());
        if *self.in_force.borrow() != sum {
            self.apply(&sum);
            *self.in_force.borrow_mut() = sum;
        }
    }

    fn apply(&self, force: &Force) {
        let world = self.cluster.world();
        let before = self.in_force.borrow();
        world.set_cuts(&force.cuts);
        world.set_swaps(&force.swaps);
        world.set_delays(&force.delays);
        world.set_loss((self.weather.loss + force.loss).min(0.9));
        force.paused.difference(&before.paused).for_each(|host| world.pause(host));
        before.paused.difference(&force.paused).for_each(|host| world.resume(host));
        for host in self.cluster.hosts() {
            let mut clock = force.clocks.get(&host).copied().unwrap_or_default();
            if let Some(own) = self.weather.clocks.iter().find(|clock| clock.host == host) {
                clock = (clock.0 + own.drift_ppm, clock.1 + own.ahead_ms);
            }
            world.set_clock(&host, clock.0, clock.1);
            let disk = force.slow_disks.get(&host).copied().unwrap_or(self.weather.disk);
            world.set_disk_latency(&host, disk.0, disk.1);
            world.set_log_latency(&host, force.stalled_logs.get(&host).copied());
            let sync = if force.failing_syncs.contains(&host) { 1.0 } else { 0.0 };
            let disk = world.disk(&host);
            disk.set_faults(DiskFaults { sync, ..DiskFaults::default() });
            if force.full_disks.contains(&host) && !before.full_disks.contains(&host) {
                disk.set_capacity(disk.used_bytes() + LAST_BYTES);
            } else if !force.full_disks.contains(&host) {
                disk.set_capacity(u64::MAX >> 1);
            }
        }
    }

    /// Starts what does not run and is not held down.
    async fn revive(&self) {
        for host in self.cluster.names() {
            let broken = |force: &Force| {
                let Force { down, failing_syncs, full_disks, .. } = force;
                down.contains(&host) || failing_syncs.contains(&host) || full_disks.contains(&host)
            };
            let down = broken(&self.in_force.borrow());
            let world = self.cluster.world();
            if !down && self.cluster.was_started_oddly(&host) {
                world.kill(&host);
            }
            if down || world.is_running(&host) {
                continue;
            }
            if !self.changes.is_lost(&host) {
                self.cluster.expect_sound(&host);
            }
            offline::after_crash(world, &host, &self.evidence).await;
            // Another step that ended meanwhile may have started it.
            if !world.is_running(&host) {
                self.cluster.start(&host).await;
            }
        }
        for host in self.cluster.proxies() {
            if !self.in_force.borrow().down.contains(&host) {
                self.cluster.start_proxy(&host).await;
            }
        }
    }

    fn note(&self, what: What) {
        self.story.note(self.cluster.world().elapsed(), what);
    }
}

/// What takes more than being in force.
impl Nemesis {
    async fn flaky(
        &self,
        number: usize,
        lasts: Option<Duration>,
        groups: &[Vec<String>],
        every: Duration,
    ) {
        let until = lasts.map(|lasts| self.env.now() + lasts);
        let mut dice = Dice::of(self.cluster.world().seed(), &format!("flaky {number}"));
        let mut cut = true;
        while until.is_none_or(|until| self.env.now() < until) {
            let force = if cut { Force::partition(groups) } else { Force::default() };
            self.hold(number, force);
            cut = !cut;
            self.env.sleep(dice.time((every / 4, every * 2))).await;
        }
    }

    fn cut_power(&self, host: &str, operation: Option<u64>) {
        let world = self.cluster.world();
        match operation {
            Some(n) if world.is_running(host) => world.power_off_at_operation(host, n),
            _ => world.power_off(host),
        }
    }

    async fn move_leader(&self, hosts: &[String]) {
        let Some(leader) = self.cluster.leader(&self.env).await else { return };
        let Some(target) = hosts.first() else { return };
        let Some(status) = self.cluster.status(&self.env, target).await else { return };
        let target_id = status.header.map_or(0, |header| header.member_id);
        let channel = self.cluster.channel(&self.env, Some(&leader));
        let mut client = MaintenanceClient::new(channel);
        let call = client.move_leader(MoveLeaderRequest { target_id });
        // It may be refused or fail: the leader may have changed meanwhile.
        let _ = self.env.timeout(PATIENCE, call).await;
    }

    async fn compact(&self) {
        let revision = self.evidence.record().compactable();
        if revision <= 1 {
            return;
        }
        let surroundings = Surroundings {
            env: self.env.clone(),
            channel: self.cluster.channel(&self.env, None),
            cluster: self.cluster.clone(),
            evidence: self.evidence.clone(),
            story: self.story.clone(),
            stop: Stop::default(),
        };
        let client = Client::new(NUMBER, "nemesis", Dice::new(0), surroundings);
        // Another compaction may have gone further already.
        let _ = client.compact(CompactionRequest { revision, physical: false }).await;
    }

    async fn defrag(&self, hosts: &[String]) {
        for host in hosts {
            let channel = self.cluster.channel(&self.env, Some(host));
            let mut client = MaintenanceClient::new(channel);
            let _ = self.env.timeout(PATIENCE, client.defragment(DefragmentRequest {})).await;
        }
    }

    async fn restart(&self, pause: Duration) {
        for host in self.cluster.names() {
            if !self.cluster.world().is_running(&host) {
                continue;
            }
            self.restart_one(&host).await;
            self.env.sleep(pause).await;
        }
    }

    /// Stops a member in good order, and starts it again.
    async fn restart_one(&self, host: &str) {
        self.cluster.stop(host).await;
        self.revive().await;
        let limit = self.env.now() + RESTART_LIMIT;
        while self.cluster.status(&self.env, host).await.is_none() && self.env.now() < limit {
            self.env.sleep(Duration::from_millis(200)).await;
        }
    }

    async fn migrate(&self, hosts: &[String], back: bool) {
        for host in hosts {
            self.cluster.migrate(host, back);
            self.restart_one(host).await;
        }
    }
}

fn one_way(groups: &[Vec<String>]) -> Force {
    let mut force = Force::default();
    if let [from, to, ..] = groups {
        for from in from {
            force.cuts.extend(to.iter().map(|to| (from.clone(), to.clone())));
        }
    }
    force
}

/// Which hosts roles stand for, as a step begins.
#[derive(Clone, Copy)]
struct Places<'a> {
    leader: &'a str,
    /// Where its mark was reached.
    there: Option<&'a str>,
}

/// The hosts that a step is for.
impl Nemesis {
    async fn hosts_of(&self, fault: &Fault, there: Option<String>) -> Vec<Vec<String>> {
        let groups: Vec<&[Target]> = match fault {
            Fault::Partition(groups) | Fault::Flaky(groups, _) => {
                groups.iter().map(Vec::as_slice).collect()
            }
            Fault::OneWay(from, to) => vec![from, to],
            Fault::Delay(hosts, _)
            | Fault::Reset(hosts)
            | Fault::Kill(hosts)
            | Fault::Power(hosts, _)
            | Fault::Pause(hosts)
            | Fault::Jump(hosts, _)
            | Fault::Drift(hosts, _)
            | Fault::SlowDisk(hosts, _)
            | Fault::StallLog(hosts, _)
            | Fault::FailSync(hosts)
            | Fault::FullDisk(hosts)
            | Fault::Defrag(hosts)
            | Fault::Forget(hosts, _)
            | Fault::Migrate(hosts, _)
            | Fault::RotateCerts(hosts) => vec![hosts],
            Fault::Rot(host, _)
            | Fault::MoveLeader(host)
            | Fault::Update(host)
            | Fault::Backup(host) => vec![std::slice::from_ref(host)],
            Fault::Swap(one, other) => vec![std::slice::from_ref(one), std::slice::from_ref(other)],
            Fault::Loss(_) | Fault::Compact | Fault::AskPromotions | Fault::Restart(_) => {
                Vec::new()
            }
            Fault::Add(host, _) | Fault::Promote(host) | Fault::Remove(host) => {
                return vec![vec![host.clone()]];
            }
            Fault::Replace(old, fresh) => return vec![vec![old.clone(), fresh.clone()]],
        };
        let leader = match groups.iter().any(|group| group.iter().any(needs_leader)) {
            true => self.cluster.leader(&self.env).await,
            false => None,
        };
        let leader = leader.as_deref().unwrap_or("m0");
        self.resolve(&groups, Places { leader, there: there.as_deref() })
    }

    fn resolve(&self, groups: &[&[Target]], places: Places<'_>) -> Vec<Vec<String>> {
        let members = self.cluster.names();
        let named: Vec<String> = groups
            .iter()
            .flat_map(|group| group.iter())
            .filter_map(|target| self.one(target, places))
            .collect();
        let hosts = |target: &Target| match target {
            Target::All => members.clone(),
            Target::Others => {
                members.iter().filter(|host| !named.contains(host)).cloned().collect()
            }
            one => self.one(one, places).into_iter().collect(),
        };
        let known = |host: &String| self.cluster.world().has_host(host);
        let resolved = groups.iter().map(|group| group.iter().flat_map(hosts).filter(known));
        resolved.map(Iterator::collect).collect()
    }

    fn one(&self, target: &Target, Places { leader, there }: Places<'_>) -> Option<String> {
        match target {
            Target::Host(name) => Some(name.clone()),
            Target::There => there.map(str::to_owned),
            Target::Leader => Some(leader.to_owned()),
            Target::Follower => {
                let running = |host: &String| self.cluster.world().is_running(host);
                self.cluster.names().into_iter().find(|host| host != leader && running(host))
            }
            Target::Others | Target::All => None,
        }
    }
}

fn needs_leader(target: &Target) -> bool {
    matches!(target, Target::Leader | Target::Follower)
}
