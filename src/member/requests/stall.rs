//! A value that is held for a client between two of its calls, and dropped when the client stalls.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::env::{Abort, Env};

/// A held value.
pub struct StallGuard<T> {
    shared: Arc<Shared<T>>,
    timer: Box<dyn Abort>,
}

struct Shared<T> {
    /// `None` while it is in use, and after it was dropped.
    held: Mutex<Option<T>>,
    steps: AtomicU64,
}

impl<T: Send + 'static> StallGuard<T> {
    /// Drops `value` when it is not taken within `patience`.
    pub fn new(env: &Env, value: T, patience: Duration) -> Self {
        let shared = Arc::new(Shared { held: Mutex::new(Some(value)), steps: AtomicU64::new(0) });
        let timer = env.spawn("stall", watch(env.clone(), shared.clone(), patience));
        Self { shared, timer }
    }

    /// Takes the value, to be put back.
    pub fn take(&self) -> Option<T> {
        self.shared.steps.fetch_add(1, Relaxed);
        self.shared.lock().take()
    }

    pub fn put(&self, value: T) {
        self.shared.steps.fetch_add(1, Relaxed);
        *self.shared.lock() = Some(value);
    }
}

impl<T> Drop for StallGuard<T> {
    fn drop(&mut self) {
        self.timer.abort();
        // The aborted task may still exist for a while.
        drop(self.shared.lock().take());
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn watch<T>(env: Env, shared: Arc<Shared<T>>, patience: Duration) {
    loop {
        let before = shared.steps.load(Relaxed);
        env.sleep(patience).await;
        let still = shared.steps.load(Relaxed) == before;
        if still && let Some(held) = shared.lock().take() {
            tracing::info!(
                "a client reads nothing of its response; what was held for it is released"
            );
            drop(held);
            return;
        }
    }
}
