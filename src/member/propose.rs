//! The front door of the log: a request gets an id and a place to wait for its answer, and goes to
//! the replica. What a member does about itself comes through here too.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_proto::etcdserverpb::{InternalRaftRequest, RequestHeader};
use quorate_proto::raftpb::ConfChange;
use tokio::sync::oneshot;

use super::admission::Weight;
use super::caller::Caller;
use super::{Member, tally};
use crate::apply::Reply;
use crate::codec;
use crate::error::{Error, Refused, Unavailable};
use crate::limits;
use crate::metrics::{Metrics, observe, truth};
use crate::replica::{self, Proposal, ProposalKind};
use crate::trace::span::{self, Span};
use crate::types::{MemberId, Term};

/// Where one proposer waits.
pub struct Waiter(oneshot::Sender<Result<Reply, Error>>);

impl Waiter {
    /// Hands the answer over. A proposer that has given up does not hear it.
    pub fn answer(self, outcome: Result<Reply, Error>) {
        let _ = self.0.send(outcome);
    }

    /// Whether nobody waits any more.
    pub fn has_gone(&self) -> bool {
        self.0.is_closed()
    }
}

impl replica::Reply for Waiter {
    fn refuse(self, error: Error) {
        self.answer(Err(error));
    }

    fn is_closed(&self) -> bool {
        self.has_gone()
    }
}

/// Counts a failed proposal when it is dropped, unless told otherwise: a client that goes away drops
/// the request too.
struct Failure<'a> {
    metrics: &'a Metrics,
    is: bool,
}

impl Drop for Failure<'_> {
    fn drop(&mut self) {
        if self.is {
            self.metrics.proposals_failed.inc();
        }
    }
}

/// What must get through while there are too many requests.
fn weight(request: &InternalRaftRequest) -> Weight {
    let vital = request.lease_revoke.is_some()
        || request.lease_checkpoint.is_some()
        || request.alarm.is_some()
        || request.cluster_version_set.is_some()
        || request.cluster_member_attr_set.is_some();
    if vital { Weight::Vital } else { Weight::Common }
}

impl Member {
    /// Proposes what `caller` asks for: apply judges by the name and the auth revision that go with it.
    pub(super) async fn propose_for(
        &self,
        caller: &Caller,
        mut request: InternalRaftRequest,
    ) -> Result<Reply, Error> {
        let who = self.identify(caller).await?;
        let header = RequestHeader { username: who.user, auth_revision: who.revision, id: 0 };
        request.header = Some(header);
        self.propose_within(caller.span(), request).await
    }

    /// As [`Self::propose`], told in the span, if there is one.
    pub(super) async fn propose_within(
        &self,
        span: Option<&Span>,
        request: InternalRaftRequest,
    ) -> Result<Reply, Error> {
        let outcome = self.propose_as(request, None, span).await;
        if let (Some(span), Err(Error::Unavailable(why))) = (span, &outcome) {
            let told = [("exception.type", "Unavailable"), ("exception.message", why.text())];
            let told = told.map(|(key, value)| span::text(key, value.as_bytes()));
            span.event("exception", told.into());
        }
        outcome
    }

    /// Proposes `request` and waits until it has been applied here.
    pub(super) async fn propose(&self, request: InternalRaftRequest) -> Result<Reply, Error> {
        self.propose_in(request, None).await
    }

    /// As [`Self::propose`], but only if this member leads in exactly `term` when it appends.
    pub(super) async fn propose_in(
        &self,
        request: InternalRaftRequest,
        term: Option<Term>,
    ) -> Result<Reply, Error> {
        self.propose_as(request, term, None).await
    }

    async fn propose_as(
        &self,
        mut request: InternalRaftRequest,
        term: Option<Term>,
        span: Option<&Span>,
    ) -> Result<Reply, Error> {
        let id = self.0.ids.next();
        let (kind, weight) = (tally::kind(&request), weight(&request));
        request.header.get_or_insert_default().id = id;
        let data = codec::encode(&request);
        if data.len() > self.0.options.request_bytes_max {
            return Err(Refused::RequestTooLarge.into());
        }
        let started = self.0.env.now();
        let outcome = self.submit(id, data, ProposalKind::Normal, weight, term, span).await;
        self.observe_request(kind, started, outcome.is_ok());
        outcome
    }

    /// Proposes a configuration change and waits until it has been applied here.
    pub(super) async fn propose_change(&self, mut change: ConfChange) -> Result<Reply, Error> {
        change.id = self.0.ids.next();
        let data = codec::encode(&change);
        self.submit(change.id, data, ProposalKind::ConfChange, Weight::Vital, None, None).await
    }

    async fn submit(
        &self,
        id: u64,
        data: Bytes,
        kind: ProposalKind,
        weight: Weight,
        only_in_term: Option<Term>,
        span: Option<&Span>,
    ) -> Result<Reply, Error> {
        let _place = self.0.proposals.enter(weight, data.len())?;
        let happened = |what| {
            if let Some(span) = span {
                span.event(what, Vec::new());
            }
        };
        happened("Send raft proposal");
        let (reply, answer) = oneshot::channel();
        let (vital, reply) = (weight == Weight::Vital, Some(Waiter(reply)));
        let proposal = Proposal { id, data, kind, vital, only_in_term, reply };
        let started = self.0.env.now();
        let mut failure = Failure { metrics: &self.0.metrics, is: true };
        let wait = async {
            self.0.replica.propose(proposal).await?;
            answer.await.unwrap_or(Err(Unavailable::Stopped.into()))
        };
        let limit = limits::request_timeout(self.0.options.election_timeout);
        let outcome = match self.0.env.timeout(limit, wait).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.timeout_reason(started).into()),
        };
        failure.is = matches!(outcome, Err(Error::Unavailable(_)));
        if !failure.is {
            happened("Receive raft result");
        }
        outcome
    }

    /// Counts a request that has been answered.
    pub(super) fn observe_request(&self, kind: &str, started: Instant, success: bool) {
        let labels = [kind, truth(success)];
        let histogram = self.0.metrics.request_seconds.with_label_values(&labels);
        observe(&histogram, self.0.env.now() - started);
    }

    /// Why a request may have run out of time, as far as this member can tell.
    fn timeout_reason(&self, started: Instant) -> Unavailable {
        let election = self.0.options.election_timeout;
        if self
            .0
            .signals
            .led_since()
            .is_some_and(|elected| started < elected && started + 2 * election > elected)
        {
            return Unavailable::TimeoutLeaderFail;
        }
        let leader = self.raft().leader;
        let lost = match leader {
            MemberId::NONE => false,
            leader if leader == self.id() => !self.reaches_quorum(started),
            leader => !self.0.links.connected_since(leader, started),
        };
        if lost { Unavailable::TimeoutConnectionLost } else { Unavailable::Timeout }
    }

    fn reaches_quorum(&self, since: Instant) -> bool {
        let members = self.0.signals.members.borrow().clone();
        let (mut all, mut reached) = (0, 0);
        for id in members.voters().map(|member| MemberId(member.id)) {
            all += 1;
            reached += usize::from(id == self.id() || self.0.links.connected_since(id, since));
        }
        reached > all / 2
    }

    /// What a retry loop of a member's own proposals pauses.
    pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(500);
}
