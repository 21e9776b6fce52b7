//! Reading history in order: the events between two revisions, as watchers that catch up need them.

use bytes::Bytes;
use quorate_proto::mvccpb::{Event, KeyValue, event::EventType};

use super::keys::{Rev, RevKey};
use super::reader::Reader;
use super::record::KvRef;
use super::{Halt, Outcome, View, settle};
use crate::engine::Cf;
use crate::error::{Fatal, Refused};
use crate::types::Revision;

/// A stretch of history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Events {
    /// In order of revision and, within one, of the changes.
    pub events: Vec<Event>,
    /// The first main revision that was not looked at.
    pub next: Revision,
}

/// How much is read at once.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    /// Changes that are looked at.
    pub changes: usize,
    /// Keys and values of those that are wanted.
    pub bytes: usize,
}

impl View {
    /// The events of the main revisions `from..=to` (not above the present) whose key `wanted`
    /// accepts. Stops early, between two revisions, where there are more than `most`. With `prev_kv`, each
    /// event carries the state before its revision, unless that is compacted.
    ///
    /// Refused when `from` is below the compaction: at it is still whole.
    pub fn events(
        &self,
        from: Revision,
        to: Revision,
        most: Most,
        prev_kv: bool,
        wanted: &dyn Fn(&[u8]) -> bool,
    ) -> Outcome<Events> {
        settle(events(self.reader(), from.0, to.0, most, prev_kv, wanted))
    }
}

fn events(
    reader: Reader<'_>,
    from: i64,
    to: i64,
    most: Most,
    prev_kv: bool,
    wanted: &dyn Fn(&[u8]) -> bool,
) -> Result<Events, Halt> {
    if from < reader.compacted {
        return Err(Refused::Compacted.into());
    }
    let to = to.min(reader.revision);
    let mut found = Events { events: Vec::new(), next: Revision(from.max(to + 1)) };
    let upper = RevKey::new(Rev::first(to + 1), false);
    let mut cursor = reader.cursor(Cf::Key, Some(upper.as_bytes()));
    cursor.seek(RevKey::new(Rev::first(from.max(0)), false).as_bytes())?;
    let (mut seen, mut bytes, mut current) = (0, 0, 0);
    while let Some((key, record)) = cursor.entry()? {
        let (rev, tombstone) = RevKey::parse(key)?;
        if (seen >= most.changes || bytes >= most.bytes) && rev.main != current {
            found.next = Revision(rev.main);
            break;
        }
        seen += 1;
        current = rev.main;
        let kv = KvRef::parse(record)?;
        // A change of no key, which a restored backup may begin with, is no event.
        if !record.is_empty() && wanted(kv.key) {
            let event = event(reader, rev, tombstone, kv, prev_kv)?;
            let states = event.kv.iter().chain(&event.prev_kv);
            bytes += states.map(|kv| kv.key.len() + kv.value.len()).sum::<usize>();
            found.events.push(event);
        }
        cursor.next()?;
    }
    Ok(found)
}

fn event(
    reader: Reader<'_>,
    rev: Rev,
    tombstone: bool,
    kv: KvRef<'_>,
    prev_kv: bool,
) -> Result<Event, Fatal> {
    let created = !tombstone && kv.create == rev.main;
    // What the key was before a revision at the compaction is gone.
    let known = rev.main > reader.compacted;
    let prev_kv =
        if prev_kv && !created && known { reader.at(kv.key, rev.main - 1)? } else { None };
    let (kind, kv) = if tombstone {
        let key = Bytes::copy_from_slice(kv.key);
        (EventType::Delete, KeyValue { key, mod_revision: rev.main, ..KeyValue::default() })
    } else {
        (EventType::Put, kv.to_kv())
    };
    Ok(Event { r#type: kind as i32, kv: Some(kv), prev_kv })
}
