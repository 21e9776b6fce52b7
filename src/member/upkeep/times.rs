//! The times at which this member has seen revisions, for reads of the past that name a time. A few thousand
//! pairs in memory, at most one a second, thinned out with age; they are lost at a restart.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::limits::REVISION_TIMES_MAX;
use crate::member::Member;
use crate::types::Revision;

const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOCK: &str = "nothing panics while it holds the lock";

/// Shared by the task that notes revisions and the requests that look them up.
#[derive(Default)]
pub(in crate::member) struct Times(Mutex<Kept>);

impl Times {
    /// The newest revision that existed at `then`; `None` for a time without a record.
    pub fn revision_at(&self, then: Instant) -> Option<Revision> {
        self.0.lock().expect(LOCK).revision_at(then)
    }
}

/// Notes the present revision for as long as the member runs. Before it is ready the log is still being
/// applied again, and its revision is one of long ago.
pub(super) async fn run(member: Member) {
    if member.ready().await.is_err() {
        return;
    }
    while !member.is_stopping() {
        let (now, revision) = (member.0.env.now(), member.0.store.revision());
        member.0.times.0.lock().expect(LOCK).note(now, revision);
        member.0.env.sleep(LOOK_EVERY).await;
    }
}

/// Moments at which a revision was first seen, the oldest first.
#[derive(Default)]
struct Kept(VecDeque<(Instant, Revision)>);

impl Kept {
    fn note(&mut self, now: Instant, revision: Revision) {
        if self.0.back().is_some_and(|(_, last)| *last == revision) {
            return;
        }
        self.0.push_back((now, revision));
        if self.0.len() > REVISION_TIMES_MAX {
            self.thin();
        }
    }

    /// Drops every second moment of the older half, so that older moments are farther apart. Keeps the first.
    fn thin(&mut self) {
        let half = self.0.len() / 2;
        let mut number = 0;
        self.0.retain(|_| {
            number += 1;
            number > half || number % 2 == 1
        });
    }

    fn revision_at(&self, then: Instant) -> Option<Revision> {
        let after = self.0.partition_point(|(at, _)| *at <= then);
        after.checked_sub(1).map(|last| self.0[last].1)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any instant will do: only differences count")]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_the_revision_that_was_the_newest_then() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut kept = Kept::default();
        for (second, revision) in [(10, 5), (11, 5), (20, 7), (30, 8)] {
            kept.note(at(second), Revision(revision));
        }
        let found = |second| kept.revision_at(at(second)).map(|revision| revision.0);
        assert_eq!(
            [found(9), found(10), found(19), found(20), found(31)],
            [None, Some(5), Some(5), Some(7), Some(8)]
        );
    }

    #[test]
    fn memory_is_bounded_and_the_recent_past_stays_exact() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut kept = Kept::default();
        let last = 20 * REVISION_TIMES_MAX as u64;
        for second in 0..=last {
            kept.note(at(second), Revision(second as i64));
            assert!(kept.0.len() <= REVISION_TIMES_MAX);
        }
        let found = |second| kept.revision_at(at(second)).expect("known").0 as u64;
        assert_eq!(found(last - 100), last - 100);
        // Never a revision from after the time; the first moment is kept.
        assert!((0..=last).step_by(997).all(|second| found(second) <= second));
        assert_eq!(found(0), 0);
    }
}
