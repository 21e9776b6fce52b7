//! `quoratectl`, the client's tool. It has etcdctl's command names, outputs and exit codes as far as it
//! goes; what it does not do yet it says, and etcdctl does it against a Quorate server as well. Prints
//! nothing itself.

mod commands;
mod connection;

use connection::Connection;

use crate::env::Env;

/// The API that the server speaks.
const API_VERSION: &str = "3.7";

/// etcdctl's commands that are not served.
const COMMANDS: &[&str] = &[
    "alarm",
    "auth",
    "check",
    "compaction",
    "completion",
    "defrag",
    "downgrade",
    "elect",
    "lease",
    "lock",
    "make-mirror",
    "member",
    "move-leader",
    "options",
    "role",
    "snapshot",
    "txn",
    "user",
    "watch",
];

const USAGE: &str = "Usage:
  quoratectl [--endpoints URL[,URL...]] [--cacert FILE] [--cert FILE --key FILE]
             [--insecure-skip-tls-verify] [--insecure-transport=false] COMMAND

A URL is HOST:PORT, alone or behind http:// or https://, or unix://FILE or unixs://FILE.

  put KEY VALUE       Store a value.
  get KEY             Show a key and its value.
  del KEY             Delete a key; shows how many there were.
  endpoint health     Ask each endpoint for a read that the whole cluster agrees on.
  endpoint status     Show what each endpoint says about itself.
  version             Show the version.

Further flags, and every other command of etcdctl, are not served yet: use etcdctl.
";

/// Runs one command: what goes to stdout, or to stderr with exit code 1. A failure may come with what
/// was found out before it.
pub async fn run(env: Env, arguments: &[String]) -> Result<String, Failure> {
    let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let cluster = Connection::take(&mut words)?;
    match words[..] {
        [] | ["help" | "-h" | "--help", ..] => Ok(USAGE.into()),
        ["version"] => {
            let version = env!("CARGO_PKG_VERSION");
            Ok(format!("quoratectl version: {version}\nAPI version: {API_VERSION}\n"))
        }
        ["put" | "get" | "del" | "endpoint", ..] if words.iter().any(|w| w.starts_with('-')) => {
            Err(format!("\"{}\": flags are not served yet, use etcdctl", words.join(" ")).into())
        }
        ["put", key, value] => commands::put(env, &cluster, key, value).await,
        ["get", key] => commands::get(env, &cluster, key).await,
        ["del", key] => commands::del(env, &cluster, key).await,
        ["endpoint", "health"] => commands::health(env, &cluster).await,
        ["endpoint", "status"] => commands::status(env, &cluster).await,
        ["put" | "get" | "del" | "endpoint", ..] => {
            Err(format!("\"{}\" is not served yet, use etcdctl", words.join(" ")).into())
        }
        [command, ..] if COMMANDS.contains(&command) => {
            Err(format!("{command} is not served yet, use etcdctl").into())
        }
        [command, ..] => {
            Err(format!("unknown command \"{command}\" for \"quoratectl\"\n{USAGE}").into())
        }
    }
}

/// Why a command did not succeed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// What goes to stdout all the same.
    pub found: String,
    /// What goes to stderr, behind `Error: `.
    pub why: String,
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self { found: String::new(), why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn failure(line: &str) -> String {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        run(crate::env::tokio::env(), &words).await.expect_err(line).why
    }

    #[tokio::test]
    async fn what_is_not_served_is_said() {
        assert_eq!(failure("watch k").await, "watch is not served yet, use etcdctl");
        assert_eq!(failure("put k").await, "\"put k\" is not served yet, use etcdctl");
        let flags = failure("--endpoints=a:1 get k --prefix").await;
        assert_eq!(flags, "\"get k --prefix\": flags are not served yet, use etcdctl");
        assert!(failure("putt k v").await.starts_with("unknown command \"putt\""));
        assert_eq!(failure("--endpoints").await, "--endpoints needs a value");
    }
}
