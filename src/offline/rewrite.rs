//! `defrag` and `migrate` of a data directory of etcd's: its database is written anew, whole, and takes the
//! old one's place when it is durable. A directory of ours needs neither, and the commands report so.

use std::io;
use std::path::Path;

use bytes::Bytes;
use quorate_proto::raftpb::EntryType;
use tracing::{error, info, warn};

use super::Context;
use super::directory::{self, State};
use crate::apply::{self, Request};
use crate::bbolt::{self, Database};
use crate::codec::{go_duration, humanize};
use crate::engine::Cf;
use crate::env::Open;
use crate::tool::exit::Exit;
use crate::tool::progress::Unit;
use crate::wal::{self, WalError};

const STORAGE_VERSION: &[u8] = b"storageVersion";
const TERM: &[u8] = b"term";
/// Newer schemas are not known.
const NEWEST: Release = Release { major: 3, minor: 7 };
/// The first release whose databases have a version in them.
const VERSIONED: Release = Release { major: 3, minor: 6 };
const OLDEST: Release = Release { major: 3, minor: 5 };

/// A release without its patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Release {
    major: u64,
    minor: u64,
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Release {
    /// Reads `X.Y`, which may go on with a patch.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| part.parse().ok());
        Some(Self { major: parts.next()??, minor: parts.next()?? })
    }
}

pub async fn defrag(context: &Context) -> Result<(), Exit> {
    context.required(&["data-dir"])?;
    let dir = context.arguments.text("data-dir").to_owned();
    defrag_directory(context, Path::new(&dir)).await.map_err(|exit| {
        Exit::error(format!("Failed to defragment etcd data[{dir}] ({})", exit.why))
    })
}

async fn defrag_directory(context: &Context, dir: &Path) -> Result<(), Exit> {
    match State::find(context, dir)? {
        State::Database(path) => {
            let _lock = directory::lock_database(context, &path).await?;
            let database = open(context, &path)?;
            let (began, before) = (context.env.now(), database.used_bytes());
            info!(
                path = %path.display(),
                current_db_size_bytes = before,
                current_db_size = humanize(before),
                "defragmenting"
            );
            replace(context, &path, &Migrated { database, version: None })?;
            let now = open(context, &path)?.used_bytes();
            info!(
                path = %path.display(),
                current_db_size_bytes_diff = now.cast_signed() - before.cast_signed(),
                current_db_size_bytes = now,
                current_db_size = humanize(now),
                took = go_duration(context.env.now() - began),
                "finished defragmenting directory"
            );
            Ok(())
        }
        State::Store(_) | State::Received(_) => {
            let dir = dir.display();
            let text = format!(
                "Nothing to defragment in {dir}: the space of deleted data is given back while the \
                 member runs\n"
            );
            Ok(context.output.out(text.as_bytes())?)
        }
    }
}

pub async fn migrate(context: &Context) -> Result<(), Exit> {
    context.required(&["data-dir", "target-version"])?;
    let target = target(context.arguments.text("target-version"))?;
    let dir = Path::new(context.arguments.text("data-dir"));
    let path = match State::find(context, dir)? {
        State::Database(path) => path,
        State::Store(_) | State::Received(_) => {
            let dir = dir.display();
            return Err(Exit::error(format!(
                "{dir} is a data directory of Quorate, which has one schema for every version: use \
                 `etcdctl downgrade` while the cluster runs"
            )));
        }
    };
    let _lock = directory::lock_database(context, &path).await?;
    let database = open(context, &path)?;
    let current = current(&database).inspect_err(|_| {
        error!(
            "failed to detect storage version. Please make sure you are using data dir from etcd \
             v3.5 and older"
        );
    })?;
    if current == target {
        info!(storage_version = %current, "storage version up-to-date");
        return Ok(());
    }
    let newer = entries_since_snapshot(context, dir).inspect_err(|exit| {
        error!(error = exit.why, "Failed to finalize config");
    })?;
    if let Err(why) = check_plan(current, target, newer) {
        if !context.arguments.bool("force") {
            return Err(Exit::error(why));
        }
        info!(error = why, "normal migrate failed, trying with force");
    }
    let version = (target >= VERSIONED).then(|| Bytes::from(format!("{target}.0")));
    replace(context, &path, &Migrated { database, version: Some(version) })?;
    match context.arguments.bool("force") {
        true => warn!(storage_version = %target, "forcefully set storage version"),
        false => {
            for step in steps(current, target) {
                info!(new_storage_version = format!("{step}.0"), "updated storage version");
            }
        }
    }
    Ok(())
}

/// The releases on the way from one to another of the same major version.
fn steps(current: Release, target: Release) -> Vec<Release> {
    let release = |minor| Release { minor, ..target };
    match current < target {
        true => (current.minor + 1..=target.minor).map(release).collect(),
        false => (target.minor..current.minor).rev().map(release).collect(),
    }
}

fn target(text: &str) -> Result<Release, Exit> {
    if text.matches('.').count() != 1 {
        let text = serde_json::Value::from(text);
        let why = format!("wrong target version format, expected \"X.Y\", got {text}");
        return Err(Exit::arguments(why));
    }
    let target = Release::parse(text).ok_or_else(|| {
        let part = text.split('.').find(|part| part.parse::<u64>().is_err()).unwrap_or_default();
        let part = serde_json::Value::from(part);
        let why = format!("strconv.ParseInt: parsing {part}: invalid syntax");
        Exit::arguments(format!("failed to parse target version: {why}"))
    })?;
    match target < OLDEST {
        true => {
            let why = format!("target version \"{target}\" not supported. Minimal \"3.5\"");
            Err(Exit::arguments(why))
        }
        false => Ok(target),
    }
}

/// The version in the database; 3.5 where there is none but all that 3.5 has added.
fn current(database: &Database) -> Result<Release, Exit> {
    let bucket = Cf::Meta.name().as_bytes();
    if let Some(version) = database.get(bucket, STORAGE_VERSION)? {
        let text = String::from_utf8_lossy(&version).into_owned();
        let why = || Exit::error(format!("storage version {text:?} is not a version"));
        return Release::parse(&text).ok_or_else(why);
    }
    let term = database.get(bucket, TERM)?.unwrap_or_default();
    match term.iter().any(|byte| *byte != 0) {
        true => Ok(OLDEST),
        false => Err(Exit::error("missing term information")),
    }
}

/// Whether there is a way from one schema to another; `newer` is the release that the log needs.
fn check_plan(current: Release, target: Release, newer: Option<Release>) -> Result<(), String> {
    let no_plan = |why: String| Err(format!("cannot create migration plan: {why}"));
    if current.major != target.major {
        return no_plan("changing major storage version is not supported".into());
    }
    if target > NEWEST {
        let first = current.max(NEWEST).minor + 1;
        return no_plan(format!("version \"3.{first}.0\" is not supported"));
    }
    if current > NEWEST {
        return no_plan(format!("version \"{current}.0\" is not supported"));
    }
    match newer {
        Some(newer) if target < current && target < newer => Err(format!(
            "cannot downgrade storage, WAL contains newer entries, as the target version \
             ({target}.0) is lower than the version ({newer}.0) detected from WAL logs"
        )),
        _ => Ok(()),
    }
}

/// The least release that understands every entry since the log's newest snapshot; `None` for any.
fn entries_since_snapshot(context: &Context, dir: &Path) -> Result<Option<Release>, Exit> {
    let dir = dir.join("member").join("wal");
    let options = wal::Options::default();
    let mut newest = None;
    let mut needs = |entry: &quorate_proto::raftpb::Entry| {
        if entry.r#type() != EntryType::EntryNormal {
            return;
        }
        // Of 3.5 and older where it is no request.
        let needed = match apply::check::request(&entry.data) {
            Ok((_, Some(Request::DowngradeVersionTest(test)))) => {
                Release::parse(&test.ver).max(Some(VERSIONED))
            }
            _ => None,
        };
        newest = newest.max(needed);
    };
    let disk = &*context.env.disk;
    let failed = |error: wal::WalError| Exit::error(format!("failed to read wal: {error}"));
    let snapshots = wal::Wal::snapshots(disk, &dir, options).map_err(|error| {
        let why = match error {
            WalError::Absent(_) if disk.list(&dir).is_ok() => "wal: file not found".to_owned(),
            WalError::Absent(_) => format!(
                "[readWALNames] fileutil.ReadDir failed: open {}: no such file or directory",
                dir.display()
            ),
            error => error.to_string(),
        };
        Exit::error(format!("failed to get the lastest snapshot: {why}"))
    })?;
    let from = snapshots.last().map_or(0, |snapshot| snapshot.index);
    wal::read(disk, &dir, options, &mut |record| {
        if let wal::Item::Entry(entry) = record.item
            && entry.index > from
        {
            needs(&entry);
        }
        std::ops::ControlFlow::Continue(())
    })
    .map_err(failed)?;
    Ok(newest)
}

fn open(context: &Context, path: &Path) -> Result<Database, Exit> {
    let file = context.env.disk.open(path, Open::Read)?;
    Database::open(file).map_err(|error| context.unreadable(&error))
}

/// A database with another storage version, or none.
struct Migrated {
    database: Database,
    /// `None` for the one that it has.
    version: Option<Option<Bytes>>,
}

impl bbolt::Source for Migrated {
    fn buckets(&self) -> io::Result<Vec<Bytes>> {
        self.database.buckets()
    }

    fn scan(&self, bucket: &Bytes) -> io::Result<bbolt::Scan> {
        let rows = bbolt::Source::scan(&self.database, bucket)?;
        let Some(version) = &self.version else { return Ok(rows) };
        if **bucket != *Cf::Meta.name().as_bytes() {
            return Ok(rows);
        }
        // A handful of rows.
        let mut all = rows.collect::<io::Result<std::collections::BTreeMap<Bytes, Bytes>>>()?;
        all.remove(STORAGE_VERSION);
        all.extend(version.clone().map(|version| (Bytes::from_static(STORAGE_VERSION), version)));
        Ok(Box::new(all.into_iter().map(Ok)))
    }
}

/// Writes the database beside the old one and gives it the old one's name when it is durable.
fn replace(context: &Context, path: &Path, source: &Migrated) -> Result<(), Exit> {
    let disk = &*context.env.disk;
    let mut building = path.as_os_str().to_owned();
    building.push(".tmp");
    let building = Path::new(&building);
    if disk.exists(building)? {
        disk.remove(building)?;
    }
    let write = || -> io::Result<()> {
        let plan = bbolt::plan(source)?;
        let file = disk.open(building, Open::CreateNew)?;
        let (mut offset, total) = (0, source.database.used_bytes());
        let mut progress = context.progress(Unit::Bytes);
        for chunk in plan.emit(source) {
            let chunk = chunk?;
            file.write_all_at(&chunk, offset)?;
            offset += chunk.len() as u64;
            progress(offset, total);
        }
        file.sync_data()?;
        disk.rename(building, path)?;
        path.parent().map_or(Ok(()), |folder| disk.sync_dir(folder))
    };
    write().map_err(|error| {
        // The reason counts, not whether there was a file to remove.
        let _ = disk.remove(building);
        context.unreadable(&error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_refused_in_etcdutls_words() {
        let refused = |text: &str| target(text).expect_err(text);
        let check = |text: &str, why: &str| assert_eq!(refused(text), Exit::arguments(why));
        check("3", "wrong target version format, expected \"X.Y\", got \"3\"");
        check("3.6.0", "wrong target version format, expected \"X.Y\", got \"3.6.0\"");
        check("3.4", "target version \"3.4\" not supported. Minimal \"3.5\"");
        assert_eq!(target("3.6"), Ok(VERSIONED));
    }

    #[test]
    fn each_release_on_the_way_is_a_step() {
        let release = |minor| Release { major: 3, minor };
        assert_eq!(steps(release(5), release(7)), [release(6), release(7)]);
        assert_eq!(steps(release(7), release(5)), [release(6), release(5)]);
    }

    #[test]
    fn schemas_beyond_the_known_ones_and_logs_that_need_more_are_refused() {
        let release = |minor| Release { major: 3, minor };
        assert_eq!(check_plan(release(5), release(7), None), Ok(()));
        assert_eq!(check_plan(release(7), release(5), Some(release(5))), Ok(()));
        let newer = check_plan(release(7), release(5), Some(release(6))).expect_err("refused");
        assert!(newer.contains("WAL contains newer entries"), "{newer}");
        let why = "cannot create migration plan: version \"3.8.0\" is not supported";
        assert_eq!(check_plan(release(7), release(8), None), Err(why.into()));
        assert_eq!(check_plan(release(6), release(9), None), Err(why.into()));
        let four = Release { major: 4, minor: 0 };
        assert!(check_plan(release(7), four, None).is_err());
    }
}
