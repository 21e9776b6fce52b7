//! All that happens because time passed: leases that end, this member's announcement of itself, the
//! cluster's version. Each is a proposal through the front door; the decisions are small and the
//! state they change is changed by apply.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use quorate_proto::etcdserverpb::LeaseRevokeRequest;
use quorate_proto::leasepb::Lease;
use quorate_proto::membershippb::{
    Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest,
};
use tracing::{debug, info, warn};

use super::Member;
use super::clock::LeaseClock;
use super::pace::Pace;
use super::propose::Origin;
use crate::apply::membership::Membership;
use crate::error::{Error, Fatal, Refused, Removed};
use crate::latest;
use crate::lease;
use crate::plant;
use crate::replica::Role;
use crate::types::{LeaseId, MemberId, Term};

/// The longest time between two looks at the leases.
const LEASE_PAUSE: Duration = Duration::from_millis(500);
/// Between a member's own removal and its end, as etcd has it, and between two looks whether it is
/// still needed.
const REMOVAL_PAUSE: Duration = Duration::from_secs(1);
/// How long a removed member waits for others to let it go.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(30);
/// How often a leader looks whether the cluster's version can rise.
const VERSION_PAUSE: Duration = Duration::from_secs(4);

/// Proposes this member's name and client URLs until the cluster has taken them. A member that joins
/// may hear of that by a leader's snapshot, which answers no proposals. What it has heard may as well
/// be an old entry of its own log, from before it was started again: only the leader's word for its
/// being up to date makes it serve.
pub(super) async fn publish(member: Member) {
    let options = &member.0.options;
    let request = ClusterMemberAttrSetRequest {
        member_id: member.id().0,
        member_attributes: Some(Attributes {
            name: options.name.clone(),
            client_urls: options.advertise_client_urls.clone(),
        }),
    };
    let mut members = member.0.signals.members.subscribe();
    let is_known = |members: &Arc<Membership>| {
        let own = members.members.get(&member.id());
        own.is_some_and(|own| {
            (&own.name, &own.client_urls) == (&options.name, &options.advertise_client_urls)
        })
    };
    while !member.is_stopping() {
        let published = tokio::select! {
            biased; // The answer is the usual way to know.
            answer = member.propose(Origin::own(), request.clone()) => answer.map(drop),
            Ok(()) = renewed(&mut members, is_known) => member.linearizable().await,
        };
        match published {
            Ok(()) => {
                info!(name = %options.name, "published local member to cluster");
                member.0.signals.ready.send_replace(true);
                return;
            }
            Err(error) => {
                warn!(%error, "failed to publish local member to cluster");
                member.0.env.sleep(Member::RETRY_PAUSE).await;
            }
        }
    }
}

/// Waits until the table has changed and is as wanted.
async fn renewed(
    members: &mut latest::Receiver<Arc<Membership>>,
    wanted: impl Fn(&Arc<Membership>) -> bool,
) -> Result<(), latest::Closed> {
    members.changed().await?;
    members.wait_for(wanted).await
}

/// Keeps the time of leases while this member leads, and ends those that are over.
pub(super) async fn leases(member: Member) {
    let env = &member.0.env;
    let mut status = member.0.replica.status();
    let mut pace = Pace::default();
    while !member.is_stopping() {
        status.mark_unchanged();
        follow_leadership(&member).await;
        let now = env.now();
        let (term, expired, next) = {
            let clock = member.0.signals.clock();
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
        let wake =
            next.filter(|at| *at > now).map_or(now + LEASE_PAUSE, |at| at.min(now + LEASE_PAUSE));
        tokio::select! {
            biased; // A change of leadership decides whether there is anything to wait for.
            Ok(()) = status.changed() => {}
            () = env.sleep_until(wake) => {}
        }
    }
}

/// Revokes a lease that is over, but only in the term in which that was found: a leader that lost its
/// place while it slept must not end what its successor has prolonged. The entry's own raft term says
/// under which leadership it was decided.
async fn expire(member: &Member, id: LeaseId, term: Term) -> bool {
    let revoke = LeaseRevokeRequest { id: id.0 };
    // In root's name, whether permissions are on or not: they may be by the time it is applied.
    let who = member.auth().root();
    let term = Some(term).filter(|_| !plant::STALE_LEADER_REVOKES.is_planted());
    match member.propose(Origin { who, term, ..Origin::own() }, revoke).await {
        Ok(_) => {
            debug!(lease = %id, "lease expired");
            member.metrics().leases_expired.inc();
            true
        }
        Err(Error::Refused(Refused::LeaseNotFound)) => {
            member.0.signals.revoke(id);
            true
        }
        Err(error) => {
            debug!(lease = %id, %error, "could not revoke an expired lease");
            false
        }
    }
}

/// Starts or stops the clock of leases as leadership comes and goes.
async fn follow_leadership(member: &Member) {
    let raft = member.raft();
    let signals = &member.0.signals;
    if raft.role != Role::Leader {
        if signals.clock().term().is_some() {
            signals.replace_clock(LeaseClock::default());
        }
        return;
    }
    if signals.clock().term() == Some(raft.term) {
        return;
    }
    // All earlier leaders' entries are applied once a read index of our own term is.
    if member.linearizable().await.is_err() || member.raft().term != raft.term {
        return;
    }
    // No grant falls between the view and the clock: the applier tells the clock of a grant after the
    // grant has become visible.
    signals.clock().expect_another();
    let (view, now) = (member.0.store.view(), member.0.env.now());
    let (term, options) = (raft.term, &member.0.options);
    let (extra, interval) = (options.election_timeout, options.lease_checkpoint_interval);
    let make = move || lease::list(&view).map(|stored| leading(term, now, stored, extra, interval));
    let made = member.0.env.blocking("leases", make).await;
    let made = made.unwrap_or_else(|fatal| {
        signals.stop_with(fatal);
        LeaseClock::default()
    });
    // The next one is made for the next term.
    let current = made.term() == Some(member.raft().term);
    signals.replace_clock(if current { made } else { LeaseClock::default() });
}

/// A leader's clock of the leases that are stored.
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

/// Ends this member some time after it has carried out its own removal, so that whoever asked for it
/// hears the answer and the others learn of the commit. A member that has the entry and does not know of
/// the commit, for it was down, still counts this one's vote: of two members the other could never serve
/// again. So this one goes on voting until a majority of those that remain has let it go.
pub(super) async fn end_when_removed(member: Member) {
    let mut removed = member.0.signals.removed.subscribe();
    if removed.wait_for(|removed| *removed).await.is_err() {
        return;
    }
    info!("this member was removed; it ends");
    let env = &member.0.env;
    env.sleep(REMOVAL_PAUSE).await;
    let patience = env.now() + REMOVAL_PATIENCE;
    let hurries = plant::REMOVED_MEMBER_LEAVES_AT_ONCE.is_planted();
    while !hurries && !member.is_let_go().await && env.now() < patience {
        info!("waiting for the others to learn of the removal");
        env.sleep(REMOVAL_PAUSE).await;
    }
    member.0.signals.stop_with(Fatal::new("carried out its own removal", Removed));
}

/// Tracks when a leader was elected, for the text of timeouts.
pub(super) async fn watch_leader(member: Member) {
    let mut status = member.0.replica.status();
    let mut last = MemberId::NONE;
    while status.changed().await.is_ok() {
        let leader = status.borrow_and_update().leader;
        if leader != last && leader != MemberId::NONE {
            member.0.signals.leader_elected(member.0.env.now());
            member.metrics().leader_changes.inc();
            info!(%leader, "leader elected");
        }
        last = leader;
    }
}

/// As leader, proposes the version that all members can speak, or the one that the cluster is being
/// lowered to: at once when it begins to lead, because
/// a member can join only where one is decided.
pub(super) async fn cluster_version(member: Member) {
    let mut status = member.0.replica.status();
    while !member.is_stopping() {
        let raft = member.raft();
        if raft.role == Role::Leader
            && let Some(version) = member.wanted_version().await
        {
            let request = ClusterVersionSetRequest { ver: version.clone() };
            match member.propose(Origin::leader(raft.term), request).await {
                Ok(_) => info!(%version, "updated cluster version"),
                Err(error) => debug!(%error, "could not set the cluster version"),
            }
        }
        let pause = if member.cluster_version().is_some() { VERSION_PAUSE } else { LEASE_PAUSE };
        tokio::select! {
            biased; // What is new comes before what is looked at now and then.
            Ok(()) = status.wait_for(|now| now.role != raft.role) => {}
            () = member.0.env.sleep(pause) => {}
        }
    }
}
