//! The table of commands and flags: etcdutl 3.7's, then those of its own.

use crate::tool::table::{
    Flag, Kind, SHELLS, Spec, Tool, WRITE_OUT, flag, group, leaf, one_of, switch, taking,
};
use Kind::{Duration, Int, Text, Uint};

/// The tool.
pub const TOOL: Tool = Tool {
    names: ["quorateutl", "etcdutl"],
    about: "An administrative command line tool for files at rest.",
    flags: GLOBAL,
    commands: COMMANDS,
    variables: "",
    other_variables: &[],
};

const GLOBAL: &[Flag] = &[
    flag(
        "timeout",
        Duration,
        "10s",
        "time to wait for the lock of a database, 0 to wait without an end",
    ),
    WRITE_OUT,
];

const DATA_DIR: Flag =
    flag("data-dir", Text, "", "Path of the data directory, which no member uses");

const FROM: Flag =
    flag("from", Text, "", "Path of the data directory to read, which no member uses");
const TO: Flag = flag("to", Text, "", "Path of the data directory to make");

#[rustfmt::skip]
const COMMANDS: &[Spec] = &[
    group("snapshot", "Manages etcd node snapshots", &[], &[
        leaf("status", "<filename>", "Gets backend snapshot status of a given file", &[]),
        leaf("restore", "<filename> --data-dir {output dir} [options]", "Restores an etcd member snapshot to a data directory", &[
            flag("data-dir", Text, "", "Path to the output data directory (NAME.etcd)"),
            flag("wal-dir", Text, "", "Path to the log directory (member/wal in --data-dir)"),
            flag("initial-cluster", Text, "default=http://localhost:2380", "The members of the new cluster"),
            flag("initial-cluster-token", Text, "etcd-cluster", "What distinguishes clusters of the same members"),
            flag("initial-advertise-peer-urls", Text, "http://localhost:2380", "Peer URLs of this member"),
            flag("name", Text, "default", "Human-readable name of this member"),
            switch("skip-hash-check", "Take a file that has no hash (one copied from a data directory)"),
            flag("initial-memory-map-size", Uint, "10737418240", "Accepted, and without effect: nothing is mapped"),
            flag("bump-revision", Uint, "0", "How much to increase the latest revision after restore"),
            switch("mark-compacted", "Mark the latest revision after restore as compacted (required with --bump-revision, disallowed otherwise)"),
        ]),
    ]),
    leaf("hashkv", "<filename>", "Prints the KV history hash of a given file", &[
        flag("rev", Int, "0", "maximum revision to hash (default: latest revision)"),
    ]),
    leaf("defrag", "", "Defragments the storage of a data directory", &[DATA_DIR]),
    leaf("migrate", "", "Migrates a data directory to the schema of another etcd version", &[
        DATA_DIR,
        one_of(flag("target-version", Text, "", "Target etcd version, at least 3.5, as \"X.Y\""), &["3.5", "3.6", "3.7"]),
        switch("force", "Override the storage version even where migration fails. Not recommended."),
    ]),
    // Not in etcdutl.
    leaf("import", "--from DIR --to DIR", "Makes the data directory of a stopped etcd member one of Quorate's (not in etcdutl)", &[
        FROM, TO, flag("wal-dir", Text, "", "Path of etcd's log (member/wal in --from)"),
    ]),
    leaf("export", "--from DIR --to DIR", "Makes the data directory of a stopped member one of etcd's (not in etcdutl)", &[
        FROM, TO, flag("wal-dir", Text, "", "Path of the log (member/wal in --from)"),
        flag("cluster-version", Text, "", "For an older etcd, when all members are exported with it, as \"X.Y\""),
    ]),
    leaf("verify", "<data-dir>", "Verifies that log, state and all that is derived from it agree (not in etcdutl)", &[
        flag("wal-dir", Text, "", "Path of the log (member/wal in the data directory)"),
    ]),
    group("wal", "Reads the log of a member (not in etcdutl)", &[], &[
        leaf("dump", "<data-dir or log-dir>", "Prints the records of the log", &[
            flag("from", Uint, "0", "Only entries from this index on"),
            flag("limit", Uint, "0", "Only so many entries (0: all)"),
        ]),
    ]),
    taking(leaf("completion", "[bash|zsh|fish|powershell]", "Generate completion script", &[]), &[(0, SHELLS)]),
    leaf("manual", "[command [subcommand]]", "Prints a manual page, for man (not in etcdutl)", &[]),
    leaf("version", "", "Prints the version of etcdutl", &[]),
];
