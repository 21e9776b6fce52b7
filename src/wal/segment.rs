//! Segment files: their names and their listing. Nothing about what is inside.

use std::fmt;
use std::path::{Path, PathBuf};

use super::error::{Context, WalError};
use crate::env::Disk;

/// A segment under construction. It becomes one by being renamed.
pub(super) const SPARE: &str = "0.tmp";

/// `%016x-%016x.wal`: the segment's place in the log, and the index of the first entry that it may
/// hold anew (it may also hold lower ones that overwrite what earlier segments hold).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub seq: u64,
    pub index: u64,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}.wal", self.seq, self.index)
    }
}

impl Name {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (seq, index) = name.strip_suffix(".wal")?.split_once('-')?;
        let hex = |digits: &str| {
            let plain = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        Some(Self { seq: hex(seq)?, index: hex(index)? })
    }

    pub(super) fn path(self, dir: &Path) -> PathBuf {
        dir.join(self.to_string())
    }

    /// Where a damaged segment is kept for people to look at.
    pub(super) fn broken_path(self, dir: &Path) -> PathBuf {
        dir.join(format!("{self}.broken"))
    }
}

/// The segments that make one log: the longest run of consecutive numbers that ends with the newest.
/// Older ones are what an interrupted release has left.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<Name>, WalError> {
    let mut names = all(disk, dir)?;
    if names.is_empty() {
        return Err(WalError::Absent(dir.to_owned()));
    }
    let gap = names.windows(2).rposition(|pair| pair[0].seq.checked_add(1) != Some(pair[1].seq));
    if let Some(gap) = gap {
        names.drain(..=gap);
    }
    Ok(names)
}

/// All that looks like a segment, in order.
pub(super) fn all(disk: &dyn Disk, dir: &Path) -> Result<Vec<Name>, WalError> {
    let files = match disk.list(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        files => files.context("list", dir)?,
    };
    let mut names: Vec<_> = files.iter().filter_map(|name| Name::parse(name)).collect();
    names.sort_unstable();
    Ok(names)
}
