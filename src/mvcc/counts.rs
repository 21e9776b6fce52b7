//! How many keys a range holds, without visiting them all: the key space is cut into chunks of a few
//! hundred keys, and how many keys live in each is stored and kept up to date with every change. The
//! chunks are cut into sums of a few dozen chunks in the same way ([`super::sums`]). A count is whole sums,
//! whole chunks on both sides of them, and two pieces that are walked.
//!
//! A count in the past is the present one less what was created since, plus what was deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::interval::KeyRange;
use super::keys::{Rev, RevKey, be_i64};
use super::overlay::Overlay;
use super::reader::Reader;
use super::record::KvRef;
use super::sums::Sums;
use crate::engine::{Cf, Snapshot};
use crate::error::Fatal;
use crate::limits::COUNT_CHUNK_KEYS;
use crate::plant;

/// Tests cut small, to meet every edge.
pub(super) const CHUNK_KEYS: i64 = if cfg!(test) { 4 } else { COUNT_CHUNK_KEYS };
/// Above this a chunk is cut up, so that cut ones are far from both limits.
const CHUNK_MAX: i64 = 2 * CHUNK_KEYS;
/// Below this a chunk joins the one before it, if both fit in one.
const CHUNK_MIN: i64 = CHUNK_KEYS / 2;

/// Keys of the range that are alive at the revision.
pub(super) fn count(reader: Reader<'_>, keys: &KeyRange, rev: i64) -> Result<i64, Fatal> {
    if keys.single().is_some() {
        return walk(reader, keys, rev);
    }
    let now = present(reader, keys)?;
    if rev == reader.revision {
        return Ok(now);
    }
    // When more changed since than there are keys, walking the keys is the shorter way.
    match growth(reader, keys, rev, now.max(CHUNK_KEYS))? {
        Some(growth) => Ok(now - growth),
        None => walk(reader, keys, rev),
    }
}

fn walk(reader: Reader<'_>, keys: &KeyRange, rev: i64) -> Result<i64, Fatal> {
    let mut count = 0;
    reader.walk(keys, rev, &mut |_| {
        count += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(count)
}

fn present(reader: Reader<'_>, keys: &KeyRange) -> Result<i64, Fatal> {
    sum_of(reader, keys, &[Cf::Sums, Cf::Counts])
}

/// Counts at the present: up to the first stored piece that begins inside, whole pieces, the rest. What
/// is not whole is counted by the smaller pieces, in the end key by key.
fn sum_of(reader: Reader<'_>, keys: &KeyRange, pieces: &[Cf]) -> Result<i64, Fatal> {
    let Some((&cf, smaller)) = pieces.split_first() else {
        return walk(reader, keys, reader.revision);
    };
    let mut whole = 0;
    // The piece that the cursor has passed last: where it begins, and its keys.
    let mut open: Option<(Bytes, i64)> = None;
    let mut first = None;
    let mut cursor = reader.cursor(cf, keys.upper());
    cursor.seek(keys.lower())?;
    while let Some((start, keys)) = cursor.entry()? {
        let start = Bytes::copy_from_slice(start);
        whole += open.take().map_or(0, |(_, keys)| keys);
        first.get_or_insert_with(|| start.clone());
        open = Some((start, parse(keys)?));
        cursor.next()?;
    }
    let (Some(first), Some((last, last_keys))) = (first, open) else {
        return sum_of(reader, keys, smaller);
    };
    let before = sum_of(reader, &keys.until(first), smaller)?;
    let after = match keys.upper() {
        Some(_) => sum_of(reader, &keys.from(last), smaller)?,
        None => last_keys,
    };
    Ok(before + whole + after)
}

/// How many more keys of the range there are now than at `rev`: what came to life since, less what
/// was deleted. Gives up after `changes_max` changes.
fn growth(
    reader: Reader<'_>,
    keys: &KeyRange,
    rev: i64,
    changes_max: i64,
) -> Result<Option<i64>, Fatal> {
    if reader.revision - rev > changes_max {
        return Ok(None);
    }
    let (mut growth, mut seen) = (0, 0);
    let mut cursor = reader.cursor(Cf::Key, None);
    cursor.seek(RevKey::new(Rev::first(rev + 1), false).as_bytes())?;
    while let Some((key, record)) = cursor.entry()? {
        seen += 1;
        if seen > changes_max {
            return Ok(None);
        }
        let (_, tombstone) = RevKey::parse(key)?;
        let kv = KvRef::parse(record)?;
        if keys.contains(kv.key) {
            let died = if plant::PAST_COUNT_IGNORES_DELETES.is_planted() { 0 } else { -1 };
            growth += if tombstone { died } else { i64::from(kv.version == 1) };
        }
        cursor.next()?;
    }
    Ok(Some(growth))
}

/// Where the chunks begin and how many keys live in each; the writer's copy of `Cf::Counts`. A first
/// chunk, which begins before every key, is always there.
pub(super) struct Chunks {
    rows: BTreeMap<Bytes, i64>,
    touched: BTreeSet<Bytes>,
    /// Each begins where a chunk begins.
    sums: Sums,
}

impl Chunks {
    pub fn empty() -> Self {
        let rows = BTreeMap::from([(Bytes::new(), 0)]);
        Self { rows, touched: BTreeSet::new(), sums: Sums::empty() }
    }

    pub fn load(snapshot: &Snapshot) -> Result<Self, Fatal> {
        let mut chunks = Self::empty();
        for row in snapshot.scan(Cf::Counts, &[], None) {
            let (start, keys) = row?;
            chunks.rows.insert(start, parse(&keys)?);
        }
        chunks.sums = Sums::load(snapshot, &chunks.rows)?;
        Ok(chunks)
    }

    /// A key came to life (+1) or was deleted (-1).
    pub fn adjust(&mut self, overlay: &mut Overlay, key: &[u8], by: i64) {
        let to_key = (Bound::Unbounded, Bound::Included(key));
        let (start, keys) = self
            .rows
            .range_mut::<[u8], _>(to_key)
            .next_back()
            .expect("the first chunk begins before every key");
        *keys += by;
        assert!(*keys >= 0, "more keys were deleted from a chunk than lived in it");
        overlay.set(Cf::Counts, &start[..], row(*keys));
        if (*keys > CHUNK_MAX || *keys < CHUNK_MIN) && !self.touched.contains(start) {
            self.touched.insert(start.clone());
        }
        self.sums.adjust(overlay, key, by);
    }

    /// What must be cut: for each chunk that grew too large, the chunks it becomes.
    pub fn cuts(&self, reader: Reader<'_>) -> Result<Vec<(Bytes, i64)>, Fatal> {
        let mut cuts = Vec::new();
        for start in &self.touched {
            let keys = self.rows[start];
            if keys > CHUNK_MAX {
                let next = self.after(start);
                let pieces = cut(reader, start, next)?;
                let sum: i64 = pieces.iter().map(|(_, keys)| keys).sum();
                if sum != keys {
                    let what = format!("a chunk of {keys} keys has {sum}");
                    return Err(Fatal::new("counted chunks", what));
                }
                cuts.extend(pieces);
            }
        }
        Ok(cuts)
    }

    /// Enters the cut pieces and joins what became too small.
    pub fn settle(&mut self, overlay: &mut Overlay, cuts: Vec<(Bytes, i64)>) {
        for (start, keys) in cuts {
            overlay.set(Cf::Counts, &start[..], row(keys));
            self.rows.insert(start, keys);
        }
        for start in std::mem::take(&mut self.touched) {
            let keys = self.rows[&start];
            let before = (Bound::Unbounded, Bound::Excluded(&start[..]));
            let Some((left, left_keys)) = self.rows.range_mut::<[u8], _>(before).next_back() else {
                continue;
            };
            let joins = keys < CHUNK_MIN && *left_keys + keys <= CHUNK_KEYS;
            if joins && !self.sums.begins_at(&start) {
                *left_keys += keys;
                overlay.set(Cf::Counts, &left[..], row(*left_keys));
                overlay.delete(Cf::Counts, &start[..]);
                self.rows.remove(&start);
            }
        }
        self.sums.settle(overlay, &self.rows);
    }

    fn after(&self, start: &Bytes) -> Option<&Bytes> {
        let behind = (Bound::Excluded(&start[..]), Bound::Unbounded);
        self.rows.range::<[u8], _>(behind).next().map(|(start, _)| start)
    }

    #[cfg(test)]
    pub fn rows(&self) -> &BTreeMap<Bytes, i64> {
        &self.rows
    }

    #[cfg(test)]
    pub fn sums(&self) -> &BTreeMap<Bytes, i64> {
        self.sums.rows()
    }
}

/// Cuts `[start, next)` into chunks of the usual size.
fn cut(
    reader: Reader<'_>,
    start: &Bytes,
    next: Option<&Bytes>,
) -> Result<Vec<(Bytes, i64)>, Fatal> {
    let keys = KeyRange::between(start.clone(), next.cloned());
    let mut pieces = vec![(start.clone(), 0)];
    reader.walk(&keys, reader.revision, &mut |found| {
        let last = pieces.last_mut().expect("it began with one");
        if last.1 < CHUNK_KEYS {
            last.1 += 1;
        } else {
            pieces.push((Bytes::copy_from_slice(found.key()), 1));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(pieces)
}

pub(super) fn row(keys: i64) -> [u8; 8] {
    keys.to_be_bytes()
}

pub(super) fn parse(row: &[u8]) -> Result<i64, Fatal> {
    be_i64(row).ok_or_else(|| Fatal::new("counted chunks", format!("{row:02x?} is not a count")))
}
