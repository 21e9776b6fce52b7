//! What a server counts about itself, under etcd's names. One registry a server, never a global one:
//! many servers run in one process under the simulator. No clock: durations are handed in.
//!
//! Only what is really counted has a row. The fields of [`Metrics`] are fed by the layer that sees the
//! event; what is a state rather than an event, or is counted elsewhere, is read into a [`Row`]
//! at every scrape.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};
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
            /// Only there when it is enabled.
            grpc_seconds: OnceLock<HistogramVec>,
            $($(#[$doc])* pub $field: metrics!(@type $kind),)*
        }

        impl Metrics {
            #[allow(clippy::new_without_default, reason = "a registry is made on purpose")]
            pub fn new() -> Self {
                let registry = Registry::new();
                $(let $field = register(&registry, metrics!(@make $kind $args, $name, $help));)*
                Self { registry, grpc_seconds: OnceLock::new(), $($field,)* }
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
    leader_changes: counter (), "etcd_server_leader_changes_seen_total",
        "Times that the leader changed.";
    proposals_failed: counter (), "etcd_server_proposals_failed_total",
        "Proposals of this member that were not answered in time.";
    health_success: counter (), "etcd_server_health_success", "/health answered healthy.";
    health_failures: counter (), "etcd_server_health_failures", "/health answered unhealthy.";
    healthcheck: gauges ["type", "name"], "etcd_server_healthcheck",
        "The last result of each check of /livez and /readyz: 1 is good.";
    healthchecks: counters ["type", "name", "status"], "etcd_server_healthchecks_total",
        "Results of the checks of /livez and /readyz.";
    client_requests: counters ["type", "client_api_version"], "etcd_server_client_requests_total",
        "gRPC calls by client version.";
    request_seconds: histograms {(0.001, 14) ["type", "success"]},
        "etcd_server_request_duration_seconds", "Requests of this member's clients and its own.";
    apply_seconds: histograms {(0.0001, 20) ["version", "op", "success"]},
        "etcd_server_apply_duration_seconds",
        "Carrying out one entry of the log, without the commit of its batch.";
    heartbeats_late: counter (), "etcd_server_heartbeat_send_failures_total",
        "Heartbeats that this member, as leader, sent to others much too late.";
    slow_applies: counter (), "etcd_server_slow_apply_total",
        "Entries and reads that took longer than --warning-apply-duration.";
    apply_snapshots: gauge (), "etcd_server_snapshot_apply_in_progress_total",
        "1 while a leader's snapshot is being installed.";
    learners_promoted: counter (), "etcd_server_learner_promote_successes",
        "Learners that became voters while this member led.";
    promotions_failed: counters ["Reason"], "etcd_server_learner_promote_failures",
        "Promotions that were refused while this member led, by reason.";
    leases_expired: counter (), "etcd_debugging_server_lease_expired_total",
        "Leases that this member found expired.";
    corruption_checks: counters ["check", "result"], "quorate_corruption_checks_total",
        "Comparisons of all members' history by this member as leader, by result.";
    spans_exported: counter (), "quorate_spans_exported_total",
        "Spans of traced calls that the collector has taken.";
    spans_dropped: counters ["reason"], "quorate_spans_dropped_total",
        "Spans that found no room in the queue, or that the collector did not take.";

    wal_fsync_seconds: histogram (0.001, 14), "etcd_disk_wal_fsync_duration_seconds",
        "What one save of the log waited for fdatasync.";
    wal_write_seconds: histogram (0.001, 14), "etcd_disk_wal_write_duration_seconds",
        "What one save of the log took to hand its bytes to the system.";
    wal_write_bytes: gauge (), "etcd_disk_wal_write_bytes_total", "Bytes written to the log.";
    commit_seconds: histogram (0.001, 14), "etcd_disk_backend_commit_duration_seconds",
        "Commit of one batch to the store.";
    defrag_seconds: histogram (0.1, 13), "etcd_disk_backend_defrag_duration_seconds",
        "Flushing and compacting the store on a client's request.";
    defrags: gauge (), "etcd_disk_defrag_inflight",
        "Defragmentations under way.";
    snapshot_seconds: histogram (0.01, 16), "etcd_disk_backend_snapshot_duration_seconds",
        "Reading the whole store out as a database file.";

    puts: counter (), "etcd_mvcc_put_total", "Puts applied, those of txns counted.";
    put_bytes: gauge (), "etcd_debugging_mvcc_total_put_size_in_bytes",
        "Bytes of keys and values put.";
    deletes: counter (), "etcd_mvcc_delete_total", "Delete ranges applied, those of txns counted.";
    ranges: counter (), "etcd_mvcc_range_total", "Ranges served, those of txns counted.";
    txns: counter (), "etcd_mvcc_txn_total", "Transactions of more than one operation.";
    range_seconds: histograms {(0.0001, 20) ["success"]}, "etcd_server_range_duration_seconds",
        "Reading a range, without waiting for the state to be new enough.";
    compacted_keys: counter (), "etcd_debugging_mvcc_db_compaction_keys_total",
        "States of keys that compactions have deleted.";
    compacted_last: gauge (), "etcd_debugging_mvcc_db_compaction_last",
        "When the last compaction was finished, seconds since 1970.";
    compaction_ms: histogram (100.0, 14),
        "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
        "A compaction from its first step to its last.";
    compaction_pause_ms: histogram (1.0, 13),
        "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
        "One step of a compaction, during which no entry is applied.";

    hash_seconds: histogram (0.01, 15), "etcd_mvcc_hash_duration_seconds",
        "Hashing all of the store.";
    hash_kv_seconds: histogram (0.01, 15), "etcd_mvcc_hash_rev_duration_seconds",
        "Hashing the keys up to a revision.";

    leases_granted: counter (), "etcd_debugging_lease_granted_total", "Leases granted.";
    leases_revoked: counter (), "etcd_debugging_lease_revoked_total", "Leases revoked.";
    leases_renewed: counter (), "etcd_debugging_lease_renewed_total",
        "Leases kept alive by this member as leader.";
    lease_checkpoints: counter (), "quorate_lease_checkpoints_total",
        "Times that this member, as leader, wrote down what is left of a lease.";
    lease_ttl: histogram (1.0, 24), "etcd_debugging_lease_ttl_total", "Time to live of leases granted.";

    client_sent_bytes: counter (), "etcd_network_client_grpc_sent_bytes_total",
        "Bytes of messages sent to gRPC clients.";
    client_received_bytes: counter (), "etcd_network_client_grpc_received_bytes_total",
        "Bytes of messages received from gRPC clients.";
    watch_send_seconds: histogram (0.001, 14),
        "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds",
        "Handing one response with events to a watch stream.";
    watch_send_event_seconds: histogram (0.001, 14),
        "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds",
        "Handing one response with events to a watch stream, divided by its events.";
    watch_control_seconds: histogram (0.001, 14),
        "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds",
        "Handing the answer to a watch stream's request to it.";
    watch_progress_seconds: histogram (0.001, 14),
        "etcd_debugging_server_watch_send_loop_progress_duration_seconds",
        "Handing a progress notification to a watch stream.";
    stream_failures: counters ["Type", "API"], "etcd_network_server_stream_failures_total",
        "Streams of clients that brought what cannot be read.";
    grpc_started: counters ["grpc_type", "grpc_service", "grpc_method"],
        "grpc_server_started_total", "gRPC calls begun.";
    grpc_handled: counters ["grpc_type", "grpc_service", "grpc_method", "grpc_code"],
        "grpc_server_handled_total", "gRPC calls ended, by result.";
    grpc_received: counters ["grpc_type", "grpc_service", "grpc_method"],
        "grpc_server_msg_received_total", "Messages of gRPC calls received.";
    grpc_sent: counters ["grpc_type", "grpc_service", "grpc_method"],
        "grpc_server_msg_sent_total", "Messages of gRPC calls sent.";
}

impl Metrics {
    /// Adds what is measured elsewhere, such as the process's memory.
    ///
    /// # Panics
    /// When a name is taken.
    pub fn add(&self, collector: Box<dyn Collector>) {
        self.registry.register(collector).expect("a collector's names are its own");
    }

    /// All metrics and the given rows in Prometheus' text format 0.0.4, sorted by name.
    pub fn text(&self, rows: Vec<Row>) -> String {
        let mut families = self.registry.gather();
        families.extend(
            rows.into_iter().map(|row| row.0).filter(|family| !family.get_metric().is_empty()),
        );
        families.sort_by(|one, other| one.name().cmp(other.name()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text).expect("writing to memory does not fail");
        String::from_utf8(text).expect("names, helps and labels are UTF-8")
    }
}

/// What is counted of one gRPC method's calls. All of it is shown from the start, as etcd does.
#[derive(Debug)]
pub struct Calls {
    pub started: IntCounter,
    /// In the order of the codes' labels.
    pub handled: Vec<IntCounter>,
    pub received: IntCounter,
    pub sent: IntCounter,
    /// From the beginning to the end of a call.
    pub seconds: Option<Histogram>,
}

impl Metrics {
    /// `of` is type, service and method; `codes` are the labels of the results that there are.
    pub fn calls(&self, of: [&str; 3], codes: &[&str], timed: bool) -> Calls {
        let [kind, service, method] = of;
        let handled =
            |code: &&str| self.grpc_handled.with_label_values(&[kind, service, method, code]);
        Calls {
            started: self.grpc_started.with_label_values(&of),
            handled: codes.iter().map(handled).collect(),
            received: self.grpc_received.with_label_values(&of),
            sent: self.grpc_sent.with_label_values(&of),
            seconds: timed.then(|| self.grpc_seconds().with_label_values(&of)),
        }
    }

    fn grpc_seconds(&self) -> &HistogramVec {
        self.grpc_seconds.get_or_init(|| {
            let name = "grpc_server_handling_seconds";
            // The bounds are Prometheus' own.
            let options = HistogramOpts::new(name, "Times that gRPC calls took.");
            let labels = ["grpc_type", "grpc_service", "grpc_method"];
            register(&self.registry, HistogramVec::new(options, &labels))
        })
    }
}

/// How long entries take, by their kind and whether they succeeded. A histogram is looked up among the
/// others once.
#[derive(Default)]
pub struct ApplySeconds(Vec<(&'static str, [Histogram; 2])>);

impl ApplySeconds {
    pub fn observe(&mut self, metrics: &Metrics, kind: &'static str, done: bool, took: Duration) {
        let known = self.0.iter().position(|(known, _)| *known == kind);
        let at = known.unwrap_or_else(|| {
            let labelled = |done| metrics.apply_seconds.with_label_values(&["v3", kind, done]);
            self.0.push((kind, [false, true].map(truth).map(labelled)));
            self.0.len() - 1
        });
        observe(&self.0[at].1[usize::from(done)], took);
    }
}

/// A metric with its values as of now. One without values is not shown.
pub struct Row(MetricFamily);

impl Row {
    pub fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::GAUGE)
    }

    pub fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::COUNTER)
    }

    pub fn histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::HISTOGRAM)
    }

    fn new(name: &'static str, help: &'static str, kind: MetricType) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name.into());
        family.set_help(help.into());
        family.set_field_type(kind);
        Self(family)
    }

    /// The value of a gauge or counter without labels.
    pub fn value(mut self, value: f64) -> Self {
        self.add(&[], value);
        self
    }

    /// Adds a value of a gauge or counter.
    pub fn add(&mut self, labels: &[(&str, &str)], value: f64) {
        let mut metric = labelled(labels);
        if self.0.get_field_type() == MetricType::COUNTER {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.0.mut_metric().push(metric);
    }

    /// Adds the observations of a histogram: how many were at most `first`, twice that, and so on;
    /// how many there were at all, and their sum.
    pub fn add_observed(
        &mut self,
        labels: &[(&str, &str)],
        first: Duration,
        cumulative: &[u64],
        count: u64,
        sum: Duration,
    ) {
        let mut bound = first.as_secs_f64();
        let bucket = |&count: &u64| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bound *= 2.0;
            bucket
        };
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(cumulative.iter().map(bucket).collect());
        histogram.set_sample_count(count);
        histogram.set_sample_sum(sum.as_secs_f64());
        let mut metric = labelled(labels);
        metric.set_histogram(histogram);
        self.0.mut_metric().push(metric);
    }
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

/// A truth as a label's value.
pub fn truth(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

/// Counts one more for as long as it lives, however its owner ends.
pub struct Counted<'a>(&'a IntGauge);

impl<'a> Counted<'a> {
    pub fn new(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Observes a duration in seconds.
pub fn observe(histogram: &Histogram, duration: Duration) {
    histogram.observe(duration.as_secs_f64());
}

/// Observes a duration in milliseconds.
pub fn observe_ms(histogram: &Histogram, duration: Duration) {
    histogram.observe(duration.as_secs_f64() * 1e3);
}

/// `count` bounds that double from `start` on, as all of etcd's do.
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
        observe(&one.wal_fsync_seconds, Duration::from_micros(1500));
        let text = one.text(Vec::new());
        assert!(text.contains("\netcd_mvcc_put_total 1\n"), "{text}");
        let name = "etcd_disk_wal_fsync_duration_seconds";
        assert!(text.contains(&format!("\n{name}_bucket{{le=\"0.001\"}} 0\n")), "{text}");
        assert!(text.contains(&format!("\n{name}_bucket{{le=\"0.002\"}} 1\n")), "{text}");
        assert!(text.contains(&format!("\n{name}_bucket{{le=\"8.192\"}} 1\n")), "{text}");
        assert!(other.text(Vec::new()).contains("\netcd_mvcc_put_total 0\n"));
    }

    #[test]
    fn entries_are_timed_by_kind_and_success() {
        let (metrics, mut seconds) = (Metrics::new(), ApplySeconds::default());
        let ms = Duration::from_millis;
        seconds.observe(&metrics, "Put", true, ms(250));
        seconds.observe(&metrics, "Put", false, ms(500));
        seconds.observe(&metrics, "Txn", true, ms(125));
        seconds.observe(&metrics, "Put", true, ms(1_000));
        let sum = |op, success| {
            metrics.apply_seconds.with_label_values(&["v3", op, success]).get_sample_sum()
        };
        assert_eq!((sum("Put", "true"), sum("Put", "false")), (1.25, 0.5));
        assert_eq!((sum("Txn", "true"), sum("Txn", "false")), (0.125, 0.0));
    }

    #[test]
    fn rows_read_at_a_scrape_stand_in_their_order() {
        let metrics = Metrics::new();
        let process = Row::counter("a_total", "Of the process.").value(0.5);
        let mut sent = Row::counter("etcd_peer_total", "To members.");
        sent.add(&[("To", "a8"), ("From", "b")], 3.0);
        let mut trips = Row::histogram("zz_seconds", "Round trips.");
        let ms = Duration::from_millis;
        trips.add_observed(&[("To", "a8")], ms(500), &[1, 4], 5, ms(7_250));
        let text = metrics.text(vec![trips, process, sent, Row::gauge("none", "Of nobody.")]);
        assert!(
            text.starts_with(
                "# HELP a_total Of the process.\n# TYPE a_total counter\na_total 0.5\n"
            )
        );
        assert!(text.contains("\netcd_peer_total{To=\"a8\",From=\"b\"} 3\n"), "{text}");
        let last = "zz_seconds_bucket{To=\"a8\",le=\"0.5\"} 1\n\
            zz_seconds_bucket{To=\"a8\",le=\"1\"} 4\n\
            zz_seconds_bucket{To=\"a8\",le=\"+Inf\"} 5\n\
            zz_seconds_sum{To=\"a8\"} 7.25\n\
            zz_seconds_count{To=\"a8\"} 5\n";
        assert!(text.ends_with(last), "{text}");
        assert!(!text.contains("none"), "{text}");
    }
}
