//! The key space as the past that watchers read.

use std::sync::Arc;

use quorate_proto::mvccpb::Event;

use super::Publication;
use super::history::{Ask, History, Page, ReadError};
use crate::mvcc::Store;
use crate::types::Revision;

impl History for Store {
    fn current(&self) -> Revision {
        self.revision()
    }

    fn read(&self, ask: &Ask) -> Result<Page, ReadError> {
        let view = self.view();
        let (from, head) = (ask.from, view.revision());
        let wanted = |key: &[u8]| (ask.wanted)(key);
        let found = view.events(from, head, ask.revisions_max, ask.prev_kv, &wanted)?;
        let Ok(found) = found else {
            return Err(ReadError::Compacted(view.compact_revision()));
        };
        Ok(Page { publications: by_revision(found.events), next: found.next, head })
    }
}

/// Ordered events, those of one revision together.
fn by_revision(events: Vec<Event>) -> Vec<Publication> {
    let revision = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
    let together = events.chunk_by(|a, b| revision(a) == revision(b));
    let publication = |events: &[Event]| Publication {
        revision: Revision(revision(&events[0])),
        events: Arc::from(events),
    };
    together.map(publication).collect()
}
