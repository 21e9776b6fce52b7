//! The key space at every revision at once: of each key all states it ever had, so that the past costs
//! no more than the present. Knows nothing of requests.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_proto::mvccpb::{Event, KeyValue, event::EventType};

use crate::facts::history::Log;

/// Nothing of it changes once a revision is in.
#[derive(Default)]
pub struct Space {
    /// Of each key, by revision, what it was from then on; nothing where it was deleted.
    keys: BTreeMap<Bytes, Vec<(i64, Option<KeyValue>)>>,
    /// The newest revision.
    pub last: i64,
}

impl Space {
    /// From a log, with what does not fit in it: the versions in each event must follow from the
    /// events before it.
    pub fn replay(log: &Log) -> (Self, Vec<String>) {
        let mut space = Self { keys: BTreeMap::new(), last: 1 };
        let mut faults = Vec::new();
        for (revision, events) in log {
            if *revision != space.last + 1 {
                faults.push(format!("the log goes from revision {} to {revision}", space.last));
            }
            for event in events {
                if let Err(fault) = space.add(*revision, event) {
                    faults.push(fault);
                }
            }
            space.last = *revision;
        }
        (space, faults)
    }

    fn add(&mut self, revision: i64, event: &Event) -> Result<(), String> {
        let kv = event.kv.as_ref().ok_or_else(|| format!("revision {revision} has no key"))?;
        let before = self.at(&kv.key, revision).map(|kv| (kv.create_revision, kv.version));
        let put = event.r#type() == EventType::Put;
        let states = self.keys.entry(kv.key.clone()).or_default();
        states.push((revision, put.then(|| kv.clone())));
        if kv.mod_revision != revision {
            return Err(format!("an event of revision {revision} has {}", kv.mod_revision));
        }
        match before {
            None if !put => Err(format!("revision {revision} deletes {:?}, not there", kv.key)),
            _ if !put => Ok(()),
            before => {
                let (created, version) = before.map_or((revision, 1), |(at, n)| (at, n + 1));
                if (kv.create_revision, kv.version) == (created, version) {
                    return Ok(());
                }
                Err(format!("revision {revision}: {kv:?} should be {created}/{version}"))
            }
        }
    }

    /// A key as it was after a revision.
    pub fn at(&self, key: &[u8], revision: i64) -> Option<&KeyValue> {
        newest(self.keys.get(key)?, revision)
    }

    /// The keys of a range, in etcd's convention, as they were after a revision.
    pub fn select<'s, 'k>(
        &'s self,
        key: &'k [u8],
        end: &'k [u8],
        revision: i64,
    ) -> impl Iterator<Item = &'s KeyValue> + use<'s, 'k> {
        let single = if end.is_empty() { self.at(key, revision) } else { None };
        let from = if end.is_empty() { None } else { Some(Bytes::copy_from_slice(key)) };
        let several = from.into_iter().flat_map(move |from| {
            let several = self.keys.range(from..).take_while(|(key, _)| inside(key, &[], end));
            several.filter_map(move |(_, states)| newest(states, revision))
        });
        single.into_iter().chain(several)
    }

    /// The keys that hang on a lease after a revision, in their order.
    pub fn attached(&self, lease: i64, revision: i64) -> Vec<&KeyValue> {
        let all = self.keys.values().filter_map(|states| newest(states, revision));
        all.filter(|kv| kv.lease == lease).collect()
    }

    /// All states that all keys ever had, with the revision at which they came.
    pub fn states(&self) -> impl Iterator<Item = (&Bytes, i64, Option<&KeyValue>)> {
        self.keys.iter().flat_map(|(key, states)| {
            states.iter().map(move |(revision, kv)| (key, *revision, kv.as_ref()))
        })
    }
}

fn newest(states: &[(i64, Option<KeyValue>)], revision: i64) -> Option<&KeyValue> {
    let after = states.partition_point(|(at, _)| *at <= revision);
    states[..after].last()?.1.as_ref()
}

/// Whether a key is in a range, in etcd's convention: one key, up to an end, or from a key on.
pub fn inside(key: &[u8], from: &[u8], end: &[u8]) -> bool {
    match end {
        [] => key == from,
        [0] => key >= from,
        _ => key >= from && key < end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(key: &'static str, at: i64, created: i64, version: i64) -> Event {
        let kv = KeyValue {
            key: key.into(),
            mod_revision: at,
            create_revision: created,
            version,
            ..Default::default()
        };
        Event { r#type: i32::from(version == 0), kv: Some(kv), prev_kv: None }
    }

    #[test]
    fn every_revision_can_be_read() {
        let log = Log::from([
            (2, vec![event("a", 2, 2, 1), event("b", 2, 2, 1)]),
            (3, vec![event("a", 3, 2, 2)]),
            (4, vec![event("a", 4, 0, 0)]),
            (5, vec![event("a", 5, 5, 1)]),
        ]);
        let (space, faults) = Space::replay(&log);
        assert_eq!(faults, Vec::<String>::new());
        let count = |end: &[u8], revision| space.select(b"a", end, revision).count();
        assert_eq!([1, 2, 3, 4, 5].map(|at| count(b"z", at)), [0, 2, 2, 1, 2]);
        assert_eq!([count(b"", 3), count(b"", 4), count(b"\0", 5), count(b"a", 5)], [1, 0, 2, 0]);
        assert_eq!(space.at(b"a", 3).map(|kv| kv.version), Some(2));
    }

    #[test]
    fn gaps_and_wrong_versions_in_a_log_are_violations() {
        let said = |events: &[(i64, Event)]| {
            let log = events.iter().map(|(at, event)| (*at, vec![event.clone()])).collect();
            Space::replay(&log).1.join("; ")
        };
        assert!(said(&[(3, event("a", 3, 3, 1))]).contains("from revision 1 to 3"));
        assert!(said(&[(2, event("a", 9, 2, 1))]).contains("has 9"));
        assert!(said(&[(2, event("a", 2, 0, 0))]).contains("not there"));
        let jumps = said(&[(2, event("a", 2, 2, 1)), (3, event("a", 3, 2, 3))]);
        assert!(jumps.contains("should be 2/2"), "{jumps}");
    }
}
