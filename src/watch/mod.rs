//! Watchers: clients that receive every change of some keys, from some revision on, in order, once.
//!
//! ```text
//! applier --publications--> hub --deliveries--> session --responses--> edge
//!                            ^ |                  |
//!                       join | | joined, behind,  | pages of history
//!                            +-+ lagging       store
//! ```
//!
//! A watcher is a cursor: the first revision whose events its client was not given. There is one
//! mechanism for new, slow and resumed watchers. A session reads history until a watcher has all
//! there is, up to revision R, then requests the hub to take it in from exactly R + 1. The hub answers
//! "joined", after handing over the last gap if there is one, or "behind" when the gap is too large.
//! When a session's buffer is full the hub takes its watchers out, reports from which revision on they
//! miss everything, and the session reads history again. The hub never waits for a session.
//!
//! Invariants:
//! * What a session has in its buffer when the hub has reached R is everything of its live watchers
//!   up to R, or a note that it lacks some. Progress is reported from there, never from the store's head.
//! * A revision's events are delivered together, and sent together unless the client allowed fragments.
//! * History is never behind the hub: a revision is readable before it is published.
//! * Nothing here knows consensus, storage engines or the transport of the stream.
//!
//! Reading order: [`span`] (what is watched), [`index`] (from a key to its watchers), [`record`] (events
//! shared and encoded once), [`history`] and [`store`] (the past), [`link`] and [`hub`] (the present),
//! [`watchers`], [`outbox`], [`session`] with [`requests`] and [`catchup`] (one stream), [`counters`].

mod catchup;
pub mod counters;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod history;
pub mod hub;
mod index;
mod link;
mod outbox;
mod record;
mod requests;
pub mod session;
mod span;
mod store;
#[cfg(test)]
mod tests;
mod watchers;

use std::sync::Arc;

use quorate_proto::mvccpb::Event;

pub use counters::Counters;
pub use history::{History, HistoryRange, Page, ReadError, Wanted};
pub use hub::{HubHandle, start};
pub use outbox::HeaderSource;
pub use record::Response;
pub use session::{Allow, Options, Traced, run};

use crate::limits;
use crate::types::Revision;

/// What one revision changed: its events in order, each with the state before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    pub revision: Revision,
    pub events: Arc<[Event]>,
}

/// How much waits where; the defaults are those of [`limits`]. Anything from 1 up is correct, and
/// small bounds bring out what large ones hide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub buffer_events: usize,
    pub buffer_bytes: usize,
    pub buffer_matches: usize,
    pub outbox_responses: usize,
    pub response_bytes: usize,
    pub catchup_revisions: usize,
    pub catchup_bytes: usize,
    pub catchup_readers: usize,
    pub ring_publications: usize,
    pub ring_bytes: usize,
    /// What is published of one entry; its watchers read more from history.
    pub events_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            buffer_events: limits::WATCH_BUFFER_EVENTS,
            buffer_bytes: limits::WATCH_BUFFER_BYTES,
            buffer_matches: limits::WATCH_BUFFER_MATCHES,
            outbox_responses: limits::WATCH_OUTBOX_RESPONSES,
            response_bytes: limits::WATCH_RESPONSE_BYTES,
            catchup_revisions: limits::WATCH_CATCHUP_REVISIONS,
            catchup_bytes: limits::WATCH_CATCHUP_BYTES,
            catchup_readers: limits::WATCH_CATCHUP_READERS,
            ring_publications: limits::WATCH_RING_PUBLICATIONS,
            ring_bytes: limits::WATCH_RING_BYTES,
            events_bytes: limits::EVENTS_BYTES_MAX,
        }
    }
}
