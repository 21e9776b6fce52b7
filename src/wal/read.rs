//! The log as records, for tools: from front to back, each as it was written, also those that later ones
//! replaced. Changes nothing on disk and keeps one record in memory.

use std::ops::ControlFlow;
use std::path::Path;

use prost::Message;
use quorate_proto::{etcdserverpb::Metadata, raftpb, walpb};

use super::error::WalError;
use super::reader::{Reader, Step};
use super::record::{Kind, Record, decode_entry, decode_state};
use super::recover::scan;
use super::table::{Action, Place, decide};
use super::{Options, Recovered, segment};
use crate::env::Disk;

/// A record and where it is.
#[derive(Debug)]
pub struct Found<'a> {
    pub file: &'a Path,
    pub offset: u64,
    pub item: Item,
}

/// What a record holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// The start of a segment: the checksum so far.
    Crc(u32),
    Metadata(Metadata),
    Entry(raftpb::Entry),
    State(raftpb::HardState),
    Snapshot(walpb::Snapshot),
}

/// A torn end, which opening the log would repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    pub file: std::path::PathBuf,
    pub offset: u64,
    pub what: &'static str,
}

/// Passes every record of the log in `dir` to `each`, until `each` breaks. Returns the damage at the end if
/// it can be repaired.
pub fn read(
    disk: &dyn Disk,
    dir: &Path,
    options: Options,
    each: &mut dyn FnMut(Found<'_>) -> ControlFlow<()>,
) -> Result<Option<Torn>, WalError> {
    let segments = segment::list(disk, dir)?;
    let mut crc = None;
    for (i, name) in segments.iter().enumerate() {
        let last = i + 1 == segments.len();
        let path = name.path(dir);
        let mut reader = Reader::open(disk, &path, crc, options.write_bytes_max)?;
        let mut records = 0;
        loop {
            let offset = reader.offset;
            let item = match reader.next()? {
                Step::Record(record) => decode(&record),
                Step::Stop(stop) => {
                    // Checksum and metadata are a segment's head.
                    let place = match (records < 2, i == 0, last) {
                        (_, _, false) => Place::Earlier,
                        (false, _, true) => Place::LastBody,
                        (true, true, true) => Place::OnlyHead,
                        (true, false, true) => Place::LastHead,
                    };
                    match decide(stop.tail, place, stop.after) {
                        Action::Clean => break,
                        Action::Cut | Action::Drop => {
                            return Ok(Some(Torn { file: path, offset, what: stop.what }));
                        }
                        Action::Refuse => return Err(reader.damaged(stop.what)),
                    }
                }
            };
            records += 1;
            let item = item.map_err(|what| reader.damaged(what))?;
            if each(Found { file: &path, offset, item }).is_break() {
                return Ok(None);
            }
        }
        crc = reader.crc;
    }
    Ok(None)
}

/// Returns what opening the log would recover for a state that has applied up to `at`, and the damage that
/// would be repaired. Changes nothing.
pub fn inspect(
    disk: &dyn Disk,
    dir: &Path,
    at: walpb::Snapshot,
    options: Options,
) -> Result<(Recovered, Option<Torn>), WalError> {
    let scanned = scan(disk, dir, at, &options)?;
    let torn = scanned.mend.map(|mend| Torn {
        file: mend.name.path(dir),
        offset: mend.offset,
        what: "an unfinished write",
    });
    let unfit = |what| WalError::Unfit { dir: dir.to_owned(), what };
    let replayed = scanned.replay.finish().map_err(unfit)?;
    let recovered = Recovered {
        metadata: replayed.metadata,
        hard_state: replayed.hard_state,
        snapshot: replayed.snapshot,
        entries: replayed.entries,
        repaired: None,
    };
    Ok((recovered, torn))
}

fn decode(record: &Record<'_>) -> Result<Item, String> {
    let not = |what: &str, error: prost::DecodeError| format!("not {what}: {error}");
    Ok(match record.kind {
        Kind::Crc => Item::Crc(record.crc),
        Kind::Metadata => {
            Item::Metadata(Metadata::decode(record.data).map_err(|e| not("metadata", e))?)
        }
        Kind::Entry => Item::Entry(decode_entry(record.data)?),
        Kind::State => Item::State(decode_state(record.data)?),
        Kind::Snapshot => {
            let snapshot = walpb::Snapshot::decode(record.data);
            Item::Snapshot(snapshot.map_err(|e| not("a snapshot record", e))?)
        }
    })
}
