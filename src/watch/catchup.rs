//! How watchers that are not live read history: one bounded read at a time, shared by all watchers
//! of the session that are near each other, in turns so that none waits for ever. Sessions that read at
//! the same time are few: each holds a page, and a revision that is larger is in it as a whole.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::history::{HistoryRange, Page, ReadError};
use super::index::Index;
use super::link::{Slot, Stopped};
use super::record::{Record, Response, key_of};
use super::session::Session;
use super::watchers::State;
use crate::env::Work;
use crate::plant;
use crate::types::Revision;

/// What a read was for.
pub(super) struct Step {
    from: Revision,
    slots: Vec<Slot>,
    wanted: Arc<Index<Slot>>,
}

pub(super) type StepResult = (Step, Result<Page, ReadError>);

/// A read and what it found, until that is taken. A task of its own reads: a stream whose client takes
/// nothing may not be polled for long, and others wait for the end of its read.
#[derive(Default)]
pub(super) enum Reading {
    #[default]
    None,
    Running(oneshot::Receiver<StepResult>),
    Done(StepResult),
}

impl Reading {
    /// What was found, if it is `wanted` now; never when there is nothing.
    pub async fn finish(&mut self, wanted: bool) -> StepResult {
        if let Self::Running(step) = self {
            *self = Self::Done(step.await.expect("a read has an end"));
        }
        match std::mem::take(self) {
            Self::Done(result) if wanted => result,
            other => {
                *self = other;
                std::future::pending().await
            }
        }
    }
}

impl Session {
    /// Starts a read for the next watcher and all others that need the same revisions, unless a read is
    /// under way or the result of the last one is still to be sent.
    pub(super) fn start_step(&mut self) {
        if !matches!(self.reading, Reading::None) || !self.outbox.is_empty() {
            return;
        }
        let Some(&first) = self.behind.front() else { return };
        let from = self.watchers.get(first).expect("watchers behind are there").next;
        let end = Revision(from.0.saturating_add(self.bounds.catchup_revisions as i64));
        let watchers = &self.watchers;
        let near = |slot: &Slot| {
            let next = watchers.get(*slot).expect("watchers behind are there").next;
            from <= next && next < end
        };
        let (slots, others): (Vec<_>, Vec<_>) = self.behind.drain(..).partition(near);
        self.behind.extend(others);

        let mut index = Index::new(self.seed);
        let mut prev_kv = false;
        for &slot in &slots {
            let watcher = self.watchers.get(slot).expect("watchers behind are there");
            index.insert(&watcher.span, slot, watcher.interest());
            prev_kv |= watcher.prev_kv;
        }
        let wanted = Arc::new(index);
        let filter = wanted.clone();
        let ask = HistoryRange {
            from,
            wanted: Arc::new(move |key| filter.contains(key)),
            prev_kv,
            revisions_max: self.bounds.catchup_revisions,
            bytes_max: self.bounds.catchup_bytes,
        };
        let (env, history, readers) =
            (self.env.clone(), self.history.clone(), self.readers.clone());
        let (mut found, reading) = oneshot::channel();
        let read = async move {
            let turn = tokio::select! {
                biased; // A stream that is gone takes no turn.
                () = found.closed() => return,
                turn = readers.acquire() => turn.expect("it is never closed"),
            };
            let read = move || history.read(&ask);
            let page = env.blocking_for(Work::Reads, "watch catch-up", read).await;
            drop(turn);
            // The stream may be gone.
            let _ = found.send((Step { from, slots, wanted }, page));
        };
        self.env.spawn("watch catch-up", read);
        self.reading = Reading::Running(reading);
    }

    pub(super) fn step_finished(&mut self, (step, result): StepResult) -> Result<(), Stopped> {
        match result {
            Ok(page) => self.take_page(&step, page),
            Err(ReadError::Compacted(compacted)) => self.cancel_compacted(&step, compacted),
            Err(ReadError::Failed(fatal)) => {
                tracing::error!(error = %fatal, "watch history cannot be read");
                return Err(Stopped);
            }
        }
        Ok(())
    }

    /// Gives the events to the watchers that take them, and moves all cursors past the page.
    fn take_page(&mut self, step: &Step, page: Page) {
        assert!(page.next > step.from || step.from > page.head, "a read of history gets on");
        let cursor = Revision(page.next.0 - 1);
        for publication in page.publications {
            let record = Record::new(publication);
            assert!(record.revision < page.next, "a page holds what it says it covers");
            for (number, event) in record.events.iter().enumerate() {
                step.wanted.stab(key_of(event), |slot, interest| {
                    if !interest.takes(record.revision, event) {
                        return;
                    }
                    // It may have been cancelled while its history was read.
                    if let Some(watcher) = self.watchers.get_mut(slot) {
                        let event = record.encoded(number, watcher.prev_kv);
                        self.outbox.push_event(watcher, record.revision, cursor, event);
                    }
                });
            }
        }
        for &slot in &step.slots {
            let Some(watcher) = self.watchers.get_mut(slot) else { continue };
            watcher.next = watcher.next.max(page.next);
            if watcher.next > page.head {
                self.watchers.set_state(slot, State::Ready);
                self.ready.push(slot);
            } else {
                self.behind.push_back(slot);
            }
        }
    }

    /// History that these watchers still needed is compacted: they are cancelled, and do not skip it.
    fn cancel_compacted(&mut self, step: &Step, compacted: Revision) {
        for &slot in &step.slots {
            let Some(watcher) = self.watchers.get(slot) else { continue };
            if watcher.next >= compacted {
                self.behind.push_back(slot);
                continue;
            }
            if plant::COMPACTED_WATCH_GOES_ON.is_planted() {
                self.fall_behind(vec![slot], compacted);
                continue;
            }
            let response = Response {
                watch_id: watcher.id,
                canceled: true,
                compact_revision: compacted.0,
                ..Response::default()
            };
            self.watchers.remove(slot);
            // etcd sends no store revision here.
            self.outbox.push(Revision(0), response);
        }
    }
}
