//! Members are the same where they report the same place: equal fingerprints of history at
//! one revision and compaction, one revision for one applied index, during the run and in the end.

use std::collections::BTreeMap;

use super::bounded;
use crate::facts::evidence::Record;
use crate::facts::verdict::{Proof, Violation};

const CHECKER: &str = "equal";

/// What does not fit.
pub fn check(record: &Record) -> Vec<Violation> {
    let mut violations = fingerprints(record);
    violations.extend(positions(record));
    bounded(violations)
}

fn fingerprints(record: &Record) -> Vec<Violation> {
    let mut first = BTreeMap::new();
    let mut violations = Vec::new();
    for seen in &record.seen.hashes {
        let answer = &seen.answer;
        let cluster = answer.header.as_ref().map_or(0, |header| header.cluster_id);
        let place = (cluster, answer.hash_revision, answer.compact_revision);
        let known = *first.entry(place).or_insert(seen);
        if known.answer.hash != answer.hash {
            let text = format!(
                "at revision {} compacted at {} the history of {} is {:08x}, that of {} {:08x}",
                place.1, place.2, known.host, known.answer.hash, seen.host, answer.hash
            );
            let violation = Violation::new(CHECKER, "members have one history", text);
            violations.push(
                violation
                    .proved_by(member(&known.host, record.at(known.at).as_micros()))
                    .proved_by(member(&seen.host, record.at(seen.at).as_micros())),
            );
        }
    }
    violations
}

/// A place in the log has one revision and one term, in every report of every member.
fn positions(record: &Record) -> Vec<Violation> {
    let mut known: BTreeMap<(u64, u64), (&str, i64)> = BTreeMap::new();
    let mut violations = Vec::new();
    let sampled = record.samples.iter().filter_map(|sample| {
        let header = sample.status.header.as_ref()?;
        let index = (header.cluster_id, sample.status.raft_applied_index);
        Some((index, sample.host.as_str(), header.revision, record.at(sample.at).as_micros()))
    });
    let stored = record.seen.stores.iter().filter_map(|store| {
        let log = record.seen.logs.iter().find(|log| log.host == store.host)?;
        let index = (log.cluster, store.applied);
        Some((index, store.host.as_str(), store.revision, store.at.as_micros()))
    });
    for (index, host, revision, at_us) in sampled.chain(stored) {
        let (other, first) = *known.entry(index).or_insert((host, revision));
        if first != revision {
            let text = format!(
                "with entry {} applied, {other} is at revision {first}, {host} at {revision}",
                index.1
            );
            let violation = Violation::new(CHECKER, "one place in the log, one revision", text);
            violations.push(violation.proved_by(member(host, at_us)));
        }
    }
    violations
}

fn member(host: &str, at_us: u128) -> Proof {
    Proof::Member { host: host.to_owned(), at_us: at_us as u64 }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any instant will do: only differences count")]
mod tests {
    use std::time::Instant;

    use quorate_proto::etcdserverpb::{HashKvResponse, ResponseHeader, StatusResponse};

    use super::*;
    use crate::facts::evidence::Sample;
    use crate::facts::seen::Hash;

    fn hash(host: &str, revision: i64, compacted: i64, hash: u32) -> Hash {
        let answer = HashKvResponse {
            header: None,
            hash,
            compact_revision: compacted,
            hash_revision: revision,
        };
        Hash { at: Instant::now(), host: host.into(), disk: 0, answer }
    }

    fn sample(host: &str, applied: u64, revision: i64) -> Sample {
        let header = Some(ResponseHeader { revision, ..Default::default() });
        let status = StatusResponse { header, raft_applied_index: applied, ..Default::default() };
        Sample { at: Instant::now(), host: host.into(), process: 1, disk: 0, status }
    }

    #[test]
    fn members_with_other_hashes_and_revisions_are_violations() {
        let mut record = Record::default();
        record.seen.hashes = vec![hash("m0", 5, -1, 1), hash("m1", 5, 3, 2), hash("m1", 5, -1, 1)];
        record.samples = vec![sample("m0", 7, 5), sample("m1", 7, 5), sample("m1", 8, 5)];
        assert!(check(&record).is_empty());
        record.seen.hashes.push(hash("m2", 5, -1, 9));
        record.samples.push(sample("m2", 8, 6));
        let said: Vec<_> = check(&record).iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("that of m2 00000009"), "{said:?}");
        assert!(said[1].contains("m1 is at revision 5, m2 at 6"), "{said:?}");
    }
}
