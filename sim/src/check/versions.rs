//! The cluster's version: members at one place in the log agree on whether it is being lowered, and
//! under a leader that stays it soon is what it is to be.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{bounded, said_at};
use crate::facts::evidence::{Record, Sample};
use crate::facts::verdict::Violation;

const CHECKER: &str = "versions";

/// Leaders look every four seconds; members must be known first.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn check(record: &Record) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut told: BTreeMap<(u64, u64), (&str, Target)> = BTreeMap::new();
    let mut wrong: BTreeMap<&str, Wrong> = BTreeMap::new();
    for sample in &record.samples {
        let cluster = sample.status.header.as_ref().map_or(0, |header| header.cluster_id);
        let place = (cluster, sample.status.raft_applied_index);
        let target = target(sample);
        let (host, first) = *told.entry(place).or_insert((&sample.host, target));
        if first != target {
            let text = format!(
                "with entry {} applied, {host} has target {first:?}, {} has {target:?}",
                place.1, sample.host
            );
            violations.push(said_at(CHECKER, record, sample, "members agree on a downgrade", text));
        }
        let wanted = target.unwrap_or(&record.cluster_version);
        let is = &*sample.status.storage_version;
        if is == wanted || sample.status.leader == 0 {
            wrong.remove(&*sample.host);
            continue;
        }
        let under = (sample.process, sample.status.raft_term, wanted);
        let since = wrong.entry(&sample.host).or_insert(Wrong { under, since: sample.at });
        if since.under != under {
            *since = Wrong { under, since: sample.at };
        }
        if record.calm && sample.at > since.since + PATIENCE {
            let text = format!("{} is at {is}, and should be at {wanted}", sample.host);
            violations.push(said_at(
                CHECKER,
                record,
                sample,
                "the version follows a downgrade",
                text,
            ));
        }
    }
    bounded(violations)
}

/// The version that the cluster is being lowered to.
type Target<'a> = Option<&'a str>;

/// A version that is not what it is to be.
struct Wrong<'a> {
    /// The process, its term, and the version that it should report.
    under: (u64, u64, &'a str),
    since: Instant,
}

fn target(sample: &Sample) -> Target<'_> {
    let info = sample.status.downgrade_info.as_ref()?;
    info.enabled.then_some(&*info.target_version)
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::{DowngradeInfo, ResponseHeader, StatusResponse};

    use super::*;
    use crate::check::fixture::{Fixture, texts};

    /// Samples: seconds, host, applied index, term, target or nothing, version.
    fn said(samples: &[(u64, &str, u64, u64, &str, &str)]) -> String {
        let mut fixture = Fixture::default();
        fixture.record.calm = true;
        fixture.record.cluster_version = "3.7.0".into();
        for (at, host, applied, term, target, version) in samples {
            let info =
                DowngradeInfo { enabled: !target.is_empty(), target_version: (*target).into() };
            let status = StatusResponse {
                header: Some(ResponseHeader::default()),
                leader: 1,
                raft_applied_index: *applied,
                raft_term: *term,
                storage_version: (*version).into(),
                downgrade_info: Some(info),
                ..Default::default()
            };
            let at = fixture.at(*at as f64);
            let sample = Sample { at, host: (*host).into(), process: 1, disk: 0, status };
            fixture.record.samples.push(sample);
        }
        texts(&check(&fixture.record))
    }

    #[test]
    fn versions_that_differ_and_stay_are_violations() {
        let (up, down) = ("3.7.0", "3.6.0");
        let sound =
            [(0, "m0", 1, 1, "", up), (1, "m0", 2, 1, down, up), (9, "m0", 3, 1, down, down)];
        assert_eq!(said(&sound), "");
        let differ = [(0, "m0", 5, 1, down, down), (0, "m1", 5, 1, "", down)];
        assert!(said(&differ).contains("m0 has target Some(\"3.6.0\"), m1 has None"));
        let slow = [(0, "m0", 1, 1, down, up), (11, "m0", 2, 1, down, up)];
        assert!(said(&slow).contains("m0 is at 3.7.0, and should be at 3.6.0"));
        let elected = [(0, "m0", 1, 1, down, up), (11, "m0", 2, 2, down, up)];
        assert_eq!(said(&elected), "", "another leader");
    }
}
