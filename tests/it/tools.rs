//! Our tools as processes: what comes to them besides a server's answers.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::process::{Server, etcd_program};

const PATIENCE: Duration = Duration::from_secs(30);

/// Made text of, a key would be another key, and a directory an empty one.
#[test]
fn arguments_that_are_not_text_are_refused() {
    let bytes = OsStr::from_bytes(b"--data-dir=/tmp/\xff");
    for (program, words, code) in [
        (env!("CARGO_BIN_EXE_quoratectl"), &[OsStr::new("put"), bytes, bytes][..], 128),
        (env!("CARGO_BIN_EXE_quorateutl"), &[OsStr::new("defrag"), bytes], 128),
        (env!("CARGO_BIN_EXE_quorate"), &[bytes], 2),
    ] {
        let output = Command::new(program).args(words).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{program}: {text}");
        assert!(text.contains(r#""--data-dir=/tmp/\xFF" is not UTF-8"#), "{program}: {text}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    let output = command.env("ETCD_DATA_DIR", bytes).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
}

/// Of etcd's tool, too. The programs that it runs have come and gone then.
#[test]
fn a_watch_that_runs_programs_ends_at_sigterm() {
    let (_dir, server) = Server::serving();
    let endpoints = format!("--endpoints={}", server.endpoint());
    let etcdctl = etcd_program().with_file_name("etcdctl");
    for tool in [etcdctl, PathBuf::from(env!("CARGO_BIN_EXE_quoratectl"))] {
        let put = Command::new(&tool).args([&endpoints, "put", "k", "v"]).output();
        assert!(put.expect("it runs").status.success());
        let mut watch = Command::new(&tool)
            .args([&endpoints, "watch", "k", "--rev=2", "--", "echo", "the program ran"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut lines = BufReader::new(watch.stdout.take().expect("it is piped")).lines();
        assert!(lines.any(|line| line.expect("text") == "the program ran"));
        let pid = watch.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("kill(1) is there");
        assert!(sent.success());
        let (ended, end) = mpsc::channel();
        thread::spawn(move || ended.send(watch.wait()));
        let status = end.recv_timeout(PATIENCE);
        // None of it is left behind.
        let _ = Command::new("kill").args(["-KILL", &pid]).stderr(Stdio::null()).status();
        let status = status.expect("it ends").expect("it was started");
        assert_eq!(status.signal(), Some(15), "{}: {status}", tool.display());
    }
}
