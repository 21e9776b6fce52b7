//! Sorts answers that are too large to be sorted in memory, in an order other than that of the keys. A pass
//! over the range selects the keys that come first, as many as there is room for; when these have been
//! sent, another pass selects the ones behind them. Only the sort key of an entry is kept; the rest is
//! read when the entry is sent. Slow, but there is no limit on the size of an answer.
//!
//! Of a value only a few bytes are kept: those from the place on at which it differs from the run's pivot, a
//! value that is known in full. Values that differ from the pivot at different places are ordered by these
//! places, those that differ at the same place by the bytes kept. Values that are equal in both are read
//! again and compared with one of them as a new pivot.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::{ControlFlow, Range};

use bytes::Bytes;
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

/// What is kept of a value behind the place where it leaves the pivot, bytes. Tests have values that
/// differ late.
const SLICE_BYTES: usize = if cfg!(test) { 2 } else { 32 };
/// Keys that a run may have beyond those that are wanted, so that a few with nearly one value do not
/// take a run each.
const SPARE_KEYS: usize = 64;

#[cfg(test)]
thread_local! {
    /// How often a range was looked through.
    pub(super) static LOOKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

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
    slice: Box<[u8]>,
    key: Box<[u8]>,
    /// What it takes in the answer.
    bytes: usize,
}

/// What decides on a key's place.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// Of a value: where it leaves the pivot, and on which side.
    number: i64,
    /// Of a value: what follows there.
    slice: &'a [u8],
    key: &'a [u8],
}

/// Behind which key of the order a run begins: all of it.
struct Mark {
    number: i64,
    value: Bytes,
    key: Box<[u8]>,
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
        let keys_max = limit.unwrap_or(usize::MAX);
        let run = Run::find(scan, reader, &keys, None, keys_max, room)?;
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
            self.run = Vec::new().into_iter();
            let after = self.last.take();
            let after = after.map(|last| last.into_mark(scan, reader)).transpose()?;
            let run = Run::find(scan, reader, &self.keys, after, self.left, self.room)?;
            self.run = run.entries.into_iter();
        }
        self.left -= 1;
        Ok(Some(self.run.next().ok_or_else(|| Fatal::new("range", "fewer keys than there were"))?))
    }
}

impl Run {
    /// The first keys behind `after`, up to `keys_max` and as many as there is room for.
    fn find(
        scan: &Scan<'_>,
        reader: Reader<'_>,
        keys: &KeyRange,
        after: Option<Mark>,
        keys_max: usize,
        room: usize,
    ) -> Result<Self, Fatal> {
        // What comes next has much in common with what came last.
        let mut pivot = after.as_ref().map(|after| after.value.clone());
        loop {
            let (mut run, away) =
                Self::look(scan, reader, keys, after.as_ref(), keys_max, room, &mut pivot)?;
            // The last of them may come behind those that were turned away if the same is kept of both.
            let sure = |entry: &Entry| away.as_ref().is_none_or(|away| !entry.is_like(away));
            let sure = run.entries.iter().rposition(sure).map_or(0, |last| last + 1);
            if sure > 0 || run.entries.is_empty() {
                run.entries.truncate(sure);
                resolve(scan, reader, &mut run.entries)?;
                run.entries.truncate(keys_max);
                return Ok(run);
            }
            // All have much in common: where they leave one of them distinguishes more.
            pivot = Some(middle(&run.entries).value(scan, reader)?);
        }
    }

    /// One pass, with values compared by `pivot`, or by the first of them if there is no pivot yet: returns
    /// the first keys, and the first of those for which there was no room.
    fn look(
        scan: &Scan<'_>,
        reader: Reader<'_>,
        keys: &KeyRange,
        after: Option<&Mark>,
        keys_max: usize,
        room: usize,
        pivot: &mut Option<Bytes>,
    ) -> Result<(Self, Option<Entry>), Fatal> {
        let order = Order::of(scan.request);
        let looked_at = fetch_limit(scan.request).unwrap_or(usize::MAX);
        let keys_max = keys_max.saturating_add(SPARE_KEYS);
        let mut best = Best { entries: BinaryHeap::new(), held: 0, keys_max, room, away: None };
        let mut run = Self { entries: Vec::new(), bytes: 0, keys: 0, seen: 0, cut: false };
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + 1);
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
            // An older state's value has to be read.
            let older = match &found {
                Found::Older(_, outline) if order.target == SortTarget::Value => {
                    Some(reader.fetch(outline.rev)?)
                }
                _ => None,
            };
            let bytes = order.bytes(scan, &found, older.as_ref());
            run.bytes += bytes as u64;
            let (number, value) = order.told_by(&found, older.as_ref());
            let again = plant::SORTED_RUN_BEGINS_AGAIN.is_planted();
            let behind = |after: &Mark| {
                again || order.compare((number, value, found.key()), after.place()).is_gt()
            };
            if after.is_none_or(behind) {
                let (number, slice) = match order.target {
                    SortTarget::Value => {
                        let pivot = pivot.get_or_insert_with(|| Bytes::copy_from_slice(value));
                        leaves(value, pivot)
                    }
                    _ => (number, value),
                };
                best.offer(order, Place { number, slice, key: found.key() }, bytes);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        run.entries = best.entries.into_sorted_vec();
        Ok((run, best.away))
    }
}

/// The place at which `value` differs from `pivot`, as a number in the order of the values, and the bytes
/// from there on. Of values below the pivot the one with the longer common prefix is the larger, of values
/// above it the smaller.
fn leaves<'a>(value: &'a [u8], pivot: &[u8]) -> (i64, &'a [u8]) {
    let shared = value.iter().zip(pivot).take_while(|(one, other)| one == other).count();
    let number = shared as i64;
    let above = shared < pivot.len() && value.get(shared).is_some_and(|next| *next > pivot[shared]);
    let rest = &value[shared..];
    (if above { i64::MAX - number } else { number }, &rest[..rest.len().min(SLICE_BYTES)])
}

/// Orders the entries whose kept bytes are equal: each such group is compared by one of its values as the
/// pivot, and so on. Apart from these groups the entries are in order.
fn resolve(scan: &Scan<'_>, reader: Reader<'_>, entries: &mut [Entry]) -> Result<(), Fatal> {
    // Groups within groups.
    let mut open = Vec::new();
    put_alike(entries, 0, &mut open);
    while let Some(alike) = open.pop() {
        let from = alike.start;
        let alike = &mut entries[alike];
        let pivot = middle(alike).value(scan, reader)?;
        for entry in alike.iter_mut() {
            let value = entry.value(scan, reader)?;
            let (number, slice) = leaves(&value, &pivot);
            (entry.number, entry.slice) = (number, slice.into());
        }
        alike.sort_unstable();
        // The pivot differs from all others, so that groups become smaller.
        put_alike(alike, from, &mut open);
    }
    Ok(())
}

/// Chooses the pivot of a group. Of values that are prefixes of each other, in the order of their keys, the
/// first one would split off only itself.
fn middle(entries: &[Entry]) -> &Entry {
    &entries[entries.len() / 2]
}

/// Adds the groups of which the same is kept; the first entry has number `from`.
fn put_alike(entries: &[Entry], from: usize, open: &mut Vec<Range<usize>>) {
    let mut from = from;
    for alike in entries.chunk_by(Entry::is_like) {
        if alike.len() > 1 {
            open.push(from..from + alike.len());
        }
        from += alike.len();
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
        if self.away.as_ref().is_some_and(|away| order.compare_kept(place, away.place()).is_gt()) {
            return;
        }
        let Place { number, slice, key } = place;
        let entry = Entry { order, number, slice: slice.into(), key: key.into(), bytes };
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
        Place { number: self.number, slice: &self.slice, key: &self.key }
    }

    /// What it takes in memory: its place in a list that grows twofold, and two pieces.
    fn held(&self) -> usize {
        2 * size_of::<Self>() + self.key.len() + self.slice.len()
    }

    /// Its value at the moment of the answer.
    fn value(&self, scan: &Scan<'_>, reader: Reader<'_>) -> Result<Bytes, Fatal> {
        let kv = reader.at(&self.key, scan.rev)?;
        Ok(kv.ok_or_else(|| Fatal::new("range", "a key is gone"))?.value)
    }

    /// Whether what is kept of both values is the same, and not all of them.
    fn is_like(&self, other: &Self) -> bool {
        let by_value = self.order.target == SortTarget::Value;
        let same = (self.number, &self.slice) == (other.number, &other.slice);
        by_value && same && self.slice.len() == SLICE_BYTES
    }

    fn into_mark(self, scan: &Scan<'_>, reader: Reader<'_>) -> Result<Mark, Fatal> {
        let by_value = self.order.target == SortTarget::Value;
        let value = if by_value { self.value(scan, reader)? } else { Bytes::new() };
        let number = if by_value { 0 } else { self.number };
        Ok(Mark { number, value, key: self.key })
    }
}

impl Mark {
    fn place(&self) -> (i64, &[u8], &[u8]) {
        (self.number, &self.value, &self.key)
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order.compare_kept(self.place(), other.place())
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

    /// Of numbers, values and keys. Equals are in the order of their keys, as in [`range::sort`].
    fn compare(self, a: (i64, &[u8], &[u8]), b: (i64, &[u8], &[u8])) -> Ordering {
        let turned = |order: Ordering| if self.down { order.reverse() } else { order };
        if plant::SORT_IGNORED.is_planted() {
            return a.2.cmp(b.2);
        }
        match self.target {
            SortTarget::Key => turned(a.2.cmp(b.2)),
            _ => turned((a.0, a.1).cmp(&(b.0, b.1))).then(a.2.cmp(b.2)),
        }
    }

    /// The same by what is kept of values.
    fn compare_kept(self, a: Place<'_>, b: Place<'_>) -> Ordering {
        self.compare((a.number, a.slice, a.key), (b.number, b.slice, b.key))
    }

    /// What a key is sorted by. `older` is its state, if it was fetched.
    fn told_by<'a>(self, found: &Found<'a>, older: Option<&'a KeyValue>) -> (i64, &'a [u8]) {
        match (self.target, found, older) {
            (SortTarget::Value, _, Some(kv)) => (0, &kv.value[..]),
            (SortTarget::Value, Found::Newest(_, kv), None) => (0, kv.value),
            (SortTarget::Key | SortTarget::Value, ..) => (0, &[]),
            (SortTarget::Version, ..) => (found.version(), &[]),
            (SortTarget::Create, ..) => (found.created(), &[]),
            (SortTarget::Mod, ..) => (found.modified(), &[]),
        }
    }

    /// What a key takes in the answer.
    fn bytes(self, scan: &Scan<'_>, found: &Found<'_>, older: Option<&KeyValue>) -> usize {
        let stripped = scan.request.keys_only && self.target == SortTarget::Value;
        match (stripped, found, older) {
            (true, _, Some(kv)) => range::stripped_bytes(kv.key.len(), kv),
            (true, Found::Newest(_, kv), _) => range::stripped_bytes(kv.key.len(), &kv.outline()),
            _ => range::in_answer(scan.bytes(found)),
        }
    }
}
