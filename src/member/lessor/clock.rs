//! The deadlines of leases and of their checkpoints. Kept in the leader's memory only: a new leader begins
//! with the last checkpoint, or with the full time. Pure arithmetic over the given instants; its callers are
//! [`super::expiry`] and [`super::checkpoint`].
//!
//! No step under the lock grows with the number of leases: a leader's clock is built beside the one in use
//! ([`LeaseClock::leading`]) and replaces it at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb::LeaseCheckpoint;

use crate::plant;
use crate::types::{LeaseId, Term};

/// The deadlines of all leases in one leader's term; empty on other members.
#[derive(Debug, Default)]
pub struct LeaseClock {
    /// The term these deadlines hold in; `None` while this member does not lead.
    term: Option<Term>,
    /// Between two checkpoints of one lease; `None` where there are none.
    interval: Option<Duration>,
    leases: HashMap<LeaseId, Timed>,
    /// By deadline, soonest first.
    order: BTreeSet<(Instant, LeaseId)>,
    /// By the time of the next checkpoint, soonest first.
    checkpoints: BTreeSet<(Instant, LeaseId)>,
    /// Changes since another clock began to be built: granted with a time to live, or revoked.
    changes: Option<BTreeMap<LeaseId, Option<(Instant, Duration)>>>,
}

/// The times of one lease.
#[derive(Clone, Copy, Debug)]
struct Timed {
    deadline: Instant,
    ttl: Duration,
    checkpoint: Option<Instant>,
    mark: Mark,
}

/// The checkpoint in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// There is none: a new leader grants the full time.
    None,
    /// Proposed.
    Sent,
    Kept,
}

/// The result of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Renewed, with this time to live.
    Done(Duration),
    /// There is no such lease, or it has expired.
    Over,
    /// There is a checkpoint, which must be reset first, or a new leader would use it.
    Checkpointed,
    /// A checkpoint has been proposed and cannot be reset before it is applied.
    Checkpointing,
}

impl LeaseClock {
    /// The clock of a leader that begins with the leases' ids, time left and full time; each gets an
    /// election's time on top, in which its client could not renew.
    pub fn leading(
        term: Term,
        now: Instant,
        leases: impl IntoIterator<Item = (LeaseId, Duration, Duration)>,
        extra: Duration,
        interval: Option<Duration>,
    ) -> Self {
        let mut clock = Self { term: Some(term), interval, ..Self::default() };
        for (id, left, ttl) in leases {
            let mark = if left < ttl { Mark::Kept } else { Mark::None };
            let left =
                if plant::NEW_LEADER_CUTS_LEASES.is_planted() { ttl / 3 } else { left + extra };
            clock.set(now, id, Timed { deadline: now + left, ttl, checkpoint: None, mark });
        }
        clock
    }

    /// Records changes from now on, for the clock that [`Self::replace`] will bring.
    pub fn expect_another(&mut self) {
        self.changes = Some(BTreeMap::new());
    }

    /// Replaces this clock by `next`, which has all leases as of [`Self::expect_another`]; returns the old
    /// one.
    pub fn replace(&mut self, mut next: Self) -> Self {
        for (id, change) in self.changes.take().unwrap_or_default() {
            match change {
                None => next.revoke(id),
                Some((granted, ttl)) => next.grant(granted, id, ttl),
            }
        }
        std::mem::replace(self, next)
    }

    /// The term this member keeps the time of leases in.
    pub fn term(&self) -> Option<Term> {
        self.term
    }

    pub fn grant(&mut self, now: Instant, id: LeaseId, ttl: Duration) {
        if let Some(changes) = &mut self.changes {
            changes.insert(id, Some((now, ttl)));
        }
        if self.term.is_some() {
            let timed = Timed { deadline: now + ttl, ttl, checkpoint: None, mark: Mark::None };
            self.set(now, id, timed);
        }
    }

    pub fn revoke(&mut self, id: LeaseId) {
        if let Some(changes) = &mut self.changes {
            changes.insert(id, None);
        }
        self.remove(id);
    }

    /// Gives the lease its full time again, unless a checkpoint has to be reset first.
    pub fn renew(&mut self, now: Instant, id: LeaseId) -> Renewal {
        let Some(timed) = self.leases.get(&id).copied().filter(|timed| timed.deadline > now) else {
            return Renewal::Over;
        };
        match timed.mark {
            Mark::Sent => return Renewal::Checkpointing,
            Mark::Kept if !plant::CHECKPOINT_OUTLIVES_RENEWAL.is_planted() => {
                return Renewal::Checkpointed;
            }
            Mark::Kept | Mark::None => {}
        }
        if !plant::LEASE_NOT_RENEWED.is_planted() {
            self.set(now, id, Timed { deadline: now + timed.ttl, ..timed });
        }
        Renewal::Done(timed.ttl)
    }

    /// Remaining time, zero when it has expired; `None` for an unknown lease.
    pub fn remaining(&self, now: Instant, id: LeaseId) -> Option<Duration> {
        Some(self.leases.get(&id)?.deadline.saturating_duration_since(now))
    }

    /// When the lease ends; `None` for an unknown one.
    pub fn deadline(&self, id: LeaseId) -> Option<Instant> {
        self.leases.get(&id).map(|timed| timed.deadline)
    }

    /// Expired leases, earliest first, at most `max`.
    pub fn expired(&self, now: Instant, max: usize) -> Vec<LeaseId> {
        if plant::LEASE_NEVER_ENDS.is_planted() {
            return Vec::new();
        }
        let over = self.order.iter().take_while(|(deadline, _)| *deadline <= now);
        over.take(max).map(|(_, id)| *id).collect()
    }

    /// When the next lease ends.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.order.first().map(|(deadline, _)| *deadline)
    }

    /// The remaining time of leases whose checkpoint is due, in seconds, rounded up. At most `max` are
    /// examined; they count as proposed until [`Self::checkpointed`].
    pub fn due(&mut self, now: Instant, max: usize) -> Vec<LeaseCheckpoint> {
        let due = self.checkpoints.iter().take_while(|(at, _)| *at <= now).take(max);
        let due: Vec<LeaseId> = due.map(|(_, id)| *id).collect();
        due.into_iter().filter_map(|id| self.checkpoint(now, id)).collect()
    }

    fn checkpoint(&mut self, now: Instant, id: LeaseId) -> Option<LeaseCheckpoint> {
        let timed = *self.leases.get(&id)?;
        let left = timed.deadline.saturating_duration_since(now);
        let left_s = left.as_millis().div_ceil(1000);
        // A lease that was just renewed, or is about to expire, needs none.
        let needed = left_s > 0 && left_s < u128::from(timed.ttl.as_secs());
        let mark = if needed { Mark::Sent } else { timed.mark };
        self.set(now, id, Timed { mark, checkpoint: None, ..timed });
        let remaining_ttl = i64::try_from(left_s).unwrap_or(i64::MAX);
        needed.then_some(LeaseCheckpoint { id: id.0, remaining_ttl })
    }

    /// Proposed checkpoints have been applied, or may have been.
    pub fn checkpointed(&mut self, ids: impl IntoIterator<Item = LeaseId>) {
        for id in ids {
            if let Some(timed) = self.leases.get_mut(&id) {
                timed.mark = Mark::Kept;
            }
        }
    }

    /// The checkpoint of a lease was reset.
    pub fn taken_back(&mut self, id: LeaseId) {
        if let Some(timed) = self.leases.get_mut(&id).filter(|timed| timed.mark == Mark::Kept) {
            timed.mark = Mark::None;
        }
    }

    /// Stores a lease's times. A planned checkpoint is kept; without one, one is planned if enough time
    /// remains.
    fn set(&mut self, now: Instant, id: LeaseId, mut timed: Timed) {
        self.remove(id);
        let left = timed.deadline.saturating_duration_since(now);
        if timed.checkpoint.is_none() {
            timed.checkpoint = self.interval.filter(|pause| left > *pause).map(|pause| now + pause);
        }
        self.leases.insert(id, timed);
        self.order.insert((timed.deadline, id));
        self.checkpoints.extend(timed.checkpoint.map(|at| (at, id)));
    }

    fn remove(&mut self, id: LeaseId) {
        if let Some(timed) = self.leases.remove(&id) {
            self.order.remove(&(timed.deadline, id));
            if let Some(at) = timed.checkpoint {
                self.checkpoints.remove(&(at, id));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any instant will do: only distances matter")]
mod tests {
    use super::*;
    use crate::limits::LEASE_REVOKES_MAX;
    use crate::member::lessor::pace::Pace;

    const S: Duration = Duration::from_secs(1);

    fn leading(now: Instant) -> LeaseClock {
        let leases = [(LeaseId(1), 10 * S, 10 * S), (LeaseId(2), 20 * S, 20 * S)];
        LeaseClock::leading(Term(2), now, leases, S, None)
    }

    #[test]
    fn a_new_leader_gives_full_time_and_an_election() {
        let now = Instant::now();
        let clock = leading(now);
        assert_eq!(clock.remaining(now, LeaseId(1)), Some(11 * S));
        assert!(clock.expired(now + 11 * S - S / 2, 9).is_empty());
        assert_eq!(clock.expired(now + 11 * S, 9), [LeaseId(1)]);
        assert_eq!(clock.next_deadline(), Some(now + 11 * S));
    }

    #[test]
    fn renewal_moves_the_deadline_and_never_revives() {
        let now = Instant::now();
        let mut clock = leading(now);
        assert_eq!(clock.renew(now + 10 * S, LeaseId(1)), Renewal::Done(10 * S));
        assert!(clock.expired(now + 19 * S, 9).is_empty());
        assert_eq!(clock.renew(now + 20 * S, LeaseId(1)), Renewal::Over);
        assert_eq!(clock.renew(now, LeaseId(9)), Renewal::Over);
    }

    #[test]
    fn only_a_leader_keeps_time() {
        let now = Instant::now();
        let mut clock = LeaseClock::default();
        clock.grant(now, LeaseId(3), S);
        assert_eq!(clock.remaining(now, LeaseId(3)), None);
        assert_eq!(clock.next_deadline(), None);
    }

    #[test]
    fn revoked_leases_never_expire() {
        let now = Instant::now();
        let mut clock = leading(now);
        clock.revoke(LeaseId(1));
        assert_eq!(clock.expired(now + 60 * S, 9), [LeaseId(2)]);
    }

    fn due(clock: &mut LeaseClock, now: Instant) -> Vec<(i64, i64)> {
        clock.due(now, 9).iter().map(|c| (c.id, c.remaining_ttl)).collect()
    }

    /// As etcd: none before the interval is over, none for leases that are shorter, one an interval.
    #[test]
    fn checkpoints_are_due_once_an_interval() {
        let now = Instant::now();
        let leases = [(LeaseId(1), 4 * S, 4 * S), (LeaseId(2), 20 * S, 20 * S)];
        let mut clock = LeaseClock::leading(Term(2), now, leases, Duration::ZERO, Some(5 * S));
        assert_eq!(due(&mut clock, now + 4 * S), []);
        assert_eq!(due(&mut clock, now + 5 * S), [(2, 15)]);
        assert_eq!(due(&mut clock, now + 9 * S), []);
        assert_eq!(due(&mut clock, now + 10 * S + S / 2), [(2, 10)]);
        clock.grant(now + 11 * S, LeaseId(3), 9 * S);
        assert_eq!(due(&mut clock, now + 16 * S), [(2, 4), (3, 4)]);
        assert_eq!(due(&mut clock, now + 19 * S), [], "less than an interval is left");
    }

    /// A new leader would end a lease by its checkpoint, whatever the old one has promised since.
    #[test]
    fn a_renewal_waits_until_the_checkpoint_is_reset() {
        let now = Instant::now();
        let leases = [(LeaseId(2), 20 * S, 20 * S)];
        let mut clock = LeaseClock::leading(Term(2), now, leases, Duration::ZERO, Some(5 * S));
        assert_eq!(clock.renew(now + S, LeaseId(2)), Renewal::Done(20 * S));
        assert_eq!(due(&mut clock, now + 6 * S), [(2, 15)]);
        assert_eq!(clock.renew(now + 7 * S, LeaseId(2)), Renewal::Checkpointing);
        clock.checkpointed([LeaseId(2)]);
        assert_eq!(clock.renew(now + 7 * S, LeaseId(2)), Renewal::Checkpointed);
        clock.taken_back(LeaseId(2));
        assert_eq!(clock.renew(now + 7 * S, LeaseId(2)), Renewal::Done(20 * S));
        let inherited = [(LeaseId(2), 3 * S, 20 * S)];
        let mut clock = LeaseClock::leading(Term(3), now, inherited, S, None);
        assert_eq!(clock.remaining(now, LeaseId(2)), Some(4 * S));
        assert_eq!(clock.renew(now, LeaseId(2)), Renewal::Checkpointed, "by an earlier leader");
    }

    #[test]
    fn changes_during_the_construction_of_a_clock_are_kept() {
        let now = Instant::now();
        let mut clock = LeaseClock::default();
        clock.expect_another();
        clock.grant(now + S, LeaseId(3), 5 * S);
        clock.revoke(LeaseId(1));
        clock.grant(now + S, LeaseId(4), 5 * S);
        clock.revoke(LeaseId(4));
        drop(clock.replace(leading(now)));
        assert_eq!(clock.expired(now + 60 * S, 9), [LeaseId(3), LeaseId(2)]);
        assert_eq!(clock.term(), Some(Term(2)));
    }

    /// The length of a step does not depend on how many leases expire together.
    #[test]
    fn leases_that_expire_together_are_revoked_in_steps_of_bounded_length() {
        const LEASES: i64 = 100_000;
        let now = Instant::now();
        let leases = (1..=LEASES).map(|id| (LeaseId(id), S, S));
        let made = LeaseClock::leading(Term(2), now, leases, Duration::ZERO, None);
        let mut clock = LeaseClock::default();
        clock.expect_another();
        clock.replace(made);
        let (mut pace, mut longest, mut steps) = (Pace::default(), 0, 0);
        loop {
            let over = clock.expired(now + S, pace.at_once());
            if over.is_empty() {
                break;
            }
            (longest, steps) = (longest.max(over.len()), steps + 1);
            over.iter().for_each(|id| clock.revoke(*id));
            pace.went(over.len(), Duration::from_millis(2), true);
        }
        assert_eq!(longest, LEASE_REVOKES_MAX);
        assert!(steps <= LEASES as usize / LEASE_REVOKES_MAX + 10, "{steps}");
        assert_eq!((clock.next_deadline(), clock.leases.len()), (None, 0));
    }
}
