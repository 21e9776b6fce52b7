//! One simulated world: its hosts, what runs on them, and what is done to them. What the hosts'
//! sockets and disks do by themselves is in `net` and `disk`.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use madsim::rand::distributions::uniform::{SampleRange, SampleUniform};
use madsim::rand::{Rng, RngCore};
use madsim::runtime::{Handle, NodeHandle, Runtime};
use quorate::env::{Env, WorkPlaces};
use tokio::sync::oneshot;

use crate::dice::{self, Dice};
use crate::disk::SimDisk;
use crate::facts::story::{Change, Story, What};
use crate::net::socket::SimNet;
use crate::net::wire::{Pump, Wire};
use crate::off::Off;
use crate::rt::{Machine, SimRuntime, SimSleep, Tasks, host_at_work, sim_now};

/// Simulated time after which a run that has not ended is a failure.
const TIME_LIMIT: Duration = Duration::from_secs(3600);
/// Branches of one moment that differ in madsim's own numbers, too.
const BRANCHES: u64 = 4_096;
/// What the scenario and its futures may use; debug builds are generous with it.
const STACK_BYTES: usize = 16 << 20;

/// Runs `scenario` in a new world and returns what it returns. The same seed gives the same run.
/// Panics with the scenario's, or any task's, panic after naming the seed.
pub fn run<T, F>(seed: u64, scenario: impl FnOnce(World) -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    run_for(seed, TIME_LIMIT, scenario)
}

/// As [`run`], and the scenario fails when `limit` of simulated time has passed.
pub fn run_for<T, F>(
    seed: u64,
    limit: Duration,
    scenario: impl FnOnce(World) -> F + Send + 'static,
) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    match on_a_thread(seed, move || simulate(seed, limit, scenario)) {
        Ok(result) => result,
        Err(panic) => {
            eprintln!("seed {seed}: failed; the same seed repeats it");
            std::panic::resume_unwind(panic)
        }
    }
}

/// As [`run_for`], and a panic is an error with its text and place. It is not printed.
pub(crate) fn attempt<T, F>(
    seed: u64,
    limit: Duration,
    scenario: impl FnOnce(World) -> F + Send + 'static,
) -> Result<T, String>
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let ended = on_a_thread(seed, move || {
        crate::panics::keep();
        let ended = std::panic::catch_unwind(AssertUnwindSafe(|| simulate(seed, limit, scenario)));
        ended.map_err(|_| crate::panics::take())
    });
    ended.unwrap_or_else(|_| Err("a panic after a panic".to_owned()))
}

/// A fresh thread each time: madsim seeds a thread's hash maps only once.
fn on_a_thread<T: Send + 'static>(
    seed: u64,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::Result<T> {
    crate::entropy::install();
    let thread = std::thread::Builder::new().name(format!("seed-{seed}")).stack_size(STACK_BYTES);
    thread.spawn(work).expect("the system has a thread left").join()
}

fn simulate<T, F>(seed: u64, limit: Duration, scenario: impl FnOnce(World) -> F) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let off = Off::start();
    let mut runtime = Runtime::with_seed_and_config(seed, madsim::Config::default());
    runtime.set_time_limit(limit);
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async move {
            let world = World::new(seed, off);
            drop(madsim::task::spawn(Pump::new(Arc::clone(&world.0.wire))));
            let result = scenario(world.clone()).await;
            world.end().await;
            result
        })
    }));
    match result {
        Ok(result) => result,
        Err(panic) => {
            // Dropping half-done tasks outside the simulation would only hide the first panic.
            std::mem::forget(runtime);
            std::panic::resume_unwind(panic)
        }
    }
}

/// The world's handle, cheap to clone. Hosts are called by their names; an unknown name panics.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    seed: u64,
    start: Instant,
    handle: Handle,
    off: Off,
    wire: Arc<Wire>,
    hosts: Mutex<BTreeMap<String, Host>>,
    story: Mutex<Option<Story>>,
}

struct Host {
    ip: IpAddr,
    disk: SimDisk,
    machine: Arc<Machine>,
    engine: Option<rocksdb::Env>,
    process: Option<Running>,
    processes: u64,
    /// Descriptors of a process.
    descriptors: Option<usize>,
    /// Processes that were stopped and whose tasks may not all be dropped yet.
    stopped: Vec<Arc<Tasks>>,
    powered: bool,
}

struct Running {
    number: u64,
    node: NodeHandle,
    tasks: Arc<Tasks>,
    paused: bool,
}

/// A process that was started; dropping this lets it run.
pub struct Process<T>(oneshot::Receiver<T>);

impl<T> Process<T> {
    /// What the process returned; `None` when it was killed or lost its power.
    pub async fn join(self) -> Option<T> {
        self.0.await.ok()
    }
}

/// Hosts and what runs on them.
impl World {
    fn new(seed: u64, off: Off) -> Self {
        Self(Arc::new(Inner {
            seed,
            start: sim_now(),
            handle: Handle::current(),
            off,
            wire: Wire::new(seed),
            hosts: Mutex::new(BTreeMap::new()),
            story: Mutex::new(None),
        }))
    }

    /// A host with an empty disk, switched on, on which nothing runs. Its name resolves to the
    /// address returned.
    pub fn add_host(&self, name: &str) -> IpAddr {
        let mut hosts = self.hosts();
        let number = u8::try_from(hosts.len() + 1).expect("a world has at most 255 hosts");
        let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, number));
        let host = Host {
            ip,
            disk: SimDisk::new(self.dice(&format!("disk {name}"))),
            machine: Arc::new(Machine::new(number, self.0.off.clone(), self.dice(name))),
            engine: None,
            process: None,
            processes: 0,
            descriptors: None,
            stopped: Vec::new(),
            powered: true,
        };
        assert!(hosts.insert(name.to_owned(), host).is_none(), "host {name} exists");
        self.0.wire.with(|state| state.add_host(name, ip));
        ip
    }

    fn dice(&self, name: &str) -> Dice {
        Dice::of(self.0.seed, name)
    }

    /// Starts a process: `main` with the host's environment. Switches the host on if need be, and waits
    /// until the last task of the process before is dropped. When `main` returns, the process has
    /// exited: its other tasks are dropped and its sockets closed.
    pub async fn start<T, F>(&self, host: &str, main: impl FnOnce(Env) -> F) -> Process<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.stopped(host).await;
        self.power_on(host);
        let (env, number) = self.new_process(host);
        let (done, result) = oneshot::channel();
        let (world, name) = (Arc::downgrade(&self.0), host.to_owned());
        let main = main(env.clone());
        let main = async move {
            let _ = done.send(main.await);
            World::exited(&world, &name, number);
        };
        drop(env.rt.spawn("main", Box::pin(main)));
        self.note(host, Change::Started);
        Process(result)
    }

    fn new_process(&self, name: &str) -> (Env, u64) {
        let node = self.0.handle.create_node().name(name).build();
        let tasks = Arc::new(Tasks::default());
        self.with(name, |host| {
            assert!(host.process.is_none(), "a process runs on {name} already: stop it first");
            host.processes += 1;
            let number = host.processes;
            let rt = SimRuntime {
                work_places: WorkPlaces::default(),
                machine: Arc::clone(&host.machine),
                node: node.clone(),
                tasks: Arc::clone(&tasks),
            };
            let (wire, descriptors) = (Arc::clone(&self.0.wire), host.descriptors);
            let net = SimNet { wire, host: host.ip, descriptors };
            let disk = host.disk.open_process();
            host.process = Some(Running { number, node, tasks, paused: false });
            (Env { rt: Arc::new(rt), net: Arc::new(net), disk }, number)
        })
    }

    fn exited(world: &Weak<Inner>, name: &str, number: u64) {
        let Some(world) = world.upgrade().map(World) else { return };
        let running = world.with(name, |host| host.process.as_ref().map(|running| running.number));
        if running == Some(number) {
            world.end_process(name, Change::Ended);
        }
    }

    /// The process ends at once, as by SIGKILL: what it wrote to files stays, its kernel closes its
    /// sockets, its locks are free. Nothing happens when none runs.
    pub fn kill(&self, host: &str) {
        self.end_process(host, Change::Killed);
    }

    fn end_process(&self, host: &str, how: Change) {
        let ip = self.with(host, |host| self.stop(host).then_some(host.ip));
        if let Some(ip) = ip {
            self.0.wire.with(|state| state.crash(ip));
            self.note(host, how);
        }
    }

    /// The host loses its power: writes that were not synced are lost in part, without any notice.
    pub fn power_off(&self, host: &str) {
        let ip = self.with(host, |host| {
            self.stop(host);
            host.powered = false;
            host.disk.power_cut();
            host.ip
        });
        self.0.wire.with(|state| state.power_off(ip));
        self.note(host, Change::PowerLost);
    }

    /// The host's kernel runs again and answers RST to old connections; no process is started.
    pub fn power_on(&self, host: &str) {
        let off = self.with(host, |host| {
            let off = !host.powered;
            host.powered = true;
            off.then_some(host.ip)
        });
        if let Some(ip) = off {
            self.0.wire.with(|state| state.power_on(ip));
        }
    }

    /// Cuts the host's power during the `n`-th disk operation from now; 1 is the next.
    pub fn power_off_at_operation(&self, host: &str, n: u64) {
        let (world, name) = (Arc::downgrade(&self.0), host.to_owned());
        self.disk(host).arm(n, move || {
            if let Some(world) = world.upgrade().map(World) {
                world.power_off(&name);
            }
        });
    }

    /// The process stands still, as by SIGSTOP; its kernel goes on.
    pub fn pause(&self, host: &str) {
        if self.set_paused(host, true) {
            self.note(host, Change::Paused);
        }
    }

    pub fn resume(&self, host: &str) {
        if self.set_paused(host, false) {
            self.note(host, Change::Resumed);
        }
    }

    /// Whether a process runs and was not so before.
    fn set_paused(&self, host: &str, paused: bool) -> bool {
        self.with(host, |host| {
            let running = host.process.as_mut().filter(|running| running.paused != paused);
            let Some(running) = running else { return false };
            running.paused = paused;
            match paused {
                true => self.0.handle.pause(running.node.id()),
                false => self.0.handle.resume(running.node.id()),
            }
            true
        })
    }

    /// Whether a process runs on `host`, paused or not.
    pub fn is_running(&self, host: &str) -> bool {
        self.with(host, |host| host.process.is_some())
    }

    /// All hosts, by name.
    pub fn host_names(&self) -> Vec<String> {
        self.hosts().keys().cloned().collect()
    }

    /// How many processes were started on `host`.
    pub fn processes(&self, host: &str) -> u64 {
        self.with(host, |host| host.processes)
    }

    /// The host of this number, as `rt::host_at_work` returns it; none while hosts are being changed.
    pub(crate) fn host_name(&self, number: u8) -> Option<String> {
        let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, number));
        let hosts = self.0.hosts.try_lock().ok()?;
        hosts.iter().find(|(_, host)| host.ip == ip).map(|(name, _)| name.clone())
    }

    /// Ready when the last task of every process that was stopped on `host` is dropped.
    pub(crate) async fn stopped(&self, host: &str) {
        let gone = || {
            self.with(host, |host| {
                host.stopped.retain(|tasks| tasks.alive() > 0);
                host.stopped.is_empty()
            })
        };
        let gone = self.wait_until(Duration::from_secs(60), gone).await;
        assert!(gone, "a task of the process that was stopped on {host} is never dropped");
    }

    /// Whether a process was running.
    fn stop(&self, host: &mut Host) -> bool {
        let Some(running) = host.process.take() else { return false };
        if running.paused {
            self.0.handle.resume(running.node.id());
        }
        self.0.handle.kill(running.node.id());
        host.stopped.push(running.tasks);
        host.disk.close_process();
        true
    }

    /// Stops everything and waits until it is dropped, so that nothing of one world is left in the
    /// process when the next begins.
    async fn end(&self) {
        let names: Vec<_> = self.hosts().keys().cloned().collect();
        for name in &names {
            self.kill(name);
        }
        for name in &names {
            self.stopped(name).await;
        }
        self.0.wire.with(|state| state.end());
        self.hosts().clear();
        // Lets the pump see it.
        self.sleep(Duration::from_millis(1)).await;
    }
}

/// What a host has besides its process.
impl World {
    pub fn has_host(&self, host: &str) -> bool {
        self.hosts().contains_key(host)
    }

    pub fn ip(&self, host: &str) -> IpAddr {
        self.with(host, |host| host.ip)
    }

    pub fn disk(&self, host: &str) -> SimDisk {
        self.with(host, |host| host.disk.clone())
    }

    /// Where the host's RocksDB keeps its files, through all restarts. It loses nothing: what the
    /// engine has not flushed was never there, and its files are not what disk faults are aimed at.
    /// Open the engine by [`Env::blocking_outside`].
    pub fn mem_env(&self, host: &str) -> rocksdb::Env {
        let new = || {
            let made = self.0.off.run(rocksdb::Env::mem_env);
            made.unwrap_or_else(|error| panic!("RocksDB has no memory environment: {error}"))
        };
        self.with(host, |host| host.engine.get_or_insert_with(new).clone())
    }

    /// Runs `work` on a thread beside the simulation, in no simulated time.
    pub(crate) fn outside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        self.0.off.run(work)
    }

    /// A new, empty disk and engine. The host must not be running a process.
    pub fn replace_disk(&self, host: &str) {
        self.with(host, |host| {
            assert!(host.process.is_none(), "the process must be stopped first");
            host.disk.wipe();
            host.engine = None;
        });
    }

    /// How long one blocking job takes on this host. Times of seconds are a stalled disk.
    pub fn set_disk_latency(&self, host: &str, shortest: Duration, longest: Duration) {
        self.with(host, |host| host.machine.set_latency(shortest, longest));
    }

    /// How long one job of the host's log thread takes; `None`: as all blocking jobs do.
    pub fn set_log_latency(&self, host: &str, latency: Option<(Duration, Duration)>) {
        self.with(host, |host| host.machine.set_worker_latency(latency));
    }

    /// How many descriptors a process that is started on this host from now on may have.
    pub fn set_descriptors(&self, host: &str, descriptors: Option<usize>) {
        self.with(host, |host| host.descriptors = descriptors);
    }

    /// From now on the host's monotonic clock runs `rate_ppm` millionths too fast (negative: too
    /// slow), and its wall clock is `wall_ms` ahead of the others' (negative: behind).
    pub fn set_clock(&self, host: &str, rate_ppm: i64, wall_ms: i64) {
        self.with(host, |host| host.machine.set_clock(rate_ppm, wall_ms));
    }
}

/// The network between the hosts.
impl World {
    /// Neither reaches the other.
    pub fn partition(&self, a: &str, b: &str) {
        self.one_way(a, b);
        self.one_way(b, a);
    }

    /// `from` does not reach `to`; the other direction is as before.
    pub fn one_way(&self, from: &str, to: &str) {
        let (from, to) = (self.ip(from), self.ip(to));
        self.0.wire.with(|state| state.cut(from, to));
    }

    /// No host reaches `host`, and it reaches none.
    pub fn isolate(&self, host: &str) {
        let others: Vec<_> = self.hosts().keys().filter(|name| *name != host).cloned().collect();
        others.iter().for_each(|other| self.partition(host, other));
    }

    /// Both reach each other again; what waited arrives after a retransmission time.
    pub fn heal(&self, a: &str, b: &str) {
        let (a, b) = (self.ip(a), self.ip(b));
        self.0.wire.with(|state| {
            state.heal(a, b);
            state.heal(b, a);
        });
    }

    /// From now on exactly these ways are cut: from the first to the second of each pair.
    pub fn set_cuts(&self, cuts: &BTreeSet<(String, String)>) {
        let cuts: BTreeSet<_> =
            cuts.iter().map(|(from, to)| (self.ip(from), self.ip(to))).collect();
        self.0.wire.with(|state| state.set_cuts(cuts));
    }

    /// From now on exactly these pairs of names lead members to each other's addresses. Connections of hosts
    /// for which that changes end.
    pub fn set_swaps(&self, swaps: &BTreeSet<(String, String)>) {
        self.0.wire.with(|state| state.set_swaps(swaps.clone()));
    }

    /// Undoes every partition.
    pub fn heal_all(&self) {
        self.0.wire.with(|state| state.heal_all());
    }

    /// What packets from `from` to `to` take longer than the common latency.
    pub fn delay(&self, from: &str, to: &str, delay: Duration) {
        let (from, to) = (self.ip(from), self.ip(to));
        self.0.wire.with(|state| state.set_delay(from, to, delay));
    }

    /// From now on exactly these hosts' packets, in and out, take that much longer.
    pub fn set_delays(&self, delays: &BTreeMap<String, Duration>) {
        let delays = delays.iter().map(|(host, delay)| (self.ip(host), *delay)).collect();
        self.0.wire.with(|state| state.set_host_delays(delays));
    }

    /// All connections of `host` end with RST, on both sides.
    pub fn reset(&self, host: &str) {
        let ip = self.ip(host);
        self.0.wire.with(|state| state.reset(ip));
    }

    /// The range of the time that a packet takes between two hosts.
    pub fn set_latency(&self, shortest: Duration, longest: Duration) {
        self.0.wire.with(|state| state.set_latency(shortest, longest));
    }

    /// The share of packets that are lost once, and so arrive a retransmission time late.
    pub fn set_loss(&self, share: f64) {
        self.0.wire.with(|state| state.set_loss(share));
    }
}

/// Time, chance and evidence.
impl World {
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// Simulated time since the world began.
    pub fn elapsed(&self) -> Duration {
        sim_now() - self.0.start
    }

    pub async fn sleep(&self, duration: Duration) {
        SimSleep::until(sim_now() + duration).await;
    }

    /// Whether `condition` came true within `limit`; looked at every simulated millisecond.
    pub async fn wait_until(&self, limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
        let deadline = sim_now() + limit;
        loop {
            if condition() {
                return true;
            }
            if sim_now() >= deadline {
                return false;
            }
            self.sleep(Duration::from_millis(1)).await;
        }
    }

    /// At `at`, all random numbers become those of `seed`; never, without a branch. The task is there in
    /// either case, because tasks that are there change in which order others run.
    pub(crate) fn branch_at(&self, branch: Option<(Duration, u64)>) {
        let start = self.0.start;
        drop(madsim::task::spawn(async move {
            let Some((at, seed)) = branch else { return std::future::pending().await };
            SimSleep::until(start + at).await;
            dice::branch(seed);
            // madsim's own generator cannot be seeded anew; it can be at another place.
            for _ in 0..=seed % BRANCHES {
                madsim::rand::thread_rng().next_u64();
            }
        }));
    }

    /// Where and when something happens that is reported now, for [`crate::facts::marks`].
    pub(crate) fn here(&self) -> impl Fn() -> (Duration, Option<String>) + 'static {
        let (world, start) = (Arc::downgrade(&self.0), self.0.start);
        move || {
            let named = |number| world.upgrade().and_then(|world| Self(world).host_name(number));
            (sim_now() - start, host_at_work().and_then(named))
        }
    }

    /// A number from the seed, in `range`.
    pub fn random<T: SampleUniform>(&self, range: impl SampleRange<T>) -> T {
        madsim::rand::thread_rng().gen_range(range)
    }

    /// True with probability `share`.
    pub fn chance(&self, share: f64) -> bool {
        madsim::rand::thread_rng().gen_bool(share)
    }

    /// From now on, what happens to hosts goes to the story.
    pub fn set_story(&self, story: Story) {
        *self.0.story.lock().unwrap_or_else(PoisonError::into_inner) = Some(story);
    }

    fn note(&self, host: &str, change: Change) {
        let story = self.0.story.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(story) = &*story {
            story.note(self.elapsed(), What::Host { host: host.to_owned(), change });
        }
    }

    /// Adds what a scenario saw to the digest.
    pub fn record(&self, evidence: &[u8]) {
        const RECORD: u64 = u64::MAX;
        self.0.wire.with(|state| state.digest.add(sim_now(), RECORD, evidence));
    }

    /// Every packet that arrived and everything recorded, each with its simulated time. Two runs
    /// with equal digests were the same run.
    pub fn digest(&self) -> u64 {
        self.0.wire.with(|state| state.digest.value())
    }

    /// How many packets and records the digest stands for.
    pub fn events(&self) -> u64 {
        self.0.wire.with(|state| state.digest.events())
    }

    fn hosts(&self) -> MutexGuard<'_, BTreeMap<String, Host>> {
        self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, name: &str, act: impl FnOnce(&mut Host) -> T) -> T {
        let mut hosts = self.hosts();
        act(hosts.get_mut(name).unwrap_or_else(|| panic!("no host is called {name}")))
    }
}
