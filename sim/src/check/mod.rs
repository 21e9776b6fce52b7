//! Judges of a run, one a file. None shares code with the server but the wire types, and none trusts
//! what the server says about itself.

pub mod leases;
pub mod replay;
pub mod watches;
