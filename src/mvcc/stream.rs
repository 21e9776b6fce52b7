//! A RangeStream: one range read chunk by chunk, each from the state as it is then, all at the
//! revision of the first (etcd 3.7 `server/etcdserver/v3_server.go`). No snapshot is held between two
//! chunks, so a reader may take its time; its revision may be compacted meanwhile, and is refused
//! then, as etcd does it.

use bytes::Bytes;
use quorate_proto::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader};

use super::interval::KeyRange;
use super::range::{self, Scan, after};
use super::reader::Reader;
use super::{Halt, Outcome, View, counts, settle};
use crate::limits::STREAM_CHUNK_KEYS;
use crate::plant;

/// Tests begin small, to meet every edge.
const FIRST_KEYS: usize = if cfg!(test) { 2 } else { STREAM_CHUNK_KEYS };

/// What is left of the range after the chunks so far.
pub struct RangeStream {
    /// Its key and its revision go on with the chunks; its limit is the client's.
    request: RangeRequest,
    /// The present when the stream began; not known before.
    began: Option<i64>,
    sent: i64,
    /// Keys of the next chunk.
    keys: usize,
    /// What a chunk should take.
    bytes: usize,
    /// What the chunk before took.
    last_bytes: usize,
    over: bool,
}

impl RangeStream {
    /// The request is valid ([`check_range_stream`](super::check_range_stream)). Chunks grow or shrink
    /// towards `chunk_bytes`.
    pub fn new(request: RangeRequest, chunk_bytes: usize) -> Self {
        // So many that there is room for one key.
        let (keys, bytes) = (FIRST_KEYS, chunk_bytes.max(8));
        Self { request, began: None, sent: 0, keys, bytes, last_bytes: 0, over: false }
    }

    /// Whether all has been read.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Whether nothing has been read.
    pub fn is_fresh(&self) -> bool {
        self.began.is_none()
    }

    /// What the next chunk takes at most, a last key aside that makes it larger. It should be twice
    /// the one before; etcd knows no bound.
    pub fn bytes_max(&self) -> usize {
        (4 * self.last_bytes).clamp(self.bytes / 8, 2 * self.bytes)
    }

    fn chunk(&mut self, reader: Reader<'_>) -> Result<RangeResponse, Halt> {
        let rev = reader.resolve(self.request.revision)?;
        let began = *self.began.get_or_insert(reader.revision);
        let header = Some(ResponseHeader { revision: began, ..ResponseHeader::default() });
        let keys = KeyRange::new(&self.request.key, &self.request.range_end);
        if self.request.count_only {
            self.over = true;
            let count = counts::count(reader, &keys, rev)?;
            return Ok(RangeResponse { header, count, ..RangeResponse::default() });
        }

        let left = self.left();
        let scan = Scan::new(&self.request, rev);
        let piece = scan.piece(reader, &keys, Some(self.keys.min(left)), self.bytes_max())?;
        let next = piece.kvs.last().filter(|_| piece.more).map(|last| after(&last.key));
        let (mut kvs, more) = (piece.kvs, piece.more);
        self.sent += i64::try_from(kvs.len()).expect("a chunk is in memory");
        range::sort(&mut kvs, &self.request);
        range::strip(&mut kvs, &self.request);
        match next {
            Some(next) if self.left() > 0 => {
                self.go_on(next, rev, piece.bytes);
                Ok(RangeResponse { kvs, ..RangeResponse::default() })
            }
            next => {
                self.over = true;
                let behind = match next {
                    Some(next) => counts::count(reader, &keys.from(next), rev)?,
                    None => 0,
                };
                Ok(RangeResponse { header, kvs, more, count: self.sent + behind })
            }
        }
    }

    /// How many keys the client's limit leaves.
    fn left(&self) -> usize {
        match self.request.limit {
            1.. => usize::try_from(self.request.limit - self.sent).unwrap_or(0),
            _ => usize::MAX,
        }
    }

    /// Where the next chunk begins, and how many keys it has: etcd's rule.
    fn go_on(&mut self, next: Bytes, rev: i64, bytes: usize) {
        self.request.key = next;
        let pinned = !plant::RANGE_STREAM_CHUNK_FROM_LATER_REVISION.is_planted();
        self.request.revision = if pinned { rev } else { 0 };
        self.last_bytes = bytes;
        if bytes < self.bytes / 2 {
            self.keys = self.keys.saturating_mul(2);
        } else if bytes > 2 * self.bytes {
            self.keys = (self.keys / 2).max(1);
        }
    }
}

impl View {
    /// The next chunk of a stream, read from this state. The last one has a header, with the revision
    /// that the stream began at, with the count and whether there is more.
    pub fn range_chunk(&self, stream: &mut RangeStream) -> Outcome<RangeResponse> {
        settle(stream.chunk(self.reader()))
    }
}
