//! The two stream encodings of etcd's peer protocol, without any I/O: messages to bytes, and bytes
//! as they arrive to messages. Does not know HTTP, sockets or raft.
//!
//! The *message* stream is a sequence of (big-endian u64 length, `raftpb.Message`). The *msgapp*
//! stream (etcd's "msgappv2") saves most of that for a leader that replicates steadily: a frame
//! starts with one type byte, and a MsgApp that continues where the last one ended is sent as its
//! entries and the commit index alone. Both ends therefore remember the term and index at which
//! the stream stands (etcd 3.7, `server/etcdserver/api/rafthttp/msgappv2_codec.go`).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message as _;
use quorate_proto::depth::{self, TooDeep};
use quorate_proto::raftpb::{Entry, Message, MessageType};

use crate::limits::PEER_MESSAGE_BYTES_MAX;
use crate::types::MemberId;

/// Which of the two streams to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Everything except MsgApp and MsgSnap.
    Message,
    /// MsgApp only.
    MsgApp,
}

/// Frame types of the msgapp stream.
const LINK_HEARTBEAT: u8 = 0;
const APP_ENTRIES: u8 = 1;
const APP: u8 = 2;

/// Bytes of a length or of an index in a frame.
const WORD: usize = 8;
/// Entries for which room is made before they have arrived.
const ENTRIES_AHEAD: usize = 1_024;

/// What arrives is not the stream it should be; the connection is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("message of {0} bytes is larger than allowed")]
    TooLarge(u64),
    #[error("failed to parse type {0} in msgappv2 stream")]
    UnknownFrame(u8),
    #[error("malformed raft message: {0}")]
    Malformed(#[from] prost::DecodeError),
    #[error("malformed raft message: {0}")]
    TooDeep(#[from] TooDeep),
}

/// Whether `message` only keeps the link alive: raft never sends without sender and receiver.
pub fn is_link_heartbeat(message: &Message) -> bool {
    message.r#type == MessageType::MsgHeartbeat as i32 && message.from == 0 && message.to == 0
}

/// Whether followers pass such a message on to their leader as it is, with its first sender.
pub fn is_relayed(message: &Message) -> bool {
    let relayed = [MessageType::MsgProp, MessageType::MsgReadIndex, MessageType::MsgTransferLeader];
    relayed.iter().any(|kind| message.r#type == *kind as i32)
}

pub fn is_proposal(message: &Message) -> bool {
    message.r#type == MessageType::MsgProp as i32
}

/// The position a msgapp stream has reached: the last entry sent on it and the sender's term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    term: u64,
    index: u64,
}

impl Position {
    /// Where the stream stands after a MsgApp sent whole.
    fn after(message: &Message) -> Self {
        let last = message.entries.last();
        Self { term: message.term, index: last.map_or(message.index, |entry| entry.index) }
    }
}

/// One direction of one stream, sending end.
#[derive(Debug)]
pub enum Encoder {
    Message,
    MsgApp(AppEncoder),
}

/// The sending end's memory of a msgapp stream.
#[derive(Debug, Default)]
pub struct AppEncoder(Position);

impl Encoder {
    pub fn new(kind: StreamKind) -> Self {
        match kind {
            StreamKind::Message => Self::Message,
            StreamKind::MsgApp => Self::MsgApp(AppEncoder::default()),
        }
    }

    /// Appends the frame of `message` to `out`. On a msgapp stream only MsgApp may be sent, and
    /// its entries are consecutive.
    pub fn encode(&mut self, message: &Message, out: &mut BytesMut) {
        match self {
            Self::Message => put_block(message, out),
            Self::MsgApp(app) => app.encode(message, out),
        }
    }

    /// Appends a frame that only shows that the link is alive.
    pub fn link_heartbeat(&mut self, out: &mut BytesMut) {
        match self {
            Self::Message => {
                put_block(
                    &Message { r#type: MessageType::MsgHeartbeat as i32, ..Message::default() },
                    out,
                );
            }
            Self::MsgApp(_) => out.put_u8(LINK_HEARTBEAT),
        }
    }
}

impl AppEncoder {
    fn encode(&mut self, message: &Message, out: &mut BytesMut) {
        debug_assert_eq!(message.r#type, MessageType::MsgApp as i32, "only MsgApp on this stream");
        // The short form carries neither term nor index: the other end must be able to derive both.
        let continues = self.0.index == message.index
            && self.0.term == message.log_term
            && message.log_term == message.term;
        if continues {
            out.put_u8(APP_ENTRIES);
            out.put_u64(message.entries.len() as u64);
            for entry in &message.entries {
                put_block(entry, out);
            }
            out.put_u64(message.commit);
            self.0.index += message.entries.len() as u64;
        } else {
            out.put_u8(APP);
            put_block(message, out);
            self.0 = Position::after(message);
        }
    }
}

/// Appends the length of `message` and its encoding.
pub fn put_block(message: &impl prost::Message, out: &mut BytesMut) {
    let length = message.encoded_len();
    out.reserve(WORD + length);
    out.put_u64(length as u64);
    message.encode(out).expect("a growing buffer has room");
}

/// One direction of one stream, receiving end.
#[derive(Debug)]
pub enum Decoder {
    Message,
    MsgApp(AppDecoder),
}

/// The receiving end's memory of a msgapp stream.
#[derive(Debug)]
pub struct AppDecoder {
    local: MemberId,
    remote: MemberId,
    position: Position,
    frame: Frame,
}

/// How far into a frame the bytes so far reach.
#[derive(Debug)]
enum Frame {
    Type,
    Count,
    Entries { left: u64, bytes: u64, entries: Vec<Entry> },
    Whole,
}

impl Decoder {
    /// A stream from `remote` to `local`.
    pub fn new(kind: StreamKind, local: MemberId, remote: MemberId) -> Self {
        match kind {
            StreamKind::Message => Self::Message,
            StreamKind::MsgApp => Self::MsgApp(AppDecoder {
                local,
                remote,
                position: Position::default(),
                frame: Frame::Type,
            }),
        }
    }

    /// Takes the next message off the front of `arrived`; `None` when more bytes are needed. Link
    /// heartbeats come out as such ([`is_link_heartbeat`]).
    pub fn decode(&mut self, arrived: &mut BytesMut) -> Result<Option<Message>, CodecError> {
        match self {
            Self::Message => take_message(arrived, PEER_MESSAGE_BYTES_MAX),
            Self::MsgApp(app) => app.decode(arrived),
        }
    }
}

impl AppDecoder {
    fn decode(&mut self, arrived: &mut BytesMut) -> Result<Option<Message>, CodecError> {
        loop {
            match &mut self.frame {
                Frame::Type => {
                    if arrived.is_empty() {
                        return Ok(None);
                    }
                    match arrived.get_u8() {
                        LINK_HEARTBEAT => {
                            return Ok(Some(Message {
                                r#type: MessageType::MsgHeartbeat as i32,
                                ..Message::default()
                            }));
                        }
                        APP_ENTRIES => self.frame = Frame::Count,
                        APP => self.frame = Frame::Whole,
                        unknown => return Err(CodecError::UnknownFrame(unknown)),
                    }
                }
                Frame::Count => {
                    let Some(count) = take_word(arrived) else { return Ok(None) };
                    let ahead = usize::try_from(count).unwrap_or(ENTRIES_AHEAD).min(ENTRIES_AHEAD);
                    let entries = Vec::with_capacity(ahead);
                    self.frame = Frame::Entries { left: count, bytes: 0, entries };
                }
                Frame::Entries { left: 0, entries, .. } => {
                    let Some(commit) = take_word(arrived) else { return Ok(None) };
                    let entries = std::mem::take(entries);
                    self.frame = Frame::Type;
                    return Ok(Some(self.continuation(entries, commit)));
                }
                Frame::Entries { left, bytes, entries } => {
                    let Some(block) = take_block(arrived, PEER_MESSAGE_BYTES_MAX)? else {
                        return Ok(None);
                    };
                    *bytes += (WORD + block.len()) as u64;
                    if *bytes > PEER_MESSAGE_BYTES_MAX as u64 {
                        return Err(CodecError::TooLarge(*bytes));
                    }
                    entries.push(Entry::decode(block)?);
                    *left -= 1;
                }
                Frame::Whole => {
                    let Some(message) = take_message(arrived, PEER_MESSAGE_BYTES_MAX)? else {
                        return Ok(None);
                    };
                    self.position = Position::after(&message);
                    self.frame = Frame::Type;
                    return Ok(Some(message));
                }
            }
        }
    }

    /// The MsgApp that the short form stands for.
    fn continuation(&mut self, entries: Vec<Entry>, commit: u64) -> Message {
        let Position { term, index } = self.position;
        self.position.index = index.saturating_add(entries.len() as u64);
        Message {
            r#type: MessageType::MsgApp as i32,
            to: self.local.0,
            from: self.remote.0,
            term,
            log_term: term,
            index,
            entries,
            commit,
            ..Message::default()
        }
    }
}

/// Takes a length and a message of that length, which may be `limit` bytes at most.
pub fn take_message(arrived: &mut BytesMut, limit: usize) -> Result<Option<Message>, CodecError> {
    take_block(arrived, limit)?.map(decode_message).transpose()
}

/// Decodes a whole message; the decoder recurses, so the depth is checked first.
pub fn decode_message(bytes: Bytes) -> Result<Message, CodecError> {
    depth::check::<Message>(&bytes)?;
    Ok(Message::decode(bytes)?)
}

/// Takes a length and that many bytes, without copying them.
fn take_block(arrived: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, CodecError> {
    let Some(head) = arrived.first_chunk::<WORD>() else { return Ok(None) };
    let length = u64::from_be_bytes(*head);
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= limit)
        .ok_or(CodecError::TooLarge(length))?;
    if arrived.len() - WORD < length {
        return Ok(None);
    }
    arrived.advance(WORD);
    Ok(Some(arrived.split_to(length).freeze()))
}

fn take_word(arrived: &mut BytesMut) -> Option<u64> {
    (arrived.len() >= WORD).then(|| arrived.get_u64())
}

#[cfg(test)]
mod tests;
