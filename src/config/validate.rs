//! From single values to a [`Config`]: the rules that concern more than one flag, in etcd's order and
//! with etcd's texts. No files are looked at.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tracing::Level;

use super::cluster::InitialCluster;
use super::discovery::{Discovery, Srv};
use super::log;
use super::urls::{Url, join};
use super::{ConfigError, Notice, Values, discovery, flags, go, security, tokens, without_effect};
use crate::env::tokio::Machine;
use crate::http::access::Access;
use crate::limits;
use crate::member::compactor::AutoCompaction;
use crate::member::{self, InitialState};
use crate::peer::Patience;
use crate::server;
use crate::tls::{Listen, Target};
use crate::trace;

const RECOMMENDED_REQUEST_BYTES: usize = 10 << 20;
const RECOMMENDED_QUOTA_BYTES: i64 = 8 << 30;
const ELECTION_MS_MAX: u64 = 50_000;
const GRPC_PING_TIME_MIN: Duration = Duration::from_secs(5 * 60);

/// A configuration that contradicts neither itself nor what this version serves. Each setting is in one
/// place, most of them in the server's options.
#[derive(Clone)]
pub struct Config {
    /// What the server is started with. [`Config::server_options`] adds the URLs and members below.
    pub server: server::Options,
    pub advertise_peer: Vec<Url>,
    /// With `discovery` or `srv` this member alone, until the others are found.
    pub initial_cluster: InitialCluster,
    /// The etcd at which the other first members are found.
    pub discovery: Option<Discovery>,
    /// The same, in DNS.
    pub srv: Option<Srv>,
    pub machine: Machine,
    pub memory_mlock: bool,
    /// Whether `/debug/pprof` is served.
    pub pprof: bool,
    pub log: log::Settings,
    /// Every value as settled, for the log.
    pub(super) settled: Box<Values>,
}

/// Names the member; a configuration holds secrets.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("name", &self.server.member.name).finish_non_exhaustive()
    }
}

impl Config {
    /// What the server is started with, once the initial cluster is known.
    pub fn server_options(&self) -> server::Options {
        let texts = |urls: &[Url]| urls.iter().map(Url::to_string).collect::<Vec<_>>();
        let members = self.initial_cluster.members();
        let mut options = self.server.clone();
        options.member.advertise_peer_urls = texts(&self.advertise_peer);
        options.member.initial_cluster =
            members.map(|(name, urls)| (name.to_owned(), texts(urls))).collect();
        options
    }

    /// The checks of a member that starts without a log; one that has a log ignores the initial
    /// cluster, as etcd does.
    pub fn check_first_start(&self) -> Result<(), ConfigError> {
        let name = &self.server.member.name;
        let checked = match self.server.member.initial_state {
            InitialState::Existing => self.initial_cluster.check_joining(name),
            InitialState::New => self.initial_cluster.check_new(name, &self.advertise_peer),
        };
        checked.map_err(ConfigError::Invalid)
    }
}

/// The rules of a command line, which are those of [`file()`] and some more.
pub(super) fn command_line(
    mut values: Values,
    notices: &mut Vec<Notice>,
) -> Result<Config, ConfigError> {
    let invalid = ConfigError::Invalid;
    discovery::check_fallback(&values).map_err(invalid)?;
    if values.given.contains("listen-client-urls")
        && !values.given.contains("advertise-client-urls")
    {
        values.advertise_client.clear();
    }
    let discovers = values.discovery.is_given() || !values.discovery.suffix.is_empty();
    if discovers && !values.given.contains("initial-cluster") {
        values.initial_cluster.clear();
    }
    validate(values, notices)
}

/// The rules of a configuration file.
pub(super) fn file(mut values: Values, notices: &mut Vec<Notice>) -> Result<Config, ConfigError> {
    let default = flags::defaults().initial_cluster;
    if values.discovery.is_given() && values.initial_cluster == default {
        values.initial_cluster.clear();
    }
    validate(values, notices)
}

fn validate(mut values: Values, notices: &mut Vec<Notice>) -> Result<Config, ConfigError> {
    let invalid = ConfigError::Invalid;
    let log = log::Settings::new(&values).map_err(invalid)?;
    let listen_peer = bind(&values.listen_peer)?;
    let listen_client = bind(&values.listen_client)?;
    let listen_client_http = bind(&values.listen_client_http)?;
    if listen_client_http.is_empty() {
        notices.push(Notice::SinglePort);
    }
    let listen_metrics = bind(&values.listen_metrics)?;
    check_advertised(&values)?;
    discovery::check(&values).map_err(invalid)?;
    check_times(&values)?;
    if values.advertise_client.is_empty() {
        return Err(invalid(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly"
                .into(),
        ));
    }
    let auto_compaction =
        auto_compaction(&values.auto_compaction_mode, &values.auto_compaction_retention)?;
    let tracing = tracing(&values)?;
    check_gates(&values)?;
    let discovery = discovery::settle(&values).map_err(invalid)?;
    notices.extend(tuning_notices(&values));
    default_names(&mut values, notices);
    notices.extend(localhost_notices(&values, &listen_peer, &listen_client));
    security::settle(&mut values, notices).map_err(invalid)?;
    check_shared(&values, &listen_client, &listen_client_http)?;
    let srv = values.discovery.srv();
    if discovery.is_some() || srv.is_some() {
        values.initial_cluster =
            InitialCluster::of(&values.name, &values.advertise_peer).to_string();
    }
    let initial_cluster = InitialCluster::parse(&values.initial_cluster)
        .map_err(|why| invalid(format!("error setting up initial cluster: {why}")))?;
    let tokens = tokens::parse(&values.auth_token, values.auth_token_ttl_s).map_err(invalid)?;
    let bcrypt_cost = bcrypt_cost(values.bcrypt_cost, notices);
    let mut member = member(&values)?;
    member.listen_peer = listen_peer;
    member.auto_compaction = auto_compaction;
    member.tokens = tokens;
    member.bcrypt_cost = bcrypt_cost;
    if let Some(discovery) = &discovery {
        member.initial_cluster_token.clone_from(&discovery.token);
    }
    let mut server = server::Options::new(member, listen_client);
    server.listen_client_http = listen_client_http;
    server.listen_metrics = listen_metrics;
    server.tracing = tracing;
    let machine = machine(&values);
    let pprof = values.pprof || log.level == Level::DEBUG;
    let memory_mlock = values.memory_mlock;
    values.discovery.password.clear();
    let settled = Box::new(values.clone());
    let advertise_peer = std::mem::take(&mut values.advertise_peer);
    let server = serving(server, values);
    Ok(Config {
        server,
        advertise_peer,
        initial_cluster,
        discovery,
        srv,
        machine,
        memory_mlock,
        pprof,
        log,
        settled,
    })
}

/// The settings of the member that stand by themselves.
fn member(values: &Values) -> Result<member::Options, ConfigError> {
    let data_dir = PathBuf::from(&values.data_dir);
    let wal_dir = Some(PathBuf::from(&values.wal_dir));
    let interval =
        values.gates.is_on("LeaseCheckpoint").then_some(limits::LEASE_CHECKPOINT_INTERVAL);
    let batch = usize::try_from(values.compaction_batch).ok().filter(|batch| *batch > 0);
    Ok(member::Options {
        wal_dir: wal_dir.filter(|dir| !dir.as_os_str().is_empty()),
        peer_tls: values.peer_tls.clone(),
        peer_patience: Patience {
            read: values.raft_read_timeout.max(limits::PEER_IO_TIMEOUT),
            write: values.raft_write_timeout.max(limits::PEER_IO_TIMEOUT),
        },
        advertise_client_urls: values.advertise_client.iter().map(Url::to_string).collect(),
        initial_cluster_token: values.initial_cluster_token.clone(),
        initial_state: match values.initial_state.as_str() {
            "existing" => InitialState::Existing,
            _ => InitialState::New,
        },
        force_new_cluster: values.force_new_cluster,
        strict_reconfig_check: values.strict_reconfig_check,
        learners_max: values.learners_max,
        cluster_version_max: match &*values.cluster_version_max {
            "" => member::CLUSTER_VERSION.into(),
            held => format!("{held}.0"),
        },
        heartbeat: Duration::from_millis(values.heartbeat_ms),
        election_timeout: Duration::from_millis(values.election_ms),
        pre_vote: values.pre_vote,
        initial_election_tick_advance: values.initial_election_tick_advance,
        snapshot_count: or(values.snapshot_count, limits::SNAPSHOT_COUNT),
        catchup_entries: values.catchup_entries,
        request_bytes_max: request_bytes(values.request_bytes_max)?,
        txn_ops_max: values.txn_ops_max,
        quota_bytes: match values.quota_bytes {
            0 => Some(limits::QUOTA_BYTES),
            bytes => u64::try_from(bytes).ok(),
        },
        initial_corrupt_check: values.gates.is_on("InitialCorruptCheck"),
        corrupt_check_time: values.corrupt_check_time,
        compact_hash_check: values.gates.is_on("CompactHashCheck"),
        compact_hash_check_time: values.compact_hash_check_time,
        lease_checkpoint_interval: interval,
        feature_gates: values.gates.list(),
        watch_progress_interval: match values.progress_interval {
            Duration::ZERO => limits::WATCH_PROGRESS_INTERVAL,
            interval => interval.max(limits::WATCH_PROGRESS_INTERVAL_MIN),
        },
        apply_warning: values.apply_warning,
        unary_warning: or(values.unary_warning, member::UNARY_WARNING),
        compaction_step: batch.unwrap_or(limits::COMPACT_STEP_REVISIONS),
        compaction_pause: or(values.compaction_sleep, limits::COMPACT_PAUSE),
        // Every address and URL of the pattern's is replaced.
        ..member::Options::single(&values.name, data_dir, ([127, 0, 0, 1], 0).into())
    })
}

/// Adds the settings of the client port that stand by themselves.
fn serving(mut server: server::Options, values: Values) -> server::Options {
    (server.keep_alive_interval, server.keep_alive_timeout) = keep_alive(&values);
    server.concurrent_streams_max = values.concurrent_streams_max;
    // Zero leaves gRPC's own measure in force.
    server.ping_time_min = or(values.ping_time_min, GRPC_PING_TIME_MIN);
    server.gateway = values.gateway;
    // As in etcd, no other word is an error.
    server.time_calls = values.metrics == "extensive";
    server.tls = values.client_tls;
    server.access = Access { origins: values.cors, hosts: values.host_whitelist };
    server
}

/// What the interfaces to this machine do differently.
fn machine(values: &Values) -> Machine {
    Machine {
        reuse_port: values.reuse_port,
        local_address: local_address(values),
        no_sync: values.unsafe_no_fsync,
    }
}

/// The first advertised peer address that others can reach, if the gate for it is on (etcd,
/// `InferLocalAddr`).
fn local_address(values: &Values) -> Option<IpAddr> {
    let addresses = values.advertise_peer.iter().filter_map(|url| url.host().parse().ok());
    let mut reachable =
        addresses.filter(|address: &IpAddr| !address.is_loopback() && !address.is_unspecified());
    reachable.next().filter(|_| values.gates.is_on("SetMemberLocalAddr"))
}

/// Zero stands for the default.
fn or<T: Default + PartialEq>(value: T, default: T) -> T {
    if value == T::default() { default } else { value }
}

/// As in etcd, a cost that there is not is no error.
fn bcrypt_cost(given: u64, notices: &mut Vec<Notice>) -> u32 {
    let cost = u32::try_from(given).ok().filter(|cost| limits::BCRYPT_COSTS.contains(cost));
    cost.unwrap_or_else(|| {
        notices.push(Notice::BcryptCost(given));
        limits::BCRYPT_COST
    })
}

fn check_gates(values: &Values) -> Result<(), ConfigError> {
    values.gates.check().map_err(ConfigError::Invalid)?;
    if values.compact_hash_check_time.is_zero() {
        let why = "--compact-hash-check-time must be >0 (set to 0s)";
        return Err(ConfigError::Invalid(why.into()));
    }
    Ok(())
}

/// What is without effect, raised, or bolder than it should be.
fn tuning_notices(values: &Values) -> Vec<Notice> {
    let timeouts = [
        ("raft-read-timeout", values.raft_read_timeout),
        ("raft-write-timeout", values.raft_write_timeout),
    ];
    let raised = timeouts.into_iter().filter(|(_, time)| *time < limits::PEER_IO_TIMEOUT);
    let mut notices: Vec<_> = raised.map(|(flag, _)| Notice::RaisedTimeout(flag)).collect();
    notices.extend(without_effect::notices(values));
    notices.extend(large(values));
    notices.extend(values.unsafe_no_fsync.then_some(Notice::NoSync));
    notices
}

/// Either at 0 leaves gRPC's own defaults in force.
fn keep_alive(values: &Values) -> (Duration, Duration) {
    let given = (values.keep_alive_interval, values.keep_alive_timeout);
    let both = !given.0.is_zero() && !given.1.is_zero();
    if both { given } else { (server::KEEP_ALIVE_INTERVAL, server::KEEP_ALIVE_TIMEOUT) }
}

/// What is traced, if anything. As in etcd, the flags about it are not checked unless it is on.
fn tracing(values: &Values) -> Result<Option<trace::Settings>, ConfigError> {
    if !values.tracing {
        return Ok(None);
    }
    let invalid = |why: &str| {
        let why = format!("distributed tracing configurition is not valid: ({why})");
        Err(ConfigError::Invalid(why))
    };
    let per_million = match values.tracing_per_million {
        ..0 => return invalid("tracing sampling rate must be positive"),
        rate @ 0..=1_000_000 => rate as u32,
        _ => return invalid("tracing sampling rate must be less than 1000000"),
    };
    // etcd would start and never reach a collector.
    let why = match Target::parse(&values.tracing_address) {
        Ok(Target { secure: Some(true), .. }) => Some("TLS is not spoken".into()),
        Ok(_) => None,
        Err(why) => Some(why),
    };
    if let Some(why) = why {
        return invalid(&format!("address {}: {why}", go::quote(&values.tracing_address)));
    }
    Ok(Some(trace::Settings {
        collector: values.tracing_address.clone(),
        service_name: values.tracing_service_name.clone(),
        instance_id: values.tracing_instance_id.clone(),
        per_million,
    }))
}

/// What is more than etcd recommends.
fn large(values: &Values) -> Vec<Notice> {
    let (requests, quota) = (values.request_bytes_max, values.quota_bytes);
    let requests = Some(requests).filter(|bytes| *bytes > RECOMMENDED_REQUEST_BYTES);
    let quota = Some(quota).filter(|bytes| *bytes > RECOMMENDED_QUOTA_BYTES);
    let requests = requests.map(Notice::LargeRequests);
    requests.into_iter().chain(quota.map(Notice::LargeQuota)).collect()
}

fn bind(urls: &[Url]) -> Result<Vec<Listen>, ConfigError> {
    urls.iter().map(|url| url.listen().map_err(ConfigError::Invalid)).collect()
}

/// Checks that no address is for both gRPC and plain HTTP.
fn check_shared(values: &Values, grpc: &[Listen], http: &[Listen]) -> Result<(), ConfigError> {
    let mut pairs = values.listen_client_http.iter().zip(http);
    match pairs.find(|(_, http)| grpc.iter().any(|grpc| grpc.place == http.place)) {
        None => Ok(()),
        Some((url, _)) => Err(ConfigError::Invalid(format!(
            "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {url}"
        ))),
    }
}

fn check_advertised(values: &Values) -> Result<(), ConfigError> {
    for url in &values.advertise_peer {
        url.check_host().map_err(|why| {
            ConfigError::Invalid(format!(
                "--initial-advertise-peer-urls {} must be \"host:port\" ({why})",
                go::quote(&join(&values.advertise_peer))
            ))
        })?;
    }
    for url in &values.advertise_client {
        url.check_host().map_err(|why| {
            ConfigError::Invalid(format!(
                "--advertise-client-urls {} must be in the format \"host:port\", \
                 \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" ({why})",
                go::quote(&join(&values.advertise_client))
            ))
        })?;
    }
    Ok(())
}

fn check_times(values: &Values) -> Result<(), ConfigError> {
    let (heartbeat, election) = (values.heartbeat_ms, values.election_ms);
    let why = if heartbeat == 0 {
        format!("--heartbeat-interval must be >0 (set to {heartbeat}ms)")
    } else if election == 0 {
        format!("--election-timeout must be >0 (set to {election}ms)")
    } else if heartbeat.saturating_mul(5) > election {
        format!(
            "--election-timeout[{election}ms] should be at least as 5 times as \
             --heartbeat-interval[{heartbeat}ms]"
        )
    } else if election > ELECTION_MS_MAX {
        format!(
            "--election-timeout[{election}ms] is too long, and should be set less than \
             {ELECTION_MS_MAX}ms"
        )
    } else {
        return Ok(());
    };
    Err(ConfigError::Invalid(why))
}

/// What auto-compaction keeps. A bare number is hours, or revisions; a duration is Go's, in nanoseconds
/// where revisions are meant, as in etcd.
fn auto_compaction(mode: &str, retention: &str) -> Result<Option<AutoCompaction>, ConfigError> {
    let by_age = match mode {
        "periodic" => true,
        "revision" => false,
        "" => return Err(ConfigError::Invalid("undefined auto-compaction-mode".into())),
        _ => {
            let mode = go::quote(mode);
            return Err(ConfigError::Invalid(format!("unknown auto-compaction-mode {mode}")));
        }
    };
    let age = match (retention.parse::<u32>(), by_age) {
        (Ok(0), _) => return Ok(None),
        (Ok(revisions), false) => return Ok(Some(AutoCompaction::Count(revisions.into()))),
        (Ok(hours), true) => Duration::from_secs(3600) * hours,
        (Err(_), _) => go::parse_delay(retention).map_err(|why| {
            ConfigError::Invalid(format!("error parsing CompactionRetention: {why}"))
        })?,
    };
    let kept = match by_age {
        true => AutoCompaction::Age(age),
        false => AutoCompaction::Count(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)),
    };
    Ok(Some(kept).filter(|_| !age.is_zero()))
}

/// A request becomes one log entry, which must fit into a message to a peer.
fn request_bytes(bytes: usize) -> Result<usize, ConfigError> {
    match bytes <= limits::REQUEST_BYTES_LIMIT {
        true => Ok(bytes),
        false => Err(ConfigError::Invalid(format!(
            "--max-request-bytes must not be above {} (set to {bytes})",
            limits::REQUEST_BYTES_LIMIT
        ))),
    }
}

/// What etcd derives from the name: the data directory, and the initial cluster when only the name
/// was given.
fn default_names(values: &mut Values, notices: &mut Vec<Notice>) {
    let default = flags::defaults();
    if values.name == default.name {
        notices.push(Notice::DefaultName);
    } else if values.initial_cluster == default.initial_cluster {
        let cluster = InitialCluster::of(&values.name, &values.advertise_peer);
        values.initial_cluster = cluster.to_string();
    }
    if values.data_dir.is_empty() {
        values.data_dir = format!("{}.etcd", values.name);
        notices.push(Notice::DefaultDataDir(values.data_dir.clone()));
    }
}

/// etcd replaces a default advertised URL by the machine's address when the member listens on every
/// interface. The address that others can reach is not guessed here, but a notice is logged.
fn localhost_notices(
    values: &Values,
    listen_peer: &[Listen],
    listen_client: &[Listen],
) -> Vec<Notice> {
    let everywhere = |listen: &[Listen]| {
        listen.iter().filter_map(Listen::address).any(|address| address.ip().is_unspecified())
    };
    let local = |urls: &[Url]| urls.iter().all(|url| url.host() == "localhost");
    let mut notices = Vec::new();
    if everywhere(listen_peer) && local(&values.advertise_peer) {
        notices.push(Notice::AdvertisesLocalhost("initial-advertise-peer-urls"));
    }
    if everywhere(listen_client) && local(&values.advertise_client) {
        notices.push(Notice::AdvertisesLocalhost("advertise-client-urls"));
    }
    let every =
        |url: &&Url| url.host().parse().is_ok_and(|address: IpAddr| address.is_unspecified());
    let advertised = values.advertise_peer.iter().chain(&values.advertise_client);
    let every: Vec<_> = advertised.filter(every).map(Url::to_string).collect();
    notices.extend((!every.is_empty()).then_some(Notice::AdvertisesEvery(every)));
    notices
}
