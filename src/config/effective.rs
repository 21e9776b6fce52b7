//! The line that a server logs when it starts: every setting as it takes effect, under etcd's names (3.7,
//! `embed.print`), whether it came from a flag, a variable, a file or a default. Settings that etcd does not
//! list stand at its end, under the names of their flags. Passwords are in none of them.

use tracing::info;

use super::urls::Url;
use super::{Config, help, secrets};
use crate::codec::go_duration;
use crate::limits;
use crate::member::compactor::AutoCompaction;

/// Logs the configuration. `initialized` is whether the member has a log already, `processors` how many there
/// are.
pub fn log(config: &Config, initialized: bool, processors: usize) {
    let (given, options) = (&*config.settled, &config.server);
    let (member, discovery) = (&options.member, &given.discovery);
    info!(
        etcd_version = help::ETCD_VERSION,
        quorate_version = env!("CARGO_PKG_VERSION"),
        max_cpu_set = processors,
        max_cpu_available = processors,
        member_initialized = initialized,
        name = given.name,
        data_dir = given.data_dir,
        wal_dir = given.wal_dir,
        wal_dir_dedicated = given.wal_dir,
        member_dir = %member.member_dir().display(),
        force_new_cluster = given.force_new_cluster,
        heartbeat_interval = go_duration(member.heartbeat),
        election_timeout = go_duration(member.election_timeout),
        initial_election_tick_advance = given.initial_election_tick_advance,
        snapshot_count = member.snapshot_count,
        max_wals = given.wals_max,
        max_snapshots = given.snapshots_max,
        snapshot_catchup_entries = member.catchup_entries,
        initial_advertise_peer_urls = ?texts(&config.advertise_peer),
        listen_peer_urls = ?texts(&given.listen_peer),
        advertise_client_urls = ?member.advertise_client_urls,
        listen_client_urls = ?texts(&given.listen_client),
        listen_metrics_urls = ?texts(&given.listen_metrics),
        local_address = config.machine.local_address.map(|it| it.to_string()).unwrap_or_default(),
        cors = ?Vec::from_iter(&given.cors),
        host_whitelist = ?Vec::from_iter(&given.host_whitelist),
        initial_cluster = %config.initial_cluster,
        initial_cluster_state = given.initial_state,
        initial_cluster_token = member.initial_cluster_token,
        quota_backend_bytes = match given.quota_bytes {
            0 => limits::QUOTA_BYTES as i64,
            bytes => bytes,
        },
        max_request_bytes = member.request_bytes_max,
        max_concurrent_streams = given.concurrent_streams_max,
        pre_vote = given.pre_vote,
        feature_gates = given.gates.to_string(),
        initial_corrupt_check = member.initial_corrupt_check,
        corrupt_check_time_interval = go_duration(given.corrupt_check_time),
        compact_check_time_interval = go_duration(given.compact_hash_check_time),
        auto_compaction_mode = given.auto_compaction_mode,
        auto_compaction_retention = retention(config),
        auto_compaction_interval = retention(config),
        discovery_token = discovery.token,
        discovery_endpoints = discovery.endpoints.join(","),
        discovery_dial_timeout = go_duration(discovery.dial_timeout),
        discovery_request_timeout = go_duration(discovery.request_timeout),
        discovery_keepalive_time = go_duration(discovery.keep_alive_interval),
        discovery_keepalive_timeout = go_duration(discovery.keep_alive_timeout),
        discovery_insecure_transport = discovery.insecure_transport,
        discovery_insecure_skip_tls_verify = discovery.tls.insecure_skip_verify,
        discovery_cert = %discovery.tls.cert_file.display(),
        discovery_key = %discovery.tls.key_file.display(),
        discovery_cacert = %discovery.tls.trusted_ca_file.display(),
        discovery_user = secrets::value("discovery-user", &discovery.user),
        downgrade_check_interval = go_duration(given.downgrade_check_time),
        max_learners = given.learners_max,
        v2_deprecation = "write-only",
        listen_client_http_urls = ?texts(&given.listen_client_http),
        max_txn_ops = given.txn_ops_max,
        strict_reconfig_check = given.strict_reconfig_check,
        enable_grpc_gateway = given.gateway,
        enable_pprof = config.pprof,
        metrics = given.metrics,
        watch_progress_notify_interval = go_duration(member.watch_progress_interval),
        warning_apply_duration = go_duration(member.apply_warning),
        warning_unary_request_duration = go_duration(member.unary_warning),
        compaction_batch_limit = member.compaction_step,
        compaction_sleep_interval = go_duration(member.compaction_pause),
        grpc_keepalive_min_time = go_duration(options.ping_time_min),
        grpc_keepalive_interval = go_duration(options.keep_alive_interval),
        grpc_keepalive_timeout = go_duration(options.keep_alive_timeout),
        client_cert_auth = given.client_tls.client_cert_auth,
        peer_client_cert_auth = given.peer_tls.client_cert_auth,
        bcrypt_cost = member.bcrypt_cost,
        auth_token_ttl = given.auth_token_ttl_s,
        socket_reuse_port = given.reuse_port,
        memory_mlock = given.memory_mlock,
        unsafe_no_fsync = given.unsafe_no_fsync,
        "starting an etcd server"
    );
}

fn texts(urls: &[Url]) -> Vec<&str> {
    urls.iter().map(Url::as_str).collect()
}

/// As a duration, even where it is a number of revisions, as in etcd.
fn retention(config: &Config) -> String {
    match config.server.member.auto_compaction {
        None => go_duration(std::time::Duration::ZERO),
        Some(AutoCompaction::Age(age)) => go_duration(age),
        Some(AutoCompaction::Count(revisions)) => {
            go_duration(std::time::Duration::from_nanos(revisions.unsigned_abs()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::log::Format;
    use crate::config::log::tests::captured;
    use crate::config::{Command, parse};

    /// The names that etcd 3.7.3 logs, in its order, without those of Go's build.
    const ETCDS: &str = "etcd-version max-cpu-set max-cpu-available member-initialized name data-dir wal-dir \
        wal-dir-dedicated member-dir force-new-cluster heartbeat-interval election-timeout \
        initial-election-tick-advance snapshot-count max-wals max-snapshots snapshot-catchup-entries \
        initial-advertise-peer-urls listen-peer-urls advertise-client-urls listen-client-urls \
        listen-metrics-urls local-address cors host-whitelist initial-cluster initial-cluster-state \
        initial-cluster-token quota-backend-bytes max-request-bytes max-concurrent-streams pre-vote \
        feature-gates initial-corrupt-check corrupt-check-time-interval compact-check-time-interval \
        auto-compaction-mode auto-compaction-retention auto-compaction-interval discovery-token \
        discovery-endpoints discovery-dial-timeout discovery-request-timeout discovery-keepalive-time \
        discovery-keepalive-timeout discovery-insecure-transport discovery-insecure-skip-tls-verify \
        discovery-cert discovery-key discovery-cacert discovery-user downgrade-check-interval max-learners \
        v2-deprecation";

    fn logged(flags: &[&str], variables: &[(&str, &str)], file: &str) -> String {
        let flags: Vec<_> = flags.iter().map(|&flag| flag.to_owned()).collect();
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables: Vec<_> = variables.iter().map(owned).collect();
        let parsed = parse(&flags, &variables, |_| Ok(file.to_owned())).expect("it is valid");
        let (Command::Run(config), _) = parsed else { panic!("nothing is to be printed") };
        captured(Format::Json, || log(&config, false, 2))
    }

    #[test]
    fn every_name_of_etcds_line_is_there_and_in_its_order() {
        let line = logged(&[], &[], "");
        let at = |name: &str| line.find(&format!(",\"{name}\":")).ok_or(name.to_owned());
        let found: Result<Vec<_>, _> = ETCDS.split_whitespace().map(at).collect();
        assert!(found.expect("every name is there").is_sorted(), "{line}");
    }

    #[test]
    fn values_are_the_effective_ones_wherever_they_came_from() {
        let has = |line: &str, part: &str| assert!(line.contains(part), "{part} in {line}");
        let flags = [
            "--max-wals=7",
            "--discovery-user=ann:secret",
            "--discovery-password=secret",
            "--feature-gates=AllBeta=true",
        ];
        let line = logged(&flags, &[("ETCD_AUTO_COMPACTION_RETENTION", "2")], "");
        has(&line, r#""max-wals":7"#);
        has(&line, r#""auto-compaction-retention":"2h0m0s""#);
        has(&line, r#""quota-backend-bytes":2147483648"#);
        has(&line, r#""feature-gates":"AllBeta=true,FastLeaseKeepAlive=true,"#);
        assert!(!line.contains("secret"), "{line}");
        let line =
            logged(&["--config-file=f"], &[], "max-wals: 9\nauto-compaction-mode: revision\n");
        has(&line, r#""max-wals":9"#);
        has(&line, r#""auto-compaction-mode":"revision""#);
        has(&line, r#""listen-client-urls":["http://localhost:2379"]"#);
    }
}
