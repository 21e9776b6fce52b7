//! How many keys a txn visits when it is carried out. One range costs as much as it holds; many over the
//! same keys cost their product, and the applier does nothing else meanwhile. Found out before such a
//! txn is proposed, with no more work than the bound it is held against.

use bytes::Bytes;
use quorate_proto::etcdserverpb::{RequestOp, TxnRequest, request_op::Request};

use super::View;
use super::interval::KeyRange;
use super::range::{fetch_limit, has_filters};
use super::reader::Reader;
use crate::engine::Cf;
use crate::error::Fatal;
use crate::limits::TXN_WALKS_UNWEIGHED;

/// Whether a txn, both branches and nested ones counted, reads, compares or deletes so many ranges that
/// what they hold in sum is to be found out before it is proposed.
pub fn walks_much(txn: &TxnRequest) -> bool {
    fn walks(txn: &TxnRequest) -> usize {
        let of = |range_end: &Bytes| usize::from(!range_end.is_empty());
        let op = |op: &RequestOp| match &op.request {
            Some(Request::RequestRange(range)) => of(&range.range_end),
            Some(Request::RequestDeleteRange(delete)) => of(&delete.range_end),
            Some(Request::RequestTxn(nested)) => walks(nested),
            Some(Request::RequestPut(_)) | None => 0,
        };
        let compares = txn.compare.iter().map(|compare| of(&compare.range_end));
        compares.chain(txn.success.iter().chain(&txn.failure).map(op)).sum()
    }
    walks(txn) > TXN_WALKS_UNWEIGHED
}

impl View {
    /// Whether all ranges of a txn but the largest hold at most `keys_max` keys in sum, its own puts
    /// included. Looks at about three times as many at most.
    pub fn txn_walks_within(&self, txn: &TxnRequest, keys_max: usize) -> Result<bool, Fatal> {
        let mut tree = Tree::of(txn);
        tree.puts.sort_unstable();
        let (mut sum, mut largest) = (0_usize, 0);
        for walk in &tree.walks {
            let stored = stored(self.reader(), &walk.keys, walk.keys_max.min(keys_max + 1))?;
            let keys = (stored + tree.puts_in(&walk.keys)).min(walk.keys_max);
            largest = largest.max(keys);
            sum = sum.saturating_add(keys);
            if sum - largest > keys_max {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// One pass over a range.
struct Walk {
    keys: KeyRange,
    /// It ends after so many keys.
    keys_max: usize,
}

/// What the operations of a txn visit and what they add.
#[derive(Default)]
struct Tree<'a> {
    walks: Vec<Walk>,
    puts: Vec<&'a [u8]>,
}

impl<'a> Tree<'a> {
    fn of(txn: &'a TxnRequest) -> Self {
        let mut tree = Self::default();
        tree.add(txn);
        tree
    }

    fn add(&mut self, txn: &'a TxnRequest) {
        for compare in &txn.compare {
            self.walk(&compare.key, &compare.range_end, usize::MAX);
        }
        for op in txn.success.iter().chain(&txn.failure) {
            self.add_op(op);
        }
    }

    fn add_op(&mut self, op: &'a RequestOp) {
        match &op.request {
            Some(Request::RequestRange(range)) => {
                let filtered = has_filters(range);
                let limit = fetch_limit(range).filter(|_| !filtered).unwrap_or(usize::MAX);
                // A count is not found out by visiting keys.
                if !range.count_only || filtered {
                    self.walk(&range.key, &range.range_end, limit);
                }
            }
            Some(Request::RequestDeleteRange(delete)) => {
                self.walk(&delete.key, &delete.range_end, usize::MAX);
            }
            Some(Request::RequestPut(put)) => self.puts.push(&put.key),
            Some(Request::RequestTxn(txn)) => self.add(txn),
            None => {}
        }
    }

    fn walk(&mut self, key: &Bytes, range_end: &Bytes, keys_max: usize) {
        if !range_end.is_empty() {
            self.walks.push(Walk { keys: KeyRange::new(key, range_end), keys_max });
        }
    }

    /// Puts of the range; the puts are sorted.
    fn puts_in(&self, keys: &KeyRange) -> usize {
        let from = self.puts.partition_point(|key| *key < keys.lower());
        let to = keys
            .upper()
            .map_or(self.puts.len(), |upper| self.puts.partition_point(|key| *key < upper));
        to.saturating_sub(from)
    }
}

/// Keys stored in a range, deleted ones that were not compacted included: passing them costs as much.
fn stored(reader: Reader<'_>, keys: &KeyRange, keys_max: usize) -> Result<usize, Fatal> {
    let mut cursor = reader.cursor(Cf::Head, keys.upper());
    cursor.seek(keys.lower())?;
    let mut stored = 0;
    while stored < keys_max && cursor.entry()?.is_some() {
        stored += 1;
        cursor.next()?;
    }
    Ok(stored)
}
