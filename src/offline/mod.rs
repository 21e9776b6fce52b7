//! `quorateutl`, the tool for files at rest. It has etcdutl's command names, texts and exit codes; what it
//! does not do yet it says. Works on snapshot files and makes data directories of them, and brings data
//! directories of etcd in and out; never touches the directory of a member that runs. Prints nothing itself.
//!
//! Reading order: this file (the commands), [`snapshot`] (what a
//! backup holds), [`mod@restore`] (a backup becomes a data directory), [`renewed`] (what of it changes),
//! [`mod@import`] and [`mod@export`] (etcd's directories become ours, and back), with `etcd` (what is in one),
//! `directory` (how one is made) and `fingerprint`.

mod directory;
mod etcd;
mod export;
mod fingerprint;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod import;
mod renewed;
mod restore;
mod snapshot;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::help::ETCD_VERSION;
use crate::config::pflag::{Flags, Kind};
use crate::env::Disk;
pub use export::Export;
pub use import::{Import, Moved};
pub use restore::{Restore, RestoreError};

/// The storage version that the server writes.
const API_VERSION: &str = "3.7";

/// etcdutl's commands.
const COMMANDS: &[&str] = &["completion", "defrag", "hashkv", "migrate", "snapshot"];

const USAGE: &str = "Usage:
  quorateutl version                   Show the version.
  quorateutl snapshot status FILE      Hash, revision, keys, size and version of a snapshot file.
  quorateutl snapshot restore FILE     Make a snapshot file the data directory of a member of a new
                                       cluster; its flags: quorateutl snapshot restore --help
  quorateutl import --from DIR --to DIR
                                       Make the data directory of a stopped etcd member one of Quorate's;
                                       --wal-dir DIR where etcd's log is elsewhere
  quorateutl export --from DIR --to DIR
                                       Make the data directory of a stopped member one of etcd's;
                                       --wal-dir DIR where its log is elsewhere, --cluster-version 3.5
                                       for an older etcd when all members are exported with it

Every other command of etcdutl is not served yet.
";

const RESTORE_USAGE: &str = "Usage:
  quorateutl snapshot restore FILE [flags]

Every member of the new cluster restores the same file, with its own name and URLs.

Flags:
  --name NAME                          Human-readable name of this member (default).
  --data-dir DIR                       The data directory to make (NAME.etcd).
  --wal-dir DIR                        Where its log goes (member/wal in the data directory).
  --initial-cluster NAME=URL,...       The members of the new cluster (default=http://localhost:2380).
  --initial-cluster-token TOKEN        What tells clusters of the same members apart (etcd-cluster).
  --initial-advertise-peer-urls URL,.. Peer URLs of this member (http://localhost:2380).
  --skip-hash-check                    Take a file that has no hash, or not the right one.
  --bump-revision N                    Go on N revisions later; needs --mark-compacted.
  --mark-compacted                     Take all revisions so far for compacted; needs --bump-revision.
  --initial-memory-map-size BYTES      Accepted, and without effect: nothing is mapped.
";

const MOVE_FLAGS: &[(&str, Kind)] = &[
    ("from", Kind::Text),
    ("to", Kind::Text),
    ("wal-dir", Kind::Text),
    ("cluster-version", Kind::Text),
];

const RESTORE_FLAGS: &[(&str, Kind)] = &[
    ("name", Kind::Text),
    ("data-dir", Kind::Text),
    ("wal-dir", Kind::Text),
    ("initial-cluster", Kind::Text),
    ("initial-cluster-token", Kind::Text),
    ("initial-advertise-peer-urls", Kind::Text),
    ("skip-hash-check", Kind::Bool),
    ("bump-revision", Kind::Uint),
    ("mark-compacted", Kind::Bool),
    ("initial-memory-map-size", Kind::Uint),
];

/// Why a command did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the process ends with.
    pub code: u8,
    /// What goes to stderr.
    pub text: String,
}

impl Failure {
    /// etcdutl's code for what cannot be done.
    const ERROR: u8 = 1;
    /// etcdutl's code for arguments that make no sense.
    const ARGUMENTS: u8 = 128;

    fn new(code: u8, why: impl std::fmt::Display) -> Self {
        Self { code, text: format!("Error: {why}\n") }
    }
}

/// Runs one command: what goes to stdout, or what goes wrong. Blocks.
pub fn run(arguments: &[String], disk: &Arc<dyn Disk>) -> Result<String, Failure> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let failed = |why: String| Failure::new(Failure::ERROR, why);
    match words[..] {
        [] | ["help" | "-h" | "--help", ..] => Ok(USAGE.into()),
        ["version"] => {
            let version = env!("CARGO_PKG_VERSION");
            Ok(format!(
                "quorateutl version: {version}\netcdutl version: {ETCD_VERSION}\nAPI version: {API_VERSION}\n"
            ))
        }
        ["snapshot", "status", file] if !file.starts_with('-') => {
            let status = snapshot::status(&**disk, Path::new(file));
            status.map(|status| format!("{status}\n")).map_err(|e| failed(format!("{file}: {e}")))
        }
        ["snapshot", "restore", ref words @ ..] => restore(words, disk),
        [command @ ("import" | "export"), ref words @ ..] => bring(command, words, disk),
        [command, ..] if COMMANDS.contains(&command) => {
            let line = words.join(" ");
            Err(failed(format!("\"{line}\" is not served yet, use etcdutl")))
        }
        [command, ..] => {
            Err(failed(format!("unknown command \"{command}\" for \"quorateutl\"\n{USAGE}")))
        }
    }
}

/// `import` and `export`.
fn bring(command: &str, words: &[&str], disk: &Arc<dyn Disk>) -> Result<String, Failure> {
    let failed = |why: String| Failure::new(Failure::ERROR, format!("{why}\n{USAGE}"));
    let flags = Flags::parse(words, MOVE_FLAGS).map_err(failed)?;
    if flags.help {
        return Ok(USAGE.into());
    }
    let path = |name| flags.text(name).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let (Some(from), Some(to), []) = (path("from"), path("to"), &flags.arguments[..]) else {
        let why = format!("{command} needs --from and --to, and nothing else");
        return Err(Failure::new(Failure::ARGUMENTS, why));
    };
    let wal_dir = path("wal-dir");
    let cluster_version = flags.text("cluster-version").map(str::to_owned);
    let moved = match command {
        "export" => Export { from, wal_dir, to, cluster_version }.run(disk),
        _ => Import { from, wal_dir, to }.run(disk),
    };
    moved.map(|moved| moved.to_string()).map_err(|why| Failure::new(Failure::ERROR, why))
}

fn restore(words: &[&str], disk: &Arc<dyn Disk>) -> Result<String, Failure> {
    let flags = Flags::parse(words, RESTORE_FLAGS)
        .map_err(|why| Failure::new(Failure::ERROR, format!("{why}\n{RESTORE_USAGE}")))?;
    if flags.help {
        return Ok(RESTORE_USAGE.into());
    }
    let [file] = &flags.arguments[..] else {
        let why = "snapshot restore requires exactly one argument";
        return Err(Failure::new(Failure::ARGUMENTS, why));
    };
    let bump_revision = Some(flags.uint("bump-revision")).filter(|bump| *bump > 0);
    if bump_revision.is_some() != flags.bool("mark-compacted") {
        // etcdutl's text has another name for the flag.
        let why = "--mark-compacted required if --revision-bump > 0";
        return Err(Failure::new(Failure::ARGUMENTS, why));
    }
    let default = Restore::new(file);
    let text = |name, default| flags.text(name).map_or(default, str::to_owned);
    let path = |name| flags.text(name).filter(|dir| !dir.is_empty()).map(Into::into);
    let restore = Restore {
        name: text("name", default.name),
        data_dir: path("data-dir"),
        wal_dir: path("wal-dir"),
        initial_cluster: text("initial-cluster", default.initial_cluster),
        initial_cluster_token: text("initial-cluster-token", default.initial_cluster_token),
        advertise_peer_urls: text("initial-advertise-peer-urls", default.advertise_peer_urls),
        skip_hash_check: flags.bool("skip-hash-check"),
        bump_revision,
        ..default
    };
    match restore.run(disk) {
        Ok(()) => Ok(String::new()),
        Err(why) => Err(Failure::new(Failure::ERROR, why)),
    }
}
