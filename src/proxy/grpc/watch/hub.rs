//! Broadcasts, their watchers, and the deliveries of each response of the cluster. Pure but for the queues
//! that it returns; does not send or wait.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_proto::etcdserverpb::WatchResponse;
use quorate_proto::mvccpb::Event;
use tokio::sync::mpsc;
use tonic::Status;

use crate::env::Abort;
use crate::plant;

/// The credentials of a watch.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Caller {
    pub token: Option<Vec<u8>>,
    pub authorization: Option<Vec<u8>>,
    pub needs_leader: bool,
}

/// The properties that shared watchers have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub caller: Caller,
    /// Key and end in the client's namespace.
    pub key: Bytes,
    pub end: Bytes,
}

/// A message to a session.
#[derive(Debug)]
pub(super) enum News {
    /// A response for the watcher of [`WatchResponse::watch_id`], if it has this serial number.
    Response(u64, WatchResponse),
    /// The end of the stream.
    End(Status),
}

/// One watcher of one session.
#[derive(Clone, Debug)]
pub(super) struct Watcher {
    pub session: u64,
    pub watch_id: i64,
    /// Id within its session. Ids may be reused by other watchers.
    pub serial: u64,
    /// The first revision that it did not receive; its broadcast is not further.
    pub next: i64,
    pub progress: bool,
    pub prev_kv: bool,
    /// Types of events that are filtered out, as numbered in [`Event`].
    pub unwanted: Vec<i32>,
    pub inbox: mpsc::Sender<News>,
}

pub(super) struct Broadcast {
    span: Span,
    /// The first revision that was not received.
    next: i64,
    watchers: Vec<Watcher>,
    task: Option<Box<dyn Abort>>,
}

/// Id of a broadcast; never reused.
pub(super) type BroadcastId = u64;

/// The result of adding a watcher.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joined {
    Shared,
    /// A new broadcast, which must be started.
    New(BroadcastId),
}

#[derive(Default)]
pub(super) struct Hub {
    broadcasts: BTreeMap<BroadcastId, Broadcast>,
    newest: BroadcastId,
    sessions: u64,
}

impl Hub {
    /// Returns an id for a session.
    pub fn session(&mut self) -> u64 {
        self.sessions += 1;
        self.sessions
    }

    pub fn join(&mut self, span: &Span, watcher: Watcher) -> Joined {
        let late = plant::PROXY_WATCHER_JOINS_LATE.is_planted();
        let fits = |b: &&mut Broadcast| b.span == *span && (b.next <= watcher.next || late);
        // The one that is furthest repeats the least.
        if let Some(broadcast) = self.broadcasts.values_mut().filter(fits).max_by_key(|b| b.next) {
            broadcast.watchers.push(watcher);
            return Joined::Shared;
        }
        self.newest += 1;
        let (next, span) = (watcher.next, span.clone());
        let broadcast = Broadcast { span, next, watchers: vec![watcher], task: None };
        self.broadcasts.insert(self.newest, broadcast);
        Joined::New(self.newest)
    }

    /// Sets the task of a broadcast, which is stopped with its last watcher.
    pub fn runs(&mut self, id: BroadcastId, task: Box<dyn Abort>) {
        match self.broadcasts.get_mut(&id) {
            Some(broadcast) => broadcast.task = Some(task),
            None => task.abort(),
        }
    }

    /// Removes one watcher of a session, or all.
    pub fn leave(&mut self, session: u64, watch_id: Option<i64>) {
        self.broadcasts.retain(|_, broadcast| {
            let stays =
                |w: &Watcher| w.session != session || watch_id.is_some_and(|id| w.watch_id != id);
            broadcast.watchers.retain(stays);
            let over = broadcast.watchers.is_empty();
            if let Some(task) = broadcast.task.take_if(|_| over) {
                task.abort();
            }
            !over
        });
    }

    /// Returns the span and next revision of a broadcast; none if it has ended.
    pub fn position(&self, id: BroadcastId) -> Option<(Span, i64)> {
        self.broadcasts.get(&id).map(|broadcast| (broadcast.span.clone(), broadcast.next))
    }

    /// Returns the deliveries of a response with events or progress.
    pub fn deliver(
        &mut self,
        id: BroadcastId,
        response: &WatchResponse,
    ) -> Vec<(mpsc::Sender<News>, News)> {
        let Some(broadcast) = self.broadcasts.get_mut(&id) else { return Vec::new() };
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let last = response.events.iter().map(modified).max();
        // The header of a response with events may be ahead of them.
        broadcast.next = broadcast.next.max(last.unwrap_or(revision) + 1);
        let next = broadcast.next;
        let news = |watcher: &mut Watcher| {
            let own = watcher.filter(response);
            watcher.next = watcher.next.max(next);
            Some((watcher.inbox.clone(), News::Response(watcher.serial, own?)))
        };
        broadcast.watchers.iter_mut().filter_map(news).collect()
    }

    /// Moves the watchers of a broadcast to another one that has not passed them, if there is one. Returns
    /// whether the first has ended.
    pub fn merge(&mut self, id: BroadcastId) -> bool {
        let Some(this) = self.broadcasts.get(&id) else { return true };
        let fits = |(other, b): &(&BroadcastId, &Broadcast)| {
            let passed = b.next > this.next && !plant::PROXY_WATCHER_SHARES_TOO_SOON.is_planted();
            **other != id && b.span == this.span && !passed
        };
        let Some((&other, _)) = self.broadcasts.iter().find(fits) else { return false };
        let this = self.broadcasts.remove(&id).expect("it was found");
        let other = self.broadcasts.get_mut(&other).expect("it was found");
        other.watchers.extend(this.watchers);
        true
    }

    /// Ends a broadcast; returns its span and the watchers to notify.
    pub fn end(&mut self, id: BroadcastId) -> Option<(Span, Vec<Watcher>)> {
        self.broadcasts.remove(&id).map(|broadcast| (broadcast.span, broadcast.watchers))
    }

    /// Removes all watchers of a session.
    pub fn leave_all(&mut self, inbox: &mpsc::Sender<News>) {
        let mut watchers = self.broadcasts.values().flat_map(|broadcast| &broadcast.watchers);
        let watcher = watchers.find(|watcher| watcher.inbox.same_channel(inbox));
        if let Some(session) = watcher.map(|watcher| watcher.session) {
            self.leave(session, None);
        }
    }

    pub fn sharing(&self) -> usize {
        self.broadcasts.values().map(|broadcast| broadcast.watchers.len() - 1).sum()
    }
}

impl Watcher {
    /// Returns the part of a response for this watcher, if any.
    fn filter(&mut self, response: &WatchResponse) -> Option<WatchResponse> {
        let mut own = WatchResponse {
            header: response.header,
            watch_id: self.watch_id,
            ..WatchResponse::default()
        };
        if response.events.is_empty() {
            return self.progress.then_some(own);
        }
        let all = plant::PROXY_WATCHER_TOLD_WHAT_WAS_BEFORE.is_planted();
        let new = response.events.iter().filter(|event| modified(event) >= self.next || all);
        let wanted = new.filter(|event| !self.unwanted.contains(&event.r#type));
        own.events = wanted.cloned().collect();
        if !self.prev_kv {
            own.events.iter_mut().for_each(|event| event.prev_kv = None);
        }
        (!own.events.is_empty()).then_some(own)
    }
}

fn modified(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::ResponseHeader;
    use quorate_proto::mvccpb::KeyValue;

    use super::*;

    fn span(key: &'static str) -> Span {
        Span { caller: Caller::default(), key: key.into(), end: Bytes::new() }
    }

    /// Creates a watcher with a session of its own.
    fn watcher(id: i64, next: i64) -> Watcher {
        let (inbox, _) = mpsc::channel(1);
        let session = u64::try_from(id).expect("small");
        let (progress, prev_kv, unwanted) = (false, false, Vec::new());
        Watcher { session, watch_id: id, serial: 0, next, progress, prev_kv, unwanted, inbox }
    }

    fn events(revisions: &[i64], header: i64) -> WatchResponse {
        let event = |&mod_revision: &i64| {
            let kv = Some(KeyValue { mod_revision, ..Default::default() });
            Event { kv: kv.clone(), prev_kv: kv, ..Default::default() }
        };
        let header = Some(ResponseHeader { revision: header, ..Default::default() });
        let events = revisions.iter().map(event).collect();
        WatchResponse { header, events, ..Default::default() }
    }

    /// Returns the revisions that each watcher receives.
    fn got(hub: &mut Hub, id: BroadcastId, response: &WatchResponse) -> String {
        let told = hub.deliver(id, response).into_iter().map(|(_, news)| match news {
            News::Response(_, own) => {
                let revisions: Vec<i64> = own.events.iter().map(modified).collect();
                assert!(own.events.iter().all(|event| event.prev_kv.is_none()));
                format!("{}:{revisions:?}", own.watch_id)
            }
            News::End(status) => panic!("{status}"),
        });
        told.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn watchers_of_one_span_share() {
        let mut hub = Hub::default();
        assert_eq!(hub.join(&span("a"), watcher(1, 5)), Joined::New(1));
        assert_eq!(hub.join(&span("a"), watcher(2, 7)), Joined::Shared);
        assert_eq!(hub.join(&span("b"), watcher(3, 7)), Joined::New(2));
        let caller = Caller { token: Some(b"t".to_vec()), ..Caller::default() };
        assert_eq!(hub.join(&Span { caller, ..span("a") }, watcher(4, 7)), Joined::New(3));
        assert_eq!(hub.sharing(), 1);
        assert_eq!(got(&mut hub, 1, &events(&[5, 6], 9)), "1:[5, 6]", "the other begins at 7");
        assert_eq!(got(&mut hub, 1, &events(&[7, 7, 8], 9)), "1:[7, 7, 8] 2:[7, 7, 8]");
        assert_eq!(hub.position(1), Some((span("a"), 9)));
        assert_eq!(hub.join(&span("a"), watcher(5, 8)), Joined::New(4), "8 has passed");
        assert_eq!(hub.join(&span("a"), watcher(6, 9)), Joined::Shared);
        assert_eq!(got(&mut hub, 4, &events(&[8], 9)), "5:[8]");
    }

    #[test]
    fn who_has_caught_up_shares() {
        let mut hub = Hub::default();
        hub.join(&span("a"), watcher(1, 9));
        hub.join(&span("a"), watcher(2, 3));
        assert!(!hub.merge(2), "it is behind");
        assert_eq!(got(&mut hub, 2, &events(&[4, 8], 12)), "2:[4, 8]");
        assert!(hub.merge(2));
        assert_eq!((hub.position(2), hub.sharing()), (None, 1));
        assert_eq!(got(&mut hub, 1, &events(&[9], 12)), "1:[9] 2:[9]");
        assert!(!hub.merge(1), "there is no other");
        assert!(hub.merge(2), "it is over");
    }

    #[test]
    fn nothing_comes_twice_or_is_left_out_by_sharing() {
        let mut hub = Hub::default();
        hub.join(&span("a"), watcher(1, 2));
        hub.join(&span("a"), watcher(2, 2));
        hub.join(&span("a"), watcher(3, 1));
        assert_eq!(got(&mut hub, 2, &events(&[1, 2, 3], 3)), "3:[1, 2, 3]");
        assert!(hub.merge(2), "the first has not passed it");
        assert_eq!(got(&mut hub, 1, &events(&[2, 3, 4], 4)), "1:[2, 3, 4] 2:[2, 3, 4] 3:[4]");
    }

    /// Progress of a watcher protects it from a compaction below.
    #[test]
    fn a_watcher_is_as_far_as_its_broadcast() {
        let mut hub = Hub::default();
        hub.join(&span("a"), watcher(1, 5));
        hub.join(&span("a"), watcher(2, 30));
        got(&mut hub, 1, &events(&[7], 9));
        got(&mut hub, 1, &events(&[], 20));
        let (_, watchers) = hub.end(1).expect("it was there");
        assert_eq!(watchers.iter().map(|w| w.next).collect::<Vec<_>>(), [21, 30]);
    }

    #[test]
    fn each_gets_what_it_asked_for() {
        let mut hub = Hub::default();
        hub.join(&span("a"), Watcher { progress: true, ..watcher(1, 1) });
        hub.join(&span("a"), Watcher { unwanted: vec![0], ..watcher(2, 1) });
        assert_eq!(got(&mut hub, 1, &events(&[], 7)), "1:[]");
        assert_eq!(hub.position(1), Some((span("a"), 8)), "there is nothing up to 7");
        assert_eq!(got(&mut hub, 1, &events(&[8], 8)), "1:[8]");
        let told = hub.join(&span("a"), Watcher { prev_kv: true, ..watcher(3, 9) });
        assert_eq!(told, Joined::Shared);
        let told = hub.deliver(1, &events(&[9], 9));
        let with = told.iter().filter(|(_, news)| match news {
            News::Response(_, own) => own.events[0].prev_kv.is_some(),
            News::End(_) => false,
        });
        assert_eq!((told.len(), with.count()), (2, 1));
    }

    #[test]
    fn a_broadcast_ends_with_its_last_watcher() {
        let mut hub = Hub::default();
        hub.join(&span("a"), watcher(1, 1));
        hub.join(&span("a"), watcher(2, 1));
        hub.leave(1, Some(7));
        assert_eq!(hub.sharing(), 1, "it has no such watcher");
        hub.leave(1, Some(1));
        assert!(hub.position(1).is_some());
        hub.leave(2, None);
        assert!(hub.position(1).is_none());
    }
}
