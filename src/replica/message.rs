//! Translation between etcd's `raftpb`, which is on the wire and on the disk, and raft-rs's `eraftpb`,
//! which is used inside [`super::core`] only. Pure; input that raft-rs would panic on is refused here.
//!
//! The two agree in fields 1 to 12 and in message types 0 to 18. They disagree in
//! * fields 13 and up (raft-rs: `request_snapshot`, `priority`, `commit_term`; etcd: `vote`,
//!   `responses`, both local): never sent, never read;
//! * entry fields 5 and 6 (raft-rs: `sync_log`, `context`): never sent, never read;
//! * conf change types from 2 on (etcd: update, add learner; raft-rs: add learner). The payload of a
//!   log entry stays as etcd wrote it, on the wire and on the disk; the change is translated when it
//!   is applied. A leader's raft-rs decodes the payload of a proposal and drops it when it does not
//!   know the type, so inside of raft the payload is [wrapped](wrap) in a field it skips.

use bytes::{Buf, Bytes};
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use quorate_proto::raftpb;
use raft::eraftpb;

/// Why a message from the network is not given to raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("a local or unknown message type")]
    Type,
    #[error("no sender")]
    Sender,
    #[error("no term, or a term where there is none")]
    Term,
    #[error("entries do not follow each other")]
    Entries,
    #[error("no snapshot position, or a configuration that is none of etcd's")]
    Snapshot,
    #[error("a number that no log reaches")]
    Number,
}

/// Terms and indexes at or above this are refused: raft counts on from them. No cluster reaches it in a
/// century of a billion entries a second.
const NUMBER_MAX: u64 = 1 << 62;

/// Converts a message from a peer. raft-rs does not validate its input: a hole between entries or a
/// proposal without entries would stop the process, a message without a term would pass as a local one,
/// and an entry or a position of term 0 as one that the log has.
pub fn from_wire(message: raftpb::Message) -> Result<eraftpb::Message, Malformed> {
    use raftpb::MessageType as Type;
    let wire_type = message.r#type();
    let msg_type = message_type(wire_type).ok_or(Malformed::Type)?;
    if message.from == 0 {
        return Err(Malformed::Sender);
    }
    let raftpb::Message { term, log_term, index, commit, reject_hint, .. } = message;
    if [term, log_term, index, commit, reject_hint].iter().any(|number| *number >= NUMBER_MAX) {
        return Err(Malformed::Number);
    }
    let sized = match wire_type {
        Type::MsgProp => !message.entries.is_empty(),
        Type::MsgReadIndex | Type::MsgReadIndexResp => message.entries.len() == 1,
        Type::MsgApp => continues(&message),
        _ => true,
    };
    if !sized {
        return Err(Malformed::Entries);
    }
    // Proposals and read requests are forwarded without a term, as local ones are made.
    let termless = matches!(wire_type, Type::MsgProp | Type::MsgReadIndex);
    if termless != (message.term == 0) {
        return Err(Malformed::Term);
    }
    let mut m = eraftpb::Message::default();
    if wire_type == Type::MsgSnap {
        let metadata = message.snapshot.and_then(|s| s.metadata).ok_or(Malformed::Snapshot)?;
        let positioned = (1..NUMBER_MAX).contains(&metadata.index);
        if !positioned || metadata.term == 0 || metadata.term > message.term {
            return Err(Malformed::Snapshot);
        }
        if !metadata.conf_state.as_ref().is_some_and(is_plain) {
            return Err(Malformed::Snapshot);
        }
        m.mut_snapshot().set_metadata(snapshot_metadata_in(metadata));
    }
    m.set_msg_type(msg_type);
    m.to = message.to;
    m.from = message.from;
    m.term = message.term;
    m.log_term = message.log_term;
    m.index = message.index;
    m.entries = message.entries.into_iter().map(entry_in).collect::<Vec<_>>().into();
    m.commit = message.commit;
    m.reject = message.reject;
    m.reject_hint = message.reject_hint;
    m.context = message.context;
    Ok(m)
}

/// A message of raft's, for a peer.
pub fn to_wire(mut m: eraftpb::Message) -> raftpb::Message {
    let snapshot = (m.get_msg_type() == eraftpb::MessageType::MsgSnapshot).then(|| {
        let metadata = m.take_snapshot().take_metadata();
        raftpb::Snapshot {
            data: Default::default(),
            metadata: Some(snapshot_metadata_out(metadata)),
        }
    });
    raftpb::Message {
        // The numbers of the types raft-rs knows are etcd's.
        r#type: m.get_msg_type() as i32,
        to: m.to,
        from: m.from,
        term: m.term,
        log_term: m.log_term,
        index: m.index,
        entries: m.take_entries().into_iter().map(entry_out).collect(),
        commit: m.commit,
        snapshot,
        reject: m.reject,
        reject_hint: m.reject_hint,
        context: m.take_context(),
        vote: 0,
        responses: Vec::new(),
    }
}

/// The types that travel between members; the others are a member's talk with itself.
fn message_type(wire: raftpb::MessageType) -> Option<eraftpb::MessageType> {
    use eraftpb::MessageType as In;
    use raftpb::MessageType as Wire;
    Some(match wire {
        Wire::MsgProp => In::MsgPropose,
        Wire::MsgApp => In::MsgAppend,
        Wire::MsgAppResp => In::MsgAppendResponse,
        Wire::MsgVote => In::MsgRequestVote,
        Wire::MsgVoteResp => In::MsgRequestVoteResponse,
        Wire::MsgSnap => In::MsgSnapshot,
        Wire::MsgHeartbeat => In::MsgHeartbeat,
        Wire::MsgHeartbeatResp => In::MsgHeartbeatResponse,
        Wire::MsgTransferLeader => In::MsgTransferLeader,
        Wire::MsgTimeoutNow => In::MsgTimeoutNow,
        Wire::MsgReadIndex => In::MsgReadIndex,
        Wire::MsgReadIndexResp => In::MsgReadIndexResp,
        Wire::MsgPreVote => In::MsgRequestPreVote,
        Wire::MsgPreVoteResp => In::MsgRequestPreVoteResponse,
        Wire::MsgHup
        | Wire::MsgBeat
        | Wire::MsgUnreachable
        | Wire::MsgSnapStatus
        | Wire::MsgCheckQuorum
        | Wire::MsgStorageAppend
        | Wire::MsgStorageAppendResp
        | Wire::MsgStorageApply
        | Wire::MsgStorageApplyResp
        | Wire::MsgForgetLeader => return None,
    })
}

/// Whether the entries of a MsgApp directly follow its position, with terms that never fall and are not
/// above the leader's. Only the position before the first entry of all has no term.
fn continues(message: &raftpb::Message) -> bool {
    if (message.index == 0) != (message.log_term == 0) {
        return false;
    }
    let mut term = message.log_term.max(1);
    message.entries.iter().zip(1..).all(|(entry, offset)| {
        let rises = (term..=message.term).contains(&entry.term);
        term = entry.term;
        rises && message.index.checked_add(offset) == Some(entry.index)
    })
}

/// Whether raft-rs takes the configuration as it is: each member once, one voter at least, nothing of
/// joint consensus, which etcd never enters.
fn is_plain(state: &raftpb::ConfState) -> bool {
    let joint = !state.voters_outgoing.is_empty() || !state.learners_next.is_empty();
    let ids = || state.voters.iter().chain(&state.learners);
    let distinct: std::collections::BTreeSet<_> = ids().filter(|id| **id != 0).collect();
    !joint && !state.auto_leave && !state.voters.is_empty() && distinct.len() == ids().count()
}

pub fn entry_in(entry: raftpb::Entry) -> eraftpb::Entry {
    let mut e = eraftpb::Entry::default();
    e.set_entry_type(match entry.r#type() {
        raftpb::EntryType::EntryNormal => eraftpb::EntryType::EntryNormal,
        raftpb::EntryType::EntryConfChange => eraftpb::EntryType::EntryConfChange,
        raftpb::EntryType::EntryConfChangeV2 => eraftpb::EntryType::EntryConfChangeV2,
    });
    e.term = entry.term;
    e.index = entry.index;
    e.data = match e.get_entry_type() {
        eraftpb::EntryType::EntryConfChange => wrap(&entry.data),
        _ => entry.data,
    };
    e
}

pub fn entry_out(e: eraftpb::Entry) -> raftpb::Entry {
    let data = match e.get_entry_type() {
        eraftpb::EntryType::EntryConfChange => unwrap(e.data),
        _ => e.data,
    };
    raftpb::Entry { r#type: e.entry_type as i32, term: e.term, index: e.index, data }
}

/// A field that raft-rs's conf change has not.
const WRAPPED: u32 = 15;

/// etcd's conf change as a conf change that raft-rs decodes, to nothing it acts upon.
fn wrap(payload: &[u8]) -> Bytes {
    let mut wrapped = Vec::with_capacity(payload.len() + 6);
    encode_key(WRAPPED, WireType::LengthDelimited, &mut wrapped);
    encode_varint(payload.len() as u64, &mut wrapped);
    wrapped.extend_from_slice(payload);
    wrapped.into()
}

fn unwrap(mut wrapped: Bytes) -> Bytes {
    let key = decode_key(&mut wrapped);
    assert!(key.is_ok_and(|key| key == (WRAPPED, WireType::LengthDelimited)), "made by wrap");
    let length = decode_varint(&mut wrapped).expect("made by wrap");
    assert_eq!(length, wrapped.remaining() as u64, "made by wrap");
    wrapped
}

pub fn hard_state_in(state: &raftpb::HardState) -> eraftpb::HardState {
    eraftpb::HardState {
        term: state.term,
        vote: state.vote,
        commit: state.commit,
        ..Default::default()
    }
}

pub fn hard_state_out(hs: &eraftpb::HardState) -> raftpb::HardState {
    raftpb::HardState { term: hs.term, vote: hs.vote, commit: hs.commit }
}

pub fn conf_state_in(state: raftpb::ConfState) -> eraftpb::ConfState {
    eraftpb::ConfState {
        voters: state.voters,
        learners: state.learners,
        voters_outgoing: state.voters_outgoing,
        learners_next: state.learners_next,
        auto_leave: state.auto_leave,
        ..Default::default()
    }
}

/// Lists sorted, so that equal configurations have equal encodings.
pub fn conf_state_out(cs: eraftpb::ConfState) -> raftpb::ConfState {
    let sorted = |mut ids: Vec<u64>| {
        ids.sort_unstable();
        ids
    };
    raftpb::ConfState {
        voters: sorted(cs.voters),
        learners: sorted(cs.learners),
        voters_outgoing: sorted(cs.voters_outgoing),
        learners_next: sorted(cs.learners_next),
        auto_leave: cs.auto_leave,
    }
}

pub fn snapshot_metadata_in(metadata: raftpb::SnapshotMetadata) -> eraftpb::SnapshotMetadata {
    let mut meta = eraftpb::SnapshotMetadata {
        index: metadata.index,
        term: metadata.term,
        ..Default::default()
    };
    meta.set_conf_state(conf_state_in(metadata.conf_state.unwrap_or_default()));
    meta
}

pub fn snapshot_metadata_out(mut meta: eraftpb::SnapshotMetadata) -> raftpb::SnapshotMetadata {
    raftpb::SnapshotMetadata {
        conf_state: Some(conf_state_out(meta.take_conf_state())),
        index: meta.index,
        term: meta.term,
    }
}

/// The change raft has to make; `None` when etcd's change concerns the member table only (an update
/// of URLs) or was rejected by the state machine (node id 0).
pub fn conf_change_in(change: &raftpb::ConfChange) -> Option<eraftpb::ConfChange> {
    use raftpb::ConfChangeType as Type;
    let change_type = match change.r#type() {
        Type::ConfChangeAddNode => eraftpb::ConfChangeType::AddNode,
        Type::ConfChangeRemoveNode => eraftpb::ConfChangeType::RemoveNode,
        Type::ConfChangeAddLearnerNode => eraftpb::ConfChangeType::AddLearnerNode,
        Type::ConfChangeUpdateNode => return None,
    };
    if change.node_id == 0 {
        return None;
    }
    let mut cc = eraftpb::ConfChange::default();
    cc.set_change_type(change_type);
    cc.node_id = change.node_id;
    Some(cc)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn wire_message(r#type: raftpb::MessageType) -> raftpb::Message {
        raftpb::Message { r#type: r#type.into(), from: 1, to: 2, term: 3, ..Default::default() }
    }

    fn entries(first: u64, count: u64) -> Vec<raftpb::Entry> {
        (first..first + count)
            .map(|index| raftpb::Entry {
                index,
                term: 1,
                data: Bytes::from_static(b"d"),
                r#type: 0,
            })
            .collect()
    }

    #[test]
    fn type_numbers_are_the_same_on_both_sides() {
        for number in 0..=23 {
            let wire = raftpb::MessageType::try_from(number).expect("etcd numbers 24 types");
            if let Some(inner) = message_type(wire) {
                assert_eq!(inner as i32, number, "{wire:?}");
            }
        }
    }

    #[test]
    fn what_raft_could_not_survive_is_refused() {
        use raftpb::MessageType as Type;
        let check = |message: raftpb::Message, why: Malformed| {
            assert_eq!(from_wire(message.clone()), Err(why), "{message:?}");
        };
        check(wire_message(Type::MsgHup), Malformed::Type);
        check(wire_message(Type::MsgStorageAppend), Malformed::Type);
        check(wire_message(Type::MsgForgetLeader), Malformed::Type);
        check(wire_message(Type::MsgProp), Malformed::Entries);
        check(wire_message(Type::MsgReadIndex), Malformed::Entries);
        check(wire_message(Type::MsgSnap), Malformed::Snapshot);
        check(raftpb::Message { from: 0, ..wire_message(Type::MsgHeartbeat) }, Malformed::Sender);
        check(raftpb::Message { term: 0, ..wire_message(Type::MsgHeartbeat) }, Malformed::Term);
        let proposal = raftpb::Message { entries: entries(0, 1), ..wire_message(Type::MsgProp) };
        check(proposal, Malformed::Term);
        let append = |index, log_term, entries| raftpb::Message {
            index,
            log_term,
            entries,
            ..wire_message(Type::MsgApp)
        };
        assert!(from_wire(append(4, 1, entries(5, 2))).is_ok());
        check(append(4, 1, entries(6, 2)), Malformed::Entries);
        check(append(4, 2, entries(5, 2)), Malformed::Entries);
        check(append(4, 0, vec![]), Malformed::Entries);
        check(append(0, 1, vec![]), Malformed::Entries);
        let of_term = |term| raftpb::Entry { index: 5, term, ..Default::default() };
        check(append(4, 1, vec![of_term(0)]), Malformed::Entries);
        check(append(4, 1, vec![of_term(4)]), Malformed::Entries);
    }

    #[test]
    fn numbers_that_raft_could_not_count_on_from_are_refused() {
        let heartbeat = || wire_message(raftpb::MessageType::MsgHeartbeat);
        let huge = [
            raftpb::Message { term: u64::MAX, ..heartbeat() },
            raftpb::Message { log_term: NUMBER_MAX, ..heartbeat() },
            raftpb::Message { index: u64::MAX, ..heartbeat() },
            raftpb::Message { commit: NUMBER_MAX, ..heartbeat() },
            raftpb::Message { reject_hint: u64::MAX, ..heartbeat() },
        ];
        for message in huge {
            assert_eq!(from_wire(message.clone()), Err(Malformed::Number), "{message:?}");
        }
    }

    #[test]
    fn a_snapshot_names_each_member_once_and_no_joint_configuration() {
        let check = |state: raftpb::ConfState, index, term, taken: bool| {
            let metadata = raftpb::SnapshotMetadata { conf_state: Some(state), index, term };
            let message = raftpb::Message {
                snapshot: Some(raftpb::Snapshot { metadata: Some(metadata), ..Default::default() }),
                ..wire_message(raftpb::MessageType::MsgSnap)
            };
            let expected = if taken { None } else { Some(Malformed::Snapshot) };
            assert_eq!(from_wire(message.clone()).err(), expected, "{message:?}");
        };
        let plain = |voters: &[u64], learners: &[u64]| raftpb::ConfState {
            voters: voters.to_vec(),
            learners: learners.to_vec(),
            ..Default::default()
        };
        check(plain(&[1, 2], &[3]), 9, 3, true);
        check(plain(&[1, 2], &[3]), 9, 4, false);
        check(plain(&[1, 2], &[3]), u64::MAX, 3, false);
        check(plain(&[], &[3]), 9, 3, false);
        check(plain(&[1, 1], &[]), 9, 3, false);
        check(plain(&[1, 2], &[2]), 9, 3, false);
        check(plain(&[0, 2], &[]), 9, 3, false);
        let outgoing = raftpb::ConfState { voters_outgoing: vec![1], ..plain(&[1], &[]) };
        check(outgoing, 9, 3, false);
        check(raftpb::ConfState { auto_leave: true, ..plain(&[1], &[]) }, 9, 3, false);
    }

    #[test]
    fn fields_that_mean_something_else_do_not_pass() {
        let from_etcd = raftpb::Message {
            vote: 7,
            responses: vec![wire_message(raftpb::MessageType::MsgAppResp)],
            ..wire_message(raftpb::MessageType::MsgVote)
        };
        let mut inner = from_wire(from_etcd).expect("a vote request");
        assert_eq!((inner.request_snapshot, inner.priority, inner.deprecated_priority), (0, 0, 0));
        inner.request_snapshot = 1;
        inner.priority = 2;
        inner.deprecated_priority = 3;
        inner.commit_term = 4;
        assert_eq!(to_wire(inner), wire_message(raftpb::MessageType::MsgVote));
    }

    #[test]
    fn a_conf_change_entry_keeps_its_payload() {
        for kind in 0..4 {
            let change =
                raftpb::ConfChange { r#type: kind, id: 9, node_id: 5, ..Default::default() };
            let entry = raftpb::Entry {
                r#type: raftpb::EntryType::EntryConfChange.into(),
                data: change.encode_to_vec().into(),
                ..Default::default()
            };
            let inner = entry_in(entry.clone());
            assert_ne!(inner.data, entry.data);
            assert_eq!(entry_out(inner), entry);
        }
    }

    #[test]
    fn conf_changes_are_translated_by_meaning() {
        use raftpb::ConfChangeType as Type;
        let check = |r#type: Type, node_id, expected: Option<eraftpb::ConfChangeType>| {
            let change =
                raftpb::ConfChange { r#type: r#type.into(), node_id, ..Default::default() };
            assert_eq!(conf_change_in(&change).map(|cc| cc.get_change_type()), expected);
        };
        check(Type::ConfChangeAddNode, 5, Some(eraftpb::ConfChangeType::AddNode));
        check(Type::ConfChangeRemoveNode, 5, Some(eraftpb::ConfChangeType::RemoveNode));
        check(Type::ConfChangeAddLearnerNode, 5, Some(eraftpb::ConfChangeType::AddLearnerNode));
        check(Type::ConfChangeUpdateNode, 5, None);
        check(Type::ConfChangeAddNode, 0, None);
    }

    proptest! {
        #[test]
        fn a_message_survives_the_way_in_and_out(
            number in 0..=18_i32, from in 1..u64::MAX, to: u64, term in 1..NUMBER_MAX,
            index in 1..NUMBER_MAX - 1, count in 1..4_u64, commit in 0..NUMBER_MAX, reject: bool,
            reject_hint in 0..NUMBER_MAX, context: Vec<u8>,
        ) {
            let r#type = raftpb::MessageType::try_from(number).expect("a type");
            let count = if number == 15 || number == 16 { 1 } else { count };
            let metadata = raftpb::SnapshotMetadata {
                conf_state: Some(raftpb::ConfState { voters: vec![1, 2], ..Default::default() }),
                index: index + 1,
                term,
            };
            let message = raftpb::Message {
                r#type: number, to, from, index,
                term: if number == 2 || number == 15 { 0 } else { term },
                log_term: 1,
                entries: entries(index + 1, count),
                commit, reject, reject_hint,
                snapshot: (r#type == raftpb::MessageType::MsgSnap)
                    .then(|| raftpb::Snapshot { data: Bytes::new(), metadata: Some(metadata) }),
                context: context.into(),
                vote: 0, responses: Vec::new(),
            };
            match from_wire(message.clone()) {
                Ok(inner) => prop_assert_eq!(to_wire(inner), message),
                Err(why) => prop_assert_eq!(why, Malformed::Type),
            }
        }
    }
}
