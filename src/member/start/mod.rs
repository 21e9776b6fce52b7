//! How a member starts: what is found on disk decides, by one table, whether it begins a cluster, joins one
//! or goes on where it was.
//!
//! Reading order: [`identity`] (ids), [`first`] (what a new cluster begins with), `owner` (whose data
//! directory it is), `boot` (the table, and the start itself), `join` (how a member finds the cluster that it
//! joins), `alone` (how it goes on without all others).

mod alone;
mod boot;
pub mod first;
pub mod identity;
mod join;
mod owner;

pub(in crate::member) use join::members_at;
