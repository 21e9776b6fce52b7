//! Consensus around raft-rs.
