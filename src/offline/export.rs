//! `quorateutl export`: the data directory of a stopped member becomes one on which etcd 3.5 to 3.7 starts,
//! for the same member of the same cluster. Nothing of the old one's content changes, and the new one appears
//! whole or not at all.
//!
//! This is etcd's own way down: after `downgrade enable` each member is stopped and started again as the
//! release before, on its data. The state that is written holds every committed entry of the log, so that no
//! entry of before the downgrade is ever applied by an older release; only entries that were not committed
//! stay in the log.
//!
//! ```text
//! member/snap/db                    etcd's database, as a snapshot has it
//! member/snap/<term>-<index>.snap   the configuration and, for 3.6 and older, the v2 store's membership
//! member/wal                        a mark at that index, and the entries after it
//! ```

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::raftpb::{Entry, HardState, Snapshot, SnapshotMetadata};
use quorate_proto::{snappb, walpb};
use tracing::info;

use super::building::{Building, Log, conf_state};
use super::etcd::parse_version;
use super::fingerprint;
use super::import::Moved;
use super::restore::{RestoreError, at, exists};
use crate::apply::membership::Membership;
use crate::apply::{self, Command, Request, StateMachine};
use crate::bbolt::{self, Database};
use crate::engine::{self, Cf, Engine};
use crate::env::{Disk, Open};
use crate::error::Fatal;
use crate::limits;
use crate::mvcc::{Store, View};
use crate::types::{ClusterId, Index, MemberId, Term};
use crate::wal::{self, Wal, WalError};

/// The oldest release for which a directory is written.
const OLDEST: (u64, u64) = (3, 5);
/// Of the usual election timeout, in seconds.
const LEASE_TTL_MIN_S: i64 = 2;
const CLUSTER_VERSION: &[u8] = b"clusterVersion";
const DOWNGRADE: &[u8] = b"downgrade";
const NO_DOWNGRADE: &[u8] = br#"{"target-version":"","enabled":false}"#;
const STORAGE_VERSION: &[u8] = b"storageVersion";

/// What to write, and to where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Quorate's data directory.
    pub from: PathBuf,
    /// Its log, if it is not in `from`.
    pub wal_dir: Option<PathBuf>,
    /// The data directory to make.
    pub to: PathBuf,
    /// The cluster version that etcd is to find, when all members are stopped and exported with the same.
    pub cluster_version: Option<String>,
}

impl Export {
    /// Writes the data directory. Blocks.
    pub fn run(&self, disk: &Arc<dyn Disk>) -> Result<Moved, RestoreError> {
        let version = self.version().map_err(RestoreError::Refused)?;
        let member_dir = self.from.join("member");
        let store_dir = member_dir.join("store");
        if !exists(&**disk, &store_dir)? {
            let why = format!(
                "{} is no data directory of Quorate: there is no member/store in it",
                self.from.display()
            );
            return Err(RestoreError::Refused(why));
        }
        let lock = member_dir.join("lock");
        let _lock = disk.lock(&lock).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => RestoreError::Refused(format!(
                "{} is in use: stop the member first",
                self.from.display()
            )),
            _ => at("lock", &lock)(error),
        })?;
        let building = Building::begin(disk, &self.from, &self.to)?;
        let engine = Engine::open(&store_dir, &engine::Options::default()).map_err(Fatal::from)?;
        let store = Store::open(engine)?;
        let (log, mut members) = self.caught_up(&**disk, &store)?;
        if let Some(version) = &version {
            lower(&mut members, version, &log.entries).map_err(RestoreError::Refused)?;
        }
        let view = store.view();
        let fingerprint = view.hash_kv(0)?;
        let fingerprint =
            fingerprint.map_err(|refused| Fatal::new("the fingerprint", refused.text()))?;
        let snap_dir = building.member().join("snap");
        disk.create_dir_all(&snap_dir).map_err(at("create", &snap_dir))?;
        let path = snap_dir.join("db");
        write_database(&**disk, &path, &Buckets { view, version })?;
        let written = disk.open(&path, Open::Read).and_then(Database::open);
        let written = written.and_then(|database| fingerprint::hash_kv(&database));
        let written = written.map_err(at("read", &path))?;
        if written != fingerprint {
            let why = format!("read {fingerprint}, wrote {written}");
            return Err(Fatal::new("the copy has another fingerprint", why).into());
        }
        write_snap(&**disk, &snap_dir, &log, &members)?;
        disk.sync_dir(&snap_dir).map_err(at("sync", &snap_dir))?;
        log.write(disk, &building.member().join("wal"))?;
        building.finish()?;
        let (from, to) = (self.from.display(), self.to.display());
        info!(%from, %to, member = %log.member, applied = %log.applied, "exported a data directory");
        Ok(Moved {
            member: log.member,
            cluster: log.cluster,
            applied: log.applied,
            entries: log.entries.len(),
            fingerprint,
            v2_keys: BTreeSet::new(),
        })
    }

    /// The wanted cluster version, `major.minor.0`.
    fn version(&self) -> Result<Option<String>, String> {
        let Some(text) = &self.cluster_version else { return Ok(None) };
        match parse_version(text) {
            Some(version) if version >= OLDEST => {
                Ok(Some(format!("{}.{}.0", version.0, version.1)))
            }
            _ => Err(format!("--cluster-version {text} is no version from 3.5 on")),
        }
    }

    /// The log after all committed entries, which `store` holds then, not durably.
    fn caught_up(&self, disk: &dyn Disk, store: &Store) -> Result<(Log, Membership), RestoreError> {
        let wal_dir = self.wal_dir.clone().unwrap_or_else(|| self.from.join("member/wal"));
        if !Wal::exists(disk, &wal_dir)? {
            return Err(WalError::Absent(wal_dir).into());
        }
        let marks = Wal::snapshots(disk, &wal_dir, wal::Options::default())?;
        let applied = store.applied().0;
        if marks.iter().any(|mark| mark.index > applied) {
            return Err(RestoreError::Refused(format!(
                "{} has received a snapshot that is not taken in: start the member and stop it again",
                self.from.display()
            )));
        }
        let mark = walpb::Snapshot { index: applied, ..walpb::Snapshot::default() };
        let recovered = Wal::read(disk, &wal_dir, mark, wal::Options::default())?;
        let begin = recovered.snapshot.index;
        let last = begin + recovered.entries.len() as u64;
        let HardState { term, vote, commit } = recovered.hard_state;
        let commit = commit.max(applied).min(last);
        if commit < applied || commit == 0 {
            return Err(RestoreError::Refused(format!(
                "the log in {} ends at entry {last}, the state holds entry {applied}: nothing can be exported",
                wal_dir.display()
            )));
        }
        let mut committed = recovered.entries;
        let entries = committed.split_off((commit - begin) as usize);
        let entry_term = committed.last().map_or(recovered.snapshot.term, |entry| entry.term);
        let todo = committed.split_off((applied - begin) as usize);
        let members = apply_all(store, &todo)?;
        let log = Log {
            member: MemberId(recovered.metadata.node_id),
            cluster: ClusterId(recovered.metadata.cluster_id),
            applied: Index(commit),
            term: Term(entry_term),
            conf_state: conf_state(&members),
            hard_state: HardState { term, vote, commit },
            entries,
        };
        Ok((log, members))
    }
}

/// Applies entries as a member does when it starts. Bounds that flags set are the usual ones.
fn apply_all(store: &Store, entries: &[Entry]) -> Result<Membership, Fatal> {
    let mut machine = StateMachine::load(store)?
        .with_lease_ttl_min(LEASE_TTL_MIN_S)
        .with_learners_max(limits::LEARNERS_MAX);
    for entry in entries {
        let mut write = store.begin();
        let (index, term) = apply::position(entry);
        write.start_entry(index, term);
        match Command::decode(entry)? {
            Command::Nothing => {}
            Command::Request(header, request) => {
                // A refusal is the same on every member, and was answered.
                let _ = machine.apply(&mut write, header, request)?;
            }
            Command::Change(change) => {
                let _ = machine.change(&mut write, &change);
                let state = conf_state(&machine.members);
                StateMachine::remember_conf_state(&mut write, &state);
            }
        }
        write.commit()?;
    }
    Ok(machine.members)
}

/// Makes the cluster version a lower one, and ends a downgrade.
fn lower(members: &mut Membership, version: &str, entries: &[Entry]) -> Result<(), String> {
    let wanted = parse_version(version);
    let present = members.cluster_version.as_deref().and_then(parse_version);
    if present.is_some() && present < wanted {
        return Err(format!(
            "--cluster-version {version} is above that of the cluster, {}",
            members.cluster_version.as_deref().unwrap_or_default()
        ));
    }
    for entry in entries {
        let command = Command::decode(entry).map_err(|error| error.to_string())?;
        let raises = match &command {
            Command::Request(_, Request::ClusterVersionSet(set)) => {
                parse_version(&set.ver) > wanted
            }
            Command::Request(_, Request::DowngradeVersionTest(_)) => true,
            _ => false,
        };
        if raises {
            return Err(format!(
                "entry {} is of a newer release: start the member and stop it again",
                entry.index
            ));
        }
    }
    members.cluster_version = Some(version.to_owned());
    members.downgrade = None;
    Ok(())
}

/// The state as the source of etcd's database.
struct Buckets {
    view: View,
    /// Replaces the cluster's.
    version: Option<String>,
}

impl bbolt::Source for Buckets {
    fn buckets(&self) -> io::Result<Vec<Bytes>> {
        Ok(Cf::BUCKETS.iter().map(|cf| Bytes::from_static(cf.name().as_bytes())).collect())
    }

    fn scan(&self, bucket: &Bytes) -> io::Result<bbolt::Scan> {
        let Some(cf) = Cf::bucket(bucket) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no such bucket"));
        };
        let rows = self.view.export_bucket(cf).map(|row| row.map_err(io::Error::other));
        let Some(version) = self.version.clone() else { return Ok(Box::new(rows)) };
        // Releases before 3.6 have no row for the version of what is stored.
        let stored = parse_version(&version) >= Some((3, 6));
        let version = Bytes::from(version);
        Ok(Box::new(rows.filter_map(move |row| {
            let Ok((key, value)) = row else { return Some(row) };
            Some(Ok(match (cf, &key[..]) {
                (Cf::Cluster, CLUSTER_VERSION) => (key, version.clone()),
                (Cf::Cluster, DOWNGRADE) => (key, Bytes::from_static(NO_DOWNGRADE)),
                (Cf::Meta, STORAGE_VERSION) if !stored => return None,
                (Cf::Meta, STORAGE_VERSION) => (key, version.clone()),
                _ => (key, value),
            }))
        })))
    }
}

fn write_database(disk: &dyn Disk, path: &Path, buckets: &Buckets) -> Result<(), RestoreError> {
    let plan = bbolt::plan(buckets).map_err(at("lay out", path))?;
    let file = disk.open(path, Open::CreateNew).map_err(at("create", path))?;
    let mut offset = 0;
    for chunk in plan.emit(buckets) {
        let chunk = chunk.map_err(at("lay out", path))?;
        file.write_all_at(&chunk, offset).map_err(at("write", path))?;
        offset += chunk.len() as u64;
    }
    file.sync_data().map_err(at("sync", path))
}

/// Writes the snapshot file that goes with the mark in the log.
fn write_snap(
    disk: &dyn Disk,
    dir: &Path,
    log: &Log,
    members: &Membership,
) -> Result<(), RestoreError> {
    let (index, term) = (log.applied.0, log.term.0);
    let metadata = SnapshotMetadata { conf_state: Some(log.conf_state.clone()), index, term };
    let snapshot = Snapshot { data: apply::v2::store::json(members), metadata: Some(metadata) }
        .encode_to_vec();
    let sealed = snappb::Snapshot { crc: crc32c::crc32c(&snapshot), data: snapshot.into() };
    let path = dir.join(format!("{term:016x}-{index:016x}.snap"));
    let file = disk.open(&path, Open::CreateNew).map_err(at("create", &path))?;
    file.write_all_at(&sealed.encode_to_vec(), 0).map_err(at("write", &path))?;
    file.sync_data().map_err(at("sync", &path))
}
