//! Ranges whose answers are too large to be built at once: what the answer will take is found out
//! first, then its keys are read page by page, both from one moment. No encoding, no clients.

use bytes::Bytes;
use quorate_proto::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader};
use quorate_proto::mvccpb::KeyValue;

use super::interval::KeyRange;
use super::range::{self, Scan, Total, after};
use super::{Halt, Outcome, View, counts, settle};
use crate::error::Fatal;
use crate::plant;

/// An answer, or the way to one.
pub enum Ranged {
    Whole(RangeResponse),
    Paged(Pages),
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
    /// What the look at the size has read already.
    first: Vec<KeyValue>,
    /// Where the rest begins, and how many keys of it the limit allows.
    rest: Option<(Bytes, usize)>,
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

    /// As [`View::range`]; an answer whose keys take more than `page_bytes` comes in pages. One that
    /// must be sorted does not.
    pub fn range_paged(&self, request: &RangeRequest, page_bytes: usize) -> Outcome<Ranged> {
        settle(self.paged(request, page_bytes))
    }

    fn within(
        &self,
        request: &RangeRequest,
        bytes_max: usize,
    ) -> Result<Option<RangeResponse>, Halt> {
        range::range(self.reader(), request, Total::Counted, bytes_max)
    }

    fn paged(&self, request: &RangeRequest, page_bytes: usize) -> Result<Ranged, Halt> {
        let reader = self.reader();
        if request.count_only || range::is_sorted(request) {
            return Ok(Ranged::Whole(range::whole(reader, request, Total::Counted)?));
        }
        let rev = reader.resolve(request.revision)?;
        let keys = KeyRange::new(&request.key, &request.range_end);
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
        let limit = limit.unwrap_or(usize::MAX);
        let scan = Scan::new(request, rev);
        let first = scan.piece(reader, &keys, Some(limit), page_bytes)?;
        let left = limit - first.kvs.len();
        let next = first.kvs.last().filter(|_| first.more && left > 0).map(|last| after(&last.key));
        let (mut bytes, mut seen, mut more) = (first.bytes as u64, first.seen, first.more);
        if let Some(next) = next.clone() {
            let size = scan.measure(reader, &keys.from(next), left)?;
            bytes += size.bytes;
            seen += size.seen;
            more = size.more;
        }
        let count = if more { counts::count(reader, &keys, rev)? } else { seen };
        let header =
            Some(ResponseHeader { revision: reader.revision, ..ResponseHeader::default() });
        let more = more && !plant::is("more-forgotten");
        let frame = RangeResponse { header, kvs: Vec::new(), more, count };
        let Some(next) = next else {
            return Ok(Ranged::Whole(RangeResponse { kvs: first.kvs, ..frame }));
        };
        Ok(Ranged::Paged(Pages {
            view: self.clone(),
            request: request.clone(),
            rev,
            frame,
            bytes,
            first: first.kvs,
            rest: Some((next, left)),
        }))
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

    /// The next keys, of about `page_bytes`; none when all have been given. Blocks.
    pub fn next(&mut self, page_bytes: usize) -> Result<Vec<KeyValue>, Fatal> {
        if !self.first.is_empty() {
            return Ok(std::mem::take(&mut self.first));
        }
        let Some((start, left)) = self.rest.take() else { return Ok(Vec::new()) };
        let keys = KeyRange::new(&self.request.key, &self.request.range_end).from(start);
        let scan = Scan::new(&self.request, self.rev);
        let page = scan.piece(self.view.reader(), &keys, Some(left), page_bytes)?;
        let left = left - page.kvs.len();
        let next = page.kvs.last().filter(|_| page.more && left > 0).map(|last| after(&last.key));
        self.rest = next.map(|next| (next, left));
        Ok(page.kvs)
    }
}
