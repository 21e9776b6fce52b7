//! Flags and `ETCD_*` variables, or a file instead of both, become one validated [`Config`]. Reads
//! nothing but its arguments: no environment, no clock, and files only through the caller, so that every
//! rule is tested without a process.
//!
//! The rules are etcd's (3.7, `server/etcdmain`, `server/embed`):
//! * Go's flag syntax: `-x` is `--x`, `--x=v` or `--x v`, booleans need the `=`, the last one wins.
//! * Every flag `--some-flag` is also the variable `ETCD_SOME_FLAG`. Both at once is an error, an
//!   unknown variable a warning.
//! * With `--config-file`, or `ETCD_CONFIG_FILE`, the file alone counts.
//! * A value that etcd knows and this version does not serve (`--max-wals=0`) is refused, never ignored.
//!
//! Reading order: [`go`] (Go's syntax and values), [`flags`] (the table, one row a flag), [`mod@file`] (the
//! same from a file, read by [`yaml`]), [`urls`] (etcd's rules for URLs), [`cluster`] (the initial
//! cluster), [`tokens`] (`--auth-token`), [`gates`] (`--feature-gates`), `security` (TLS: its flags and
//! rules), `discovery` (other ways to find the members), [`secrets`] (values that are not shown),
//! [`without_effect`] (flags of features that do not exist here), [`validate`] (rules about several flags),
//! [`effective`] (the resulting configuration as a log line), [`log`] (etcd's log lines), [`help`] (texts),
//! [`pflag`] (the syntax of the tools' and sub-commands' flags).

pub mod cluster;
mod discovery;
pub mod effective;
mod file;
mod flags;
mod gates;
pub(crate) mod go;
pub mod help;
pub mod log;
pub(crate) mod pflag;
pub mod secrets;
mod security;
mod tokens;
pub mod urls;
mod validate;
mod without_effect;
mod yaml;

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

pub use discovery::{Discovery, Srv};
use flags::{Flag, Kind};
pub use validate::Config;

use crate::tls;

/// What the variables of all flags begin with.
const PREFIX: &str = "ETCD_";
const CONFIG_FILE: &str = "ETCD_CONFIG_FILE";
const VERSION: &str = "ETCD_VERSION";

/// The meaning of a command line.
#[derive(Debug)]
pub enum Command {
    Run(Box<Config>),
    /// Print this to stdout and exit with 0: `--help`, `--version`.
    Print(String),
}

/// Why the process does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The command line cannot be parsed: text and usage to stderr, exit code 2, as Go's flag
    /// package and etcd do.
    #[error("{0}")]
    Usage(String),
    /// The configuration contradicts itself or needs what is not served: exit code 1.
    #[error("{0}")]
    Invalid(String),
    /// The same, printed by etcd without a log line around it.
    #[error("{0}")]
    Plain(String),
}

/// Something to log once the log is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    UsedVariable {
        name: String,
        value: String,
    },
    UnknownVariable {
        name: String,
        value: String,
    },
    /// `ETCD_VERSION`, which stands for no flag whatever the flag's name.
    SpecialVariable {
        value: String,
    },
    /// The configuration is this file's.
    LoadedFile(String),
    IgnoredFlag(&'static str),
    /// etcd's text about a flag that it will drop.
    Deprecated(&'static str),
    WithoutEffect {
        flag: &'static str,
        why: &'static str,
    },
    /// A value below the minimum was raised to it.
    RaisedTimeout(&'static str),
    /// A power cut may lose what was answered.
    NoSync,
    /// The bound on requests is larger than etcd recommends.
    LargeRequests(usize),
    /// The quota is larger than etcd recommends.
    LargeQuota(i64),
    DefaultName,
    /// HTTP and gRPC are served on the same addresses.
    SinglePort,
    DefaultDataDir(String),
    /// The member listens on every interface but advertises localhost.
    AdvertisesLocalhost(&'static str),
    /// These advertised URLs name every interface, and so no machine.
    AdvertisesEvery(Vec<String>),
    /// A `--bcrypt-cost` that there is not; the default counts.
    BcryptCost(u64),
    /// Some TLS flags have no effect; `url` is the one concerned.
    IgnoredSecurity {
        what: &'static str,
        url: String,
    },
}

/// Every value as given or by default, one field a flag; not yet checked against each other.
#[derive(Clone, Debug, Default)]
struct Values {
    pub name: String,
    pub data_dir: String,
    pub wal_dir: String,
    pub snapshot_count: u64,
    pub catchup_entries: u64,
    pub heartbeat_ms: u64,
    pub election_ms: u64,
    pub initial_election_tick_advance: bool,
    pub listen_peer: Vec<urls::Url>,
    pub listen_client: Vec<urls::Url>,
    pub listen_client_http: Vec<urls::Url>,
    pub listen_metrics: Vec<urls::Url>,
    pub gates: gates::Gates,
    pub discovery: discovery::Given,
    pub pprof: bool,
    pub tracing: bool,
    pub tracing_address: String,
    pub tracing_service_name: String,
    pub tracing_instance_id: String,
    pub tracing_per_million: i64,
    pub config_file: String,
    pub quota_bytes: i64,
    pub txn_ops_max: usize,
    pub request_bytes_max: usize,
    pub concurrent_streams_max: u32,
    pub keep_alive_interval: Duration,
    pub keep_alive_timeout: Duration,
    pub ping_time_min: Duration,
    pub gateway: bool,
    pub cors: BTreeSet<String>,
    pub host_whitelist: BTreeSet<String>,
    pub advertise_peer: Vec<urls::Url>,
    pub initial_cluster: String,
    pub initial_state: String,
    pub initial_cluster_token: String,
    pub advertise_client: Vec<urls::Url>,
    pub pre_vote: bool,
    pub strict_reconfig_check: bool,
    pub learners_max: usize,
    /// `major.minor`; empty for no other than this release's.
    pub cluster_version_max: String,
    pub force_new_cluster: bool,
    pub auto_compaction_mode: String,
    pub auto_compaction_retention: String,
    pub progress_interval: Duration,
    pub corrupt_check_time: Duration,
    pub compact_hash_check_time: Duration,
    pub auth_token: String,
    pub auth_token_ttl_s: u64,
    pub bcrypt_cost: u64,
    pub client_tls: tls::Settings,
    pub client_auto_tls: bool,
    pub peer_tls: tls::Settings,
    pub peer_auto_tls: bool,
    pub self_signed_years: u64,
    pub cipher_suites: Vec<String>,
    pub tls_min: String,
    pub tls_max: String,
    pub logger: String,
    pub log_outputs: Vec<String>,
    pub log_rotation: bool,
    pub log_rotation_config: String,
    pub log_level: String,
    pub log_format: String,
    pub unary_warning: Duration,
    pub apply_warning: Duration,
    pub metrics: String,
    pub compaction_batch: i64,
    pub compaction_sleep: Duration,
    pub reuse_port: bool,
    pub raft_read_timeout: Duration,
    pub raft_write_timeout: Duration,
    pub unsafe_no_fsync: bool,
    pub memory_mlock: bool,
    /// Shown in the log and else without effect, like the next two.
    pub wals_max: u64,
    pub snapshots_max: u64,
    pub downgrade_check_time: Duration,
    pub version: bool,
    /// Names of the flags that were given, as flags or variables.
    pub given: BTreeSet<&'static str>,
}

/// Reads the command line (without the program's name) and the process's variables. `read_file` reads
/// the configuration file, if one is named.
pub fn parse<Bytes: Into<Vec<u8>>>(
    arguments: &[String],
    variables: &[(String, String)],
    read_file: impl FnOnce(&str) -> io::Result<Bytes>,
) -> Result<(Command, Vec<Notice>), ConfigError> {
    let mut values = flags::defaults();
    let mut notices = Vec::new();
    let parsed = go::split(arguments, |name| flags::find(name).map(Flag::is_bool))?;
    if parsed.help {
        return Ok((Command::Print(help::flags()), notices));
    }
    for (name, value) in &parsed.flags {
        let flag = flags::find(name).expect("split lets only known flags through");
        flag.set(&mut values, value).map_err(|why| usage(flag, value, &why))?;
    }
    if let Some(argument) = parsed.positional {
        return Err(ConfigError::Invalid(positional(&argument)));
    }
    if values.version {
        return Ok((Command::Print(help::version()), notices));
    }
    let config = match file_named(&values, variables) {
        Some(path) => {
            let bytes = read_file(&path)
                .map_err(|error| ConfigError::Invalid(go::file_error("open", &path, &error)))?;
            values = file::read(&bytes.into())?;
            notices.push(Notice::LoadedFile(path));
            validate::file(values, &mut notices)?
        }
        None => {
            read_variables(&mut values, variables, &mut notices)?;
            let ignored = values.given.iter().filter(|name| flags::is_ignored(name));
            notices.extend(ignored.map(|name| Notice::IgnoredFlag(name)));
            validate::command_line(values, &mut notices)?
        }
    };
    Ok((Command::Run(Box::new(config)), notices))
}

/// The flag counts before its variable, and both at once are no error here, as in etcd.
fn file_named(values: &Values, variables: &[(String, String)]) -> Option<String> {
    let variable = variables.iter().find(|(name, _)| name == CONFIG_FILE).map(|(_, value)| value);
    let named = Some(&values.config_file).filter(|path| !path.is_empty()).or(variable);
    named.filter(|path| !path.is_empty()).cloned()
}

/// etcd's order: a flag beats its variable, which is an error and not a silent choice; a variable
/// that is empty counts as absent.
fn read_variables(
    values: &mut Values,
    variables: &[(String, String)],
    notices: &mut Vec<Notice>,
) -> Result<(), ConfigError> {
    let on_the_line = values.given.clone();
    for (variable, value) in variables {
        let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
        if variable == VERSION {
            if !value.is_empty() {
                notices.push(Notice::SpecialVariable { value: value.clone() });
            }
            continue;
        }
        let name = rest.to_ascii_lowercase().replace('_', "-");
        let flag = flags::find(&name).filter(|flag| &variable_of(flag.name) == variable);
        match flag {
            Some(flag) if on_the_line.contains(flag.name) => {
                return Err(ConfigError::Invalid(format!(
                    "conflicting environment variable is shadowed by corresponding command-line \
                     flag (either unset environment variable or disable flag): {variable}"
                )));
            }
            Some(flag) if !value.is_empty() => {
                flag.set(values, value).map_err(|why| {
                    let value = go::quote(value);
                    ConfigError::Invalid(format!("invalid value {value} for {variable}: {why}"))
                })?;
                let value = secrets::variable(variable, value);
                notices.push(Notice::UsedVariable { name: variable.clone(), value });
            }
            _ => {
                let value = secrets::variable(variable, value);
                notices.push(Notice::UnknownVariable { name: variable.clone(), value });
            }
        }
    }
    Ok(())
}

/// `--some-flag` as a variable.
fn variable_of(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_ascii_uppercase().replace('-', "_"))
}

fn usage(flag: &Flag, value: &str, why: &str) -> ConfigError {
    let value = go::quote(value);
    ConfigError::Usage(match flag.kind {
        Kind::Served { .. } if flag.is_bool() => {
            format!("invalid boolean value {value} for -{}: {why}", flag.name)
        }
        _ => format!("invalid value {value} for flag -{}: {why}", flag.name),
    })
}

fn positional(argument: &str) -> String {
    format!("{} is not a valid flag", go::quote(argument))
}

#[cfg(test)]
mod tests;
