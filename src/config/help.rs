//! The texts of `--help`, `--version` and of a command line that does not parse.

use super::flags::{self, Group, Kind};

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
";

/// `--version`: ours first, then the lines that etcd prints.
pub fn version() -> String {
    format!(
        "quorate Version: {}\netcd Version: {ETCD_VERSION}\nGit SHA: {}\nOS/Arch: {}/{}\n",
        env!("CARGO_PKG_VERSION"),
        option_env!("QUORATE_GIT_SHA").unwrap_or("unknown"),
        std::env::consts::OS,
        std::env::consts::ARCH,
    )
}

/// `--help`: every flag served, by group, and the names of those that are not.
pub fn flags() -> String {
    let groups = [
        (Group::Member, "Member"),
        (Group::Clustering, "Clustering"),
        (Group::Security, "Security"),
        (Group::Logging, "Logging"),
        (Group::Features, "Features"),
        (Group::Auth, "Auth"),
        (Group::Meta, "Meta"),
    ];
    let mut text =
        format!("{USAGE}\nEvery flag can be given as a variable: --some-flag is ETCD_SOME_FLAG.\n");
    for (group, title) in groups {
        text.push_str(&format!("\n{title}:\n"));
        for flag in flags::all().filter(|flag| flag.group == group) {
            text.push_str(&format!("  --{} '{}'\n    {}\n", flag.name, flag.default, flag.help));
        }
    }
    text.push_str("\nKnown to etcd, not served by this version:\n");
    let not_served = flags::all().filter(|flag| matches!(flag.kind, Kind::NotServed { .. }));
    for flag in not_served {
        text.push_str(&format!("  --{}\n", flag.name));
    }
    text
}
