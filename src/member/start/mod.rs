//! The start of a member: it begins a cluster, joins one or restarts, by what is found on disk.
//!
//! Reading order: [`identity`] (ids), [`first`] (the beginning of a cluster), `owner` (the owner of a data
//! directory), `folders` (created durably), `boot` (the decision, and the start itself), `join` (how a member
//! finds the cluster that it joins), `alone` (`--force-new-cluster`).

mod alone;
mod boot;
pub mod first;
mod folders;
pub mod identity;
mod join;
mod owner;

pub(in crate::member) use join::{members_at, peer_urls};
