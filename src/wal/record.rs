//! One record: frame, checksum and payload bytes, both directions. No files, no meaning of records.
//!
//! A frame is an 8-byte little-endian length field, the record and zero bytes up to a multiple of 8.
//! The length field holds the record's size in its low 56 bits; when there is padding its top byte is
//! 0x80 plus the pad count. Frames start at multiples of 8, so a length field never spans two sectors.
//!
//! Payloads are written with every scalar present, zero or not, as etcd's own encoder does: the bytes
//! of a record that etcd wrote come out the same here.

use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use prost::{Message, bytes::Bytes};
use quorate_proto::{etcdserverpb::Metadata, raftpb, walpb};

use crate::plant;

/// Bytes of a frame's length field, and what frames are aligned to.
pub(super) const HEADER_BYTES: u64 = 8;

/// Bytes of a record before its data, at most.
const PREFIX_BYTES_MAX: usize = 24;

const TYPE: u32 = 1;
const CRC: u32 = 2;
const DATA: u32 = 3;

/// `walpb.Record.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Metadata = 1,
    Entry = 2,
    State = 3,
    Crc = 4,
    Snapshot = 5,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Metadata => "metadata",
            Self::Entry => "entry",
            Self::State => "state",
            Self::Crc => "checksum",
            Self::Snapshot => "snapshot",
        })
    }
}

/// A record as read: `data` is not copied out of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub kind: Kind,
    pub crc: u32,
    pub data: &'a [u8],
}

/// A decoded length field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Bytes of the record, without padding.
    pub record: u64,
    pub pad: u64,
}

impl Frame {
    /// The frame of a record of that many bytes.
    fn of(record: u64) -> Self {
        Self { record, pad: record.wrapping_neg() % HEADER_BYTES }
    }

    /// `None` when no writer makes such a length field; zero is the caller's to interpret.
    pub(super) fn parse(field: u64) -> Option<Self> {
        let frame = Self::of(field & (u64::MAX >> 8));
        (frame.record > 0 && frame.field() == field).then_some(frame)
    }

    fn field(self) -> u64 {
        if self.pad == 0 { self.record } else { self.record | ((0x80 | self.pad) << 56) }
    }

    /// Bytes of the whole frame on disk.
    pub(super) fn total(self) -> u64 {
        HEADER_BYTES + self.record + self.pad
    }
}

impl<'a> Record<'a> {
    /// Reads an encoded `walpb.Record`. `None` when it is not one.
    pub(super) fn parse(mut buf: &'a [u8]) -> Option<Self> {
        let (mut kind, mut crc, mut data) = (0, 0, &[][..]);
        while !buf.is_empty() {
            match decode_key(&mut buf).ok()? {
                (TYPE, WireType::Varint) => kind = decode_varint(&mut buf).ok()?,
                (CRC, WireType::Varint) => crc = decode_varint(&mut buf).ok()?.try_into().ok()?,
                (DATA, WireType::LengthDelimited) => {
                    let length = usize::try_from(decode_varint(&mut buf).ok()?).ok()?;
                    (data, buf) = buf.split_at_checked(length)?;
                }
                _ => return None,
            }
        }
        let kind = match kind {
            1 => Kind::Metadata,
            2 => Kind::Entry,
            3 => Kind::State,
            4 => Kind::Crc,
            5 => Kind::Snapshot,
            _ => return None,
        };
        Some(Self { kind, crc, data })
    }

    /// Whether the first bytes of a record, as far as they are given, fit a length of `record`: the
    /// length is written twice, in the frame and before the data.
    pub(super) fn fits(start: &[u8], record: u64) -> bool {
        let mut buf = start;
        while !buf.is_empty() {
            let field = decode_key(&mut buf).map(|key| (key, decode_varint(&mut buf)));
            match field {
                Ok(((TYPE | CRC, WireType::Varint), Ok(_))) => {}
                Ok(((DATA, WireType::LengthDelimited), Ok(data))) => {
                    let before = (start.len() - buf.len()) as u64;
                    return before.checked_add(data) == Some(record);
                }
                // A field that is not given as a whole.
                Ok((_, Err(_))) => return start.len() < PREFIX_BYTES_MAX,
                _ => return false,
            }
        }
        true
    }

    /// Whether the checksum is right when the records before ended with `previous`.
    pub(super) fn follows(&self, previous: u32) -> bool {
        self.crc == crc32c::crc32c_append(previous, self.data) || plant::CRC_UNCHECKED.is_planted()
    }
}

/// Frames waiting to be written, and the checksum that runs over all records of the log.
pub(super) struct Encoder {
    pub crc: u32,
    pub buf: Vec<u8>,
    payload: Vec<u8>,
}

impl Encoder {
    pub(super) fn new(crc: u32) -> Self {
        Self { crc, buf: Vec::new(), payload: Vec::new() }
    }

    /// The first record of a segment: the checksum at the end of the segment before.
    pub(super) fn crc(&mut self) {
        self.payload.clear();
        self.record(Kind::Crc);
    }

    pub(super) fn metadata(&mut self, metadata: &Bytes) {
        self.payload.clear();
        self.payload.extend_from_slice(metadata);
        self.record(Kind::Metadata);
    }

    pub(super) fn entry(&mut self, entry: &raftpb::Entry) {
        let type_bits = u64::try_from(entry.r#type).expect("entry types are not negative");
        self.payload.clear();
        put(&mut self.payload, 1, type_bits);
        put(&mut self.payload, 2, entry.term);
        put(&mut self.payload, 3, entry.index);
        if !entry.data.is_empty() {
            encode_key(4, WireType::LengthDelimited, &mut self.payload);
            encode_varint(entry.data.len() as u64, &mut self.payload);
            self.payload.extend_from_slice(&entry.data);
        }
        self.record(Kind::Entry);
    }

    pub(super) fn state(&mut self, state: &raftpb::HardState) {
        self.payload.clear();
        put(&mut self.payload, 1, state.term);
        put(&mut self.payload, 2, state.vote);
        put(&mut self.payload, 3, state.commit);
        self.record(Kind::State);
    }

    pub(super) fn snapshot(&mut self, snapshot: &walpb::Snapshot) {
        self.payload.clear();
        put(&mut self.payload, 1, snapshot.index);
        put(&mut self.payload, 2, snapshot.term);
        if let Some(conf_state) = &snapshot.conf_state {
            let mut nested = Vec::new();
            for (tag, ids) in [
                (1, &conf_state.voters),
                (2, &conf_state.learners),
                (3, &conf_state.voters_outgoing),
                (4, &conf_state.learners_next),
            ] {
                ids.iter().for_each(|id| put(&mut nested, tag, *id));
            }
            put(&mut nested, 5, u64::from(conf_state.auto_leave));
            encode_key(3, WireType::LengthDelimited, &mut self.payload);
            encode_varint(nested.len() as u64, &mut self.payload);
            self.payload.extend_from_slice(&nested);
        }
        self.record(Kind::Snapshot);
    }

    /// Appends the frame of a record that holds `self.payload`.
    fn record(&mut self, kind: Kind) {
        self.crc = crc32c::crc32c_append(self.crc, &self.payload);
        let header = self.buf.len();
        self.buf.extend_from_slice(&[0; HEADER_BYTES as usize]);
        put(&mut self.buf, TYPE, kind as u64);
        put(&mut self.buf, CRC, u64::from(self.crc));
        if kind != Kind::Crc {
            encode_key(DATA, WireType::LengthDelimited, &mut self.buf);
            encode_varint(self.payload.len() as u64, &mut self.buf);
            self.buf.extend_from_slice(&self.payload);
        }
        let record = self.buf.len() - header - HEADER_BYTES as usize;
        let frame = Frame::of(record as u64);
        self.buf.resize(header + frame.total() as usize, 0);
        self.buf[header..header + HEADER_BYTES as usize]
            .copy_from_slice(&frame.field().to_le_bytes());
    }
}

/// A scalar field, written even when it is zero.
fn put(buf: &mut Vec<u8>, tag: u32, value: u64) {
    encode_key(tag, WireType::Varint, buf);
    encode_varint(value, buf);
}

/// `etcdserverpb.Metadata` as etcd writes it.
pub(super) fn encode_metadata(metadata: &Metadata) -> Bytes {
    let mut buf = Vec::new();
    put(&mut buf, 1, metadata.node_id);
    put(&mut buf, 2, metadata.cluster_id);
    buf.into()
}

/// The entry in a record's data, with its payload in one allocation. The record's type is not
/// covered by its checksum, so what cannot be an entry is refused: a hard state of term 1 or 2, whose bytes
/// decode as a change of members, has none of the payload that each such change has.
pub(super) fn decode_entry(data: &[u8]) -> Result<raftpb::Entry, String> {
    let entry = raftpb::Entry::decode(Bytes::copy_from_slice(data))
        .map_err(|error| format!("not an entry: {error}"))?;
    let possible = match raftpb::EntryType::try_from(entry.r#type) {
        Ok(raftpb::EntryType::EntryNormal) => true,
        Ok(raftpb::EntryType::EntryConfChange | raftpb::EntryType::EntryConfChangeV2) => {
            !entry.data.is_empty()
        }
        Err(_) => false,
    };
    if !possible || entry.term == 0 || entry.index == 0 {
        return Err(format!(
            "impossible entry: type {}, term {}, index {}, {} bytes",
            entry.r#type,
            entry.term,
            entry.index,
            entry.data.len()
        ));
    }
    Ok(entry)
}

/// The hard state in a record's data; an entry, which decodes as one too, is refused.
pub(super) fn decode_state(data: &[u8]) -> Result<raftpb::HardState, String> {
    let mut buf = data;
    while !buf.is_empty() {
        match decode_key(&mut buf) {
            Ok((1..=3, WireType::Varint)) => {}
            _ => return Err("not a hard state: fields it does not have".into()),
        }
        decode_varint(&mut buf).map_err(|error| format!("not a hard state: {error}"))?;
    }
    raftpb::HardState::decode(data).map_err(|error| format!("not a hard state: {error}"))
}
