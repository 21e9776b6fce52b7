//! Lease requests. Granting and revoking go through the log; keep-alives and remaining times are
//! answered from the leader's clock, wherever the client asks.

use std::time::Duration;

use quorate_proto::etcdserverpb::{
    InternalRaftRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseLeasesResponse,
    LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use quorate_proto::leasepb::Lease;

use super::Member;
use crate::apply::Reply;
use crate::error::{Error, Fatal, Refused, Unavailable};
use crate::lease;
use crate::limits;
use crate::replica::Role;
use crate::types::{LeaseId, MemberId};

/// Pause before asking again who leads.
const LEADER_PAUSE: Duration = Duration::from_millis(50);

impl Member {
    /// Grants a lease; the time to live is raised to what an election takes, as etcd does.
    pub async fn lease_grant(&self, grant: LeaseGrantRequest) -> Result<LeaseGrantResponse, Error> {
        if grant.ttl > limits::LEASE_TTL_MAX_S {
            return Err(Refused::LeaseTtlTooLarge.into());
        }
        // Chosen and raised here, not at apply: every member must come to the same.
        let id = if grant.id == 0 { (self.0.ids.next() & (i64::MAX as u64)) as i64 } else { grant.id };
        let grant = LeaseGrantRequest { id, ttl: grant.ttl.max(self.ttl_min()) };
        let request = InternalRaftRequest { lease_grant: Some(grant), ..Default::default() };
        match self.propose(request).await? {
            Reply::LeaseGrant { id, ttl } => Ok(LeaseGrantResponse {
                header: Some(self.header()),
                id: id.0,
                ttl,
                error: String::new(),
            }),
            other => unreachable!("apply answered a grant with {other:?}"),
        }
    }

    pub async fn lease_revoke(
        &self,
        revoke: LeaseRevokeRequest,
    ) -> Result<LeaseRevokeResponse, Error> {
        let request = InternalRaftRequest { lease_revoke: Some(revoke), ..Default::default() };
        self.propose(request).await?;
        Ok(LeaseRevokeResponse { header: Some(self.header()) })
    }

    /// Gives a lease its full time again; seconds, 0 when there is no such lease any more.
    pub async fn keep_alive(&self, id: LeaseId) -> Result<i64, Error> {
        self.at_leader(|| self.renew_here(id), |leader| self.0.links.renew_at(leader, id)).await
    }

    pub async fn lease_time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, Error> {
        let mut response = self
            .at_leader(
                || self.time_to_live_here(request),
                |leader| self.0.links.time_to_live_at(leader, request),
            )
            .await?;
        response.header = Some(self.header());
        Ok(response)
    }

    /// All leases, by this member's own knowledge.
    pub async fn lease_leases(&self) -> Result<LeaseLeasesResponse, Error> {
        let leases = self.fatal_stops(self.stored_leases())?;
        let leases = leases.into_iter().map(|lease| LeaseStatus { id: lease.id }).collect();
        Ok(LeaseLeasesResponse { header: Some(self.header()), leases })
    }

    /// Renews on this member's clock if it is the leader's, confirmed by a quorum after the call came
    /// in: a leader that was replaced while it slept must not promise time that its successor does
    /// not give. `None` when this member does not keep the time.
    pub(super) async fn renew_here(&self, id: LeaseId) -> Option<Result<i64, Error>> {
        let term = self.0.signals.clock().term()?;
        if let Err(error) = self.linearizable().await {
            return Some(Err(error));
        }
        let mut clock = self.0.signals.clock();
        if clock.term() != Some(term) || self.raft().term != term {
            return None;
        }
        let ttl = clock.renew(self.0.env.now(), id);
        self.metrics().leases_renewed.inc_by(ttl.is_some().into());
        Some(Ok(ttl.map_or(0, |ttl| ttl.as_secs() as i64)))
    }

    pub(super) async fn time_to_live_here(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Option<Result<LeaseTimeToLiveResponse, Error>> {
        let term = self.0.signals.clock().term()?;
        if let Err(error) = self.linearizable().await {
            return Some(Err(error));
        }
        if self.0.signals.clock().term() != Some(term) {
            return None;
        }
        let id = LeaseId(request.id);
        let remaining = self.0.signals.clock().remaining(self.0.env.now(), id);
        Some(self.fatal_stops(self.describe(request, remaining)))
    }

    fn describe(
        &self,
        request: LeaseTimeToLiveRequest,
        remaining: Option<Duration>,
    ) -> Result<LeaseTimeToLiveResponse, Fatal> {
        let id = LeaseId(request.id);
        let view = self.0.store.view();
        let stored = lease::find(&view, id)?;
        let (Some(stored), Some(remaining)) = (stored, remaining) else {
            let header = Some(self.header());
            return Ok(LeaseTimeToLiveResponse { header, id: id.0, ttl: -1, ..Default::default() });
        };
        let keys = if request.keys { view.attached(id)? } else { Vec::new() };
        Ok(LeaseTimeToLiveResponse {
            header: Some(self.header()),
            id: id.0,
            ttl: remaining.as_secs() as i64,
            granted_ttl: stored.ttl,
            keys,
        })
    }

    pub(super) fn stored_leases(&self) -> Result<Vec<Lease>, Fatal> {
        lease::list(&self.0.store.view())
    }

    /// Asks the leader, which may be this member, until one answers or the time is up.
    async fn at_leader<T, H, R>(
        &self,
        here: impl Fn() -> H,
        there: impl Fn(MemberId) -> R,
    ) -> Result<T, Error>
    where
        H: Future<Output = Option<Result<T, Error>>>,
        R: Future<Output = Option<Result<T, Error>>>,
    {
        let deadline =
            self.0.env.now() + limits::request_timeout(self.0.options.election_timeout);
        loop {
            let raft = self.raft();
            let answer = if raft.role == Role::Leader {
                here().await
            } else if raft.leader == MemberId::NONE {
                None
            } else {
                there(raft.leader).await
            };
            match answer {
                Some(Err(Error::Unavailable(Unavailable::LeaderChanged))) | None => {}
                Some(answer) => return answer,
            }
            if self.is_stopping() {
                return Err(Unavailable::Stopped.into());
            }
            if self.0.env.now() >= deadline {
                return Err(Unavailable::Timeout.into());
            }
            self.0.env.sleep(LEADER_PAUSE).await;
        }
    }

    /// One and a half election timeouts, in whole seconds, rounded up.
    fn ttl_min(&self) -> i64 {
        let ticks = (3 * self.0.options.election_ticks()) / 2;
        let least = self.0.options.heartbeat * u32::try_from(ticks).unwrap_or(u32::MAX);
        least.as_millis().div_ceil(1000) as i64
    }

    /// A failure of the store stops the process; the client is told that the server stops.
    fn fatal_stops<T>(&self, outcome: Result<T, Fatal>) -> Result<T, Error> {
        outcome.map_err(|fatal| {
            self.0.signals.stop_with(fatal);
            Unavailable::Stopped.into()
        })
    }
}
