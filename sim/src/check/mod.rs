//! Checkers of a run, one a file. None shares code with the server but the wire types, and none trusts
//! what the server reports about itself.
//!
//! | checker | question |
//! |---|---|
//! | [`replay`] [`past`] [`refusals`] | are all answers explained by one order of all writes? |
//! | [`search`] | the same without revisions and log, by search |
//! | [`monotonic`] [`serializable`] [`durability`] | does nothing go back, is nothing made up, is nothing lost? |
//! | [`watches`] [`leases`] | are watchers and lease holders served what there is, in time? |
//! | [`headers`] | is an answer's revision that of its effect? |
//! | [`raft`] | one leader a term, logs that match, nothing committed lost, nothing goes back |
//! | [`equal`] | are members the same where they report the same place? |
//! | [`corruption`] | is the member that differs accused, and no other? |
//! | [`backups`] | is what a restored backup serves a moment of the history? |
//! | [`quota`] | do members stay within their quota, and does its alarm stand for a reason? |
//! | [`versions`] | is the version what it is to be, and the same on all members? |
//! | [`spans`] | do the spans of a call fit together? |
//! | [`queues`] [`logs`] | is memory bounded, is nothing logged as an error? |
//!
//! Two files are no checkers: [`space`] is the key space at every revision, [`model`] what each request
//! does to it. [`order`] has what follows from real time. What lies on members' disks is checked by
//! [`crate::offline`].

pub mod backups;
pub mod corruption;
pub mod durability;
pub mod equal;
pub(crate) mod findings;
#[cfg(test)]
pub(crate) mod fixture;
pub mod headers;
pub mod leases;
pub mod logs;
pub mod model;
pub mod monotonic;
pub mod order;
pub mod past;
pub mod queues;
pub mod quota;
pub mod raft;
pub mod refusals;
pub mod replay;
pub mod search;
pub mod serializable;
pub mod space;
pub mod spans;
pub mod versions;
pub mod watches;

pub(crate) use findings::{bounded, said_at};

use crate::facts::evidence::Record;
use crate::facts::verdict::Violation;

/// Runs every checker on what was recorded.
pub fn all(record: &Record) -> Vec<Violation> {
    let checkers = [
        replay::check,
        search::check,
        monotonic::check,
        refusals::check,
        past::check,
        serializable::check,
        watches::check,
        leases::check,
        headers::check,
        durability::check,
        raft::check,
        equal::check,
        corruption::check,
        backups::check,
        quota::check,
        versions::check,
        spans::check,
        queues::check,
        logs::check,
    ];
    let mut violations = record.violations.clone();
    violations.extend(checkers.into_iter().flat_map(|checker| checker(record)));
    violations
}
