//! Figures about one peer, for export. Counts and sums only; names and labels are the
//! exporter's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Figures since the peer was added. Each is written by one call site or a few, and read at leisure.
#[derive(Debug, Default)]
pub struct Stats {
    /// `etcd_network_peer_sent_bytes_total`
    pub sent_bytes: Counter,
    /// `etcd_network_peer_received_bytes_total`
    pub received_bytes: Counter,
    /// `etcd_network_peer_sent_failures_total`
    pub sent_failures: Counter,
    /// `etcd_network_peer_received_failures_total`
    pub received_failures: Counter,
    /// `etcd_network_disconnected_peers_total`
    pub disconnected: Counter,
    /// `etcd_network_snapshot_send_inflights_total`
    pub snapshots_sending: Counter,
    /// `etcd_network_snapshot_send_success`
    pub snapshots_sent: Counter,
    /// `etcd_network_snapshot_send_failures`
    pub snapshot_send_failures: Counter,
    /// `etcd_network_snapshot_send_total_duration_seconds`
    pub snapshot_send: Histogram<10>,
    /// `etcd_network_snapshot_receive_inflights_total`
    pub snapshots_receiving: Counter,
    /// `etcd_network_snapshot_receive_success`
    pub snapshots_received: Counter,
    /// `etcd_network_snapshot_receive_failures`
    pub snapshot_receive_failures: Counter,
    /// `etcd_network_snapshot_receive_total_duration_seconds`
    pub snapshot_receive: Histogram<10>,
    /// `etcd_network_peer_round_trip_time_seconds`
    pub round_trip: Histogram<16>,
}

/// Upper bounds of the first buckets; each further bound is twice the one before, as in etcd.
pub const ROUND_TRIP_FIRST: Duration = Duration::from_micros(100);
pub const SNAPSHOT_FIRST: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Counts one that is under way until the guard is dropped.
    pub(super) fn hold(&self) -> InProgress<'_> {
        self.add(1);
        InProgress(self)
    }
}

/// See [`Counter::hold`].
pub(super) struct InProgress<'a>(&'a Counter);

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How often durations fell below each of `N` bounds, and their sum.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    /// Not cumulative; the last one counts what is above every bound.
    below: [AtomicU64; N],
    above: AtomicU64,
    sum_us: AtomicU64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self {
            below: std::array::from_fn(|_| AtomicU64::new(0)),
            above: AtomicU64::new(0),
            sum_us: AtomicU64::new(0),
        }
    }
}

impl<const N: usize> Histogram<N> {
    pub(super) fn observe(&self, first: Duration, duration: Duration) {
        let mut bound = first;
        let bucket = self.below.iter().find(|_| {
            let fits = duration <= bound;
            bound *= 2;
            fits
        });
        bucket.unwrap_or(&self.above).fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(micros, Ordering::Relaxed);
    }

    /// Counts of durations at most `first`, `2 * first`, and so on: cumulative.
    pub fn cumulative(&self) -> [u64; N] {
        let mut sum = 0;
        std::array::from_fn(|bucket| {
            sum += self.below[bucket].load(Ordering::Relaxed);
            sum
        })
    }

    pub fn count(&self) -> u64 {
        let below: u64 = self.below.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum();
        below + self.above.load(Ordering::Relaxed)
    }

    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_doubling_buckets() {
        let histogram = Histogram::<3>::default();
        for ms in [50, 100, 101, 400, 401] {
            histogram.observe(SNAPSHOT_FIRST, Duration::from_millis(ms));
        }
        assert_eq!(histogram.cumulative(), [2, 3, 4]);
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram.sum(), Duration::from_millis(1052));
    }
}
