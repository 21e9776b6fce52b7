//! What a session still has to send, in order. Puts events of one watcher that wait anyway into one
//! response, never tears the events of a revision apart, and splits what is too large for a client
//! that allowed it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use quorate_proto::etcdserverpb::ResponseHeader;

use super::Bounds;
use super::counters::Counters;
use super::record::Response;
use super::watchers::Watcher;
use crate::types::Revision;

/// Cluster, member and term for a response's header; the revision is filled in here.
pub type HeaderSource = Arc<dyn Fn() -> ResponseHeader + Send + Sync>;

pub(super) struct Outbox {
    entries: VecDeque<Entry>,
    /// What is left of a response that is being sent in fragments.
    fragments: VecDeque<Response>,
    /// The number of the first entry; they are numbered from 1 as they come.
    first: u64,
    /// Entries with lower numbers take no more events: a later entry refers to them.
    sealed: u64,
    header: HeaderSource,
    /// Size of a message, bytes, from which on it is split if the client allows it.
    fragment_bytes: usize,
    bounds: Bounds,
    counters: Arc<Counters>,
}

struct Entry {
    response: Response,
    fragment: bool,
    /// Of the events.
    bytes: usize,
    /// Of the last event.
    revision: Revision,
}

impl Outbox {
    pub fn new(
        header: HeaderSource,
        fragment_bytes: usize,
        bounds: Bounds,
        counters: Arc<Counters>,
    ) -> Self {
        let (entries, fragments) = Default::default();
        Self { entries, fragments, first: 1, sealed: 1, header, fragment_bytes, bounds, counters }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn len(&self) -> usize {
        self.entries.len() + self.fragments.len()
    }

    /// Adds a response without events. What comes later stays behind it.
    pub fn push(&mut self, revision: Revision, response: Response) {
        self.add(revision, response, false);
        self.sealed = self.end();
    }

    /// Adds an event of `revision` for `watcher`, which by then has everything up to `cursor`.
    pub fn push_event(
        &mut self,
        watcher: &mut Watcher,
        revision: Revision,
        cursor: Revision,
        event: Bytes,
    ) {
        if !self.takes_more(watcher, revision, event.len()) {
            let response = Response { watch_id: watcher.id, ..Response::default() };
            watcher.open_response = self.end();
            self.add(cursor, response, watcher.fragment);
        }
        watcher.quiet = false;
        let position = usize::try_from(watcher.open_response - self.first);
        let entry = &mut self.entries[position.expect("the open response is in the queue")];
        entry.bytes += event.len();
        entry.revision = revision;
        entry.response.events.push(event);
        let header = entry.response.header.get_or_insert_default();
        header.revision = header.revision.max(cursor.0);
        self.counters.pending_events.add(1);
    }

    /// The next message.
    pub fn pop(&mut self) -> Option<Response> {
        if self.fragments.is_empty() {
            let entry = self.entries.pop_front()?;
            self.first += 1;
            self.sealed = self.sealed.max(self.first);
            self.fragments = self.split(entry);
        }
        let response = self.fragments.pop_front()?;
        self.counters.pending_events.sub(response.events.len());
        self.counters.events.add(response.events.len());
        Some(response)
    }

    fn add(&mut self, revision: Revision, mut response: Response, fragment: bool) {
        response.header = Some(ResponseHeader { revision: revision.0, ..(self.header)() });
        self.entries.push_back(Entry { response, fragment, bytes: 0, revision });
    }

    /// The number of the entry that is added next.
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Whether the watcher's open response can take an event: always if it has one of the same
    /// revision already.
    fn takes_more(&self, watcher: &Watcher, revision: Revision, bytes: usize) -> bool {
        if watcher.open_response < self.sealed {
            return false;
        }
        let position = usize::try_from(watcher.open_response - self.first);
        let entry = position.ok().and_then(|position| self.entries.get(position));
        entry.is_some_and(|entry| {
            entry.revision == revision || entry.bytes + bytes <= self.bounds.response_bytes
        })
    }

    /// One response as the messages it is sent in: parts below the bound, but at least one event in
    /// each, and all but the last marked as fragments.
    fn split(&self, entry: Entry) -> VecDeque<Response> {
        let Entry { mut response, fragment, .. } = entry;
        let whole = response.encoded_len();
        if !fragment || whole < self.fragment_bytes || response.events.len() < 2 {
            return [response].into();
        }
        let events = std::mem::take(&mut response.events);
        response.fragment = true;
        let frame_bytes = response.encoded_len();
        let mut parts = VecDeque::new();
        let mut part = response.clone();
        let mut part_bytes = frame_bytes;
        for event in events {
            let event_bytes = field_bytes(&event);
            if !part.events.is_empty() && part_bytes + event_bytes >= self.fragment_bytes {
                parts.push_back(std::mem::replace(&mut part, response.clone()));
                part_bytes = frame_bytes;
            }
            part_bytes += event_bytes;
            part.events.push(event);
        }
        part.fragment = false;
        parts.push_back(part);
        parts
    }
}

/// The event as a field of the response: a tag of one byte, the length, the event.
fn field_bytes(event: &Bytes) -> usize {
    1 + prost::length_delimiter_len(event.len()) + event.len()
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let entries = self.entries.iter().map(|entry| &entry.response);
        let left = entries.chain(&self.fragments).map(|response| response.events.len());
        self.counters.pending_events.sub(left.sum());
    }
}
