//! How often a start waits for the disk, counted from outside: on a disk that stalls each sync is a wait, and
//! a member that starts late is one that a cluster misses.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::process::{Kind, Server, loudly, scratch};

const CALLS: &str = "fsync,fdatasync,sync_file_range,syncfs,msync";

/// The most syncs of a first start and of a later one; etcd makes 25 and 17.
const FIRST_MAX: usize = 25;
const LATER_MAX: usize = 17;
/// The most in a row of one file: none is written that often before a member serves.
const ROW_MAX: usize = 8;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_start_does_not_sync_more_often_than_etcds() {
    let can_trace = Command::new("strace").args(["-D", "-o", "/dev/null", "true"]).output();
    if !can_trace.is_ok_and(|output| output.status.success()) {
        loudly("SKIPPED: the syncs of a start: there is no strace that may trace");
        return;
    }
    let dir = scratch();
    let traced = dir.path().join("calls");
    let mut server = Server::single(Kind::subject(), dir.path(), &[]);
    let file = traced.display().to_string();
    let calls = format!("trace={CALLS}");
    server.run_under(&[
        "strace",
        "-D",
        "-f",
        "-q",
        "-y",
        "-e",
        &calls,
        "-e",
        "signal=kill",
        "-o",
        &file,
    ]);
    for (start, max) in [("first", FIRST_MAX), ("later", LATER_MAX), ("later", LATER_MAX)] {
        server.start();
        server.kill();
        let synced = synced(&traced, dir.path());
        assert!(synced.len() <= max, "{start} start: {} syncs\n{synced:#?}", synced.len());
        assert!(!synced.is_empty(), "nothing was traced");
        let row = synced.chunk_by(|a, b| a == b).map(<[String]>::len).max();
        assert!(row <= Some(ROW_MAX), "{start} start: {row:?} in a row\n{synced:#?}");
    }
}

/// The files below `dir` that were synced, in order. A first start syncs the folders above it, too, each
/// once.
fn synced(traced: &Path, dir: &Path) -> Vec<String> {
    let read = || std::fs::read_to_string(traced).expect("the calls were written");
    // The tracer ends after the traced process.
    let deadline = Instant::now() + PATIENCE;
    while !read().lines().any(|line| line.contains("+++ killed by SIGKILL +++")) {
        assert!(Instant::now() < deadline, "the end is missing: {}", read());
        std::thread::yield_now();
    }
    let text = read();
    // `PID fsync(7</path>) = 0`, in two lines where another thread came between. A range of nothing shows
    // whether the file system has such calls.
    let begun =
        text.lines().filter(|line| !line.contains("resumed>") && !line.contains(">, 0, 0, 0"));
    let files =
        begun.filter_map(|line| Some(line.split_once('<')?.1.split_once('>')?.0.to_owned()));
    files.filter(|file| Path::new(file).starts_with(dir)).collect()
}
