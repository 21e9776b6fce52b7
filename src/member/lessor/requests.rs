//! Lease requests. Grants and revocations go through the log; keep-alives and remaining times are answered
//! from the leader's clock, which other members forward them to.

use std::time::Duration;

use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseLeasesResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use quorate_proto::leasepb::Lease;

use super::clock::Renewal;
use crate::auth::{Auth, Principal, Rule};
use crate::error::{Error, Fatal, Refused, Unavailable};
use crate::lease;
use crate::limits;
use crate::mark;
use crate::member::requests::spans;
use crate::member::{Caller, Member};
use crate::plant;
use crate::replica::Role;
use crate::types::{LeaseId, MemberId, Term};

/// The cost of a lease against the quota, as in etcd.
const LEASE_COST_BYTES: u64 = 64;
/// Pause before a request is forwarded again.
const LEADER_PAUSE: Duration = Duration::from_millis(50);

impl Member {
    /// Grants a lease; apply raises the time to live to what an election takes, as etcd does.
    pub async fn lease_grant(
        &self,
        caller: &Caller,
        grant: LeaseGrantRequest,
    ) -> Result<LeaseGrantResponse, Error> {
        self.check_quota(LEASE_COST_BYTES).await?;
        if grant.ttl > limits::LEASE_TTL_MAX_S {
            return Err(Refused::LeaseTtlTooLarge.into());
        }
        // Chosen here, not at apply, which must have the same result on every member.
        let id =
            if grant.id == 0 { (self.0.ids.next() & (i64::MAX as u64)) as i64 } else { grant.id };
        let grant = LeaseGrantRequest { id, ttl: grant.ttl };
        let caller = &*caller.within(spans::LEASE_GRANT, || spans::lease_grant(&grant));
        self.permit(caller, Rule::User).await?;
        self.propose_for(caller, grant).await
    }

    pub async fn lease_revoke(
        &self,
        caller: &Caller,
        revoke: LeaseRevokeRequest,
    ) -> Result<LeaseRevokeResponse, Error> {
        let caller = &*caller.within(spans::LEASE_REVOKE, || spans::lease(revoke.id));
        self.permit(caller, Rule::User).await?;
        self.propose_for(caller, revoke).await
    }

    /// Renews a lease; returns its time to live in seconds, 0 when the lease no longer exists.
    pub async fn keep_alive(&self, caller: &Caller, id: LeaseId) -> Result<i64, Error> {
        let caller = &*caller.within(spans::LEASE_RENEW, || spans::lease(id.0));
        self.judge_lease(caller, id, Auth::may_write).await?;
        let there = |leader| {
            mark::KEEP_ALIVE_FORWARDED.reached();
            self.0.links.renew_at(leader, id)
        };
        self.at_leader(|| self.renew_here(id), there).await
    }

    pub async fn lease_time_to_live(
        &self,
        caller: &Caller,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, Error> {
        self.permit(caller, Rule::User).await?;
        let id = LeaseId(request.id);
        let judged = match request.keys {
            true => self.judge_lease(caller, id, Auth::may_read).await?,
            false => None,
        };
        let mut response = self
            .at_leader(
                || self.time_to_live_here(request),
                |leader| self.0.links.time_to_live_at(leader, request),
            )
            .await?;
        // A key may have been attached that the caller may not read.
        if judged.is_some_and(|revision| revision != self.auth().revision()) {
            return Err(Refused::AuthOldRevision.into());
        }
        let principal = self.identify(caller).await?;
        for key in response.keys.iter().filter(|_| judged.is_some()) {
            self.auth().may_read(&principal, key, b"")?;
        }
        response.header = Some(self.header());
        Ok(response)
    }

    /// Checks the permission on a lease, by the keys attached to it. Returns the auth revision of the check;
    /// `None` when no check was needed.
    async fn judge_lease(
        &self,
        caller: &Caller,
        id: LeaseId,
        may: impl Fn(&Auth, &Principal, &[u8], &[u8]) -> Result<(), Refused>,
    ) -> Result<Option<u64>, Error> {
        if caller.is_internal() || !self.auth().is_enabled() {
            return Ok(None);
        }
        let principal = self.identify(caller).await?;
        self.auth().is_user(&principal)?;
        if self.auth().is_admin(&principal).is_ok() {
            return Ok(None);
        }
        // The keys attached now, not those of a stale state.
        self.linearizable().await?;
        let auth = self.auth();
        for key in self.fatal_stops(self.0.store.view().attached(id))? {
            may(&auth, &principal, &key, b"")?;
        }
        Ok(Some(principal.revision))
    }

    fn may_list(
        &self,
        principal: &Principal,
        leases: &[Lease],
    ) -> Result<Result<(), Refused>, Fatal> {
        let (auth, view) = (self.auth(), self.0.store.view());
        if auth.is_admin(principal).is_ok() {
            return Ok(Ok(()));
        }
        for lease in leases {
            for key in view.attached(LeaseId(lease.id))? {
                if let Err(refused) = auth.may_read(principal, &key, b"") {
                    return Ok(Err(refused));
                }
            }
        }
        Ok(Ok(()))
    }

    /// All leases in this member's state; on the leader in the order of their deadlines.
    pub async fn lease_leases(&self, caller: &Caller) -> Result<LeaseLeasesResponse, Error> {
        let principal = self.identify(caller).await?;
        self.auth().is_user(&principal)?;
        let mut leases = self.fatal_stops(self.stored_leases())?;
        self.fatal_stops(self.may_list(&principal, &leases))??;
        let clock = self.0.lessor.clock();
        leases.sort_by_cached_key(|lease| {
            let deadline = clock.deadline(LeaseId(lease.id));
            (deadline.is_none(), deadline)
        });
        drop(clock);
        let leases = leases.into_iter().map(|lease| LeaseStatus { id: lease.id }).collect();
        Ok(LeaseLeasesResponse { header: Some(self.header()), leases })
    }

    /// Renews on this member's clock if it leads, confirmed by a quorum after the call arrived: a leader that
    /// was deposed while it slept must not promise time that its successor does not grant. `None` when this
    /// member does not lead.
    pub(in crate::member) async fn renew_here(&self, id: LeaseId) -> Option<Result<i64, Error>> {
        let term = self.0.lessor.clock().term()?;
        let confirmed = async {
            if plant::KEEP_ALIVE_UNCONFIRMED.is_planted() {
                Ok(())
            } else {
                self.linearizable().await
            }
        };
        match confirmed.await {
            // The client tries another member.
            Err(Error::Unavailable(Unavailable::Timeout)) => {
                return Some(Err(Unavailable::NotPrimaryLessor.into()));
            }
            Err(error) => return Some(Err(error)),
            Ok(()) => {}
        }
        let patience = limits::request_timeout(self.0.options.election_timeout);
        let decided = self.0.env.timeout(patience, self.renew_in(term, id)).await;
        let ttl = decided.unwrap_or(None)?;
        if ttl > Duration::ZERO {
            self.0.metrics.leases_renewed.inc();
        }
        Some(Ok(ttl.as_secs() as i64))
    }

    /// Renews on the clock of `term`; zero when the lease no longer exists, `None` when the term has ended.
    /// An expired lease that is not yet revoked may survive this leader, so its fate is awaited.
    async fn renew_in(&self, term: Term, id: LeaseId) -> Option<Duration> {
        loop {
            let changed = self.0.lessor.changed();
            let take_back = {
                let mut clock = self.0.lessor.clock();
                if clock.term() != Some(term) || self.raft().term != term {
                    return None;
                }
                let now = self.0.env.now();
                match clock.renew(now, id) {
                    Renewal::Done(ttl) => return Some(ttl),
                    Renewal::Over if clock.remaining(now, id).is_none() => {
                        return Some(Duration::ZERO);
                    }
                    Renewal::Over | Renewal::Checkpointing => None,
                    Renewal::Checkpointed => Some(()),
                }
            };
            match take_back {
                // On failure the caller tries again, at another leader if there is one.
                Some(()) => self.take_back_checkpoint(id, term).await.ok()?,
                None => changed.await,
            }
        }
    }

    pub(in crate::member) async fn time_to_live_here(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Option<Result<LeaseTimeToLiveResponse, Error>> {
        let term = self.0.lessor.clock().term()?;
        if let Err(error) = self.linearizable().await {
            return Some(Err(error));
        }
        if self.0.lessor.clock().term() != Some(term) {
            return None;
        }
        let id = LeaseId(request.id);
        let remaining = self.0.lessor.clock().remaining(self.0.env.now(), id);
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

    pub(in crate::member) fn stored_leases(&self) -> Result<Vec<Lease>, Fatal> {
        lease::list(&self.0.store.view())
    }

    /// Forwards a request to the leader, which may be this member, until it is answered or times out.
    async fn at_leader<T, H, R>(
        &self,
        here: impl Fn() -> H,
        there: impl Fn(MemberId) -> R,
    ) -> Result<T, Error>
    where
        H: Future<Output = Option<Result<T, Error>>>,
        R: Future<Output = Option<Result<T, Error>>>,
    {
        let deadline = self.0.env.now() + limits::request_timeout(self.0.options.election_timeout);
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

    /// Stops the process after a failure of the store; the client receives that the server stops.
    pub(in crate::member) fn fatal_stops<T>(&self, outcome: Result<T, Fatal>) -> Result<T, Error> {
        outcome.map_err(|fatal| {
            self.0.signals.stop_with(fatal);
            Unavailable::Stopped.into()
        })
    }
}
