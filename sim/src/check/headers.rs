//! Is the revision in every answer's header that of the effect it stands for? What is answered about keys is
//! for [`super::replay`]; this is about leases and compactions, whose answers carry the revision at which
//! they were applied (etcd, `applierV3backend.newHeader`), not the one that the store has reached by the
//! time the answer is sent.
//!
//! * A revoke that deleted keys has made a revision, and answers with it.
//! * A grant is answered at a revision before all that hangs on the lease.
//! * A renewal was received at a revision before the end of the lease: etcd fills the header first.
//! * All are of one cluster; where no member crashes, the terms of one member's answers do not go back.
//! * None is older than what had been answered before it, or newer than what was written after it.

use std::collections::{BTreeMap, BTreeSet};

use quorate_proto::etcdserverpb::ResponseHeader;

use super::bounded;
use super::order::Order;
use super::replay::{explains, lease_ended};
use super::space::Space;
use crate::facts::evidence::Record;
use crate::facts::history::{Call, Operation};
use crate::facts::verdict::Violation;

const OWN: &str = "an answer has the revision of its effect";
const TIMELY: &str = "an answer's revision is of its time";

pub fn check(record: &Record) -> Vec<Violation> {
    let (space, _) = Space::replay(&record.log);
    let leases = leases(record, &space);
    let checker = Checker { record, space: &space, order: Order::new(record), leases };
    let revisions = record.operations.iter().filter_map(|operation| checker.fault(operation));
    bounded(revisions.chain(clusters(record)).chain(terms(record)).collect())
}

/// Answers of members themselves.
fn answers(record: &Record) -> impl Iterator<Item = (&Operation, ResponseHeader)> {
    let own = record.operations.iter().filter(|operation| operation.proxy.is_none());
    own.filter_map(|operation| Some((operation, operation.header()?)))
}

fn clusters(record: &Record) -> Option<Violation> {
    let (_, first) = answers(record).next()?;
    let (operation, header) =
        answers(record).find(|(_, header)| header.cluster_id != first.cluster_id)?;
    let text = format!(
        "{operation}: answered by cluster {:x}, others by {:x}",
        header.cluster_id, first.cluster_id
    );
    Some(
        Violation::new("headers", "all answers are of one cluster", text)
            .proved_by(operation.proof()),
    )
}

/// What a member knows of terms is lost with its power.
fn terms(record: &Record) -> Vec<Violation> {
    if !record.calm {
        return Vec::new();
    }
    let mut members: BTreeMap<u64, Vec<(&Operation, u64)>> = BTreeMap::new();
    for (operation, header) in answers(record) {
        members.entry(header.member_id).or_default().push((operation, header.raft_term));
    }
    members.into_values().flat_map(|answers| backwards(&answers)).collect()
}

/// Answers with an older term than one that had come before they were asked for.
fn backwards(answers: &[(&Operation, u64)]) -> Vec<Violation> {
    let mut ends: Vec<_> =
        answers.iter().map(|(operation, term)| (operation.ended, *term)).collect();
    ends.sort_unstable();
    let mut newest = 0;
    for (_, term) in &mut ends {
        newest = newest.max(*term);
        *term = newest;
    }
    let late = answers.iter().filter_map(|(operation, term)| {
        let before = ends.partition_point(|(ended, _)| *ended < operation.began);
        let known = ends[..before].last()?.1;
        let text = format!("{operation}: answered in term {term}, its member was in term {known}");
        let violation = Violation::new("headers", "terms of a member go forward", text);
        (*term < known).then(|| violation.proved_by(operation.proof()))
    });
    late.collect()
}

/// The life of a lease, as the log has it.
#[derive(Default)]
struct Lease {
    /// Grants that may have been carried out: with several it is not known whose keys are whose.
    grants: usize,
    /// The first revision at which a key hung on it.
    first: Option<i64>,
    /// The revisions that its end has made: one, or none where no key hung on it.
    ends: Vec<i64>,
}

fn leases(record: &Record, space: &Space) -> BTreeMap<i64, Lease> {
    let mut leases: BTreeMap<i64, Lease> = BTreeMap::new();
    for operation in &record.operations {
        let Call::Grant(request, answer) = &operation.call else { continue };
        match answer {
            Ok(answer) => leases.entry(answer.id).or_default().grants += 1,
            Err(_) if operation.unknown() => leases.entry(request.id).or_default().grants += 1,
            Err(_) => {}
        }
    }
    let written = record.operations.iter().filter(|operation| operation.call.wrote());
    let claimed: BTreeSet<_> = written.filter_map(Operation::revision).collect();
    let silent = |operation: &&Operation| operation.unknown() && operation.call.may_write();
    let unknown: Vec<_> = record.operations.iter().filter(silent).collect();
    for (revision, events) in &record.log {
        for kv in events.iter().filter_map(|event| event.kv.as_ref()).filter(|kv| kv.lease != 0) {
            if let Some(lease) = leases.get_mut(&kv.lease) {
                lease.first.get_or_insert(*revision);
            }
        }
        if claimed.contains(revision) {
            continue;
        }
        let Some(id) = lease_ended(space, *revision, events) else { continue };
        if unknown.iter().any(|operation| explains(space, operation, *revision, events)) {
            continue;
        }
        leases.entry(id).or_default().ends.push(*revision);
    }
    leases
}

struct Checker<'a> {
    record: &'a Record,
    space: &'a Space,
    order: Order,
    leases: BTreeMap<i64, Lease>,
}

impl Checker<'_> {
    fn fault(&self, operation: &Operation) -> Option<Violation> {
        let revision = operation.revision()?;
        let known = self.record.whole || revision <= self.space.last;
        let (property, text) = match &operation.call {
            Call::Grant(..) | Call::Revoke(..) | Call::Compact(..) | Call::KeepAlive(..)
                if !known || !operation.answered() =>
            {
                return None;
            }
            Call::Grant(_, Ok(answer)) => {
                self.grant(answer.id, revision).or_else(|| self.untimely(operation, revision))?
            }
            Call::Revoke(request, Ok(_)) => self.revoke(operation, request.id, revision)?,
            Call::KeepAlive(request, Ok(answer)) if answer.ttl > 0 => {
                self.renewal(request.id, revision)?
            }
            Call::Compact(..) => self.untimely(operation, revision)?,
            _ => return None,
        };
        let violation = Violation::new("headers", property, format!("{operation}: {text}"));
        Some(violation.proved_by(operation.proof()))
    }

    /// A lease that was granted once.
    fn lease(&self, id: i64) -> Option<&Lease> {
        self.leases.get(&id).filter(|lease| lease.grants == 1)
    }

    fn grant(&self, id: i64, revision: i64) -> Option<(&'static str, String)> {
        let first = self.lease(id)?.first.filter(|first| *first <= revision)?;
        let text = format!("answered at {revision}, a key hung on lease {id} at {first}");
        Some((OWN, text))
    }

    fn revoke(
        &self,
        operation: &Operation,
        id: i64,
        revision: i64,
    ) -> Option<(&'static str, String)> {
        if let Some([end]) = self.lease(id).map(|lease| lease.ends.as_slice()) {
            let text = format!("answered at {revision}, the keys went at {end}");
            return (revision != *end).then_some((OWN, text));
        }
        self.untimely(operation, revision)
    }

    fn renewal(&self, id: i64, revision: i64) -> Option<(&'static str, String)> {
        let end = *self.lease(id)?.ends.first()?;
        let text = format!("renewed at {revision}, the keys went at {end}");
        (revision >= end).then_some((OWN, text))
    }

    fn untimely(&self, operation: &Operation, revision: i64) -> Option<(&'static str, String)> {
        let (first, last) = self.order.window(operation, self.space.last);
        let text = format!("answered at {revision}, its time was {first}..={last}");
        (!(first..=last).contains(&revision)).then_some((TIMELY, text))
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::{
        CompactionRequest, CompactionResponse, LeaseGrantRequest, LeaseGrantResponse,
        LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    };
    use quorate_proto::mvccpb::{KeyValue, event::EventType};

    use super::*;
    use crate::check::fixture::{Fixture, event, gone, header, kv, put, texts};

    const ID: i64 = 7;

    fn grant(at: i64) -> Call {
        let answer =
            LeaseGrantResponse { id: ID, ttl: 5, header: header(at), ..Default::default() };
        Call::Grant(LeaseGrantRequest { id: ID, ttl: 5 }, Ok(answer))
    }

    fn revoke(at: i64) -> Call {
        Call::Revoke(LeaseRevokeRequest { id: ID }, Ok(LeaseRevokeResponse { header: header(at) }))
    }

    fn renew(at: i64) -> Call {
        let answer = LeaseKeepAliveResponse { header: header(at), id: ID, ttl: 5 };
        Call::KeepAlive(LeaseKeepAliveRequest { id: ID }, Ok(answer))
    }

    fn compact(at: i64) -> Call {
        let answer = CompactionResponse { header: header(at) };
        Call::Compact(CompactionRequest { revision: 2, physical: false }, Ok(answer))
    }

    /// Revisions: 2 something, 3 a key on the lease, 4 something, 5 the lease's end, 6 something.
    fn history() -> Fixture {
        let leased = KeyValue { lease: ID, ..kv(3, "b", "2") };
        Fixture::default()
            .wrote(2, "a", "1")
            .event(3, event(EventType::Put, leased))
            .wrote(4, "c", "3")
            .event(5, gone(5, "b"))
            .wrote(6, "d", "4")
            .call(0, 1, put("a", "1", Some(2)))
            .call(20, 21, put("d", "4", Some(6)))
    }

    fn said(calls: &[Call]) -> String {
        let calls = calls.iter().cloned();
        let fixture = calls.fold(history(), |fixture, call| fixture.call(4, 12, call));
        texts(&check(&fixture.record))
    }

    #[test]
    fn answers_with_the_revisions_of_their_effects_pass() {
        assert_eq!(said(&[grant(2), renew(4), revoke(5), compact(5)]), "");
    }

    #[test]
    fn revisions_of_others_in_answers_about_leases_are_violations() {
        assert!(said(&[grant(2), revoke(4)]).contains("answered at 4, the keys went at 5"));
        assert!(said(&[grant(2), revoke(6)]).contains("answered at 6, the keys went at 5"));
        assert!(said(&[grant(3)]).contains("a key hung on lease 7 at 3"));
        assert!(said(&[grant(2), renew(5)]).contains("renewed at 5, the keys went at 5"));
        // Of a number that was granted twice it is not known which lease has ended.
        assert_eq!(said(&[grant(2), grant(2), revoke(4)]), "");
    }

    fn of_member(term: u64, cluster: u64) -> Call {
        let header =
            ResponseHeader { cluster_id: cluster, member_id: 1, revision: 2, raft_term: term };
        let answer =
            LeaseGrantResponse { id: 99, ttl: 5, header: Some(header), ..Default::default() };
        Call::Grant(LeaseGrantRequest { id: 99, ttl: 5 }, Ok(answer))
    }

    #[test]
    fn terms_and_clusters_of_others_are_violations() {
        let said = |calm, first: Call, second: Call| {
            let mut fixture = history().call(2, 3, first).call(4, 5, second);
            fixture.record.calm = calm;
            fixture.record.operations.retain(|it| matches!(it.call, Call::Grant(..)));
            texts(&check(&fixture.record))
        };
        assert!(!said(true, of_member(2, 7), of_member(3, 7)).contains("term"));
        assert!(said(true, of_member(3, 7), of_member(2, 7)).contains("its member was in term 3"));
        assert!(!said(false, of_member(3, 7), of_member(2, 7)).contains("was in term"));
        assert!(said(true, of_member(3, 7), of_member(3, 8)).contains("answered by cluster 8"));
    }

    #[test]
    fn revisions_of_another_time_are_violations() {
        assert!(said(&[compact(1)]).contains("answered at 1, its time was 2..=5"));
        assert!(said(&[compact(6)]).contains("answered at 6, its time was 2..=5"));
        assert!(said(&[grant(1)]).contains(TIMELY));
    }
}
