//! How a command gets into the log: it is given an id, encoded, admitted, passed to the replica, and answered
//! once it was applied on this member. A member's own proposals take the same way.

mod admission;

use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_proto::etcdserverpb::{RequestHeader, ResponseHeader};
use quorate_proto::otlp::common::v1::KeyValue;
use quorate_proto::raftpb::ConfChange;
use tokio::sync::oneshot;

use crate::apply::request::Reconfigured;
use crate::apply::{Proposable, Reply, Request, Weight};
use crate::auth::Principal;
use crate::codec;
use crate::error::{Error, Fatal, Refused, Unavailable};
use crate::limits;
use crate::member::Member;
use crate::member::caller::Caller;
use crate::metrics::{Metrics, observe, truth};
use crate::replica::{self, ProposalKind};
use crate::trace::span::{self, Span};
use crate::types::{MemberId, Term};

pub(in crate::member) use admission::Admission;

/// The reply to an applied command, and its header.
#[derive(Debug)]
pub struct Applied {
    pub reply: Reply,
    pub header: ResponseHeader,
}

/// The waiting end of one proposal.
pub struct Waiter(oneshot::Sender<Result<Applied, Error>>);

impl Waiter {
    /// Sends the answer, if the proposer still waits.
    pub fn answer(self, outcome: Result<Applied, Error>) {
        let _ = self.0.send(outcome);
    }

    pub fn is_abandoned(&self) -> bool {
        self.0.is_closed()
    }
}

impl replica::Reply for Waiter {
    fn refuse(self, error: Error) {
        self.answer(Err(error));
    }

    fn is_closed(&self) -> bool {
        self.is_abandoned()
    }
}

/// Counts a failed proposal when it is dropped, unless it did not fail: a client that goes away drops the
/// request too.
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

/// The origin of a proposal, and its condition.
#[derive(Default)]
pub(in crate::member) struct Origin<'a> {
    /// Apply checks the permissions of this user.
    pub principal: Principal,
    /// Whether it is the member's own proposal.
    pub own: bool,
    /// Appended only if this member leads in exactly this term.
    pub term: Option<Term>,
    pub span: Option<&'a Span>,
}

impl<'a> Origin<'a> {
    /// The member itself.
    pub fn own() -> Self {
        Self { own: true, ..Self::default() }
    }

    /// The member itself, as the leader of a term.
    pub fn leader(term: Term) -> Self {
        Self { term: Some(term), ..Self::own() }
    }

    /// A client whose permission was checked before.
    pub fn permitted(caller: &'a Caller) -> Self {
        Self { span: caller.span(), ..Self::default() }
    }
}

/// An encoded proposal.
struct Proposal<'a> {
    id: u64,
    data: Bytes,
    kind: ProposalKind,
    weight: Weight,
    term: Option<Term>,
    span: Option<&'a Span>,
}

impl Member {
    /// Proposes a client's command: apply checks the permission of its user, at its auth revision.
    pub(in crate::member) async fn propose_for<A: Proposable + Into<Request>>(
        &self,
        caller: &Caller,
        message: A,
    ) -> Result<A::Response, Error> {
        let principal = self.identify(caller).await?;
        let origin = Origin { principal, span: caller.span(), ..Origin::default() };
        self.propose(origin, message).await
    }

    /// Proposes a command and waits until it has been applied here.
    pub(in crate::member) async fn propose<A: Proposable + Into<Request>>(
        &self,
        origin: Origin<'_>,
        message: A,
    ) -> Result<A::Response, Error> {
        let (kind, proposal) = self.encoded(origin, message.into())?;
        let started = self.0.env.now();
        let outcome = self.enqueue(proposal).await;
        self.observe_request(kind, started, outcome.is_ok());
        self.answer::<A>(outcome?)
    }

    /// Proposes a configuration change and waits until it has been applied here.
    pub(in crate::member) async fn propose_change(
        &self,
        mut change: ConfChange,
    ) -> Result<Reconfigured, Error> {
        change.id = self.0.ids.next();
        let proposal = Proposal {
            id: change.id,
            data: codec::encode(&change),
            kind: ProposalKind::ConfChange,
            weight: Weight::Vital,
            term: None,
            span: None,
        };
        self.answer::<ConfChange>(self.enqueue(proposal).await?)
    }

    fn encoded<'a>(
        &self,
        origin: Origin<'a>,
        request: Request,
    ) -> Result<(&'static str, Proposal<'a>), Refused> {
        let Origin { principal, own, term, span } = origin;
        let id = self.0.ids.next();
        let header =
            RequestHeader { id, username: principal.user, auth_revision: principal.revision };
        let data = self.0.options.release.entry(id, &request);
        let data = data.unwrap_or_else(|| request.encode(&header));
        if data.len() > self.0.options.request_bytes_max {
            return Err(Refused::RequestTooLarge);
        }
        let (kind, weight) = (ProposalKind::Normal, request.weight(own));
        Ok((request.kind(), Proposal { id, data, kind, weight, term, span }))
    }

    /// Passes a proposal to the replica and waits until it has been applied here.
    async fn enqueue(&self, proposal: Proposal<'_>) -> Result<Applied, Error> {
        let Proposal { id, data, kind, weight, term: only_in_term, span } = proposal;
        let _place = self.0.proposals.enter(weight, data.len())?;
        let event = |name, attributes| {
            if let Some(span) = span {
                span.event(name, attributes);
            }
        };
        event("Send raft proposal", Vec::new());
        let (reply, answer) = oneshot::channel();
        let (vital, reply) = (weight == Weight::Vital, Some(Waiter(reply)));
        let proposal = replica::Proposal { id, data, kind, vital, only_in_term, reply };
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
        match &outcome {
            Err(Error::Unavailable(why)) => event("exception", exception(*why)),
            _ => event("Receive raft result", Vec::new()),
        }
        outcome
    }

    /// The typed answer. The reply to another command would mean that two proposals had the same id, so the
    /// member stops.
    fn answer<A: Proposable>(&self, applied: Applied) -> Result<A::Response, Error> {
        let Applied { reply, header } = applied;
        let answer = A::answer(reply, header).map_err(|_| {
            Fatal::new(format!("the answer to {}", A::KIND), "it is that of another request")
        });
        self.fatal_stops(answer)
    }

    /// Records the duration of a request.
    pub(in crate::member) fn observe_request(&self, kind: &str, started: Instant, success: bool) {
        let labels = [kind, truth(success)];
        let histogram = self.0.metrics.request_seconds.with_label_values(&labels);
        observe(&histogram, self.0.env.now() - started);
    }

    /// The likely reason of a timeout.
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

    /// Pause of retry loops of a member's own proposals.
    pub(in crate::member) const RETRY_PAUSE: Duration = Duration::from_millis(500);
}

/// The attributes of a failed proposal's event.
fn exception(why: Unavailable) -> Vec<KeyValue> {
    vec![
        span::text("exception.type", b"Unavailable"),
        span::text("exception.message", why.text().as_bytes()),
    ]
}
