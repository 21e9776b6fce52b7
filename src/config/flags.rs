//! The table of flags, one row a flag: name, default, help and what it sets. Rows are in the order of
//! `--help`. What a value means together with others is not known here.

use std::collections::BTreeSet;

use super::gates::Gates;
use super::urls::Url;
use super::{Values, go, security};

/// One flag.
pub(super) struct Flag {
    pub name: &'static str,
    pub group: Group,
    pub kind: Kind,
    /// As one would write it on the command line.
    pub default: &'static str,
    pub help: &'static str,
}

/// A heading of `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Member,
    Clustering,
    Security,
    Logging,
    Features,
    Auth,
    Meta,
    Hidden,
}

/// What becomes of a flag's value.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Served {
        bool: bool,
        set: Setter,
    },
    /// etcd has it. Only the `inert` values, which ask for what happens anyway, are let through.
    NotServed {
        bool: bool,
        inert: &'static [&'static str],
    },
    /// etcd itself takes and ignores it.
    Ignored,
}

type Setter = fn(&mut Values, &str) -> Result<(), String>;

/// Why a value was not set.
#[derive(Debug)]
pub(super) enum SetError {
    Value(String),
    NotServed,
}

impl Flag {
    pub fn is_bool(&self) -> bool {
        match self.kind {
            Kind::Served { bool, .. } | Kind::NotServed { bool, .. } => bool,
            // etcd declares these to take "true" when nothing follows.
            Kind::Ignored => true,
        }
    }

    pub(crate) fn set(&self, values: &mut Values, value: &str) -> Result<(), SetError> {
        match self.kind {
            Kind::Served { set, .. } => set(values, value).map_err(SetError::Value)?,
            Kind::NotServed { inert, .. } if !inert.contains(&value) => {
                return Err(SetError::NotServed);
            }
            Kind::NotServed { .. } | Kind::Ignored => {}
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

const TABLES: [&[Flag]; 4] = [SERVED, security::FLAGS, NOT_SERVED, IGNORED];

macro_rules! served {
    ($group:ident, $name:literal, bool, $default:literal, $set:expr, $help:literal) => {
        served!(@ $group, $name, true, $default, $set, $help)
    };
    ($group:ident, $name:literal, $default:literal, $set:expr, $help:literal) => {
        served!(@ $group, $name, false, $default, $set, $help)
    };
    (@ $group:ident, $name:literal, $bool:literal, $default:literal, $set:expr, $help:literal) => {
        Flag {
            name: $name,
            group: Group::$group,
            kind: Kind::Served { bool: $bool, set: $set },
            default: $default,
            help: $help,
        }
    };
}

/// Stores what a literal says, or passes on why it is none.
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

fn list(value: &str) -> Result<Vec<String>, String> {
    Ok(value.split(',').map(str::to_owned).collect())
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

fn state(value: &str) -> Result<String, String> {
    match value {
        "new" | "existing" => Ok(value.to_owned()),
        _ => Err("invalid value".into()),
    }
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
        "10000",
        set!(snapshot_count, go::uint),
        "Applied entries after which the state is flushed and the log may be cut."
    ),
    served!(
        Member,
        "snapshot-catchup-entries",
        "5000",
        set!(catchup_entries, go::uint),
        "Log entries kept below the flushed state for followers that lag."
    ),
    served!(
        Member,
        "heartbeat-interval",
        "100",
        set!(heartbeat_ms, go::uint),
        "Time between a leader's heartbeats, milliseconds."
    ),
    served!(
        Member,
        "election-timeout",
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
        "http://localhost:2380",
        set!(listen_peer, Url::parse_list),
        "URLs to listen on for other members."
    ),
    served!(
        Member,
        "listen-client-urls",
        "http://localhost:2379",
        set!(listen_client, Url::parse_list),
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
        Member,
        "listen-metrics-urls",
        "",
        set!(listen_metrics, Url::parse_list_or_none),
        "Further URLs to listen on, for metrics and health only."
    ),
    served!(
        Member,
        "quota-backend-bytes",
        "0",
        set!(quota_bytes, go::int),
        "Live bytes above which writes are refused; 0 for 2 GiB, negative for no bound."
    ),
    served!(
        Member,
        "max-txn-ops",
        "128",
        set!(txn_ops_max, go::uint_as),
        "Operations permitted in one transaction."
    ),
    served!(
        Member,
        "max-request-bytes",
        "1572864",
        set!(request_bytes_max, go::uint_as),
        "Largest request accepted, bytes."
    ),
    served!(
        Member,
        "max-concurrent-streams",
        "4294967295",
        set!(concurrent_streams_max, go::uint_as),
        "Streams that one client connection may have open."
    ),
    served!(
        Member,
        "grpc-keepalive-interval",
        "2h",
        set!(keep_alive_interval, go::duration),
        "Time between pings of a client's connection; 0 for the default."
    ),
    served!(
        Member,
        "grpc-keepalive-timeout",
        "20s",
        set!(keep_alive_timeout, go::duration),
        "Time after an unanswered ping until the connection is closed; 0 for the default."
    ),
    served!(
        Clustering,
        "initial-advertise-peer-urls",
        "http://localhost:2380",
        set!(advertise_peer, Url::parse_list),
        "This member's peer URLs, as told to the other members."
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
        "http://localhost:2379",
        set!(advertise_client, Url::parse_list),
        "This member's client URLs, as told to clients."
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
        Clustering,
        "max-learners",
        "1",
        set!(learners_max, go::uint_as),
        "Learners that the cluster may have; must be the same on all members."
    ),
    served!(
        Clustering,
        "force-new-cluster",
        bool,
        "false",
        set!(force_new_cluster, go::bool),
        "Unsafe: begin a cluster of this member alone, with the data that it has."
    ),
    served!(Logging, "logger", "zap", set!(logger, text), "Log format family; only 'zap'."),
    served!(
        Logging,
        "log-outputs",
        "default",
        set!(log_outputs, list),
        "Where log lines go; 'default' and 'stderr' are the same."
    ),
    served!(
        Logging,
        "log-level",
        "info",
        set!(log_level, text),
        "Least severe level logged: debug, info, warn, error, panic or fatal."
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
        "Host names by which HTTP without TLS may be asked, separated by commas; '*' for all."
    ),
    served!(
        Features,
        "metrics",
        "basic",
        set!(metrics, text),
        "'basic', or 'extensive' for how long gRPC calls take, too."
    ),
    served!(
        Features,
        "watch-progress-notify-interval",
        "0",
        set!(progress_interval, go::duration),
        "Time between progress notifications of an idle watch; 0 for ten minutes."
    ),
    served!(
        Features,
        "feature-gates",
        "",
        set!(gates, Gates::parse),
        "Features to turn on or off: name=true[,name=false...]."
    ),
    served!(
        Features,
        "corrupt-check-time",
        "0s",
        set!(corrupt_check_time, go::duration),
        "Time between a leader's comparisons of all members' data; 0 for none."
    ),
    served!(
        Features,
        "compact-hash-check-time",
        "1m",
        set!(compact_hash_check_time, go::duration),
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
        "10",
        set!(bcrypt_cost, go::uint),
        "Work of hashing a password, as a power of two; 4 to 31."
    ),
    served!(
        Auth,
        "auth-token-ttl",
        "300",
        set!(auth_token_ttl_s, go::uint),
        "Seconds that a simple token lasts from its last use."
    ),
    served!(Meta, "version", bool, "false", set!(version, go::bool), "Print the version and exit."),
];

const fn off(name: &'static str, inert: &'static [&'static str]) -> Flag {
    Flag {
        name,
        group: Group::Hidden,
        kind: Kind::NotServed { bool: false, inert },
        default: "",
        help: "",
    }
}

const fn off_bool(name: &'static str, inert: &'static [&'static str]) -> Flag {
    let kind = Kind::NotServed { bool: true, inert };
    Flag { name, group: Group::Hidden, kind, default: "", help: "" }
}

/// What a boolean that asks for nothing looks like.
const FALSE: &[&str] = &["false", "0", "f", "F", "FALSE", "False"];
const TRUE: &[&str] = &["true", "1", "t", "T", "TRUE", "True"];
const EMPTY: &[&str] = &[""];
const ZERO: &[&str] = &["0", "0s", "0ms"];

/// etcd 3.7's other flags. A row leaves when its flag is served.
const NOT_SERVED: &[Flag] = &[
    off("max-snapshots", &["5"]),
    off("max-wals", &["5"]),
    off_bool("memory-mlock", FALSE),
    off("backend-bbolt-freelist-type", &["", "map"]),
    off("backend-batch-interval", ZERO),
    off("backend-batch-limit", ZERO),
    off("grpc-keepalive-min-time", &[]),
    off_bool("socket-reuse-port", FALSE),
    off_bool("socket-reuse-address", FALSE),
    off("raft-read-timeout", &["5s"]),
    off("raft-write-timeout", &["5s"]),
    off("discovery-endpoints", EMPTY),
    off("discovery-token", EMPTY),
    off("discovery-dial-timeout", &["2s"]),
    off("discovery-request-timeout", &["5s"]),
    off("discovery-keepalive-time", &["2s"]),
    off("discovery-keepalive-timeout", &["6s"]),
    off_bool("discovery-insecure-transport", TRUE),
    off_bool("discovery-insecure-skip-tls-verify", FALSE),
    off("discovery-cert", EMPTY),
    off("discovery-key", EMPTY),
    off("discovery-cacert", EMPTY),
    off("discovery-user", EMPTY),
    off("discovery-password", EMPTY),
    off("discovery-fallback", &["exit"]),
    off("discovery-srv", EMPTY),
    off("discovery-srv-name", EMPTY),
    off("v2-deprecation", &["write-only", "write-only-skip-check", "write-only-drop-data", "gone"]),
    off_bool("enable-pprof", FALSE),
    off_bool("enable-distributed-tracing", FALSE),
    off("distributed-tracing-address", &["localhost:4317"]),
    off("distributed-tracing-service-name", &["etcd"]),
    off("distributed-tracing-instance-id", EMPTY),
    off("distributed-tracing-sampling-rate", ZERO),
    off_bool("enable-log-rotation", FALSE),
    off("log-rotation-config-json", &[]),
    off("warning-unary-request-duration", &[]),
    off("warning-apply-duration", &[]),
    off("compaction-batch-limit", ZERO),
    off("compaction-sleep-interval", ZERO),
    off("downgrade-check-time", &["5s"]),
    off("bootstrap-defrag-threshold-megabytes", ZERO),
    off_bool("unsafe-no-fsync", FALSE),
    off("config-file", EMPTY),
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
