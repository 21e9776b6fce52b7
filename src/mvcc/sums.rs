//! Chunks of chunks: how many keys live in a few dozen counted chunks together, so that a count of
//! millions of keys adds up hundreds of rows and not tens of thousands. Kept as the chunks are, by the
//! writer; where they are cut follows from the chunks, so nothing is read for it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;

use super::counts::{CHUNK_KEYS, parse, row};
use super::overlay::Overlay;
use crate::engine::{Cf, Snapshot};
use crate::error::Fatal;
use crate::limits::COUNT_SUM_CHUNKS;

/// Keys in a freshly cut sum.
const SUM_KEYS: i64 = if cfg!(test) { CHUNK_KEYS } else { COUNT_SUM_CHUNKS * CHUNK_KEYS };
/// Above this a sum is cut up.
const SUM_MAX: i64 = 2 * SUM_KEYS;
/// Below this a sum joins the one before it, if both fit in one.
const SUM_MIN: i64 = SUM_KEYS / 2;

type Rows = BTreeMap<Bytes, i64>;

/// Where the sums begin and how many keys live in each; the writer's copy of `Cf::Sums`. A first one,
/// which begins before every key, is always there.
pub(super) struct Sums {
    rows: Rows,
    touched: BTreeSet<Bytes>,
    /// Whether the rows are stored: not so in states that were made before there were sums.
    stored: bool,
}

impl Sums {
    pub fn empty() -> Self {
        Self { rows: [(Bytes::new(), 0)].into(), touched: BTreeSet::new(), stored: true }
    }

    pub fn load(snapshot: &Snapshot, chunks: &Rows) -> Result<Self, Fatal> {
        let mut sums = Self::empty();
        let mut stored = false;
        for row in snapshot.scan(Cf::Sums, &[], None) {
            let (start, keys) = row?;
            sums.rows.insert(start, parse(&keys)?);
            stored = true;
        }
        if !stored {
            sums.rows = cut(chunks.iter()).into_iter().collect();
            sums.stored = false;
        }
        Ok(sums)
    }

    /// A key was created (+1) or deleted (-1).
    pub fn adjust(&mut self, overlay: &mut Overlay, key: &[u8], by: i64) {
        if !std::mem::replace(&mut self.stored, true) {
            for (start, keys) in &self.rows {
                overlay.set(Cf::Sums, &start[..], row(*keys));
            }
        }
        let to_key = (Bound::Unbounded, Bound::Included(key));
        let (start, keys) = self
            .rows
            .range_mut::<[u8], _>(to_key)
            .next_back()
            .expect("the first sum begins before every key");
        *keys += by;
        assert!(*keys >= 0, "more keys were deleted from a sum than lived in it");
        overlay.set(Cf::Sums, &start[..], row(*keys));
        if (*keys > SUM_MAX || *keys < SUM_MIN) && !self.touched.contains(start) {
            self.touched.insert(start.clone());
        }
    }

    /// Whether a sum begins at the chunk: such a chunk must not be joined to the one before it.
    pub fn begins_at(&self, start: &[u8]) -> bool {
        self.rows.contains_key(start)
    }

    /// Cuts what became too large and joins what became too small, after the chunks have settled.
    pub fn settle(&mut self, overlay: &mut Overlay, chunks: &Rows) {
        for start in std::mem::take(&mut self.touched) {
            let keys = self.rows[&start];
            if keys > SUM_MAX {
                let behind = (Bound::Excluded(&start[..]), Bound::Unbounded);
                let next = self.rows.range::<[u8], _>(behind).next().map(|(next, _)| next.clone());
                let to = next.map_or(Bound::Unbounded, Bound::Excluded);
                let pieces = cut(chunks.range((Bound::Included(start), to)));
                let sum: i64 = pieces.iter().map(|(_, keys)| keys).sum();
                assert_eq!(sum, keys, "the chunks of a sum have as many keys as it");
                for (start, keys) in pieces {
                    overlay.set(Cf::Sums, &start[..], row(keys));
                    self.rows.insert(start, keys);
                }
            } else if keys < SUM_MIN {
                self.join(overlay, &start, keys);
            }
        }
    }

    fn join(&mut self, overlay: &mut Overlay, start: &Bytes, keys: i64) {
        let before = (Bound::Unbounded, Bound::Excluded(&start[..]));
        let Some((left, left_keys)) = self.rows.range_mut::<[u8], _>(before).next_back() else {
            return;
        };
        if *left_keys + keys <= SUM_KEYS {
            *left_keys += keys;
            overlay.set(Cf::Sums, &left[..], row(*left_keys));
            overlay.delete(Cf::Sums, &start[..]);
            self.rows.remove(start);
        }
    }

    #[cfg(test)]
    pub fn rows(&self) -> &Rows {
        &self.rows
    }
}

/// Combines chunks into sums of the usual size.
fn cut<'a>(chunks: impl Iterator<Item = (&'a Bytes, &'a i64)>) -> Vec<(Bytes, i64)> {
    let mut pieces: Vec<(Bytes, i64)> = Vec::new();
    for (start, keys) in chunks {
        match pieces.last_mut() {
            Some((_, sum)) if *sum + keys <= SUM_KEYS => *sum += keys,
            _ => pieces.push((start.clone(), *keys)),
        }
    }
    pieces
}
