//! What the watch system counts about itself, for the metrics page.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// Gauges and counters of all streams of a member. Each is exact when nothing moves.
#[derive(Debug, Default)]
pub struct Counters {
    /// Open streams.
    pub streams: Gauge,
    /// Watchers on all streams.
    pub watchers: Gauge,
    /// Watchers that the hub knows, live ones and those whose removal is under way.
    pub hub_watchers: Gauge,
    /// Watchers that read history: new ones with a past to read, and those that fell behind.
    pub slow_watchers: Gauge,
    /// Events that are on their way to a stream, once for each watcher that takes them.
    pub pending_events: Gauge,
    /// Events given to streams, once for each watcher that took them.
    pub events: Counter,
    /// Times that a stream's buffer was full and its watchers went back to history.
    pub lags: Counter,
}

#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }

    pub(super) fn add(&self, more: usize) {
        self.0.fetch_add(more as i64, Relaxed);
    }

    pub(super) fn sub(&self, less: usize) {
        self.0.fetch_sub(less as i64, Relaxed);
    }
}

#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(super) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Relaxed);
    }
}
