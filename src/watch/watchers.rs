//! The watchers of one session: their names, and how far each of them is. No I/O, no decisions about
//! when anything happens.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::counters::Counters;
use super::link::Slot;
use super::span::{Interest, Span};
use crate::plant;
use crate::trace;
use crate::types::Revision;

/// One watcher of a client.
pub(super) struct Watcher {
    /// The client's name for it.
    pub id: i64,
    pub span: Span,
    pub no_put: bool,
    pub no_delete: bool,
    pub prev_kv: bool,
    /// Whether responses may be split when they are too large for one message.
    pub fragment: bool,
    pub progress_notify: bool,
    /// No event was sent since the last tick.
    pub quiet: bool,
    /// As requested; 0 for "from now on".
    pub start: Revision,
    /// The cursor: the first revision whose events were not put into the outbox. While the watcher
    /// is live it may be further than this: as far as the session has settled.
    pub next: Revision,
    pub state: State,
    /// The number of the response in the outbox that can take more events of it.
    pub open_response: u64,
    /// In a trace, if the stream is traced; it ends with the watcher.
    pub _trace: Option<trace::Span>,
}

/// New, slow and resumed watchers all go the same way, top to bottom, and may start again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Has to read history.
    Behind,
    /// Has everything there was; waits for the session's next join.
    Ready,
    /// Part of the join under way.
    Joining,
    /// Gets every event from the hub.
    Live,
}

impl Watcher {
    pub fn interest(&self) -> Interest {
        let again = i64::from(plant::WATCH_TELLS_TWICE.is_planted());
        let filters = !plant::WATCH_FILTER_IGNORED.is_planted();
        Interest {
            from: Revision(self.next.0 - again),
            no_put: self.no_put && filters,
            no_delete: self.no_delete && filters,
        }
    }

    /// The revision up to which progress may have been reported to its client. It can be above what the hub
    /// has reached: history is read up to what is committed, and committed comes before published.
    pub fn reported(&self) -> Revision {
        // Revisions before a start in the future were never sent.
        if self.start < self.next { Revision(self.next.0 - 1) } else { Revision(0) }
    }
}

/// All watchers of a session, by name and by slot.
pub(super) struct Watchers {
    by_slot: BTreeMap<Slot, Watcher>,
    by_id: BTreeMap<i64, Slot>,
    next_id: i64,
    next_slot: u64,
    live: usize,
    counters: Arc<Counters>,
}

impl Watchers {
    pub fn new(counters: Arc<Counters>) -> Self {
        let (by_slot, by_id) = Default::default();
        Self { by_slot, by_id, next_id: 0, next_slot: 0, live: 0, counters }
    }

    pub fn len(&self) -> usize {
        self.by_slot.len()
    }

    /// Whether none has to catch up.
    pub fn all_live(&self) -> bool {
        self.live == self.len()
    }

    /// The id for a new watcher: the requested one unless it is taken, or with 0 the next free one,
    /// counting from 0.
    pub fn free_id(&mut self, asked: i64) -> Option<i64> {
        if asked != 0 && plant::WATCH_ID_NOT_COUNTED.is_planted() {
            return Some(self.next_id);
        }
        if asked != 0 {
            return (!self.by_id.contains_key(&asked)).then_some(asked);
        }
        while self.by_id.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Some(self.next_id - 1)
    }

    /// Adds a watcher, not live, under an id that is free.
    pub fn insert(&mut self, watcher: Watcher) -> Slot {
        assert_ne!(watcher.state, State::Live, "only the hub makes a watcher live");
        let slot = Slot(self.next_slot);
        self.next_slot += 1;
        let taken = self.by_id.insert(watcher.id, slot);
        assert!(taken.is_none(), "watch ids are unique in a stream");
        self.by_slot.insert(slot, watcher);
        self.counters.watchers.add(1);
        self.counters.slow_watchers.add(1);
        slot
    }

    pub fn remove(&mut self, slot: Slot) -> Option<Watcher> {
        self.set_state(slot, State::Behind);
        let watcher = self.by_slot.remove(&slot)?;
        self.by_id.remove(&watcher.id);
        self.counters.watchers.sub(1);
        self.counters.slow_watchers.sub(1);
        Some(watcher)
    }

    pub fn slot(&self, id: i64) -> Option<Slot> {
        self.by_id.get(&id).copied()
    }

    pub fn get(&self, slot: Slot) -> Option<&Watcher> {
        self.by_slot.get(&slot)
    }

    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Watcher> {
        self.by_slot.get_mut(&slot)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Watcher> {
        self.by_slot.values_mut()
    }

    /// Slots whose watcher is in `state`, in order.
    pub fn in_state(&self, state: State) -> impl Iterator<Item = Slot> {
        self.by_slot.iter().filter(move |(_, it)| it.state == state).map(|(slot, _)| *slot)
    }

    /// Moves a watcher on or back; nothing when it is gone.
    pub fn set_state(&mut self, slot: Slot, state: State) {
        let Some(watcher) = self.by_slot.get_mut(&slot) else { return };
        match (watcher.state == State::Live, state == State::Live) {
            (false, true) => {
                self.live += 1;
                self.counters.slow_watchers.sub(1);
            }
            (true, false) => {
                self.live -= 1;
                self.counters.slow_watchers.add(1);
            }
            _ => {}
        }
        watcher.state = state;
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.counters.watchers.sub(self.len());
        self.counters.slow_watchers.sub(self.len() - self.live);
    }
}
