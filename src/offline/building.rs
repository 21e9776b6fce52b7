//! What import and export share: the directory that comes out is built under another name and gets its own
//! when it is whole and durable, so that there never is half a member; and its log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_proto::etcdserverpb::Metadata;
use quorate_proto::raftpb::{ConfState, Entry, HardState};
use quorate_proto::walpb;

use super::restore::{RestoreError, at, exists};
use crate::apply::membership::Membership;
use crate::env::Disk;
use crate::types::{ClusterId, Index, MemberId, Term};
use crate::wal::{self, Save, Wal};

/// A member at rest, beside its state.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Log {
    pub member: MemberId,
    pub cluster: ClusterId,
    /// The last entry that the state holds.
    pub applied: Index,
    pub term: Term,
    /// As of `applied`.
    pub conf_state: ConfState,
    pub hard_state: HardState,
    /// Those after `applied`.
    pub entries: Vec<Entry>,
}

impl Log {
    /// Writes the log of a member whose state holds all up to `applied`.
    pub fn write(&self, disk: &Arc<dyn Disk>, dir: &Path) -> Result<(), RestoreError> {
        let metadata = Metadata { node_id: self.member.0, cluster_id: self.cluster.0 };
        let mut log = Wal::create(disk.clone(), dir, &metadata, wal::Options::default())?;
        let mut saves = Vec::new();
        if self.applied > Index(0) {
            saves.push(Save::Snapshot(walpb::Snapshot {
                index: self.applied.0,
                term: self.term.0,
                conf_state: Some(self.conf_state.clone()),
            }));
        }
        let hard_state = Some(self.hard_state).filter(|state| *state != HardState::default());
        saves.push(Save::Entries { hard_state, entries: self.entries.clone() });
        log.save(&saves)?;
        log.sync()?;
        Ok(())
    }
}

/// The configuration that a member table amounts to.
pub(super) fn conf_state(members: &Membership) -> ConfState {
    let ids = |learners: bool| {
        let chosen = members.members.values().filter(move |one| one.is_learner == learners);
        chosen.map(|one| one.id).collect()
    };
    ConfState { voters: ids(false), learners: ids(true), ..ConfState::default() }
}

/// A directory under construction. Removed again unless it is [finished](Self::finish).
pub(super) struct Building {
    disk: Arc<dyn Disk>,
    to: PathBuf,
    path: PathBuf,
    finished: bool,
}

impl Building {
    /// Refuses a `to` that has something in it, or is below `from`, which nothing may change.
    pub fn begin(disk: &Arc<dyn Disk>, from: &Path, to: &Path) -> Result<Self, RestoreError> {
        // Without a slash at the end, behind which a name would be one in the folder.
        let to: PathBuf = to.components().collect();
        if to.starts_with(from) {
            let why = format!("{} is in {}, which must not change", to.display(), from.display());
            return Err(RestoreError::Refused(why));
        }
        let empty = |names: Vec<String>| names.is_empty();
        if exists(&**disk, &to)? && !disk.list(&to).is_ok_and(empty) {
            let why = format!("{} is not empty or could not be read", to.display());
            return Err(RestoreError::Refused(why));
        }
        let mut path = to.as_os_str().to_owned();
        path.push(".unfinished");
        let path = PathBuf::from(path);
        if exists(&**disk, &path)? {
            remove_all(&**disk, &path);
        }
        disk.create_dir_all(&path.join("member")).map_err(at("create", &path))?;
        Ok(Self { disk: disk.clone(), to, path, finished: false })
    }

    pub fn member(&self) -> PathBuf {
        self.path.join("member")
    }

    /// Gives the directory its name. All files in it must be durable.
    pub fn finish(mut self) -> Result<(), RestoreError> {
        for dir in [&self.member(), &self.path] {
            self.disk.sync_dir(dir).map_err(at("sync", dir))?;
        }
        self.disk.rename(&self.path, &self.to).map_err(at("rename to", &self.to))?;
        self.finished = true;
        let parent = match self.to.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        self.disk.sync_dir(parent).map_err(at("sync", parent))
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        if !self.finished {
            remove_all(&*self.disk, &self.path);
        }
    }
}

/// Removes a folder and what is in it, as far as possible.
fn remove_all(disk: &dyn Disk, path: &Path) {
    for name in disk.list(path).unwrap_or_default() {
        let path = path.join(name);
        if disk.remove(&path).is_err() {
            remove_all(disk, &path);
        }
    }
    // What stays is overwritten or reported by the next attempt.
    let _ = disk.remove(path);
}
