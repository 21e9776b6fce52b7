//! How a new cluster finds its members without a list of them: at another etcd, or in DNS. The flags and
//! their rules, with etcd's texts.

use std::path::PathBuf;
use std::time::Duration;

use super::flags::{Flag, one_of, served, set, text};
use super::{Values, go};
use crate::tls;

/// How the etcd at which members meet is reached, and under which token they do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    pub endpoints: Vec<String>,
    pub token: String,
    pub dial_timeout: Duration,
    pub request_timeout: Duration,
    pub keep_alive_interval: Duration,
    pub keep_alive_timeout: Duration,
    /// For endpoints that are secured.
    pub tls: Option<tls::Settings>,
    /// Name and password.
    pub user: Option<(String, String)>,
}

/// The domain in which SRV records name the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    pub domain: String,
    /// Added to the names of the services; empty for none.
    pub suffix: String,
}

/// The values of these flags, as given.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    pub endpoints: Vec<String>,
    pub token: String,
    pub dial_timeout: Duration,
    pub request_timeout: Duration,
    pub keep_alive_interval: Duration,
    pub keep_alive_timeout: Duration,
    pub insecure_transport: bool,
    pub tls: tls::Settings,
    pub user: String,
    pub password: String,
    pub fallback: String,
    pub domain: String,
    pub suffix: String,
}

impl Given {
    /// Whether the initial cluster is found by other means than its flag.
    pub fn is_given(&self) -> bool {
        !self.endpoints.is_empty() || !self.domain.is_empty()
    }

    pub fn srv(&self) -> Option<Srv> {
        let (domain, suffix) = (self.domain.clone(), self.suffix.clone());
        (!domain.is_empty()).then_some(Srv { domain, suffix })
    }
}

/// The rule that etcd checks before all others.
pub(super) fn check_fallback(values: &Values) -> Result<(), String> {
    match values.discovery.fallback.as_str() {
        "proxy" => Err("v2 proxy is deprecated, and --discovery-fallback can't be configured as \
                        \"proxy\""
            .into()),
        _ => Ok(()),
    }
}

pub(super) fn check(values: &Values) -> Result<(), String> {
    let Given { endpoints, token, domain, .. } = &values.discovery;
    let ways = [!values.initial_cluster.is_empty(), !domain.is_empty(), !endpoints.is_empty()];
    if ways.into_iter().filter(|way| *way).count() > 1 {
        return Err("multiple discovery or bootstrap flags are set. Choose one of \
                    \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\""
            .into());
    }
    if token.is_empty() != endpoints.is_empty() {
        return Err("both --discovery-token and --discovery-endpoints must be set".into());
    }
    if endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
        return Err("--discovery-endpoints must not contain empty endpoints".into());
    }
    Ok(())
}

/// The etcd at which to meet, if there is one.
pub(super) fn settle(values: &Values) -> Result<Option<Discovery>, String> {
    let given = &values.discovery;
    if given.endpoints.is_empty() {
        return Ok(None);
    }
    let tls = given.tls.clone();
    if tls.has_certificate() {
        tls.check().map_err(|error| error.to_string())?;
    }
    let no_file = tls.trusted_ca_file.as_os_str().is_empty();
    let plain = given.insecure_transport && no_file && !tls.has_certificate();
    let user = (given.user.clone(), given.password.clone());
    // More often than this servers take pings for an attack; gRPC's Go library does not go below it.
    let keep_alive_interval = given.keep_alive_interval.max(Duration::from_secs(10));
    Ok(Some(Discovery {
        endpoints: given.endpoints.clone(),
        token: given.token.clone(),
        dial_timeout: given.dial_timeout,
        request_timeout: given.request_timeout,
        keep_alive_interval,
        keep_alive_timeout: given.keep_alive_timeout,
        tls: (!plain).then_some(tls),
        // As etcd's client: half a login is none.
        user: Some(user).filter(|(name, password)| !name.is_empty() && !password.is_empty()),
    }))
}

fn file(value: &str) -> Result<PathBuf, String> {
    Ok(value.into())
}

/// As etcd keeps such lists: sorted, without repetitions. None when empty.
fn endpoints(value: &str) -> Result<Vec<String>, String> {
    let parts = value.split(',').filter(|_| !value.is_empty());
    let mut all: Vec<String> = parts.map(str::to_owned).collect();
    all.sort();
    all.dedup();
    Ok(all)
}

pub(super) const FLAGS: &[Flag] = &[
    served!(
        Clustering,
        "discovery-token",
        "",
        set!(discovery.token, text),
        "The token of the cluster to be."
    ),
    served!(
        Clustering,
        "discovery-endpoints",
        list,
        "",
        set!(discovery.endpoints, endpoints),
        "Endpoints of the etcd at which the members meet."
    ),
    served!(
        Clustering,
        "discovery-dial-timeout",
        duration,
        "2s",
        set!(discovery.dial_timeout, go::delay),
        "Discovery: time to connect."
    ),
    served!(
        Clustering,
        "discovery-request-timeout",
        duration,
        "5s",
        set!(discovery.request_timeout, go::delay),
        "Discovery: time for a request."
    ),
    served!(
        Clustering,
        "discovery-keepalive-time",
        duration,
        "2s",
        set!(discovery.keep_alive_interval, go::delay),
        "Discovery: time between pings."
    ),
    served!(
        Clustering,
        "discovery-keepalive-timeout",
        duration,
        "6s",
        set!(discovery.keep_alive_timeout, go::delay),
        "Discovery: time for the answer to a ping."
    ),
    served!(
        Clustering,
        "discovery-insecure-transport",
        bool,
        "true",
        set!(discovery.insecure_transport, go::bool),
        "Discovery: connect without TLS."
    ),
    served!(
        Clustering,
        "discovery-insecure-skip-tls-verify",
        bool,
        "false",
        set!(discovery.tls.insecure_skip_verify, go::bool),
        "Discovery: take any certificate."
    ),
    served!(
        Clustering,
        "discovery-cert",
        "",
        set!(discovery.tls.cert_file, file),
        "Discovery: the certificate to show."
    ),
    served!(
        Clustering,
        "discovery-key",
        "",
        set!(discovery.tls.key_file, file),
        "Discovery: the key of --discovery-cert."
    ),
    served!(
        Clustering,
        "discovery-cacert",
        "",
        set!(discovery.tls.trusted_ca_file, file),
        "Discovery: CAs of the etcd."
    ),
    served!(
        Clustering,
        "discovery-user",
        "",
        set!(discovery.user, text),
        "Discovery: the user; without --discovery-password there is no login."
    ),
    served!(
        Clustering,
        "discovery-password",
        "",
        set!(discovery.password, text),
        "Discovery: the user's password."
    ),
    served!(
        Clustering,
        "discovery-fallback",
        "exit",
        set!(discovery.fallback, |value| one_of(&["exit", "proxy"], value)),
        "What to do when discovery fails: only 'exit'."
    ),
    served!(
        Clustering,
        "discovery-srv",
        "",
        set!(discovery.domain, text),
        "The domain whose SRV records name the members: _etcd-server-ssl._tcp and _etcd-server._tcp in it."
    ),
    served!(
        Clustering,
        "discovery-srv-name",
        "",
        set!(discovery.suffix, text),
        "A suffix to the names of those services, as in _etcd-server-SUFFIX._tcp."
    ),
];
