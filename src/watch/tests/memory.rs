//! A store in memory: every revision ever, and how far it was compacted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use quorate_proto::mvccpb::{Event, KeyValue, event::EventType};

use crate::types::Revision;
use crate::watch::record::key_of;
use crate::watch::{History, HistoryRange, Page, Publication, ReadError};

/// Revision 1 is the empty store.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    keys: BTreeMap<String, KeyValue>,
    /// The publication of revision 2 comes first.
    log: Vec<Publication>,
    compacted: i64,
}

/// One change; `None` deletes.
pub type Change = (String, Option<String>);

impl Memory {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test goes on after a panic")
    }

    /// Makes one revision of the changes; nothing when none has an effect.
    pub fn write(&self, changes: &[Change]) -> Option<Publication> {
        let mut state = self.lock();
        let revision = state.log.len() as i64 + 2;
        let events: Vec<Event> =
            changes.iter().filter_map(|change| state.change(revision, change)).collect();
        if events.is_empty() {
            return None;
        }
        let publication = Publication { revision: Revision(revision), events: events.into() };
        state.log.push(publication.clone());
        Some(publication)
    }

    pub fn compact(&self, revision: i64) {
        let mut state = self.lock();
        state.compacted = state.compacted.max(revision);
    }

    pub fn compacted(&self) -> i64 {
        self.lock().compacted
    }

    /// What happened at revisions `from..=to`, whether compacted or not.
    pub fn log(&self, from: i64, to: i64) -> Vec<Publication> {
        let log = &self.lock().log;
        log.iter().filter(|it| (from..=to).contains(&it.revision.0)).cloned().collect()
    }
}

impl State {
    fn change(&mut self, revision: i64, (key, value): &Change) -> Option<Event> {
        let prev_kv = self.keys.get(key).cloned();
        let kv = match value {
            Some(value) => {
                let (created, version) =
                    prev_kv.as_ref().map_or((revision, 0), |kv| (kv.create_revision, kv.version));
                let kv = KeyValue {
                    key: key.clone().into(),
                    value: value.clone().into(),
                    create_revision: created,
                    mod_revision: revision,
                    version: version + 1,
                    lease: 0,
                };
                self.keys.insert(key.clone(), kv.clone());
                kv
            }
            None => {
                self.keys.remove(key)?;
                KeyValue { key: key.clone().into(), mod_revision: revision, ..<_>::default() }
            }
        };
        let kind = if value.is_some() { EventType::Put } else { EventType::Delete };
        Some(Event { r#type: kind as i32, kv: Some(kv), prev_kv })
    }
}

impl History for Memory {
    fn current(&self) -> Revision {
        Revision(self.lock().log.len() as i64 + 1)
    }

    fn read(&self, ask: &HistoryRange) -> Result<Page, ReadError> {
        let state = self.lock();
        let head = Revision(state.log.len() as i64 + 1);
        if ask.from.0 < state.compacted {
            return Err(ReadError::Compacted(Revision(state.compacted)));
        }
        let mut page = Page { publications: Vec::new(), next: ask.from, head };
        let mut bytes = 0;
        let mut unread = state.log.iter().filter(|it| it.revision >= ask.from);
        for _ in 0..ask.revisions_max {
            if bytes >= ask.bytes_max {
                break;
            }
            let Some(publication) = unread.next() else {
                page.next = page.next.max(head.next());
                break;
            };
            page.next = publication.revision.next();
            let wanted = publication.events.iter().filter(|event| (ask.wanted)(key_of(event)));
            let events: Vec<Event> = wanted
                .map(|event| Event {
                    prev_kv: event.prev_kv.clone().filter(|_| ask.prev_kv),
                    ..event.clone()
                })
                .collect();
            if !events.is_empty() {
                bytes += events.len();
                page.publications
                    .push(Publication { revision: publication.revision, events: events.into() });
            }
        }
        Ok(page)
    }
}
