//! The client API, from a decoded message to a complete response: methods of [`Member`](super::Member).
//!
//! Reading order: `keys`, `ranges` (reads, and the memory of their responses), `budget` and `stall` (bounds
//! on that memory), `auth` (logins, users, roles), `reconfigure` (membership), `downgrade`, `maintenance`,
//! `defragment`, `slow` (warnings), [`loggable`] (requests in log lines) and `spans` (requests in traces).
//! Requests about leases are in the lessor.

mod auth;
mod budget;
mod defragment;
mod downgrade;
mod keys;
pub mod loggable;
mod maintenance;
mod ranges;
mod reconfigure;
pub(in crate::member) mod slow;
pub(in crate::member) mod spans;
mod stall;

pub use budget::Charge;
pub use ranges::{Chunks, Pages, ReadResponse};

pub(in crate::member) use budget::Budget;
pub(in crate::member) use downgrade::UNDECIDED_VERSION;
pub(in crate::member) use ranges::budget_of;
