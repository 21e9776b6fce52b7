//! A lease never ends before the time that its holder was promised, lasts only so much longer, and
//! when it is over it is over: its keys are gone (all at one revision: see `replay`), nothing can hang
//! on it any more, and no answer reports it alive. Measured by clients' clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_proto::etcdserverpb::PutRequest;

use super::model::LEASE_NOT_FOUND;
use super::order::Order;
use super::replay::{explains, lease_ended};
use super::space::Space;
use crate::facts::evidence::Record;
use crate::facts::history::{Call, Operation, puts};
use crate::facts::verdict::Violation;

/// How long a lease may outlive its end in a whole cluster: an election, a look, a commit.
const GRACE: Duration = Duration::from_secs(6);
/// How long a member may still be at a renewal whose client has given up.
const LINGERS: Duration = Duration::from_secs(8);
/// What a new leader adds to the time that is left, and what rounding to seconds adds.
const EXTENSION_S: i64 = 3;
/// The shortest lease is at most this long, whatever was requested.
const LEAST: Duration = Duration::from_secs(10);

pub fn check(record: &Record) -> Vec<Violation> {
    let (space, _) = Space::replay(&record.log);
    let order = Order::new(record);
    let mut leases = gather(record);
    ends(record, &space, &order, &mut leases);
    let hanging = hanging(&space);
    let mut violations = Vec::new();
    for (id, lease) in &leases {
        let keys = hanging.get(id).map_or(&[][..], |keys| keys);
        let checker = Checker { record, order: &order, id: *id, lease, keys, last: space.last };
        checker.run(&mut violations);
    }
    violations
        .extend(record.operations.iter().filter_map(|operation| puts_judged(operation, &leases)));
    violations
}

/// What is known of one lease.
#[derive(Default)]
struct Lease<'a> {
    /// The time in the answer; without one, the time requested.
    ttl: Duration,
    /// Grants and renewals that were answered.
    confirmed: Vec<&'a Operation>,
    /// When the last grant or renewal that may have reached the server can have had its effect.
    last_try: Option<Instant>,
    /// Revokes that were not refused.
    revokes: Vec<&'a Operation>,
    /// Calls whose answer reports that it is over.
    over: Vec<&'a Operation>,
    asked: Vec<&'a Operation>,
    /// Grants of the same number that were answered after the first one.
    again: Vec<&'a Operation>,
    /// The revision that took its keys, and since when that is known.
    ended: Option<(i64, Instant)>,
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}

fn gather(record: &Record) -> BTreeMap<i64, Lease<'_>> {
    let mut leases: BTreeMap<i64, Lease<'_>> = BTreeMap::new();
    for operation in &record.operations {
        match &operation.call {
            Call::Grant(request, answer) => {
                let told = answer.as_ref().ok();
                let id = told.map_or(request.id, |told| told.id);
                let lease = leases.entry(id).or_default();
                if told.is_none() && operation.failure().is_some_and(|failure| failure.never) {
                    continue;
                }
                if told.is_some() && !lease.confirmed.is_empty() {
                    lease.again.push(operation);
                }
                lease.tried(operation, told.map_or(request.ttl, |told| told.ttl));
            }
            Call::KeepAlive(request, Ok(answer)) if answer.ttl == 0 => {
                leases.entry(request.id).or_default().over.push(operation);
            }
            Call::KeepAlive(request, answer) => {
                let ttl = answer.as_ref().map_or(0, |answer| answer.ttl);
                leases.entry(request.id).or_default().tried(operation, ttl);
            }
            Call::Revoke(request, answer) => {
                let lease = leases.entry(request.id).or_default();
                match answer {
                    Err(failure) if failure.text == LEASE_NOT_FOUND => lease.over.push(operation),
                    Err(failure) if failure.never => {}
                    _ => lease.revokes.push(operation),
                }
            }
            Call::TimeToLive(request, Ok(answer)) => {
                let lease = leases.entry(request.id).or_default();
                if answer.ttl < 0 {
                    lease.over.push(operation);
                } else {
                    lease.asked.push(operation);
                }
            }
            _ => {}
        }
    }
    leases
}

impl<'a> Lease<'a> {
    fn tried(&mut self, operation: &'a Operation, ttl: i64) {
        self.ttl = self.ttl.max(seconds(ttl));
        if operation.answered() {
            self.confirmed.push(operation);
        }
        let lingers = if operation.unknown() { LINGERS } else { Duration::ZERO };
        if operation.answered() || operation.unknown() {
            self.last_try = self.last_try.max(Some(operation.ended + lingers));
        }
    }

    /// Whether a revoke may have ended it by then.
    fn revoked_by(&self, at: Instant) -> bool {
        self.revokes.iter().any(|revoke| revoke.began <= at)
    }

    /// Until when it had to live, by what had been answered before `at`.
    fn promised(&self, at: Instant, ttl: Duration) -> Option<Instant> {
        let told = self.confirmed.iter().filter(|operation| operation.ended <= at);
        told.map(|operation| operation.began + ttl).max()
    }

    /// Whether it lived all the time of a call, for certain.
    fn lived_through(&self, operation: &Operation, ttl: Duration) -> bool {
        !self.revoked_by(operation.ended)
            && self.promised(operation.began, ttl).is_some_and(|until| until > operation.ended)
    }

    /// Whether it was over, for certain, before a call began.
    fn over_before(&self, operation: &Operation) -> bool {
        let answered = self.revokes.iter().filter(|revoke| revoke.answered());
        let mut known = answered.chain(&self.over).map(|known| known.ended);
        known.any(|at| at < operation.began)
            || self.ended.is_some_and(|(_, at)| at < operation.began)
    }

    /// The time that a clock which runs too fast makes of the time to live.
    fn shortest(&self, rate_ppm: u32) -> Duration {
        self.ttl - self.ttl * rate_ppm / 1_000_000
    }
}

/// Finds the revisions that took the keys of a lease and that no deletion explains.
fn ends<'a>(
    record: &'a Record,
    space: &Space,
    order: &Order,
    leases: &mut BTreeMap<i64, Lease<'a>>,
) {
    let written = record.operations.iter().filter(|operation| operation.call.wrote());
    let claimed: BTreeSet<_> = written.filter_map(Operation::revision).collect();
    let silent = |operation: &&Operation| operation.unknown() && operation.call.may_write();
    let unknown: Vec<_> = record.operations.iter().filter(silent).collect();
    let seen = seen(record);
    for (revision, events) in record.log.iter().filter(|(at, _)| !claimed.contains(at)) {
        let Some(id) = lease_ended(space, *revision, events) else { continue };
        if unknown.iter().any(|operation| explains(space, operation, *revision, events)) {
            continue;
        }
        let known = seen.get(revision).copied().into_iter().chain(order.first_told(*revision));
        if let (Some(lease), Some(at)) = (leases.get_mut(&id), known.min()) {
            lease.ended = Some((*revision, at));
        }
    }
}

/// When each revision first reached a watcher.
fn seen(record: &Record) -> BTreeMap<i64, Instant> {
    let mut seen = BTreeMap::new();
    for (at, response) in record.streams.iter().flat_map(|stream| &stream.responses) {
        for kv in response.events.iter().filter_map(|event| event.kv.as_ref()) {
            let first = seen.entry(kv.mod_revision).or_insert(*at);
            *first = (*first).min(*at);
        }
    }
    seen
}

/// A key that hung on a lease from one revision on, up to another.
type Hanging = (i64, i64, Bytes);

/// By lease, the keys that ever hung on it.
fn hanging(space: &Space) -> BTreeMap<i64, Vec<Hanging>> {
    let mut hanging: BTreeMap<i64, Vec<Hanging>> = BTreeMap::new();
    let mut open: Option<(&Bytes, i64, i64)> = None;
    let mut close = |open: Option<(&Bytes, i64, i64)>, until: i64| {
        if let Some((key, lease, from)) = open.filter(|(_, lease, _)| *lease != 0) {
            hanging.entry(lease).or_default().push((from, until, key.clone()));
        }
    };
    for (key, revision, kv) in space.states() {
        let until = if open.is_some_and(|(last, ..)| last == key) { revision } else { i64::MAX };
        close(open.take(), until);
        open = Some((key, kv.map_or(0, |kv| kv.lease), revision));
    }
    close(open, i64::MAX);
    hanging
}

struct Checker<'a> {
    record: &'a Record,
    order: &'a Order,
    id: i64,
    lease: &'a Lease<'a>,
    keys: &'a [Hanging],
    last: i64,
}

impl Checker<'_> {
    fn fault(&self, property: &'static str, text: String, proof: Option<&Operation>) -> Violation {
        let violation = Violation::new("leases", property, format!("lease {}: {text}", self.id));
        match proof {
            Some(operation) => violation.proved_by(operation.proof()),
            None => violation,
        }
    }

    fn run(&self, violations: &mut Vec<Violation>) {
        violations.extend(self.early());
        violations.extend(self.late());
        violations.extend(self.prolonged());
        violations.extend(self.revived());
        let over = self.lease.over.iter().filter_map(|operation| self.said_over(operation));
        violations.extend(over);
        violations
            .extend(self.lease.confirmed.iter().filter_map(|operation| self.alive(operation)));
        violations.extend(self.lease.again.iter().map(|operation| {
            let text = format!("there already: {operation}");
            self.fault("a lease is granted once", text, Some(operation))
        }));
        violations.extend(self.lease.asked.iter().filter_map(|operation| self.asked(operation)));
    }

    fn shortest(&self) -> Duration {
        self.lease.shortest(self.record.clock_rate_ppm)
    }

    /// Its keys were gone before its time.
    fn early(&self) -> Option<Violation> {
        let (revision, at) = self.lease.ended?;
        let promise = self.lease.confirmed.iter().max_by_key(|operation| operation.began)?;
        let until = promise.began + self.shortest();
        if at >= until || self.lease.revoked_by(at) {
            return None;
        }
        let text = format!("ended at revision {revision}, {:?} early: {promise}", until - at);
        Some(self.fault("no lease ends early", text, Some(promise)))
    }

    /// It still had keys long after its time, although the cluster was whole.
    fn late(&self) -> Option<Violation> {
        let (healthy, ended) = (self.record.healthy?, self.record.ended?);
        let slow = self.record.clock_rate_ppm;
        let longest = self.lease.ttl.max(LEAST);
        let longest = longest + longest * slow / 1_000_000;
        let due = self.lease.last_try?.max(healthy) + longest + GRACE;
        let left = self.keys.iter().filter(|(_, until, _)| *until == i64::MAX).count();
        let looked = self.record.operations.iter().filter(|op| op.workload == "closing");
        let looked = looked.map(|operation| operation.began).max().unwrap_or(ended);
        (left > 0 && looked > due).then(|| {
            let text = format!("has {left} keys {:?} after its end", looked - due);
            self.fault("no lease lasts much longer than it should", text, None)
        })
    }

    /// It lived on under new leaders although each should have known what was left. Where nothing but
    /// the leader changes, a change costs what has not been written down yet, and an election.
    fn prolonged(&self) -> Option<Violation> {
        let interval = self.record.lease_checkpoint.filter(|_| self.record.steady)?;
        let tried = self.lease.last_try?;
        let longest = self.lease.ttl.max(LEAST) + GRACE;
        let lives = self.lease.asked.iter().find(|operation| {
            let (from, to) = (self.record.at(tried), self.record.at(operation.began));
            let reigns =
                self.record.seen.reigns.iter().filter(|reign| (from..to).contains(&reign.at));
            let costs = (interval + 2 * self.record.election_timeout) * reigns.count() as u32;
            operation.began > tried + longest + costs
        })?;
        let text = format!("new leaders have prolonged it: {lives}");
        Some(self.fault("no lease lasts much longer than it should", text, Some(lives)))
    }

    /// A key was put on it after it had ended.
    fn revived(&self) -> Option<Violation> {
        let (end, _) = self.lease.ended?;
        let (from, _, key) = self.keys.iter().find(|(from, ..)| *from > end)?;
        let text = format!("ended at revision {end}, has {key:?} at revision {from}");
        Some(self.fault("what is over stays over", text, None))
    }

    /// An answer reported that it is over while it had to live.
    fn said_over(&self, operation: &Operation) -> Option<Violation> {
        let lived = self.lease.lived_through(operation, self.shortest());
        lived.then(|| {
            let text = format!("still had time: {operation}");
            self.fault("no lease ends early", text, Some(operation))
        })
    }

    /// An answer reported it alive after it was over.
    fn alive(&self, operation: &Operation) -> Option<Violation> {
        self.lease.over_before(operation).then(|| {
            let text = format!("was over before {operation}");
            self.fault("what is over stays over", text, Some(operation))
        })
    }

    /// What was answered about its time and its keys.
    fn asked(&self, operation: &Operation) -> Option<Violation> {
        let Call::TimeToLive(request, Ok(answer)) = &operation.call else { return None };
        if let Some(violation) = self.alive(operation) {
            return Some(violation);
        }
        if answer.ttl > answer.granted_ttl + EXTENSION_S {
            let text = format!("{} s are left of {}: {operation}", answer.ttl, answer.granted_ttl);
            return Some(self.fault(
                "no lease lasts much longer than it should",
                text,
                Some(operation),
            ));
        }
        let (first, last) = self.order.window(operation, self.last);
        let changes = self.keys.iter().flat_map(|(from, until, _)| [*from, *until]);
        let mut moments = changes.filter(|at| (first..=last).contains(at)).chain([first]);
        let told: BTreeSet<&Bytes> = answer.keys.iter().collect();
        let right = !request.keys || moments.any(|at| self.at(at) == told);
        (!right).then(|| {
            let text = format!("keys {:?} at no revision of {first}..={last}", answer.keys);
            self.fault("a lease lists its keys", text, Some(operation))
        })
    }

    /// The keys that hung on it after a revision.
    fn at(&self, revision: i64) -> BTreeSet<&Bytes> {
        let then = self.keys.iter().filter(|(from, until, _)| (*from..*until).contains(&revision));
        then.map(|(_, _, key)| key).collect()
    }
}

/// A put on a lease is refused when it is over, and only then.
fn puts_judged(operation: &Operation, leases: &BTreeMap<i64, Lease<'_>>) -> Option<Violation> {
    let puts: Vec<&PutRequest> = match &operation.call {
        Call::Put(put, _) => vec![put],
        Call::Txn(txn, _) => puts(txn),
        _ => return None,
    };
    let ids: BTreeSet<i64> = puts.iter().map(|put| put.lease).filter(|id| *id != 0).collect();
    let mut held = ids.iter().filter_map(|id| leases.get(id));
    let refused = operation.failure().is_some_and(|failure| failure.text == LEASE_NOT_FOUND);
    let sound = if refused {
        // Of several leases any may be the one.
        ids.len() != held.clone().count()
            || held.any(|lease| !lease.lived_through(operation, lease.ttl))
    } else {
        let single = matches!(operation.call, Call::Put(..)) && operation.answered();
        !single || !held.any(|lease| lease.over_before(operation))
    };
    (!sound).then(|| {
        let text = format!("{operation}: {:?}", operation.failure());
        let violation = Violation::new("leases", "keys hang on leases that live", text);
        violation.proved_by(operation.proof())
    })
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::{
        LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
        LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, PutResponse,
    };
    use quorate_proto::mvccpb::{KeyValue, event::EventType};
    use tonic::Code;

    use super::*;
    use crate::check::fixture::{Fixture, event, failed, get, gone, header, kv, texts};
    use crate::facts::request;

    fn grant() -> Call {
        let answer = LeaseGrantResponse { id: 7, ttl: 5, ..Default::default() };
        Call::Grant(LeaseGrantRequest { id: 7, ttl: 5 }, Ok(answer))
    }

    fn keep(ttl: i64) -> Call {
        let answer = LeaseKeepAliveResponse { id: 7, ttl, ..Default::default() };
        Call::KeepAlive(LeaseKeepAliveRequest { id: 7 }, Ok(answer))
    }

    fn put(answer: crate::facts::history::Answer<PutResponse>) -> Call {
        Call::Put(PutRequest { lease: 7, ..request::put("a", "1") }, answer)
    }

    /// Granted at 0 for 5 seconds, with a key at revision 2.
    fn held() -> Fixture {
        let answer = PutResponse { header: header(2), prev_kv: None };
        let fixture = Fixture::default().call(0, 1, grant()).call(1, 2, put(Ok(answer)));
        fixture.event(2, event(EventType::Put, KeyValue { lease: 7, ..kv(2, "a", "1") }))
    }

    /// Its key is gone at revision 3, which is known at second `at`.
    fn gone_at(fixture: Fixture, at: u64) -> Fixture {
        fixture.event(3, gone(3, "a")).call(at - 1, at, get("a", 3, vec![]))
    }

    fn said(fixture: Fixture) -> String {
        texts(&check(&fixture.record))
    }

    #[test]
    fn early_and_late_ends_are_found() {
        assert_eq!(said(gone_at(held(), 6)), "");
        assert!(said(gone_at(held(), 4)).contains("no lease ends early"));
        assert!(said(gone_at(held().call(3, 4, keep(5)), 7)).contains("no lease ends early"));
        let mut fast = gone_at(held(), 4);
        fast.record.clock_rate_ppm = 300_000;
        assert_eq!(said(fast), "", "by a clock that runs too fast");
        let left = |ended: f64| {
            let mut fixture = held();
            fixture.record.healthy = Some(fixture.start);
            fixture.record.ended = Some(fixture.at(ended));
            said(fixture)
        };
        assert_eq!(left(16.0), "");
        assert!(left(30.0).contains("has 1 keys"));
    }

    #[test]
    fn what_is_over_stays_over() {
        assert!(said(gone_at(held(), 6).call(7, 8, keep(5))).contains("stays over"));
        let again = gone_at(held(), 6).call(7, 8, put(Ok(PutResponse::default())));
        assert!(said(again).contains("hang on leases that live"));
        let revived = gone_at(held(), 6);
        let kv = KeyValue { lease: 7, ..kv(4, "a", "2") };
        assert!(said(revived.event(4, event(EventType::Put, kv))).contains("stays over"));
    }

    #[test]
    fn what_lives_is_not_called_over() {
        assert!(said(held().call(2, 3, keep(0))).contains("still had time"));
        assert_eq!(said(held().call(6, 7, keep(0))), "");
        let refused = || put(failed(Code::NotFound, LEASE_NOT_FOUND));
        assert!(said(held().call(2, 3, refused())).contains("hang on leases that live"));
        assert_eq!(said(held().call(6, 7, refused())), "");
    }

    #[test]
    fn a_lease_is_granted_once() {
        assert!(said(held().call(2, 3, grant())).contains("granted once"));
        let exists = failed(Code::FailedPrecondition, "etcdserver: lease already exists");
        let refused = Call::Grant(LeaseGrantRequest { id: 7, ttl: 5 }, exists);
        assert_eq!(said(held().call(2, 3, refused)), "");
    }

    #[test]
    fn time_and_keys_are_judged() {
        let ask = |ttl: i64, keys: &[&'static str]| {
            let keys = keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect();
            let answer =
                LeaseTimeToLiveResponse { id: 7, ttl, granted_ttl: 5, keys, ..Default::default() };
            Call::TimeToLive(LeaseTimeToLiveRequest { id: 7, keys: true }, Ok(answer))
        };
        assert_eq!(said(held().call(3, 4, ask(2, &["a"]))), "");
        assert!(said(held().call(3, 4, ask(2, &[]))).contains("a lease lists its keys"));
        assert!(said(held().call(3, 4, ask(60, &["a"]))).contains("60 s are left"));
        assert!(said(held().call(3, 4, ask(-1, &[]))).contains("still had time"));
    }
}
