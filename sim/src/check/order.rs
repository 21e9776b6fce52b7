//! What follows for revisions from real time: how new a state a call must have met, and how new it can have
//! been. From answers only.

use std::time::Instant;

use crate::facts::evidence::Record;
use crate::facts::history::{Call, Operation};

/// Bounds by time.
pub struct Order {
    /// By time, the newest revision in any answer by then.
    told: Vec<(Instant, i64)>,
    /// By time, the oldest revision that was written by a call that began then or later.
    later: Vec<(Instant, i64)>,
}

impl Order {
    pub fn new(record: &Record) -> Self {
        let answered = || record.operations.iter().filter_map(|op| Some((op, op.revision()?)));
        let about_keys = |op: &Operation| {
            let kinds = matches!(
                op.call,
                Call::Range(..) | Call::Put(..) | Call::Delete(..) | Call::Txn(..)
            );
            kinds.then_some(())
        };
        let mut told: Vec<_> = answered()
            .filter_map(|(op, revision)| about_keys(op).map(|()| (op.ended, revision)))
            .collect();
        told.sort_unstable();
        let mut newest = 1;
        for (_, revision) in &mut told {
            newest = newest.max(*revision);
            *revision = newest;
        }
        let written = answered().filter(|(op, _)| op.call.wrote());
        let mut later: Vec<_> = written.map(|(op, revision)| (op.began, revision)).collect();
        later.sort_unstable();
        let mut oldest = i64::MAX;
        for (_, revision) in later.iter_mut().rev() {
            oldest = oldest.min(*revision);
            *revision = oldest;
        }
        Self { told, later }
    }

    /// The newest revision in any answer before the call began: it is about this state or
    /// a later one, and what it writes is newer.
    pub fn floor(&self, operation: &Operation) -> i64 {
        self.floor_at(operation.began)
    }

    /// The newest revision in any answer before this instant.
    pub fn floor_at(&self, at: Instant) -> i64 {
        let after = self.told.partition_point(|(told, _)| *told < at);
        self.told[..after].last().map_or(1, |(_, revision)| *revision)
    }

    /// The first instant at which an answer had this revision or a newer one.
    pub fn first_told(&self, revision: i64) -> Option<Instant> {
        let at = self.told.partition_point(|(_, told)| *told < revision);
        self.told.get(at).map(|(told, _)| *told)
    }

    /// The states that a call may have met, the first and the last; `newest` is the last there is.
    pub fn window(&self, operation: &Operation, newest: i64) -> (i64, i64) {
        (self.floor(operation), self.ceiling_at(operation.ended, newest))
    }

    /// The newest revision that there can have been at this instant; `newest` is the last there is.
    pub fn ceiling_at(&self, at: Instant, newest: i64) -> i64 {
        let after = self.later.partition_point(|(began, _)| *began <= at);
        self.later.get(after).map_or(newest, |(_, revision)| newest.min(revision - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixture::{Fixture, get, put};

    #[test]
    fn bounds_follow_from_time() {
        let calls = Fixture::default()
            .call(0, 1, put("a", "1", Some(2)))
            .call(2, 9, get("a", 2, vec![]))
            .call(4, 5, put("a", "2", Some(3)))
            .call(10, 11, put("a", "3", Some(7)));
        let order = Order::new(&calls.record);
        let window = |at: usize| order.window(&calls.record.operations[at], 8);
        assert_eq!(window(0), (1, 2));
        assert_eq!(window(1), (2, 6));
        assert_eq!(window(3), (3, 8));
    }
}
