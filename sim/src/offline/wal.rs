//! A reader of etcd's WAL format of its own: segments, frames, checksums, records. It shares no code
//! with the server's and knows nothing of what records mean together; that is `log`.
//!
//! A segment is a row of frames: an 8-byte little-endian length field (low 56 bits the record's size,
//! top byte 0x80 plus the number of padding bytes, if any), a `walpb.Record`, zeroes up to a multiple
//! of 8. The checksum of a record (CRC-32C) goes on from that of the record before; a segment begins
//! with a record that repeats the one at the end of the segment before.
//!
//! A power cut leaves zeroes in place of some sectors of the one write that was not synced. So a bad
//! frame is an unfinished end when it is in the last segment and a sector of it is nothing but zeroes,
//! or when the file ends inside of it; anything else is damage.

use prost::Message;
use quorate_proto::{etcdserverpb, raftpb, walpb};

use crate::Contents;

const SECTOR: usize = 512;
const HEADER: usize = 8;
/// No record that a server writes is larger: requests are bounded far below.
const RECORD_MAX: usize = 64 << 20;

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    Metadata(etcdserverpb::Metadata),
    Entry(raftpb::Entry),
    State(raftpb::HardState),
    Snapshot(walpb::Snapshot),
}

/// What the files of a log hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Records {
    pub records: Vec<Record>,
    /// The sequence number of the first segment: 0 when the log is whole.
    pub first: u64,
    /// Where the log ends in the middle of something, as after a power cut: segment and offset.
    pub unfinished: Option<(String, usize)>,
}

/// How a segment's records end.
enum End {
    Clean,
    /// After so many bytes, with something that never became durable.
    Unfinished(usize),
}

/// Reads the segments in a log's folder; the error describes what no power cut explains.
pub fn read(files: &[Contents]) -> Result<Records, String> {
    let mut segments = Vec::new();
    for file in files {
        if let Some(seq) = sequence(&file.name) {
            segments.push((seq, file));
        }
    }
    segments.sort_by_key(|(seq, _)| *seq);
    let mut found = Records::default();
    let Some((first, _)) = segments.first() else {
        return Err("there is no segment".into());
    };
    found.first = *first;
    let mut crc = None;
    for (at, (seq, file)) in segments.iter().enumerate() {
        if *seq != found.first + at as u64 {
            return Err(format!("segment {} is missing", found.first + at as u64));
        }
        let before = found.records.len();
        let end = segment(file, &mut crc, &mut found.records)
            .map_err(|what| format!("{}: {what}", file.name))?;
        let last = at + 1 == segments.len();
        let empty = found.records.len() == before;
        match end {
            End::Clean if !empty => {}
            // A name that became durable without its contents.
            End::Clean if last && at > 0 => found.unfinished = Some((file.name.clone(), 0)),
            End::Clean => return Err(format!("{}: no records", file.name)),
            End::Unfinished(offset) if last => {
                found.unfinished = Some((file.name.clone(), offset));
            }
            End::Unfinished(offset) => {
                return Err(format!("{} ends at {offset}, but a newer one exists", file.name));
            }
        }
    }
    Ok(found)
}

/// The sequence number in `<seq>-<index>.wal`.
fn sequence(name: &str) -> Option<u64> {
    let (seq, index) = name.strip_suffix(".wal")?.split_once('-')?;
    u64::from_str_radix(index, 16).ok()?;
    u64::from_str_radix(seq, 16).ok()
}

/// Adds the records of one segment. `crc` is the running checksum, none before the very first record.
fn segment(file: &Contents, crc: &mut Option<u32>, to: &mut Vec<Record>) -> Result<End, String> {
    let bytes = &file.bytes[..];
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        if rest.iter().all(|byte| *byte == 0) {
            return Ok(End::Clean);
        }
        match frame(rest, file.len as usize - at) {
            Ok((data, size)) => match record(data, crc, to) {
                Ok(()) => at += size,
                Err(what) => return bad(bytes, at, size, &what),
            },
            Err(Broken::Short) => return Ok(End::Unfinished(at)),
            Err(Broken::NotAFrame) => return bad(bytes, at, HEADER, "not a frame"),
        }
    }
}

enum Broken {
    NotAFrame,
    /// The file ends inside of it.
    Short,
}

/// The record in the frame at the beginning of `bytes`, and the frame's size. `left` is how much of
/// the file is left, zeroes that are not in `bytes` included.
fn frame(bytes: &[u8], left: usize) -> Result<(Vec<u8>, usize), Broken> {
    let get = |from: usize, count: usize| -> Vec<u8> {
        let there = bytes.get(from..).unwrap_or_default();
        let mut part = there[..there.len().min(count)].to_vec();
        part.resize(count, 0);
        part
    };
    if left < HEADER {
        return Err(Broken::Short);
    }
    let field = u64::from_le_bytes(get(0, HEADER).try_into().expect("eight bytes"));
    let size = (field & (u64::MAX >> 8)) as usize;
    let top = (field >> 56) as usize;
    let pad = if top == 0 { 0 } else { top & 0x7f };
    let marked = top == 0 || top & 0x80 != 0;
    if size == 0
        || size > RECORD_MAX
        || pad >= HEADER
        || !marked
        || !(size + pad).is_multiple_of(HEADER)
    {
        return Err(Broken::NotAFrame);
    }
    if HEADER + size + pad > left {
        return Err(Broken::Short);
    }
    Ok((get(HEADER, size), HEADER + size + pad))
}

fn record(data: Vec<u8>, crc: &mut Option<u32>, to: &mut Vec<Record>) -> Result<(), String> {
    let record = walpb::Record::decode(&data[..]).map_err(|error| format!("{error}"))?;
    const CRC: i64 = 4;
    match (*crc, record.r#type) {
        (None, CRC) => {}
        (None, _) => return Err("no checksum record before it".into()),
        (Some(before), CRC) if before != record.crc => {
            return Err("the checksum does not go on from the segment before".into());
        }
        (Some(_), CRC) => {}
        (Some(before), _) if crc32c::crc32c_append(before, &record.data) != record.crc => {
            return Err("checksum mismatch".into());
        }
        (Some(_), _) => {}
    }
    let data = record.data.clone();
    let broken = |error: prost::DecodeError| format!("type {}: {error}", record.r#type);
    match record.r#type {
        1 => to.push(Record::Metadata(Message::decode(data).map_err(broken)?)),
        2 => to.push(Record::Entry(Message::decode(data).map_err(broken)?)),
        3 => to.push(Record::State(Message::decode(data).map_err(broken)?)),
        CRC => {}
        5 => to.push(Record::Snapshot(Message::decode(data).map_err(broken)?)),
        other => return Err(format!("a record of type {other}")),
    }
    *crc = Some(record.crc);
    Ok(())
}

/// What a bad frame of `size` bytes at `at` is: unfinished when one of the sectors that it lies in,
/// the one in which it begins aside if it has other bytes, holds nothing.
fn bad(bytes: &[u8], at: usize, size: usize, what: &str) -> Result<End, String> {
    let mut sector = at / SECTOR * SECTOR;
    while sector < at + size {
        let from = sector.max(at).min(bytes.len());
        let to = (sector + SECTOR).min(bytes.len());
        if bytes[from..to.max(from)].iter().all(|byte| *byte == 0) {
            return Ok(End::Unfinished(at));
        }
        sector += SECTOR;
    }
    Err(format!("offset {at}: {what}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Writes what a server would, for the tests of all readers here.
    #[derive(Default)]
    pub(crate) struct Writer {
        crc: u32,
        pub(crate) bytes: Vec<u8>,
    }

    impl Writer {
        pub(crate) fn segment(crc: u32, node: u64) -> Self {
            let mut writer = Self { crc, bytes: Vec::new() };
            writer.frame(&walpb::Record { r#type: 4, crc, data: Default::default() });
            writer.push(1, &etcdserverpb::Metadata { node_id: node, cluster_id: 7 });
            writer
        }

        pub(crate) fn push(&mut self, kind: i64, message: &impl Message) {
            let data = message.encode_to_vec();
            self.crc = crc32c::crc32c_append(self.crc, &data);
            self.frame(&walpb::Record { r#type: kind, crc: self.crc, data: data.into() });
        }

        pub(crate) fn entry(&mut self, index: u64, term: u64, data: &'static str) {
            let data = data.into();
            self.push(2, &raftpb::Entry { r#type: 0, term, index, data });
        }

        pub(crate) fn state(&mut self, term: u64, vote: u64, commit: u64) {
            self.push(3, &raftpb::HardState { term, vote, commit });
        }

        fn frame(&mut self, record: &walpb::Record) {
            let data = record.encode_to_vec();
            let pad = data.len().wrapping_neg() % HEADER;
            let top = if pad == 0 { 0 } else { (0x80 | pad as u64) << 56 };
            self.bytes.extend_from_slice(&(data.len() as u64 | top).to_le_bytes());
            self.bytes.extend_from_slice(&data);
            self.bytes.resize(self.bytes.len() + pad, 0);
        }

        pub(crate) fn file(&self, seq: u64) -> Contents {
            let name = format!("{seq:016x}-{:016x}.wal", 0);
            Contents { name, len: 65_536, bytes: self.bytes.clone() }
        }
    }

    fn sample() -> Writer {
        let mut writer = Writer::segment(0, 1);
        writer.push(5, &walpb::Snapshot::default());
        writer.entry(1, 1, "first");
        writer.state(1, 0, 1);
        for index in 2..40 {
            writer.entry(index, 1, "a payload that is long enough to fill sectors with");
        }
        writer
    }

    #[test]
    fn a_log_of_two_segments_is_read() {
        let first = sample();
        let mut second = Writer::segment(first.crc, 1);
        second.entry(40, 2, "next");
        let found = read(&[second.file(1), first.file(0)]).expect("sound");
        assert_eq!(found.records.len(), 2 + 1 + 39 + 1 + 1);
        assert_eq!(found.unfinished, None);
        let broken = read(&[first.file(0), Writer::segment(5, 1).file(1)]).expect_err("a break");
        assert!(broken.contains("does not go on"), "{broken}");
        let missing = read(&[first.file(0), second.file(2)]).expect_err("a gap");
        assert!(missing.contains("segment 1 is missing"), "{missing}");
    }

    /// Every bit of the used part counts, and no flip passes for a torn write.
    #[test]
    fn a_flipped_bit_is_damage() {
        let writer = sample();
        for at in (0..writer.bytes.len()).step_by(7) {
            let mut file = writer.file(0);
            file.bytes[at] ^= 0x10;
            if let Ok(found) = read(std::slice::from_ref(&file)) {
                // Padding means nothing; a length that leaves the file looks like a short end.
                let sound = read(&[writer.file(0)]).expect("sound");
                assert!(found == sound || found.unfinished.is_some(), "{at}");
            }
        }
    }

    #[test]
    fn a_lost_sector_is_an_unfinished_end() {
        let writer = sample();
        let mut file = writer.file(0);
        let lost = file.bytes.len() / SECTOR - 1;
        file.bytes[lost * SECTOR..(lost + 1) * SECTOR].fill(0);
        let found = read(&[file.clone()]).expect("explained");
        assert!(found.unfinished.is_some());
        let mut newer = Writer::segment(writer.crc, 1);
        newer.entry(40, 1, "x");
        let refused = read(&[file, newer.file(1)]).expect_err("a newer segment exists");
        assert!(refused.contains("a newer one exists"), "{refused}");
    }
}
