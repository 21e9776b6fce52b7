//! What an entry changed: its events, as watchers receive them. Of more than is worth its memory only
//! between which keys it is; history has the events. No store.

use bytes::Bytes;
use quorate_proto::mvccpb::{Event, KeyValue, event::EventType};

use crate::limits;

/// The changes of one entry.
#[derive(Debug)]
pub struct Changed {
    /// In order, each with the state before its revision attached; none when they are too many.
    pub events: Vec<Event>,
    /// The first and the last key of those that are too many.
    pub between: Option<(Bytes, Bytes)>,
    /// How many there are.
    pub count: usize,
    /// Keys and values of the puts among them.
    pub put_bytes: usize,
    /// What the events take.
    bytes: usize,
    bytes_max: usize,
}

impl Default for Changed {
    fn default() -> Self {
        Self::up_to(limits::EVENTS_BYTES_MAX)
    }
}

impl Changed {
    /// Nothing yet, with place for events that take about so many bytes.
    pub(super) fn up_to(bytes_max: usize) -> Self {
        let (events, between) = Default::default();
        Self { events, between, count: 0, put_bytes: 0, bytes: 0, bytes_max }
    }

    #[cfg(test)]
    pub fn of(count: usize) -> Self {
        Self { count, ..Self::default() }
    }

    /// What was added since the last time.
    pub(super) fn take(&mut self) -> Self {
        let empty = Self::up_to(self.bytes_max);
        std::mem::replace(self, empty)
    }

    /// Whether there is no place for events any more: what was before them need not be found out.
    pub(super) fn is_cut(&self) -> bool {
        self.between.is_some()
    }

    /// Adds the change that made `kv`; a single one is always kept.
    pub(super) fn add(&mut self, kind: EventType, kv: KeyValue, prev_kv: Option<KeyValue>) {
        self.count += 1;
        if kind == EventType::Put {
            self.put_bytes += kv.key.len() + kv.value.len();
        }
        if let Some(between) = &mut self.between {
            return widen(between, &kv.key);
        }
        let size = |kv: &KeyValue| kv.key.len() + kv.value.len();
        self.bytes += size_of::<Event>() + size(&kv) + prev_kv.as_ref().map_or(0, size);
        self.events.push(Event { r#type: kind as i32, kv: Some(kv), prev_kv });
        if self.bytes > self.bytes_max && self.events.len() > 1 {
            let events = std::mem::take(&mut self.events);
            let mut keys = events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| &kv.key);
            let first = keys.next().map(|key| Bytes::copy_from_slice(key)).unwrap_or_default();
            let mut between = (first.clone(), first);
            keys.for_each(|key| widen(&mut between, key));
            self.between = Some(between);
        }
    }
}

fn widen((first, last): &mut (Bytes, Bytes), key: &Bytes) {
    if key < first {
        *first = Bytes::copy_from_slice(key);
    }
    if key > last {
        *last = Bytes::copy_from_slice(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(changed: &mut Changed, key: &'static str) {
        let kv = KeyValue { key: key.into(), value: "value".into(), ..KeyValue::default() };
        changed.add(EventType::Put, kv, None);
    }

    #[test]
    fn too_many_events_are_told_as_keys_between() {
        let mut changed = Changed::up_to(2 * size_of::<Event>());
        add(&mut changed, "m");
        assert_eq!((changed.events.len(), changed.is_cut()), (1, false));
        for key in ["n", "c", "x", "d"] {
            add(&mut changed, key);
        }
        assert_eq!((changed.events.len(), changed.count, changed.put_bytes), (0, 5, 30));
        assert_eq!(changed.between, Some(("c".into(), "x".into())));
    }

    #[test]
    fn a_large_one_alone_is_told() {
        let mut changed = Changed::up_to(1);
        add(&mut changed, "m");
        assert_eq!((changed.events.len(), changed.is_cut()), (1, false));
    }
}
