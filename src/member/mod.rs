//! One running member: the only module that combines consensus, the state machine, watch and peers. The edge
//! calls the methods of [`Member`]; the rest is its start and its tasks.
//!
//! ```text
//! requests -> propose -> replica ... committed -> applier -> store, hub, signals -> answer
//! requests -> linearizable (read index, applied) -> a view of the store
//! lessor, upkeep -> propose                             what a member does by itself
//! links: replica <-> peers
//! ```
//!
//! Invariants:
//! * The applier is the only writer of the state, at work and at recovery.
//! * A write is answered after its batch is visible, so the answer's revision can be read; the header of the
//!   answer is made when its entry is applied.
//! * Nothing here panics on what a client or a peer sends.
//!
//! Reading order: [`options`], [`start`] (how a start is decided), this file, `propose` (how a command gets
//! into the log), `applier` (committed entries), `requests` (the client API), `caller` and [`tokens`]
//! (authentication), `lessor` (when leases end), `upkeep` (periodic work), `links` (the other members),
//! `snapshot`, `signals` (state shared by the tasks).

mod applier;
mod caller;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod lessor;
mod links;
pub mod options;
mod propose;
mod requests;
mod signals;
mod snapshot;
pub mod start;
pub mod tokens;
mod upkeep;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_proto::etcdserverpb::ResponseHeader;
use tokio::sync::Semaphore;

pub use caller::Caller;
pub use options::{InitialState, Options, Proposals, ResponseMemory, UNARY_WARNING};
pub use requests::{Charge, Chunks, Pages, ReadResponse, loggable};
pub use start::{first, identity};
pub use tokens::jwt;
pub use upkeep::compactor;

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
use identity::RequestIds;
use lessor::Lessor;
use links::Links;
use propose::{Admission, Waiter};
use requests::Budget;
use signals::Signals;
use tokens::{Passwords, Tokens};
use upkeep::Hashes;

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
    lessor: Arc<Lessor>,
    tokens: Arc<Tokens>,
    passwords: Passwords,
    metrics: Arc<Metrics>,
    times: upkeep::Times,
    proposals: Admission,
    /// Bounds the client reads that wait for a read index.
    readers: Semaphore,
    /// Memory for range responses in flight.
    response_memory: Budget,
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

    /// Pending proposals of this member, and their bytes.
    pub fn proposals_pending(&self) -> (usize, usize) {
        self.0.proposals.taken()
    }

    /// Bytes reserved for range responses in flight.
    pub fn answer_bytes(&self) -> usize {
        self.0.response_memory.taken()
    }

    pub fn watch_counters(&self) -> &watch::Counters {
        self.0.hub.counters()
    }

    /// The other members, whether each is reachable, and statistics.
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

    /// The status of consensus on this member.
    pub fn raft(&self) -> Status {
        self.0.replica.status().borrow().clone()
    }

    /// The matched index of each member, if this one leads.
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

    /// The version that this member reports.
    pub fn version(&self) -> &'static str {
        self.0.options.version()
    }

    pub fn cluster_version(&self) -> Option<String> {
        self.members().cluster_version.clone()
    }

    /// Whether the server is shutting down.
    pub fn is_stopping(&self) -> bool {
        *self.0.signals.stopping.borrow()
    }

    /// Ready when this member's name and client URLs are published in the cluster, which takes a leader.
    pub async fn ready(&self) -> Result<(), Fatal> {
        let mut ready = self.0.signals.ready.subscribe();
        tokio::select! {
            biased; // A member that has failed will never be ready.
            fatal = self.fatal() => Err(fatal),
            _ = ready.wait_for(|ready| *ready) => Ok(()),
        }
    }

    /// Ready when the member cannot go on.
    pub async fn fatal(&self) -> Fatal {
        self.0.signals.fatal().await
    }

    /// Announces the shutdown: streams end, health checks fail.
    pub fn stopping(&self) {
        self.0.signals.stopping.send_replace(true);
    }

    /// Hands leadership over and stops the member's tasks.
    pub async fn shutdown(&self) {
        self.stopping();
        self.0.replica.shutdown().await;
        self.0.links.shutdown();
    }

    /// Ready when a client's stream must end: the server stops, or, for a client that requires a leader, none
    /// has been known for three election timeouts.
    pub async fn cut_off(&self, needs_leader: bool) -> Error {
        let mut stopping = self.0.signals.stopping.subscribe();
        tokio::select! {
            biased; // The shutdown takes precedence.
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

    /// The newest revision that was there `ago`, if this member ran then.
    pub fn revision_before(&self, ago: std::time::Duration) -> Option<Revision> {
        self.0.env.now().checked_sub(ago).and_then(|then| self.0.times.revision_at(then))
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

    /// Completes the header of a read, which has a revision only.
    fn complete(&self, header: Option<ResponseHeader>) -> Option<ResponseHeader> {
        let revision = header.map_or(0, |header| header.revision);
        let revision = if revision > 0 { Revision(revision) } else { self.0.store.revision() };
        Some(self.header_at(revision))
    }

    /// As [`Self::linearizable`], for a client's read of keys. Their number is bounded, which leaves room for
    /// the cluster's own reads.
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
