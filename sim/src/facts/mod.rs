//! The ground floor: everything known about a run, as data. Checkers read it; workloads, the nemesis and
//! observers add to it; it depends on none of them.
//!
//! Reading order: [`shape`] and [`addresses`] (the cluster), [`request`] and [`history`] (calls and their
//! answers), [`seen`] (observations of members), [`evidence`] (all of it together), [`marks`] (states that
//! should be reached), [`story`] (the run as readable lines), [`verdict`] (violations and the end of a run).

pub mod addresses;
pub mod evidence;
pub mod history;
pub mod marks;
pub mod request;
pub mod seen;
pub mod shape;
pub mod story;
pub mod verdict;
