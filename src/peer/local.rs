//! What the peer protocol needs from the member it serves. Only the interface.

use std::io;

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    HashKvResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use quorate_proto::raftpb::{Message, SnapshotMetadata};
use tokio::sync::mpsc;

use crate::env::{BoxFuture, File};
use crate::error::Error;
use crate::types::{LeaseId, MemberId, Revision};

/// The state of an id in a member's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Member,
    /// It was a member and is none any more; it never returns.
    Removed,
    /// Neither: the table may be old.
    Unknown,
    /// No configuration has been applied yet.
    Undecided,
}

/// The member behind the peer port. The functions that return no future must not block: some are
/// called from inside [`super::Transport::send`].
pub trait Local: Send + Sync + 'static {
    /// A raft message for this member, from a member of this cluster that has not been removed.
    /// May drop it when there is no room. A MsgSnap comes after its database has become durable as
    /// [`super::snapshot_path`].
    fn step(&self, message: Message);
    /// A message to `id` was lost.
    fn lost_contact(&self, id: MemberId);
    /// How the last MsgSnap to `id` ended.
    fn snapshot_sent(&self, id: MemberId, ok: bool);
    /// The database to send behind a MsgSnap, as it is now.
    fn snapshot_source(&self) -> BoxFuture<'static, io::Result<SnapshotBody>>;
    /// Whether a database that was received can be the state at `metadata`. Blocks; the reason is logged.
    fn check_database(
        &self,
        database: Box<dyn File>,
        metadata: &SnapshotMetadata,
    ) -> Result<(), String>;
    /// The state of `id` in this member's table.
    fn standing(&self, id: MemberId) -> Standing;
    /// `by` reports that this member has been removed from the cluster: it has to stop. Reported again
    /// until it does.
    fn reported_removed(&self, by: MemberId);

    /// The answer of `/version`: `{"etcdserver":"..","etcdcluster":"..","storage":".."}`.
    fn version_json(&self) -> String;
    /// The answer of `/members`: a JSON array.
    fn members_json(&self) -> String;
    /// Makes a learner a voter. `token` authenticates the client for which a peer calls. The
    /// members afterwards, as JSON.
    fn promote(
        &self,
        id: MemberId,
        token: Option<String>,
    ) -> BoxFuture<'static, Result<String, Error>>;
    /// The hash of the key space at `revision`, 0 being the present one.
    fn hash_kv(&self, revision: Revision) -> BoxFuture<'static, Result<HashKvResponse, Error>>;
    /// Keeps a lease alive; its time to live in seconds.
    fn renew(&self, lease: LeaseId) -> BoxFuture<'static, Result<i64, Error>>;
    fn time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> BoxFuture<'static, Result<LeaseTimeToLiveResponse, Error>>;
    /// Whether a downgrade is under way, linearizably.
    fn downgrade_enabled(&self) -> BoxFuture<'static, Result<bool, Error>>;
}

/// A database on its way to a peer.
#[derive(Debug)]
pub struct SnapshotBody {
    /// The position and membership which the bytes hold; they replace those raft named, which may
    /// be older.
    pub metadata: SnapshotMetadata,
    /// The membership as the v2 store writes it, for releases that recover from it (etcd 3.6 and older).
    pub data: Bytes,
    /// How many bytes will come, where that is known ahead.
    pub total_bytes: Option<u64>,
    /// The database, piece by piece. It is complete when `total_bytes` have come, or, where those
    /// are not known, with an empty piece. A channel that ends before breaks the transfer off: a
    /// producer that died must not pass for one that was done.
    pub chunks: mpsc::Receiver<io::Result<Bytes>>,
}
