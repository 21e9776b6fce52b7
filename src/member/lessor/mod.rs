//! The lessor: when leases end. The time of leases is kept in the leader's memory only; what is replicated
//! of them is [`crate::lease`]. The leader proposes to revoke an expired lease, in exactly the term in which
//! it was found expired.
//!
//! Reading order: this file (shared state), `clock` (deadlines, pure arithmetic), `expiry` (starts the clock
//! with leadership, revokes expired leases), `pace` (how many at a time), `checkpoint` (the remaining time of
//! long leases is replicated), `requests` (the client API).

mod checkpoint;
mod clock;
mod expiry;
mod pace;
mod requests;

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::member::Member;
use crate::types::LeaseId;
use clock::LeaseClock;

/// The lease clock of this member, which runs while it leads.
#[derive(Default)]
pub(in crate::member) struct Lessor {
    clock: Mutex<LeaseClock>,
    changed: Notify,
}

/// Starts the lessor's tasks.
pub(in crate::member) fn start(member: &Member) {
    let env = member.env();
    env.spawn("leases", expiry::run(member.clone()));
    if member.0.options.lease_checkpoint_interval.is_some() {
        env.spawn("lease checkpoints", checkpoint::run(member.clone()));
    }
}

impl Lessor {
    /// A lease was granted for `ttl_s` seconds.
    pub fn grant(&self, now: Instant, id: LeaseId, ttl_s: i64) {
        self.clock().grant(now, id, Duration::from_secs(u64::try_from(ttl_s).unwrap_or(0)));
    }

    /// A lease was revoked.
    pub fn revoke(&self, id: LeaseId) {
        self.clock().revoke(id);
        self.changed.notify_waiters();
    }

    fn clock(&self) -> MutexGuard<'_, LeaseClock> {
        self.clock.lock().expect("nothing panics while it holds the clock")
    }

    /// Replaces the clock. The old one may be large, so it is dropped outside of the lock.
    fn replace(&self, next: LeaseClock) {
        let old = self.clock().replace(next);
        self.changed.notify_waiters();
        drop(old);
    }

    /// Checkpoints that were on their way have come to the log, or may have.
    fn checkpointed(&self, ids: Vec<LeaseId>) {
        self.clock().checkpointed(ids);
        self.changed.notify_waiters();
    }

    /// Ready when a lease has ended or was checkpointed, or the clock was replaced, after this call.
    fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }
}
