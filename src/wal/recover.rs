//! From files to a log: reads the segments in order, consults the decision table at the end of each, and
//! mends the end of the last one when the table requires it. Reading alone changes nothing.

use std::io;
use std::path::{Path, PathBuf};

use quorate_proto::walpb;

use super::error::{Context, WalError};
use super::reader::{Reader, Step};
use super::record::Kind;
use super::replay::Replay;
use super::segment::{self, Name};
use super::table::{Action, Place, decide};
use super::{Options, Repair};
use crate::env::{Disk, File, Open};
use crate::plant;

/// What the files hold.
pub(super) struct Scan {
    pub replay: Replay,
    pub segments: Vec<Name>,
    /// Where the last segment's records end, or, if it is to be dropped, the one's before.
    pub end: End,
    pub mend: Option<Mend>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub offset: u64,
    pub crc: u32,
}

/// What is to be done about the end of the log before anything is appended.
#[derive(Debug)]
pub(super) struct Mend {
    pub action: Action,
    pub name: Name,
    pub offset: u64,
    pub used: u64,
}

/// Reads all records of the log in `dir`.
pub(super) fn scan(
    disk: &dyn Disk,
    dir: &Path,
    at: walpb::Snapshot,
    options: &Options,
) -> Result<Scan, WalError> {
    let segments = segment::list(disk, dir)?;
    let whole = segments[0].seq == 0;
    let mut replay = Replay::new(at, whole);
    let mut end = End { offset: 0, crc: 0 };
    let mut mend = None;
    for (i, name) in segments.iter().enumerate() {
        // The checksum runs on from segment to segment; the first of what remains names its own start.
        let crc = (i > 0).then_some(end.crc);
        let mut reader = Reader::open(disk, &name.path(dir), crc, options.write_bytes_max)?;
        let last = i + 1 == segments.len();
        let (action, used) = read_segment(&mut reader, &mut replay, i == 0, last)?;
        let offset = reader.offset;
        if action != Action::Clean {
            assert!(last, "only the last segment is mended");
            mend = Some(Mend { action, name: *name, offset, used });
        }
        if action != Action::Drop {
            end = End { offset, crc: reader.crc.expect("its head was read") };
        }
    }
    Ok(Scan { replay, segments, end, mend })
}

/// Reads one segment; returns what is to be done about its end, and where its last bytes are.
fn read_segment(
    reader: &mut Reader,
    replay: &mut Replay,
    first: bool,
    last: bool,
) -> Result<(Action, u64), WalError> {
    // The head: a checksum record, then metadata.
    let mut head = [Kind::Crc, Kind::Metadata].into_iter().peekable();
    loop {
        let start = reader.offset;
        let problem = match reader.next()? {
            Step::Record(record) => match head.next() {
                Some(expected) if expected != record.kind => {
                    Some(format!("a record of {} where one of {expected} belongs", record.kind))
                }
                _ => replay.record(&record).err(),
            },
            Step::Stop(stop) => {
                let place = match (head.peek().is_some(), first, last) {
                    (_, _, false) => Place::Earlier,
                    (false, _, true) => Place::LastBody,
                    (true, true, true) => Place::OnlyHead,
                    (true, false, true) => Place::LastHead,
                };
                return match decide(stop.tail, place, stop.after) {
                    Action::Cut if plant::TORN_TAIL_REFUSED.is_planted() => {
                        Err(reader.damaged(stop.what))
                    }
                    Action::Refuse if plant::DAMAGED_LOG_CUT.is_planted() => {
                        Ok((Action::Cut, stop.used))
                    }
                    Action::Refuse if stop.what.is_empty() => Err(reader.damaged("no records")),
                    Action::Refuse => Err(reader.damaged(stop.what)),
                    Action::Clean if head.peek().is_some() => Err(reader.damaged("no records")),
                    action => Ok((action, stop.used)),
                };
            }
        };
        if let Some(what) = problem {
            reader.offset = start;
            return Err(reader.damaged(what));
        }
    }
}

impl Mend {
    /// Makes the log on disk end where its records end. The bytes taken away stay in a `.broken` file,
    /// which is durable first.
    pub(super) fn apply(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        options: &Options,
    ) -> Result<Repair, WalError> {
        let path = self.name.path(dir);
        let broken = self.name.broken_path(dir);
        match self.action {
            Action::Drop => disk.rename(&path, &broken).context("set aside", &path)?,
            Action::Cut => {
                let file = disk.open(&path, Open::Write).context("open", &path)?;
                copy(disk, &*file, &broken, self.used)
                    .context("copy the damaged end to", &broken)?;
                disk.sync_dir(dir).context("sync", dir)?;
                cut(&*file, self.offset, options.segment_bytes).context("cut", &path)?;
            }
            Action::Clean | Action::Refuse => unreachable!("neither is mended"),
        }
        disk.sync_dir(dir).context("sync", dir)?;
        let bytes = self.used.saturating_sub(self.offset);
        Ok(Repair { file: path, offset: self.offset, bytes, broken })
    }
}

/// Copies the first `len` bytes of `from` to a new file, replacing one left by an earlier attempt.
fn copy(disk: &dyn Disk, from: &dyn File, to: &Path, len: u64) -> io::Result<()> {
    if disk.exists(to)? {
        disk.remove(to)?;
    }
    let copy = disk.open(to, Open::CreateNew)?;
    let mut buf = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < len {
        let count = buf.len().min((len - offset) as usize);
        let read = from.read_at(&mut buf[..count], offset)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        copy.write_all_at(&buf[..read], offset)?;
        offset += read as u64;
    }
    copy.sync_data()
}

/// Truncates, and reserves the space again, zeroed.
fn cut(file: &dyn File, offset: u64, segment_bytes: u64) -> io::Result<()> {
    file.set_len(offset)?;
    file.sync_data()?;
    if offset < segment_bytes {
        file.allocate(segment_bytes)?;
        file.sync_data()?;
    }
    Ok(())
}

/// Removes what interrupted work has left: segments under construction, and released ones that are
/// still there.
pub(super) fn sweep(disk: &dyn Disk, dir: &Path, segments: &[Name]) -> Result<(), WalError> {
    let remove = |path: PathBuf| disk.remove(&path).context("remove", &path);
    for name in segment::all(disk, dir)? {
        if name < segments[0] {
            remove(name.path(dir))?;
        }
    }
    for name in disk.list(dir).context("list", dir)? {
        if name.ends_with(".tmp") {
            remove(dir.join(name))?;
        }
    }
    Ok(())
}
