//! Consensus as Raft promises it (Ongaro, thesis, figure 3.2): one leader a term, logs that agree
//! wherever they have an entry of one index and term, nothing committed that is lost or replaced; and
//! what a member reports of itself never goes back. From what members report, what they log and what is on
//! their disks, never from their code.

use std::collections::BTreeMap;
use std::time::Duration;

use super::bounded;
use crate::facts::evidence::{Record, Sample};
use crate::facts::seen::{DiskLog, Line};
use crate::facts::verdict::{Proof, Violation};

const CHECKER: &str = "raft";

/// What does not fit.
pub fn check(record: &Record) -> Vec<Violation> {
    let mut violations = leaders(record);
    violations.extend(outlived(record));
    violations.extend(onward(record));
    violations.extend(votes(record));
    violations.extend(matching(record));
    violations.extend(committed(record));
    bounded(violations)
}

/// The leader of each term in members' reports, and the member that reported it first.
fn leaders(record: &Record) -> Vec<Violation> {
    let hosts = hosts(record);
    let mut known: BTreeMap<(u64, u64), (&str, Proof)> = BTreeMap::new();
    let mut violations = Vec::new();
    let mut claim = |term: (u64, u64), leader: &'_ str, proof: Proof| -> Option<Violation> {
        // Names live as long as the record.
        let leader = hosts.values().find(|host| host.as_str() == leader)?;
        let (other, first) = known.entry(term).or_insert((leader, proof.clone()));
        if *other == leader {
            return None;
        }
        let text = format!("term {} is led by {other} and by {leader}", term.1);
        let violation = Violation::new(CHECKER, "one leader a term", text);
        Some(violation.proved_by(first.clone()).proved_by(proof))
    };
    for reign in &record.seen.reigns {
        let cluster = record.seen.logs.iter().find(|log| log.host == reign.host);
        let cluster = cluster.map(|log| log.cluster).or(first_cluster(record));
        let proof = member(&reign.host, reign.at);
        violations.extend(claim((cluster.unwrap_or(0), reign.term), &reign.host, proof));
    }
    for sample in record.samples.iter().filter(|sample| sample.status.leader != 0) {
        let Some(leader) = hosts.get(&sample.status.leader) else { continue };
        let term = (cluster(sample), sample.status.raft_term);
        violations.extend(claim(term, leader, proof(record, sample)));
    }
    violations
}

/// A leader that has lost its quorum stops leading: no member goes on reporting that it leads an old term
/// while the leader of a newer one is known. Two election timeouts are what that takes, one for an answer
/// that is late and one without any.
fn outlived(record: &Record) -> Vec<Violation> {
    let limit = record.election_timeout * 2 + GRACE;
    // Since when each term of each cluster has had a leader.
    let mut led: BTreeMap<(u64, u64), &Sample> = BTreeMap::new();
    // Since when each host has reported so without a break.
    let mut since: BTreeMap<&str, &Sample> = BTreeMap::new();
    let mut last: BTreeMap<&str, &Sample> = BTreeMap::new();
    let mut violations = Vec::new();
    for sample in &record.samples {
        let before = last.insert(&sample.host, sample);
        if !leads(sample) {
            since.remove(sample.host.as_str());
            continue;
        }
        let reign = (cluster(sample), sample.status.raft_term);
        led.entry(reign).or_insert(sample);
        // A member that was stopped for a while could not know.
        let goes_on = |before: &Sample| {
            leads(before)
                && before.process == sample.process
                && before.status.raft_term == sample.status.raft_term
                && sample.at - before.at < AWAKE
        };
        let begun = since.entry(&sample.host).or_insert(sample);
        if !before.is_some_and(goes_on) {
            *begun = sample;
        }
        let newer = led.range((reign.0, reign.1 + 1)..=(reign.0, u64::MAX));
        let newest = newer.map(|(_, newer)| *newer).min_by_key(|newer| newer.at);
        if let Some(newer) = newest
            && sample.at - newer.at.max(begun.at) > limit
        {
            let text = format!(
                "{} reports that it leads term {}, {} has led term {} for {:?}",
                sample.host,
                reign.1,
                newer.host,
                newer.status.raft_term,
                sample.at - newer.at
            );
            let violation = Violation::new(CHECKER, "a leader without a quorum resigns", text);
            violations
                .push(violation.proved_by(proof(record, newer)).proved_by(proof(record, sample)));
        }
    }
    violations
}

/// What answers may be late by on a bad link.
const GRACE: Duration = Duration::from_secs(4);
/// A member answers the observer at least this often, unless it is stopped or out of reach.
const AWAKE: Duration = Duration::from_secs(1);

fn leads(sample: &Sample) -> bool {
    let own = sample.status.header.as_ref().map_or(0, |header| header.member_id);
    own != 0 && sample.status.leader == own
}

/// Hosts by the ids of their members.
fn hosts(record: &Record) -> BTreeMap<u64, String> {
    let said = record.samples.iter().filter_map(|sample| {
        let header = sample.status.header.as_ref()?;
        Some((header.member_id, sample.host.clone()))
    });
    let on_disk = record.seen.logs.iter().map(|log| (log.member, log.host.clone()));
    said.chain(on_disk).collect()
}

fn first_cluster(record: &Record) -> Option<u64> {
    record.samples.first().map(cluster)
}

/// Commit, applied and revision of a member only rise, over restarts too: one that was started again
/// serves when it has all that is committed. Its term may go back to what is on its disk when its
/// process ends: no other member had a newer one.
fn onward(record: &Record) -> Vec<Violation> {
    let mut last: BTreeMap<&str, &Sample> = BTreeMap::new();
    let mut violations = Vec::new();
    for sample in &record.samples {
        let Some(before) = last.insert(&sample.host, sample) else { continue };
        let life = |sample: &Sample| (sample.disk, cluster(sample));
        if life(before) != life(sample) {
            continue;
        }
        let is_one_process = before.process == sample.process;
        let (old, new) = (&before.status, &sample.status);
        let revision = |sample: &Sample| {
            sample.status.header.as_ref().map_or(0, |header| header.revision as u64)
        };
        let figures = [
            ("term", old.raft_term, new.raft_term),
            ("commit", old.raft_index, new.raft_index),
            ("applied", old.raft_applied_index, new.raft_applied_index),
            ("revision", revision(before), revision(sample)),
        ];
        for (name, old, new) in figures {
            if new < old && (name != "term" || is_one_process) {
                let text = format!("{}: {name} {new} after {old}", sample.host);
                let violation = Violation::new(CHECKER, "members go forward only", text);
                violations.push(
                    violation.proved_by(proof(record, before)).proved_by(proof(record, sample)),
                );
            }
        }
    }
    violations
}

/// A member votes for one candidate in a term, whatever happens to it in between.
fn votes(record: &Record) -> Vec<Violation> {
    let mut given: BTreeMap<(&str, u64, u64), u64> = BTreeMap::new();
    let mut violations = Vec::new();
    for log in &record.seen.logs {
        for (term, vote) in &log.votes {
            let first = *given.entry((&log.host, log.disk, *term)).or_insert(*vote);
            if first != *vote {
                let text = format!("{}: in term {term} for {first:x} and {vote:x}", log.host);
                let violation = Violation::new(CHECKER, "one vote a term", text);
                violations.push(violation.proved_by(member(&log.host, log.at)));
            }
        }
    }
    violations
}

/// Two entries of one index and term are the same entry, in whosever log, at whatever time.
fn matching(record: &Record) -> Vec<Violation> {
    let mut known: BTreeMap<(u64, u64, u64), (u64, &DiskLog)> = BTreeMap::new();
    let mut violations = Vec::new();
    for log in &record.seen.logs {
        for line in &log.lines {
            let place = (log.cluster, line.index, line.term);
            let (digest, first) = *known.entry(place).or_insert((line.digest, log));
            if digest != line.digest {
                let text = format!(
                    "entry {} of term {} differs between {} and {}",
                    line.index, line.term, first.host, log.host
                );
                violations.push(disagreement("logs match", text, first, log));
            }
        }
    }
    violations
}

/// What one log shows as committed is in every later one that reaches so far, and no log that was
/// there in the end ends before it.
fn committed(record: &Record) -> Vec<Violation> {
    let mut known: BTreeMap<(u64, u64), (Line, &DiskLog)> = BTreeMap::new();
    let mut violations = Vec::new();
    for log in &record.seen.logs {
        for line in log.lines.iter().take_while(|line| line.index <= log.commit) {
            let (first, whose) = *known.entry((log.cluster, line.index)).or_insert((*line, log));
            if first != *line {
                let text = format!(
                    "entry {} is committed in {} with term {} and in {} with term {}",
                    line.index, whose.host, first.term, log.host, line.term
                );
                let property = "what is committed stays";
                violations.push(disagreement(property, text, whose, log));
            }
        }
    }
    violations.extend(ends(record));
    violations
}

/// In the end, on a whole cluster, each member has what any of them ever called committed.
fn ends(record: &Record) -> Vec<Violation> {
    let Some(ended) = record.ended.map(|ended| record.at(ended)) else { return Vec::new() };
    let healthy = record.samples.iter().filter(|sample| record.at(sample.at) <= ended);
    let Some(newest) = healthy.max_by_key(|sample| sample.status.raft_index) else {
        return Vec::new();
    };
    let commit = newest.status.raft_index;
    let closed = record.seen.logs.iter().filter(|log| log.at >= ended);
    let short = closed.filter(|log| log.cluster == cluster(newest) && log.last() < commit);
    // A member that was removed receives nothing more.
    let present = |log: &&DiskLog| {
        let last = record.samples.iter().rev().find(|sample| sample.host == log.host);
        last.is_some_and(|sample| record.at(sample.at) + PRESENT >= ended)
    };
    let told = short.filter(present).map(|log| {
        let (host, last) = (&log.host, log.last());
        let text = format!("{} called {commit} committed, {host} ends at {last}", newest.host);
        let violation = Violation::new(CHECKER, "what is committed stays", text);
        violation.proved_by(proof(record, newest)).proved_by(member(host, log.at))
    });
    told.collect()
}

/// A host that has answered so shortly before the end was a member then.
const PRESENT: Duration = Duration::from_secs(2);

fn disagreement(property: &'static str, text: String, one: &DiskLog, other: &DiskLog) -> Violation {
    Violation::new(CHECKER, property, text)
        .proved_by(member(&one.host, one.at))
        .proved_by(member(&other.host, other.at))
}

fn cluster(sample: &Sample) -> u64 {
    sample.status.header.as_ref().map_or(0, |header| header.cluster_id)
}

fn proof(record: &Record, sample: &Sample) -> Proof {
    member(&sample.host, record.at(sample.at))
}

fn member(host: &str, at: Duration) -> Proof {
    Proof::Member { host: host.to_owned(), at_us: at.as_micros() as u64 }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any instant will do: only differences count")]
mod tests {
    use std::time::Instant;

    use quorate_proto::etcdserverpb::{ResponseHeader, StatusResponse};

    use super::*;
    use crate::facts::seen::Reign;

    fn sample(host: u64, process: u64, term: u64, leader: u64, index: u64) -> Sample {
        let header =
            ResponseHeader { member_id: host, revision: index as i64, ..Default::default() };
        let status = StatusResponse {
            header: Some(header),
            raft_term: term,
            leader,
            raft_index: index,
            raft_applied_index: index,
            ..Default::default()
        };
        let at = Instant::now();
        Sample { at, host: format!("m{host}"), process, disk: 0, status }
    }

    fn log(host: u64, commit: u64, entries: &[(u64, u64)]) -> DiskLog {
        let line = |(at, (term, digest)): (usize, &(u64, u64))| Line {
            index: at as u64 + 1,
            term: *term,
            digest: *digest,
        };
        DiskLog {
            at: Duration::from_secs(9),
            host: format!("m{host}"),
            member: host,
            commit,
            lines: entries.iter().enumerate().map(line).collect(),
            votes: vec![(2, 1)],
            ..DiskLog::default()
        }
    }

    fn said(change: impl FnOnce(&mut Record)) -> String {
        let now = Instant::now();
        let ended = Some(now + Duration::from_secs(1));
        let mut record = Record { start: Some(now), ended, ..Record::default() };
        record.samples = vec![sample(1, 1, 2, 1, 3), sample(2, 1, 2, 1, 3)];
        record.seen.reigns = vec![Reign { at: Duration::ZERO, host: "m1".into(), term: 2 }];
        record.seen.logs = vec![log(1, 3, &[(1, 7), (2, 8), (2, 9)]), log(2, 2, &[(1, 7), (2, 8)])];
        record.seen.logs[1].lines.push(Line { index: 3, term: 2, digest: 9 });
        change(&mut record);
        check(&record).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn two_leaders_and_lost_entries_are_violations() {
        assert_eq!(said(|_| {}), "");
        let reign = Reign { at: Duration::ZERO, host: "m2".into(), term: 2 };
        let two = said(|record| record.seen.reigns.push(reign));
        assert!(two.contains("term 2 is led by m1 and by m2"), "{two}");
        let two = said(|record| record.samples.push(sample(2, 1, 2, 2, 3)));
        assert!(two.contains("term 2 is led by m1 and by m2"), "{two}");

        // The first reports for 12 seconds that it leads term 2, the second leads term 3 all the time.
        let both = |pause_at: u64| {
            said(|record| {
                record.election_timeout = Duration::from_secs(1);
                let start = record.start.expect("it is set");
                record.samples = (0..24)
                    .flat_map(|half_s| [(half_s, 1, 2), (half_s, 2, 3)])
                    .filter(|(half_s, host, _)| *host == 2 || half_s / 4 != pause_at)
                    .map(|(half_s, host, term)| Sample {
                        at: start + Duration::from_millis(500 * half_s),
                        ..sample(host, 1, term, host, 3)
                    })
                    .collect();
                record.seen.reigns.clear();
            })
        };
        assert!(both(9).contains("m1 reports that it leads term 2, m2 has led term 3"));
        assert_eq!(both(3), "", "it did not run in between");

        let back = said(|record| record.samples.push(sample(1, 1, 1, 0, 3)));
        assert!(back.contains("m1: term 1 after 2"), "{back}");
        assert_eq!(said(|record| record.samples.push(sample(1, 2, 1, 0, 3))), "", "a new process");
        let back = said(|record| record.samples.push(sample(1, 2, 2, 1, 2)));
        assert!(back.contains("m1: applied 2 after 3"), "{back}");

        let vote = said(|record| record.seen.logs[1].votes.push((2, 3)));
        assert!(vote.contains("m2: in term 2 for 1 and 3"), "{vote}");
        let other = said(|record| record.seen.logs[1].lines[2].digest = 4);
        assert!(other.contains("entry 3 of term 2 differs between m1 and m2"), "{other}");
        let replaced = said(|record| {
            record.seen.logs[1].lines[1].term = 1;
            record.seen.logs[1].lines[1].digest = 5;
        });
        assert!(replaced.contains("entry 2 is committed in m1"), "{replaced}");
        let short = said(|record| record.seen.logs[1].lines.truncate(2));
        assert!(short.contains("called 3 committed, m2 ends at 2"), "{short}");
    }
}
