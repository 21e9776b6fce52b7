//! A batch of committed entries in four steps: apply each, commit all at once, publish the changes, answer
//! the proposers. The header of an answer is made when its entry is applied: later the store's revision may
//! be that of another entry.

use std::time::Instant;

use bytes::Bytes;
use quorate_proto::etcdserverpb::ResponseHeader;
use quorate_proto::raftpb::{ConfChange, ConfChangeType, ConfState, Entry};
use tracing::info;

use super::{Applier, tally};
use crate::apply::planted::{Circumstances, request_at};
use crate::apply::{Command, Notice, Outcome, Reply, StateMachine, position};
use crate::error::{Error, Fatal, Refused};
use crate::member::propose::{Applied, Waiter};
use crate::member::requests::slow;
use crate::metrics::observe;
use crate::mvcc::{Changed, Store, Write};
use crate::plant;
use crate::replica::Committed;
use crate::types::{Index, MemberId, Revision, Term};
use crate::watch::Publication;

/// An open batch.
pub(in crate::member) struct Batch<'a> {
    write: Write<'a>,
    effects: Effects,
    /// Applied before this batch.
    applied: Index,
    /// The member's term, for headers.
    raft_term: Term,
}

/// What remains to be done after the commit.
#[derive(Default)]
pub(in crate::member) struct Effects {
    answers: Vec<(Waiter, Result<Applied, Error>)>,
    notices: Vec<(Index, Notice)>,
    /// Whether a configuration change was applied, accepted or not.
    reconfigured: bool,
    publications: Publications,
}

/// What is to be published to watchers, in order.
#[derive(Default)]
struct Publications {
    /// Publications, then a large entry, of which only the range of changed keys is published.
    cut: Vec<(Vec<Publication>, Revision, (Bytes, Bytes))>,
    last: Vec<Publication>,
}

impl<'a> Batch<'a> {
    pub fn begin(applier: &Applier, store: &'a Store, entries: usize) -> Self {
        let effects = Effects { answers: Vec::with_capacity(entries), ..Effects::default() };
        Self {
            write: store.begin().with_events_max(applier.hub.bounds().events_bytes),
            effects,
            applied: store.applied(),
            raft_term: applier.replica.status().borrow().term,
        }
    }

    /// Applies one entry.
    pub async fn apply(
        &mut self,
        applier: &mut Applier,
        Committed { entry, reply }: Committed<Waiter>,
    ) -> Result<(), Fatal> {
        let started = applier.env.now();
        let (index, term) = position(&entry);
        assert!(index > self.applied, "entry {index} was applied before");
        let command = Command::decode(&entry)?;
        let is_old = || matches!(command, Command::Nothing) && !entry.data.is_empty();
        if plant::OLD_ENTRY_LEAVES_THE_INDEX.is_planted() && is_old() {
            return Ok(());
        }
        self.write.start_entry(index, term);
        applier.term = term;
        let is_abandoned = reply.as_ref().is_some_and(Waiter::is_abandoned);
        if is_abandoned || reply.is_none() {
            self.write.without_answer();
        }
        let mut kind = None;
        let outcome: Outcome = match command {
            Command::Nothing => Ok((Reply::Nothing, None)),
            Command::Request(header, request) => {
                let at = || Circumstances {
                    index,
                    applied: self.applied,
                    member: applier.member,
                    is_first: applier.machine.members.members.keys().next()
                        == Some(&applier.member),
                    is_abandoned,
                };
                match request_at(at, request) {
                    Some(request) => {
                        kind = Some(request.kind());
                        applier.machine.apply(&mut self.write, header, request)?
                    }
                    None => Ok((Reply::Nothing, None)),
                }
            }
            Command::Change(change) => self.reconfigure(applier, change).await?,
        };
        let changed = self.write.take_changed();
        if let Ok((reply, notice)) = &outcome {
            tally::applied(&applier.metrics, reply, notice.as_ref(), &changed);
        }
        self.observe(applier, &entry, kind, started, &outcome);
        let revision = self.write.revision();
        self.effects.publications.add(revision, changed);
        let outcome = outcome.map(|(reply, notice)| {
            self.effects.notices.extend(notice.map(|notice| (index, notice)));
            reply
        });
        if let Some(waiter) = reply {
            let header = self.header(applier);
            let answer = outcome.map(|reply| Applied { reply, header });
            self.effects.answers.push((waiter, answer));
        }
        Ok(())
    }

    /// Commits the batch, which makes it visible.
    pub fn commit(self, applier: &mut Applier) -> Result<Effects, Fatal> {
        let Self { write, effects, .. } = self;
        let compacted = applier.store.compact_revision();
        let began = applier.env.now();
        write.commit()?;
        observe(&applier.metrics.commit_seconds, applier.env.now() - began);
        let store = &applier.store;
        if store.compact_revision() > compacted {
            // Taken before the first deletion.
            applier.hashes.compute(&applier.env, &applier.signals, store.view(), compacted);
        }
        Ok(effects)
    }

    /// The header of the answer to the last applied entry.
    fn header(&self, applier: &Applier) -> ResponseHeader {
        ResponseHeader {
            cluster_id: applier.cluster.0,
            member_id: applier.member.0,
            revision: self.write.revision().0,
            raft_term: self.raft_term.0,
        }
    }

    /// Changes the member table, then the configuration. A refused change is applied to the configuration as
    /// a change of node 0, which does nothing.
    async fn reconfigure(
        &mut self,
        applier: &mut Applier,
        change: ConfChange,
    ) -> Result<Outcome, Fatal> {
        let refused = applier.machine.change(&mut self.write, &change).err();
        applier.conf_state = agree(applier, change, refused).await;
        StateMachine::remember_conf_state(&mut self.write, &applier.conf_state);
        self.effects.reconfigured = true;
        Ok(match refused {
            Some(refused) => Err(refused.into()),
            None => Ok((Reply::Members(applier.machine.members.list()), Some(Notice::Members))),
        })
    }

    /// Counts an entry, and logs a slow one.
    fn observe(
        &self,
        applier: &mut Applier,
        entry: &Entry,
        kind: Option<&'static str>,
        started: Instant,
        outcome: &Outcome,
    ) {
        let took = applier.env.now() - started;
        if let Some(kind) = kind {
            let done = tally::succeeded(outcome);
            applier.apply_seconds.observe(&applier.metrics, kind, done, took);
        }
        if took > applier.warning {
            let outcome = outcome.as_ref().map(|(reply, _)| reply);
            slow::warn_of_entry(&applier.metrics, took, applier.warning, entry, outcome);
        }
    }
}

impl Effects {
    /// Publishes the changes to the member's tasks and to watchers, then the applied index.
    pub async fn publish(&mut self, applier: &Applier) {
        applier.notify(std::mem::take(&mut self.notices), self.reconfigured);
        let Publications { cut, last } = std::mem::take(&mut self.publications);
        for (publications, revision, (first, last)) in cut {
            applier.publish(publications).await;
            applier.hub.pass(revision, first, last).await;
        }
        applier.publish(last).await;
        let applied = applier.store.applied();
        applier.replica.applied(applied, applier.term);
        applier.signals.applied.send_replace(applied);
    }

    /// Answers the proposers on this member.
    pub fn answer(self) {
        for (waiter, answer) in self.answers {
            waiter.answer(answer);
        }
    }
}

impl Publications {
    fn add(&mut self, revision: Revision, changed: Changed) {
        if !changed.events.is_empty() {
            self.last.push(Publication { revision, events: changed.events.into() });
        } else if let Some(between) = changed.between {
            self.cut.push((std::mem::take(&mut self.last), revision, between));
        }
    }
}

/// The configuration after `change`.
async fn agree(applier: &Applier, change: ConfChange, refused: Option<Refused>) -> ConfState {
    let ghost =
        plant::GHOST_VOTER.is_planted() && change.r#type() == ConfChangeType::ConfChangeRemoveNode;
    let change = match refused {
        None if ghost => ConfChange { node_id: 0, ..change },
        Some(refused) => {
            let (kind, node) = (change.r#type().as_str_name(), MemberId(change.node_id));
            info!(kind, %node, error = %refused, "Validation on configuration change failed");
            ConfChange { node_id: 0, ..change }
        }
        None => change,
    };
    let state = applier.replica.apply_conf_change(change).await;
    state.unwrap_or_else(|| applier.conf_state.clone())
}
