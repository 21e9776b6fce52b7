//! Starts and stops the lease clock with leadership, and revokes expired leases.

use std::time::{Duration, Instant};

use futures::future::join_all;
use quorate_proto::etcdserverpb::LeaseRevokeRequest;
use quorate_proto::leasepb::Lease;
use tracing::debug;

use super::clock::LeaseClock;
use super::pace::Pace;
use crate::error::{Error, Refused};
use crate::lease;
use crate::member::Member;
use crate::member::propose::Origin;
use crate::plant;
use crate::replica::Role;
use crate::types::{LeaseId, Term};

/// The longest time between two checks for expired leases.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs the lease clock while this member leads, and revokes expired leases.
pub(super) async fn run(member: Member) {
    let env = &member.0.env;
    let mut status = member.0.replica.status();
    let mut pace = Pace::default();
    while !member.is_stopping() {
        status.mark_unchanged();
        follow_leadership(&member).await;
        let now = env.now();
        let (term, expired, next) = {
            let clock = member.0.lessor.clock();
            (clock.term(), clock.expired(now, pace.at_once()), clock.next_deadline())
        };
        let last = expired.last().copied().filter(|_| plant::REVOKE_BATCH_TAKES_LAST.is_planted());
        let expired: Vec<_> = expired.into_iter().map(|id| last.unwrap_or(id)).collect();
        if let (Some(term), false) = (term, expired.is_empty()) {
            let done = join_all(expired.into_iter().map(|id| expire(&member, id, term))).await;
            let all = done.iter().all(|done| *done);
            pace.went(done.len(), env.now() - now, all);
            if all {
                continue;
            }
        }
        let wake = next.filter(|at| *at > now).map_or(now + PAUSE, |at| at.min(now + PAUSE));
        tokio::select! {
            biased; // A change of leadership stops or starts the clock.
            Ok(()) = status.changed() => {}
            () = env.sleep_until(wake) => {}
        }
    }
}

/// Revokes an expired lease, but only in the term in which it was found expired: a leader that was deposed
/// while it slept must not revoke a lease that its successor has renewed.
async fn expire(member: &Member, id: LeaseId, term: Term) -> bool {
    let revoke = LeaseRevokeRequest { id: id.0 };
    // As root, even if authentication is disabled: it may be enabled by the time the entry is applied.
    let principal = member.auth().root();
    let term = Some(term).filter(|_| !plant::STALE_LEADER_REVOKES.is_planted());
    match member.propose(Origin { principal, term, ..Origin::own() }, revoke).await {
        Ok(_) => {
            debug!(lease = %id, "lease expired");
            member.metrics().leases_expired.inc();
            true
        }
        Err(Error::Refused(Refused::LeaseNotFound)) => {
            member.0.lessor.revoke(id);
            true
        }
        Err(error) => {
            debug!(lease_id = %id, %error, "failed to revoke lease");
            false
        }
    }
}

/// Starts or stops the lease clock when leadership has changed.
async fn follow_leadership(member: &Member) {
    let raft = member.raft();
    let lessor = &member.0.lessor;
    if raft.role != Role::Leader {
        if lessor.clock().term().is_some() {
            lessor.replace(LeaseClock::default());
        }
        return;
    }
    if lessor.clock().term() == Some(raft.term) {
        return;
    }
    // Once a read index of this term is applied, so are all entries of earlier leaders.
    if member.linearizable().await.is_err() || member.raft().term != raft.term {
        return;
    }
    // No grant is missed between the view and the clock: the applier adds a grant to the clock after it has
    // become visible.
    lessor.clock().expect_another();
    let (view, now) = (member.0.store.view(), member.0.env.now());
    let (term, options) = (raft.term, &member.0.options);
    let (extra, interval) = (options.election_timeout, options.lease_checkpoint_interval);
    let make = move || lease::list(&view).map(|stored| leading(term, now, stored, extra, interval));
    let made = member.0.env.blocking("leases", make).await;
    let made = made.unwrap_or_else(|fatal| {
        member.0.signals.stop_with(fatal);
        LeaseClock::default()
    });
    // A clock for an older term is discarded.
    let current = made.term() == Some(member.raft().term);
    lessor.replace(if current { made } else { LeaseClock::default() });
}

/// The lease clock of a leader, with the stored leases.
fn leading(
    term: Term,
    now: Instant,
    stored: Vec<Lease>,
    extra: Duration,
    interval: Option<Duration>,
) -> LeaseClock {
    let known = stored.into_iter().filter(|_| !plant::LEASE_FORGOTTEN.is_planted());
    let leases = known.map(|lease| {
        let kept = lease.remaining_ttl > 0 && !plant::LEASE_CHECKPOINT_FORGOTTEN.is_planted();
        let left = if kept { lease.remaining_ttl } else { lease.ttl };
        (LeaseId(lease.id), seconds(left), seconds(lease.ttl))
    });
    LeaseClock::leading(term, now, leases, extra, interval)
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}
