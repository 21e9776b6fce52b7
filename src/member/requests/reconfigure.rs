//! Changes of the membership. Whether a change is advisable is checked here, by the proposer; whether it is
//! possible is decided at apply. Consensus makes one change at a time.
//!
//! The checks are etcd's (3.7, `etcdserver/server.go`, `membership/cluster.go`): with
//! `--strict-reconfig-check` no change is proposed that would leave too few started members for a
//! quorum, or whose quorum this member cannot be sure to reach.

use std::time::Duration;

use quorate_proto::etcdserverpb::{
    Member as MemberInfo, MemberAddRequest, MemberAddResponse, MemberListResponse,
    MemberPromoteResponse, MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
    ResponseHeader,
};
use tracing::{info, warn};

use crate::member::identity::{added_member_id, peer_urls};
use crate::member::{Caller, Member};

use crate::apply::membership::{
    MemberRecord, Membership, add_change, promote_change, remove_change, update_change,
};
use crate::error::{Error, Refused, Unavailable};
use crate::limits;
use crate::mark;
use crate::peer::CallError;
use crate::plant;
use crate::replica::Role;
use crate::types::{Index, MemberId};

/// A member counts as connected when it has been for this long.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
/// The part of the leader's log that a learner must have before it votes.
const READY: (u64, u64) = (9, 10);
/// How long a leader waits until it has applied what was committed when the request arrived.
const APPLY_PATIENCE: Duration = Duration::from_secs(1);
/// Pause before a promotion is forwarded again.
const LEADER_PAUSE: Duration = Duration::from_millis(50);

impl Member {
    pub async fn member_list(&self, linearizable: bool) -> Result<MemberListResponse, Error> {
        if linearizable {
            self.linearizable().await?;
        }
        let members = self.members().members.values().map(member_info).collect();
        Ok(MemberListResponse { header: Some(self.cluster_header()), members })
    }

    pub async fn member_add(&self, request: MemberAddRequest) -> Result<MemberAddResponse, Error> {
        let urls = peer_urls(&request.peer_urls).ok_or(Refused::MemberBadUrls)?;
        let member = MemberRecord {
            id: added_member_id(&urls, self.0.env.wall()).0,
            peer_urls: urls,
            is_learner: request.is_learner,
            ..MemberRecord::default()
        };
        self.may_add(&member)?;
        let done = self.propose_change(add_change(&member)).await?;
        Ok(MemberAddResponse {
            header: Some(of_cluster(done.header)),
            member: Some(member_info(&member)),
            members: infos(&done.members),
        })
    }

    /// Removes a member. A leader that removes itself transfers leadership first, which saves an election.
    pub async fn member_remove(&self, id: MemberId) -> Result<MemberRemoveResponse, Error> {
        self.may_remove(id)?;
        if id == self.id() && self.raft().role == Role::Leader {
            self.hand_over_before_removal().await;
        }
        let done = self.propose_change(remove_change(id)).await?;
        let header = Some(of_cluster(done.header));
        Ok(MemberRemoveResponse { header, members: infos(&done.members) })
    }

    /// Changes the peer URLs of a member. Those that are none are refused: etcd 3.7 commits them, and every
    /// etcd of the cluster ends where its transport reads them.
    pub async fn member_update(
        &self,
        request: MemberUpdateRequest,
    ) -> Result<MemberUpdateResponse, Error> {
        let id = MemberId(request.id);
        if self.members().members.contains_key(&id) && peer_urls(&request.peer_urls).is_none() {
            return Err(Refused::MemberBadUrls.into());
        }
        let change = update_change(id, request.peer_urls);
        let done = self.propose_change(change).await?;
        mark::MEMBER_UPDATED.reached();
        let header = Some(of_cluster(done.header));
        Ok(MemberUpdateResponse { header, members: infos(&done.members) })
    }

    /// Makes a learner a voter. Only the leader knows the progress of a learner, so other members forward the
    /// request.
    pub async fn member_promote(
        &self,
        caller: &Caller,
        id: MemberId,
    ) -> Result<MemberPromoteResponse, Error> {
        let members = infos(&self.promote(caller, id).await?);
        Ok(MemberPromoteResponse { header: Some(self.cluster_header()), members })
    }

    /// Promotes here or at the leader; the members afterwards.
    pub(in crate::member) async fn promote(
        &self,
        caller: &Caller,
        id: MemberId,
    ) -> Result<Vec<MemberRecord>, Error> {
        match self.promote_here(id).await {
            Err(Error::Refused(Refused::NotLeader)) => self.promote_at_leader(caller, id).await,
            decided => decided,
        }
    }

    /// Promotes if this member leads.
    async fn promote_here(&self, id: MemberId) -> Result<Vec<MemberRecord>, Error> {
        let done = async {
            self.may_promote(id).await?;
            Ok(self.propose_change(promote_change(id)).await?.members)
        };
        let done = done.await;
        match &done {
            Ok(_) => self.metrics().learners_promoted.inc(),
            Err(Error::Refused(Refused::NotLeader)) => {}
            Err(error) => {
                self.metrics().promotions_failed.with_label_values(&[error.text()]).inc();
            }
        }
        done
    }

    async fn promote_at_leader(
        &self,
        caller: &Caller,
        id: MemberId,
    ) -> Result<Vec<MemberRecord>, Error> {
        let deadline = self.0.env.now() + limits::request_timeout(self.0.options.election_timeout);
        while self.0.env.now() < deadline {
            let leader = self.raft().leader;
            if leader == self.id() {
                match self.promote_here(id).await {
                    Err(Error::Refused(Refused::NotLeader)) => {}
                    decided => return decided,
                }
            } else if leader != MemberId::NONE {
                mark::PROMOTION_FORWARDED.reached();
                match self.0.links.promote_at(leader, id, caller.token()).await {
                    Some(Ok(members)) => return Ok(members),
                    Some(Err(CallError::Answered(refused @ Error::Refused(_)))) => {
                        return Err(refused);
                    }
                    Some(Err(error)) => info!(%leader, %error, "promotion at the leader failed"),
                    None => {}
                }
            }
            if self.is_stopping() {
                return Err(Unavailable::Stopped.into());
            }
            self.0.env.sleep(LEADER_PAUSE).await;
        }
        Err(Unavailable::Timeout.into())
    }

    async fn hand_over_before_removal(&self) {
        let members = self.members();
        let others = members.voters().map(|member| MemberId(member.id));
        let since = |id| self.0.links.active_since(id).map(|since| (since, id));
        let Some((_, to)) = others.filter(|id| *id != self.id()).filter_map(since).min() else {
            return;
        };
        if let Err(error) = self.move_leader(to).await {
            info!(transferee_member_id = %to, %error, "leadership transfer failed");
        }
    }

    fn may_add(&self, member: &MemberRecord) -> Result<(), Error> {
        if !self.0.options.strict_reconfig_check {
            return Ok(());
        }
        let members = self.members();
        let voters = Voters::of(&members);
        if !member.is_learner && !voters.may_grow() {
            warn!(
                local_member_id = %self.id(),
                requested_member_add = shown(member),
                "rejecting member add request; not enough healthy members"
            );
            return Err(Refused::NotEnoughStarted.into());
        }
        // The new member counts as disconnected.
        if voters.all > 1 && self.connected(&members) < quorum(voters.all + 1) {
            warn!(
                local_member_id = %self.id(),
                requested_member_add = shown(member),
                "rejecting member add request; local member has not been connected to majority \
                 peers, reconfigure breaks active quorum"
            );
            return Err(Unavailable::Unhealthy.into());
        }
        Ok(())
    }

    fn may_remove(&self, id: MemberId) -> Result<(), Error> {
        let members = self.members();
        let is_learner = members.members.get(&id).is_some_and(|member| member.is_learner);
        if !self.0.options.strict_reconfig_check || is_learner {
            return Ok(());
        }
        if !Voters::of(&members).may_lose(&members, id) {
            warn!(member = %id, "rejecting member remove request; not enough healthy members");
            return Err(Refused::NotEnoughStarted.into());
        }
        // A disconnected member is no part of the active quorum.
        if id != self.id() && self.0.links.active_since(id).is_none() {
            return Ok(());
        }
        let left = members.voters().count().saturating_sub(1);
        if self.connected(&members) < quorum(left) + 1 {
            warn!(
                member = %id,
                "rejecting member remove request; local member has not been connected to all \
                 peers, reconfigure breaks active quorum"
            );
            return Err(Unavailable::Unhealthy.into());
        }
        Ok(())
    }

    async fn may_promote(&self, id: MemberId) -> Result<(), Error> {
        self.applied_what_is_committed().await?;
        let progress = self.0.replica.progress(id).await?.ok_or(Refused::NotLeader)?;
        let Index(matched) = progress.matched.ok_or(Refused::MemberNotFound)?;
        let unseen = matched == 0 && plant::UNSEEN_LEARNER_PROMOTED.is_planted();
        if !unseen && matched * READY.1 < progress.own.0 * READY.0 {
            mark::PROMOTION_NOT_READY.reached();
            info!(
                member = %id, matched, own = %progress.own,
                "rejecting promote learner: learner is not ready"
            );
            return Err(Refused::LearnerNotReady.into());
        }
        if self.0.options.strict_reconfig_check && !Voters::of(&self.members()).may_gain_started() {
            warn!(member = %id, "rejecting member promote request; not enough healthy members");
            return Err(Refused::NotEnoughStarted.into());
        }
        Ok(())
    }

    async fn applied_what_is_committed(&self) -> Result<(), Error> {
        let commit = self.raft().commit;
        let mut applied = self.0.signals.applied.subscribe();
        let reached = applied.wait_for(|applied| *applied >= commit);
        match self.0.env.timeout(APPLY_PATIENCE, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Unavailable::Stopped.into()),
            Err(_) => Err(Unavailable::TimeoutWaitApplied.into()),
        }
    }

    /// The number of voters that this member has been connected to long enough, itself included.
    fn connected(&self, members: &Membership) -> usize {
        let now = self.0.env.now();
        let connected = |id: MemberId| {
            let active = self.0.links.active_since(id);
            id == self.id() || active.is_some_and(|since| now - since > HEALTH_INTERVAL)
        };
        members.voters().filter(|member| connected(MemberId(member.id))).count()
    }

    fn cluster_header(&self) -> ResponseHeader {
        of_cluster(self.header())
    }
}

/// The header of an answer about the cluster, which carries no revision.
fn of_cluster(header: ResponseHeader) -> ResponseHeader {
    ResponseHeader { revision: 0, ..header }
}

fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// The number of voters, and of those that have ever started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Voters {
    all: usize,
    started: usize,
}

impl Voters {
    fn of(members: &Membership) -> Self {
        let started = members.voters().filter(|member| member.is_started()).count();
        Self { all: members.voters().count(), started }
    }

    /// Whether a voter that has not started may be added. A second one always may: so a cluster of one grows.
    fn may_grow(self) -> bool {
        (self.all, self.started) == (1, 1) || self.started >= quorum(self.all + 1)
    }

    fn may_gain_started(self) -> bool {
        self.started + 1 >= quorum(self.all + 1)
    }

    /// Whether the others keep a quorum without `id`, which need not be a voter.
    fn may_lose(self, members: &Membership, id: MemberId) -> bool {
        let goes = members.voters().find(|member| member.id == id.0);
        let all = self.all - usize::from(goes.is_some());
        let started = self.started - usize::from(goes.is_some_and(MemberRecord::is_started));
        started >= quorum(all)
    }
}

fn infos(members: &[MemberRecord]) -> Vec<MemberInfo> {
    members.iter().map(member_info).collect()
}

fn member_info(record: &MemberRecord) -> MemberInfo {
    MemberInfo {
        id: record.id,
        name: record.name.clone(),
        peer_urls: record.peer_urls.clone(),
        client_urls: record.client_urls.clone(),
        is_learner: record.is_learner,
    }
}

/// A member as it is logged.
fn shown(member: &MemberRecord) -> String {
    let learner = if member.is_learner { " learner" } else { "" };
    format!("{} [{}]{learner}", MemberId(member.id), member.peer_urls.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members 1, 2, ... by their states: `S` started voter, `u` voter not started, `l` learner.
    fn members(states: &str) -> Membership {
        let mut table = Membership::default();
        for (id, state) in (1..).zip(states.chars()) {
            let name = if state == 'S' { format!("m{id}") } else { String::new() };
            let is_learner = state == 'l';
            let record = MemberRecord { id, name, is_learner, ..MemberRecord::default() };
            table.members.insert(MemberId(id), record);
        }
        table
    }

    /// Whether a voter may be added, a learner promoted, member 1 removed; etcd's own cases.
    #[test]
    fn the_started_members_must_stay_a_quorum() {
        let check = |states: &str, add, promote, remove| {
            let table = members(states);
            let voters = Voters::of(&table);
            let judged = (
                voters.may_grow(),
                voters.may_gain_started(),
                voters.may_lose(&table, MemberId(1)),
            );
            assert_eq!(judged, (add, promote, remove), "{states}");
        };
        check("S", true, true, false);
        check("Su", false, true, false);
        check("SS", true, true, true);
        check("SSS", true, true, true);
        check("SSu", false, true, false);
        check("Suu", false, false, false);
        check("uSS", false, true, true);
        check("SSSS", true, true, true);
        check("SSSu", true, true, true);
        check("SSuu", false, true, false);
        check("Sl", true, true, false);
        check("lSS", true, true, true);
    }
}
