//! Command lines and variables, and what becomes of them.

use std::net::SocketAddr;
use std::time::Duration;

use super::flags::Takes;
use super::*;
use crate::env::Place;
use crate::env::tokio::Machine;
use crate::member::InitialState;
use crate::member::compactor::AutoCompaction;
use crate::member::tokens::TokenKind;
use crate::peer::Patience;
use crate::tls::Listen;
use crate::tls::suites::Version;
use crate::trace;

fn no_file(path: &str) -> io::Result<String> {
    panic!("{path} is read")
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn run(line: &str, variables: &[(&str, &str)]) -> Result<(Config, Vec<Notice>), ConfigError> {
    let variables: Vec<_> =
        variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    match parse(&words(line), &variables, no_file)? {
        (Command::Run(config), notices) => Ok((*config, notices)),
        (Command::Print(text), _) => panic!("{line} printed {text}"),
    }
}

fn config(line: &str) -> Config {
    run(line, &[]).unwrap_or_else(|error| panic!("{line}: {error}")).0
}

fn usage_error(line: &str) -> String {
    match run(line, &[]) {
        Err(ConfigError::Usage(text)) => text,
        other => panic!("{line}: {other:?}"),
    }
}

fn invalid(line: &str) -> String {
    match run(line, &[]) {
        Err(ConfigError::Invalid(text)) => text,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn no_flags_give_etcds_defaults() {
    let config = config("");
    assert_eq!(config.server.member.name, "default");
    assert_eq!(config.server.member.data_dir.to_str(), Some("default.etcd"));
    assert_eq!(config.server.member.wal_dir().to_str(), Some("default.etcd/member/wal"));
    let local = |port| Listen::from(SocketAddr::from(([127, 0, 0, 1], port)));
    assert_eq!(config.server.listen_client, [local(2379)]);
    assert_eq!(config.server.member.listen_peer, [local(2380)]);
    assert!(
        !config.server.tls.has_certificate() && !config.server.member.peer_tls.has_certificate()
    );
    assert_eq!(config.server.member.advertise_client_urls[0], "http://localhost:2379");
    assert_eq!(config.initial_cluster.to_string(), "default=http://localhost:2380");
    assert_eq!(config.server.member.initial_cluster_token, "etcd-cluster");
    assert_eq!(config.server.member.heartbeat, Duration::from_millis(100));
    assert_eq!(config.server.member.election_timeout, Duration::from_secs(1));
    assert_eq!(config.server.member.quota_bytes, Some(2 << 30));
    assert_eq!(config.server.member.request_bytes_max, 1_572_864);
    assert_eq!(config.server.member.txn_ops_max, 128);
    assert_eq!(config.server.concurrent_streams_max, u32::MAX);
    assert_eq!(config.server.member.watch_progress_interval, Duration::from_secs(600));
    assert!(config.server.member.pre_vote);
    assert_eq!(config.server.member.initial_state, InitialState::New);
    assert_eq!(config.check_first_start(), Ok(()));
}

#[test]
fn gos_syntax_is_read() {
    let config =
        config("-name a --data-dir=d=e --pre-vote=F --name b --pre-vote -max-txn-ops 0x10");
    assert_eq!(config.server.member.name, "b");
    assert_eq!(config.server.member.data_dir.to_str(), Some("d=e"));
    assert!(config.server.member.pre_vote);
    assert_eq!(config.server.member.txn_ops_max, 16);

    assert_eq!(usage_error("--nam x"), "flag provided but not defined: -nam");
    assert_eq!(usage_error("--name"), "flag needs an argument: -name");
    assert_eq!(usage_error("---name x"), "bad flag syntax: ---name");
    assert_eq!(
        usage_error("--max-txn-ops x"),
        "invalid value \"x\" for flag -max-txn-ops: parse error"
    );
    assert_eq!(
        usage_error("--pre-vote=x"),
        "invalid boolean value \"x\" for -pre-vote: parse error"
    );
    assert_eq!(
        usage_error("--initial-cluster-state old"),
        "invalid value \"old\" for flag -initial-cluster-state: invalid value"
    );
    assert_eq!(invalid("--pre-vote false"), "\"false\" is not a valid flag");
    assert_eq!(invalid("-- --name"), "\"--name\" is not a valid flag");
    // Commands are no flags; the program looks for them first.
    assert_eq!(invalid("gateway start"), "\"gateway\" is not a valid flag");
}

#[test]
fn help_and_version_are_printed() {
    let printed = |line| match parse(&words(line), &[], no_file) {
        Ok((Command::Print(text), _)) => text,
        other => panic!("{line}: {other:?}"),
    };
    for line in ["-h", "--help", "--name x -help --junk"] {
        assert!(printed(line).contains("  --listen-client-urls 'http://localhost:2379'\n"));
    }
    let version = printed("--version --cert-file x");
    assert!(version.starts_with("etcd Version: 3.7.1\nGit SHA: "), "{version}");
    assert!(version.ends_with("\nquorate Version: 0.1.0\n"), "{version}");
}

/// As from an empty variable of a script.
#[test]
fn flags_of_urls_without_any_have_the_default() {
    let line = "--listen-client-urls= --advertise-client-urls= --listen-peer-urls= \
                --initial-advertise-peer-urls=";
    assert_eq!(config(line).server.listen_client, config("").server.listen_client);
    assert_eq!(config(line).server.member.listen_peer, config("").server.member.listen_peer);
    assert_eq!(
        invalid("--listen-client-urls="),
        "--advertise-client-urls is required when --listen-client-urls is set explicitly"
    );
}

#[test]
fn one_port_for_everything_is_no_recommendation() {
    let has = |line| run(line, &[]).expect("valid").1.contains(&Notice::SinglePort);
    assert!(has(""));
    assert!(!has("--listen-client-http-urls http://127.0.0.1:1"));
}

#[test]
fn variables_stand_for_flags() {
    let variables = [
        ("ETCD_NAME", "v"),
        ("ETCD_PRE_VOTE", "false"),
        ("ETCD_NO_SUCH", "1"),
        ("ETCD_DATA_DIR", ""),
        ("etcd_name", "x"),
        ("PATH", "/bin"),
    ];
    let (config, notices) = run("--data-dir d", &variables[..3]).expect("valid");
    assert_eq!(config.server.member.name, "v");
    assert!(!config.server.member.pre_vote);
    let unknown = Notice::UnknownVariable { name: "ETCD_NO_SUCH".into(), value: "1".into() };
    assert!(notices.contains(&unknown), "{notices:?}");

    let (config, notices) = run("", &variables).expect("an empty variable counts as absent");
    assert_eq!(config.server.member.data_dir.to_str(), Some("v.etcd"));
    assert!(notices.contains(&Notice::DefaultDataDir("v.etcd".into())));

    let special = ("ETCD_VERSION", "true");
    let (_, notices) = run("", &[special]).expect("it is no flag's");
    assert!(notices.contains(&Notice::SpecialVariable { value: "true".into() }));

    let both = run("--name x", &variables).expect_err("flag and variable at once");
    assert_eq!(
        both.to_string(),
        "conflicting environment variable is shadowed by corresponding command-line flag (either \
         unset environment variable or disable flag): ETCD_NAME"
    );
    let bad = run("", &[("ETCD_MAX_TXN_OPS", "x")]).expect_err("not a number");
    assert_eq!(bad.to_string(), "invalid value \"x\" for ETCD_MAX_TXN_OPS: parse error");
}

#[test]
fn profiles_are_served_when_enabled_and_at_level_debug() {
    let serves = |line| config(line).pprof;
    assert!(serves("--enable-pprof") && serves("--log-level debug"));
    assert!(!serves("") && !serves("--enable-pprof=false"));
}

#[test]
fn what_etcd_ignores_is_ignored() {
    config("--discovery-token= --metrics basic");
    let (_, notices) = run("--force --snapshot", &[]).expect("etcd ignores these");
    assert!(notices.contains(&Notice::IgnoredFlag("force")));
}

#[test]
fn ways_to_find_members_exclude_each_other() {
    let conflict = "multiple discovery or bootstrap flags are set. Choose one of \
                    \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"";
    let both = "both --discovery-token and --discovery-endpoints must be set";
    assert_eq!(invalid("--discovery-srv a.b --initial-cluster default=http://a:1"), conflict);
    assert_eq!(invalid("--discovery-srv a.b --discovery-endpoints a:1"), conflict);
    assert_eq!(invalid("--discovery-endpoints a:1"), both);
    assert_eq!(invalid("--discovery-token x"), both);
    assert_eq!(
        invalid("--discovery-token x --discovery-endpoints a:1,,b:1"),
        "--discovery-endpoints must not contain empty endpoints"
    );
    assert_eq!(
        invalid("--discovery-fallback proxy --log-level loud"),
        "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\""
    );
    assert_eq!(
        usage_error("--discovery-fallback x"),
        "invalid value \"x\" for flag -discovery-fallback: invalid value"
    );
}

#[test]
fn members_meet_at_another_etcd() {
    let line = "--name m1 --discovery-token tok --discovery-endpoints http://b:1,http://a:1 \
                --discovery-user ann --discovery-password secret --discovery-dial-timeout 1s";
    let found = config(line);
    let discovery = found.discovery.expect("it is given");
    assert_eq!(discovery.endpoints, ["http://a:1", "http://b:1"]);
    assert_eq!(discovery.user, Some(("ann".into(), "secret".into())));
    assert_eq!((discovery.dial_timeout, discovery.tls), (Duration::from_secs(1), None));
    assert_eq!(found.initial_cluster.to_string(), "m1=http://localhost:2380");
    assert_eq!(found.server.member.initial_cluster_token, "tok");
    let secure = "--discovery-token t --discovery-endpoints a:1 --discovery-cacert ca.pem";
    let tls = config(secure).discovery.expect("it is given").tls.expect("it is secured");
    assert_eq!(tls.trusted_ca_file.to_str(), Some("ca.pem"));
    assert_eq!(config("").discovery, None);
}

#[test]
fn members_are_named_by_dns() {
    let found = config("--name m1 --discovery-srv example.com --discovery-srv-name blue");
    let (domain, suffix) = ("example.com".into(), "blue".into());
    assert_eq!(found.srv, Some(Srv { domain, suffix }));
    assert_eq!(found.initial_cluster.to_string(), "m1=http://localhost:2380");
    // As in etcd, the suffix alone is enough to forget the default.
    let nobody = config("--discovery-srv-name blue");
    assert_eq!((nobody.srv.clone(), nobody.initial_cluster.to_string()), (None, String::new()));
    assert!(nobody.check_first_start().is_err());
}

#[test]
fn flags_without_effect_are_checked_and_noticed() {
    assert!(without_effect::is_consistent());
    let line = "--max-snapshots 7 --max-wals 9 --backend-batch-limit 5 --backend-batch-interval -1s \
                --backend-bbolt-freelist-type array --v2-deprecation gone,write-only \
                --bootstrap-defrag-threshold-megabytes 100 --downgrade-check-time 1m";
    let (_, notices) = run(line, &[]).expect("etcd takes these");
    let text = "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.";
    assert!(notices.contains(&Notice::Deprecated(text)));
    let told = |notice: &&Notice| matches!(notice, Notice::WithoutEffect { .. });
    assert_eq!(notices.iter().filter(told).count(), 6, "{notices:?}");
    assert_eq!(
        usage_error("--v2-deprecation not-yet"),
        "invalid value \"not-yet\" for flag -v2-deprecation: invalid value \"not-yet\""
    );
    assert_eq!(
        usage_error("--backend-batch-limit x"),
        "invalid value \"x\" for flag -backend-batch-limit: parse error"
    );
}

#[test]
fn what_is_traced_is_checked_when_anything_is() {
    let on = |flags: &str| format!("--enable-distributed-tracing {flags}");
    let told = |flags: &str| invalid(&on(flags));
    let text = |why| format!("distributed tracing configurition is not valid: ({why})");
    assert_eq!(
        told("--distributed-tracing-sampling-rate -1"),
        text("tracing sampling rate must be positive")
    );
    assert_eq!(
        told("--distributed-tracing-sampling-rate 1000001"),
        text("tracing sampling rate must be less than 1000000")
    );
    assert_eq!(
        told("--distributed-tracing-address collector"),
        text("address \"collector\": no port")
    );
    assert_eq!(
        told("--distributed-tracing-address https://collector:1"),
        text("address \"https://collector:1\": TLS is not spoken")
    );
    let off = "--distributed-tracing-sampling-rate -1 --distributed-tracing-address collector";
    assert_eq!(config(off).server_options().tracing, None);
    let usual = config(&on("")).server_options().tracing.expect("it is on");
    let settings = |collector: &str, service_name: &str, instance_id: &str, per_million| {
        let (service_name, instance_id) = (service_name.into(), instance_id.into());
        trace::Settings { collector: collector.into(), service_name, instance_id, per_million }
    };
    assert_eq!(usual, settings("localhost:4317", "etcd", "", 0));
    let given = "--distributed-tracing-address c:1 --distributed-tracing-service-name s \
                 --distributed-tracing-instance-id m0 --distributed-tracing-sampling-rate 1000000";
    let given = config(&on(given)).server_options().tracing.expect("it is on");
    assert_eq!(given, settings("c:1", "s", "m0", 1_000_000));
}

#[test]
fn flags_about_sockets_and_syncs_set_the_machine() {
    assert_eq!(config("").machine, Machine::default());
    assert!(config("--socket-reuse-port --socket-reuse-address").machine.reuse_port);
    let (unsafe_config, notices) = run("--unsafe-no-fsync", &[]).expect("a valid line");
    assert!(unsafe_config.machine.no_sync && notices.contains(&Notice::NoSync));
    let peers = "--initial-advertise-peer-urls http://127.0.0.1:1,http://10.0.0.7:1,http://name:1";
    assert_eq!(config(peers).machine.local_address, None);
    let gate = format!("{peers} --feature-gates SetMemberLocalAddr=true");
    assert_eq!(config(&gate).machine.local_address, Some([10, 0, 0, 7].into()));
    let slow = config("--compaction-batch-limit 10 --compaction-sleep-interval 1s");
    let options = slow.server_options().member;
    assert_eq!((options.compaction_step, options.compaction_pause), (10, Duration::from_secs(1)));
}

#[test]
fn peers_have_five_seconds_at_least() {
    let patience = |line| config(line).server.member.peer_patience;
    assert_eq!(patience(""), Patience::default());
    let (config, notices) = run("--raft-read-timeout 1s --raft-write-timeout 9s", &[])
        .expect("less than the least is raised");
    assert_eq!(config.server.member.peer_patience.read, Duration::from_secs(5));
    assert_eq!(config.server.member.peer_patience.write, Duration::from_secs(9));
    assert!(notices.contains(&Notice::RaisedTimeout("raft-read-timeout")), "{notices:?}");
    assert!(!notices.contains(&Notice::RaisedTimeout("raft-write-timeout")), "{notices:?}");
}

#[test]
fn more_than_etcd_recommends_is_noticed() {
    // What stores of volumes and of lightning channels are configured with.
    let large = config("--max-request-bytes 104857600 --max-txn-ops 16384");
    assert_eq!(large.server.member.request_bytes_max, 104_857_600);
    assert_eq!(
        invalid("--max-request-bytes 268435457"),
        "--max-request-bytes must not be above 268435456 (set to 268435457)"
    );
    let (_, notices) = run("--max-request-bytes 20000000", &[]).expect("a valid line");
    assert!(notices.contains(&Notice::LargeRequests(20_000_000)));
    let (_, notices) = run("--quota-backend-bytes 9000000000", &[]).expect("a valid line");
    assert!(notices.contains(&Notice::LargeQuota(9_000_000_000)));
}

#[test]
fn tokens_and_hashes_follow_their_flags() {
    let ttl = Duration::from_secs(300);
    assert_eq!(config("").server.member.tokens, TokenKind::Simple { ttl });
    assert_eq!(config("").server.member.bcrypt_cost, 10);
    assert_eq!(config("--bcrypt-cost 4 --auth-token-ttl 7").server.member.bcrypt_cost, 4);
    // As in etcd a cost that there is not is passed over, loudly.
    for cost in [0, 3, 32] {
        let (config, notices) = run(&format!("--bcrypt-cost {cost}"), &[]).expect("no error");
        assert_eq!(config.server.member.bcrypt_cost, 10);
        assert!(notices.contains(&Notice::BcryptCost(cost)), "{notices:?}");
    }
    assert_eq!(invalid("--auth-token nonsense"), "auth: invalid auth options");
    assert_eq!(invalid("--auth-token jwt"), "auth: invalid auth options");
}

#[test]
fn auto_compaction_keeps_time_or_revisions() {
    let kept = |line| config(line).server.member.auto_compaction;
    let minutes = |minutes: u64| Some(AutoCompaction::Age(Duration::from_secs(60 * minutes)));
    assert_eq!(kept(""), None);
    assert_eq!(kept("--auto-compaction-retention 0s"), None);
    assert_eq!(kept("--auto-compaction-retention 2"), minutes(120));
    assert_eq!(kept("--auto-compaction-retention 5m"), minutes(5));
    let by_number = "--auto-compaction-mode revision --auto-compaction-retention 1000";
    assert_eq!(kept(by_number), Some(AutoCompaction::Count(1000)));
    assert_eq!(invalid("--auto-compaction-mode="), "undefined auto-compaction-mode");
    assert_eq!(invalid("--auto-compaction-mode x"), "unknown auto-compaction-mode \"x\"");
    for (retention, why) in [
        ("x", "invalid duration"),
        ("1d", "unknown unit \"d\" in duration"),
        ("1.5", "missing unit in duration"),
    ] {
        assert_eq!(
            invalid(&format!("--auto-compaction-retention {retention}")),
            format!("error parsing CompactionRetention: time: {why} \"{retention}\"")
        );
    }
}

#[test]
fn rules_across_flags_are_etcds() {
    assert_eq!(
        invalid("--listen-client-urls http://0.0.0.0:2379"),
        "--advertise-client-urls is required when --listen-client-urls is set explicitly"
    );
    assert_eq!(
        invalid("--election-timeout 400"),
        "--election-timeout[400ms] should be at least as 5 times as --heartbeat-interval[100ms]"
    );
    assert_eq!(
        invalid("--election-timeout 50001"),
        "--election-timeout[50001ms] is too long, and should be set less than 50000ms"
    );
    assert_eq!(invalid("--heartbeat-interval 0"), "--heartbeat-interval must be >0 (set to 0ms)");
    assert_eq!(
        invalid("--listen-peer-urls http://node1:2380"),
        "expected IP in URL for binding (http://node1:2380)"
    );
    assert_eq!(
        invalid("--advertise-client-urls http://:2379"),
        "--advertise-client-urls \"http://:2379\" must be in the format \"host:port\", \
         \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" (unexpected empty host (http://:2379))"
    );
    assert_eq!(
        invalid("--initial-cluster a=ftp://b:1"),
        "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ftp://b:1"
    );
    assert_eq!(invalid("--log-level loud"), "unrecognized level: \"loud\"");
    config("--log-level INFO");
    assert_eq!(
        usage_error("--max-concurrent-streams x"),
        "invalid value \"x\" for flag -max-concurrent-streams: strconv.ParseUint: parsing \
         \"x\": invalid syntax"
    );
    assert_eq!(
        usage_error("--feature-gates x=true"),
        "invalid value \"x=true\" for flag -feature-gates: unrecognized feature gate: x"
    );
    assert_eq!(
        invalid("--log-format xml"),
        "unknown log format: xml, supported values json, console"
    );
    let outputs = "--log-outputs /var/log/x --enable-log-rotation";
    assert_eq!(config(outputs).log.outputs, [log::Output::File("/var/log/x".into())]);
    assert!(config(outputs).log.rotation.is_some());
    assert_eq!(
        invalid("--log-outputs stderr,default"),
        "multi logoutput for \"default\" is not supported yet"
    );
    assert_eq!(config("--quota-backend-bytes -1").server.member.quota_bytes, None);
    assert_eq!(config("--snapshot-count 0").server.member.snapshot_count, 10_000);
}

#[test]
fn the_initial_cluster_follows_the_name_alone() {
    let named = config("--name a");
    assert_eq!(named.initial_cluster.to_string(), "a=http://localhost:2380");
    let urls = config("--name a --initial-advertise-peer-urls http://x:1,http://w:2");
    assert_eq!(urls.initial_cluster.to_string(), "a=http://w:2,a=http://x:1");
    assert_eq!(urls.check_first_start(), Ok(()));
}

#[test]
fn a_first_start_checks_the_initial_cluster() {
    let error = |line| config(line).check_first_start().expect_err(line).to_string();
    assert_eq!(
        error("--name a --initial-cluster b=http://x:1"),
        "couldn't find local name \"a\" in the initial cluster configuration"
    );
    assert_eq!(
        error("--name a --initial-cluster a=http://x:1"),
        "--initial-cluster has a=http://x:1 but missing from \
         --initial-advertise-peer-urls=http://localhost:2380 \
         (resolved urls: \"http://localhost:2380\" != \"http://x:1\")"
    );
    assert_eq!(
        error(
            "--name a --initial-cluster a=http://x:1 \
               --initial-advertise-peer-urls http://x:1,http://y:1"
        ),
        "--initial-advertise-peer-urls has http://y:1 but missing from \
         --initial-cluster=a=http://x:1,a=http://y:1"
    );
    assert_eq!(
        error("--name a --initial-cluster a=http://localhost:2380,a=http://localhost:2380"),
        "failed to resolve http://localhost:2380 to match --initial-cluster=a=http://localhost:2380 \
         (len([\"http://localhost:2380\"]) != len([\"http://localhost:2380\" \
         \"http://localhost:2380\"]))"
    );
    assert_eq!(
        error("--name a --initial-cluster a=http://localhost:2380,b=http://localhost:2380"),
        "initial cluster a=http://localhost:2380,b=http://localhost:2380 has duplicate url"
    );
    let joining = config(
        "--name a --initial-cluster a=http://x:1,b=http://y:1 --initial-cluster-state existing",
    );
    assert_eq!(joining.check_first_start(), Ok(()), "the cluster knows the URLs already");
    let local = config("--initial-advertise-peer-urls http://127.0.0.1:2380");
    assert_eq!(local.check_first_start(), Ok(()), "localhost is 127.0.0.1");
}

/// Names stand once, and the tables together are etcd's flags.
#[test]
fn the_table_is_complete() {
    let mut names: Vec<_> = flags::all().map(|flag| flag.name).collect();
    assert!(names.contains(&"max-cluster-version"));
    names.retain(|name| *name != "max-cluster-version");
    assert_eq!(names.len(), 113 + 15, "flags that live in etcd 3.7, and those it ignores");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 113 + 15);
}

/// What etcd declares each flag to be: files have it in that form.
#[test]
fn flags_take_what_they_take_in_etcd() {
    let kinds = [
        (
            Takes::Bool,
            "auto-tls client-cert-auth discovery-insecure-skip-tls-verify \
             discovery-insecure-transport enable-distributed-tracing enable-grpc-gateway \
             enable-log-rotation enable-pprof force-new-cluster initial-election-tick-advance \
             memory-mlock peer-auto-tls peer-client-cert-auth peer-skip-client-san-verification \
             pre-vote socket-reuse-address socket-reuse-port strict-reconfig-check \
             unsafe-no-fsync version",
        ),
        (
            Takes::Uint,
            "auth-token-ttl bcrypt-cost bootstrap-defrag-threshold-megabytes election-timeout \
             heartbeat-interval max-concurrent-streams max-request-bytes max-snapshots max-txn-ops \
             max-wals self-signed-cert-validity snapshot-catchup-entries snapshot-count",
        ),
        (
            Takes::Int,
            "backend-batch-limit compaction-batch-limit distributed-tracing-sampling-rate \
             max-learners quota-backend-bytes",
        ),
        (
            Takes::Duration,
            "backend-batch-interval compact-hash-check-time compaction-sleep-interval \
             corrupt-check-time discovery-dial-timeout discovery-keepalive-time \
             discovery-keepalive-timeout discovery-request-timeout downgrade-check-time \
             grpc-keepalive-interval grpc-keepalive-min-time grpc-keepalive-timeout \
             raft-read-timeout raft-write-timeout warning-apply-duration \
             warning-unary-request-duration watch-progress-notify-interval",
        ),
        (
            Takes::List,
            "cipher-suites client-cert-allowed-hostname discovery-endpoints log-outputs \
             peer-cert-allowed-cn peer-cert-allowed-hostname",
        ),
    ];
    let of = |name: &str| {
        let found = kinds.iter().find(|(_, names)| names.split(' ').any(|other| other == name));
        found.map_or(Takes::Text, |(takes, _)| *takes)
    };
    for flag in flags::all().filter(|flag| matches!(flag.kind, Kind::Served { .. })) {
        assert_eq!(flag.takes(), of(flag.name), "{}", flag.name);
    }
}

const SECURE_CLIENTS: &str =
    "--listen-client-urls https://127.0.0.1:2379 --advertise-client-urls https://127.0.0.1:2379";
const SECURE_PEERS: &str = "--listen-peer-urls https://127.0.0.1:2380";

#[test]
fn https_needs_certificates() {
    assert_eq!(
        invalid(SECURE_CLIENTS),
        "TLS key/cert (--cert-file, --key-file) must be provided for client url \
         https://127.0.0.1:2379 with HTTPS scheme"
    );
    assert_eq!(
        invalid("--listen-client-urls unixs://m0:1 --advertise-client-urls unixs://m0:1"),
        "TLS key/cert (--cert-file, --key-file) must be provided for client url unixs://m0:1 with \
         HTTPS scheme"
    );
    assert_eq!(
        invalid(SECURE_PEERS),
        "cannot listen on TLS for 127.0.0.1:2380: KeyFile and CertFile are not presented"
    );
    assert_eq!(
        invalid("--listen-metrics-urls https://127.0.0.1:1"),
        "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"
    );
    let pair = "KeyFile and CertFile must both be present[key: , cert: c]";
    assert_eq!(invalid(&format!("{SECURE_CLIENTS} --cert-file c")), pair);
    assert_eq!(invalid("--peer-cert-file c"), pair);
    config("--cert-file c");
    assert_eq!(
        invalid("--peer-cert-file c --peer-key-file k --peer-client-key-file x"),
        "ClientKeyFile and ClientCertFile must both be present or both absent: key: x, cert: ]"
    );
    let names = "--peer-cert-allowed-cn a,b --peer-cert-allowed-hostname c";
    assert_eq!(
        invalid(&format!("{SECURE_PEERS} --peer-cert-file c --peer-key-file k {names}")),
        "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[\"a\", \"b\"], \
         hostnames=[\"c\"])"
    );

    let config = config(&format!(
        "{SECURE_CLIENTS} {SECURE_PEERS} --cert-file c --key-file k --client-cert-auth \
         --peer-cert-file pc --peer-key-file pk --peer-crl-file r --peer-cert-allowed-cn a,b"
    ));
    assert!(config.server.listen_client[0].secure && config.server.member.listen_peer[0].secure);
    assert!(config.server.tls.client_cert_auth && !config.server.member.peer_tls.client_cert_auth);
    assert_eq!(config.server.tls.cert_file.to_str(), Some("c"));
    assert_eq!(config.server.member.peer_tls.crl_file.to_str(), Some("r"));
    assert_eq!(config.server.member.peer_tls.allowed_cns, ["a", "b"]);
    assert_eq!(config.server.member.peer_tls.protocol.min, Some(Version::Tls12));
}

#[test]
fn versions_and_suites_are_checked_first() {
    assert_eq!(
        invalid("--tls-min-version TLS1.3 --tls-max-version TLS1.2"),
        "min version (TLS1.3) is greater than max version (TLS1.2)"
    );
    assert_eq!(
        invalid(&format!("{SECURE_CLIENTS} --tls-min-version TLS1.1")),
        "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)"
    );
    assert_eq!(invalid("--cipher-suites x"), "unexpected TLS cipher suite \"x\"");
    assert_eq!(
        invalid("--tls-min-version TLS1.3 --cipher-suites x"),
        "cipher suites cannot be configured when only TLS1.3 is enabled"
    );
}

#[test]
fn certificates_are_made_where_none_are_given() {
    let line = format!("--name a --auto-tls --peer-auto-tls {SECURE_CLIENTS} {SECURE_PEERS}");
    let made = config(&format!("{line} --self-signed-cert-validity 3"));
    let client = made.server.tls.generate.expect("made");
    assert_eq!(client.dir.to_str(), Some("a.etcd/fixtures/client"));
    assert_eq!((client.hosts.join(","), client.years), ("127.0.0.1".into(), 3));
    let peer = made.server.member.peer_tls.generate.expect("made");
    assert_eq!(peer.dir.to_str(), Some("a.etcd/fixtures/peer"));

    let (given, notices) = run(&format!("{line} --cert-file c --key-file k"), &[]).expect("valid");
    assert_eq!(given.server.tls.generate, None);
    let what = "ignoring client auto TLS since certs given";
    assert!(notices.contains(&Notice::IgnoredSecurity { what, url: String::new() }));
}

#[test]
fn a_made_certificate_without_a_check_of_clients_is_noticed() {
    let ignored = |flags: &str| {
        let line = format!("--name a --auto-tls --peer-auto-tls {SECURE_CLIENTS} {SECURE_PEERS}");
        let (_, notices) = run(&format!("{line} {flags}"), &[]).expect("valid");
        notices.into_iter().find_map(|notice| match notice {
            Notice::IgnoredSecurity { what, .. } => Some(what),
            _ => None,
        })
    };
    assert_eq!(ignored(""), None);
    for flags in ["--client-cert-auth", "--trusted-ca-file ca.pem"] {
        let what = ignored(flags).expect("a notice");
        assert!(what.starts_with("ignoring --client-cert-auth and --trusted-ca-file"), "{what}");
    }
    let what = ignored("--peer-client-cert-auth").expect("a notice");
    assert!(what.starts_with("ignoring --peer-client-cert-auth"), "{what}");
}

#[test]
fn notices_of_variables_hide_secrets() {
    let variables = [("ETCD_DISCOVERY_PASSWORD", "x"), ("ETCD_ROOT_PASSWORD", "y")];
    let (_, notices) = run("--name a", &variables).expect("valid");
    let shown = |name: &str| {
        notices.iter().find_map(|notice| match notice {
            Notice::UsedVariable { name: used, value } if used == name => Some(value.as_str()),
            Notice::UnknownVariable { name: unknown, value } if unknown == name => Some(value),
            _ => None,
        })
    };
    assert_eq!(shown("ETCD_DISCOVERY_PASSWORD"), Some("***"));
    assert_eq!(shown("ETCD_ROOT_PASSWORD"), Some("***"));
}

#[test]
fn a_scheme_that_ignores_certificates_is_noticed() {
    let line = "--cert-file c --key-file k --client-cert-auth --peer-client-cert-auth";
    let (_, notices) = run(line, &[]).expect("valid");
    let urls: Vec<_> = notices
        .iter()
        .filter_map(|notice| match notice {
            Notice::IgnoredSecurity { url, .. } => Some(url.as_str()),
            _ => None,
        })
        .collect();
    let (peer, client) = ("http://localhost:2380", "http://localhost:2379");
    assert_eq!(urls, [peer, client, client]);
}

#[test]
fn several_schemes_go_together() {
    let urls = "https://127.0.0.1:1,http://127.0.0.1:2,unix://m0:3";
    let line = format!("--listen-client-urls {urls} --advertise-client-urls {urls}");
    let config = config(&format!("{line} --cert-file c --key-file k"));
    let found: Vec<_> = config
        .server
        .listen_client
        .iter()
        .map(|listen| (listen.place.to_string(), listen.secure))
        .collect();
    let wanted = [("127.0.0.1:2", false), ("127.0.0.1:1", true), ("m0:3", false)];
    assert_eq!(found, wanted.map(|(place, secure)| (place.to_owned(), secure)));
    assert_eq!(config.server.listen_client[2].place, Place::Unix("m0:3".into()));
    assert_eq!(config.server.member.advertise_client_urls[0], "http://127.0.0.1:2");
}

#[test]
fn http_has_addresses_of_its_own_if_wanted() {
    let config = config("--listen-client-http-urls http://127.0.0.1:1,http://127.0.0.1:2");
    let ports: Vec<_> =
        config.server.listen_client_http.iter().filter_map(Listen::address).collect();
    assert_eq!(ports.len(), 2);
    assert_eq!(
        invalid("--listen-client-http-urls http://127.0.0.1:1,http://127.0.0.1:2379"),
        "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url \
         http://127.0.0.1:2379"
    );
    assert_eq!(
        invalid("--listen-client-http-urls https://127.0.0.1:1"),
        "TLS key/cert (--cert-file, --key-file) must be provided for client url \
         https://127.0.0.1:1 with HTTPS scheme"
    );
    let server = config.server_options();
    assert_eq!(server.listen_client_http, config.server.listen_client_http);
    assert!(server.gateway && !server.time_calls);
}

#[test]
fn origins_and_hosts_of_http_are_lists() {
    let access = |line: &str| config(line).server.access;
    let all = access("");
    assert_eq!((all.origins.len(), all.hosts.len()), (1, 1));
    assert!(all.origins.contains("*") && all.hosts.contains("*"));
    let some = access("--cors http://b:1,http://a:2 --host-whitelist=b,a,b");
    assert_eq!(Vec::from_iter(some.origins), ["http://a:2", "http://b:1"]);
    assert_eq!(Vec::from_iter(some.hosts), ["a", "b"]);
    assert_eq!(
        usage_error("--cors a"),
        "invalid value \"a\" for flag -cors: URL scheme must be http, https, unix, or unixs: a"
    );
    assert!(
        config("--metrics extensive").server.time_calls
            && !config("--metrics=any").server.time_calls
    );
    assert!(!config("--enable-grpc-gateway=false").server.gateway);
}
