//! What clients ask for, from a decoded message to a complete answer. The edge calls these methods of
//! [`Member`](super::Member).
//!
//! Reading order: `keys`, `ranges` (reads, and the memory that their answers take), `budget` and `stall` (who
//! may hold that memory, and for how long), `auth` (logins, users, roles), `reconfigure` (membership),
//! `downgrade`, `maintenance`, `slow` (what took too long), [`loggable`] (how requests are logged) and `spans`
//! (how they are traced). Requests about leases are in the lessor.

mod auth;
mod budget;
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
