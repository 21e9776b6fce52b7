//! Messages that decode and that no member of this cluster can have sent: their numbers do not fit this
//! member's log. raft-rs ends the process at most of them. They come from a sender that is no member, or
//! they show that a disk has lost what it had acknowledged. Pure.

use raft::eraftpb::{Message, MessageType};
use raft::{Raft, StateRole, Storage};

/// How far a message's term may be above this member's. Terms rise by one with an election; a term that
/// a faulty sender has raised to the largest number would leave no term for the next election.
const TERM_LEAP: u64 = 1 << 32;

/// What a message claims, and what this member knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    #[error("the sender is this member itself")]
    Own,
    #[error("term {0}, in term {1}")]
    Term(u64, u64),
    #[error(
        "entries up to {0} are committed, but this log ends at {1}: unless the sender is no member, this member's disk has lost entries"
    )]
    Commit(u64, u64),
    #[error(
        "entries up to {0} are acknowledged, but this leader's log ends at {1}: unless the sender is no member, this member's disk has lost entries"
    )]
    Acknowledged(u64, u64),
    #[error("a snapshot at {0} of term {1}, whose entry is committed here with another term")]
    Snapshot(u64, u64),
    #[error("a vote that this member has not asked for yet")]
    Vote,
}

/// Whether `m` may be given to raft.
pub fn check<T: Storage>(raft: &Raft<T>, m: &Message) -> Result<(), Impossible> {
    let kind = m.get_msg_type();
    let (log, last) = (&raft.raft_log, raft.raft_log.last_index());
    // Relayed with the sender they began with, which may be this member.
    let relayed = matches!(
        kind,
        MessageType::MsgPropose | MessageType::MsgReadIndex | MessageType::MsgTransferLeader
    );
    if m.from == raft.id && !relayed {
        return Err(Impossible::Own);
    }
    // A member that has no term yet may join a cluster of any term.
    if raft.term > 0 && m.term > raft.term.saturating_add(TERM_LEAP) {
        return Err(Impossible::Term(m.term, raft.term));
    }
    match kind {
        // A leader names no more than what this member has acknowledged in its term.
        MessageType::MsgHeartbeat if m.term >= raft.term && m.commit > last => {
            Err(Impossible::Commit(m.commit, last))
        }
        MessageType::MsgAppendResponse
            if raft.state == StateRole::Leader && m.term == raft.term && m.index > last =>
        {
            Err(Impossible::Acknowledged(m.index, last))
        }
        // Requests for votes leave when all that was written before them is durable, which raft asserts
        // of a member that has won.
        MessageType::MsgRequestVoteResponse
            if raft.state == StateRole::Candidate && log.persisted < last =>
        {
            Err(Impossible::Vote)
        }
        MessageType::MsgSnapshot => {
            let at = m.get_snapshot().get_metadata();
            let other_term = at.index == log.committed && !log.match_term(at.index, at.term);
            let contradicts = at.index > 0 && m.term >= raft.term && other_term;
            if contradicts { Err(Impossible::Snapshot(at.index, at.term)) } else { Ok(()) }
        }
        _ => Ok(()),
    }
}
