//! etcd's peer protocol, in both directions, over HTTP/1.1. Members find in it what etcd members
//! find: the same paths, headers, status codes, texts and bytes (etcd 3.7,
//! `server/etcdserver/api/rafthttp`, `etcdhttp/peer.go`, `lease/leasehttp`). What a message means
//! is not known here: it goes to, and comes from, the member behind [`Local`].
//!
//! Four ways lead to a peer:
//!
//! * Two *streams*, one for MsgApp and one for the rest. The receiver dials and the sender answers
//!   with a response that never ends, so a member writes its messages into requests its peers made.
//!   Each end keeps one stream of each kind per peer; a new one replaces the old.
//! * The *pipeline*: one POST per message, a few at a time. Only while a stream is not there.
//! * The *snapshot* POST: a MsgSnap followed by the bytes of the whole database.
//!
//! Invariants:
//! * [`Transport::send`] never waits. A message that finds no room is dropped and the peer reported
//!   unreachable; raft sends it again.
//! * Every MsgSnap given to `send` is answered by exactly one [`Local::snapshot_sent`].
//! * A MsgSnap reaches [`Local::step`] only after its database is durable under its final name.
//! * Messages from another cluster, from a sender that is no member of this one, or for another member
//!   never reach [`Local::step`].
//! * Everything that waits for a peer has a time limit.
//!
//! Reading order: [`local`] (what a member provides), [`transport`] (the handle), `link` (one peer:
//! routing, status), `stream_codec`, `stream_out`, `stream_in`, `pipeline`, `snapshot_out`,
//! `snapshot_in`, `server` (the peer port), `routes` (its paths that do not concern raft),
//! `identity` (headers), `vouch` (unknown senders), `client` (requests), `calls` (calls between members
//! beside raft), `prober`, `stats`; `body`, `stall` and `rfc3339` are small parts.

mod body;
mod calls;
mod client;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod identity;
mod link;
mod local;
mod pipeline;
mod prober;
mod rfc3339;
mod routes;
mod server;
mod snapshot_in;
mod snapshot_out;
mod stall;
mod stats;
mod stream_codec;
mod stream_in;
mod stream_out;
mod transport;
mod vouch;

pub use calls::CallError;
pub use client::{Client, HttpAnswer};
pub use identity::{Identity, MIN_CLUSTER_VERSION, SERVER_VERSION};
pub use local::{Local, SnapshotBody, Standing};
pub use snapshot_in::{remove_leftovers, remove_received, snapshot_path};
pub use stats::{Counter, Histogram, ROUND_TRIP_FIRST, SNAPSHOT_FIRST, Stats};
pub use transport::{Patience, PeerConfig, Transport};

#[cfg(test)]
mod tests;
