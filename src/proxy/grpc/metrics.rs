//! Counters of a proxy, under etcd's names.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::metrics::Row;

/// Counts up.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self) {
        self.add_all(1);
    }

    pub fn add_all(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn value(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub hits: Counter,
    pub misses: Counter,
    /// Watch responses that were shared with another watcher.
    pub shared_events: Counter,
}

impl Counters {
    /// Returns the metrics; `keys` are cached, `watchers` have no watch of their own.
    pub fn rows(&self, keys: usize, watchers: usize) -> Vec<Row> {
        let gauge = |name, help, value| Row::gauge(name, help).value(value);
        vec![
            gauge(
                "etcd_grpc_proxy_cache_hits_total",
                "Serializable ranges that were answered from the cache.",
                self.hits.value(),
            ),
            gauge(
                "etcd_grpc_proxy_cache_keys_total",
                "Answers to ranges that are kept.",
                keys as f64,
            ),
            gauge(
                "etcd_grpc_proxy_cache_misses_total",
                "Serializable ranges that the cache had no answer to.",
                self.misses.value(),
            ),
            Row::counter(
                "etcd_grpc_proxy_events_coalescing_total",
                "Responses of watches that more than one watcher got, the first left out.",
            )
            .value(self.shared_events.value()),
            gauge(
                "etcd_grpc_proxy_watchers_coalescing_total",
                "Watchers that share the watch of another one.",
                watchers as f64,
            ),
        ]
    }
}
