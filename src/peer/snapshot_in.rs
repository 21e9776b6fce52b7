//! Receiving one snapshot: the message, then the database into a file of its own that gets its
//! final name only when it is complete and durable. Does not look into the database.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::Incoming;
use quorate_proto::raftpb::{Message, SnapshotMetadata};

use super::body::next_piece;
use super::stream_codec::{CodecError, take_message};
use super::transport::Transport;
use crate::env::{Disk, Env, File, Open};
use crate::limits::{PEER_SNAPSHOT_ENVELOPE_BYTES_MAX, PEER_SNAPSHOT_WRITE_BYTES};
use crate::types::Index;

/// Where the database of the snapshot at `index` is found in the snapshot folder `dir`.
pub fn snapshot_path(dir: &Path, index: Index) -> PathBuf {
    dir.join(format!("{:016x}{RECEIVED}", index.0))
}

/// Names of databases that are complete end so.
const RECEIVED: &str = ".snap.db";

/// Names of databases that are not complete begin so.
const INCOMPLETE: &str = "tmp-snap-";

/// Removes what transfers left behind that a crash cut off; how many files that were. To be called
/// (blocking) before the peer port is opened.
pub fn remove_leftovers(disk: &dyn Disk, dir: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for name in disk.list(dir)?.iter().filter(|name| name.starts_with(INCOMPLETE)) {
        disk.remove(&dir.join(name))?;
        removed += 1;
    }
    Ok(removed)
}

/// Removes databases that were received and are not to be installed; how many. To be called (blocking)
/// when a start has installed what its log names: an earlier life may have ended before it removed them.
pub fn remove_received(disk: &dyn Disk, dir: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for name in disk.list(dir)?.iter().filter(|name| name.ends_with(RECEIVED)) {
        disk.remove(&dir.join(name))?;
        removed += 1;
    }
    Ok(removed)
}

/// Why a snapshot has not been received.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    #[error("failed to decode raft message ({0})")]
    Envelope(io::Error),
    #[error("failed to save KV snapshot ({0})")]
    Save(io::Error),
    #[error("not a database of the snapshot's position ({0})")]
    Refused(String),
}

/// Reads the raft message in front of the database; what has arrived behind it stays in `arrived`.
pub(super) async fn envelope(
    env: &Env,
    patience: Duration,
    body: &mut Incoming,
    arrived: &mut BytesMut,
) -> Result<Message, ReceiveError> {
    let codec = |error: CodecError| ReceiveError::Envelope(io::Error::other(error));
    loop {
        if let Some(message) =
            take_message(arrived, PEER_SNAPSHOT_ENVELOPE_BYTES_MAX).map_err(codec)?
        {
            return Ok(message);
        }
        let piece = next_piece(env, patience, body).await.map_err(ReceiveError::Envelope)?;
        let piece =
            piece.ok_or_else(|| ReceiveError::Envelope(io::ErrorKind::UnexpectedEof.into()))?;
        arrived.extend_from_slice(&piece);
    }
}

/// Saves the rest of the body as the database of the snapshot at `metadata`; its size in bytes. When
/// this returns, the file is durable under its final name, and the member has looked at it.
pub(super) async fn save(
    transport: &Transport,
    metadata: &SnapshotMetadata,
    body: &mut Incoming,
    mut arrived: BytesMut,
) -> Result<u64, ReceiveError> {
    let (env, patience) = (transport.env(), transport.patience().read);
    let (dir, index) = (transport.snapshot_dir(), Index(metadata.index));
    // Two transfers at once must not share a file.
    let number = transport.next_transfer();
    let mut incomplete =
        Incomplete::create(env, dir, index, number).await.map_err(ReceiveError::Save)?;
    loop {
        // One disk write for many pieces; the sender waits meanwhile, which bounds the memory.
        if arrived.len() >= PEER_SNAPSHOT_WRITE_BYTES {
            incomplete.append(arrived.split().freeze()).await.map_err(ReceiveError::Save)?;
        }
        match next_piece(env, patience, body).await.map_err(ReceiveError::Save)? {
            Some(piece) => arrived.extend_from_slice(&piece),
            None => break,
        }
    }
    incomplete.append(arrived.freeze()).await.map_err(ReceiveError::Save)?;
    let bytes = incomplete.length;
    incomplete.check(transport, metadata).await.map_err(ReceiveError::Refused)?;
    incomplete.finish(snapshot_path(dir, index)).await.map_err(ReceiveError::Save)?;
    Ok(bytes)
}

/// A database file in the making. It is removed when this is dropped before the end; when a crash
/// prevents that, [`remove_leftovers`] does it.
struct Incomplete {
    env: Env,
    path: PathBuf,
    file: Option<Arc<dyn File>>,
    length: u64,
}

impl Incomplete {
    async fn create(env: &Env, dir: &Path, index: Index, number: u64) -> io::Result<Self> {
        let path = dir.join(format!("{INCOMPLETE}{:016x}-{number}", index.0));
        let (disk, at) = (env.disk.clone(), path.clone());
        let file = env.blocking("snapshot-create", move || create_new(&*disk, &at)).await?;
        Ok(Self { env: env.clone(), path, file: Some(Arc::from(file)), length: 0 })
    }

    async fn append(&mut self, bytes: Bytes) -> io::Result<()> {
        let Some(file) = self.file.clone() else { return Ok(()) };
        let (offset, length) = (self.length, bytes.len() as u64);
        self.env.blocking("snapshot-write", move || file.write_all_at(&bytes, offset)).await?;
        self.length += length;
        Ok(())
    }

    /// Has the member look at the file. One that does not fit its message must never be installed: it
    /// would take the place of a state that does.
    async fn check(&self, transport: &Transport, at: &SnapshotMetadata) -> Result<(), String> {
        let (disk, path) = (self.env.disk.clone(), self.path.clone());
        let (transport, at) = (transport.clone(), at.clone());
        let check = move || {
            let file = disk.open(&path, Open::Read).map_err(|error| error.to_string())?;
            transport.local().check_database(file, &at)
        };
        self.env.blocking("snapshot-check", check).await
    }

    /// Makes the file durable, then gives it its name. A failed sync is not repeated: the file is
    /// thrown away, and with it whatever it holds.
    async fn finish(mut self, path: PathBuf) -> io::Result<()> {
        let Some(file) = self.file.clone() else { return Ok(()) };
        let (disk, from) = (self.env.disk.clone(), self.path.clone());
        let dir = path.parent().map(Path::to_owned).unwrap_or_default();
        let named = move || {
            file.sync_data()?;
            disk.rename(&from, &path)?;
            disk.sync_dir(&dir)
        };
        self.env.blocking("snapshot-finish", named).await?;
        // Nothing is left to be removed.
        self.file = None;
        Ok(())
    }
}

/// A leftover of the same name is of an earlier life of the member: it is thrown away, never
/// appended to.
fn create_new(disk: &dyn Disk, path: &Path) -> io::Result<Box<dyn File>> {
    match disk.open(path, Open::CreateNew) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(path)?;
            disk.open(path, Open::CreateNew)
        }
        opened => opened,
    }
}

impl Drop for Incomplete {
    fn drop(&mut self) {
        if self.file.take().is_none() {
            return;
        }
        let (env, path) = (self.env.clone(), self.path.clone());
        let disk = env.disk.clone();
        drop(self.env.clone().spawn("snapshot-remove", async move {
            // It may be gone already, or renamed: then there is nothing to do.
            let _ = env.blocking("snapshot-remove", move || disk.remove(&path)).await;
        }));
    }
}
