//! Which keys a txn writes in one branch, and whether it may write one of them twice. Follows etcd's
//! rule (3.7 `server/etcdserver/api/v3rpc/key.go`, `checkIntervals`), in time `n log n` for any nesting:
//! deletes are kept as disjoint intervals, and of two sets the smaller one is moved into the larger.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use quorate_proto::etcdserverpb::{DeleteRangeRequest, RequestOp, request_op::Request};

use crate::error::Refused;

/// Refuses a branch that writes a key twice: two puts, or a put and a delete. Recurses as deep as the
/// txn nests.
pub(super) fn refuse_doubles(ops: &[RequestOp]) -> Result<(), Refused> {
    let single = |op: &RequestOp| !matches!(op.request, Some(Request::RequestTxn(_)));
    if ops.len() < 2 && ops.iter().all(single) {
        return Ok(());
    }
    Writes::of(ops).map(|_| ())
}

/// What one branch writes, nested txns included.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Intervals<'a>,
}

impl<'a> Writes<'a> {
    /// Collects them in etcd's order: this level's deletes, then the nested txns one by one, then this
    /// level's puts. A delete in a later nested txn is therefore not held against a put in an earlier
    /// one; it is carried out after it.
    fn of(ops: &'a [RequestOp]) -> Result<Self, Refused> {
        let mut writes = Self::default();
        for op in ops {
            if let Some(Request::RequestDeleteRange(delete)) = &op.request {
                writes.deletes.add(delete);
            }
        }
        for op in ops {
            if let Some(Request::RequestTxn(txn)) = &op.request {
                // Only one of the two branches will be carried out, so they may write the same keys.
                let mut nested = Self::of(&txn.success)?;
                nested.unite(Self::of(&txn.failure)?);
                if writes.doubles(&nested) {
                    return Err(Refused::DuplicateKey);
                }
                writes.unite(nested);
            }
        }
        for op in ops {
            if let Some(Request::RequestPut(put)) = &op.request
                && (writes.deletes.contains(&put.key) || !writes.puts.insert(&put.key))
            {
                return Err(Refused::DuplicateKey);
            }
        }
        Ok(writes)
    }

    /// Whether a put of `later` is among the writes so far.
    fn doubles(&self, later: &Self) -> bool {
        let (few, many) = by_size(&self.puts, &later.puts, BTreeSet::len);
        few.iter().any(|key| many.contains(key)) || self.deletes.hit(&later.puts)
    }

    fn unite(&mut self, mut other: Self) {
        if self.puts.len() < other.puts.len() {
            std::mem::swap(&mut self.puts, &mut other.puts);
        }
        if self.deletes.0.len() < other.deletes.0.len() {
            std::mem::swap(&mut self.deletes, &mut other.deletes);
        }
        self.puts.extend(other.puts);
        other.deletes.0.into_iter().for_each(|(from, to)| self.deletes.insert(from, to));
    }
}

/// The smaller one first.
fn by_size<'t, T>(a: &'t T, b: &'t T, len: impl Fn(&T) -> usize) -> (&'t T, &'t T) {
    if len(a) <= len(b) { (a, b) } else { (b, a) }
}

/// Disjoint intervals: where each begins, and where it ends.
#[derive(Default)]
struct Intervals<'a>(BTreeMap<&'a [u8], End<'a>>);

/// Before a key (`false`), or right behind it.
type End<'a> = (&'a [u8], bool);

impl<'a> Intervals<'a> {
    /// Adds the keys of a delete. In this rule etcd takes every `range_end` literally, so "every key
    /// from here on", which is the end `"\0"`, is an empty interval: a put behind such a delete is
    /// carried out after it.
    fn add(&mut self, delete: &'a DeleteRangeRequest) {
        let end = match &delete.range_end[..] {
            [] => (&delete.key[..], true),
            end => (end, false),
        };
        self.insert(&delete.key, end);
    }

    fn insert(&mut self, mut from: &'a [u8], mut to: End<'a>) {
        if to <= (from, false) {
            return;
        }
        let before = (Bound::Unbounded, Bound::Included(from));
        if let Some((start, end)) = self.0.range::<[u8], _>(before).next_back()
            && *end >= (from, false)
        {
            (from, to) = (*start, to.max(*end));
        }
        let inside = (Bound::Included(from), Bound::Unbounded);
        while let Some((start, end)) = self.0.range::<[u8], _>(inside).next()
            && (*start, false) <= to
        {
            let start = *start;
            to = to.max(*end);
            self.0.remove(start);
        }
        self.0.insert(from, to);
    }

    fn contains(&self, key: &[u8]) -> bool {
        let before = (Bound::Unbounded, Bound::Included(key));
        self.0.range::<[u8], _>(before).next_back().is_some_and(|(_, end)| (key, false) < *end)
    }

    /// Whether one of the keys is in it.
    fn hit(&self, keys: &BTreeSet<&[u8]>) -> bool {
        if keys.len() <= self.0.len() {
            return keys.iter().any(|key| self.contains(key));
        }
        self.0.iter().any(|(from, to)| {
            let behind = (Bound::Included(*from), Bound::Unbounded);
            keys.range::<[u8], _>(behind).next().is_some_and(|key| (*key, false) < *to)
        })
    }
}
