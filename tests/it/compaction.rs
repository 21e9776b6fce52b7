//! Auto-compaction as a user sees it: a revision that is too old is refused, one that is kept is read.

use std::time::{Duration, Instant};

use super::etcdctl::{Etcdctl, Release};
use super::process::{Kind, Server, scratch};

const PATIENCE: Duration = Duration::from_secs(20);
const TOO_OLD: &str = "etcdserver: mvcc: required revision has been compacted";

#[test]
fn what_is_older_than_the_retention_is_forgotten() {
    let dir = scratch();
    let mut server =
        Server::single(Kind::subject(), dir.path(), &["--auto-compaction-retention=1s"]);
    server.start();
    let etcdctl = Etcdctl::new(&Release::real(), &[server.endpoint()]);
    for value in ["old", "new"] {
        let put = etcdctl.run(&["put", "key", value], "");
        assert_eq!(put.code, Some(0), "{}", put.stderr);
    }
    let began = Instant::now();
    loop {
        let read = etcdctl.run(&["get", "--rev=2", "--print-value-only", "key"], "");
        if read.stderr.contains(TOO_OLD) {
            break;
        }
        assert_eq!(read.stdout.trim(), "old", "{}", read.stderr);
        assert!(began.elapsed() < PATIENCE, "revision 2 is still there");
    }
    assert!(began.elapsed() > Duration::from_millis(500), "revision 2 was forgotten too early");
    let read = etcdctl.run(&["get", "--print-value-only", "key"], "");
    assert_eq!(read.stdout.trim(), "new");
}
