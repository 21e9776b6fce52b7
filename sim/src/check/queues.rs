//! Bounded memory: whatever waits inside a member stays within the bounds that the server promises,
//! gauges are never below zero, and in the end, on a whole cluster without load, nothing is left over.
//! The bounds are repeated here as numbers: a bound that moves in the server must be moved here too.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::bounded;
use crate::facts::evidence::Record;
use crate::facts::seen::Page;
use crate::facts::verdict::{Proof, Violation};

const CHECKER: &str = "queues";

const PENDING: &str = "etcd_server_proposals_pending";
const PENDING_BYTES: &str = "quorate_server_proposal_bytes";
const ANSWERS: &str = "quorate_server_answer_bytes";
const COMMITTED: &str = "etcd_server_proposals_committed_total";
const APPLIED: &str = "etcd_server_proposals_applied_total";
const STREAMS: &str = "etcd_debugging_mvcc_watch_stream_total";
const WATCHERS: &str = "etcd_debugging_mvcc_watcher_total";
const SLOW_WATCHERS: &str = "etcd_debugging_mvcc_slow_watcher_total";
const EVENTS: &str = "etcd_debugging_mvcc_pending_events_total";
const SENDING: &str = "etcd_network_snapshot_send_inflights_total";
const RECEIVING: &str = "etcd_network_snapshot_receive_inflights_total";

/// The figures that are read.
pub const WATCHED: [&str; 11] = [
    PENDING,
    PENDING_BYTES,
    ANSWERS,
    COMMITTED,
    APPLIED,
    STREAMS,
    WATCHERS,
    SLOW_WATCHERS,
    EVENTS,
    SENDING,
    RECEIVING,
];

/// Gauges with a bound of their own.
const BOUNDS: [(&str, f64); 5] = [
    // Proposals of one member that wait for an answer.
    (PENDING, 16_384.0),
    (PENDING_BYTES, 67_108_864.0),
    // The settings of the cluster's members.
    (ANSWERS, 4_194_304.0),
    // One database at a time to each of at most six others.
    (SENDING, 6.0),
    (RECEIVING, 4.0),
];
/// Proposals are refused when so many entries wait to be applied; what is on its way still comes, a
/// thousand and a bit at most in batches that the applier has been given.
const APPLY_GAP_MAX: f64 = 5_000.0 + 16_384.0;
/// Pairs of event and watcher that may wait for one stream, and for its connection.
const EVENTS_PER_STREAM_MAX: f64 = 65_536.0 + 16.0 * 1_024.0;
/// Gauges that must be back at nothing in the end.
const EMPTY_AT_THE_END: [&str; 6] =
    [PENDING, PENDING_BYTES, ANSWERS, SLOW_WATCHERS, SENDING, RECEIVING];

/// The last stretch of a run, before the very end, in which nothing is under way any more: the load is over
/// since [`crate::play::WIND_DOWN`], and a server gives up no later than after nine seconds.
const QUIET: Duration = Duration::from_secs(7);
/// A snapshot whose receiver lost its power is given up after a minute.
const STALL: Duration = Duration::from_secs(70);

/// What does not fit.
pub fn check(record: &Record) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut hosts: BTreeMap<&str, Vec<&Page>> = BTreeMap::new();
    for page in &record.seen.pages {
        let told = faults(page).into_iter().map(|text| violation(record, page, text));
        violations.extend(told);
        // What is read at the very end is load again.
        if record.ended.is_some_and(|ended| page.at <= ended) {
            hosts.entry(&page.host).or_default().push(page);
        }
    }
    if let Some(ended) = record.ended {
        let left = hosts.values().flat_map(|pages| left(record, pages, ended));
        violations.extend(left);
    }
    bounded(violations)
}

/// What one member still has in the end.
fn left(record: &Record, pages: &[&Page], ended: Instant) -> Vec<Violation> {
    let mut violations = Vec::new();
    for name in EMPTY_AT_THE_END {
        let quiet = if name == SENDING { STALL } else { QUIET };
        let is_long = record.start.is_some_and(|start| start + quiet <= ended);
        let last: Vec<_> = pages.iter().filter(|page| page.at + quiet > ended).collect();
        // Once may be by chance: members have work of their own.
        if is_long && last.len() > 1 && last.iter().all(|page| figure(page, name) != 0.0) {
            let page = last[last.len() - 1];
            let text = format!("{name} is {} in the end", figure(page, name));
            violations.push(violation(record, page, text));
        }
    }
    violations
}

fn faults(page: &Page) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, value) in page.figures.iter().filter(|(_, value)| **value < 0.0) {
        faults.push(format!("{name} is {value}"));
    }
    for (name, bound) in BOUNDS {
        if figure(page, name) > bound {
            faults.push(format!("{name} is {}, at most {bound} is promised", figure(page, name)));
        }
    }
    let gap = figure(page, COMMITTED) - figure(page, APPLIED);
    if gap > APPLY_GAP_MAX {
        faults.push(format!("{gap} entries wait to be applied"));
    }
    let (events, streams) = (figure(page, EVENTS), figure(page, STREAMS));
    if events > streams * EVENTS_PER_STREAM_MAX {
        faults.push(format!("{events} events wait for {streams} streams"));
    }
    let (slow, watchers) = (figure(page, SLOW_WATCHERS), figure(page, WATCHERS));
    if slow > watchers {
        faults.push(format!("{slow} of {watchers} watchers are slow"));
    }
    faults
}

fn figure(page: &Page, name: &str) -> f64 {
    page.figures.get(name).copied().unwrap_or(0.0)
}

fn violation(record: &Record, page: &Page, text: String) -> Violation {
    let at_us = record.at(page.at).as_micros() as u64;
    let property = "what waits in a member is bounded";
    Violation::new(CHECKER, property, format!("{}: {text}", page.host))
        .proved_by(Proof::Member { host: page.host.clone(), at_us })
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any instant will do: only differences count")]
mod tests {
    use super::*;

    #[test]
    fn queues_above_their_bounds_are_violations() {
        let now = Instant::now();
        let of = |lasts: u64, after: Duration, figures: &[(&str, f64)]| {
            let figures: BTreeMap<_, _> =
                figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
            let ended = Some(now + Duration::from_secs(lasts));
            let mut record = Record { start: Some(now), ended, ..Record::default() };
            for at in [now + after, now + after + Duration::from_secs(3)] {
                record.seen.pages.push(Page { at, host: "m0".into(), figures: figures.clone() });
            }
            check(&record).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        let said = |after, figures: &[(&str, f64)]| of(60, after, figures);
        let (soon, late) = (Duration::from_secs(1), Duration::from_secs(55));
        let sound = [(PENDING, 16_384.0), (WATCHERS, 2.0), (SLOW_WATCHERS, 2.0)];
        assert_eq!(said(soon, &sound), "");
        assert!(said(late, &sound).contains("proposals_pending is 16384 in the end"));
        assert_eq!(said(Duration::from_secs(51), &sound), "", "only once");
        assert_eq!(said(Duration::from_secs(59), &sound), "", "it is over");
        assert!(said(soon, &[(PENDING, 16_385.0)]).contains("at most 16384 is promised"));
        assert!(said(soon, &[(ANSWERS, 4_194_305.0)]).contains("at most 4194304 is promised"));
        assert!(said(late, &[(ANSWERS, 1.0)]).contains("answer_bytes is 1 in the end"));
        assert_eq!(said(late, &[(SENDING, 1.0)]), "", "its receiver may have lost its power");
        assert!(of(80, late, &[(SENDING, 1.0)]).contains("inflights_total is 1 in the end"));
        assert!(said(soon, &[(STREAMS, -1.0)]).contains("is -1"));
        assert!(said(soon, &[(EVENTS, 9.0)]).contains("9 events wait for 0 streams"));
        assert!(said(soon, &[(SLOW_WATCHERS, 1.0)]).contains("1 of 0 watchers"));
        assert!(said(soon, &[(COMMITTED, 30_000.0)]).contains("30000 entries wait"));
    }
}
