//! When leases end. Lives in the leader's memory only: a new leader gives every lease its full time
//! again. Pure arithmetic over instants handed in; who asks and what follows is [`super::clockwork`].

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::plant;
use crate::types::{LeaseId, Term};

/// The deadlines of all leases in one leader's term; empty on everyone else.
#[derive(Debug, Default)]
pub struct LeaseClock {
    /// The term these deadlines hold in; `None` while this member does not lead.
    term: Option<Term>,
    deadlines: HashMap<LeaseId, (Instant, Duration)>,
    /// The same, soonest first.
    order: BTreeSet<(Instant, LeaseId)>,
}

impl LeaseClock {
    /// Begins a term as leader with the leases' ids, time left and full time; each gets an election's
    /// time on top, in which its client could not renew.
    pub fn lead(
        &mut self,
        term: Term,
        now: Instant,
        leases: impl IntoIterator<Item = (LeaseId, Duration, Duration)>,
        extra: Duration,
    ) {
        *self = Self { term: Some(term), ..Self::default() };
        for (id, left, ttl) in leases {
            let left = if plant::is("new-leader-cuts-leases") { ttl / 3 } else { left + extra };
            self.set(id, now + left, ttl);
        }
    }

    /// Forgets everything: somebody else leads, or nobody.
    pub fn follow(&mut self) {
        *self = Self::default();
    }

    /// The term this member keeps the time of leases in.
    pub fn term(&self) -> Option<Term> {
        self.term
    }

    pub fn grant(&mut self, now: Instant, id: LeaseId, ttl: Duration) {
        if self.term.is_some() {
            self.set(id, now + ttl, ttl);
        }
    }

    pub fn revoke(&mut self, id: LeaseId) {
        if let Some((deadline, _)) = self.deadlines.remove(&id) {
            self.order.remove(&(deadline, id));
        }
    }

    /// Gives the lease its full time again and tells it; `None` for one that is unknown or over.
    pub fn renew(&mut self, now: Instant, id: LeaseId) -> Option<Duration> {
        let (deadline, ttl) = *self.deadlines.get(&id)?;
        if deadline <= now {
            return None;
        }
        if !plant::is("lease-not-renewed") {
            self.set(id, now + ttl, ttl);
        }
        Some(ttl)
    }

    /// Time left, zero when it is over; `None` for an unknown lease.
    pub fn remaining(&self, now: Instant, id: LeaseId) -> Option<Duration> {
        let (deadline, _) = self.deadlines.get(&id)?;
        Some(deadline.saturating_duration_since(now))
    }

    /// When the lease ends; `None` for an unknown one.
    pub fn deadline(&self, id: LeaseId) -> Option<Instant> {
        self.deadlines.get(&id).map(|(deadline, _)| *deadline)
    }

    /// Leases that are over, soonest first, at most `max`.
    pub fn expired(&self, now: Instant, max: usize) -> Vec<LeaseId> {
        if plant::is("lease-never-ends") {
            return Vec::new();
        }
        let over = self.order.iter().take_while(|(deadline, _)| *deadline <= now);
        over.take(max).map(|(_, id)| *id).collect()
    }

    /// When the next lease ends.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.order.first().map(|(deadline, _)| *deadline)
    }

    fn set(&mut self, id: LeaseId, deadline: Instant, ttl: Duration) {
        self.revoke(id);
        self.deadlines.insert(id, (deadline, ttl));
        self.order.insert((deadline, id));
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any instant will do: only distances matter")]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn leading(now: Instant) -> LeaseClock {
        let mut clock = LeaseClock::default();
        clock.lead(Term(2), now, [(LeaseId(1), 10 * S, 10 * S), (LeaseId(2), 20 * S, 20 * S)], S);
        clock
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
        assert_eq!(clock.renew(now + 10 * S, LeaseId(1)), Some(10 * S));
        assert!(clock.expired(now + 19 * S, 9).is_empty());
        assert_eq!(clock.renew(now + 20 * S, LeaseId(1)), None);
        assert_eq!(clock.renew(now, LeaseId(9)), None);
    }

    #[test]
    fn only_a_leader_keeps_time() {
        let now = Instant::now();
        let mut clock = leading(now);
        clock.follow();
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
}
