//! Tasks, time, blocking work and randomness of one process on one simulated host. Sockets and files
//! are elsewhere; hosts and their processes are started and stopped by `world`.
//!
//! Blocking work takes a random time first and then runs inline, in one step of the simulation. So a
//! process killed during that time never did the work, and nothing can be half done except through
//! the disk's own power cut.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use madsim::rand::RngCore;
use madsim::runtime::NodeHandle;
use quorate::env::{Abort, BoxFuture, Job, Runtime, WorkPlaces, Worker};
use quorate::limits;
use tokio::sync::{mpsc, oneshot};

use crate::dice::Dice;
use crate::off::Off;

/// The simulation's own clock, which the hosts' clocks follow at their rates.
#[allow(clippy::disallowed_methods, reason = "inside a simulation, madsim answers")]
pub(crate) fn sim_now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "inside a simulation, madsim answers")]
fn sim_wall() -> SystemTime {
    SystemTime::now()
}

thread_local! {
    /// The number of the host whose task is being polled; 0 is none.
    static POLLED: Cell<u8> = const { Cell::new(0) };
}

/// The number of the host that is at work now, if any is.
pub(crate) fn host_at_work() -> Option<u8> {
    Some(POLLED.get()).filter(|host| *host > 0)
}

/// What a host keeps through restarts of its process: its clock, the speed of its storage.
pub(crate) struct Machine {
    /// The host's number in its world, from 1 on.
    number: u8,
    clock: Mutex<Clock>,
    /// Shortest and longest time of one blocking job.
    latency: Mutex<(Duration, Duration)>,
    /// The same of a worker's jobs, where they differ.
    worker_latency: Mutex<Option<(Duration, Duration)>>,
    /// What processes of this host draw, and its latencies.
    dice: Mutex<Dice>,
    off: Off,
}

impl Machine {
    pub(crate) fn new(number: u8, off: Off, dice: Dice) -> Self {
        let now = sim_now();
        let latency = (Duration::from_micros(30), Duration::from_millis(2));
        Self {
            number,
            clock: Mutex::new(Clock { sim: now, local: now, rate_ppm: 0, wall_ms: 0 }),
            latency: Mutex::new(latency),
            worker_latency: Mutex::new(None),
            dice: Mutex::new(dice),
            off,
        }
    }

    pub(crate) fn set_latency(&self, shortest: Duration, longest: Duration) {
        assert!(shortest <= longest, "a range of times");
        *self.latency.lock().unwrap_or_else(PoisonError::into_inner) = (shortest, longest);
    }

    pub(crate) fn set_worker_latency(&self, latency: Option<(Duration, Duration)>) {
        *self.worker_latency.lock().unwrap_or_else(PoisonError::into_inner) = latency;
    }

    /// From now on the monotonic clock runs `rate_ppm` millionths too fast, and the wall clock is
    /// `wall_ms` ahead. The monotonic clock never jumps.
    pub(crate) fn set_clock(&self, rate_ppm: i64, wall_ms: i64) {
        assert!(rate_ppm > -1_000_000, "a clock does not stand still or run backwards");
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let sim = sim_now();
        *clock = Clock { sim, local: clock.local_at(sim), rate_ppm, wall_ms };
    }

    fn dice(&self) -> MutexGuard<'_, Dice> {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clock(&self) -> Clock {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        self.clock().local_at(sim_now())
    }

    /// The time one blocking job takes: short ones are far more frequent than long ones.
    async fn work(&self, job: impl FnOnce()) {
        let latency = *self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        self.take(latency, job).await;
    }

    /// The same for one job of a worker.
    async fn work_through(&self, job: impl FnOnce()) {
        let worker = *self.worker_latency.lock().unwrap_or_else(PoisonError::into_inner);
        match worker {
            Some(latency) => self.take(latency, job).await,
            None => self.work(job).await,
        }
    }

    /// The job is done when the time begins or when it is over: what was read may be old when it is returned,
    /// and what was written may be there without an acknowledgement.
    async fn take(&self, (shortest, longest): (Duration, Duration), job: impl FnOnce()) {
        let (share, early) = {
            let mut dice = self.dice();
            (dice.share().powi(4), dice.chance(50))
        };
        let over = SimSleep::until(sim_now() + shortest + (longest - shortest).mul_f64(share));
        if early {
            job();
            over.await;
        } else {
            over.await;
            job();
        }
    }
}

/// A clock that runs at its own rate since the last time it was set.
#[derive(Clone, Copy)]
struct Clock {
    sim: Instant,
    local: Instant,
    rate_ppm: i64,
    wall_ms: i64,
}

const MILLION: u128 = 1_000_000;

impl Clock {
    fn rate(&self) -> u128 {
        (MILLION as i64 + self.rate_ppm) as u128
    }

    fn local_at(&self, sim: Instant) -> Instant {
        let nanos = (sim - self.sim).as_nanos() * self.rate() / MILLION;
        self.local + Duration::from_nanos(nanos as u64)
    }

    /// The first simulated instant at which this clock shows `local` or later.
    fn sim_at(&self, local: Instant) -> Instant {
        let nanos = local.saturating_duration_since(self.local).as_nanos() * MILLION;
        self.sim + Duration::from_nanos(nanos.div_ceil(self.rate()) as u64)
    }
}

/// Counts a process's tasks, so that a restart can wait until the last one is dropped.
#[derive(Default)]
pub(crate) struct Tasks {
    alive: AtomicUsize,
    spawned: AtomicUsize,
}

impl Tasks {
    pub(crate) fn alive(&self) -> usize {
        self.alive.load(Ordering::Relaxed)
    }

    fn count(&self) {
        self.alive.fetch_add(1, Ordering::Relaxed);
        // madsim keeps a note of every task until their number is read, which drops the notes
        // of those that have ended.
        if self.spawned.fetch_add(1, Ordering::Relaxed) % 4096 == 4095 {
            madsim::runtime::Handle::current().metrics().num_tasks();
        }
    }
}

/// The [`Runtime`] of one process.
pub(crate) struct SimRuntime {
    pub(crate) machine: Arc<Machine>,
    pub(crate) node: NodeHandle,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) work_places: WorkPlaces,
}

impl SimRuntime {
    /// Runs `job` after the time it takes; `outside` the simulation's clock if so set.
    fn block(&self, name: &'static str, job: Job, outside: bool) -> BoxFuture<'static, ()> {
        let (done, ended) = oneshot::channel();
        let machine = Arc::clone(&self.machine);
        let task = async move {
            let run = || if outside { machine.off.run(job) } else { job() };
            machine.work(run).await;
            let _ = done.send(());
        };
        drop(self.spawn(name, Box::pin(task)));
        Box::pin(wait_for(ended))
    }
}

/// A job of a killed process never ends; its waiters are about to be dropped too.
async fn wait_for(ended: oneshot::Receiver<()>) {
    if ended.await.is_err() {
        std::future::pending().await
    }
}

impl Runtime for SimRuntime {
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) -> Box<dyn Abort> {
        self.tasks.count();
        let ended = Arc::new(AtomicBool::new(false));
        let alive = Alive { tasks: Arc::clone(&self.tasks), ended: Arc::clone(&ended) };
        let abort = self.node.spawn(Tracked { host: self.machine.number, task, _alive: alive });
        let abort = abort.abort_handle();
        Box::new(Task { abort, ended })
    }

    fn spawn_blocking(&self, name: &'static str, job: Job) -> BoxFuture<'static, ()> {
        self.block(name, job, false)
    }

    fn work_places(&self) -> &WorkPlaces {
        &self.work_places
    }

    fn spawn_outside(&self, name: &'static str, job: Job) -> BoxFuture<'static, ()> {
        self.block(name, job, true)
    }

    fn worker(&self, name: &'static str) -> Arc<dyn Worker> {
        let (queue, mut jobs) = mpsc::channel::<Queued>(limits::WORKER_QUEUE);
        let machine = Arc::clone(&self.machine);
        let work_off = async move {
            while let Some(Queued { job, done }) = jobs.recv().await {
                machine.work_through(job).await;
                let _ = done.send(());
            }
        };
        drop(self.spawn(name, Box::pin(work_off)));
        Arc::new(SimWorker { queue })
    }

    fn now(&self) -> Instant {
        self.machine.now()
    }

    fn wall(&self) -> SystemTime {
        let ahead = self.machine.clock().wall_ms;
        let distance = Duration::from_millis(ahead.unsigned_abs());
        if ahead >= 0 { sim_wall() + distance } else { sim_wall() - distance }
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        let sleep = SimSleep::until(self.machine.clock().sim_at(at));
        Box::pin(LocalSleep { machine: Arc::clone(&self.machine), at, sleep })
    }

    fn fill_random(&self, buf: &mut [u8]) {
        self.machine.dice().fill_bytes(buf);
    }
}

struct Queued {
    job: Job,
    done: oneshot::Sender<()>,
}

struct SimWorker {
    queue: mpsc::Sender<Queued>,
}

impl Worker for SimWorker {
    fn run(&self, job: Job) -> BoxFuture<'static, ()> {
        let (done, ended) = oneshot::channel();
        match self.queue.try_send(Queued { job, done }) {
            Err(mpsc::error::TrySendError::Full(_)) => {
                panic!("{} jobs wait: a real caller would block its thread", limits::WORKER_QUEUE)
            }
            // Closed: the process has been killed, and its worker with it.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Box::pin(wait_for(ended)),
        }
    }
}

struct Task {
    abort: madsim::task::AbortHandle,
    ended: Arc<AtomicBool>,
}

impl Abort for Task {
    fn abort(&self) {
        self.abort.abort();
    }

    fn is_finished(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// A task and its count. The fields drop in this order: the count goes last.
struct Tracked {
    host: u8,
    task: BoxFuture<'static, ()>,
    _alive: Alive,
}

impl Future for Tracked {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let before = POLLED.replace(self.host);
        let polled = self.task.as_mut().poll(cx);
        POLLED.set(before);
        polled
    }
}

struct Alive {
    tasks: Arc<Tasks>,
    ended: Arc<AtomicBool>,
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        self.tasks.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A sleep by the host's clock. Ready again when polled again, as tokio's is.
struct LocalSleep {
    machine: Arc<Machine>,
    at: Instant,
    sleep: SimSleep,
}

impl Future for LocalSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // The clock may have been slowed down meanwhile: then it is not yet time.
        while self.machine.now() < self.at {
            if Pin::new(&mut self.sleep).poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.machine.now() < self.at {
                self.sleep = SimSleep::until(self.machine.clock().sim_at(self.at));
            }
        }
        Poll::Ready(())
    }
}

/// A sleep of the simulation's own clock, precise below a millisecond (madsim rounds up unless the
/// deadline is reset) and registered once per waker (madsim registers at every poll and cannot
/// take back).
pub(crate) struct SimSleep {
    inner: Pin<Box<madsim::time::Sleep>>,
    registered: Option<Waker>,
}

impl SimSleep {
    pub(crate) fn until(at: Instant) -> Self {
        let mut inner = Box::pin(madsim::time::sleep_until(at));
        inner.as_mut().reset(at);
        Self { inner, registered: None }
    }
}

impl Future for SimSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.inner.is_elapsed() {
            return Poll::Ready(());
        }
        if self.registered.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        self.registered = Some(cx.waker().clone());
        self.inner.as_mut().poll(cx)
    }
}
