//! The texts of `--help`, `--version` and of a command line that does not parse.

use super::flags::{self, Group};
use super::gates;

/// The etcd release whose behaviour this server has.
pub const ETCD_VERSION: &str = "3.7.1";

/// What follows the error when a command line does not parse.
pub const USAGE: &str = "Usage:

  quorate [flags]
    Start a member.

  quorate --version
    Show the version.

  quorate -h | --help
    Show the flags.

  quorate --config-file PATH
    Start a member with the configuration in a file; other flags and variables are ignored.
    Durations are whole nanoseconds there (600000000000 for 10m).

  quorate gateway start [flags]
    Start a proxy that hands connections on.

  quorate grpc-proxy start [flags]
    Start a proxy that lets clients share what they ask for.
";

/// `--version`: etcd's lines first, for programs that read them, then ours.
pub fn version() -> String {
    format!(
        "etcd Version: {ETCD_VERSION}\nGit SHA: {}\nGo Version: none\nGo OS/Arch: {}/{}\n\
         quorate Version: {}\n",
        option_env!("QUORATE_GIT_SHA").unwrap_or("unknown"),
        std::env::consts::OS,
        gos_name(std::env::consts::ARCH),
        env!("CARGO_PKG_VERSION"),
    )
}

/// Go's name of the processor's architecture.
fn gos_name(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// `--help`: every flag, by group.
pub fn flags() -> String {
    let groups = [
        (Group::Member, "Member"),
        (Group::Clustering, "Clustering"),
        (Group::Security, "Security"),
        (Group::Auth, "Auth"),
        (Group::Profiling, "Profiling and Monitoring"),
        (Group::Logging, "Logging"),
        (Group::Tracing, "Distributed tracing"),
        (Group::Features, "Features"),
        (Group::Unsafe, "Unsafe feature"),
        (Group::Others, "Others"),
    ];
    let mut text =
        format!("{USAGE}\nEvery flag can be given as a variable: --some-flag is ETCD_SOME_FLAG.\n");
    for (group, title) in groups {
        text.push_str(&format!("\n{title}:\n"));
        for flag in flags::all().filter(|flag| flag.group == group) {
            text.push_str(&format!("  --{} '{}'\n    {}\n", flag.name, flag.default, flag.help));
            if flag.name == "feature-gates" {
                let lines = gates::lines().into_iter().map(|gate| format!("    {gate}\n"));
                text.extend(lines);
            }
        }
    }
    text
}
