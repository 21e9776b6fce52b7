//! One running member: the only place that knows consensus, the state machine, watch and peers
//! together. The edge calls the methods of [`Member`]; everything else here is how a member starts
//! and what its tasks do.
//!
//! ```text
//! requests -> propose -> replica ... committed -> applier -> store, hub, signals -> answer
//! requests -> linearizable (read index, applied) -> a view of the store
//! clockwork -> propose                                  what a member does by itself
//! links: replica <-> peers
//! ```
//!
//! Invariants:
//! * The applier is the only writer of the state, at work and at recovery.
//! * A write is answered after its batch is visible, so the answer's revision can be read.
//! * Nothing here panics on what a client or a peer sends.
//!
//! Reading order: [`options`], [`identity`], [`first`] (what a new cluster begins with), `boot` (how a
//! start is decided), `join` (how a member
//! finds the cluster that it joins), `alone` (how it leaves all others behind), `admission`, `propose`,
//! `applier`, `caller` (on whose behalf), `requests` (what the edge calls), `ranges`, `budget`, `leases`,
//! `auth`, [`tokens`], [`jwt`], `reconfigure` (membership), `downgrade`, `clock`, `pace`, `checkpoint` and
//! `clockwork`, `quota`, [`compactor`], `hashes` and `corruption` (is all history the same?), `snapshot`,
//! `links`, `signals` (what the tasks tell each other), `tally` (what is counted of applied entries),
//! `slow` (what took too long), [`loggable`] (how that is told) and `spans` (what a trace is told).

mod admission;
mod alone;
mod applier;
mod auth;
mod boot;
mod budget;
mod caller;
mod checkpoint;
mod clock;
mod clockwork;
pub mod compactor;
mod corruption;
mod downgrade;
pub mod first;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod hashes;
pub mod identity;
mod join;
pub mod jwt;
mod leases;
mod links;
pub mod loggable;
pub mod options;
mod pace;
mod propose;
mod quota;
mod ranges;
mod reconfigure;
mod requests;
mod signals;
mod slow;
mod snapshot;
mod spans;
mod stall;
mod tally;
pub mod tokens;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_proto::etcdserverpb::ResponseHeader;
use tokio::sync::Semaphore;

pub use budget::Charge;
pub use caller::Caller;
pub use options::{Answers, InitialState, Options, Proposals};
pub use ranges::{Answer, Chunks, Pages};

use crate::apply::alarm::Alarms;
use crate::apply::membership::Membership;
use crate::env::{Env, Lock};
use crate::error::{Error, Fatal, Unavailable};
use crate::limits;
use crate::metrics::Metrics;
use crate::mvcc::Store;
use crate::peer;
use crate::plant;
use crate::replica::{Replica, Status};
use crate::types::{ClusterId, MemberId, Revision};
use crate::watch::{self, HubHandle};
use admission::Admission;
use budget::Budget;
use hashes::Hashes;
use identity::RequestIds;
use links::Links;
use propose::Waiter;
use signals::Signals;
use tokens::Tokens;

/// The etcd release whose behaviour this server has, and the cluster version it can take part in.
pub const ETCD_VERSION: &str = "3.7.1";
pub const CLUSTER_VERSION: &str = "3.7.0";

/// A handle on a running member; clones share it.
#[derive(Clone)]
pub struct Member(Arc<Inner>);

struct Inner {
    env: Env,
    options: Options,
    id: MemberId,
    cluster: ClusterId,
    ids: RequestIds,
    store: Store,
    replica: Replica<Waiter>,
    links: Links,
    hub: HubHandle,
    hashes: Hashes,
    signals: Arc<Signals>,
    tokens: Arc<Tokens>,
    metrics: Arc<Metrics>,
    proposals: Admission,
    /// Places of clients' reads that wait for an index.
    readers: Semaphore,
    /// For answers of ranges under way.
    answers: Budget,
    /// Keeps a second process off the data directory.
    _lock: Box<dyn Lock>,
}

impl Member {
    pub fn id(&self) -> MemberId {
        self.0.id
    }

    pub fn cluster_id(&self) -> ClusterId {
        self.0.cluster
    }

    pub fn env(&self) -> &Env {
        &self.0.env
    }

    pub fn name(&self) -> &str {
        &self.0.options.name
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Proposals of this member that wait for an answer, and their bytes.
    pub fn proposals_pending(&self) -> (usize, usize) {
        self.0.proposals.taken()
    }

    /// Bytes that are set aside for answers of ranges under way.
    pub fn answer_bytes(&self) -> usize {
        self.0.answers.taken()
    }

    pub fn watch_counters(&self) -> &watch::Counters {
        self.0.hub.counters()
    }

    /// The other members, whether messages get through to each, and figures about it.
    pub fn peers(&self) -> Vec<(MemberId, bool, Arc<peer::Stats>)> {
        self.0.links.figures()
    }

    /// etcd's feature gates: name, stage and whether each is on.
    pub fn feature_gates(&self) -> &[(&'static str, &'static str, bool)] {
        &self.0.options.feature_gates
    }

    pub fn request_bytes_max(&self) -> usize {
        self.0.options.request_bytes_max
    }

    /// A unary call that takes longer is logged.
    pub fn unary_warning(&self) -> Duration {
        self.0.options.unary_warning
    }

    /// Where consensus stands, as this member knows it.
    pub fn raft(&self) -> Status {
        self.0.replica.status().borrow().clone()
    }

    /// How far each member's log has come, as this one knows if it leads.
    pub async fn progress(&self) -> BTreeMap<MemberId, u64> {
        let mut progress = BTreeMap::new();
        for id in self.members().members.keys() {
            let Ok(Some(known)) = self.0.replica.progress(*id).await else { break };
            progress.extend(known.matched.map(|matched| (*id, matched.0)));
        }
        progress
    }

    pub fn has_leader(&self) -> bool {
        self.0.replica.status().borrow().leader != MemberId::NONE
    }

    pub fn is_learner(&self) -> bool {
        let members = self.0.signals.members.borrow();
        members.members.get(&self.0.id).is_some_and(|member| member.is_learner)
    }

    pub fn members(&self) -> Arc<Membership> {
        self.0.signals.members.borrow().clone()
    }

    pub fn alarms(&self) -> Arc<Alarms> {
        self.0.signals.alarms.borrow().clone()
    }

    pub fn cluster_version(&self) -> Option<String> {
        self.members().cluster_version.clone()
    }

    /// Whether the server is on its way down.
    pub fn is_stopping(&self) -> bool {
        *self.0.signals.stopping.borrow()
    }

    /// Ready when the cluster knows this member's name and client URLs, which takes a leader.
    pub async fn ready(&self) -> Result<(), Fatal> {
        let mut ready = self.0.signals.ready.subscribe();
        tokio::select! {
            biased; // A member that cannot go on will never be ready.
            fatal = self.fatal() => Err(fatal),
            _ = ready.wait_for(|ready| *ready) => Ok(()),
        }
    }

    /// Ready when the member cannot go on.
    pub async fn fatal(&self) -> Fatal {
        self.0.signals.fatal().await
    }

    /// Announces the end: streams are told, health turns.
    pub fn stopping(&self) {
        self.0.signals.stopping.send_replace(true);
    }

    /// Hands leadership over and stops the member's tasks.
    pub async fn shutdown(&self) {
        self.stopping();
        self.0.replica.shutdown().await;
        self.0.links.shutdown();
    }

    /// Ready when a client's stream must end: the server stops, or, if the client asked for it, no
    /// leader has been known for three election timeouts.
    pub async fn cut_off(&self, needs_leader: bool) -> Error {
        let mut stopping = self.0.signals.stopping.subscribe();
        tokio::select! {
            biased; // The end of the server is the stronger reason.
            _ = stopping.wait_for(|stopping| *stopping) => Unavailable::Stopped.into(),
            () = self.leader_lost(), if needs_leader => Unavailable::NoLeader.into(),
        }
    }

    async fn leader_lost(&self) {
        let patience = 3 * self.0.options.election_timeout;
        let mut status = self.0.replica.status();
        loop {
            let gone = status.wait_for(|status| status.leader == MemberId::NONE).await.is_err();
            if gone {
                return;
            }
            let back = status.wait_for(|status| status.leader != MemberId::NONE);
            if !matches!(self.0.env.timeout(patience, back).await, Ok(Ok(_))) {
                return;
            }
        }
    }

    /// A header at the present revision.
    pub fn header(&self) -> ResponseHeader {
        self.header_at(self.0.store.revision())
    }

    pub(crate) fn header_at(&self, revision: Revision) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.0.cluster.0,
            member_id: self.0.id.0,
            revision: revision.0,
            raft_term: self.0.replica.status().borrow().term.0,
        }
    }

    /// Completes the header that apply left with a revision only, or none.
    fn complete(&self, header: Option<ResponseHeader>) -> Option<ResponseHeader> {
        let revision = header.map_or(0, |header| header.revision);
        let revision = if revision > 0 { Revision(revision) } else { self.0.store.revision() };
        Some(self.header_at(revision))
    }

    /// As [`Self::linearizable`], for a client's read of keys: so many wait at a time that there is room
    /// for what keeps the cluster alive.
    async fn linearizable_for_client(&self) -> Result<(), Error> {
        let _place = self.0.readers.try_acquire().map_err(|_| Unavailable::TooManyRequests)?;
        self.linearizable().await
    }

    /// Waits until this member's state holds every write that was acknowledged before the call.
    pub async fn linearizable(&self) -> Result<(), Error> {
        let limit = limits::request_timeout(self.0.options.election_timeout);
        let mut applied = self.0.signals.applied.subscribe();
        if plant::UNCONFIRMED_READ.is_planted() {
            return Ok(());
        }
        let wait = async {
            let index = self.0.replica.read_index().await?;
            if plant::READ_BEFORE_APPLIED.is_planted() {
                return Ok(());
            }
            match applied.wait_for(|applied| *applied >= index).await {
                Ok(_) => Ok(()),
                Err(_) => Err(Unavailable::Stopped.into()),
            }
        };
        self.0.env.timeout(limit, wait).await.unwrap_or(Err(Unavailable::Timeout.into()))
    }
}
