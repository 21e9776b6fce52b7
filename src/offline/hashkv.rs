//! `hashkv`: the fingerprint of the history in a file, or in a data directory, up to a revision.

use std::io;
use std::path::Path;

use bytes::Bytes;

use super::Context;
use super::directory::{self, State};
use super::print::{Cell, Value};
use super::verify;
use crate::bbolt::Database;
use crate::engine::Cf;
use crate::env::Open;
use crate::mvcc::{self, Changes, HashKv, History};
use crate::tool::exit::Exit;
use crate::tool::progress::Unit;

pub async fn run(context: &Context) -> Result<(), Exit> {
    let file = context.argument()?;
    let format = context.format()?;
    let path = Path::new(&file);
    directory::require(context, path)?;
    let revision = context.arguments.int("rev");
    let hashed = match State::find(context, path) {
        Ok(State::Store(store)) => {
            let _lock = directory::lock_member(context, path)?;
            verify::open(context, &store).await?.view().hash_kv(revision)
        }
        Ok(State::Received(database) | State::Database(database)) => {
            of_file(context, &database, revision).await?
        }
        Err(_) => of_file(context, path, revision).await?,
    };
    let hashed = hashed.map_err(|fatal| Exit::error(fatal.to_string()))?;
    let HashKv { hash, hash_revision, compact_revision } = hashed.map_err(|refused| {
        // etcdutl calls the store itself, which does not name the server.
        Exit::error(refused.to_string().trim_start_matches("etcdserver: "))
    })?;
    let cell =
        |column, field, json, number| Cell { column, field, json, value: Value::Number(number) };
    format.print(
        &*context.output,
        vec![
            cell("hash", "Hash", "hash", hash.into()),
            cell("hash revision", "Hash revision", "hashRevision", hash_revision.0),
            cell("compact revision", "Compact revision", "compactRevision", compact_revision.0),
        ],
    )
}

async fn of_file(
    context: &Context,
    path: &Path,
    revision: i64,
) -> Result<mvcc::Outcome<HashKv>, Exit> {
    let _lock = directory::lock_database(context, path).await?;
    let file = context.env.disk.open(path, Open::Read)?;
    let database = Database::open(file).map_err(|error| context.unreadable(&error))?;
    Ok(mvcc::hash_file(&Rows { context, database }, revision))
}

struct Rows<'a> {
    context: &'a Context,
    database: Database,
}

impl History for Rows<'_> {
    fn meta(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        self.database.get(Cf::Meta.name().as_bytes(), key)
    }

    fn changes(&self) -> io::Result<Changes<'_>> {
        let rows = self.database.iter(Cf::Key.name().as_bytes())?;
        let (mut read, total) = (0, self.database.used_bytes());
        let mut progress = self.context.progress(Unit::Bytes);
        Ok(Box::new(rows.into_iter().flatten().inspect(move |row| {
            read += row.as_ref().map_or(0, |(key, value)| key.len() + value.len()) as u64;
            progress(read, total);
        })))
    }
}
