//! `quorateutl`, the tool for files at rest. It has etcdutl's command names; what it does not do yet
//! it says. Works on snapshot files, never on the directory of a member that runs. Prints nothing
//! itself.

mod snapshot;

use std::path::Path;

use crate::env::Disk;

/// The storage version that the server writes.
const API_VERSION: &str = "3.7";

/// etcdutl's commands.
const COMMANDS: &[&str] = &["completion", "defrag", "hashkv", "migrate", "snapshot"];

const USAGE: &str = "Usage:
  quorateutl version                   Show the version.
  quorateutl snapshot status FILE      Hash, revision, keys, size and version of a snapshot file.

Every other command of etcdutl is not served yet.
";

/// Runs one command: what goes to stdout, or to stderr with exit code 1.
pub fn run(arguments: &[String], disk: &dyn Disk) -> Result<String, String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] | ["help" | "-h" | "--help", ..] => Ok(USAGE.into()),
        ["version"] => {
            let version = env!("CARGO_PKG_VERSION");
            Ok(format!("quorateutl version: {version}\nAPI version: {API_VERSION}\n"))
        }
        ["snapshot", "status", file] if !file.starts_with('-') => {
            let status = snapshot::status(disk, Path::new(file));
            status.map(|status| format!("{status}\n")).map_err(|e| format!("Error: {file}: {e}\n"))
        }
        [command, ..] if COMMANDS.contains(&command) => {
            let line = words.join(" ");
            Err(format!("Error: \"{line}\" is not served yet, use etcdutl\n"))
        }
        [command, ..] => {
            Err(format!("Error: unknown command \"{command}\" for \"quorateutl\"\n{USAGE}"))
        }
    }
}
