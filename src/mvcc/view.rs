//! A consistent moment of the store, to read from. Never changes, never blocks a writer.

use bytes::Bytes;
use quorate_proto::etcdserverpb::{RangeRequest, RangeResponse};
use quorate_proto::mvccpb::KeyValue;

use super::range::{self, Total};
use super::reader::Reader;
use super::store::Position;
use super::{Outcome, settle, write};
use crate::engine::{Cf, EngineError, Snapshot};
use crate::error::Fatal;
use crate::types::{Index, LeaseId, Revision, Term};

/// A snapshot of the engine and where the store stood then. Cheap to clone; holding one keeps deleted
/// data on disk, so do not hold it for long.
#[derive(Clone)]
pub struct View {
    pub(super) snapshot: Snapshot,
    pub(super) position: Position,
}

impl View {
    /// The newest main revision; 1 when nothing was ever written.
    pub fn revision(&self) -> Revision {
        self.position.revision
    }

    /// The newest compaction; -1 when there was none, as etcd reports it.
    pub fn compact_revision(&self) -> Revision {
        self.position.compacted
    }

    /// The raft entry up to which everything is in this view.
    pub fn applied(&self) -> Index {
        self.position.applied
    }

    /// That entry's term.
    pub fn term(&self) -> Term {
        self.position.term
    }

    /// What history takes ([`Position::live_bytes`]).
    pub fn live_bytes(&self) -> u64 {
        self.position.live_bytes
    }

    /// Answers a Range; of the header only the revision is set. The request is valid
    /// ([`check_range`](super::check_range)).
    pub fn range(&self, request: &RangeRequest) -> Outcome<RangeResponse> {
        settle(range::whole(self.reader(), request, Total::Counted))
    }

    /// As [`View::range`], but `count` may be the number of keys returned only.
    pub fn page(&self, request: &RangeRequest) -> Outcome<RangeResponse> {
        settle(range::whole(self.reader(), request, Total::Unneeded))
    }

    /// The newest state of a key, if it is alive.
    pub fn get_head(&self, key: &[u8]) -> Result<Option<KeyValue>, Fatal> {
        let head = self.reader().head(key)?;
        Ok(head.filter(|head| !head.is_tombstone()).map(|head| head.kv))
    }

    /// A value of one of the other parts' buckets.
    pub fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, Fatal> {
        Ok(self.snapshot.get(cf, key)?)
    }

    /// All pairs of a bucket, in key order.
    pub fn scan(
        &self,
        cf: Cf,
    ) -> impl Iterator<Item = Result<(Bytes, Bytes), EngineError>> + Send + use<> {
        self.snapshot.scan(cf, &[], None)
    }

    /// The keys attached to a lease, in order.
    pub fn attached(&self, lease: LeaseId) -> Result<Vec<Bytes>, Fatal> {
        write::attached(self.reader(), lease)
    }

    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        Reader {
            snapshot: &self.snapshot,
            overlay: None,
            revision: self.position.revision.0,
            compacted: self.position.compacted.0,
        }
    }
}
