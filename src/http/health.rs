//! The probes `/health` (is the cluster usable?), `/livez` (must the process be restarted?) and `/readyz`
//! (should it get traffic?), with etcd's checks, texts and order.

use std::collections::BTreeSet;

use http::{Response, StatusCode};
use quorate_proto::etcdserverpb::AlarmType;
use tonic::body::Body;
use tracing::warn;

use super::{Served, TEXT, plain, with_type};

/// One check of a probe.
#[derive(Clone, Copy)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    async fn run(self, served: &dyn Served) -> Result<(), String> {
        let corrupt = AlarmType::Corrupt as i32;
        match self {
            Self::DataCorruption if served.alarms().iter().any(|a| a.alarm == corrupt) => {
                Err("alarm activated: CORRUPT".into())
            }
            Self::NonLearner if served.is_learner() => Err("not supported for learner".into()),
            Self::DataCorruption | Self::NonLearner => Ok(()),
            Self::SerializableRead => served.read(true).await.map_err(|e| e.to_string()),
            Self::LinearizableRead => served.read(false).await.map_err(|e| e.to_string()),
        }
    }
}

/// A set of checks under one path.
#[derive(Clone, Copy)]
pub(super) struct Probe {
    /// The first part of the path.
    kind: &'static str,
    checks: &'static [Check],
    /// The path names the whole set: checks may be excluded.
    whole: bool,
}

const LIVEZ: &[Check] = &[Check::SerializableRead];
const READYZ: &[Check] =
    &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

/// Returns the probe at `path`: `/livez`, `/readyz` or one of their checks.
pub(super) fn find(path: &str) -> Option<Probe> {
    let path = path.strip_prefix('/')?;
    let (kind, name) = path.split_once('/').map_or((path, None), |(kind, n)| (kind, Some(n)));
    let (kind, checks) = match kind {
        "livez" => ("livez", LIVEZ),
        "readyz" => ("readyz", READYZ),
        _ => return None,
    };
    let Some(name) = name else { return Some(Probe { kind, checks, whole: true }) };
    let at = checks.iter().position(|check| check.name() == name)?;
    Some(Probe { kind, checks: &checks[at..=at], whole: false })
}

/// Runs all checks of the probe, also after one has failed, so that the response lists each.
pub(super) async fn run(served: &dyn Served, probe: Probe, query: &str) -> Response<Body> {
    let excluded = if probe.whole { values(query, "exclude") } else { BTreeSet::new() };
    let (mut report, mut failed) = (String::new(), false);
    for check in probe.checks.iter().filter(|check| !excluded.contains(check.name())) {
        let name = check.name();
        let outcome = check.run(served).await;
        let status = if outcome.is_ok() { "success" } else { "error" };
        let metrics = served.metrics();
        metrics.healthcheck.with_label_values(&[probe.kind, name]).set(outcome.is_ok().into());
        metrics.healthchecks.with_label_values(&[probe.kind, name, status]).inc();
        match outcome {
            Ok(()) => report.push_str(&format!("[+]{name} ok\n")),
            Err(why) => {
                failed = true;
                report.push_str(&format!("[-]{name} failed: {why}\n"));
            }
        }
    }
    if failed {
        warn!(
            path = format!("/{}", probe.kind), reason = %report,
            status_code = StatusCode::SERVICE_UNAVAILABLE.as_u16(),
            "Health check error"
        );
        return plain(StatusCode::SERVICE_UNAVAILABLE, format!("{report}\n"));
    }
    let verbose = pairs(query).any(|(key, _)| key == "verbose");
    plain(StatusCode::OK, if verbose { format!("{report}ok\n") } else { "ok\n".into() })
}

/// `/health`: alarms, then a leader, then a read; the first that fails is the reason.
pub(super) async fn health(served: &dyn Served, query: &str) -> Response<Body> {
    let serializable = pairs(query).find(|(key, _)| key == "serializable");
    let serializable = serializable.is_some_and(|(_, value)| value == "true");
    let reason = match unhealthy(served, &values(query, "exclude"), serializable) {
        Some(reason) => Some(reason),
        None => served.read(serializable).await.err().map(|error| {
            warn!(%error, "serving /health false; Range fails");
            format!("RANGE ERROR:{error}")
        }),
    };
    let metrics = served.metrics();
    match reason {
        None => metrics.health_success.inc(),
        Some(_) => metrics.health_failures.inc(),
    }
    verdict(reason)
}

/// Returns the response of `/health`.
pub(crate) fn verdict(unhealthy: Option<String>) -> Response<Body> {
    let Some(reason) = unhealthy else {
        return with_type(StatusCode::OK, TEXT, r#"{"health":"true","reason":""}"#);
    };
    let reason = serde_json::Value::from(reason);
    let text = format!("{{\"health\":\"false\",\"reason\":{reason}}}\n");
    let status_code = StatusCode::SERVICE_UNAVAILABLE.as_u16();
    warn!(output = text.trim_end(), status_code, "/health error");
    plain(StatusCode::SERVICE_UNAVAILABLE, text)
}

fn unhealthy(
    served: &dyn Served,
    excluded: &BTreeSet<String>,
    serializable: bool,
) -> Option<String> {
    let alarms = served.alarms();
    let standing = alarms.iter().find(|alarm| !excluded.contains(alarm.alarm().as_str_name()));
    if let Some(alarm) = standing {
        let name = match alarm.alarm() {
            AlarmType::Nospace => "NOSPACE",
            AlarmType::Corrupt => "CORRUPT",
            AlarmType::None => "UNKNOWN",
        };
        let alarm = format!("memberID:{} alarm:{name}", alarm.member_id);
        warn!(alarm, "serving /health false due to an alarm");
        return Some(format!("ALARM {name}"));
    }
    let has_no_leader = !serializable && !served.has_leader();
    has_no_leader.then(|| {
        warn!("serving /health false; no leader");
        "RAFT NO LEADER".into()
    })
}

fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    url::form_urlencoded::parse(query.as_bytes()).into_owned()
}

/// Returns the values of a query key that may be repeated; empty ones are ignored.
fn values(query: &str, key: &str) -> BTreeSet<String> {
    pairs(query).filter(|(k, v)| k == key && !v.is_empty()).map(|(_, v)| v).collect()
}
