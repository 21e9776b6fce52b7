//! Ranges whose answers are too large to be built at once, alone or in a txn: what the answer will take
//! is found out first, then its keys are read page by page, both from one moment. No encoding, no
//! clients.

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    RangeRequest, RangeResponse, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
    response_op::Response,
};
use quorate_proto::mvccpb::KeyValue;

use super::interval::KeyRange;
use super::range::{self, Room, Scan, Total, after};
use super::sorted::Sorted;
use super::{Halt, Outcome, View, counts, settle, txn};
use crate::error::Fatal;
use crate::plant;

/// An answer, or the way to one.
pub enum Ranged {
    Whole(RangeResponse),
    Paged(Box<Pages>),
}

/// The answer of a txn that only reads.
pub struct TxnRead {
    /// Without the keys that come in pages.
    pub response: TxnResponse,
    /// Which of its responses these are, in their order.
    pub pages: Vec<(usize, Pages)>,
}

/// The keys of an answer that are still to be read. Holds its moment: see [`View`].
pub struct Pages {
    view: View,
    request: RangeRequest,
    rev: i64,
    /// Everything but the keys.
    frame: RangeResponse,
    /// What its keys take in the answer.
    bytes: u64,
    rest: Rest,
}

/// What comes next.
enum Rest {
    /// What the look at the size has read already, then keys in their order: from where on, and how
    /// many of them the limit allows.
    Scan(Vec<KeyValue>, Bytes, usize),
    Sorted(Sorted),
    Nothing,
}

/// What one answer may take in memory before it is read in pages, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    pub page: usize,
    /// To put its keys in order.
    pub sort: usize,
}

impl View {
    /// As [`View::range`], but none when the keys of the answer take more than `bytes_max`.
    pub fn range_within(
        &self,
        request: &RangeRequest,
        bytes_max: usize,
    ) -> Outcome<Option<RangeResponse>> {
        settle(self.within(request, bytes_max))
    }

    /// As [`View::range`]; an answer whose keys take more than a page comes in pages. One that must be
    /// sorted does when there is no room to do it at once.
    pub fn range_paged(&self, request: &RangeRequest, share: Share) -> Outcome<Ranged> {
        settle(self.paged(request, share))
    }

    /// Answers a Txn that only reads ([`is_read_only`](super::is_read_only)); none when the keys of the
    /// answer take more than `bytes_max`.
    pub fn txn_within(
        &self,
        request: &TxnRequest,
        bytes_max: usize,
    ) -> Outcome<Option<TxnResponse>> {
        settle(self.txn_whole(request, bytes_max))
    }

    /// As [`View::txn_within`]; what is large of the answer comes in pages. `share` is for all ranges
    /// together.
    pub fn txn_paged(&self, request: &TxnRequest, share: Share) -> Outcome<TxnRead> {
        settle(self.txn_in_pages(request, share))
    }

    fn within(
        &self,
        request: &RangeRequest,
        bytes_max: usize,
    ) -> Result<Option<RangeResponse>, Halt> {
        range::range(self.reader(), request, Total::Counted, Room::of_bytes(bytes_max))
    }

    fn paged(&self, request: &RangeRequest, share: Share) -> Result<Ranged, Halt> {
        let reader = self.reader();
        if request.count_only {
            return Ok(Ranged::Whole(range::whole(reader, request, Total::Counted)?));
        }
        if range::is_sorted(request) {
            return self.sorted(request, share.sort);
        }
        let rev = reader.resolve(request.revision)?;
        let keys = KeyRange::new(&request.key, &request.range_end);
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
        let limit = limit.unwrap_or(usize::MAX);
        let scan = Scan::new(request, rev);
        let first = scan.piece(reader, &keys, Some(limit), share.page)?;
        let left = limit - first.kvs.len();
        let next = first.kvs.last().filter(|_| first.more && left > 0).map(|last| after(&last.key));
        let (mut bytes, mut seen, mut more) = (first.bytes as u64, first.seen, first.more);
        if let Some(next) = next.clone() {
            let size = scan.measure(reader, &keys.from(next), left, u64::MAX)?;
            bytes += size.bytes;
            seen += size.seen;
            more = size.more;
        }
        let count = if more { counts::count(reader, &keys, rev)? } else { seen };
        let frame = self.frame(more, count);
        let Some(next) = next else {
            return Ok(Ranged::Whole(RangeResponse { kvs: first.kvs, ..frame }));
        };
        let rest = Rest::Scan(first.kvs, next, left);
        Ok(Ranged::Paged(Box::new(Pages {
            view: self.clone(),
            request: request.clone(),
            rev,
            frame,
            bytes,
            rest,
        })))
    }

    fn sorted(&self, request: &RangeRequest, memory: usize) -> Result<Ranged, Halt> {
        let (reader, room) = (self.reader(), Room::in_memory(memory));
        if let Some(whole) = range::range(reader, request, Total::Counted, room)? {
            return Ok(Ranged::Whole(whole));
        }
        let rev = reader.resolve(request.revision)?;
        let keys = KeyRange::new(&request.key, &request.range_end);
        let scan = Scan::new(request, rev);
        let (sorted, size) = Sorted::new(&scan, reader, keys.clone(), memory / 2)?;
        let count = size.seen.map_or_else(|| counts::count(reader, &keys, rev), Ok)?;
        Ok(Ranged::Paged(Box::new(Pages {
            view: self.clone(),
            request: request.clone(),
            rev,
            frame: self.frame(size.more, count),
            bytes: size.bytes,
            rest: Rest::Sorted(sorted),
        })))
    }

    fn frame(&self, more: bool, count: i64) -> RangeResponse {
        let revision = self.reader().revision;
        let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
        let more = more && !plant::MORE_FORGOTTEN.is_planted();
        RangeResponse { header, kvs: Vec::new(), more, count }
    }

    fn txn_whole(
        &self,
        request: &TxnRequest,
        bytes_max: usize,
    ) -> Result<Option<TxnResponse>, Halt> {
        let chosen = txn::choose(self.reader(), request)?;
        let (mut left, mut responses) = (bytes_max, Vec::new());
        for range in &chosen.ranges {
            // It is read and encoded: twice the memory that its bytes take.
            let room = Room::in_memory(left.saturating_mul(4));
            let Some(answer) = range::range(self.reader(), range, Total::Counted, room)? else {
                return Ok(None);
            };
            let bytes = answer.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
            left = left.saturating_sub(bytes);
            responses.push(ResponseOp { response: Some(Response::ResponseRange(answer)) });
        }
        Ok(Some(chosen.answer(self.reader(), responses)))
    }

    fn txn_in_pages(&self, request: &TxnRequest, share: Share) -> Result<TxnRead, Halt> {
        let chosen = txn::choose(self.reader(), request)?;
        let ranges = chosen.ranges.len().max(1);
        let share = Share { page: share.page / ranges, sort: share.sort / ranges };
        let (mut responses, mut pages) = (Vec::new(), Vec::new());
        for (n, range) in chosen.ranges.iter().enumerate() {
            let answer = match self.paged(range, share)? {
                Ranged::Whole(answer) => answer,
                Ranged::Paged(paged) => {
                    let frame = paged.frame().clone();
                    pages.push((n, *paged));
                    frame
                }
            };
            responses.push(ResponseOp { response: Some(Response::ResponseRange(answer)) });
        }
        Ok(TxnRead { response: chosen.answer(self.reader(), responses), pages })
    }
}

impl Pages {
    /// The answer without its keys; of the header only the revision is set.
    pub fn frame(&self) -> &RangeResponse {
        &self.frame
    }

    /// What all keys take in the answer, as its field 2.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is held in memory until the last page, roughly, a page aside.
    pub fn held(&self) -> usize {
        match &self.rest {
            Rest::Sorted(sorted) => sorted.held(),
            Rest::Scan(..) | Rest::Nothing => 0,
        }
    }

    /// The next keys, of about `page_bytes`; none when all have been given. Blocks.
    pub fn next(&mut self, page_bytes: usize) -> Result<Vec<KeyValue>, Fatal> {
        let scan = Scan::new(&self.request, self.rev);
        let (start, left) = match &mut self.rest {
            Rest::Nothing => return Ok(Vec::new()),
            Rest::Sorted(sorted) => return sorted.page(&scan, self.view.reader(), page_bytes),
            Rest::Scan(first, ..) if !first.is_empty() => return Ok(std::mem::take(first)),
            Rest::Scan(_, start, left) => (std::mem::take(start), *left),
        };
        let keys = KeyRange::new(&self.request.key, &self.request.range_end).from(start);
        let page = scan.piece(self.view.reader(), &keys, Some(left), page_bytes)?;
        let left = left - page.kvs.len();
        let next = page.kvs.last().filter(|_| page.more && left > 0).map(|last| after(&last.key));
        self.rest = next.map_or(Rest::Nothing, |next| Rest::Scan(Vec::new(), next, left));
        Ok(page.kvs)
    }
}
