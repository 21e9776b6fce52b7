//! What a server counts about itself, under etcd's names. One registry a server, never a global one:
//! many servers run in one process under the simulator. No clock: durations are handed in.
//!
//! Only what is really counted has a row. Rows marked "read when asked" are set from the member's
//! state by the metrics page; all others by the layer that sees the event.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Declares the fields of [`Metrics`] and how each is made.
macro_rules! metrics {
    ($($(#[$doc:meta])* $field:ident: $kind:ident $args:tt, $name:literal, $help:literal;)*) => {
        /// Every metric of one server.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            /// One page at a time is made ready and written.
            page: Mutex<()>,
            $($(#[$doc])* pub $field: metrics!(@type $kind),)*
        }

        impl Metrics {
            #[allow(clippy::new_without_default, reason = "a registry is made on purpose")]
            pub fn new() -> Self {
                let registry = Registry::new();
                $(let $field = register(&registry, metrics!(@make $kind $args, $name, $help));)*
                Self { registry, page: Mutex::new(()), $($field,)* }
            }
        }
    };
    (@type gauge) => { IntGauge };
    (@type counter) => { IntCounter };
    (@type histogram) => { Histogram };
    (@type gauges) => { IntGaugeVec };
    (@type counters) => { IntCounterVec };
    (@type histograms) => { HistogramVec };
    (@make gauge (), $name:literal, $help:literal) => { IntGauge::new($name, $help) };
    (@make counter (), $name:literal, $help:literal) => { IntCounter::new($name, $help) };
    (@make histogram $buckets:tt, $name:literal, $help:literal) => {
        Histogram::with_opts(HistogramOpts::new($name, $help).buckets(buckets $buckets))
    };
    (@make gauges $labels:tt, $name:literal, $help:literal) => {
        IntGaugeVec::new(Opts::new($name, $help), &$labels)
    };
    (@make counters $labels:tt, $name:literal, $help:literal) => {
        IntCounterVec::new(Opts::new($name, $help), &$labels)
    };
    (@make histograms {$buckets:tt $labels:tt}, $name:literal, $help:literal) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets(buckets $buckets), &$labels)
    };
}

metrics! {
    // Set once, at start.
    version: gauges ["server_version"], "etcd_server_version",
        "The etcd release whose behaviour this server has: 1 with its label.";
    server_id: gauges ["server_id"], "etcd_server_id", "This member's id: 1 with its label.";

    /// Read when asked.
    has_leader: gauge (), "etcd_server_has_leader", "Whether a leader is known: 1 or 0.";
    /// Read when asked.
    is_leader: gauge (), "etcd_server_is_leader", "Whether this member leads: 1 or 0.";
    /// Read when asked.
    is_learner: gauge (), "etcd_server_is_learner", "Whether this member is a learner: 1 or 0.";
    /// Read when asked.
    committed: gauge (), "etcd_server_proposals_committed_total", "The commit index of the log.";
    /// Read when asked.
    applied: gauge (), "etcd_server_proposals_applied_total", "The applied index of the log.";
    /// Read when asked.
    quota_bytes: gauge (), "etcd_server_quota_backend_bytes", "Bound on live data, bytes.";
    /// Read when asked.
    cluster_version: gauges ["cluster_version"], "etcd_cluster_version",
        "The version that all members agreed on: 1 with its label.";
    /// Read when asked.
    alarms: gauges ["server_id", "alarm_type"], "etcd_debugging_server_alarms",
        "Alarms that stand: 1 each.";
    /// Read when asked.
    db_bytes: gauge (), "etcd_mvcc_db_total_size_in_bytes", "Bytes that the store takes on disk.";
    /// Read when asked.
    db_live_bytes: gauge (), "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Bytes of live data in the store.";
    /// Read when asked.
    revision: gauge (), "etcd_debugging_mvcc_current_revision", "The store's revision.";
    /// Read when asked.
    compact_revision: gauge (), "etcd_debugging_mvcc_compact_revision",
        "The revision of the last compaction.";

    leader_changes: counter (), "etcd_server_leader_changes_seen_total",
        "Times that a leader was seen who had not been it before.";
    /// Read when asked.
    proposals_pending: gauge (), "etcd_server_proposals_pending",
        "Proposals of this member that wait for an answer.";
    proposals_failed: counter (), "etcd_server_proposals_failed_total",
        "Proposals of this member that were not answered in time.";
    read_indexes_failed: counter (), "etcd_server_read_indexes_failed_total",
        "Rounds of asking for a read index that failed.";
    health_success: counter (), "etcd_server_health_success", "/health answered healthy.";
    health_failures: counter (), "etcd_server_health_failures", "/health answered unhealthy.";
    healthcheck: gauges ["type", "name"], "etcd_server_healthcheck",
        "The last result of each check of /livez and /readyz: 1 is good.";
    healthchecks: counters ["type", "name", "status"], "etcd_server_healthchecks_total",
        "Results of the checks of /livez and /readyz.";
    request_seconds: histograms {(0.001, 14) ["type", "success"]},
        "etcd_server_request_duration_seconds", "Proposals of this member, from their arrival to their answer.";
    apply_snapshots: gauge (), "etcd_server_snapshot_apply_in_progress_total",
        "1 while a leader's snapshot is being installed.";
    leases_expired: counter (), "etcd_debugging_server_lease_expired_total",
        "Leases that this member found expired.";

    wal_fsync_seconds: histogram (0.001, 14), "etcd_disk_wal_fsync_duration_seconds",
        "One write to the log with its fdatasync.";
    wal_write_bytes: gauge (), "etcd_disk_wal_write_bytes_total", "Bytes written to the log.";
    commit_seconds: histogram (0.001, 14), "etcd_disk_backend_commit_duration_seconds",
        "Commit of one batch to the store.";

    puts: counter (), "etcd_mvcc_put_total", "Puts applied.";
    deletes: counter (), "etcd_mvcc_delete_total", "Delete ranges applied.";
    ranges: counter (), "etcd_mvcc_range_total", "Ranges served.";
    txns: counter (), "etcd_mvcc_txn_total", "Transactions applied.";

    leases_granted: counter (), "etcd_debugging_lease_granted_total", "Leases granted.";
    leases_revoked: counter (), "etcd_debugging_lease_revoked_total", "Leases revoked.";
    leases_renewed: counter (), "etcd_debugging_lease_renewed_total",
        "Leases kept alive by this member as leader.";

    /// Read when asked, as the next four.
    watch_streams: gauge (), "etcd_debugging_mvcc_watch_stream_total", "Open watch streams.";
    watchers: gauge (), "etcd_debugging_mvcc_watcher_total", "Watchers on all streams.";
    slow_watchers: gauge (), "etcd_debugging_mvcc_slow_watcher_total",
        "Watchers that read history to catch up.";
    pending_events: gauge (), "etcd_debugging_mvcc_pending_events_total",
        "Events on their way to a stream.";
    events: counter (), "etcd_debugging_mvcc_events_total", "Events given to streams.";

    /// Read when asked, as the next four.
    peer_sent_bytes: counters ["To"], "etcd_network_peer_sent_bytes_total",
        "Bytes sent to a member.";
    peer_received_bytes: counters ["From"], "etcd_network_peer_received_bytes_total",
        "Bytes received from a member.";
    peer_sent_failures: counters ["To"], "etcd_network_peer_sent_failures_total",
        "Messages to a member that were not sent.";
    peer_received_failures: counters ["From"], "etcd_network_peer_received_failures_total",
        "Messages from a member that were not received.";
    known_peers: gauges ["Local", "Remote"], "etcd_network_known_peers",
        "Other members: 1 each.";

}

impl Metrics {
    /// Adds what is measured elsewhere, such as the process's memory.
    ///
    /// # Panics
    /// When a name is taken.
    pub fn add(&self, collector: Box<dyn Collector>) {
        self.registry.register(collector).expect("a collector's names are its own");
    }

    /// All metrics in Prometheus' text format 0.0.4, sorted by name; `refresh` sets before those that
    /// are read when asked.
    pub fn text(&self, refresh: impl FnOnce(&Self)) -> String {
        let _one = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        refresh(self);
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("writing to memory does not fail");
        String::from_utf8(text).expect("names, helps and labels are UTF-8")
    }
}

/// Brings a counter up to a sum that is kept elsewhere.
pub fn catch_up(counter: &IntCounter, sum: u64) {
    counter.inc_by(sum.saturating_sub(counter.get()));
}

/// Observes a duration in seconds.
pub fn observe(histogram: &Histogram, duration: Duration) {
    histogram.observe(duration.as_secs_f64());
}

/// `count` bounds that double from `start` seconds on, as all of etcd's do.
fn buckets(start: f64, count: usize) -> Vec<f64> {
    prometheus::exponential_buckets(start, 2.0, count).expect("the rows' bounds are positive")
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<C>,
) -> C {
    let metric = metric.expect("the rows' names and labels are valid");
    registry.register(Box::new(metric.clone())).expect("no name stands in two rows");
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_count_apart_and_show_etcds_names() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.puts.inc();
        one.server_id.with_label_values(&["8e9e05c52164694d"]).set(1);
        observe(&one.wal_fsync_seconds, Duration::from_micros(1500));
        let text = one.text(|_| {});
        assert!(text.contains("\netcd_mvcc_put_total 1\n"), "{text}");
        assert!(text.contains("\netcd_server_id{server_id=\"8e9e05c52164694d\"} 1\n"), "{text}");
        let name = "etcd_disk_wal_fsync_duration_seconds";
        assert!(text.contains(&format!("\n{name}_bucket{{le=\"0.001\"}} 0\n")), "{text}");
        assert!(text.contains(&format!("\n{name}_bucket{{le=\"0.002\"}} 1\n")), "{text}");
        assert!(text.contains(&format!("\n{name}_bucket{{le=\"8.192\"}} 1\n")), "{text}");
        assert!(other.text(|_| {}).contains("\netcd_mvcc_put_total 0\n"));
    }
}
