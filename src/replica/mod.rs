//! Consensus around raft-rs.

pub mod core;
mod log;
mod message;
mod outbox;
mod slog;

#[cfg(test)]
mod harness;
#[cfg(test)]
mod scripts;
