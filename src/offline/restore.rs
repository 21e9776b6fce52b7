//! `snapshot restore`: a backup becomes the data directory of a member of a new cluster, as etcdutl 3.7
//! makes it (`etcdutl/snapshot/v3_snapshot.go`). Keys, leases, users, roles and alarms are the backup's;
//! the members, how far the log goes and whose configuration it is are the new cluster's.
//!
//! Two things come out, and the log comes last, whole or not at all: a directory without one is no
//! member, so that nothing serves half a backup.
//!
//! * `member/snap/<index>.snap.db`: the state, as if it had been received from a leader. A server takes
//!   it in when it starts.
//! * `member/wal`: one change of the configuration a member, all committed, and a mark that shows that
//!   the state covers them.
//!
//! etcd leaves a backup's `confState` as it was and puts it right when it starts; here it is right from
//! the beginning.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_proto::etcdserverpb::Metadata;
use quorate_proto::raftpb::HardState;
use quorate_proto::walpb;
use tracing::info;

use super::renewed::Renewed;
use crate::bbolt::{self, Database, Seal, check_seal};
use crate::config::cluster::InitialCluster;
use crate::config::urls::Url;
use crate::env::{Disk, Open};
use crate::error::Fatal;
use crate::member::first::NewCluster;
use crate::peer;
use crate::types::Index;
use crate::wal::{self, Save, Wal, WalError};

/// What to restore, and for which member. The texts are those of the flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restore {
    pub file: PathBuf,
    pub name: String,
    /// `None` for `<name>.etcd`.
    pub data_dir: Option<PathBuf>,
    /// `None` for `member/wal` in the data directory.
    pub wal_dir: Option<PathBuf>,
    pub initial_cluster: String,
    pub initial_cluster_token: String,
    pub advertise_peer_urls: String,
    /// For a database that was copied from a member's directory, which has no hash.
    pub skip_hash_check: bool,
    /// Revisions to pass over, and to take for compacted: for clients that must not see one twice.
    pub bump_revision: Option<u64>,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// What is wanted cannot be done.
    #[error("{0}")]
    Refused(String),
    #[error("{what}: {source}")]
    Disk { what: String, source: io::Error },
    #[error(transparent)]
    Log(#[from] WalError),
    /// The backup holds what no state can.
    #[error(transparent)]
    Backup(#[from] Fatal),
}

const SHA256_BYTES: u64 = 32;

impl Restore {
    /// etcdutl's defaults.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            name: "default".into(),
            data_dir: None,
            wal_dir: None,
            initial_cluster: "default=http://localhost:2380".into(),
            initial_cluster_token: "etcd-cluster".into(),
            advertise_peer_urls: "http://localhost:2380".into(),
            skip_hash_check: false,
            bump_revision: None,
        }
    }

    /// Writes the data directory. Blocks.
    pub fn run(&self, disk: &Arc<dyn Disk>) -> Result<(), RestoreError> {
        self.run_showing(disk, &mut |_, _| {})
    }

    /// The same; `progress` gets how many bytes of how many were written.
    pub fn run_showing(
        &self,
        disk: &Arc<dyn Disk>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), RestoreError> {
        let cluster = self.cluster().map_err(RestoreError::Refused)?;
        let data_dir =
            self.data_dir.clone().unwrap_or_else(|| format!("{}.etcd", self.name).into());
        let member_dir = data_dir.join("member");
        let snap_dir = member_dir.join("snap");
        let wal_dir = self.wal_dir.clone().unwrap_or_else(|| member_dir.join("wal"));
        if exists(&**disk, &data_dir)? && !disk.list(&data_dir).is_ok_and(|names| names.is_empty())
        {
            let why = format!("data-dir {data_dir:?} not empty or could not be read");
            return Err(RestoreError::Refused(why));
        }
        if exists(&**disk, &wal_dir)? {
            return Err(RestoreError::Refused(format!("wal-dir {wal_dir:?} exists")));
        }
        let path = self.file.display();
        let (wal, data, snap) = (wal_dir.display(), data_dir.display(), snap_dir.display());
        info!(%path, wal_dir = %wal, data_dir = %data, snap_dir = %snap, "restoring snapshot");
        let backup = self.open(&**disk)?;
        disk.create_dir_all(&snap_dir).map_err(at("create", &snap_dir))?;
        self.write_state(&**disk, backup, &cluster, &snap_dir, progress)?;
        write_log(disk, &cluster, &wal_dir)?;
        info!(%path, wal_dir = %wal, data_dir = %data, snap_dir = %snap, "restored snapshot");
        Ok(())
    }

    /// The cluster to be, after etcd's checks of it (`ServerConfig.VerifyBootstrap`).
    fn cluster(&self) -> Result<NewCluster, String> {
        let advertised = Url::parse_list(&self.advertise_peer_urls)?;
        let initial = InitialCluster::parse(&self.initial_cluster)?;
        initial.check_new(&self.name, &advertised)?;
        let texts = |urls: &[Url]| urls.iter().map(|url| url.as_str().to_owned()).collect();
        let members: Vec<_> =
            initial.members().map(|(name, urls)| (name.to_owned(), texts(urls))).collect();
        let cluster = NewCluster::new(&self.name, &members, &self.initial_cluster_token);
        Ok(cluster.expect("the name was checked to be listed"))
    }

    /// The backup, once its hash is known to be right.
    fn open(&self, disk: &dyn Disk) -> Result<Database, RestoreError> {
        let file = disk.open(&self.file, Open::Read).map_err(at("open", &self.file))?;
        let path = self.file.display();
        if disk.list(&self.file).is_ok() {
            return Err(RestoreError::Refused(format!("read {path}: is a directory")));
        }
        // etcdutl seeks to where the hash would be.
        if file.len().map_err(at("read", &self.file))? < SHA256_BYTES {
            return Err(RestoreError::Refused(format!("seek {path}: invalid argument")));
        }
        if !self.skip_hash_check {
            let why = match check_seal(&*file).map_err(at("read", &self.file))? {
                Seal::Intact { .. } => None,
                Seal::Absent => {
                    Some("snapshot missing hash but --skip-hash-check=false".to_owned())
                }
                Seal::Broken { stored, computed } => Some(format!(
                    "expected sha256 {}, got {}",
                    numbers(&stored),
                    numbers(&computed)
                )),
            };
            if let Some(why) = why {
                return Err(RestoreError::Refused(why));
            }
        }
        Database::open(file).map_err(at("read", &self.file))
    }

    fn write_state(
        &self,
        disk: &dyn Disk,
        backup: Database,
        cluster: &NewCluster,
        snap_dir: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), RestoreError> {
        let total = backup.used_bytes();
        let state = Renewed::new(backup, cluster, self.bump_revision)?;
        for member in &cluster.members {
            info!(
                cluster_id = %cluster.cluster,
                local_member_id = "0",
                added_peer_id = format!("{:x}", member.id),
                added_peer_peer_urls = ?member.peer_urls,
                added_peer_is_learner = false,
                "added member"
            );
        }
        let path = peer::snapshot_path(snap_dir, last(cluster));
        let plan = bbolt::plan(&state).map_err(at("read", &self.file))?;
        let file = disk.open(&path, Open::CreateNew).map_err(at("create", &path))?;
        let mut offset = 0;
        for chunk in plan.emit(&state) {
            let chunk = chunk.map_err(at("read", &self.file))?;
            file.write_all_at(&chunk, offset).map_err(at("write", &path))?;
            offset += chunk.len() as u64;
            progress(offset, total);
        }
        file.sync_data().map_err(at("sync", &path))?;
        disk.sync_dir(snap_dir).map_err(at("sync", snap_dir))
    }
}

/// The last entry of the new log, which the state covers.
fn last(cluster: &NewCluster) -> Index {
    Index(cluster.members.len() as u64)
}

/// Writes the log under another name, which it changes when it is whole.
fn write_log(
    disk: &Arc<dyn Disk>,
    cluster: &NewCluster,
    wal_dir: &Path,
) -> Result<(), RestoreError> {
    let mut building = wal_dir.as_os_str().to_owned();
    building.push(".restoring");
    let building = PathBuf::from(building);
    let metadata = Metadata { node_id: cluster.id.0, cluster_id: cluster.cluster.0 };
    let mut log = Wal::create(disk.clone(), &building, &metadata, wal::Options::default())?;
    let commit = last(cluster).0;
    // The vote is etcd's, and counts for nothing: the first election is of a later term.
    let hard_state = HardState { term: 1, vote: cluster.members[0].id, commit };
    let conf_state = Some(cluster.conf_state());
    log.save(&[
        Save::Entries { hard_state: Some(hard_state), entries: cluster.entries() },
        Save::Snapshot(walpb::Snapshot { index: commit, term: 1, conf_state }),
    ])?;
    drop(log);
    disk.rename(&building, wal_dir).map_err(at("rename the log to", wal_dir))?;
    match wal_dir.parent() {
        Some(parent) => disk.sync_dir(parent).map_err(at("sync", parent)),
        None => Ok(()),
    }
}

pub(super) fn exists(disk: &dyn Disk, path: &Path) -> Result<bool, RestoreError> {
    disk.exists(path).map_err(at("look for", path))
}

pub(super) fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    let what = format!("{what} {}", path.display());
    move |source| match source.kind() {
        // Go's words.
        io::ErrorKind::NotFound => {
            RestoreError::Refused(format!("{what}: no such file or directory"))
        }
        _ => RestoreError::Disk { what, source },
    }
}

/// Go's `%v` of bytes.
fn numbers(bytes: &[u8]) -> String {
    let numbers: Vec<_> = bytes.iter().map(u8::to_string).collect();
    format!("[{}]", numbers.join(" "))
}

#[cfg(test)]
mod tests;
