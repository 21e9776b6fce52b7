//! Consensus around raft-rs.

pub mod core;
mod disk;
mod driver;
mod handle;
mod log;
mod message;
mod outbox;
mod proposals;
mod reads;
mod slog;

#[cfg(test)]
mod driver_tests;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod scripts;

pub use core::Role;
pub use handle::{Committed, Replica, ReplicaConfig, Start, Status, ToApply, Transport, start};
pub use proposals::{Proposal, ProposalKind, Reply};
