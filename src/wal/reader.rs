//! Reads one segment, record by record, checks checksums, and reports how its readable part ends. Does
//! not know what records mean, nor what is done about a bad end.

use std::path::{Path, PathBuf};

use super::error::{Context, WalError};
use super::record::{Frame, HEADER_BYTES, Kind, Record};
use super::table::{After, Tail};
use crate::env::{Disk, File, Open};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;
/// Bytes fetched at once.
const WINDOW_BYTES: u64 = 256 << 10;

pub(super) enum Step<'a> {
    Record(Record<'a>),
    Stop(Stop),
}

/// Where reading ended, and why.
#[derive(Debug)]
pub(super) struct Stop {
    pub tail: Tail,
    pub after: After,
    /// What is wrong, when something is.
    pub what: &'static str,
    /// The end of the last byte in the file that is not zero, when something is wrong.
    pub used: u64,
}

pub(super) struct Reader {
    pub path: PathBuf,
    /// Start of the next frame.
    pub offset: u64,
    /// The running checksum; `None` before the first record of a log whose beginning is gone.
    pub crc: Option<u32>,
    /// The most that one unsynced write covers.
    write_bytes_max: u64,
    window: Window,
}

impl Reader {
    pub(super) fn open(
        disk: &dyn Disk,
        path: &Path,
        crc: Option<u32>,
        write_bytes_max: u64,
    ) -> Result<Self, WalError> {
        let file = disk.open(path, Open::Read).context("open", path)?;
        let len = file.len().context("measure", path)?;
        let window = Window { file, path: path.to_owned(), len, start: 0, bytes: Vec::new() };
        Ok(Self { path: path.to_owned(), offset: 0, crc, write_bytes_max, window })
    }

    /// The error that this segment is damaged just where reading is.
    pub(super) fn damaged(&self, what: impl Into<String>) -> WalError {
        WalError::Damaged { path: self.path.clone(), offset: self.offset, what: what.into() }
    }

    pub(super) fn next(&mut self) -> Result<Step<'_>, WalError> {
        let left = self.window.len - self.offset;
        if left == 0 {
            return self.stop(Tail::End, "");
        }
        let header = self.window.read(self.offset, left.min(HEADER_BYTES))?;
        if header.iter().all(|byte| *byte == 0) {
            return self.stop_at_zeroes();
        }
        let Ok(field) = header.try_into().map(u64::from_le_bytes) else {
            return self.stop(Tail::Short, "the file ends inside a length field");
        };
        let Some(frame) = Frame::parse(field) else {
            return self.stop(Tail::Corrupt, "impossible length field");
        };
        if !self.fits(frame)? {
            return self.stop(Tail::Corrupt, "the length field does not fit the record");
        }
        if frame.total() > left {
            return self.stop(Tail::Short, "the file ends inside a record");
        }
        let start = self.offset;
        if let Some(what) = self.check(frame)? {
            let torn = self.has_lost_sector(start, frame)?;
            return self.stop(if torn { Tail::Torn } else { Tail::Corrupt }, what);
        }
        self.offset += frame.total();
        // Read once more: what is returned borrows the window, which the other paths change.
        let record = Record::parse(self.window.read(start + HEADER_BYTES, frame.record)?);
        Ok(Step::Record(record.expect("it was parsed just now")))
    }

    /// What is wrong with the record of the frame at `offset`. Moves the running checksum on if nothing.
    fn check(&mut self, frame: Frame) -> Result<Option<&'static str>, WalError> {
        let bytes = self.window.read(self.offset + HEADER_BYTES, frame.record)?;
        let Some(record) = Record::parse(bytes) else {
            return Ok(Some("not a record"));
        };
        let problem = match (record.kind, self.crc) {
            (Kind::Crc, None) => None,
            (_, None) => Some("no checksum record before it"),
            (Kind::Crc, Some(crc)) if crc != record.crc || !record.data.is_empty() => {
                Some("the checksum does not continue that of the records before")
            }
            (_, Some(crc)) if !record.follows(crc) => Some("checksum mismatch"),
            _ => None,
        };
        if problem.is_none() {
            self.crc = Some(record.crc);
        }
        Ok(problem)
    }

    /// Whether the length field agrees with the record's beginning, as far as that shares its sector:
    /// no lost sector explains it if not.
    fn fits(&mut self, frame: Frame) -> Result<bool, WalError> {
        let start = self.offset + HEADER_BYTES;
        let sector_end = start.next_multiple_of(SECTOR_BYTES);
        let end = sector_end.min(start + frame.record).min(self.window.len);
        Ok(Record::fits(self.window.read(start, end - start)?, frame.record))
    }

    /// A length field of zero: preallocated space, or the start of a sector that was lost, or damage.
    fn stop_at_zeroes(&mut self) -> Result<Step<'_>, WalError> {
        let used = self.window.used(self.offset)?;
        let sector_end = (self.offset / SECTOR_BYTES + 1) * SECTOR_BYTES;
        if used <= self.offset {
            self.stop(Tail::Blank, "")
        } else if self.window.is_zero(self.offset, sector_end)? {
            self.stop(Tail::Lost, "zeroes where a record should start")
        } else {
            // Sectors are lost whole: this one was written, so its length field is wrong.
            self.stop(Tail::Corrupt, "zero length field before other bytes of its sector")
        }
    }

    /// Whether a sector that starts inside the record is zero as a whole. The one that holds the
    /// length field was written; padding is zero anyway.
    fn has_lost_sector(&mut self, start: u64, frame: Frame) -> Result<bool, WalError> {
        let end = start + HEADER_BYTES + frame.record;
        let mut sector = (start / SECTOR_BYTES + 1) * SECTOR_BYTES;
        while sector < end {
            if self.window.is_zero(sector, sector + SECTOR_BYTES)? {
                return Ok(true);
            }
            sector += SECTOR_BYTES;
        }
        Ok(false)
    }

    fn stop(&mut self, tail: Tail, what: &'static str) -> Result<Step<'_>, WalError> {
        let (mut after, mut used) = (After::Nothing, self.offset);
        if !matches!(tail, Tail::End | Tail::Blank) {
            used = self.window.used(self.offset)?;
            let near = self.offset + self.write_bytes_max;
            after = match self.last_sound_pair()? {
                None => After::Nothing,
                Some(end) if end <= near => After::Near,
                Some(_) => After::Far,
            };
        }
        Ok(Step::Stop(Stop { tail, after, what, used }))
    }

    /// The end of the last two neighbouring records behind `offset` of which the second continues
    /// the first's checksum.
    fn last_sound_pair(&mut self) -> Result<Option<u64>, WalError> {
        let mut found = None;
        let mut at = self.offset.next_multiple_of(HEADER_BYTES) + HEADER_BYTES;
        while at + HEADER_BYTES <= self.window.len {
            let first = self.sound(at, None)?;
            if let Some((mut crc, mut end)) = first {
                while let Some((next_crc, next_end)) = self.sound(end, Some(crc))? {
                    (crc, end) = (next_crc, next_end);
                    found = Some(end);
                    at = end - HEADER_BYTES;
                }
            }
            at += HEADER_BYTES;
        }
        Ok(found)
    }

    /// The checksum and the end of the record at `at`, if there is one that continues `crc`.
    fn sound(&mut self, at: u64, crc: Option<u32>) -> Result<Option<(u32, u64)>, WalError> {
        if at + HEADER_BYTES > self.window.len {
            return Ok(None);
        }
        let field = self.window.read(at, HEADER_BYTES)?.try_into().map(u64::from_le_bytes);
        let Some(frame) = Frame::parse(field.expect("eight bytes were read")) else {
            return Ok(None);
        };
        if frame.total() > self.window.len - at {
            return Ok(None);
        }
        let record = Record::parse(self.window.read(at + HEADER_BYTES, frame.record)?);
        let sound = record.filter(|record| crc.is_none_or(|crc| record.follows(crc)));
        Ok(sound.map(|record| (record.crc, at + frame.total())))
    }
}

/// The part of the file that is in memory: at least the last request's.
struct Window {
    file: Box<dyn File>,
    path: PathBuf,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// The `count` bytes at `offset`, which must be inside the file.
    fn read(&mut self, offset: u64, count: u64) -> Result<&[u8], WalError> {
        assert!(offset + count <= self.len, "reads stay inside the file");
        let loaded = self.start..self.start + self.bytes.len() as u64;
        if offset < loaded.start || offset + count > loaded.end {
            let wanted = count.max(WINDOW_BYTES).min(self.len - offset);
            self.bytes.resize(wanted as usize, 0);
            self.start = offset;
            let read = self.file.read_at(&mut self.bytes, offset).context("read", &self.path)?;
            if (read as u64) < wanted {
                let error = std::io::ErrorKind::UnexpectedEof.into();
                return Err(error).context("read", &self.path);
            }
        }
        let from = (offset - self.start) as usize;
        Ok(&self.bytes[from..from + count as usize])
    }

    /// Whether the bytes from `from` to `to`, or to the end of the file, are all zero.
    fn is_zero(&mut self, from: u64, to: u64) -> Result<bool, WalError> {
        let count = to.min(self.len).saturating_sub(from);
        Ok(count == 0 || self.read(from, count)?.iter().all(|byte| *byte == 0))
    }

    /// The end of the last byte at or after `from` that is not zero; `from` if there is none.
    fn used(&mut self, from: u64) -> Result<u64, WalError> {
        let (mut used, mut at) = (from, from);
        while at < self.len {
            let count = WINDOW_BYTES.min(self.len - at);
            let last = self.read(at, count)?.iter().rposition(|byte| *byte != 0);
            if let Some(last) = last {
                used = at + last as u64 + 1;
            }
            at += count;
        }
        Ok(used)
    }
}
