//! What a path is: a data directory of ours or of etcd's, or a file. Takes the locks that members take, so
//! that nothing is read while a member changes it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Context;
use crate::env::{Lock, Open};
use crate::tool::exit::Exit;

/// Time between two attempts to get a lock.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The state in a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// A store of ours, in this folder.
    Store(PathBuf),
    /// A snapshot that our next start takes in: the directory was restored and has not been used.
    Received(PathBuf),
    /// etcd's database.
    Database(PathBuf),
}

impl State {
    /// What is in the data directory `dir`.
    ///
    /// # Errors
    /// etcdutl's when there is no state at all.
    pub fn find(context: &Context, dir: &Path) -> Result<Self, Exit> {
        let disk = &*context.env.disk;
        let member = dir.join("member");
        let (store, snap) = (member.join("store"), member.join("snap"));
        if disk.exists(&store)? {
            return Ok(Self::Store(store));
        }
        let database = snap.join("db");
        if disk.exists(&database)? {
            return Ok(Self::Database(database));
        }
        let names = disk.list(&snap).unwrap_or_default();
        match names.iter().rfind(|name| name.ends_with(".snap.db")) {
            Some(name) => Ok(Self::Received(snap.join(name))),
            None => Err(absent(&database)),
        }
    }
}

/// # Errors
/// etcdutl's when there is no such file.
pub fn require(context: &Context, path: &Path) -> Result<(), Exit> {
    match context.env.disk.exists(path)? {
        true => Ok(()),
        false => Err(absent(path)),
    }
}

fn absent(path: &Path) -> Exit {
    Exit::error(format!("stat {}: no such file or directory", path.display()))
}

/// The lock of our member's directory.
///
/// # Errors
/// When a member uses it.
pub fn lock_member(context: &Context, dir: &Path) -> Result<Box<dyn Lock>, Exit> {
    let lock = context.env.disk.lock(&dir.join("member").join("lock"));
    lock.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            let dir = dir.display();
            Exit::error(format!("data directory {dir} is in use by a member: stop it first"))
        }
        _ => error.into(),
    })
}

/// The lock of a database, which etcd holds while it runs; waits for it as long as `--timeout` allows.
/// `None` for a file that may not be written: no member uses it.
///
/// # Errors
/// When it is not free in time.
pub async fn lock_database(context: &Context, path: &Path) -> Result<Option<Box<dyn Lock>>, Exit> {
    let (env, began) = (&context.env, context.env.now());
    let timeout = context.arguments.duration("timeout");
    loop {
        match env.disk.lock(path) {
            Ok(lock) => return Ok(Some(lock)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) if env.disk.open(path, Open::Write).is_err() => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        if !timeout.is_zero() && env.now() - began >= timeout {
            let path = path.display();
            return Err(Exit::error(format!("{path} is in use by another process: timeout")));
        }
        env.sleep(RETRY_PAUSE).await;
    }
}
