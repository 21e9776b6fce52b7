//! Snapshots: the state as a bbolt file, streamed out of a view and installed again. The format itself is in
//! [`crate::bbolt`].

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::raftpb::SnapshotMetadata;
use tokio::sync::mpsc;

use crate::apply::membership::Membership;
use crate::apply::{self, StateMachine};
use crate::bbolt::{self, Database};
use crate::engine::Cf;
use crate::env::{Disk, Env, File, Open};
use crate::error::Fatal;
use crate::limits;
use crate::mvcc::{self, Store, View};
use crate::peer::SnapshotBody;
use crate::plant;
use crate::types::{Index, Term};

/// A bucket, a key in it and its value.
type Pair = (Cf, Bytes, Bytes);

/// etcd's buckets in a view, as the input of a bbolt file.
struct Buckets {
    view: View,
    /// The same view, unless a fault is planted.
    leases: View,
}

impl bbolt::Source for Buckets {
    fn buckets(&self) -> io::Result<Vec<Bytes>> {
        Ok(Cf::BUCKETS.iter().map(|cf| Bytes::from_static(cf.name().as_bytes())).collect())
    }

    fn scan(&self, bucket: &Bytes) -> io::Result<bbolt::Scan> {
        let Some(cf) = Cf::BUCKETS.iter().find(|cf| cf.name().as_bytes() == bucket) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no such bucket"));
        };
        let view = if *cf == Cf::Lease { &self.leases } else { &self.view };
        Ok(Box::new(view.export_bucket(*cf).map(|pair| pair.map_err(io::Error::other))))
    }
}

/// The pieces of a file, in order.
type Pieces = Box<dyn Iterator<Item = io::Result<Bytes>> + Send>;

/// The receiver of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::member) enum For {
    /// Another member: the bare database.
    Member,
    /// A backup: the database, then its SHA-256 as a piece of its own.
    Backup,
}

/// The present state, with its position and configuration. The file is built while it is read, in bounded
/// memory.
pub(in crate::member) async fn source(
    env: &Env,
    store: &Store,
    whom: For,
) -> io::Result<SnapshotBody> {
    let torn = plant::BACKUP_NOT_OF_ONE_MOMENT.is_planted() && whom == For::Backup;
    let earlier = torn.then(|| store.view());
    if torn {
        env.sleep(Duration::from_secs(2)).await;
    }
    let view = store.view();
    let conf_state = StateMachine::conf_state(&view).map_err(io::Error::other)?;
    let members = Membership::read(&view).map_err(io::Error::other)?;
    let metadata = SnapshotMetadata {
        conf_state: Some(conf_state),
        index: view.applied().0,
        term: view.term().0,
    };
    let leases = earlier.unwrap_or_else(|| view.clone());
    let buckets = Buckets { view, leases };
    let (buckets, plan) = env
        .blocking("plan snapshot", move || bbolt::plan(&buckets).map(|plan| (buckets, plan)))
        .await?;
    let total_bytes = Some(plan.total_bytes());
    let (sender, chunks) = mpsc::channel(limits::SNAPSHOT_CHUNKS);
    let pump_env = env.clone();
    env.spawn("send snapshot", async move {
        let database = plan.emit(buckets);
        let mut pieces: Pieces = match whom {
            For::Member => Box::new(database),
            For::Backup => Box::new(bbolt::seal(database)),
        };
        loop {
            let (back, chunk) = pump_env
                .blocking("make snapshot", move || {
                    let chunk = pieces.next();
                    (pieces, chunk)
                })
                .await;
            pieces = back;
            let Some(chunk) = chunk else { return };
            if sender.send(chunk).await.is_err() {
                return;
            }
        }
    });
    let data = match plant::SNAPSHOT_WITHOUT_V2_STORE.is_planted() {
        true => Bytes::new(),
        false => apply::v2::store::json(&members),
    };
    Ok(SnapshotBody { metadata, data, total_bytes, chunks })
}

/// Checks whether a received file can be the state at `metadata`: it opens, and its applied index is the
/// one in `metadata`. Blocks.
pub(super) fn check(file: Box<dyn File>, metadata: &SnapshotMetadata) -> Result<(), String> {
    let database = Database::open(file).map_err(|error| error.to_string())?;
    let [(key, wanted), _] = mvcc::position_rows(Index(metadata.index), Term(metadata.term));
    let held = database.get(Cf::Meta.name().as_bytes(), &key).map_err(|error| error.to_string())?;
    match held {
        Some(held) if held == wanted => Ok(()),
        held => {
            let held = held.and_then(|held| held[..].try_into().ok()).map_or(0, u64::from_be_bytes);
            Err(format!("it holds the state at entry {held}, not {}", metadata.index))
        }
    }
}

/// Rows of bucket `meta` that etcd 3.4 does not write, from the message that came with the file.
fn missing_rows(database: &Database, metadata: &SnapshotMetadata) -> io::Result<Vec<Pair>> {
    let [_, term] = mvcc::position_rows(Index(metadata.index), Term(metadata.term));
    let conf_state = metadata.conf_state.as_ref().map(StateMachine::conf_state_row);
    let mut missing = Vec::new();
    for (key, value) in [term].into_iter().chain(conf_state) {
        if database.get(Cf::Meta.name().as_bytes(), &key)?.is_none() {
            missing.push((Cf::Meta, key, value));
        }
    }
    Ok(missing)
}

/// Replaces the state by the file's and removes the file. An interruption leaves an empty state and the file,
/// and the next start installs it again.
pub(in crate::member) fn install(
    disk: &dyn Disk,
    store: &Store,
    path: &Path,
    metadata: &SnapshotMetadata,
) -> Result<(), Fatal> {
    let at = || format!("installing {}", path.display());
    let file = disk.open(path, Open::Read).map_err(|e| Fatal::new(at(), e))?;
    let database = Database::open(file).map_err(|e| Fatal::new(at(), e))?;
    let mut pairs: Vec<Box<dyn Iterator<Item = io::Result<Pair>>>> = Vec::new();
    for cf in Cf::BUCKETS {
        let rows = database.iter(cf.name().as_bytes()).map_err(|e| Fatal::new(at(), e))?;
        if let Some(rows) = rows {
            pairs.push(Box::new(rows.map(move |row| row.map(|(key, value)| (cf, key, value)))));
        }
    }
    let missing = missing_rows(&database, metadata).map_err(|e| Fatal::new(at(), e))?;
    pairs.push(Box::new(missing.into_iter().map(Ok)));
    let position = store.install(pairs.into_iter().flatten())?;
    if position.applied != Index(metadata.index) {
        let found = format!("the file holds the state at entry {}", position.applied);
        return Err(Fatal::new(at(), found));
    }
    disk.remove(path).map_err(|e| Fatal::new(at(), e))
}
