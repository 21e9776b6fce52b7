//! The table of flags, one row a flag: name, default, help and what it sets. Rows are in the order of
//! `--help`. What a value means together with others is not known here.

use std::collections::BTreeSet;

use super::gates::Gates;
use super::urls::Url;
use super::{Values, discovery, go, security, without_effect};

const PEER_URLS: &str = "http://localhost:2380";
const CLIENT_URLS: &str = "http://localhost:2379";

/// One flag.
pub(super) struct Flag {
    pub name: &'static str,
    pub group: Group,
    pub kind: Kind,
    /// As one would write it on the command line.
    pub default: &'static str,
    pub help: &'static str,
}

/// A heading of `--help`; etcd's, in etcd's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Member,
    Clustering,
    Security,
    Auth,
    Profiling,
    Logging,
    Tracing,
    Features,
    Unsafe,
    Others,
    Hidden,
}

/// What a flag takes: as a literal on the command line and in a variable, as a YAML node in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// True when no value follows.
    Bool,
    /// In files also a number or a boolean, which stands for its text.
    Text,
    Int,
    Uint,
    /// In files an integer: nanoseconds.
    Duration,
    /// Separated by commas; in files a sequence.
    List,
}

/// What becomes of a flag's value.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Served {
        takes: Takes,
        set: Setter,
    },
    /// etcd itself takes and ignores it.
    Ignored,
}

type Setter = fn(&mut Values, &str) -> Result<(), String>;

impl Flag {
    pub fn takes(&self) -> Takes {
        match self.kind {
            Kind::Served { takes, .. } => takes,
            // etcd declares those that it ignores to take "true" when nothing follows.
            Kind::Ignored => Takes::Bool,
        }
    }

    pub fn is_bool(&self) -> bool {
        self.takes() == Takes::Bool
    }

    /// An error describes what is wrong with the value.
    pub(crate) fn set(&self, values: &mut Values, value: &str) -> Result<(), String> {
        match self.kind {
            Kind::Served { set, .. } => set(values, value)?,
            Kind::Ignored => {}
        }
        values.given.insert(self.name);
        Ok(())
    }
}

pub(super) fn find(name: &str) -> Option<&'static Flag> {
    TABLES.iter().flat_map(|table| table.iter()).find(|flag| flag.name == name)
}

pub(super) fn is_ignored(name: &str) -> bool {
    find(name).is_some_and(|flag| matches!(flag.kind, Kind::Ignored))
}

pub(super) fn all() -> impl Iterator<Item = &'static Flag> {
    TABLES.iter().flat_map(|table| table.iter())
}

/// Every flag at its default.
pub(super) fn defaults() -> Values {
    let mut values = Values::default();
    for flag in all() {
        let Kind::Served { set, .. } = flag.kind else { continue };
        set(&mut values, flag.default).expect("a default is a value that its flag takes");
    }
    values
}

const TABLES: [&[Flag]; 5] =
    [SERVED, discovery::FLAGS, security::FLAGS, without_effect::FLAGS, IGNORED];

/// A row: group, name, what it takes (text when that is left out), default, setter, help.
macro_rules! served {
    ($group:ident, $name:literal, $default:expr, $set:expr, $help:literal) => {
        served!(@ $group, $name, Text, $default, $set, $help)
    };
    ($group:ident, $name:literal, bool, $default:expr, $set:expr, $help:literal) => {
        served!(@ $group, $name, Bool, $default, $set, $help)
    };
    ($group:ident, $name:literal, int, $default:expr, $set:expr, $help:literal) => {
        served!(@ $group, $name, Int, $default, $set, $help)
    };
    ($group:ident, $name:literal, uint, $default:expr, $set:expr, $help:literal) => {
        served!(@ $group, $name, Uint, $default, $set, $help)
    };
    ($group:ident, $name:literal, duration, $default:expr, $set:expr, $help:literal) => {
        served!(@ $group, $name, Duration, $default, $set, $help)
    };
    ($group:ident, $name:literal, list, $default:expr, $set:expr, $help:literal) => {
        served!(@ $group, $name, List, $default, $set, $help)
    };
    (@ $group:ident, $name:literal, $takes:ident, $default:expr, $set:expr, $help:literal) => {
        $crate::config::flags::Flag {
            name: $name,
            group: $crate::config::flags::Group::$group,
            kind: $crate::config::flags::Kind::Served {
                takes: $crate::config::flags::Takes::$takes,
                set: $set,
            },
            default: $default,
            help: $help,
        }
    };
}

/// Stores the value of a literal, or passes on why it is none.
macro_rules! set {
    ($($field:ident).+, $read:expr) => {
        |values, text| {
            values.$($field).+ = $read(text)?;
            Ok(())
        }
    };
}
pub(super) use {served, set};

pub(super) fn text(value: &str) -> Result<String, String> {
    Ok(value.to_owned())
}

/// As etcd keeps most lists: sorted, without repetitions.
fn list(value: &str) -> Result<Vec<String>, String> {
    let mut parts: Vec<String> = value.split(',').map(str::to_owned).collect();
    parts.sort();
    parts.dedup();
    Ok(parts)
}

/// URLs; of an empty text the default, as in etcd.
fn peer_urls(value: &str) -> Result<Vec<Url>, String> {
    Url::parse_list(if value.is_empty() { PEER_URLS } else { value })
}

/// The same, of clients.
fn client_urls(value: &str) -> Result<Vec<Url>, String> {
    Url::parse_list(if value.is_empty() { CLIENT_URLS } else { value })
}

fn unique(value: &str) -> Result<BTreeSet<String>, String> {
    Ok(value.split(',').map(str::to_owned).collect())
}

/// `*`, or URLs.
fn origins(value: &str) -> Result<BTreeSet<String>, String> {
    match value {
        "*" => unique(value),
        urls => Ok(Url::parse_list(urls)?.iter().map(Url::to_string).collect()),
    }
}

/// A version that a cluster may have, `major.minor`, or none.
fn cluster_version(value: &str) -> Result<String, String> {
    one_of(&["", "3.5", "3.6", "3.7"], value)
}

fn state(value: &str) -> Result<String, String> {
    one_of(&["new", "existing"], value)
}

pub(super) fn one_of(values: &[&str], value: &str) -> Result<String, String> {
    values.contains(&value).then(|| value.to_owned()).ok_or_else(|| "invalid value".into())
}

const SERVED: &[Flag] = &[
    served!(Member, "name", "default", set!(name, text), "Human-readable name for this member."),
    served!(
        Member,
        "data-dir",
        "",
        set!(data_dir, text),
        "Path to the data directory; ${name}.etcd when empty."
    ),
    served!(
        Member,
        "wal-dir",
        "",
        set!(wal_dir, text),
        "Path to a directory of its own for the log; data-dir/member/wal when empty."
    ),
    served!(
        Member,
        "snapshot-count",
        uint,
        "10000",
        set!(snapshot_count, go::uint),
        "Applied entries after which the state is flushed and the log may be cut."
    ),
    served!(
        Features,
        "snapshot-catchup-entries",
        uint,
        "5000",
        set!(catchup_entries, go::uint),
        "Log entries kept below the flushed state for followers that lag."
    ),
    served!(
        Member,
        "heartbeat-interval",
        uint,
        "100",
        set!(heartbeat_ms, go::uint),
        "Time between a leader's heartbeats, milliseconds."
    ),
    served!(
        Member,
        "election-timeout",
        uint,
        "1000",
        set!(election_ms, go::uint),
        "Time without a leader after which an election starts, milliseconds."
    ),
    served!(
        Member,
        "initial-election-tick-advance",
        bool,
        "true",
        set!(initial_election_tick_advance, go::bool),
        "Start with most of the first election timeout already counted."
    ),
    served!(
        Member,
        "listen-peer-urls",
        PEER_URLS,
        set!(listen_peer, peer_urls),
        "URLs to listen on for other members."
    ),
    served!(
        Member,
        "listen-client-urls",
        CLIENT_URLS,
        set!(listen_client, client_urls),
        "URLs to listen on for clients, gRPC and HTTP."
    ),
    served!(
        Member,
        "listen-client-http-urls",
        "",
        set!(listen_client_http, Url::parse_list_or_none),
        "URLs to listen on for HTTP only; --listen-client-urls are for gRPC only then."
    ),
    served!(
        Profiling,
        "listen-metrics-urls",
        "",
        set!(listen_metrics, Url::parse_list_or_none),
        "Further URLs to listen on, for metrics and health only."
    ),
    served!(
        Member,
        "quota-backend-bytes",
        int,
        "0",
        set!(quota_bytes, go::int),
        "Live bytes above which writes are refused; 0 for 2 GiB, negative for no bound."
    ),
    served!(
        Member,
        "max-txn-ops",
        uint,
        "128",
        set!(txn_ops_max, go::uint_as),
        "Operations permitted in one transaction."
    ),
    served!(
        Member,
        "max-request-bytes",
        uint,
        "1572864",
        set!(request_bytes_max, go::uint_as),
        "Largest request accepted, bytes."
    ),
    served!(
        Member,
        "max-concurrent-streams",
        uint,
        "4294967295",
        set!(concurrent_streams_max, go::bare_uint_as),
        "Streams that one client connection may have open."
    ),
    served!(
        Member,
        "grpc-keepalive-min-time",
        duration,
        "5s",
        set!(ping_time_min, go::delay),
        "Time that clients must leave between two pings, or be sent away; 0 for gRPC's five minutes."
    ),
    served!(
        Member,
        "grpc-keepalive-interval",
        duration,
        "2h",
        set!(keep_alive_interval, go::delay),
        "Time between pings of a client's connection; 0 for the default."
    ),
    served!(
        Member,
        "grpc-keepalive-timeout",
        duration,
        "20s",
        set!(keep_alive_timeout, go::delay),
        "Time after an unanswered ping until the connection is closed; 0 for the default."
    ),
    served!(
        Clustering,
        "initial-advertise-peer-urls",
        PEER_URLS,
        set!(advertise_peer, peer_urls),
        "This member's peer URLs, as the other members use them."
    ),
    served!(
        Clustering,
        "initial-cluster",
        "default=http://localhost:2380",
        set!(initial_cluster, text),
        "Names and peer URLs of the first members: name=url[,name=url...]."
    ),
    served!(
        Clustering,
        "initial-cluster-state",
        "new",
        set!(initial_state, state),
        "Whether a member without data starts a cluster ('new') or joins one ('existing')."
    ),
    served!(
        Clustering,
        "initial-cluster-token",
        "etcd-cluster",
        set!(initial_cluster_token, text),
        "Keeps clusters with the same URLs apart."
    ),
    served!(
        Clustering,
        "advertise-client-urls",
        CLIENT_URLS,
        set!(advertise_client, client_urls),
        "This member's client URLs, as clients use them."
    ),
    served!(
        Clustering,
        "pre-vote",
        bool,
        "true",
        set!(pre_vote, go::bool),
        "Ask whether an election could be won before starting one."
    ),
    served!(
        Clustering,
        "strict-reconfig-check",
        bool,
        "true",
        set!(strict_reconfig_check, go::bool),
        "Refuse changes of the membership that would endanger the quorum."
    ),
    served!(
        Features,
        "max-learners",
        int,
        "1",
        set!(learners_max, go::uint_as),
        "Learners that the cluster may have; must be the same on all members."
    ),
    served!(
        Clustering,
        "max-cluster-version",
        "",
        set!(cluster_version_max, cluster_version),
        "Hold the cluster's version at this one (3.5, 3.6), so that members of that etcd can return. \
         Quorate's own flag."
    ),
    served!(
        Unsafe,
        "force-new-cluster",
        bool,
        "false",
        set!(force_new_cluster, go::bool),
        "Begin a cluster of this member alone, with the data that it has."
    ),
    served!(Logging, "logger", "zap", set!(logger, text), "Log format family; only 'zap'."),
    served!(
        Logging,
        "log-outputs",
        list,
        "default",
        set!(log_outputs, list),
        "Where log lines go: default (which is stderr), stdout, systemd/journal, or files."
    ),
    served!(
        Logging,
        "enable-log-rotation",
        bool,
        "false",
        set!(log_rotation, go::bool),
        "Put the log file aside when it is large."
    ),
    served!(
        Logging,
        "log-rotation-config-json",
        r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#,
        set!(log_rotation_config, text),
        "Megabytes, days and number of files; 0 for no bound. Times are UTC, nothing is compressed."
    ),
    served!(
        Logging,
        "log-level",
        "info",
        set!(log_level, text),
        "Least severe level logged: debug, info, warn, error, panic or fatal."
    ),
    served!(
        Logging,
        "warning-unary-request-duration",
        duration,
        "300ms",
        set!(unary_warning, go::delay),
        "A unary call that takes longer is logged."
    ),
    served!(
        Profiling,
        "metrics",
        "basic",
        set!(metrics, text),
        "'extensive' shows the time of gRPC calls as well."
    ),
    served!(
        Features,
        "warning-apply-duration",
        duration,
        "100ms",
        set!(apply_warning, go::delay),
        "An entry or a read that takes longer is logged."
    ),
    served!(Logging, "log-format", "json", set!(log_format, text), "'json' or 'console'."),
    served!(
        Clustering,
        "auto-compaction-retention",
        "0",
        set!(auto_compaction_retention, text),
        "What auto-compaction keeps: hours or a duration like 30m, or a number of revisions; 0: all."
    ),
    served!(
        Clustering,
        "auto-compaction-mode",
        "periodic",
        set!(auto_compaction_mode, text),
        "How the retention is read: 'periodic' (time) or 'revision' (number)."
    ),
    served!(
        Member,
        "enable-grpc-gateway",
        bool,
        "true",
        set!(gateway, go::bool),
        "Serve gRPC calls as JSON over HTTP, below /v3/."
    ),
    served!(
        Security,
        "cors",
        "*",
        set!(cors, origins),
        "Origins whose pages may read what HTTP answers, separated by commas; '*' for all."
    ),
    served!(
        Security,
        "host-whitelist",
        "*",
        set!(host_whitelist, unique),
        "Host names under which HTTP without TLS is served, separated by commas; '*' for all."
    ),
    served!(
        Features,
        "watch-progress-notify-interval",
        duration,
        "0",
        set!(progress_interval, go::delay),
        "Time between progress notifications of an idle watch; 0 for ten minutes."
    ),
    served!(
        Features,
        "corrupt-check-time",
        duration,
        "0s",
        set!(corrupt_check_time, go::delay),
        "Time between a leader's comparisons of all members' data; 0 for none."
    ),
    served!(
        Features,
        "compact-hash-check-time",
        duration,
        "1m",
        set!(compact_hash_check_time, go::delay),
        "Time between a leader's comparisons of compactions (feature gate CompactHashCheck)."
    ),
    served!(
        Auth,
        "auth-token",
        "simple",
        set!(auth_token, text),
        "How logins are remembered: simple, or jwt,sign-method=..,pub-key=..,priv-key=..,ttl=5m."
    ),
    served!(
        Auth,
        "bcrypt-cost",
        uint,
        "10",
        set!(bcrypt_cost, go::uint),
        "Work of hashing a password, as a power of two; 4 to 31."
    ),
    served!(
        Auth,
        "auth-token-ttl",
        uint,
        "300",
        set!(auth_token_ttl_s, go::uint),
        "Seconds that a simple token lasts from its last use."
    ),
    served!(
        Member,
        "memory-mlock",
        bool,
        "false",
        set!(memory_mlock, go::bool),
        "Keep the process's memory from being swapped out."
    ),
    served!(
        Member,
        "raft-read-timeout",
        duration,
        "5s",
        set!(raft_read_timeout, go::delay),
        "Time for which another member may send nothing; at least 5s."
    ),
    served!(
        Member,
        "raft-write-timeout",
        duration,
        "5s",
        set!(raft_write_timeout, go::delay),
        "Time for which another member may take nothing; at least 5s."
    ),
    served!(
        Member,
        "socket-reuse-port",
        bool,
        "false",
        set!(reuse_port, go::bool),
        "Let other processes listen on the same ports (SO_REUSEPORT)."
    ),
    served!(
        Unsafe,
        "unsafe-no-fsync",
        bool,
        "false",
        set!(unsafe_no_fsync, go::bool),
        "Make nothing durable: a power cut loses what was answered."
    ),
    served!(
        Features,
        "compaction-batch-limit",
        int,
        "0",
        set!(compaction_batch, go::int),
        "Revisions deleted in one step of a compaction; 0 for 256."
    ),
    served!(
        Features,
        "compaction-sleep-interval",
        duration,
        "0",
        set!(compaction_sleep, go::delay),
        "Time between two steps of a compaction; 0 for 2ms."
    ),
    served!(
        Member,
        "feature-gates",
        "",
        set!(gates, Gates::parse),
        "Features to switch on or off: Name=true|false, separated by commas; listed below."
    ),
    served!(
        Profiling,
        "enable-pprof",
        bool,
        "false",
        set!(pprof, go::bool),
        "Serve profiles of the processor's time and the memory at /debug/pprof/."
    ),
    served!(
        Tracing,
        "enable-distributed-tracing",
        bool,
        "false",
        set!(tracing, go::bool),
        "Tell an OpenTelemetry collector what becomes of requests (OTLP over gRPC, no TLS)."
    ),
    served!(
        Tracing,
        "distributed-tracing-address",
        "localhost:4317",
        set!(tracing_address, text),
        "The collector."
    ),
    served!(
        Tracing,
        "distributed-tracing-service-name",
        "etcd",
        set!(tracing_service_name, text),
        "The service's name; the same for all members."
    ),
    served!(
        Tracing,
        "distributed-tracing-instance-id",
        "",
        set!(tracing_instance_id, text),
        "This member's name; none other's."
    ),
    served!(
        Tracing,
        "distributed-tracing-sampling-rate",
        int,
        "0",
        set!(tracing_per_million, go::int),
        "Requests traced of a million whose callers are in no trace; the others say so themselves."
    ),
    served!(
        Others,
        "config-file",
        "",
        set!(config_file, text),
        "A YAML or JSON file with the configuration; every other flag and variable is ignored then."
    ),
    served!(
        Others,
        "version",
        bool,
        "false",
        set!(version, go::bool),
        "Print the version and exit."
    ),
];

const fn ignored(name: &'static str) -> Flag {
    Flag { name, group: Group::Hidden, kind: Kind::Ignored, default: "", help: "" }
}

const IGNORED: &[Flag] = &[
    ignored("cluster-active-size"),
    ignored("cluster-remove-delay"),
    ignored("cluster-sync-interval"),
    ignored("config"),
    ignored("force"),
    ignored("max-result-buffer"),
    ignored("max-retry-attempts"),
    ignored("peer-heartbeat-interval"),
    ignored("peer-election-timeout"),
    ignored("retry-interval"),
    ignored("snapshot"),
    ignored("v"),
    ignored("vv"),
    ignored("test.coverprofile"),
    ignored("test.outputdir"),
];
