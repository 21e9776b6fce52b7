//! The ground floor: what there is to know about a run, as data. Checkers read it, workloads, the nemesis and
//! observers add to it; nothing here knows any of them.
//!
//! Reading order: [`shape`] and [`addresses`] (the cluster), [`request`] and [`history`] (what clients
//! called and what was answered), [`seen`] (what observers saw of members), [`evidence`] (all of it
//! together), [`marks`] (states that ought to be reached), [`story`] (the same for people), [`verdict`] (violations and the end of a run).

pub mod addresses;
pub mod evidence;
pub mod history;
pub mod marks;
pub mod request;
pub mod seen;
pub mod shape;
pub mod story;
pub mod verdict;
