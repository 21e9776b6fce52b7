//! Answers in another order than that of the keys which are too large to be put in order at once. The
//! range is looked through for the keys that come first, as many as there is room for; when they are
//! used up, it is looked through again for those behind. What is kept of a key is what it is sorted by;
//! the rest is read when its turn has come. Slow, but any answer can be had.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::ControlFlow;

use quorate_proto::etcdserverpb::{
    RangeRequest,
    range_request::{SortOrder, SortTarget},
};
use quorate_proto::mvccpb::KeyValue;

use super::interval::KeyRange;
use super::range::{self, Scan, fetch_limit};
use super::reader::{Found, Reader};
use crate::error::Fatal;
use crate::plant;

/// The keys that are still to come.
pub(super) struct Sorted {
    keys: KeyRange,
    /// How many of them the answer still has.
    left: usize,
    /// What a run may take in memory, bytes.
    room: usize,
    run: std::vec::IntoIter<Entry>,
    /// The last one that was used up.
    last: Option<Entry>,
}

/// What is known of the whole answer.
pub(super) struct Size {
    pub bytes: u64,
    /// How many keys there were, those that were filtered out included; none when keys behind the
    /// limit were not looked at.
    pub seen: Option<i64>,
    /// Whether there are more keys than the limit allows.
    pub more: bool,
}

/// A key that has a place in the order.
struct Entry {
    order: Order,
    number: i64,
    value: Box<[u8]>,
    key: Box<[u8]>,
    /// What it takes in the answer.
    bytes: usize,
}

/// What decides on a key's place.
#[derive(Clone, Copy)]
struct Place<'a> {
    number: i64,
    value: &'a [u8],
    key: &'a [u8],
}

/// The keys next in order.
struct Run {
    entries: Vec<Entry>,
    /// Of all keys that were looked at.
    bytes: u64,
    keys: usize,
    seen: i64,
    /// Whether there are keys behind the limit that were not looked at.
    cut: bool,
}

impl Sorted {
    /// Finds out what the answer will be.
    pub fn new(
        scan: &Scan<'_>,
        reader: Reader<'_>,
        keys: KeyRange,
        room: usize,
    ) -> Result<(Self, Size), Fatal> {
        let limit = usize::try_from(scan.request.limit).ok().filter(|limit| *limit > 0);
        let run = Run::find(scan, reader, &keys, None, limit.unwrap_or(usize::MAX), room)?;
        let left = limit.unwrap_or(usize::MAX).min(run.keys);
        let seen = Some(run.seen).filter(|_| !run.cut);
        let more = run.keys > left;
        let first: u64 = run.entries.iter().map(|entry| entry.bytes as u64).sum();
        let mut sorted = Self { keys, left, room, run: run.entries.into_iter(), last: None };
        let bytes = if !more {
            run.bytes
        } else if sorted.run.len() >= left {
            first
        } else {
            let bytes = sorted.measure(scan, reader)?;
            // From the beginning again.
            let run = Run::find(scan, reader, &sorted.keys, None, left, room)?;
            sorted = Self { left, run: run.entries.into_iter(), last: None, ..sorted };
            bytes
        };
        Ok((sorted, Size { bytes, seen, more }))
    }

    /// What the keys take that are still to come, which are used up by it.
    fn measure(&mut self, scan: &Scan<'_>, reader: Reader<'_>) -> Result<u64, Fatal> {
        let mut bytes = 0;
        while let Some(entry) = self.next(scan, reader)? {
            bytes += entry.bytes as u64;
            self.last = Some(entry);
        }
        Ok(bytes)
    }

    /// The next keys, of about `bytes_max`; none after the last.
    pub fn page(
        &mut self,
        scan: &Scan<'_>,
        reader: Reader<'_>,
        bytes_max: usize,
    ) -> Result<Vec<KeyValue>, Fatal> {
        let (mut kvs, mut bytes) = (Vec::new(), 0);
        while bytes < bytes_max
            && let Some(entry) = self.next(scan, reader)?
        {
            bytes += entry.bytes;
            let kv = reader.at(&entry.key, scan.rev)?;
            kvs.push(scan.trim(kv.ok_or_else(|| Fatal::new("range", "a key is gone"))?));
            self.last = Some(entry);
        }
        range::strip(&mut kvs, scan.request);
        Ok(kvs)
    }

    /// Bytes that are held until the end, or as many as may be.
    pub fn held(&self) -> usize {
        if self.left > self.run.len() {
            return self.room;
        }
        self.run.as_slice().iter().map(Entry::held).sum()
    }

    fn next(&mut self, scan: &Scan<'_>, reader: Reader<'_>) -> Result<Option<Entry>, Fatal> {
        if self.left == 0 {
            return Ok(None);
        }
        if self.run.len() == 0 {
            let after = self.last.take();
            self.run = Vec::new().into_iter();
            let run = Run::find(scan, reader, &self.keys, after, self.left, self.room)?;
            self.run = run.entries.into_iter();
        }
        self.left -= 1;
        let entry = self.run.next();
        Ok(Some(entry.ok_or_else(|| Fatal::new("range", "fewer keys than there were"))?))
    }
}

impl Run {
    /// The first keys behind `after`, up to `keys_max` and as many as there is room for.
    fn find(
        scan: &Scan<'_>,
        reader: Reader<'_>,
        keys: &KeyRange,
        after: Option<Entry>,
        keys_max: usize,
        room: usize,
    ) -> Result<Self, Fatal> {
        let order = Order::of(scan.request);
        let looked_at = fetch_limit(scan.request).unwrap_or(usize::MAX);
        let entries = BinaryHeap::new();
        let mut best = Best { entries, held: 0, keys_max, room, away: None };
        let mut run = Self { entries: Vec::new(), bytes: 0, keys: 0, seen: 0, cut: false };
        reader.walk(keys, scan.rev, &mut |found| {
            if !scan.admits(found.modified(), found.created()) {
                run.seen += 1;
                return Ok(ControlFlow::Continue(()));
            }
            if run.keys >= looked_at {
                run.cut = true;
                return Ok(ControlFlow::Break(()));
            }
            run.seen += 1;
            run.keys += 1;
            // An older state's value is not at hand.
            let older = match &found {
                Found::Older(_, outline) if order.target == SortTarget::Value => {
                    Some(reader.fetch(outline.rev)?)
                }
                _ => None,
            };
            let (place, bytes) = order.place(scan, &found, older.as_ref());
            run.bytes += bytes as u64;
            let again = plant::is("sorted-run-begins-again");
            let behind = |after: &Entry| again || order.compare(place, after.place()).is_gt();
            if after.as_ref().is_none_or(behind) {
                best.offer(order, place, bytes);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        run.entries = best.entries.into_sorted_vec();
        Ok(run)
    }
}

/// The first in order of all that were offered.
struct Best {
    entries: BinaryHeap<Entry>,
    held: usize,
    keys_max: usize,
    room: usize,
    /// The first of those that were turned away: what comes behind it is, too.
    away: Option<Entry>,
}

impl Best {
    fn offer(&mut self, order: Order, place: Place<'_>, bytes: usize) {
        if self.away.as_ref().is_some_and(|away| order.compare(place, away.place()).is_gt()) {
            return;
        }
        let Place { number, value, key } = place;
        let entry = Entry { order, number, value: value.into(), key: key.into(), bytes };
        self.held += entry.held();
        self.entries.push(entry);
        while self.entries.len() > 1
            && (self.held > self.room || self.entries.len() > self.keys_max)
        {
            self.away = self.entries.pop();
            self.held -= self.away.as_ref().map_or(0, Entry::held);
        }
    }
}

impl Entry {
    fn place(&self) -> Place<'_> {
        Place { number: self.number, value: &self.value, key: &self.key }
    }

    /// What it takes in memory: its place in a list that grows twofold, and two pieces.
    fn held(&self) -> usize {
        2 * size_of::<Self>() + self.key.len() + self.value.len()
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order.compare(self.place(), other.place())
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

/// By what, and which way.
#[derive(Clone, Copy)]
struct Order {
    target: SortTarget,
    down: bool,
}

impl Order {
    fn of(request: &RangeRequest) -> Self {
        Self { target: request.sort_target(), down: request.sort_order() == SortOrder::Descend }
    }

    /// Equals are in the order of their keys, as in [`range::sort`].
    fn compare(self, a: Place<'_>, b: Place<'_>) -> Ordering {
        let turned = |order: Ordering| if self.down { order.reverse() } else { order };
        if plant::is("sort-ignored") {
            return a.key.cmp(b.key);
        }
        match self.target {
            SortTarget::Key => turned(a.key.cmp(b.key)),
            _ => turned((a.number, a.value).cmp(&(b.number, b.value))).then(a.key.cmp(b.key)),
        }
    }

    /// Where a key stands, and what it takes in the answer. `older` is its state, if it was fetched.
    fn place<'a>(
        self,
        scan: &Scan<'_>,
        found: &'a Found<'a>,
        older: Option<&'a KeyValue>,
    ) -> (Place<'a>, usize) {
        let number = match self.target {
            SortTarget::Key | SortTarget::Value => 0,
            SortTarget::Version => found.version(),
            SortTarget::Create => found.created(),
            SortTarget::Mod => found.modified(),
        };
        let value = match (self.target, found, older) {
            (SortTarget::Value, _, Some(kv)) => &kv.value[..],
            (SortTarget::Value, Found::Newest(_, kv), None) => kv.value,
            _ => &[],
        };
        let stripped = scan.request.keys_only && self.target == SortTarget::Value;
        let bytes = match (stripped, found, older) {
            (true, _, Some(kv)) => range::stripped_bytes(kv.key.len(), kv),
            (true, Found::Newest(_, kv), _) => range::stripped_bytes(kv.key.len(), &kv.outline()),
            _ => range::in_answer(scan.bytes(found)),
        };
        (Place { number, value, key: found.key() }, bytes)
    }
}
