//! Are all answers explained by one order of all writes? The log of events, as a watch from the
//! beginning has it, is that order. Each request is tried on the state before its revision: its
//! answer must be the one it had to get, and the log must show what it did, and no more. Every revision
//! must be the effect of one call or lease: of an answered call, of one whose end is unknown, or of a lease
//! that is over. Nothing may be there of a call that was refused, and nothing twice.
//!
//! As revisions are part of every answer this decides linearizability without a search; that they
//! follow real time is for [`super::monotonic`].

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use quorate_proto::mvccpb::{Event, event::EventType};

use super::model::{LEASE_NOT_FOUND, Misfit, Trial};
use super::order::Order;
use super::space::Space;
use crate::facts::evidence::Record;
use crate::facts::history::{Call, Log, Operation, puts, short};
use crate::facts::verdict::Violation;

const EXPLAINED: &str = "one order of all writes explains all answers";
const ORIGIN: &str = "every revision is the effect of one call";
const ONCE: &str = "no call has its effect twice";
const REFUSED: &str = "a refused call leaves no trace";

pub fn check(record: &Record) -> Vec<Violation> {
    let (space, faults) = Space::replay(&record.log);
    let mut checker = Checker {
        record,
        space: &space,
        order: Order::new(record),
        violations: Vec::new(),
        claims: BTreeMap::new(),
    };
    for fault in faults {
        checker.violations.push(Violation::new("replay", EXPLAINED, fault));
    }
    checker.answers();
    checker.refusals();
    checker.origins();
    checker.violations
}

struct Checker<'a> {
    record: &'a Record,
    space: &'a Space,
    order: Order,
    violations: Vec<Violation>,
    /// The answered call that made each revision.
    claims: BTreeMap<i64, &'a Operation>,
}

impl<'a> Checker<'a> {
    fn fault(&mut self, property: &'static str, operation: &Operation, text: String) {
        let violation = Violation::new("replay", property, format!("{operation}: {text}"));
        self.violations.push(violation.proved_by(operation.proof()));
    }

    /// Tries every answered call that is about the newest state, and takes note of what it wrote.
    fn answers(&mut self) {
        let record = self.record;
        let answered = record.operations.iter().filter(|op| op.answered() && op.linearizable());
        for operation in answered {
            let Some(revision) = operation.revision() else {
                self.fault(EXPLAINED, operation, "an answer without a header".into());
                continue;
            };
            if revision > self.space.last {
                if !record.whole {
                    continue;
                }
                let text = format!("revision {revision} is lost, the last is {}", self.space.last);
                self.fault(EXPLAINED, operation, text);
                continue;
            }
            let wrote = operation.call.wrote();
            match explain(self.space, &record.log, operation, revision - i64::from(wrote)) {
                Ok(()) => {}
                Err(Misfit::Refused(text)) => {
                    self.fault(EXPLAINED, operation, format!("was not refused with {text:?}"));
                }
                Err(Misfit::Differs(text)) => self.fault(EXPLAINED, operation, text),
            }
            if wrote && let Some(other) = self.claims.insert(revision, operation) {
                let text = format!("revision {revision} was also answered to {other}");
                self.fault(ONCE, operation, text);
            }
        }
    }

    /// A refusal for the sake of the state must be what some state of the call's time gives. Leases
    /// are no part of the state here: see `leases`.
    fn refusals(&mut self) {
        for operation in &self.record.operations {
            let Some(failure) = operation.failure().filter(|failure| failure.is_refusal()) else {
                continue;
            };
            let text = failure.text.as_str();
            if text == LEASE_NOT_FOUND || !of_state(text) {
                continue;
            }
            let (first, last) = self.order.window(operation, self.space.last);
            let first = if operation.linearizable() { first } else { 1 };
            let refuses = |at: i64| match attempt(self.space, operation, at) {
                Some((_, done)) => matches!(done, Err(Misfit::Refused(said)) if said == text),
                // It is not about keys: see `past`.
                None => true,
            };
            if !(first..=last).any(refuses) {
                let text = format!("refused with {text:?}, at no revision of {first}..={last}");
                self.fault(EXPLAINED, operation, text);
            }
        }
    }

    /// Every revision without an answered call belongs to one whose end is unknown, or to a lease.
    fn origins(&mut self) {
        let record = self.record;
        let authors = authors(&record.operations);
        let mut nameless = Vec::new();
        let mut seen: HashMap<usize, i64> = HashMap::new();
        for (revision, events) in &record.log {
            let author = events.iter().find_map(|event| {
                let kv = event.kv.as_ref().filter(|_| event.r#type() == EventType::Put)?;
                let inherited = self.space.at(&kv.key, revision - 1);
                let inherited = inherited.is_some_and(|before| before.value == kv.value);
                // A lock's key has no value.
                (!inherited && !kv.value.is_empty()).then(|| (kv, authors.get(&kv.value).copied()))
            });
            match author {
                Some((kv, None)) => {
                    let value = short(&kv.value);
                    let text = format!("revision {revision} puts {value}, which no call wrote");
                    self.violations.push(Violation::new("replay", ORIGIN, text));
                }
                Some((_, Some(author))) => {
                    let operation = &record.operations[author];
                    if let Some(first) = seen.insert(author, *revision) {
                        let text = format!("at revision {first} and at {revision}");
                        self.fault(ONCE, operation, text);
                    }
                    self.named(operation, *revision, events);
                }
                None if self.claims.contains_key(revision) => {}
                None if lease_ended(self.space, *revision, events).is_some() => {}
                None => nameless.push(*revision),
            }
        }
        self.nameless(&nameless);
    }

    /// A revision whose value names its call.
    fn named(&mut self, operation: &'a Operation, revision: i64, events: &[Event]) {
        match self.claims.get(&revision) {
            Some(claimed) if std::ptr::eq(*claimed, operation) => {}
            Some(claimed) => {
                let text = format!("wrote revision {revision}, which was answered to {claimed}");
                self.fault(ORIGIN, operation, text);
            }
            None if operation.answered() => {
                let text = format!("wrote revision {revision}, and was answered with another");
                self.fault(ONCE, operation, text);
            }
            None if !operation.unknown() => {
                let text = format!("wrote revision {revision}");
                self.fault(REFUSED, operation, text);
            }
            None => {
                let early = revision <= self.order.floor(operation);
                if early || !self.could(operation, revision, events) {
                    let text = format!("it cannot have made revision {revision}: {events:?}");
                    self.fault(ORIGIN, operation, text);
                }
            }
        }
    }

    /// Revisions that only deletions and puts of inherited values can have made: each must have a call
    /// of its own among those whose end is unknown. A matching decides it (Kuhn 1955).
    fn nameless(&mut self, revisions: &[i64]) {
        let silent = |operation: &&Operation| operation.unknown() && operation.call.may_write();
        let unknown: Vec<_> = self.record.operations.iter().filter(silent).collect();
        let possible: Vec<Vec<usize>> = revisions
            .iter()
            .map(|revision| {
                let events = &self.record.log[revision];
                let could = |(at, operation): (usize, &&'a Operation)| {
                    let late = *revision > self.order.floor(operation);
                    (late && self.could(operation, *revision, events)).then_some(at)
                };
                unknown.iter().enumerate().filter_map(could).collect()
            })
            .collect();
        let mut takers = vec![None; unknown.len()];
        for (at, revision) in revisions.iter().enumerate() {
            let mut tried = vec![false; unknown.len()];
            if !assign(at, &possible, &mut takers, &mut tried) {
                let events = &self.record.log[revision];
                let text = format!("revision {revision} belongs to no call: {events:?}");
                self.violations.push(Violation::new("replay", ORIGIN, text));
            }
        }
    }

    fn could(&self, operation: &Operation, revision: i64, events: &[Event]) -> bool {
        explains(self.space, operation, revision, events)
    }
}

/// Whether a call without an answer can have made a revision.
pub(super) fn explains(
    space: &Space,
    operation: &Operation,
    revision: i64,
    events: &[Event],
) -> bool {
    match attempt(space, operation, revision - 1) {
        Some((trial, Ok(()))) => alike(&trial.events, events),
        _ => false,
    }
}

/// The lease that a revision is the end of: the deletion of all keys that hung on it, in their order,
/// and of no other. Whether it was time is for `leases`.
pub(super) fn lease_ended(space: &Space, revision: i64, events: &[Event]) -> Option<i64> {
    let deleted = |event: &Event| {
        let kv = event.kv.as_ref().filter(|_| event.r#type() == EventType::Delete)?;
        space.at(&kv.key, revision - 1)
    };
    let lease = deleted(events.first()?)?.lease;
    if lease == 0 {
        return None;
    }
    let attached = space.attached(lease, revision - 1);
    let same = attached.len() == events.len()
        && attached.iter().zip(events).all(|(kv, event)| deleted(event) == Some(kv));
    same.then_some(lease)
}

/// Gives `taker` one of its possibilities, moving others to theirs if need be.
fn assign(
    taker: usize,
    possible: &[Vec<usize>],
    takers: &mut [Option<usize>],
    tried: &mut [bool],
) -> bool {
    for &at in &possible[taker] {
        if std::mem::replace(&mut tried[at], true) {
            continue;
        }
        let free = match takers[at] {
            None => true,
            Some(other) => assign(other, possible, takers, tried),
        };
        if free {
            takers[at] = Some(taker);
            return true;
        }
    }
    false
}

/// Tries a call on the state after `before`, with its answer if it has one.
fn attempt<'s>(
    space: &'s Space,
    operation: &Operation,
    before: i64,
) -> Option<(Trial<'s>, Result<(), Misfit>)> {
    let mut trial = Trial::new(space, before);
    let done = match &operation.call {
        Call::Range(request, answer) => trial.range(request, answer.as_ref().ok()),
        Call::Put(request, answer) => trial.put(request, answer.as_ref().ok()),
        Call::Delete(request, answer) => trial.delete(request, answer.as_ref().ok()),
        Call::Txn(request, answer) => trial.txn(request, answer.as_ref().ok()),
        _ => return None,
    };
    Some((trial, done))
}

/// Whether an answered call fits the state after `before` and the log.
pub(super) fn explain(
    space: &Space,
    log: &Log,
    operation: &Operation,
    before: i64,
) -> Result<(), Misfit> {
    let Some((trial, done)) = attempt(space, operation, before) else { return Ok(()) };
    done?;
    if trial.events.is_empty() {
        return Ok(());
    }
    let revision = trial.revision();
    let logged = log.get(&revision).map_or(&[][..], |events| events);
    if alike(&trial.events, logged) {
        return Ok(());
    }
    Err(Misfit::Differs(format!("wrote {:?}, revision {revision} is {logged:?}", trial.events)))
}

/// Events without what a watch adds to them.
fn alike(ours: &[Event], logged: &[Event]) -> bool {
    ours.len() == logged.len()
        && ours.iter().zip(logged).all(|(a, b)| (a.r#type, &a.kv) == (b.r#type, &b.kv))
}

/// By value, the place of the call that puts it.
fn authors(operations: &[Operation]) -> HashMap<&Bytes, usize> {
    let mut authors = HashMap::new();
    for (at, operation) in operations.iter().enumerate() {
        match &operation.call {
            Call::Put(put, _) if !put.ignore_value => drop(authors.insert(&put.value, at)),
            Call::Txn(txn, _) => {
                for put in puts(txn).into_iter().filter(|put| !put.ignore_value) {
                    authors.insert(&put.value, at);
                }
            }
            _ => {}
        }
    }
    authors
}

/// Refusals that depend on the state.
fn of_state(text: &str) -> bool {
    // What has been compacted is not known from the log: see `past`.
    [super::model::KEY_NOT_FOUND, super::model::FUTURE].contains(&text)
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::check::fixture::{self, Fixture, failed, get, gone, kv, put, texts, wrote};
    use crate::check::model::KEY_NOT_FOUND;
    use crate::facts::history::Failure;
    use crate::facts::request;

    fn two() -> Fixture {
        let calls = Fixture::default().call(0, 1, put("a", "1", Some(2))).call(
            2,
            3,
            put("b", "2", Some(3)),
        );
        calls.wrote(2, "a", "1").wrote(3, "b", "2")
    }

    fn said(fixture: Fixture) -> String {
        texts(&check(&fixture.record))
    }

    #[test]
    fn what_is_right_passes() {
        assert_eq!(said(two()), "");
        let read = get("a", 3, vec![kv(2, "a", "1")]);
        assert_eq!(said(two().call(4, 5, read)), "");
        let silent = Fixture::default().call(0, 1, put("a", "1", None));
        assert_eq!(said(silent), "", "it may not have happened");
        let silent = Fixture::default().call(0, 1, put("a", "1", None)).wrote(2, "a", "1");
        assert_eq!(said(silent), "", "it may have happened");
    }

    #[test]
    fn lost_and_wrong_answers_are_found() {
        let lost = two().call(4, 5, put("c", "3", Some(4)));
        assert!(said(lost).contains("revision 4 is lost"));
        let empty = two().call(4, 5, get("a", 3, vec![]));
        assert!(said(empty).contains("counted 0, there are 1"));
        let old = two().call(4, 5, get("b", 3, vec![kv(3, "b", "0")]));
        assert!(said(old).contains("there is [\"b=2@3\"]"));
        let twice = two().call(4, 5, put("b", "2", Some(3)));
        assert!(said(twice).contains("was also answered to"));
    }

    #[test]
    fn every_revision_is_somebodys() {
        assert!(said(two().wrote(4, "c", "3")).contains("which no call wrote"));
        let again = kvs(5, "a", "1", 2, 2);
        let again = two().wrote(4, "c", "3").call(4, 5, put("c", "3", Some(4))).event(5, again);
        let text = said(again.call(6, 7, put("a", "9", None)));
        assert!(text.contains("revision 5 belongs to no call"), "an inherited value: {text}");
        let moved = two().wrote(4, "c", "1");
        assert!(said(moved).contains("at revision 2 and at 4"));
        let refused = Call::Put(request::put("c", "3"), failed(Code::NotFound, LEASE_NOT_FOUND));
        let text = said(two().call(4, 5, refused).wrote(4, "c", "3"));
        assert!(text.contains("a refused call leaves no trace"), "{text}");
    }

    fn kvs(at: i64, key: &'static str, value: &'static str, created: i64, version: i64) -> Event {
        let kv = kv(at, key, value);
        let kv = quorate_proto::mvccpb::KeyValue { create_revision: created, version, ..kv };
        fixture::event(EventType::Put, kv)
    }

    #[test]
    fn a_silent_delete_explains_one_revision() {
        let silence = || Call::Delete(request::delete("a"), Err(Failure::silence()));
        let once = || two().call(3, 4, silence()).event(4, gone(4, "a"));
        assert_eq!(said(once()), "");
        let again = once().wrote(5, "a", "5").call(5, 6, put("a", "5", Some(5)));
        let twice = again.event(6, gone(6, "a"));
        assert!(said(twice).contains("revision 6 belongs to no call"));
        let both = once().wrote(5, "a", "5").call(5, 6, put("a", "5", Some(5)));
        assert_eq!(
            said(both.event(6, gone(6, "a")).call(3, 4, silence())),
            "",
            "two calls for two"
        );
        let early = Fixture::default().call(0, 1, put("a", "1", Some(2))).wrote(2, "a", "1");
        let early = early.event(3, gone(3, "a")).wrote(4, "b", "2");
        let early = early.call(2, 3, put("b", "2", Some(4))).call(4, 5, silence());
        assert!(said(early).contains("revision 3 belongs to no call"), "before it was sent");
    }

    #[test]
    fn a_lease_takes_all_its_keys() {
        let leased = |revision, key| {
            let kv = quorate_proto::mvccpb::KeyValue { lease: 7, ..kv(revision, key, key) };
            fixture::event(EventType::Put, kv)
        };
        let call = |key, revision| {
            let request =
                quorate_proto::etcdserverpb::PutRequest { lease: 7, ..request::put(key, key) };
            let header = fixture::header(revision);
            Call::Put(
                request,
                Ok(quorate_proto::etcdserverpb::PutResponse { header, prev_kv: None }),
            )
        };
        let two = || {
            let calls = Fixture::default().call(0, 1, call("a", 2)).call(2, 3, call("b", 3));
            calls.event(2, leased(2, "a")).event(3, leased(3, "b")).event(4, gone(4, "a"))
        };
        assert_eq!(said(two().event(4, gone(4, "b"))), "");
        assert!(said(two()).contains("revision 4 belongs to no call"), "one key was left behind");
    }

    #[test]
    fn refusals_fit_a_state() {
        let request =
            quorate_proto::etcdserverpb::PutRequest { ignore_value: true, ..request::put("a", "") };
        let refused = || Call::Put(request.clone(), failed(Code::InvalidArgument, KEY_NOT_FOUND));
        assert!(said(two().call(4, 5, refused())).contains("at no revision"));
        assert_eq!(said(Fixture::default().call(0, 1, refused())), "");
        assert!(wrote(2, "a", "1").kv.is_some());
    }
}
