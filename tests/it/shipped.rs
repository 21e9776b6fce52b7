//! The programs under test are those that are shipped: without planted faults, for which the simulator
//! compiles the library once more, and with data that other users of the machine cannot read.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use quorate::plant::ALL;

use super::curl::Curl;
use super::process::{Kind, Server, scratch};

#[test]
fn the_tested_programs_contain_no_planted_fault() {
    for (path, flag) in [
        (env!("CARGO_BIN_EXE_quorate"), "initial-cluster-token"),
        (env!("CARGO_BIN_EXE_quoratectl"), "command-timeout"),
        (env!("CARGO_BIN_EXE_quorateutl"), "initial-cluster-token"),
    ] {
        let program = fs::read(path).expect("it was built for this test");
        let planted = ALL.iter().map(|fault| fault.name);
        assert_eq!(named(&program, planted), [""; 0], "{path}");
        // The search finds what is there.
        assert_eq!(named(&program, [flag].into_iter()), [flag], "{path}");
    }
}

/// Those of `names`, each of several words with `-` between them, that the program contains.
fn named<'a>(program: &[u8], names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let names: Vec<(usize, &str)> =
        names.map(|name| (name.find('-').expect("several words"), name)).collect();
    let mut found = Vec::new();
    for at in (0..program.len()).filter(|at| program[*at] == b'-') {
        let here = |(dash, name): &&(usize, &str)| {
            at >= *dash && program[at - dash..].starts_with(name.as_bytes())
        };
        found.extend(names.iter().filter(here).map(|(_, name)| *name));
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn others_cannot_read_the_data_of_a_member() {
    let dir = scratch();
    // Made by an operator, for example as a volume.
    let data_dir = dir.path().join("m0");
    fs::create_dir(&data_dir).expect("a scratch directory");
    fs::set_permissions(&data_dir, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut server = Server::single(Kind::Quorate, dir.path(), &[]);
    assert_eq!(server.data_dir, data_dir);
    server.start();
    // Below a folder that others may not pass, the modes of RocksDB's files do not matter.
    let member = data_dir.join("member");
    let own = [member.clone(), member.join("wal"), member.join("snap"), member.join("lock")];
    let logs = fs::read_dir(member.join("wal")).expect("a folder").flatten();
    for path in own.into_iter().chain(logs.map(|entry| entry.path())) {
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
    }
}

#[test]
fn passwords_are_neither_logged_nor_shown() {
    let dir = scratch();
    let flags = ["--discovery-user=ann:wonder", "--discovery-password=wonder"];
    let mut server = Server::single(Kind::Quorate, dir.path(), &flags);
    server.start();
    let shown = Curl::new(server.client_url()).run(&["/debug/vars"]).stdout;
    assert!(shown.contains("--discovery-user=ann:***"), "{shown}");
    let log = server.output();
    assert!(log.contains("--discovery-password=***"), "{log}");
    assert!(!shown.contains("wonder") && !log.contains("wonder"), "{shown}{log}");
}
