//! What etcd promises of watches, checked against the log (etcd 3.7 `client watch guarantees`): events
//! come in order, once, without a gap, from the revision requested; those of one revision in one
//! response, unless fragments are allowed; a word about progress means that nothing at or below it is
//! still to come; filters and previous values are as requested; a watch is cancelled for a reason only; and
//! one that is waited for in a whole cluster receives everything.

use std::collections::BTreeMap;

use quorate_proto::etcdserverpb::{
    WatchCreateRequest, WatchResponse, watch_create_request::FilterType,
};
use quorate_proto::mvccpb::{Event, event::EventType};

use super::space::{Space, inside};
use crate::facts::evidence::{How, Record, Stream};
use crate::facts::history::Log;
use crate::facts::verdict::{Proof, Violation};

const FAULTS_PER_STREAM: usize = 3;

pub fn check(record: &Record) -> Vec<Violation> {
    let (space, _) = Space::replay(&record.log);
    let sight = Sight {
        log: &record.log,
        space: &space,
        compacted: record.compacted_at_most(),
        whole: record.whole,
    };
    let mut violations = Vec::new();
    for (number, stream) in record.streams.iter().enumerate() {
        let mut checker = Checker::new(&sight, number, stream);
        checker.run();
        violations.append(&mut checker.violations);
    }
    violations.extend(ids(&record.streams));
    violations
}

/// What streams are held against.
struct Sight<'a> {
    log: &'a Log,
    space: &'a Space,
    /// No compaction can have gone further.
    compacted: i64,
    /// Whether the log has everything.
    whole: bool,
}

/// One stream on its way through what it should have received.
struct Checker<'a> {
    sight: &'a Sight<'a>,
    number: usize,
    stream: &'a Stream,
    /// The first revision that it has not received.
    next: i64,
    /// Of a response that is being sent in fragments.
    open: Vec<&'a Event>,
    cancelled: bool,
    violations: Vec<Violation>,
}

impl<'a> Checker<'a> {
    fn new(sight: &'a Sight<'a>, number: usize, stream: &'a Stream) -> Self {
        let start = stream.request.start_revision;
        let next = if start == 0 { stream.created_revision.unwrap_or(0) + 1 } else { start };
        let (open, violations) = (Vec::new(), Vec::new());
        Self { sight, number, stream, next, open, cancelled: false, violations }
    }

    fn fault(&mut self, property: &'static str, revision: i64, text: String) {
        let watched =
            crate::facts::history::keys(&self.stream.request.key, &self.stream.request.range_end);
        let text =
            format!("stream {} of {} on {watched}: {text}", self.number, self.stream.endpoint);
        let proof = Proof::Watch { stream: self.number, revision };
        self.violations.push(Violation::new("watches", property, text).proved_by(proof));
    }

    fn run(&mut self) {
        let stream = self.stream;
        for (at, (_, response)) in stream.responses.iter().enumerate() {
            if self.violations.len() >= FAULTS_PER_STREAM {
                return;
            }
            if self.cancelled {
                let text = format!("{response:?}");
                self.fault("nothing comes after a cancellation", self.next, text);
                return;
            }
            self.response(at == 0, response);
        }
        if let Some(How::Complete(revision)) = stream.end.as_ref().map(|end| end.how.clone()) {
            self.nothing_before(revision + 1, "a watch receives every event");
        }
    }

    fn response(&mut self, first: bool, response: &'a WatchResponse) {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if first != response.created {
            let text = format!("response {response:?}");
            self.fault("a watch begins with its created response", revision, text);
        }
        if response.canceled {
            self.cancelled = true;
            self.cancellation(response);
        } else if response.created {
            let (wanted, got) = (self.stream.request.watch_id, response.watch_id);
            if wanted != 0 && wanted != got {
                let text = format!("requested {wanted}, got {got}");
                self.fault("a watch has the requested id", revision, text);
            }
        } else if response.events.is_empty() {
            self.nothing_before(revision + 1, "progress covers everything");
            self.next = self.next.max(revision + 1);
        } else {
            self.events(revision, response);
        }
    }

    /// Two sides may cancel: the client, or the server because the past it still has to send is gone,
    /// or because the watch could not be made.
    fn cancellation(&mut self, response: &WatchResponse) {
        let compacted = response.compact_revision;
        if compacted > 0 {
            if compacted > self.sight.compacted || self.next >= compacted {
                let text = format!(
                    "compacted {compacted}, was at {}, compactions go to {}",
                    self.next, self.sight.compacted
                );
                self.fault("only what is compacted cancels a watch", self.next, text);
            }
        } else if self.stream.cancelled.is_none() && !refusable(&self.stream.request, response) {
            let text = format!("{response:?}");
            self.fault("a watch is not cancelled without a reason", self.next, text);
        }
    }

    fn events(&mut self, header: i64, response: &'a WatchResponse) {
        self.open.extend(&response.events);
        if response.fragment {
            if !self.stream.request.fragment {
                let text = format!("{} events", response.events.len());
                self.fault("only watches that allow fragments receive them", self.next, text);
            }
            return;
        }
        let open = std::mem::take(&mut self.open);
        let mut told: BTreeMap<i64, Vec<&Event>> = BTreeMap::new();
        let mut last = 0;
        for event in open {
            let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            if revision < last {
                let text = format!("{revision} came after {last}");
                self.fault("events come in order", revision, text);
                return;
            }
            last = revision;
            told.entry(revision).or_default().push(event);
        }
        if header < last {
            let text = format!("an event of {last} in a response at {header}");
            self.fault("a response is not older than its events", last, text);
        }
        for (revision, events) in told {
            if revision > self.sight.space.last && !self.sight.whole {
                return;
            }
            self.revision(revision, &events);
        }
    }

    /// All events of one revision.
    fn revision(&mut self, revision: i64, events: &[&Event]) {
        if revision < self.next {
            let text = format!("revision {revision} again, or before the requested {}", self.next);
            self.fault("events come once, from the requested revision", revision, text);
            return;
        }
        self.nothing_before(revision, "no event is left out");
        self.next = revision + 1;
        let wanted = self.wanted(revision);
        let plain = |event: &Event| (event.r#type, event.kv.clone());
        let same = wanted.len() == events.len()
            && wanted.iter().zip(events).all(|(a, b)| plain(a) == plain(b));
        if !same {
            let text = format!("revision {revision} arrived as {events:?}, it is {wanted:?}");
            self.fault("a revision arrives whole and unchanged", revision, text);
            return;
        }
        for event in events {
            self.previous(revision, event);
        }
    }

    /// The state before, if it was requested, and can still be known.
    fn previous(&mut self, revision: i64, event: &Event) {
        let Some(kv) = &event.kv else { return };
        let before = self.sight.space.at(&kv.key, revision - 1);
        // A key that the same revision deleted first is new, as etcd sees it.
        let created = kv.create_revision == revision;
        let wanted = before.filter(|_| self.stream.request.prev_kv && !created);
        let lost = event.prev_kv.is_none() && revision <= self.sight.compacted;
        if event.prev_kv.as_ref() != wanted && !lost {
            let text = format!("{event:?} should have {wanted:?}");
            self.fault("the state before a change is as it was", revision, text);
        }
    }

    /// Complains if anything is missing before `revision`.
    fn nothing_before(&mut self, revision: i64, property: &'static str) {
        if revision <= self.next {
            return;
        }
        let log = self.sight.log;
        let missed = log.range(self.next..revision).find(|(at, _)| !self.wanted(**at).is_empty());
        if let Some((at, _)) = missed {
            let text = format!("revision {at} is missing before {revision}");
            self.fault(property, *at, text);
        }
    }

    /// What the watch is to receive of a revision.
    fn wanted(&self, revision: i64) -> Vec<&'a Event> {
        let request = &self.stream.request;
        let events = self.sight.log.get(&revision).map_or(&[][..], |events| events);
        events.iter().filter(|event| watched(request, event)).collect()
    }
}

fn watched(request: &WatchCreateRequest, event: &Event) -> bool {
    let dropped = match event.r#type() {
        EventType::Put => FilterType::Noput,
        EventType::Delete => FilterType::Nodelete,
    };
    // The empty key is the smallest one.
    let from: &[u8] = if request.key.is_empty() { &[0] } else { &request.key };
    event.kv.as_ref().is_some_and(|kv| inside(&kv.key, from, &request.range_end))
        && !request.filters.contains(&(dropped as i32))
}

/// Whether the watch could not be made as requested.
fn refusable(request: &WatchCreateRequest, response: &WatchResponse) -> bool {
    let empty = !request.range_end.is_empty()
        && request.range_end[..] != [0]
        && request.range_end <= request.key;
    let reason = response.cancel_reason.as_str();
    response.created
        && response.watch_id == -1
        // A proxy gives no reason, as etcd's gives none.
        && ((empty && ["mvcc: watcher range is empty", ""].contains(&reason))
            || (request.start_revision < 0
                && reason == "etcdserver: mvcc: required revision has been compacted")
            // The scribe's, at a member that does not know its token: permissions to watch are checked by
            // the workload that plays with it.
            || reason.ends_with("etcdserver: user name is empty")
            || reason.ends_with("etcdserver: invalid auth token")
            || (request.watch_id != 0
                && reason == "mvcc: duplicate watch ID provided on the WatchStream"))
}

/// Watches of one connection that are there at the same time have different ids.
fn ids(streams: &[Stream]) -> Vec<Violation> {
    let mut taken: BTreeMap<(usize, i64), &Stream> = BTreeMap::new();
    let mut violations = Vec::new();
    for (number, stream) in streams.iter().enumerate() {
        let Some(id) = stream.watch_id.filter(|id| *id >= 0) else { continue };
        let Some(other) = taken.insert((stream.connection, id), stream) else { continue };
        // Requests may wait for others: an id is given when the watch is created, not when it is requested.
        let given = stream.responses.first().map_or(stream.created, |(at, _)| *at);
        let over = other.end.as_ref().is_some_and(|end| end.at <= given);
        if !over && other.cancelled.is_none_or(|at| at > stream.created) {
            let text = format!("two watches of connection {} have {id}", stream.connection);
            let proof = Proof::Watch { stream: number, revision: stream.request.start_revision };
            let violation = Violation::new("watches", "ids are unique in a connection", text);
            violations.push(violation.proved_by(proof));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::{CompactionRequest, ResponseHeader};
    use quorate_proto::mvccpb::KeyValue;

    use super::*;
    use crate::check::fixture::{Fixture, event, gone, kv, texts, wrote};
    use crate::facts::evidence::End;
    use crate::facts::history::Call;

    /// Two keys at 2 and 4, both at 3; `a` is deleted at 5.
    fn log() -> Fixture {
        let second = |at, key, value, version| {
            let kv = KeyValue { create_revision: 2, version, ..kv(at, key, value) };
            event(EventType::Put, kv)
        };
        let fixture = Fixture::default().wrote(2, "a", "1");
        let fixture = fixture.event(3, second(3, "a", "2", 2)).wrote(3, "b", "3");
        fixture.event(4, second(4, "a", "4", 3)).event(5, gone(5, "a"))
    }

    fn request() -> WatchCreateRequest {
        let (key, range_end) = ("a".into(), "z".into());
        WatchCreateRequest { key, range_end, start_revision: 2, ..Default::default() }
    }

    fn created() -> WatchResponse {
        let header = Some(ResponseHeader { revision: 5, ..Default::default() });
        WatchResponse { header, created: true, ..Default::default() }
    }

    fn told(log: &Fixture, revisions: &[i64]) -> WatchResponse {
        let events = revisions.iter().flat_map(|at| log.record.log[at].clone()).collect();
        WatchResponse { created: false, events, ..created() }
    }

    fn checked(fixture: Fixture, request: WatchCreateRequest, told: Vec<WatchResponse>) -> String {
        let at = fixture.at(1.0);
        let mut fixture = fixture;
        let responses =
            [created()].into_iter().chain(told).map(|response| (at, response)).collect();
        fixture.record.streams.push(Stream {
            watcher: 0,
            connection: 0,
            endpoint: "m0:2379".into(),
            request,
            created: at,
            watch_id: Some(0),
            created_revision: Some(5),
            responses,
            cancelled: None,
            end: Some(End { at, how: How::Complete(4) }),
        });
        texts(&check(&fixture.record))
    }

    fn said(told: Vec<WatchResponse>) -> String {
        checked(log(), request(), told)
    }

    #[test]
    fn order_gaps_and_repetitions_are_found() {
        let log = log();
        let told = |revisions: &[i64]| told(&log, revisions);
        assert_eq!(said(vec![told(&[2]), told(&[3, 4])]), "");
        assert_eq!(said(vec![told(&[2, 3, 4]), told(&[5])]), "");
        assert!(said(vec![told(&[2]), told(&[4])]).contains("revision 3 is missing"));
        assert!(said(vec![told(&[3, 4])]).contains("revision 2 is missing"), "from the start");
        assert!(said(vec![told(&[2, 3])]).contains("a watch receives every event"));
        assert!(said(vec![told(&[2, 3]), told(&[3, 4])]).contains("revision 3 again"));
        assert!(said(vec![told(&[3, 2, 4])]).contains("2 came after 3"));
        let mut torn = told(&[3]);
        torn.events.truncate(1);
        let mut rest = told(&[3]);
        rest.events.remove(0);
        assert!(said(vec![told(&[2]), torn.clone(), rest.clone()]).contains("arrives whole"));
        torn.fragment = true;
        let parts = vec![told(&[2]), torn, rest, told(&[4])];
        assert!(said(parts.clone()).contains("that allow fragments"));
        let allowed = WatchCreateRequest { fragment: true, ..request() };
        assert_eq!(checked(self::log(), allowed, parts), "");
    }

    #[test]
    fn false_progress_is_found() {
        let log = log();
        let progress = |revision| WatchResponse {
            header: Some(ResponseHeader { revision, ..Default::default() }),
            created: false,
            ..created()
        };
        let told = |revisions: &[i64]| told(&log, revisions);
        assert_eq!(said(vec![told(&[2]), progress(2), told(&[3, 4])]), "");
        let early = said(vec![told(&[2]), progress(3), told(&[3, 4])]);
        assert!(early.contains("progress covers everything"), "{early}");
    }

    #[test]
    fn filters_and_previous_values_are_judged() {
        let log = log();
        let told = |revisions: &[i64]| told(&log, revisions);
        let no_put = WatchCreateRequest { filters: vec![FilterType::Noput as i32], ..request() };
        assert_eq!(checked(self::log(), no_put.clone(), vec![told(&[5])]), "");
        assert!(checked(self::log(), no_put, vec![told(&[2])]).contains("arrived as"));
        let narrow = WatchCreateRequest { key: "b".into(), range_end: "".into(), ..request() };
        assert!(checked(self::log(), narrow, vec![told(&[3])]).contains("arrived as"), "all of 3");

        let asked = WatchCreateRequest { prev_kv: true, start_revision: 4, ..request() };
        let mut right = told(&[4]);
        right.events[0].prev_kv = self::log().record.log[&3][0].kv.clone();
        assert_eq!(checked(self::log(), asked.clone(), vec![right.clone()]), "");
        assert!(checked(self::log(), asked, vec![told(&[4])]).contains("should have Some"));
        let unasked = WatchCreateRequest { start_revision: 4, ..request() };
        assert!(checked(self::log(), unasked, vec![right]).contains("should have None"));
    }

    /// Two watches with one id, requested together: the first may be over when the second is created.
    #[test]
    fn an_id_is_given_again_when_its_watch_is_over() {
        let twice = |over: Option<f64>, answered: f64| {
            let mut record = log().record;
            let fixture = Fixture::default();
            let end = over.map(|at| End { at: fixture.at(at), how: How::Cancelled });
            let stream = |answered: f64, end| Stream {
                watcher: 0,
                connection: 0,
                endpoint: "m0:2379".into(),
                request: request(),
                created: fixture.at(1.0),
                watch_id: Some(2),
                created_revision: Some(5),
                responses: vec![(fixture.at(answered), created())],
                cancelled: None,
                end,
            };
            record.streams = vec![stream(1.5, end), stream(answered, None)];
            texts(&check(&record))
        };
        assert_eq!(twice(Some(2.0), 2.5), "");
        assert!(twice(None, 2.5).contains("two watches of connection 0 have 2"));
        assert!(twice(Some(3.0), 2.5).contains("two watches of connection 0 have 2"), "too soon");
    }

    #[test]
    fn cancellations_have_reasons() {
        let cancelled = |compact_revision| WatchResponse {
            created: false,
            canceled: true,
            compact_revision,
            ..created()
        };
        let compacted = |revision| {
            let request = CompactionRequest { revision, physical: false };
            log().call(0, 1, Call::Compact(request, Ok(Default::default())))
        };
        let checked = |fixture: Fixture, told| {
            let mut request = request();
            request.start_revision = 3;
            checked(fixture, request, vec![told])
        };
        let told = |text: String| text.contains("cancel");
        assert!(!told(checked(compacted(4), cancelled(4))));
        assert!(told(checked(compacted(3), cancelled(3))), "3 can still be sent");
        assert!(told(checked(log(), cancelled(4))), "without a compaction");
        assert!(told(checked(log(), cancelled(0))), "without a cancellation");
        assert!(wrote(2, "a", "1").prev_kv.is_none());
    }
}
