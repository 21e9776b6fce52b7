//! What may be sent when, and several messages to one peer made into one. Pure.

use raft::eraftpb::{Message, MessageType};

use crate::limits;

/// Whether the message acknowledges nothing about this member's disk, so that a member with a slow disk
/// still answers heartbeats and forwards requests (as etcd's raft does with its asynchronous storage).
/// Votes and log positions do depend on the disk.
pub fn waits_for_no_disk(message: &Message) -> bool {
    matches!(
        message.get_msg_type(),
        MessageType::MsgHeartbeatResponse
            | MessageType::MsgPropose
            | MessageType::MsgReadIndex
            | MessageType::MsgReadIndexResp
            | MessageType::MsgTransferLeader
    )
}

/// Joins appends that continue each other, drops an append that only repeats a commit index, and
/// answers a row of appends once. The receiver ends in the same state; order per peer is kept.
pub fn coalesce(messages: Vec<Message>) -> Vec<Message> {
    let mut out: Vec<Message> = Vec::with_capacity(messages.len());
    for message in messages {
        let previous = out.iter_mut().rev().find(|earlier| earlier.to == message.to);
        match previous {
            Some(previous) if mergeable(previous, &message) => merge(previous, message),
            _ => out.push(message),
        }
    }
    out
}

fn mergeable(previous: &Message, message: &Message) -> bool {
    if previous.msg_type != message.msg_type || previous.term != message.term {
        return false;
    }
    match message.get_msg_type() {
        MessageType::MsgAppend => {
            previous.index + previous.entries.len() as u64 == message.index
                && data_bytes(previous) + data_bytes(message) <= limits::BATCH_BYTES_MAX
        }
        MessageType::MsgAppendResponse => {
            !previous.reject && !message.reject && previous.index <= message.index
        }
        _ => false,
    }
}

fn merge(previous: &mut Message, mut message: Message) {
    if message.get_msg_type() == MessageType::MsgAppendResponse {
        *previous = message;
        return;
    }
    previous.commit = previous.commit.max(message.commit);
    for entry in message.take_entries() {
        previous.entries.push(entry);
    }
}

fn data_bytes(message: &Message) -> u64 {
    message.entries.iter().map(|entry| entry.data.len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::Entry;

    use super::*;

    fn append(to: u64, index: u64, entries: u64, commit: u64) -> Message {
        let mut m = Message::default();
        m.set_msg_type(MessageType::MsgAppend);
        m.to = to;
        m.term = 1;
        m.index = index;
        m.commit = commit;
        for offset in 1..=entries {
            m.entries.push(Entry { index: index + offset, ..Default::default() });
        }
        m
    }

    fn answer(index: u64, reject: bool) -> Message {
        let mut m = Message::default();
        m.set_msg_type(MessageType::MsgAppendResponse);
        m.to = 1;
        m.index = index;
        m.reject = reject;
        m
    }

    #[test]
    fn appends_that_continue_each_other_become_one() {
        let merged = coalesce(vec![
            append(2, 4, 2, 3),
            append(3, 4, 1, 3),
            append(2, 6, 0, 5),
            append(2, 6, 1, 6),
        ]);
        assert_eq!(merged, vec![append(2, 4, 3, 6), append(3, 4, 1, 3)]);
    }

    #[test]
    fn appends_with_a_gap_stay_apart() {
        let apart = vec![append(2, 4, 2, 3), append(2, 9, 1, 3)];
        assert_eq!(coalesce(apart.clone()), apart);
    }

    #[test]
    fn only_the_last_of_a_row_of_answers_is_sent() {
        assert_eq!(coalesce(vec![answer(4, false), answer(5, false)]), vec![answer(5, false)]);
        let kept = vec![answer(4, false), answer(5, true), answer(3, false)];
        assert_eq!(coalesce(kept.clone()), kept);
    }
}
