//! Consensus around raft-rs.

pub mod core;
mod log;
mod message;
mod outbox;
mod slog;
