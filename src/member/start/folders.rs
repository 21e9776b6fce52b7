//! The folders of a member: created so that no power cut loses them, with a warning where others may enter.
//! Their contents are not looked at, but for whether there is a log.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::codec;
use crate::env::Disk;
use crate::error::Fatal;
use crate::wal::Wal;

/// The permissions that etcd recommends.
const PRIVATE: u32 = 0o700;

/// Creates `folders` and the one above the log, and returns those that were there and synced. Their names are
/// durable before there is a log: a durable log in a folder that is not durable would be lost after a power
/// cut. So where a log is found there is nothing to sync; else folders that were there are synced, too: an
/// earlier start may have been killed before it synced.
pub fn create(disk: &dyn Disk, folders: &[PathBuf], wal_dir: &Path) -> Result<Vec<PathBuf>, Fatal> {
    let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let failed = |dir: &Path, error: io::Error| {
        let why = format!("mkdir {}: {}", dir.display(), codec::go_error(&error));
        Fatal::new("cannot access data directory", why)
    };
    let has_log = Wal::exists(disk, wal_dir).unwrap_or(false);
    let above_log = wal_dir.parent().filter(|_| !has_log);
    let (mut durable, mut unsure) = (BTreeSet::new(), Vec::new());
    for dir in folders.iter().map(PathBuf::as_path).chain(above_log) {
        // The creation of a folder makes its name durable.
        let found = |dir: &&Path| disk.exists(dir).unwrap_or(false);
        durable.extend(dir.ancestors().take_while(|dir| !found(dir)).filter_map(Path::parent));
        unsure.extend(dir.ancestors().skip_while(|dir| !found(dir)).filter_map(Path::parent));
        if found(&dir) && folders.iter().any(|folder| folder == dir) {
            check_permission(disk, dir);
        }
        disk.create_dir_all(dir).map_err(|error| failed(dir, error))?;
    }
    let mut synced = Vec::new();
    for dir in unsure.into_iter().filter(|_| !has_log) {
        if !durable.insert(dir) {
            continue;
        }
        let here = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        match disk.sync_dir(here) {
            Ok(()) => synced.push(here.to_owned()),
            // Folders far above may belong to another user; they existed before.
            Err(error) if denied(&error) => {}
            Err(error) => return Err(failed(dir, error)),
        }
    }
    Ok(synced)
}

/// Warns of a folder that others may enter (etcd, `fileutil.CheckDirPermission`).
fn check_permission(disk: &dyn Disk, dir: &Path) {
    if let Ok(Some(mode)) = disk.folder_mode(dir)
        && mode != PRIVATE
    {
        warn!(error = permission(dir, mode), "check file permission");
    }
}

fn permission(dir: &Path, mode: u32) -> String {
    format!(
        "directory {:?} exist, but the permission is {:?}. The recommended permission is {:?} to \
         prevent possible unprivileged access to the data",
        dir.display().to_string(),
        mode_text('d', mode),
        mode_text('-', PRIVATE)
    )
}

/// Permissions as `ls` and Go show them.
fn mode_text(kind: char, mode: u32) -> String {
    let bits = "rwxrwxrwx".chars().enumerate();
    let bits = bits.map(|(at, bit)| if mode >> (8 - at) & 1 == 1 { bit } else { '-' });
    std::iter::once(kind).chain(bits).collect()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the folders of this test are real")]
mod tests {
    use super::*;
    use crate::env::tokio::Machine;

    /// What the second and any later start costs is the point: a disk may take a second for each sync.
    #[tokio::test]
    async fn a_folder_is_synced_once_and_never_where_there_is_a_log() {
        let disk = Machine::default().env().disk.clone();
        let above = tempfile::tempdir().expect("a folder");
        let data = above.path().join("data");
        let folders = [data.clone(), data.join("member"), data.join("member/snap")];
        let wal_dir = data.join("member/wal");
        let create = || create(&*disk, &folders, &wal_dir).expect("it can be created");

        let synced = create();
        let higher: Vec<_> = above.path().ancestors().skip(1).map(Path::to_owned).collect();
        assert_eq!(synced, higher, "what was created was synced by that");

        // Killed before the log was there.
        let mut synced = create();
        let mut wanted: Vec<_> = folders[2].ancestors().skip(1).map(Path::to_owned).collect();
        synced.sort();
        wanted.sort();
        assert_eq!(synced, wanted);

        std::fs::create_dir(&wal_dir).expect("a folder");
        assert_eq!(create().len(), wanted.len(), "a folder without a log in it is no log");
        let segment = wal_dir.join("0000000000000000-0000000000000000.wal");
        std::fs::write(segment, "").expect("a file");
        assert!(create().is_empty(), "the start before has synced");
    }

    #[test]
    fn a_folder_that_others_may_enter_is_described_as_by_etcd() {
        assert_eq!(
            permission(Path::new("/d"), 0o755),
            "directory \"/d\" exist, but the permission is \"drwxr-xr-x\". The recommended \
             permission is \"-rwx------\" to prevent possible unprivileged access to the data"
        );
        assert_eq!(mode_text('d', 0o070), "d---rwx---");
    }
}
