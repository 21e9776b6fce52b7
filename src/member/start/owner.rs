//! The owner of a data directory: a file beside the store, written once there is a log, that names the member
//! and the folder of its log. With this file and without a log, a start is refused: the log is elsewhere, or
//! is lost together with acknowledged entries.

use std::path::{Path, PathBuf};

use crate::env::{Disk, Open};
use crate::error::Fatal;
use crate::member::Options;
use crate::types::{ClusterId, MemberId};

/// The content of the file. Without it the directory was never used, or by a release that did not write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::member) struct Owner {
    pub member: MemberId,
    pub cluster: ClusterId,
    pub wal_dir: PathBuf,
}

/// The result of reading the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::member) enum Found {
    Nothing,
    /// The file does not parse; its existence proves that there was a log.
    Unreadable,
    Owner(Owner),
}

const FILE: &str = "owner";
const UNFINISHED: &str = "owner.tmp";

impl Found {
    pub fn is_something(&self) -> bool {
        *self != Self::Nothing
    }
}

impl Owner {
    pub fn find(disk: &dyn Disk, options: &Options) -> Result<Found, Fatal> {
        let path = options.member_dir().join(FILE);
        let read = || {
            if !disk.exists(&path)? {
                return Ok(Found::Nothing);
            }
            let file = disk.open(&path, Open::Read)?;
            let length = usize::try_from(file.len()?).unwrap_or(0).min(BYTES_MAX);
            let mut bytes = vec![0; length];
            let length = file.read_at(&mut bytes, 0)?;
            Ok(parse(&bytes[..length]).map_or(Found::Unreadable, Found::Owner))
        };
        read().map_err(|e: std::io::Error| Fatal::new(format!("reading {}", path.display()), e))
    }

    /// Writes the file, unless it has this content already.
    pub fn record(&self, disk: &dyn Disk, options: &Options) -> Result<(), Fatal> {
        if Self::find(disk, options)? == Found::Owner(self.clone()) {
            return Ok(());
        }
        let dir = options.member_dir();
        let (unfinished, path) = (dir.join(UNFINISHED), dir.join(FILE));
        let write = || {
            if disk.exists(&unfinished)? {
                disk.remove(&unfinished)?;
            }
            let file = disk.open(&unfinished, Open::CreateNew)?;
            file.write_all_at(self.text().as_bytes(), 0)?;
            file.sync_data()?;
            disk.rename(&unfinished, &path)?;
            disk.sync_dir(&dir)
        };
        write().map_err(|e| Fatal::new(format!("writing {}", path.display()), e))
    }

    fn text(&self) -> String {
        let Self { member, cluster, wal_dir } = self;
        format!("member {member}\ncluster {cluster}\nwal-dir {}\n", wal_dir.display())
    }
}

/// The file is not read beyond this.
const BYTES_MAX: usize = 8 << 10;

fn parse(bytes: &[u8]) -> Option<Owner> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.lines();
    let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    let id = |text: &str| u64::from_str_radix(text, 16).ok();
    Some(Owner {
        member: MemberId(id(field("member")?)?),
        cluster: ClusterId(id(field("cluster")?)?),
        wal_dir: Path::new(field("wal-dir")?).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let owner = Owner {
            member: MemberId(0x8e9e_05c5_2164_694d),
            cluster: ClusterId(7),
            wal_dir: PathBuf::from("/fast disk/wal"),
        };
        assert_eq!(parse(owner.text().as_bytes()), Some(owner));
        for not in ["", "member 1\n", "member x\ncluster 1\nwal-dir w\n", "cluster 1\nmember 1\n"] {
            assert_eq!(parse(not.as_bytes()), None, "{not:?}");
        }
    }
}
