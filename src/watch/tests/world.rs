//! Tasks and time that only move when a test moves them. Which ready task runs next is drawn from the
//! seed, and blocking work takes a random number of turns.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant, SystemTime};

use crate::env::{self, Abort, BoxFuture, Env, Job, Runtime, WorkPlaces, Worker};

pub struct World {
    rt: Arc<Seeded>,
    env: Env,
}

impl World {
    pub fn new(seed: u64) -> Self {
        // Sockets, files and the clock's zero are a real machine's; nothing here uses them.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime without I/O");
        let _inside = runtime.enter();
        let real = env::tokio::env();
        let state = Mutex::new(State { random: seed, ..State::default() });
        let rt = Arc::new(Seeded { zero: real.now(), state, work_places: WorkPlaces::default() });
        Self { env: Env { rt: rt.clone(), ..real }, rt }
    }

    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Polls ready tasks, `turns` times at most; whether any is still ready.
    pub fn turn(&self, turns: usize) -> bool {
        for _ in 0..turns {
            let Some((id, mut task)) = self.rt.pick() else { return false };
            let waker = Waker::from(Arc::new(Awake { id, rt: self.rt.clone() }));
            if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                self.rt.lock().tasks.insert(id, task);
            }
        }
        !self.rt.lock().ready.is_empty()
    }

    /// Runs until every task waits for something that only the test can bring.
    pub fn settle(&self) {
        assert!(!self.turn(1_000_000), "tasks keep each other busy for ever");
    }

    /// The most blocking jobs that were under way at one time.
    pub fn jobs_max(&self) -> usize {
        self.rt.lock().jobs_max
    }

    /// Lets time pass.
    pub fn advance(&self, duration: Duration) {
        let mut state = self.rt.lock();
        state.now += duration;
        let now = state.now;
        let later = state.timers.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut state.timers, later);
        drop(state);
        due.into_values().for_each(Waker::wake);
    }
}

type Task = BoxFuture<'static, ()>;

#[derive(Default)]
struct State {
    tasks: BTreeMap<u64, Task>,
    ready: Vec<u64>,
    timers: BTreeMap<(Duration, u64), Waker>,
    now: Duration,
    next: u64,
    random: u64,
    /// Blocking ones under way; clones share it.
    jobs: Arc<AtomicUsize>,
    jobs_max: usize,
}

impl State {
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 29)
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

struct Seeded {
    zero: Instant,
    state: Mutex<State>,
    work_places: WorkPlaces,
}

impl Seeded {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test goes on after a panic")
    }

    /// A ready task, taken out while it runs.
    fn pick(&self) -> Option<(u64, Task)> {
        let mut state = self.lock();
        while !state.ready.is_empty() {
            let position = state.random() as usize % state.ready.len();
            let id = state.ready.swap_remove(position);
            if let Some(task) = state.tasks.remove(&id) {
                return Some((id, task));
            }
        }
        None
    }
}

struct Awake {
    id: u64,
    rt: Arc<Seeded>,
}

impl Wake for Awake {
    fn wake(self: Arc<Self>) {
        let mut state = self.rt.lock();
        if !state.ready.contains(&self.id) {
            state.ready.push(self.id);
        }
    }
}

impl Runtime for Seeded {
    fn spawn(&self, _name: &'static str, task: Task) -> Box<dyn Abort> {
        let mut state = self.lock();
        let id = state.id();
        state.tasks.insert(id, task);
        state.ready.push(id);
        Box::new(Detached)
    }

    fn spawn_blocking(&self, name: &'static str, job: Job) -> BoxFuture<'static, ()> {
        let mut state = self.lock();
        let turns = state.random() % 4;
        let jobs = state.jobs.clone();
        let running = jobs.fetch_add(1, Relaxed) + 1;
        state.jobs_max = state.jobs_max.max(running);
        drop(state);
        let (done, ended) = tokio::sync::oneshot::channel();
        self.spawn(
            name,
            Box::pin(async move {
                pause(turns).await;
                job();
                jobs.fetch_sub(1, Relaxed);
                let _ = done.send(());
            }),
        );
        Box::pin(async move { ended.await.expect("the job has run") })
    }

    fn work_places(&self) -> &WorkPlaces {
        &self.work_places
    }

    fn worker(&self, _name: &'static str) -> Arc<dyn Worker> {
        Arc::new(AtOnce)
    }

    fn now(&self) -> Instant {
        self.zero + self.lock().now
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.lock().now
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        let mut state = self.lock();
        let key = (at - self.zero, state.id());
        drop(state);
        // The waker is left behind when the sleep is polled; the test fires it.
        let (fire, fired) = tokio::sync::oneshot::channel::<()>();
        let waker = Waker::from(Arc::new(Timer(Mutex::new(Some(fire)))));
        self.lock().timers.insert(key, waker);
        Box::pin(async move { drop(fired.await) })
    }

    fn fill_random(&self, buf: &mut [u8]) {
        for chunk in buf.chunks_mut(8) {
            let bytes = self.lock().random().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// Gives others `turns` chances to run.
pub async fn pause(turns: u64) {
    for _ in 0..turns {
        let mut yielded = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

struct Timer(Mutex<Option<tokio::sync::oneshot::Sender<()>>>);

impl Wake for Timer {
    fn wake(self: Arc<Self>) {
        if let Some(fire) = self.0.lock().expect("no test goes on after a panic").take() {
            let _ = fire.send(());
        }
    }
}

struct Detached;

impl Abort for Detached {
    fn abort(&self) {}

    fn is_finished(&self) -> bool {
        false
    }
}

struct AtOnce;

impl Worker for AtOnce {
    fn run(&self, job: Job) -> BoxFuture<'static, ()> {
        job();
        Box::pin(async {})
    }
}
