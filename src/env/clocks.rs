//! Clocks for tests, around the environment of this machine: one that a test moves, and one on which
//! sleeping takes no time.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use super::{Abort, BoxFuture, Env, Job, Runtime, WorkPlaces, Worker};

/// Polls for which a sleep that takes no time waits, so that everything else goes first.
const POLLS: usize = 100;

/// A clock ahead of this machine's.
pub struct Ahead {
    rt: Arc<dyn Runtime>,
    by: Mutex<Duration>,
    sleeps: bool,
}

impl Ahead {
    /// A clock that only the test moves ahead; sleeping takes its time.
    pub fn moved() -> (Env, Arc<Self>) {
        Self::new(true)
    }

    /// A clock on which sleeping takes no time.
    pub fn hurried() -> Env {
        Self::new(false).0
    }

    fn new(sleeps: bool) -> (Env, Arc<Self>) {
        let env = super::tokio::env();
        let ahead = Arc::new(Self { rt: env.rt.clone(), by: Mutex::default(), sleeps });
        (Env { rt: ahead.clone(), ..env }, ahead)
    }

    pub fn skip(&self, time: Duration) {
        *self.by.lock().unwrap_or_else(PoisonError::into_inner) += time;
    }
}

impl Runtime for Ahead {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> Box<dyn Abort> {
        self.rt.spawn(name, task)
    }

    fn spawn_blocking(&self, name: &'static str, job: Job) -> BoxFuture<'static, ()> {
        self.rt.spawn_blocking(name, job)
    }

    fn work_places(&self) -> &WorkPlaces {
        self.rt.work_places()
    }

    fn worker(&self, name: &'static str) -> Arc<dyn Worker> {
        self.rt.worker(name)
    }

    fn now(&self) -> Instant {
        self.rt.now() + *self.by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wall(&self) -> SystemTime {
        self.rt.wall()
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        if self.sleeps { self.rt.sleep_until(at) } else { Box::pin(Hurried(POLLS)) }
    }

    fn fill_random(&self, buf: &mut [u8]) {
        self.rt.fill_random(buf);
    }
}

struct Hurried(usize);

impl Future for Hurried {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.0 == 0 {
            return Poll::Ready(());
        }
        self.0 -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
