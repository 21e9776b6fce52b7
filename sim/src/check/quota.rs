//! The quota of live bytes: no member grows much beyond it, an alarm about space stands only where there
//! is a quota, and a member that has had room again for a while has cleared its own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{bounded, said_at};
use crate::facts::evidence::{Record, Sample};
use crate::facts::verdict::Violation;

const CHECKER: &str = "quota";

/// The answer to clients when there is no space.
pub const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";

/// How long an alarm may outlive its reason on a member that has one and the same leader all the time.
const PATIENCE: Duration = Duration::from_secs(8);

pub fn check(record: &Record) -> Vec<Violation> {
    let Some(quota) = record.quota_bytes else { return without(record) };
    let mut violations = Vec::new();
    let mut idle: BTreeMap<&str, Idle> = BTreeMap::new();
    for sample in &record.samples {
        let live = u64::try_from(sample.status.db_size_in_use).unwrap_or(0);
        // What was let in before the alarm, tombstones, and what the deletion of history still has to do.
        if live > quota + quota / 2 {
            let text = format!("{} has {live} live bytes, its quota is {quota}", sample.host);
            violations.push(said_at(
                CHECKER,
                record,
                sample,
                "no member grows beyond its quota",
                text,
            ));
        }
        // Well below any bound at which it may have to go.
        let needless = has_alarm(sample) && live < quota / 2;
        let Some(leader) = Some(sample.status.leader).filter(|leader| *leader != 0 && needless)
        else {
            idle.remove(&*sample.host);
            continue;
        };
        let place = (sample.process, leader);
        let since = idle.entry(&sample.host).or_insert(Idle { place, since: sample.at });
        if since.place != place {
            *since = Idle { place, since: sample.at };
        }
        if sample.at > since.since + PATIENCE {
            let text = format!("{} has {live} live bytes of {quota} and its alarm", sample.host);
            violations.push(said_at(
                CHECKER,
                record,
                sample,
                "an alarm goes when its reason has gone",
                text,
            ));
        }
    }
    bounded(violations)
}

/// An alarm without a reason, so far.
struct Idle {
    /// The process, and the leader that it follows.
    place: (u64, u64),
    since: Instant,
}

/// Whether a member reports that it has raised the alarm itself.
fn has_alarm(sample: &Sample) -> bool {
    let id = sample.status.header.as_ref().map_or(0, |header| header.member_id);
    let own = format!("memberID:{id} alarm:NOSPACE");
    sample.status.errors.contains(&own)
}

/// Space without a bound does not run out.
fn without(record: &Record) -> Vec<Violation> {
    let alarms = |sample: &&Sample| sample.status.errors.iter().any(|e| e.contains("NOSPACE"));
    let told = record.samples.iter().filter(alarms);
    bounded(
        told.take(1)
            .map(|sample| {
                let text = format!("{} reports {:?}", sample.host, sample.status.errors);
                said_at(CHECKER, record, sample, "no alarm without a reason", text)
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::{ResponseHeader, StatusResponse};

    use super::*;
    use crate::check::fixture::{Fixture, texts};

    /// Samples of one member: seconds, live bytes, its leader, whether it has its alarm.
    fn said(quota: Option<u64>, samples: &[(u64, i64, u64, bool)]) -> String {
        let mut fixture = Fixture::default();
        fixture.record.quota_bytes = quota;
        for (at, live, leader, alarm) in samples {
            let errors = if *alarm { vec!["memberID:7 alarm:NOSPACE".to_owned()] } else { vec![] };
            let header = Some(ResponseHeader { member_id: 7, ..Default::default() });
            let status = StatusResponse {
                header,
                db_size_in_use: *live,
                leader: *leader,
                errors,
                ..Default::default()
            };
            let at = fixture.at(*at as f64);
            let sample = Sample { at, host: "m0".into(), process: 1, disk: 0, status };
            fixture.record.samples.push(sample);
        }
        texts(&check(&fixture.record))
    }

    #[test]
    fn bytes_above_the_quota_and_needless_alarms_are_violations() {
        let quota = Some(1_000);
        let sound = [(0, 1_400, 1, true), (1, 400, 1, true), (9, 400, 1, true), (10, 0, 1, false)];
        assert_eq!(said(quota, &sound), "");
        assert!(said(quota, &[(0, 1_501, 1, true)]).contains("1501 live bytes"));
        let stays = [(0, 400, 1, true), (9, 400, 1, true)];
        assert!(said(quota, &stays).contains("400 live bytes of 1000 and its alarm"));
        let changes = [(0, 400, 1, true), (7, 400, 2, true), (9, 400, 2, true)];
        assert_eq!(said(quota, &changes), "", "there was an election");
        let leaderless = [(0, 400, 1, true), (7, 400, 0, true), (9, 400, 1, true)];
        assert_eq!(said(quota, &leaderless), "", "nothing could be proposed");
        assert!(said(None, &[(0, 5, 1, true)]).contains("no alarm without a reason"));
    }
}
