//! How a new cluster finds its members without a list of them: another etcd, or DNS. The flags and their
//! rules, with etcd's texts; neither way is served yet.

use super::flags::{Flag, one_of, served, set, text};
use super::{Values, go};

/// The values of these flags, as given.
#[derive(Clone, Debug, Default)]
pub(super) struct Discovery {
    pub endpoints: Vec<String>,
    pub token: String,
    pub fallback: String,
    pub domain: String,
    pub service: String,
}

impl Discovery {
    /// Whether the initial cluster is not what the flag of that name says.
    pub fn is_asked_for(&self) -> bool {
        !self.endpoints.is_empty() || !self.domain.is_empty()
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
    let Discovery { endpoints, token, domain, .. } = &values.discovery;
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

/// The way that was asked for, as long as there is none.
pub(super) fn refusal(values: &Values) -> Result<(), String> {
    let refused =
        |flag| Err(format!("flag --{flag} is known to etcd but not served by this version"));
    match &values.discovery {
        discovery if !discovery.endpoints.is_empty() => refused("discovery-endpoints"),
        discovery if !discovery.domain.is_empty() => refused("discovery-srv"),
        _ => Ok(()),
    }
}

/// As etcd keeps such lists: sorted, without repetitions. None when empty.
fn endpoints(value: &str) -> Result<Vec<String>, String> {
    let parts = value.split(',').filter(|_| !value.is_empty());
    let mut all: Vec<String> = parts.map(str::to_owned).collect();
    all.sort();
    all.dedup();
    Ok(all)
}

/// Only what follows from how etcd is found; without discovery none of it matters.
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
        "Endpoints of the etcd at which the members meet; not served."
    ),
    served!(
        Clustering,
        "discovery-dial-timeout",
        duration,
        "2s",
        |_, value| go::delay(value).map(drop),
        "Discovery: time to connect."
    ),
    served!(
        Clustering,
        "discovery-request-timeout",
        duration,
        "5s",
        |_, value| go::delay(value).map(drop),
        "Discovery: time for a request."
    ),
    served!(
        Clustering,
        "discovery-keepalive-time",
        duration,
        "2s",
        |_, value| go::delay(value).map(drop),
        "Discovery: time between pings."
    ),
    served!(
        Clustering,
        "discovery-keepalive-timeout",
        duration,
        "6s",
        |_, value| go::delay(value).map(drop),
        "Discovery: time for the answer to a ping."
    ),
    served!(
        Clustering,
        "discovery-insecure-transport",
        bool,
        "true",
        |_, value| go::bool(value).map(drop),
        "Discovery: connect without TLS."
    ),
    served!(
        Clustering,
        "discovery-insecure-skip-tls-verify",
        bool,
        "false",
        |_, value| go::bool(value).map(drop),
        "Discovery: take any certificate."
    ),
    served!(
        Clustering,
        "discovery-cert",
        "",
        |_, value| text(value).map(drop),
        "Discovery: the certificate to show."
    ),
    served!(
        Clustering,
        "discovery-key",
        "",
        |_, value| text(value).map(drop),
        "Discovery: the key of --discovery-cert."
    ),
    served!(
        Clustering,
        "discovery-cacert",
        "",
        |_, value| text(value).map(drop),
        "Discovery: CAs of the etcd."
    ),
    served!(
        Clustering,
        "discovery-user",
        "",
        |_, value| text(value).map(drop),
        "Discovery: user[:password]."
    ),
    served!(
        Clustering,
        "discovery-password",
        "",
        |_, value| text(value).map(drop),
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
        "The domain whose SRV records name the members; not served."
    ),
    served!(
        Clustering,
        "discovery-srv-name",
        "",
        set!(discovery.service, text),
        "A suffix to the names of those records."
    ),
];
