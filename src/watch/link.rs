//! The link between the hub and one session: the buffer, its bounds, and the messages they exchange.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::mpsc;

use super::Bounds;
use super::counters::Counters;
use super::hub::{Control, Join, SessionId};
use super::record::Record;
use crate::latest;
use crate::plant;
use crate::types::Revision;

/// Names a watcher within its session. Never used again, unlike the client's watch ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(pub u64);

/// One event for one watcher. Ordered by watcher, then as the events are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Match {
    pub slot: Slot,
    /// Position in the record.
    pub event: usize,
}

/// What one session gets of one revision: all of it, or nothing.
pub(super) struct Delivery {
    pub record: Arc<Record>,
    /// Sorted.
    pub matches: Vec<Match>,
}

/// Messages of the hub to a session, in an order that means something: events before `Lagging` are
/// below its revision, events of a joining watcher before `Joined` close its gap.
pub(super) enum ToSession {
    Events(Delivery),
    /// The watchers of the last join are live.
    Joined,
    /// The watchers of the last join are not live: history must be read up to `reached` at least.
    Behind {
        reached: Revision,
    },
    /// The watchers that were live are not any more, and miss everything from `from` on.
    Lagging {
        from: Revision,
    },
}

/// How much waits in a session's buffer. The hub adds, the session subtracts, so that what the hub
/// reads is never too small.
pub(super) struct Load {
    events: AtomicUsize,
    bytes: AtomicUsize,
    matches: AtomicUsize,
    bounds: Bounds,
    counters: Arc<Counters>,
}

impl Load {
    pub fn new(bounds: Bounds, counters: Arc<Counters>) -> Self {
        let (events, bytes, matches) = Default::default();
        Self { events, bytes, matches, bounds, counters }
    }

    /// An empty buffer has room for any one revision; else none that is larger than the buffer
    /// could ever be delivered live.
    pub fn has_room_for(&self, delivery: &Delivery) -> bool {
        plant::WATCH_BUFFER_WITHOUT_END.is_planted()
            || self.events.load(Relaxed) == 0
            || self.has_room_for_all(std::slice::from_ref(delivery))
    }

    pub fn has_room_for_all(&self, deliveries: &[Delivery]) -> bool {
        let sum = |of: fn(&Delivery) -> usize| deliveries.iter().map(of).sum::<usize>();
        self.events.load(Relaxed) + sum(Delivery::events) <= self.bounds.buffer_events
            && self.bytes.load(Relaxed) + sum(Delivery::bytes) <= self.bounds.buffer_bytes
            && self.matches.load(Relaxed) + sum(Delivery::matches) <= self.bounds.buffer_matches
    }

    pub fn add(&self, delivery: &Delivery) {
        self.events.fetch_add(delivery.events(), Relaxed);
        self.bytes.fetch_add(delivery.bytes(), Relaxed);
        self.matches.fetch_add(delivery.matches(), Relaxed);
        self.counters.pending_events.add(delivery.matches());
    }

    pub fn sub(&self, delivery: &Delivery) {
        self.events.fetch_sub(delivery.events(), Relaxed);
        self.bytes.fetch_sub(delivery.bytes(), Relaxed);
        self.matches.fetch_sub(delivery.matches(), Relaxed);
        self.counters.pending_events.sub(delivery.matches());
    }
}

impl Delivery {
    /// Events that it keeps alive for the session's sake; a thousand watchers of one event share it.
    fn events(&self) -> usize {
        self.matches.len().min(self.record.events.len())
    }

    fn bytes(&self) -> usize {
        self.record.bytes
    }

    fn matches(&self) -> usize {
        self.matches.len()
    }
}

/// The session's end. Dropping it takes the session out of the hub.
pub(super) struct Link {
    id: SessionId,
    control: mpsc::UnboundedSender<Control>,
    inbox: mpsc::UnboundedReceiver<ToSession>,
    reached: latest::Receiver<Revision>,
    load: Arc<Load>,
}

/// The hub has stopped.
#[derive(Debug)]
pub(super) struct Stopped;

impl Link {
    pub fn new(
        id: SessionId,
        control: mpsc::UnboundedSender<Control>,
        inbox: mpsc::UnboundedReceiver<ToSession>,
        reached: latest::Receiver<Revision>,
        load: Arc<Load>,
    ) -> Self {
        Self { id, control, inbox, reached, load }
    }

    pub fn join(&self, joins: Vec<Join>) {
        let _ = self.control.send(Control::Join(self.id, joins));
    }

    pub fn leave(&self, slot: Slot) {
        let _ = self.control.send(Control::Leave(self.id, slot));
    }

    /// The revision up to which everything is in the buffer, or was taken from it.
    pub fn reached(&self) -> Revision {
        *self.reached.borrow()
    }

    /// For waiting until the hub has moved on.
    pub fn watch_reached(&self) -> latest::Receiver<Revision> {
        self.reached.clone()
    }

    pub async fn recv(&mut self) -> Result<ToSession, Stopped> {
        let message = self.inbox.recv().await.ok_or(Stopped)?;
        Ok(self.taken(message))
    }

    pub fn try_recv(&mut self) -> Option<ToSession> {
        let message = self.inbox.try_recv().ok()?;
        Some(self.taken(message))
    }

    fn taken(&self, message: ToSession) -> ToSession {
        if let ToSession::Events(delivery) = &message {
            self.load.sub(delivery);
        }
        message
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.control.send(Control::Close(self.id));
        self.inbox.close();
        while self.try_recv().is_some() {}
    }
}
