//! `quorateutl import`: a stopped etcd member's data directory becomes one of Quorate's, for the same member
//! of the same cluster. Nothing of the old one changes, and the new one appears whole or not at all.
//!
//! Keys with their history, leases, users, roles, alarms, members and ids are taken over; the fingerprint
//! (HashKV) of what was written is compared with that of what was read. Entries of the log after the state
//! are taken over as they are: the server applies them when it starts.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tracing::{info, warn};

use super::building::Building;
use super::etcd::EtcdDir;
use super::fingerprint;
use super::restore::{RestoreError, at};
use super::v2_keys;
use crate::apply::StateMachine;
use crate::engine::{self, Cf, Engine};
use crate::env::Disk;
use crate::error::Fatal;
use crate::lease;
use crate::mvcc::{self, HashKv, Store};
use crate::types::{ClusterId, Index, MemberId};

/// What to bring in, and to where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// etcd's data directory.
    pub from: PathBuf,
    /// etcd's log, if it is not in `from`.
    pub wal_dir: Option<PathBuf>,
    /// The data directory to make.
    pub to: PathBuf,
}

/// What a directory that was written holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    pub member: MemberId,
    pub cluster: ClusterId,
    /// The last entry in the state.
    pub applied: Index,
    /// How many entries of the log come after it.
    pub entries: usize,
    /// Of the state.
    pub fingerprint: HashKv,
    /// The names of keys of etcd's API v2 that were not taken over.
    pub v2_keys: BTreeSet<String>,
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { member, cluster, applied, entries, fingerprint, v2_keys } = self;
        let HashKv { hash, compact_revision, hash_revision } = fingerprint;
        writeln!(f, "member {member} of cluster {cluster}")?;
        writeln!(f, "state at entry {applied}, {entries} entries of the log after it")?;
        writeln!(f, "revision {hash_revision}, compacted {compact_revision}, HashKV {hash}")?;
        if v2_keys.is_empty() {
            return Ok(());
        }
        let (count, names) = (v2_keys.len(), v2_keys::shown(v2_keys));
        writeln!(f, "warning: {count} keys of the API v2 are not taken over: {names}")
    }
}

type Row = (Cf, Bytes, Bytes);
type Rows = Box<dyn Iterator<Item = io::Result<Row>>>;

impl Import {
    /// Writes the data directory. Blocks.
    pub fn run(&self, disk: &Arc<dyn Disk>) -> Result<Moved, RestoreError> {
        let building = Building::begin(disk, &self.from, &self.to)?;
        let from = EtcdDir::open(&**disk, &self.from, self.wal_dir.as_deref())?;
        let read = fingerprint::hash_kv(&from.database).map_err(at("read", &self.from))?;
        let member_dir = building.member();
        let written = {
            let engine = Engine::open(&member_dir.join("store"), &engine::Options::default());
            let store = Store::open(engine.map_err(Fatal::from)?)?;
            let rows = rows(&from).map_err(at("read", &self.from))?;
            store.install(rows.into_iter().flatten())?;
            // What does not load now would not load when the server starts.
            StateMachine::load(&store)?;
            let written = store.view().hash_kv(0)?;
            written.map_err(|refused| Fatal::new("the fingerprint", refused.text()))?
        };
        if written != read {
            let why = format!("read {read}, wrote {written}");
            return Err(Fatal::new("the copy has another fingerprint", why).into());
        }
        from.log.write(disk, &member_dir.join("wal"))?;
        building.finish()?;
        let (log, v2_keys) = (from.log, from.v2_keys);
        let (from, to) = (self.from.display(), self.to.display());
        info!(%from, %to, member = %log.member, applied = %log.applied, "imported a data directory");
        if !v2_keys.is_empty() {
            let (count, names) = (v2_keys.len(), v2_keys::shown(&v2_keys));
            warn!(count, names, "keys of the API v2 are not taken over");
        }
        Ok(Moved {
            member: log.member,
            cluster: log.cluster,
            applied: log.applied,
            entries: log.entries.len(),
            fingerprint: written,
            v2_keys,
        })
    }
}

/// All rows of the state to be, each bucket in order.
fn rows(from: &EtcdDir) -> io::Result<Vec<Rows>> {
    let log = &from.log;
    let own: Vec<Row> = mvcc::position_rows(log.applied, log.term)
        .into_iter()
        .chain((log.applied > Index(0)).then(|| StateMachine::conf_state_row(&log.conf_state)))
        .map(|(key, value)| (Cf::Meta, key, value))
        .collect();
    let mut all: Vec<Rows> = Vec::new();
    for cf in Cf::BUCKETS {
        let rows = from.rows(cf)?.map(move |row| row.map(|(key, value)| (cf, key, value)));
        all.push(match cf {
            Cf::Members => {
                let rows: Vec<_> = from.members.values().map(|member| member.row()).collect();
                Box::new(rows.into_iter().map(move |(key, value)| Ok((cf, key, value))))
            }
            Cf::MembersRemoved => {
                let removed = from.zombies.iter().map(|id| MemberId(*id).to_string());
                let removed: Vec<_> = removed.map(Bytes::from).collect();
                let value = Bytes::from_static(b"removed");
                let removed = removed.into_iter().map(move |key| Ok((cf, key, value.clone())));
                let later = from.removed_later.iter().map(|id| MemberId(*id).to_string());
                let later: Vec<_> = later.map(Bytes::from).collect();
                let is_so = move |row: &io::Result<Row>| {
                    row.as_ref().map_or(true, |(_, key, _)| !later.contains(key))
                };
                Box::new(rows.filter(is_so).chain(removed))
            }
            Cf::Meta => {
                let own_keys: Vec<_> = own.iter().map(|(_, key, _)| key.clone()).collect();
                let other = move |row: &io::Result<Row>| {
                    row.as_ref().map_or(true, |(_, key, _)| {
                        !own_keys.contains(key) && key != &b"confState"[..]
                    })
                };
                Box::new(rows.filter(other).chain(own.clone().into_iter().map(Ok)))
            }
            Cf::Lease => Box::new(rows.map(|row| {
                let (cf, key, value) = row?;
                let checked = lease::check_row(&key, value.clone());
                checked.map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))?;
                Ok((cf, key, value))
            })),
            _ => Box::new(rows),
        });
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
