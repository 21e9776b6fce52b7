//! The server's own check for corruption, held against what observers have seen: a member whose
//! history is not that of the majority is accused soon, and no other ever is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{bounded, said_at};
use crate::facts::evidence::{Record, Sample};
use crate::facts::seen::Hash;
use crate::facts::verdict::Violation;

const CHECKER: &str = "corruption";
const ALARM: &str = " alarm:CORRUPT";

/// Checks that a member which differs may escape: it may be down, or compacted differently, or the
/// leader may be new.
const CHECKS: u32 = 5;
/// And the time that one of them may take.
const SLACK: Duration = Duration::from_secs(8);

pub fn check(record: &Record) -> Vec<Violation> {
    let wrong = wrong(record);
    let mut violations = Vec::new();
    let mut accused = BTreeSet::new();
    for sample in &record.samples {
        for id in sample.status.errors.iter().filter_map(|error| named(error)) {
            let fresh = accused.insert(id);
            // The leader may not have had the hashes of enough members to know the majority.
            let known = wrong.contains_key(&id) || (id == 0 && !wrong.is_empty());
            if fresh && !known {
                let text = match id {
                    0 => "no particular member".to_owned(),
                    id => format!("member {id:x}"),
                };
                let text = format!("{} reports {text}, {wrong:?} differ", sample.host);
                violations.push(said_at(
                    CHECKER,
                    record,
                    sample,
                    "no intact member is reported",
                    text,
                ));
            }
        }
    }
    let (Some(pause), Some(last)) = (record.corrupt_check, record.samples.last()) else {
        return bounded(violations);
    };
    for (id, since) in &wrong {
        if !accused.contains(id) && last.at > *since + pause * CHECKS + SLACK {
            let text = format!("member {id:x} differs and is not reported");
            let property = "a member that differs is reported";
            violations.push(said_at(CHECKER, record, last, property, text));
        }
    }
    bounded(violations)
}

/// Members whose history was another one than that of the majority, and since when that is known; 0
/// where there was no majority.
fn wrong(record: &Record) -> BTreeMap<u64, Instant> {
    let ids: BTreeMap<&str, u64> = record.samples.iter().filter_map(of).collect();
    let mut places: BTreeMap<(i64, i64), BTreeMap<&str, &Hash>> = BTreeMap::new();
    for hash in &record.seen.hashes {
        let place = (hash.answer.hash_revision, hash.answer.compact_revision);
        places.entry(place).or_default().insert(&hash.host, hash);
    }
    let mut wrong = BTreeMap::new();
    for seen in places.into_values() {
        let mut groups: BTreeMap<u32, Vec<&Hash>> = BTreeMap::new();
        for hash in seen.values() {
            groups.entry(hash.answer.hash).or_default().push(hash);
        }
        if groups.len() < 2 {
            continue;
        }
        let right = groups.iter().find(|(_, hashes)| hashes.len() > ids.len() / 2);
        let right = right.map(|(hash, _)| *hash);
        for hash in
            seen.values().filter(|hash| right.is_some_and(|right| hash.answer.hash != right))
        {
            if let Some(id) = ids.get(&*hash.host) {
                wrong.entry(*id).or_insert(hash.at);
            }
        }
        if let (None, Some(hash)) = (right, seen.values().next()) {
            wrong.entry(0).or_insert(hash.at);
        }
    }
    wrong
}

fn of(sample: &Sample) -> Option<(&str, u64)> {
    Some((&sample.host, sample.status.header.as_ref()?.member_id))
}

/// The member that a line of a status accuses.
fn named(error: &str) -> Option<u64> {
    error.strip_suffix(ALARM)?.strip_prefix("memberID:")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::{HashKvResponse, ResponseHeader, StatusResponse};

    use super::*;
    use crate::check::fixture::{Fixture, texts};

    /// Three members m1, m2, m3; the hash of each at one place, and the members that the last sample accuses.
    fn said(hashes: [u32; 3], accused: &[u64]) -> String {
        let mut fixture = Fixture::default();
        fixture.record.corrupt_check = Some(Duration::from_secs(1));
        for (at, id) in [(0.0, 1), (0.0, 2), (0.0, 3), (60.0, 1)] {
            let errors = accused.iter().filter(|_| at > 0.0);
            let status = StatusResponse {
                header: Some(ResponseHeader { member_id: id, ..Default::default() }),
                errors: errors.map(|id| format!("memberID:{id}{ALARM}")).collect(),
                ..Default::default()
            };
            let (at, host) = (fixture.at(at), format!("m{id}"));
            fixture.record.samples.push(Sample { at, host, process: 1, disk: 0, status });
        }
        for (host, hash) in ["m1", "m2", "m3"].into_iter().zip(hashes) {
            let answer =
                HashKvResponse { header: None, hash, compact_revision: -1, hash_revision: 9 };
            let at = fixture.at(1.0);
            fixture.record.seen.hashes.push(Hash { at, host: host.into(), disk: 0, answer });
        }
        texts(&check(&fixture.record))
    }

    #[test]
    fn wrong_accusations_of_members_are_violations() {
        assert_eq!(said([7, 7, 7], &[]), "");
        assert!(said([7, 7, 7], &[2]).contains("reports member 2"));
        assert_eq!(said([7, 8, 7], &[2]), "");
        let other = said([7, 8, 7], &[3]);
        assert!(
            other.contains("reports member 3") && other.contains("member 2 differs"),
            "{other}"
        );
        assert_eq!(said([7, 8, 9], &[0]), "", "nobody knows");
        assert!(said([7, 8, 7], &[0]).contains("member 2 differs"));
        assert!(said([7, 7, 7], &[0]).contains("no particular member"));
    }
}
