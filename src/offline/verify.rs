//! `verify`: whether a member's log, its state and all that is derived from the state agree. Reads
//! everything once and changes nothing. Of a directory of etcd's the database and the log are read.

use std::path::{Path, PathBuf};

use quorate_proto::walpb;

use super::Context;
use super::directory::{self, State};
use super::renewed;
use crate::apply::StateMachine;
use crate::bbolt::{Database, Seal, check_seal};
use crate::engine::{Cf, Engine, Options};
use crate::env::Open;
use crate::error::Fatal;
use crate::mvcc::Store;
use crate::tool::exit::Exit;
use crate::tool::progress::Unit;
use crate::types::{Index, MemberId, Term};
use crate::wal;

/// Problems that are printed; the others are only counted.
const SHOWN_MAX: usize = 20;

/// What was found so far.
struct Findings<'a> {
    context: &'a Context,
    problems: usize,
}

impl Findings<'_> {
    fn add(&mut self, what: &str) {
        self.problems += 1;
        if self.problems <= SHOWN_MAX {
            self.context.output.err(&format!("problem: {what}\n"));
        }
    }

    fn line(&self, text: &str) -> Result<(), Exit> {
        Ok(self.context.output.out(format!("{text}\n").as_bytes())?)
    }
}

pub async fn run(context: &Context) -> Result<(), Exit> {
    let dir = context.argument()?;
    let dir = Path::new(&dir);
    let mut findings = Findings { context, problems: 0 };
    directory::require(context, dir)?;
    let found = State::find(context, dir).map_err(|_| {
        let dir = dir.display();
        Exit::error(format!(
            "{dir} is no data directory: neither member/store nor member/snap/db is there"
        ))
    })?;
    match found {
        State::Store(store) => {
            let _lock = directory::lock_member(context, dir)?;
            verify_store(context, dir, &store, &mut findings).await?;
        }
        State::Received(path) | State::Database(path) => {
            let _lock = directory::lock_database(context, &path).await?;
            let (applied, term) = verify_database(context, &path, &mut findings)?;
            verify_log(context, dir, applied, term, &mut findings)?;
        }
    }
    match findings.problems {
        0 => findings.line("sound"),
        n => Err(Exit::error(format!("{}: {n} problem(s)", dir.display()))),
    }
}

/// Opens a store for reading only.
pub async fn open(context: &Context, dir: &Path) -> Result<Store, Exit> {
    let dir = dir.to_owned();
    let open = move || Engine::open_read_only(&dir, &Options::default());
    let engine = context.env.blocking_outside("open store", open).await;
    Store::open(engine.map_err(|error| Exit::error(error.to_string()))?).map_err(failed)
}

fn failed(fatal: Fatal) -> Exit {
    Exit::error(fatal.to_string())
}

async fn verify_store(
    context: &Context,
    dir: &Path,
    store: &Path,
    findings: &mut Findings<'_>,
) -> Result<(), Exit> {
    let store = open(context, store).await?;
    let view = store.view();
    let later = verify_log(context, dir, view.applied(), view.term(), findings)?;
    let (applied, revision) = (view.applied(), view.revision());
    let mut progress = context.progress(Unit::Number("changes"));
    let mut add = |what: String| findings.add(&what);
    let verified = view.verify(&mut |done| progress(done, 0), &mut add).map_err(failed)?;
    drop(progress);
    verify_members(&store, &mut add)?;
    let (changes, keys, attached) = (verified.changes, verified.keys, verified.attached);
    findings.line(&format!(
        "state: applied entry {applied}, revision {revision}, {changes} changes, {keys} keys, \
         {attached} of them leased"
    ))?;
    // They were read as entries; what they change shows when they are applied.
    match later {
        0 => Ok(()),
        1 => findings.line("not in the state: 1 entry of the log, which a start applies"),
        n => findings
            .line(&format!("not in the state: {n} entries of the log, which a start applies")),
    }
}

/// The configuration that consensus uses against the list of members, and every other bucket read.
fn verify_members(store: &Store, add: &mut dyn FnMut(String)) -> Result<(), Exit> {
    let machine = match StateMachine::load(store) {
        Ok(machine) => machine,
        Err(fatal) => {
            add(fatal.to_string());
            return Ok(());
        }
    };
    let configured = StateMachine::conf_state(&store.view()).map_err(failed)?;
    let ids = configured.voters.iter().chain(&configured.learners).map(|id| MemberId(*id));
    let ids: std::collections::BTreeSet<_> = ids.collect();
    for id in &ids {
        if !machine.members.members.contains_key(id) {
            add(format!("member {id} has a vote, or learns, and is not in the list of members"));
        }
    }
    for id in machine.members.members.keys().filter(|id| !ids.contains(id)) {
        add(format!("member {id} is in the list of members, and not in the configuration"));
    }
    Ok(())
}

/// The log reaches from below the applied entry to it or beyond, and has it with the state's term. Returns
/// how many entries are beyond it.
fn verify_log(
    context: &Context,
    dir: &Path,
    applied: Index,
    term: Term,
    findings: &mut Findings<'_>,
) -> Result<u64, Exit> {
    let log = match context.arguments.text("wal-dir") {
        "" => dir.join("member").join("wal"),
        given => PathBuf::from(given),
    };
    let at = walpb::Snapshot { index: applied.0, ..walpb::Snapshot::default() };
    let read = wal::inspect(&*context.env.disk, &log, at, wal::Options::default());
    let (recovered, torn) = match read {
        Ok(read) => read,
        Err(error) => {
            findings.add(&error.to_string());
            return Ok(0);
        }
    };
    let begin = &recovered.snapshot;
    let last = recovered.entries.last().map_or(begin.index, |entry| entry.index);
    if last < applied.0 {
        findings.add(&format!("the log ends at entry {last}, the state holds entry {applied}"));
    }
    let same = recovered.entries.iter().find(|entry| entry.index == applied.0);
    let logged = same.map(|entry| entry.term).or((begin.index == applied.0).then_some(begin.term));
    // Index 0 is before every entry.
    if let Some(logged) = logged.filter(|logged| applied.0 > 0 && *logged != term.0) {
        findings
            .add(&format!("entry {applied} is of term {logged}, the state has it of term {term}"));
    }
    if let Some(torn) = torn {
        let (file, offset) = (torn.file.display(), torn.offset);
        findings.line(&format!(
            "log: {file} has an unfinished write at offset {offset}, which a start cuts off"
        ))?;
    }
    let (member, cluster) = (recovered.metadata.node_id, recovered.metadata.cluster_id);
    let (term, commit) = (recovered.hard_state.term, recovered.hard_state.commit);
    findings.line(&format!(
        "log: member {member:x} of cluster {cluster:x}, entries after {} up to {last}, term {term}, \
         committed {commit}",
        begin.index
    ))?;
    Ok(last.saturating_sub(applied.0))
}

/// Reads every row of a database, and returns its position in the log.
fn verify_database(
    context: &Context,
    path: &Path,
    findings: &mut Findings<'_>,
) -> Result<(Index, Term), Exit> {
    let file = context.env.disk.open(path, Open::Read)?;
    if let Seal::Broken { .. } = check_seal(&*file)? {
        findings.add(&format!(
            "{}: the hash at its end is not that of what stands before it",
            path.display()
        ));
    }
    let database = Database::open(file).map_err(|error| context.unreadable(&error))?;
    let mut progress = context.progress(Unit::Bytes);
    let (mut read, mut rows) = (0, 0_u64);
    for bucket in database.buckets()? {
        let scanned = match Cf::bucket(&bucket) {
            Some(cf) => renewed::checked_rows(&database, cf)?,
            None => crate::bbolt::Source::scan(&database, &bucket)?,
        };
        for row in scanned {
            match row {
                Ok((key, value)) => read += (key.len() + value.len()) as u64,
                Err(error) => {
                    findings.add(&error.to_string());
                    break;
                }
            }
            rows += 1;
            progress(read, database.used_bytes());
        }
    }
    drop(progress);
    let number = |key: &[u8]| -> Result<u64, Exit> {
        let value = database.get(Cf::Meta.name().as_bytes(), key)?;
        let bytes = value.as_deref().and_then(|value: &[u8]| value.try_into().ok());
        Ok(bytes.map_or(0, u64::from_be_bytes))
    };
    let position = (Index(number(b"consistent_index")?), Term(number(b"term")?));
    let shown = path.display();
    findings.line(&format!("state: applied entry {}, {rows} rows in {shown}", position.0))?;
    Ok(position)
}
