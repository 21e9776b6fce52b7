//! The store as the history that sessions read.

use quorate_proto::mvccpb::Event;

use super::Publication;
use super::history::{History, HistoryRange, Page, ReadError};
use crate::error::{Fatal, Refused};
use crate::mvcc::{Most, Store, View};
use crate::plant;
use crate::types::Revision;

impl History for Store {
    fn current(&self) -> Revision {
        self.revision()
    }

    fn read(&self, ask: &HistoryRange) -> Result<Page, ReadError> {
        let view = self.view();
        let head = view.revision();
        let late = i64::from(plant::WATCH_RESUMES_LATE.is_planted() && ask.from.0 > 1);
        let from = Revision(ask.from.0 + late);
        let mut page = Page { publications: Vec::new(), next: from, head };
        let to = Revision(ask.from.0.saturating_add(ask.revisions_max as i64 - 1)).min(head);
        if page.next > to {
            return Ok(page);
        }
        let most = Most { changes: usize::MAX, bytes: ask.bytes_max };
        let events = match view.events(page.next, to, most, ask.prev_kv, &*ask.wanted)? {
            Ok(events) => events,
            Err(refused) => return Err(failure(refused, &view)),
        };
        for of_one in events.events.chunk_by(|one, other| revision(one) == revision(other)) {
            let revision = revision(&of_one[0]);
            page.publications.push(Publication { revision, events: of_one.into() });
        }
        assert!(events.next > page.next, "a read of history gets on");
        page.next = events.next;
        Ok(page)
    }
}

fn revision(event: &Event) -> Revision {
    Revision(event.kv.as_ref().map_or(0, |kv| kv.mod_revision))
}

fn failure(refused: Refused, view: &View) -> ReadError {
    match refused {
        Refused::Compacted => ReadError::Compacted(view.compact_revision()),
        other => ReadError::Failed(Fatal::new("reading watch history", other)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quorate_proto::etcdserverpb::PutRequest;

    use super::*;
    use crate::engine::{Engine, Options};
    use crate::types::{Index, Term};

    fn put(store: &Store, key: &str, value: &str) {
        let mut write = store.begin();
        write.start_entry(store.applied().next(), Term(1));
        let request = PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..<_>::default()
        };
        write.put(&request).expect("the engine works").expect("a valid put");
        write.commit().expect("the engine works");
    }

    fn ask(from: i64) -> HistoryRange {
        HistoryRange {
            from: Revision(from),
            wanted: Arc::new(|key| key == b"a"),
            prev_kv: true,
            revisions_max: 1_000,
            bytes_max: 1 << 20,
        }
    }

    fn read(store: &Store, ask: &HistoryRange) -> (Vec<i64>, i64) {
        let page = store.read(ask).expect("not compacted");
        assert_eq!(page.head, store.revision());
        (page.publications.iter().map(|it| it.revision.0).collect(), page.next.0)
    }

    #[test]
    fn reads_pages_of_whole_revisions() {
        let dir = tempfile::tempdir().expect("a folder");
        let engine = Engine::open(dir.path(), &Options::default()).expect("a new engine");
        let store = Store::open(engine).expect("a new store");
        for number in 0..200 {
            put(&store, if number % 2 == 0 { "a" } else { "b" }, "value");
        }
        assert_eq!(store.current(), Revision(201));
        let all: Vec<i64> = (2..=200).step_by(2).collect();
        assert_eq!(read(&store, &ask(1)), (all, 202));
        assert_eq!(read(&store, &ask(201)), (vec![], 202));
        assert_eq!(read(&store, &ask(300)), (vec![], 300));
        assert_eq!(read(&store, &HistoryRange { revisions_max: 3, ..ask(4) }), (vec![4, 6], 7));
        // Key and value have six bytes, and as many before.
        assert_eq!(read(&store, &HistoryRange { bytes_max: 1, ..ask(2) }), (vec![2], 3));
        assert_eq!(read(&store, &HistoryRange { bytes_max: 7, ..ask(2) }), (vec![2, 4], 5));

        let page = store.read(&ask(4)).expect("not compacted");
        let event = &page.publications[0].events[0];
        assert_eq!(event.prev_kv.as_ref().map(|kv| kv.mod_revision), Some(2));

        let mut write = store.begin();
        write.start_entry(Index(900), Term(1));
        write.compact(100).expect("the engine works").expect("a valid compaction");
        write.commit().expect("the engine works");
        assert!(matches!(store.read(&ask(99)), Err(ReadError::Compacted(Revision(100)))));
        assert_eq!(read(&store, &HistoryRange { revisions_max: 1, ..ask(100) }), (vec![100], 101));
    }
}
