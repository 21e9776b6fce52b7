//! Proposals of this member: the ones that wait for a leader to take them, and the reply handles of
//! the ones taken, until their entry is committed. No I/O.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::raftpb;

use crate::codec;
use crate::error::{Error, Refused, Unavailable};
use crate::limits;
use crate::types::Term;

/// How an answer finds its way back; only carried here.
pub trait Reply: Send + 'static {
    /// The proposal will not be made, or its outcome will not be known here.
    fn refuse(self, error: Error);
    /// Whether the waiter is gone.
    fn is_closed(&self) -> bool;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposalKind {
    /// `data` is an `InternalRaftRequest`.
    Normal,
    /// `data` is a `raftpb::ConfChange`.
    ConfChange,
}

pub struct Proposal<R> {
    /// The id inside of `data`; 0 when there is no waiter.
    pub id: u64,
    pub data: Bytes,
    pub kind: ProposalKind,
    /// Taken longer than others when entries wait to be applied.
    pub vital: bool,
    /// Refused unless this member leads exactly this term when it appends.
    pub only_in_term: Option<Term>,
    pub reply: Option<R>,
}

impl<R: Reply> Proposal<R> {
    pub fn refuse(self, error: impl Into<Error>) {
        if let Some(reply) = self.reply {
            reply.refuse(error.into());
        }
    }

    fn is_closed(&self) -> bool {
        self.reply.as_ref().is_some_and(Reply::is_closed)
    }

    fn entry(&self) -> raftpb::Entry {
        let r#type = match self.kind {
            ProposalKind::Normal => raftpb::EntryType::EntryNormal,
            ProposalKind::ConfChange => raftpb::EntryType::EntryConfChange,
        };
        raftpb::Entry { r#type: r#type.into(), data: self.data.clone(), ..Default::default() }
    }
}

/// The state of raft before a batch is made.
#[derive(Clone, Copy)]
pub struct Terms {
    /// The term that this member leads, if it takes proposals.
    pub leading: Option<u64>,
    /// Whether a conf change would be replaced by an empty entry.
    pub change_pending: bool,
}

pub struct Proposals<R> {
    waiting: VecDeque<Proposal<R>>,
    waiting_bytes: usize,
    /// Apart, so that a change that waits for another does not hold up writes.
    changes: VecDeque<Proposal<R>>,
    /// Ordered, because refusing all of them must not depend on a hash seed.
    pending: BTreeMap<u64, R>,
    /// Refused here since start.
    pub failed: u64,
}

impl<R: Reply> Proposals<R> {
    pub fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            changes: VecDeque::new(),
            pending: BTreeMap::new(),
            failed: 0,
        }
    }

    /// Takes a proposal in, or refuses it for want of room.
    pub fn push(&mut self, proposal: Proposal<R>) {
        let bytes = self.waiting_bytes + proposal.data.len();
        // One above the bound waits alone.
        let full = self.waiting_bytes > 0 && bytes > limits::WAITING_BYTES_MAX;
        if self.len() >= limits::PROPOSALS_MAX || full {
            return self.refuse(proposal, Unavailable::TooManyRequests);
        }
        match proposal.kind {
            ProposalKind::Normal => {
                self.waiting_bytes = bytes;
                self.waiting.push_back(proposal);
            }
            ProposalKind::ConfChange => self.changes.push_back(proposal),
        }
    }

    pub fn refuse(&mut self, proposal: Proposal<R>, error: impl Into<Error>) {
        self.failed += 1;
        proposal.refuse(error);
    }

    /// Accepted and not answered.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.changes.len() + self.pending.len()
    }

    /// The next entries to propose together, none when nothing waits. [`Self::taken`] follows when
    /// raft has taken them, else they wait on.
    pub fn batch(&mut self, terms: Terms) -> Vec<raftpb::Entry> {
        if !terms.change_pending {
            while self.changes.front().is_some_and(Proposal::is_closed) {
                self.changes.pop_front();
            }
            if let Some(change) = self.changes.front() {
                return vec![change.entry()];
            }
        }
        self.drop_unwanted(terms);
        let mut bytes = 0;
        let fitting = self.waiting.iter().take_while(|proposal| {
            let first = bytes == 0;
            bytes += proposal.data.len();
            first || bytes <= limits::BATCH_BYTES_MAX as usize
        });
        fitting.map(Proposal::entry).collect()
    }

    /// Raft has taken the batch.
    pub fn taken(&mut self, batch: &[raftpb::Entry]) {
        for entry in batch {
            let queue = match entry.r#type() {
                raftpb::EntryType::EntryNormal => &mut self.waiting,
                _ => &mut self.changes,
            };
            let proposal = queue.pop_front().expect("the batch was made from the front");
            if proposal.kind == ProposalKind::Normal {
                self.waiting_bytes -= proposal.data.len();
            }
            if let (id @ 1.., Some(reply)) = (proposal.id, proposal.reply) {
                self.pending.insert(id, reply);
            }
        }
    }

    /// The handle of the proposer of a committed entry, if it is one of ours.
    pub fn committed(&mut self, entry: &raftpb::Entry) -> Option<R> {
        if self.pending.is_empty() {
            return None;
        }
        let id = match entry.r#type() {
            raftpb::EntryType::EntryNormal => codec::request_id(&entry.data)?,
            _ => raftpb::ConfChange::decode(&entry.data[..]).ok()?.id,
        };
        self.pending.remove(&id)
    }

    /// Drops handles without a waiter: their requests have timed out.
    pub fn prune(&mut self) {
        self.pending.retain(|_, reply| !reply.is_closed());
        self.changes.retain(|proposal| !proposal.is_closed());
        self.retain_waiting(|proposal| !proposal.is_closed());
    }

    pub fn refuse_all(&mut self, error: &Error) {
        let waiting = self.waiting.drain(..).chain(self.changes.drain(..));
        let replies = waiting.filter_map(|proposal| proposal.reply);
        for reply in replies.chain(std::mem::take(&mut self.pending).into_values()) {
            reply.refuse(error.clone());
        }
        self.waiting_bytes = 0;
    }

    /// Drops proposals without a waiter and refuses those bound to a term that this member does not lead.
    fn drop_unwanted(&mut self, terms: Terms) {
        let other_term = |proposal: &Proposal<R>| {
            proposal.only_in_term.is_some_and(|term| Some(term.0) != terms.leading)
        };
        if self.waiting.iter().any(other_term) {
            let all = std::mem::take(&mut self.waiting).into_iter();
            let (refused, kept): (VecDeque<_>, VecDeque<_>) = all.partition(other_term);
            self.waiting = kept;
            for proposal in refused {
                self.waiting_bytes -= proposal.data.len();
                self.refuse(proposal, Refused::NotLeader);
            }
        }
        self.retain_waiting(|proposal| !proposal.is_closed());
    }

    fn retain_waiting(&mut self, keep: impl Fn(&Proposal<R>) -> bool) {
        let bytes = &mut self.waiting_bytes;
        self.waiting.retain(|proposal| {
            let kept = keep(proposal);
            *bytes -= if kept { 0 } else { proposal.data.len() };
            kept
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::cell::RefCell;
    use std::rc::Rc;

    #[derive(Clone, Default)]
    struct Handle(std::sync::Arc<std::sync::Mutex<Option<Error>>>);

    impl Reply for Handle {
        fn refuse(self, error: Error) {
            *self.0.lock().expect("one thread") = Some(error);
        }

        fn is_closed(&self) -> bool {
            false
        }
    }

    impl Handle {
        fn refusal(&self) -> Option<Error> {
            self.0.lock().expect("one thread").clone()
        }
    }

    const LEADING: Terms = Terms { leading: Some(3), change_pending: false };

    fn proposal(id: u64, bytes: usize, term: Option<u64>) -> (Proposal<Handle>, Handle) {
        let handle = Handle::default();
        let proposal = Proposal {
            id,
            data: vec![0; bytes].into(),
            kind: ProposalKind::Normal,
            vital: false,
            only_in_term: term.map(Term),
            reply: Some(handle.clone()),
        };
        (proposal, handle)
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_but_never_empty() {
        let mut proposals = Proposals::new();
        let big = limits::BATCH_BYTES_MAX as usize + 1;
        for (id, bytes) in [(1, big), (2, 10), (3, 10)] {
            proposals.push(proposal(id, bytes, None).0);
        }
        let sizes = Rc::new(RefCell::new(Vec::new()));
        loop {
            let batch = proposals.batch(LEADING);
            if batch.is_empty() {
                break;
            }
            proposals.taken(&batch);
            sizes.borrow_mut().push(batch.len());
        }
        assert_eq!(*sizes.borrow(), vec![1, 2]);
        assert_eq!((proposals.len(), proposals.waiting_bytes), (3, 0));
    }

    #[test]
    fn a_proposal_of_another_term_is_refused() {
        let mut proposals = Proposals::new();
        let (old, refused) = proposal(1, 4, Some(2));
        let (now, kept) = proposal(2, 4, Some(3));
        proposals.push(old);
        proposals.push(now);
        assert_eq!(proposals.batch(LEADING).len(), 1);
        assert_eq!(refused.refusal(), Some(Refused::NotLeader.into()));
        assert_eq!(kept.refusal(), None);
        let following = Terms { leading: None, change_pending: false };
        assert!(proposals.batch(following).is_empty());
        assert_eq!(kept.refusal(), Some(Refused::NotLeader.into()));
    }

    #[test]
    fn too_much_is_refused() {
        let mut proposals = Proposals::new();
        for id in 1..=limits::PROPOSALS_MAX as u64 {
            proposals.push(proposal(id, 1, None).0);
        }
        let (more, refused) = proposal(0, 1, None);
        proposals.push(more);
        assert_eq!(refused.refusal(), Some(Unavailable::TooManyRequests.into()));
        proposals.refuse_all(&Unavailable::Stopped.into());
        assert_eq!((proposals.len(), proposals.waiting_bytes), (0, 0));
    }
}
