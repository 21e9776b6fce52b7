//! Auto-compaction: the leader proposes compactions by age or by number of revisions, at etcd's intervals
//! (3.7, `server/etcdserver/api/v3compactor`). The decisions are made without a clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb::CompactionRequest;
use tracing::{info, warn};

use crate::member::{Caller, Member};

use crate::codec::go_duration;
use crate::error::{Error, Refused};
use crate::plant;
use crate::replica::Role;

const HOUR: Duration = Duration::from_secs(3600);
/// How often a retention by number is checked.
const COUNT_PAUSE: Duration = Duration::from_secs(5 * 60);
/// Checks within one interval of a retention by age.
const LOOKS: u32 = 10;

/// The retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Keeps the revisions of this period.
    Age(Duration),
    /// Keeps so many revisions.
    Count(i64),
}

impl AutoCompaction {
    /// The mode as etcd names it, and what is kept.
    fn logged(self) -> (&'static str, String) {
        match self {
            Self::Age(age) => ("periodic", go_duration(age)),
            Self::Count(revisions) => ("revision", revisions.to_string()),
        }
    }
}

/// Observes revisions and compacts for as long as the member runs. Every member observes, so that a new
/// leader has the history of revisions.
pub(in crate::member) async fn run(member: Member, mode: AutoCompaction) {
    let mut compactor = Compactor::new(mode, member.0.env.now());
    while !member.is_stopping() {
        compactor.look(member.header().revision);
        member.0.env.sleep(compactor.pause()).await;
        if member.raft().role != Role::Leader {
            continue;
        }
        let revision = member.header().revision;
        let Some(target) = compactor.target(member.0.env.now(), revision) else { continue };
        let (what, kept) = mode.logged();
        info!(revision = target, kept, "starting auto {what} compaction");
        let began = member.0.env.now();
        let request = CompactionRequest { revision: target, physical: false };
        match member.compact(&Caller::internal(), request).await {
            Ok(_) | Err(Error::Refused(Refused::Compacted)) => {
                compactor.compacted(member.0.env.now(), target);
                let took = go_duration(member.0.env.now() - began);
                info!(revision = target, kept, took, "completed auto {what} compaction");
            }
            Err(error) => {
                warn!(revision = target, kept, %error, "failed auto {what} compaction");
            }
        }
    }
}

/// Observed revisions, and the last compaction.
struct Compactor {
    mode: AutoCompaction,
    /// By age: the revision at each check, the oldest first; complete when the first is as old as the
    /// retention.
    seen: VecDeque<i64>,
    last: i64,
    since: Instant,
    /// The first compaction waits for the whole time, the next for an hour at most.
    first: bool,
}

impl Compactor {
    fn new(mode: AutoCompaction, now: Instant) -> Self {
        Self { mode, seen: VecDeque::new(), last: 0, since: now, first: true }
    }

    fn pause(&self) -> Duration {
        match self.mode {
            AutoCompaction::Age(age) => (age.min(HOUR) / LOOKS).max(Duration::from_millis(1)),
            AutoCompaction::Count(_) => COUNT_PAUSE,
        }
    }

    fn look(&mut self, revision: i64) {
        let AutoCompaction::Age(age) = self.mode else { return };
        let kept = age.as_nanos() / self.pause().as_nanos() + 1;
        self.seen.push_back(revision);
        if self.seen.len() as u128 > kept {
            self.seen.pop_front();
        }
    }

    /// The revision to compact now, if it is time and there is anything new to forget.
    fn target(&self, now: Instant, revision: i64) -> Option<i64> {
        let target = match self.mode {
            AutoCompaction::Age(age) => {
                let interval = if self.first { age } else { age.min(HOUR) };
                let due = now.saturating_duration_since(self.since) >= interval;
                let due = due && (self.first || !plant::PAST_ENDS_ONCE.is_planted());
                let oldest = match plant::AGE_OF_THE_PAST_IGNORED.is_planted() {
                    true => self.seen.back(),
                    false => self.seen.front(),
                };
                *oldest.filter(|_| due)?
            }
            AutoCompaction::Count(kept) => revision - kept,
        };
        (target > 0 && target != self.last).then_some(target)
    }

    fn compacted(&mut self, now: Instant, revision: i64) {
        self.last = revision;
        self.since = now;
        self.first = false;
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any instant will do: only differences count")]
mod tests {
    use super::*;

    /// Plays a day in which every minute makes a revision, 0 the first, and returns
    /// `(minute, compacted)`.
    fn day(mode: AutoCompaction) -> Vec<(u64, i64)> {
        let start = Instant::now();
        let mut compactor = Compactor::new(mode, start);
        let (mut now, mut compacted) = (start, Vec::new());
        let minute = |now: Instant| (now - start).as_secs() / 60;
        while minute(now) < 24 * 60 {
            compactor.look(minute(now) as i64);
            now += compactor.pause();
            if let Some(target) = compactor.target(now, minute(now) as i64) {
                compactor.compacted(now, target);
                compacted.push((minute(now), target));
            }
        }
        compacted
    }

    #[test]
    fn an_age_of_ten_minutes_is_kept_every_ten_minutes() {
        let compacted = day(AutoCompaction::Age(Duration::from_secs(600)));
        assert_eq!(compacted[..3], [(12, 1), (22, 11), (32, 21)]);
    }

    #[test]
    fn an_age_of_six_hours_is_kept_every_hour_from_the_first_six_on() {
        let compacted = day(AutoCompaction::Age(6 * HOUR));
        assert_eq!(compacted[..3], [(372, 6), (432, 66), (492, 126)]);
    }

    #[test]
    fn a_number_is_kept_every_five_minutes() {
        let compacted = day(AutoCompaction::Count(100));
        assert_eq!(compacted[..3], [(105, 5), (110, 10), (115, 15)]);
        assert!(day(AutoCompaction::Count(24 * 60)).is_empty());
    }

    #[test]
    fn what_was_compacted_is_not_compacted_again() {
        let start = Instant::now();
        let mut compactor = Compactor::new(AutoCompaction::Count(10), start);
        assert_eq!(compactor.target(start, 30), Some(20));
        compactor.compacted(start, 20);
        assert_eq!(compactor.target(start, 30), None);
    }
}
