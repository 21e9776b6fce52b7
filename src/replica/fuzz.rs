//! What foreign bytes reach here, for fuzzing.

use quorate_proto::raftpb;

use super::message;

/// A message of a peer's, on its way to raft; what is taken keeps its entries.
pub fn take(from_peer: raftpb::Message) {
    let entries = from_peer.entries.len();
    if let Ok(message) = message::from_wire(from_peer) {
        assert_eq!(message.entries.len(), entries);
        drop(message::to_wire(message));
    }
}
