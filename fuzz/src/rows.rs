//! States from elsewhere: any rows are installed or refused, and what was installed works.

use std::path::Path;

use arbitrary::Arbitrary;
use bytes::Bytes;
use prost::Message;
use quorate::apply::StateMachine;
use quorate::engine::{Cf, Engine, Options, Place};
use quorate::mvcc::Store;
use quorate::types::{Index, Term};
use quorate_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};
use quorate_proto::leasepb::Lease;
use quorate_proto::mvccpb::KeyValue;

use crate::{noises, structured};

#[derive(Arbitrary, Debug)]
enum Row {
    Put {
        main: Number,
        sub: u8,
        key: u8,
        create: Number,
        modified: Number,
        version: Number,
        lease: u8,
    },
    /// As a member writes it: only main and key are free.
    Next {
        key: u8,
    },
    Delete {
        main: Number,
        sub: u8,
        key: u8,
    },
    Meta(Name, Number),
    Revision(Name, Number),
    Lease {
        id: u8,
        ttl: Number,
        left: Number,
    },
    Raw(u8, Vec<u8>, Vec<u8>),
}

/// Numbers that are likely to matter.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Number {
    Small(u8),
    Top(u8),
    Half(i8),
    Any(i64),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Name {
    Scheduled,
    Finished,
    Index,
    Term,
}

impl Number {
    fn get(self) -> i64 {
        match self {
            Self::Small(n) => n.into(),
            Self::Top(n) => i64::MAX - i64::from(n),
            Self::Half(n) => i64::MAX / 2 + i64::from(n),
            Self::Any(n) => n,
        }
    }
}

impl Name {
    fn get(self) -> &'static [u8] {
        match self {
            Self::Scheduled => b"scheduledCompactRev",
            Self::Finished => b"finishedCompactRev",
            Self::Index => b"consistent_index",
            Self::Term => b"term",
        }
    }
}

fn revision(main: i64, sub: i64, tombstone: bool) -> Bytes {
    let mark: &[u8] = if tombstone { b"t" } else { b"" };
    [&main.to_be_bytes()[..], b"_", &sub.to_be_bytes(), mark].concat().into()
}

fn pair(row: Row, last: &mut i64) -> (Cf, Bytes, Bytes) {
    let key_of = |key: u8| Bytes::from(vec![b'a' + key % 3]);
    match row {
        Row::Put { main, sub, key, create, modified, version, lease } => {
            let kv = KeyValue {
                key: key_of(key),
                create_revision: create.get(),
                mod_revision: modified.get(),
                version: version.get(),
                value: Bytes::from_static(b"v"),
                lease: lease.into(),
            };
            *last = main.get();
            (Cf::Key, revision(main.get(), sub.into(), false), kv.encode_to_vec().into())
        }
        Row::Next { key } => {
            *last = last.saturating_add(1);
            let kv = KeyValue {
                key: key_of(key),
                create_revision: *last,
                mod_revision: *last,
                version: 1,
                ..KeyValue::default()
            };
            (Cf::Key, revision(*last, 0, false), kv.encode_to_vec().into())
        }
        Row::Delete { main, sub, key } => {
            let kv = KeyValue { key: key_of(key), ..KeyValue::default() };
            *last = main.get();
            (Cf::Key, revision(main.get(), sub.into(), true), kv.encode_to_vec().into())
        }
        Row::Meta(name, number) => (
            Cf::Meta,
            Bytes::from_static(name.get()),
            Bytes::copy_from_slice(&number.get().to_be_bytes()),
        ),
        Row::Revision(name, number) => {
            (Cf::Meta, Bytes::from_static(name.get()), revision(number.get(), 0, false))
        }
        Row::Lease { id, ttl, left } => {
            let id = i64::from(id);
            let lease = Lease { id, ttl: ttl.get(), remaining_ttl: left.get() };
            let key = Bytes::copy_from_slice(&id.to_be_bytes());
            (Cf::Lease, key, lease.encode_to_vec().into())
        }
        Row::Raw(cf, key, value) => {
            (Cf::BUCKETS[usize::from(cf) % Cf::BUCKETS.len()], key.into(), value.into())
        }
    }
}

pub fn run(input: &[u8]) {
    let Some(rows) = structured::<Vec<Row>>(input) else { return };
    let mut last = 1;
    let rows = rows.into_iter().take(96).map(|row| Ok::<_, String>(pair(row, &mut last)));
    let store = open(&Place::mem_env().expect("an environment in memory"));
    if store.install(rows.collect::<Vec<_>>().into_iter()).is_ok() {
        work(&store);
    }
}

fn open(place: &Place) -> Store {
    let engine = Engine::open(Path::new("/db"), &Options::in_memory(place.clone()));
    Store::open(engine.expect("opens")).expect("loads")
}

/// Another member that takes the state in has the same one, also after a crash.
fn copy(store: &Store) {
    // Of `meta`, compactions that are still to be done are done on the way in.
    let rows = |store: &Store| -> Vec<_> {
        let rows = store.view().export().map(|row| row.expect("works"));
        rows.filter(|(cf, ..)| *cf != Cf::Meta).collect()
    };
    let place = Place::mem_env().expect("an environment in memory");
    let other = open(&place);
    other.install(store.view().export()).expect("it was taken in here");
    assert_eq!(rows(&other), rows(store));
    drop(other);
    let other = open(&place);
    assert_eq!(rows(&other), rows(store), "after a crash");
    let hash = |store: &Store| store.view().hash_kv(0).expect("works").expect("at the present");
    assert_eq!(hash(&other), hash(store));
}

/// What a member does with a state that it took in; another part may still refuse its rows.
fn work(store: &Store) {
    if StateMachine::load(store).is_err() {
        return;
    }
    let view = store.view();
    let all = RangeRequest { key: b"\0"[..].into(), range_end: b"\0"[..].into(), ..<_>::default() };
    let before = view.range(&all).expect("the state is sound").expect("at the present");
    assert_eq!(before.count, before.kvs.len() as i64);
    view.hash_kv(0).expect("the state is sound").expect("at the present");
    let mut write = store.begin();
    write.start_entry(Index(write.applied().0 + 1), Term(view.term().0 + 1));
    for key in ["a", "b", "x"] {
        let put = PutRequest { key: key.into(), value: "w".into(), ..PutRequest::default() };
        write.put(&put).expect("works").expect("is valid");
    }
    let delete = DeleteRangeRequest { key: "a".into(), range_end: "b".into(), prev_kv: true };
    write.delete_range(&delete).expect("works").expect("is valid");
    let revision = write.revision().0;
    let compacted = write.compact(revision - 1).expect("works");
    write.commit().expect("commits");
    while !store.compact_step(3).expect("works").finished {}
    let after = store.view().range(&all).expect("works").expect("at the present");
    assert_eq!(after.count, after.kvs.len() as i64);
    assert!(compacted.is_ok(), "a revision before the present one");
    store.view().hash_kv(0).expect("works").expect("at the present");
    copy(store);
}

pub fn seeds() -> Vec<Vec<u8>> {
    noises()
}
