//! `quoratectl`, the client's tool. It has etcdctl's command names; what it does not do yet it says,
//! and etcdctl does it against a Quorate server as well. Prints nothing itself.

/// The API that the server speaks.
const API_VERSION: &str = "3.7";

/// etcdctl's commands.
const COMMANDS: &[&str] = &[
    "alarm",
    "auth",
    "check",
    "compaction",
    "completion",
    "defrag",
    "del",
    "downgrade",
    "elect",
    "endpoint",
    "get",
    "lease",
    "lock",
    "make-mirror",
    "member",
    "move-leader",
    "options",
    "put",
    "role",
    "snapshot",
    "txn",
    "user",
    "watch",
];

const USAGE: &str = "Usage:
  quoratectl version    Show the version.

Every other command of etcdctl is not served yet: use etcdctl.
";

/// Runs one command: what goes to stdout, or to stderr with exit code 1.
pub fn run(arguments: &[String]) -> Result<String, String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] | ["help" | "-h" | "--help", ..] => Ok(USAGE.into()),
        ["version"] => {
            let version = env!("CARGO_PKG_VERSION");
            Ok(format!("quoratectl version: {version}\nAPI version: {API_VERSION}\n"))
        }
        _ => {
            // Global flags may stand in front.
            let command = words.iter().find(|word| !word.starts_with('-')).unwrap_or(&words[0]);
            Err(match COMMANDS.contains(command) {
                true => format!("Error: {command} is not served yet, use etcdctl\n"),
                false => {
                    format!("Error: unknown command \"{command}\" for \"quoratectl\"\n{USAGE}")
                }
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_served_is_said() {
        let run = |line: &str| run(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(
            run("version").expect("served"),
            "quoratectl version: 0.1.0\nAPI version: 3.7\n"
        );
        let error = run("--endpoints=a:1 put k v").expect_err("not served");
        assert_eq!(error, "Error: put is not served yet, use etcdctl\n");
        let error = run("putt k v").expect_err("unknown");
        assert!(error.starts_with("Error: unknown command \"putt\" for \"quoratectl\"\n"));
    }
}
