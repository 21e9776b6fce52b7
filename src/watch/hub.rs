//! The live side: one task that receives every applied revision and delivers it to the sessions whose
//! watchers it concerns. It never waits for a session and never reads history.
//!
//! The handshake: a session that has everything of its watchers up to revision R requests to join from
//! exactly R + 1. If nothing newer was published the hub takes the watchers in. If something was,
//! the last gap is served from a short ring of recent publications, in the same step, so that
//! nothing can come between. Only when the ring or the session's buffer is too small for the gap
//! the answer is "behind", and the session reads the gap from history and requests again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

use super::counters::Counters;
use super::index::Index;
use super::link::{Delivery, Link, Load, Match, Slot, ToSession};
use super::record::Record;
use super::span::{Interest, Span};
use super::{Bounds, Publication};
use crate::env::Env;
use crate::latest;
use crate::limits;
use crate::mark;
use crate::plant;
use crate::types::Revision;

/// How the applier and the sessions reach the hub.
#[derive(Clone)]
pub struct HubHandle {
    inbox: mpsc::Sender<Applied>,
    control: mpsc::UnboundedSender<Control>,
    reached: latest::Receiver<Revision>,
    counters: Arc<Counters>,
    next_session: Arc<AtomicU64>,
    readers: Arc<Semaphore>,
    bounds: Bounds,
}

impl HubHandle {
    /// Hands over revisions that are committed and readable, in order. Waits when the hub is behind;
    /// does nothing once it has stopped.
    pub async fn publish(&self, publications: Vec<Publication>) {
        let _ = self.inbox.send(Applied::Publications(publications)).await;
    }

    /// Publishes a revision that is committed and readable without its events, which are many. All are
    /// of keys from `first` to `last`: watchers of any of these read them from history.
    pub async fn pass(&self, revision: Revision, first: Bytes, last: Bytes) {
        let _ = self.inbox.send(Applied::Passed(revision, first, last)).await;
    }

    /// Reports that the store was replaced by a newer one, whose newest revision is `current`: every
    /// watcher reads what lies between from the new history.
    pub async fn restored(&self, current: Revision) {
        let _ = self.inbox.send(Applied::Restored(current)).await;
    }

    /// Ends the hub, and with it every session.
    pub fn stop(&self) {
        let _ = self.control.send(Control::Stop);
    }

    /// Ready when the hub has ended.
    pub(super) async fn stopped(&self) {
        self.control.closed().await;
    }

    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Places for reads of history.
    pub(super) fn readers(&self) -> Arc<Semaphore> {
        self.readers.clone()
    }

    /// Connects a new session.
    pub(super) fn open(&self) -> Link {
        let id = SessionId(self.next_session.fetch_add(1, Relaxed));
        let (sender, inbox) = mpsc::unbounded_channel();
        let load = Arc::new(Load::new(self.bounds, self.counters.clone()));
        let outlet = Outlet { sender, load: load.clone(), watchers: BTreeMap::new() };
        let _ = self.control.send(Control::Open(id, outlet));
        Link::new(id, self.control.clone(), inbox, self.reached.clone(), load)
    }
}

/// Names a session, for as long as the member runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SessionId(u64);

enum Applied {
    Publications(Vec<Publication>),
    Passed(Revision, Bytes, Bytes),
    Restored(Revision),
}

/// Requests of sessions. Unbounded as a channel, bounded by use: a session has one join under way
/// at most, and leaves only what has joined.
pub(super) enum Control {
    Open(SessionId, Outlet),
    /// Take these in together, or none; answered with `Joined` or `Behind`.
    Join(SessionId, Vec<Join>),
    Leave(SessionId, Slot),
    Close(SessionId),
    Stop,
}

/// A watcher that is to go live; `interest.from` is the first revision that it does not have.
pub(super) struct Join {
    pub slot: Slot,
    pub span: Span,
    pub interest: Interest,
}

/// The hub's end of a session.
pub(super) struct Outlet {
    sender: mpsc::UnboundedSender<ToSession>,
    load: Arc<Load>,
    watchers: BTreeMap<Slot, Span>,
}

/// Starts the hub of a store whose newest revision is `current`.
pub fn start(env: &Env, current: Revision, bounds: Bounds) -> HubHandle {
    let (inbox, applied) = mpsc::channel(limits::HUB_INBOX);
    let (control, controls) = mpsc::unbounded_channel();
    let (reached_sender, reached) = latest::channel(current);
    let counters = Arc::new(Counters::default());
    let seed = env.random_u64();
    let hub = Hub {
        reached: reached_sender,
        index: Index::new(seed),
        seed,
        sessions: BTreeMap::new(),
        ring: Ring::new(bounds),
        counters: counters.clone(),
    };
    env.spawn("watch hub", hub.run(applied, controls));
    let readers = Arc::new(Semaphore::new(bounds.catchup_readers));
    HubHandle { inbox, control, reached, counters, next_session: Arc::default(), readers, bounds }
}

struct Hub {
    /// The newest revision that every session has in its buffer, or knows to have missed. Moves
    /// only after the buffers were filled, so that a session that reads R here finds R there.
    reached: latest::Sender<Revision>,
    index: Index<(SessionId, Slot)>,
    seed: u64,
    sessions: BTreeMap<SessionId, Outlet>,
    ring: Ring,
    counters: Arc<Counters>,
}

impl Hub {
    async fn run(
        mut self,
        mut applied: mpsc::Receiver<Applied>,
        mut controls: mpsc::UnboundedReceiver<Control>,
    ) {
        loop {
            tokio::select! {
                // Sessions first: a join answered early finds a small gap.
                biased;
                Some(control) = controls.recv() => {
                    if !self.control(control) {
                        return;
                    }
                }
                Some(message) = applied.recv() => self.apply(message),
                else => return,
            }
            // A flood of the one must not starve the other.
            if let Ok(message) = applied.try_recv() {
                self.apply(message);
            }
        }
    }

    fn apply(&mut self, message: Applied) {
        match message {
            Applied::Publications(publications) => {
                for publication in publications {
                    self.publish(publication);
                }
            }
            Applied::Passed(revision, first, last) => self.pass(revision, &first, &last),
            Applied::Restored(current) => self.restored(current),
        }
    }

    /// Whether the hub goes on.
    fn control(&mut self, control: Control) -> bool {
        match control {
            Control::Open(id, outlet) => drop(self.sessions.insert(id, outlet)),
            Control::Join(id, joins) => self.join(id, joins),
            Control::Leave(id, slot) => self.leave(id, slot),
            Control::Close(id) => self.close(id),
            Control::Stop => return false,
        }
        true
    }

    fn reached(&self) -> Revision {
        *self.reached.borrow()
    }

    fn publish(&mut self, publication: Publication) {
        let revision = publication.revision;
        assert!(revision > self.reached(), "revisions are published once and in order");
        if revision > self.reached().next() {
            // The store has moved on in a way that was not published as revisions.
            self.jump(Revision(revision.0 - 1));
        }
        let mut publication = publication;
        if plant::WATCH_DROPS_FROM_A_REVISION.is_planted() && publication.events.len() > 1 {
            publication.events = publication.events[..1].into();
        }
        let record = Arc::new(Record::new(publication));
        if plant::WATCH_LOST_PUBLICATION.is_planted() && revision.0 % 40 == 0 {
            self.reached.send_replace(revision);
            return;
        }
        for (id, matches) in self.wanted_by(&record) {
            self.deliver(id, Delivery { record: record.clone(), matches });
        }
        self.ring.push(record);
        self.reached.send_replace(revision);
    }

    /// The matches of `record`: for each session its watchers in order, for each watcher its
    /// events in order.
    fn wanted_by(&self, record: &Record) -> Vec<(SessionId, Vec<Match>)> {
        let mut found = Vec::new();
        for event in 0..record.events.len() {
            self.index.stab(record.key(event), |(id, slot), interest| {
                if interest.takes(record.revision, &record.events[event]) {
                    found.push((id, Match { slot, event }));
                }
            });
        }
        found.sort_unstable();
        let of_one_session = found.chunk_by(|one, other| one.0 == other.0);
        of_one_session
            .map(|group| (group[0].0, group.iter().map(|(_, matched)| *matched).collect()))
            .collect()
    }

    fn deliver(&mut self, id: SessionId, delivery: Delivery) {
        let outlet = self.sessions.get(&id).expect("a session leaves the index before it goes");
        let from = delivery.record.revision;
        if !outlet.load.has_room_for(&delivery) {
            self.lag(id, from);
        } else if !outlet.push(delivery) {
            self.close(id);
        }
    }

    /// Takes all watchers of a session out: they miss everything from revision `from` on.
    fn lag(&mut self, id: SessionId, from: Revision) {
        let Some(outlet) = self.sessions.get_mut(&id) else { return };
        let watchers = std::mem::take(&mut outlet.watchers);
        if watchers.is_empty() {
            return;
        }
        tracing::debug!(session = id.0, %from, "watch stream fell behind");
        mark::WATCH_LAGS.reached();
        self.counters.lags.add(1);
        self.counters.hub_watchers.sub(watchers.len());
        let _ = outlet.sender.send(ToSession::Lagging { from });
        for (slot, span) in watchers {
            self.index.remove(&span, (id, slot));
        }
    }

    /// A revision whose events are not here: its watchers look for themselves.
    fn pass(&mut self, revision: Revision, first: &[u8], last: &[u8]) {
        assert!(revision > self.reached(), "revisions are published once and in order");
        self.jump(Revision(revision.0 - 1));
        let meets = |outlet: &Outlet| outlet.watchers.values().any(|span| span.meets(first, last));
        let meeting = self.sessions.iter().filter(|(_, outlet)| meets(outlet));
        let ids: Vec<_> = meeting.map(|(id, _)| *id).collect();
        for id in ids {
            if !plant::WATCH_PASSES_LARGE_REVISION.is_planted() {
                self.lag(id, revision);
            }
        }
        self.ring.clear();
        self.reached.send_replace(revision);
    }

    /// The store was replaced by one whose newest revision is `current`.
    fn restored(&mut self, current: Revision) {
        if plant::INSTALL_MOVES_WATCHES_ON.is_planted() {
            self.ring.clear();
            self.reached.send_replace(current);
        }
        self.jump(current);
    }

    /// The store went to `current` without publications: every session must read history.
    fn jump(&mut self, current: Revision) {
        let reached = self.reached();
        assert!(current >= reached, "the store never goes back");
        if current == reached {
            return;
        }
        let ids: Vec<_> = self.sessions.keys().copied().collect();
        for id in ids {
            self.lag(id, reached.next());
        }
        self.ring.clear();
        self.reached.send_replace(current);
    }

    fn join(&mut self, id: SessionId, joins: Vec<Join>) {
        let reached = self.reached();
        let Some(outlet) = self.sessions.get_mut(&id) else { return };
        let Some(gap) = self.ring.gap(&joins, reached, self.seed) else {
            let _ = outlet.sender.send(ToSession::Behind { reached });
            return;
        };
        if !outlet.load.has_room_for_all(&gap) {
            let _ = outlet.sender.send(ToSession::Behind { reached });
            return;
        }
        for delivery in gap {
            outlet.push(delivery);
        }
        // After the gap: a session that sees this has the gap too, and may report progress to its client.
        let _ = outlet.sender.send(ToSession::Joined);
        self.counters.hub_watchers.add(joins.len());
        for join in joins {
            self.index.insert(&join.span, (id, join.slot), join.interest);
            outlet.watchers.insert(join.slot, join.span);
        }
    }

    fn leave(&mut self, id: SessionId, slot: Slot) {
        // It may be out already, when the session fell behind meanwhile.
        if let Some(span) = self.sessions.get_mut(&id).and_then(|it| it.watchers.remove(&slot)) {
            self.index.remove(&span, (id, slot));
            self.counters.hub_watchers.sub(1);
        }
    }

    fn close(&mut self, id: SessionId) {
        let Some(outlet) = self.sessions.remove(&id) else { return };
        self.counters.hub_watchers.sub(outlet.watchers.len());
        for (slot, span) in outlet.watchers {
            self.index.remove(&span, (id, slot));
        }
    }
}

impl Outlet {
    /// Whether the session is still there.
    fn push(&self, delivery: Delivery) -> bool {
        self.load.add(&delivery);
        let sent = self.sender.send(ToSession::Events(delivery));
        if let Err(mpsc::error::SendError(ToSession::Events(delivery))) = &sent {
            self.load.sub(delivery);
        }
        sent.is_ok()
    }
}

/// The newest publications without a hole, so that the last gap of a join needs no history.
struct Ring {
    bounds: Bounds,
    records: VecDeque<Arc<Record>>,
    bytes: usize,
}

impl Ring {
    fn new(bounds: Bounds) -> Self {
        Self { bounds, records: VecDeque::new(), bytes: 0 }
    }

    fn push(&mut self, record: Arc<Record>) {
        self.bytes += record.bytes;
        self.records.push_back(record);
        while self.records.len() > self.bounds.ring_publications
            || self.bytes > self.bounds.ring_bytes
        {
            let Some(oldest) = self.records.pop_front() else { return };
            self.bytes -= oldest.bytes;
        }
    }

    fn clear(&mut self) {
        self.records.clear();
        self.bytes = 0;
    }

    /// The events for `joins` in the revisions up to `reached`; `None` when some of them are not in the ring.
    fn gap(&self, joins: &[Join], reached: Revision, seed: u64) -> Option<Vec<Delivery>> {
        let lowest = joins.iter().map(|join| join.interest.from).min()?;
        if lowest > reached {
            return Some(Vec::new());
        }
        let oldest = self.records.front()?.revision;
        let skipped = usize::try_from(lowest.0 - oldest.0).ok()?;
        let mut index = Index::new(seed);
        for join in joins {
            index.insert(&join.span, join.slot, join.interest);
        }
        let gap = self.records.range(skipped..).map(|record| {
            let mut matches = Vec::new();
            for event in 0..record.events.len() {
                index.stab(record.key(event), |slot, interest| {
                    if interest.takes(record.revision, &record.events[event]) {
                        matches.push(Match { slot, event });
                    }
                });
            }
            matches.sort_unstable();
            Delivery { record: record.clone(), matches }
        });
        Some(gap.filter(|delivery| !delivery.matches.is_empty()).collect())
    }
}
