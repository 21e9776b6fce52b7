//! A stopped etcd member's data directory (etcd 3.4 to 3.7), or one that `etcdutl snapshot restore` has made:
//! its state, its log after that, and its configuration. Changes nothing.
//!
//! The log has this server's own format ([`crate::wal`]). Two things are not where one looks first:
//!
//! * A snapshot that was received and not taken in before the process ended is `<index>.snap.db`, and the
//!   database is the state before it (etcd 3.7, `serverstorage.RecoverSnapshotBackend`).
//! * Up to 3.5 the v2 store had the truth about members, and the bucket could call a promoted learner a
//!   learner, or list a removed member. What counts is the configuration that the log amounts to.
//! * The consistent index of 3.4 moves with changes of keys only, while the bucket of members has what the
//!   entries after it do to members. Those are applied again, so the bucket is taken back to the state.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::raftpb::{
    self, ConfChange, ConfChangeType, ConfState, Entry, EntryType, HardState,
};
use quorate_proto::{snappb, walpb};
use tracing::warn;

use super::building::Log;
use super::restore::{RestoreError, at, exists};
use super::v2_keys;
use crate::apply::Command;
use crate::apply::membership::{ChangeContext, MemberRecord};
use crate::bbolt::{Database, Scan, Source};
use crate::engine::Cf;
use crate::env::{Disk, Open};
use crate::limits::REVISION_MAX;
use crate::member::CLUSTER_VERSION;
use crate::mvcc;
use crate::peer;
use crate::types::{ClusterId, Index, MemberId, Term};
use crate::wal::{self, Wal, WalError};

/// The oldest release whose directories are read.
const OLDEST: (u64, u64) = (3, 4);
/// A `.snap` file holds the membership, and in old clusters keys of the v2 store.
const SNAP_BYTES_MAX: u64 = 1 << 30;

/// What a directory holds.
pub(super) struct EtcdDir {
    pub database: Database,
    pub log: Log,
    /// All members, by id.
    pub members: BTreeMap<u64, MemberRecord>,
    /// Ids that the bucket of members lists although they were removed.
    pub zombies: BTreeSet<u64>,
    /// Ids that the bucket of removed members lists although an entry after the state removes them.
    pub removed_later: BTreeSet<u64>,
    /// The names of the keys of the API v2, which are not taken over.
    pub v2_keys: BTreeSet<String>,
}

/// The database of an etcd member whose data directory is `dir`.
fn database_path(dir: &Path) -> PathBuf {
    dir.join("member/snap/db")
}

impl EtcdDir {
    /// Reads the directory; `wal_dir` where the log is elsewhere.
    pub fn open(disk: &dyn Disk, dir: &Path, wal_dir: Option<&Path>) -> Result<Self, RestoreError> {
        let path = database_path(dir);
        refuse_unless_at_rest(disk, dir, &path)?;
        let inside = dir.join("member/wal");
        if wal_dir.is_none() && !Wal::exists(disk, &inside)? {
            let inside = inside.display();
            let why = format!(
                "there is no log in {inside}: --wal-dir names its folder if it is elsewhere"
            );
            return Err(RestoreError::Refused(why));
        }
        let wal_dir = wal_dir.map_or(inside, Path::to_owned);
        if !Wal::exists(disk, &wal_dir)? {
            return Err(WalError::Absent(wal_dir).into());
        }
        let marks = Wal::snapshots(disk, &wal_dir, wal::Options::default())?;
        let newest = marks.into_iter().max_by_key(|mark| mark.index).unwrap_or_default();
        let (database, applied) = state(disk, dir, &newest)?;
        check_versions(&database).map_err(RestoreError::Refused)?;

        let at = walpb::Snapshot { index: applied.0, ..walpb::Snapshot::default() };
        let recovered = Wal::read(disk, &wal_dir, at, wal::Options::default())?;
        let begin = recovered.snapshot.index;
        let last = begin + recovered.entries.len() as u64;
        if last < applied.0 {
            return Err(RestoreError::Refused(format!(
                "the log in {} ends at entry {last}, but the database holds entry {applied}",
                wal_dir.display()
            )));
        }
        let mut entries = recovered.entries;
        let after = entries.split_off((applied.0 - begin) as usize);
        let term = entries.last().map_or(recovered.snapshot.term, |entry| entry.term);
        for entry in &after {
            Command::decode(entry)?;
        }
        let snap = match &recovered.snapshot {
            walpb::Snapshot { index: 0, .. } => None,
            mark => snap_file(disk, dir, mark)?,
        };
        let began = match (&recovered.snapshot, &snap) {
            (walpb::Snapshot { index: 0, .. }, _) => Some(ConfState::default()),
            (walpb::Snapshot { conf_state: Some(state), .. }, _) => Some(state.clone()),
            (_, Some(Snap::Damaged(path))) => {
                let path = path.display();
                let why = format!("{path} is damaged: its checksum is another");
                return Err(RestoreError::Refused(why));
            }
            (_, Some(Snap::Sound { conf_state, .. })) => Some(conf_state.clone()),
            (_, None) => None,
        };
        let store = match &snap {
            Some(Snap::Sound { store, .. }) => &store[..],
            _ => &[],
        };
        let v2_keys = v2_keys::find(store, entries.iter().chain(&after));
        let changed = began.map(|began| replay(began, &entries)).transpose();
        let changed = changed.map_err(RestoreError::Refused)?;
        let mut members = members(&database).map_err(RestoreError::Refused)?;
        let (mut zombies, mut removed_later) = (BTreeSet::new(), BTreeSet::new());
        if let Some(configuration) = &changed {
            let later = Later::of(&entries, &after);
            removed_later = later.take_back(&mut members, configuration);
            zombies = correct(&mut members, configuration).map_err(RestoreError::Refused)?;
        }
        let ids = |learners| {
            let chosen = members.values().filter(move |one| one.is_learner == learners);
            chosen.map(|one| one.id).collect()
        };
        let conf_state =
            ConfState { voters: ids(false), learners: ids(true), ..ConfState::default() };
        let HardState { term: own_term, vote, commit } = recovered.hard_state;
        let commit = commit.max(applied.0).min(last);
        let log = Log {
            member: MemberId(recovered.metadata.node_id),
            cluster: ClusterId(recovered.metadata.cluster_id),
            applied,
            term: Term(term),
            conf_state,
            hard_state: HardState { term: own_term, vote, commit },
            entries: after,
        };
        Ok(Self { database, log, members, zombies, removed_later, v2_keys })
    }

    /// The rows of a bucket as the database has them.
    pub fn rows(&self, cf: Cf) -> io::Result<Scan> {
        self.database.scan(&Bytes::from_static(cf.name().as_bytes()))
    }
}

/// There must be a database, which no process has open.
fn refuse_unless_at_rest(disk: &dyn Disk, dir: &Path, path: &Path) -> Result<(), RestoreError> {
    if !exists(disk, path)? {
        let own = exists(disk, &dir.join("member/store"))?;
        let why = match own {
            true => "it is a data directory of Quorate",
            false => "there is no member/snap/db in it",
        };
        let why = format!("{} is no data directory of etcd: {why}", dir.display());
        return Err(RestoreError::Refused(why));
    }
    match disk.lock(path) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(RestoreError::Refused(
            format!("{} is in use: stop the member first", path.display()),
        )),
        // A file system that is read only has no lock, and no running member either.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The state, and the last entry that it holds.
fn state(
    disk: &dyn Disk,
    dir: &Path,
    newest: &walpb::Snapshot,
) -> Result<(Database, Index), RestoreError> {
    let path = database_path(dir);
    let database = open_database(disk, &path)?;
    let applied = consistent_index(&database).map_err(at("read", &path))?;
    if applied.max(newest.index) > REVISION_MAX as u64 {
        let why = format!("entry {applied} or {} is beyond any log", newest.index);
        return Err(RestoreError::Refused(why));
    }
    if applied >= newest.index {
        return Ok((database, Index(applied)));
    }
    let received = peer::snapshot_path(&dir.join("member/snap"), Index(newest.index));
    if exists(disk, &received)? {
        let database = open_database(disk, &received)?;
        let applied = consistent_index(&database).map_err(at("read", &received))?;
        if applied >= newest.index {
            return Ok((database, Index(applied)));
        }
    }
    // etcd, too, takes an index that was never written for that of the snapshot.
    if applied == 0 {
        return Ok((database, Index(newest.index)));
    }
    Err(RestoreError::Refused(format!(
        "{} holds the state at entry {applied}, but the log begins at the snapshot at entry {}, and there is no {}",
        path.display(),
        newest.index,
        received.display()
    )))
}

fn open_database(disk: &dyn Disk, path: &Path) -> Result<Database, RestoreError> {
    let file = disk.open(path, Open::Read).map_err(at("open", path))?;
    Database::open(file).map_err(at("read", path))
}

fn consistent_index(database: &Database) -> io::Result<u64> {
    let [(key, _), _] = mvcc::position_rows(Index(0), Term(0));
    let row = database.get(Cf::Meta.name().as_bytes(), &key)?;
    let number = row.map(|row| row[..].try_into().map(u64::from_be_bytes)).transpose();
    let bad = |_| io::Error::new(io::ErrorKind::InvalidData, "its consistent index is no number");
    Ok(number.map_err(bad)?.unwrap_or(0))
}

/// Refuses what a release has written that this one does not know.
fn check_versions(database: &Database) -> Result<(), String> {
    let rows = [(Cf::Cluster, &b"clusterVersion"[..]), (Cf::Meta, b"storageVersion")];
    for (cf, key) in rows {
        let row = database.get(cf.name().as_bytes(), key).map_err(|error| error.to_string())?;
        let Some(text) = row.map(|row| String::from_utf8_lossy(&row).into_owned()) else {
            continue;
        };
        let minor = parse_version(&text);
        let own = parse_version(CLUSTER_VERSION).expect("it is a version");
        match minor {
            Some(version) if version > own => {
                return Err(format!(
                    "the data are those of etcd {text}, which is newer than this release ({CLUSTER_VERSION}): \
                     run \"etcdctl downgrade enable\" in its cluster, or a newer quorateutl"
                ));
            }
            // 3.0 stands for a version that was not decided.
            Some(version) if version < OLDEST && version != (3, 0) => {
                return Err(format!(
                    "the data are those of etcd {text}: bring its cluster to 3.4 first, one release after the other"
                ));
            }
            Some(_) => {}
            None => return Err(format!("row {} is no version: {text:?}", key.escape_ascii())),
        }
    }
    Ok(())
}

pub(super) fn parse_version(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

/// A `.snap` file.
enum Snap {
    Damaged(PathBuf),
    Sound {
        conf_state: ConfState,
        /// The v2 store.
        store: Bytes,
    },
}

/// The `.snap` file of a mark: 3.4 writes the configuration into no other place.
fn snap_file(
    disk: &dyn Disk,
    dir: &Path,
    mark: &walpb::Snapshot,
) -> Result<Option<Snap>, RestoreError> {
    let path = dir.join(format!("member/snap/{:016x}-{:016x}.snap", mark.term, mark.index));
    if !exists(disk, &path)? {
        return Ok(None);
    }
    let read = || {
        let file = disk.open(&path, Open::Read)?;
        let length = file.len()?.min(SNAP_BYTES_MAX);
        let mut bytes = vec![0; length as usize];
        let length = file.read_at(&mut bytes, 0)?;
        bytes.truncate(length);
        Ok(Bytes::from(bytes))
    };
    let bytes = read().map_err(at("read", &path))?;
    Ok(Some(match parse_snap(bytes) {
        Some((conf_state, store)) => Snap::Sound { conf_state, store },
        None => Snap::Damaged(path),
    }))
}

/// The configuration and the v2 store in the bytes of a `.snap` file; `None` when it is not one.
pub(super) fn parse_snap(bytes: Bytes) -> Option<(ConfState, Bytes)> {
    let sealed = snappb::Snapshot::decode(bytes).ok()?;
    if crc32c::crc32c(&sealed.data) != sealed.crc {
        return None;
    }
    let snapshot = raftpb::Snapshot::decode(sealed.data).ok()?;
    Some((snapshot.metadata?.conf_state?, snapshot.data))
}

/// The configuration after these entries, of those changes that etcd does not refuse.
fn replay(began: ConfState, entries: &[Entry]) -> Result<ConfState, String> {
    let mut voters: BTreeSet<u64> = began.voters.into_iter().collect();
    let mut learners: BTreeSet<u64> = began.learners.into_iter().collect();
    for entry in entries {
        match entry.r#type() {
            EntryType::EntryNormal => continue,
            EntryType::EntryConfChange => {}
            EntryType::EntryConfChangeV2 => {
                return Err(format!("entry {} is a joint configuration change", entry.index));
            }
        }
        let change = ConfChange::decode(entry.data.clone())
            .map_err(|error| format!("entry {}: {error}", entry.index))?;
        let id = change.node_id;
        match change.r#type() {
            ConfChangeType::ConfChangeAddNode => {
                let context: Option<ChangeContext> = serde_json::from_slice(&change.context).ok();
                let promotes = context.is_some_and(|context| context.is_promote);
                // One that is there already is refused, and one that is not is not promoted.
                if promotes == learners.contains(&id) {
                    learners.remove(&id);
                    voters.insert(id);
                }
            }
            ConfChangeType::ConfChangeAddLearnerNode if !voters.contains(&id) => {
                learners.insert(id);
            }
            ConfChangeType::ConfChangeRemoveNode => {
                voters.remove(&id);
                learners.remove(&id);
            }
            ConfChangeType::ConfChangeAddLearnerNode | ConfChangeType::ConfChangeUpdateNode => {}
        }
    }
    let list = |ids: BTreeSet<u64>| ids.into_iter().collect();
    Ok(ConfState { voters: list(voters), learners: list(learners), ..ConfState::default() })
}

/// The bucket of members.
fn members(database: &Database) -> Result<BTreeMap<u64, MemberRecord>, String> {
    let mut members = BTreeMap::new();
    let rows = database.scan(&Bytes::from_static(Cf::Members.name().as_bytes()));
    for row in rows.map_err(|error| error.to_string())? {
        let (key, value) = row.map_err(|error| error.to_string())?;
        let member: MemberRecord = serde_json::from_slice(&value)
            .map_err(|error| format!("member {}: {error}", key.escape_ascii()))?;
        members.insert(member.id, member);
    }
    Ok(members)
}

/// What entries after the state do to members.
#[derive(Default)]
struct Later {
    added: BTreeSet<u64>,
    removed: BTreeSet<u64>,
    /// Members as the log has them, the newest of each.
    known: BTreeMap<u64, MemberRecord>,
}

impl Later {
    fn of(before: &[Entry], after: &[Entry]) -> Self {
        let mut later = Self::default();
        let changes = before.iter().map(|entry| (false, entry));
        for (is_later, entry) in changes.chain(after.iter().map(|entry| (true, entry))) {
            if entry.r#type() != EntryType::EntryConfChange {
                continue;
            }
            let Ok(change) = ConfChange::decode(entry.data.clone()) else { continue };
            let context: Option<ChangeContext> = serde_json::from_slice(&change.context).ok();
            if let Some(context) = context.filter(|context| !context.is_promote) {
                later.known.insert(change.node_id, context.member);
            }
            match change.r#type() {
                ConfChangeType::ConfChangeAddNode | ConfChangeType::ConfChangeAddLearnerNode => {
                    is_later.then(|| later.added.insert(change.node_id));
                }
                ConfChangeType::ConfChangeRemoveNode => {
                    is_later.then(|| later.removed.insert(change.node_id));
                }
                ConfChangeType::ConfChangeUpdateNode => {}
            }
        }
        later
    }

    /// Takes members out that are added later, and puts those back that are removed later; returns the
    /// latter.
    fn take_back(
        &self,
        members: &mut BTreeMap<u64, MemberRecord>,
        configuration: &ConfState,
    ) -> BTreeSet<u64> {
        let ConfState { voters, learners, .. } = configuration;
        let is_in = |id: &u64| voters.contains(id) || learners.contains(id);
        members.retain(|id, _| is_in(id) || !self.added.contains(id));
        let gone = self.removed.iter().copied();
        let gone: BTreeSet<u64> =
            gone.filter(|id| is_in(id) && !members.contains_key(id)).collect();
        for id in &gone {
            // Its last URLs may be in a part of the log that is gone; the removal is all that matters.
            let record = self.known.get(id).cloned().unwrap_or_default();
            let is_learner = learners.contains(id);
            members.insert(*id, MemberRecord { id: *id, is_learner, ..record });
        }
        gone
    }
}

/// Makes the members those of the configuration; returns the ids that are in it no more.
fn correct(
    members: &mut BTreeMap<u64, MemberRecord>,
    configuration: &ConfState,
) -> Result<BTreeSet<u64>, String> {
    let mut zombies = BTreeSet::new();
    for (id, member) in &mut *members {
        let is_learner = configuration.learners.contains(id);
        if !is_learner && !configuration.voters.contains(id) {
            warn!(member = %MemberId(*id), "a removed member is still listed: it is left out");
            zombies.insert(*id);
        } else if member.is_learner != is_learner {
            warn!(member = %MemberId(*id), is_learner, "the list of members is wrong about a learner");
            member.is_learner = is_learner;
        }
    }
    members.retain(|id, _| !zombies.contains(id));
    let all = configuration.voters.iter().chain(&configuration.learners);
    match all.into_iter().find(|id| !members.contains_key(id)) {
        Some(missing) => Err(format!(
            "member {} is part of the configuration, but not of the database",
            MemberId(*missing)
        )),
        None => Ok(zombies),
    }
}
