//! What a member does by itself because time has passed or the cluster has changed. Each action is a proposal
//! like any other. Leases are the lessor's matter.
//!
//! Reading order: this file (the member's announcement of itself, the cluster's version, the end of a removed
//! member), `quota`, [`compactor`], `hashes` and `corruption` (is all history the same?), `times` (of
//! revisions).

pub mod compactor;
mod corruption;
mod hashes;
mod quota;
mod times;

pub(in crate::member) use corruption::check_first;
pub(in crate::member) use hashes::{Finished, Hashes};
pub(in crate::member) use quota::{Level, Quota};
pub(in crate::member) use times::Times;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::membershippb::{
    Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest,
};
use tracing::{debug, info, warn};

use crate::apply::membership::Membership;
use crate::error::{Fatal, Removed};
use crate::latest;
use crate::member::Member;
use crate::member::propose::Origin;
use crate::plant;
use crate::replica::{Proposal, ProposalKind, Role};
use crate::types::MemberId;

/// Between a member's own removal and its stop, as in etcd, and between two checks whether its vote is still
/// needed.
const REMOVAL_PAUSE: Duration = Duration::from_secs(1);
/// How long a removed member waits until its vote is no longer needed.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(30);
/// How often a leader checks the cluster version.
const VERSION_PAUSE: Duration = Duration::from_secs(4);
/// The same while none is decided.
const FIRST_VERSION_PAUSE: Duration = Duration::from_millis(500);

/// How often a leader of an old release ends keys of its v2 store.
const SYNC_PAUSE: Duration = Duration::from_secs(2);

/// Starts the tasks.
pub(in crate::member) fn start(member: &Member) {
    let (env, options) = (member.env(), &member.0.options);
    env.spawn("publish", publish(member.clone()));
    env.spawn("revision times", times::run(member.clone()));
    env.spawn("removal watch", end_when_removed(member.clone()));
    env.spawn("leader watch", watch_leader(member.clone()));
    env.spawn("cluster version", cluster_version(member.clone()));
    if let Some(sync) = options.release.sync() {
        env.spawn("v2 sync", sync_often(member.clone(), sync));
    }
    if options.quota_bytes.is_some() {
        env.spawn("quota", quota::run(member.clone()));
    }
    if !options.corrupt_check_time.is_zero() {
        env.spawn("corruption check", corruption::check_often(member.clone()));
    }
    if options.compact_hash_check {
        env.spawn("compaction check", corruption::check_compactions(member.clone()));
    }
    if let Some(mode) = options.auto_compaction {
        env.spawn("auto compaction", compactor::run(member.clone(), mode));
    }
}

/// Proposes this member's name and client URLs until they are applied. A joining member may learn of that
/// from a leader's snapshot, which answers no proposals. An equal row may also come from an old entry of its
/// own log, from before a restart: the member serves only after a linearizable read has confirmed that it is
/// up to date.
async fn publish(member: Member) {
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
            biased; // The answer is the usual case.
            answer = member.propose(Origin::own(), request.clone()) => answer.map(drop),
            Ok(()) = renewed(&mut members, is_known) => member.linearizable().await,
        };
        match published {
            Ok(()) => {
                info!(
                    local_member_id = %member.id(), name = %options.name,
                    cluster_id = %member.cluster_id(),
                    "published local member to cluster through raft"
                );
                member.0.signals.ready.send_replace(true);
                return;
            }
            Err(error) => {
                warn!(%error, "failed to publish local member to cluster through raft");
                member.0.env.sleep(Member::RETRY_PAUSE).await;
            }
        }
    }
}

/// Waits until the table has changed and fulfils a condition.
async fn renewed(
    members: &mut latest::Receiver<Arc<Membership>>,
    wanted: impl Fn(&Arc<Membership>) -> bool,
) -> Result<(), latest::Closed> {
    members.changed().await?;
    members.wait_for(wanted).await
}

/// Stops this member some time after it has applied its own removal, so that the client is answered and the
/// others learn of the commit. A member that has the entry but not its commit, because it was down, still
/// needs this one's vote: of two members the other could never serve again. So this one goes on voting until
/// a majority of the remaining voters has applied the removal.
async fn end_when_removed(member: Member) {
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
        info!("waiting until the others have applied the removal");
        env.sleep(REMOVAL_PAUSE).await;
    }
    member.0.signals.stop_with(Fatal::new("carried out its own removal", Removed));
}

/// As leader, proposes an entry that does nothing.
async fn sync_often(member: Member, sync: Bytes) {
    while !member.is_stopping() {
        member.0.env.sleep(SYNC_PAUSE).await;
        if member.raft().role == Role::Leader {
            let (kind, data) = (ProposalKind::Normal, sync.clone());
            let (vital, only_in_term, reply) = (true, None, None);
            let sync = Proposal { id: 0, data, kind, vital, only_in_term, reply };
            // A member that stops proposes nothing.
            let _ = member.0.replica.propose(sync).await;
        }
    }
}

/// Records when a leader was elected, for the text of timeouts.
async fn watch_leader(member: Member) {
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

/// As leader, proposes the highest version that all members support, or the target of a downgrade. Runs at
/// once when leadership begins, because members can join only after a version was decided.
async fn cluster_version(member: Member) {
    let mut status = member.0.replica.status();
    while !member.is_stopping() {
        let raft = member.raft();
        if raft.role == Role::Leader
            && let Some(version) = member.wanted_version().await
        {
            let request = ClusterVersionSetRequest { ver: version.clone() };
            match member.propose(Origin::leader(raft.term), request).await {
                Ok(_) => info!(%version, "updated cluster version"),
                Err(error) => debug!(%error, "failed to update cluster version"),
            }
        }
        let pause =
            if member.cluster_version().is_some() { VERSION_PAUSE } else { FIRST_VERSION_PAUSE };
        tokio::select! {
            biased; // A change of role comes before the periodic check.
            Ok(()) = status.wait_for(|now| now.role != raft.role) => {}
            () = member.0.env.sleep(pause) => {}
        }
    }
}
