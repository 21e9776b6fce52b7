//! Metrics that are computed from a member's state when the page is requested, under etcd's names. Nothing
//! is counted here.

use std::sync::Arc;
use std::time::Duration;

use crate::member::Member;
use crate::metrics::Row;
use crate::peer::{Histogram, ROUND_TRIP_FIRST, SNAPSHOT_FIRST, Stats};
use crate::replica::Role;
use crate::types::MemberId;

/// Returns all of them.
pub(super) fn rows(member: &Member) -> Vec<Row> {
    let mut rows = cluster(member);
    rows.extend(consensus(member));
    rows.extend(store(member));
    rows.extend(watch(member));
    rows.extend(peers(member));
    rows
}

fn cluster(member: &Member) -> Vec<Row> {
    let of = |label, value: &str, name, help| {
        let mut row = Row::gauge(name, help);
        row.add(&[(label, value)], 1.0);
        row
    };
    let id = member.id().to_string();
    let mut alarms = Row::gauge("etcd_debugging_server_alarms", "Alarms that stand: 1 each.");
    for alarm in member.alarms().list() {
        let (id, kind) = (format!("{:x}", alarm.member_id), alarm.alarm().as_str_name());
        alarms.add(&[("server_id", &id), ("alarm_type", kind)], 1.0);
    }
    let mut rows = vec![
        of(
            "server_version",
            member.version(),
            "etcd_server_version",
            "The etcd release whose behaviour this server has: 1 with its label.",
        ),
        of("server_id", &id, "etcd_server_id", "This member's id: 1 with its label."),
        alarms,
    ];
    let mut gates =
        Row::gauge("etcd_server_feature_enabled", "Whether a feature gate is on: 1 or 0.");
    for (name, stage, on) in member.feature_gates() {
        gates.add(&[("name", name), ("stage", stage)], if *on { 1.0 } else { 0.0 });
    }
    rows.push(gates);
    if let Some(version) = member.cluster_version() {
        // Without the patch level.
        let minor = version.rsplit_once('.').map_or(&*version, |(minor, _)| minor);
        rows.push(of(
            "cluster_version",
            minor,
            "etcd_cluster_version",
            "The version that all members agreed on: 1 with its label.",
        ));
    }
    rows
}

fn consensus(member: &Member) -> Vec<Row> {
    let raft = member.raft();
    let gauge = |name, help, value: f64| Row::gauge(name, help).value(value);
    let flag = |name, help, is| gauge(name, help, if is { 1.0 } else { 0.0 });
    vec![
        flag(
            "etcd_server_has_leader",
            "Whether a leader is known: 1 or 0.",
            raft.leader != MemberId::NONE,
        ),
        flag(
            "etcd_server_is_leader",
            "Whether this member leads: 1 or 0.",
            raft.role == Role::Leader,
        ),
        flag(
            "etcd_server_is_learner",
            "Whether this member is a learner: 1 or 0.",
            member.is_learner(),
        ),
        gauge(
            "etcd_server_proposals_committed_total",
            "The commit index of the log.",
            raft.commit.0 as f64,
        ),
        gauge(
            "etcd_server_proposals_applied_total",
            "The applied index of the log.",
            member.store().applied().0 as f64,
        ),
        gauge(
            "etcd_server_proposals_pending",
            "Proposals of this member that wait for an answer.",
            member.proposals_pending().0 as f64,
        ),
        gauge(
            "quorate_server_proposal_bytes",
            "Bytes of proposals of this member that wait for an answer.",
            member.proposals_pending().1 as f64,
        ),
        gauge(
            "quorate_server_answer_bytes",
            "Bytes set aside for large answers on their way to clients.",
            member.answer_bytes() as f64,
        ),
        Row::counter(
            "etcd_server_slow_read_indexes_total",
            "Times that a read index was asked for again.",
        )
        .value(raft.reads_slow as f64),
        Row::counter(
            "etcd_server_read_indexes_failed_total",
            "Rounds of asking for a read index that failed.",
        )
        .value(raft.reads_failed as f64),
    ]
}

fn store(member: &Member) -> Vec<Row> {
    let (store, status) = (member.store(), member.status());
    let gauge = |name, help, value: i64| Row::gauge(name, help).value(value as f64);
    let mut rows = vec![
        gauge(
            "etcd_server_quota_backend_bytes",
            "Bound on live data, bytes.",
            status.db_size_quota,
        ),
        gauge(
            "etcd_mvcc_db_total_size_in_bytes",
            "Bytes of data in the store, compared with the quota.",
            status.db_size,
        ),
        gauge(
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "The same: what is given up is not counted, with or without a defragmentation.",
            status.db_size_in_use,
        ),
        Row::gauge(
            "quorate_store_disk_bytes",
            "Bytes that the store takes in table files and in memory, copies and indexes included.",
        )
        .value(store.engine().total_bytes() as f64),
        gauge("etcd_debugging_mvcc_current_revision", "The store's revision.", store.revision().0),
        gauge(
            "etcd_debugging_mvcc_compact_revision",
            "The revision of the last compaction.",
            store.compact_revision().0,
        ),
    ];
    let revision = member.auth().revision() as i64;
    rows.push(gauge("etcd_debugging_auth_revision", "The revision of users and roles.", revision));
    if let Some(keys) = member.keys() {
        rows.push(gauge("etcd_debugging_mvcc_keys_total", "Keys in the store.", keys));
    }
    rows
}

fn watch(member: &Member) -> Vec<Row> {
    let counters = member.watch_counters();
    let gauge = |name, help, value: i64| Row::gauge(name, help).value(value as f64);
    vec![
        gauge(
            "etcd_debugging_mvcc_watch_stream_total",
            "Open watch streams.",
            counters.streams.get(),
        ),
        gauge(
            "etcd_debugging_mvcc_watcher_total",
            "Watchers on all streams.",
            counters.watchers.get(),
        ),
        gauge(
            "etcd_debugging_mvcc_slow_watcher_total",
            "Watchers that read history to catch up.",
            counters.slow_watchers.get(),
        ),
        gauge(
            "etcd_debugging_mvcc_pending_events_total",
            "Events on their way to a stream.",
            counters.pending_events.get(),
        ),
        Row::counter("etcd_debugging_mvcc_events_total", "Events given to streams.")
            .value(counters.events.get() as f64),
        Row::counter(
            "quorate_watch_lags_total",
            "Times that a stream was too slow and its watchers went back to history.",
        )
        .value(counters.lags.get() as f64),
    ]
}

fn peers(member: &Member) -> Vec<Row> {
    let peers = member.peers();
    let mut rows: Vec<Row> = PEER_COUNTERS
        .iter()
        .map(|(label, make, name, help, read)| {
            let mut row = make(name, help);
            for (id, _, stats) in &peers {
                row.add(&[(label, &id.to_string())], read(stats) as f64);
            }
            row
        })
        .collect();
    let local = member.id().to_string();
    let mut known =
        Row::gauge("etcd_network_known_peers", "Members of the cluster, this one too: 1 each.");
    known.add(&[("Local", &*local), ("Remote", &*local)], 1.0);
    let mut active =
        Row::gauge("etcd_network_active_peers", "Members with whom there is a connection: 1 each.");
    let mut lost = Row::counter(
        "etcd_network_disconnected_peers_total",
        "Times that the connection to a member was lost.",
    );
    for (id, connected, stats) in &peers {
        let remote = id.to_string();
        let labels = [("Local", &*local), ("Remote", &*remote)];
        known.add(&labels, 1.0);
        active.add(&labels, if *connected { 1.0 } else { 0.0 });
        lost.add(&labels, stats.disconnected.get() as f64);
    }
    rows.extend([known, active, lost]);
    rows.push(durations(
        &peers,
        "To",
        ROUND_TRIP_FIRST,
        |stats| &stats.round_trip,
        "etcd_network_peer_round_trip_time_seconds",
        "Round trips to a member.",
    ));
    rows.push(durations(
        &peers,
        "To",
        SNAPSHOT_FIRST,
        |stats| &stats.snapshot_send,
        "etcd_network_snapshot_send_total_duration_seconds",
        "Sending a database to a member.",
    ));
    rows.push(durations(
        &peers,
        "From",
        SNAPSHOT_FIRST,
        |stats| &stats.snapshot_receive,
        "etcd_network_snapshot_receive_total_duration_seconds",
        "Receiving a database.",
    ));
    rows
}

type Peer = (MemberId, bool, Arc<Stats>);
type Figure = (
    &'static str,
    fn(&'static str, &'static str) -> Row,
    &'static str,
    &'static str,
    fn(&Stats) -> u64,
);

/// Label, kind, name, help and accessor.
const PEER_COUNTERS: &[Figure] = &[
    (
        "To",
        Row::counter,
        "etcd_network_peer_sent_bytes_total",
        "Bytes sent to a member.",
        |stats| stats.sent_bytes.get(),
    ),
    (
        "From",
        Row::counter,
        "etcd_network_peer_received_bytes_total",
        "Bytes received from a member.",
        |stats| stats.received_bytes.get(),
    ),
    (
        "To",
        Row::counter,
        "etcd_network_peer_sent_failures_total",
        "Messages to a member that were not sent.",
        |stats| stats.sent_failures.get(),
    ),
    (
        "From",
        Row::counter,
        "etcd_network_peer_received_failures_total",
        "Streams from a member that broke.",
        |stats| stats.received_failures.get(),
    ),
    (
        "To",
        Row::gauge,
        "etcd_network_snapshot_send_inflights_total",
        "Databases on their way to a member.",
        |stats| stats.snapshots_sending.get(),
    ),
    (
        "To",
        Row::counter,
        "etcd_network_snapshot_send_success",
        "Databases sent to a member.",
        |stats| stats.snapshots_sent.get(),
    ),
    (
        "To",
        Row::counter,
        "etcd_network_snapshot_send_failures",
        "Databases that did not reach a member.",
        |stats| stats.snapshot_send_failures.get(),
    ),
    (
        "From",
        Row::gauge,
        "etcd_network_snapshot_receive_inflights_total",
        "Databases on their way from a member.",
        |stats| stats.snapshots_receiving.get(),
    ),
    (
        "From",
        Row::counter,
        "etcd_network_snapshot_receive_success",
        "Databases received from a member.",
        |stats| stats.snapshots_received.get(),
    ),
    (
        "From",
        Row::counter,
        "etcd_network_snapshot_receive_failures",
        "Databases from a member that did not arrive.",
        |stats| stats.snapshot_receive_failures.get(),
    ),
];

/// Returns a histogram with a label for each peer.
fn durations<const N: usize>(
    peers: &[Peer],
    label: &'static str,
    first: Duration,
    read: fn(&Stats) -> &Histogram<N>,
    name: &'static str,
    help: &'static str,
) -> Row {
    let mut row = Row::histogram(name, help);
    for (id, _, stats) in peers {
        let seen = read(stats);
        let id = id.to_string();
        row.add_observed(&[(label, &id)], first, &seen.cumulative(), seen.count(), seen.sum());
    }
    row
}
