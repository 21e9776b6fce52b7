//! `quorateutl`, the tool for files at rest: etcdutl 3.7's commands, flags, outputs and exit codes, and a
//! few commands of its own (`import`, `export`, `verify`, `wal dump`). Works on snapshot files, databases of
//! etcd and data directories; never touches the directory of a member that runs.
//!
//! Reading order: [`table`] (the commands), this file (a command line becomes a call), [`mod@print`],
//! [`directory`] (what a path is, and its lock), [`snapshot`] (what a backup holds), [`hashkv`],
//! [`mod@restore`] (a backup becomes a data directory), [`renewed`] (what of it changes), [`rewrite`]
//! (`defrag` and `migrate`), [`verify`], [`wal_dump`], [`mod@import`] and [`mod@export`] (etcd's directories
//! become ours, and back), with `etcd` (what is in one), `building` (how one is made) and `fingerprint`.

mod building;
mod directory;
mod etcd;
mod export;
mod fingerprint;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod hashkv;
mod import;
mod print;
mod renewed;
mod restore;
mod rewrite;
mod snapshot;
mod table;
mod v2_keys;
mod verify;
mod wal_dump;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use export::Export;
pub use import::{Import, Moved};
use print::{Cell, Format, Value};
pub use restore::{Restore, RestoreError};
use table::TOOL;

use crate::bbolt::Corrupt;
use crate::codec;
use crate::config::help::ETCD_VERSION;
use crate::env::Env;
use crate::tool::Output;
use crate::tool::arguments::{self, Arguments, Wanted};
use crate::tool::complete;
pub use crate::tool::exit::Exit;
use crate::tool::progress::{Progress, Unit};

/// The size of the two first pages of a database, its minimum.
const META_BYTES: u64 = 8192;
/// The storage version that the server writes.
const API_VERSION: &str = "3.7";

/// The context of every command.
pub(crate) struct Context {
    env: Env,
    output: Arc<dyn Output>,
    arguments: Arguments,
}

/// Runs the command line `words`, the first of which is the program's path. Blocks on files.
///
/// # Errors
/// The exit code and what goes to standard error behind `Error: `; earlier output was written.
pub async fn run(env: Env, output: Arc<dyn Output>, words: &[String]) -> Result<(), Exit> {
    let program = TOOL.called(words);
    if let Some((line, described)) = complete::wanted(words) {
        let (out, err) = complete::complete(&TOOL, line, described)?;
        output.err(err);
        return Ok(output.out(out.as_bytes())?);
    }
    let arguments = match arguments::parse(&TOOL, program, words)? {
        Wanted::Help(text) => return Ok(output.out(text.as_bytes())?),
        Wanted::Run(arguments) => arguments,
    };
    arguments.check_text(false)?;
    let context = Context { env, output, arguments };
    match context.arguments.path[..] {
        ["snapshot", "status"] => status(&context),
        ["snapshot", "restore"] => restore_command(&context),
        ["hashkv"] => hashkv::run(&context).await,
        ["defrag"] => rewrite::defrag(&context).await,
        ["migrate"] => rewrite::migrate(&context).await,
        ["import"] => bring(&context, "import"),
        ["export"] => bring(&context, "export"),
        ["verify"] => verify::run(&context).await,
        ["wal", "dump"] => wal_dump::run(&context),
        ["completion"] => {
            let script = arguments::completion(&TOOL, program, &context.arguments)?;
            Ok(context.output.out(&script)?)
        }
        ["manual"] => {
            let page = arguments::manual(&TOOL, program, &context.arguments)?;
            Ok(context.output.out(&page)?)
        }
        ["version"] => Ok(context.output.out(version(program).as_bytes())?),
        ref path => Err(Exit::error(format!("command {path:?} is in the table but not served"))),
    }
}

fn version(program: &str) -> String {
    // Scripts read etcdutl's version; the program's own name shows which build this is.
    let own = match program {
        "etcdutl" => String::new(),
        _ => format!("{program} version: {}\n", env!("CARGO_PKG_VERSION")),
    };
    format!("{own}etcdutl version: {ETCD_VERSION}\nAPI version: {API_VERSION}\n")
}

fn status(context: &Context) -> Result<(), Exit> {
    let words = context.arguments.words();
    let [file] = &words[..] else {
        return Err(Exit::arguments("snapshot status requires exactly one argument"));
    };
    let path = Path::new(file);
    directory::require(context, path)?;
    let format = context.format()?;
    if context.env.disk.list(path).is_ok() {
        return Err(Exit::error("invalid database"));
    }
    let status = snapshot::status(&*context.env.disk, path, &mut context.progress(Unit::Bytes));
    let status = status.map_err(|error| context.unreadable(&error))?;
    let cell = |column, field, json, value| Cell { column, field, json, value };
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let (hash, bytes) = (status.hash, number(status.total_bytes));
    let keys = Value::Number(number(status.total_keys as u64));
    format.print(
        &*context.output,
        vec![
            cell("hash", "Hash", "hash", Value::Shown(format!("{hash:x}"), hash.into())),
            cell("revision", "Revision", "revision", Value::Number(status.revision)),
            cell("total keys", "Keys", "totalKey", keys),
            cell("total size", "Size", "totalSize", Value::size(bytes)),
            cell("version", "Version", "version", Value::Text(status.version)),
        ],
    )
}

fn restore_command(context: &Context) -> Result<(), Exit> {
    let (words, arguments) = (context.arguments.words(), &context.arguments);
    let [file] = &words[..] else {
        return Err(Exit::arguments("snapshot restore requires exactly one argument"));
    };
    let bump_revision = Some(arguments.uint("bump-revision")).filter(|bump| *bump > 0);
    if bump_revision.is_some() != arguments.bool("mark-compacted") {
        // etcdutl's text has another name for the flag.
        return Err(Exit::arguments("--mark-compacted required if --revision-bump > 0"));
    }
    let text = |name| arguments.text(name).to_owned();
    let path = |name| Some(arguments.text(name)).filter(|dir| !dir.is_empty()).map(Into::into);
    let restore = Restore {
        name: text("name"),
        data_dir: path("data-dir"),
        wal_dir: path("wal-dir"),
        initial_cluster: text("initial-cluster"),
        initial_cluster_token: text("initial-cluster-token"),
        advertise_peer_urls: text("initial-advertise-peer-urls"),
        skip_hash_check: arguments.bool("skip-hash-check"),
        bump_revision,
        ..Restore::new(file)
    };
    let mut progress = context.progress(Unit::Bytes);
    restore
        .run_showing(&context.env.disk, &mut progress)
        .map_err(|why| Exit::error(why.to_string()))
}

/// `import` and `export`.
fn bring(context: &Context, command: &str) -> Result<(), Exit> {
    let arguments = &context.arguments;
    let path = |name| Some(arguments.text(name)).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let (Some(from), Some(to), []) = (path("from"), path("to"), &context.arguments.words()[..])
    else {
        return Err(Exit::arguments(format!("{command} needs --from and --to, and nothing else")));
    };
    let (wal_dir, disk) = (path("wal-dir"), &context.env.disk);
    let moved = match command {
        "export" => {
            let cluster_version =
                Some(arguments.text("cluster-version")).filter(|version| !version.is_empty());
            let cluster_version = cluster_version.map(str::to_owned);
            Export { from, wal_dir, to, cluster_version }.run(disk)
        }
        _ => Import { from, wal_dir, to }.run(disk),
    };
    let moved = moved.map_err(|why| Exit::error(why.to_string()))?;
    Ok(context.output.out(moved.to_string().as_bytes())?)
}

impl Context {
    fn format(&self) -> Result<Format, Exit> {
        Format::parse(self.arguments.text("write-out"))
    }

    /// Draws how far a command is, on a terminal; a function of what is done and of how much there is.
    fn progress(&self, unit: Unit) -> impl FnMut(u64, u64) + use<'_> {
        let mut progress = Progress::new(&*self.output, unit, self.env.now());
        move |done, total| progress.show(done, total, self.env.now())
    }

    /// The one argument of a command whose library checks their number.
    fn argument(&self) -> Result<String, Exit> {
        match &self.arguments.words()[..] {
            [word] => Ok(word.clone()),
            words => Err(Exit::error(format!("accepts 1 arg(s), received {}", words.len()))),
        }
    }

    /// # Errors
    /// As etcdutl's library words it when flags are missing that a command cannot do without.
    fn required(&self, flags: &[&str]) -> Result<(), Exit> {
        let missing = flags.iter().filter(|flag| !self.arguments.is_given(flag));
        let missing: Vec<_> = missing.map(|flag| format!("\"{flag}\"")).collect();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(Exit::error(format!("required flag(s) {} not set", missing.join(", ")))),
        }
    }

    /// A database that cannot be read, in etcdutl's words where it has some.
    fn unreadable(&self, error: &io::Error) -> Exit {
        let corrupt = error.get_ref().and_then(|inner| inner.downcast_ref::<Corrupt>());
        Exit::error(match corrupt {
            Some(Corrupt::NoMeta(_)) => "invalid database".to_owned(),
            Some(Corrupt::Short { len, .. }) if *len < META_BYTES => {
                format!("file size too small {len}")
            }
            Some(corrupt) => corrupt.to_string(),
            None => codec::go_error(error),
        })
    }
}
