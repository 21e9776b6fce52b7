//! What must go wrong, and how: the text, the exit code, and that a later start finds everything. What
//! requests are refused with is in `tests/conformance`.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use quorate_proto::etcdserverpb::RangeRequest;
use tonic::Status;

use super::client::Client;
use super::crash::runtime;
use super::process::{Cluster, Kind, Server, etcd_program, loudly, scratch};

/// Flags, variables, exit code and what must be on standard error, of a real etcd too.
type CommandLine<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], i32, &'a str);

const COMMAND_LINES: &[CommandLine] = &[
    (&["--nonsense"], &[], 2, "flag provided but not defined: -nonsense"),
    (
        &["--election-timeout=x"],
        &[],
        2,
        "invalid value \"x\" for flag -election-timeout: parse error",
    ),
    (&["--pre-vote=x"], &[], 2, "invalid boolean value \"x\" for -pre-vote: parse error"),
    (&["--max-txn-ops"], &[], 2, "flag needs an argument: -max-txn-ops"),
    (
        &["--listen-client-urls=127.0.0.1:1"],
        &[],
        2,
        "invalid value \"127.0.0.1:1\" for flag -listen-client-urls: parse \"127.0.0.1:1\": first path \
         segment in URL cannot contain colon",
    ),
    (&["--listen-client-urls=http://127.0.0.1"], &[], 2, "URL address does not have the form"),
    (
        &["--listen-client-urls=ftp://127.0.0.1:1"],
        &[],
        2,
        "URL scheme must be http, https, unix, or unixs",
    ),
    (
        &["--initial-cluster-state=old"],
        &[],
        2,
        "invalid value \"old\" for flag -initial-cluster-state",
    ),
    (
        &["--heartbeat-interval=100", "--election-timeout=200"],
        &[],
        1,
        "should be at least as 5 times as",
    ),
    (&["--election-timeout=60000"], &[], 1, "is too long, and should be set less than 50000ms"),
    (
        &["--name=m0"],
        &[("ETCD_NAME", "other")],
        1,
        "is shadowed by corresponding command-line flag (either unset environment variable or \
         disable flag)",
    ),
    (&["stray"], &[], 1, "is not a valid flag"),
    (&["--config-file=nope.yml"], &[], 1, "open nope.yml: no such file or directory"),
    (&[], &[("ETCD_CONFIG_FILE", "nope.yml")], 1, "open nope.yml: no such file or directory"),
    (&[], &[("ETCD_MAX_TXN_OPS", "x")], 1, "for ETCD_MAX_TXN_OPS: parse error"),
    (
        &["--discovery-fallback=x"],
        &[],
        2,
        "invalid value \"x\" for flag -discovery-fallback: invalid value",
    ),
    (&["--discovery-srv=example.com"], &[], 1, "multiple discovery or bootstrap flags are set"),
    (&["--auto-compaction-mode=x"], &[], 1, "unknown auto-compaction-mode"),
    (
        &["--auto-compaction-retention=1d"],
        &[],
        1,
        "error parsing CompactionRetention: time: unknown unit \\\"d\\\" in duration \\\"1d\\\"",
    ),
    (
        &["--auto-compaction-retention=1.5"],
        &[],
        1,
        "error parsing CompactionRetention: time: missing unit in duration \\\"1.5\\\"",
    ),
    (
        &[
            "--initial-cluster=m0=http://127.0.0.1:1,m0=http://127.0.0.1:1",
            "--initial-advertise-peer-urls=http://127.0.0.1:1",
        ],
        &[],
        1,
        "failed to resolve http://127.0.0.1:1 to match --initial-cluster=m0=http://127.0.0.1:1 \
         (len([\\\"http://127.0.0.1:1\\\"]) != len([\\\"http://127.0.0.1:1\\\" \\\"http://127.0.0.1:1\\\"]))",
    ),
    (
        &[
            "--initial-cluster=m0=http://10.0.0.1:1",
            "--initial-advertise-peer-urls=http://127.0.0.1:1",
        ],
        &[],
        1,
        "--initial-cluster has m0=http://10.0.0.1:1 but missing from \
         --initial-advertise-peer-urls=http://127.0.0.1:1 \
         (resolved urls: \\\"http://127.0.0.1:1\\\" != \\\"http://10.0.0.1:1\\\")",
    ),
    (&["--logger=x"], &[], 1, "unknown logger option"),
    (&["--backend-batch-interval=x"], &[], 2, "for flag -backend-batch-interval: parse error"),
    (&["--max-snapshots=-1"], &[], 2, "invalid value \"-1\" for flag -max-snapshots: parse error"),
    (&["--initial-cluster=other=http://127.0.0.1:1"], &[], 1, "couldn't find local name"),
];

#[test]
fn command_lines_are_refused_as_etcd_does() {
    let reference = etcd_program();
    let mut wrong = String::new();
    for kind in [Kind::Etcd(reference), Kind::subject()] {
        for (flags, envs, code, text) in COMMAND_LINES {
            let dir = scratch();
            let mut server = Server::single(kind.clone(), dir.path(), flags);
            let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            server.envs = envs.iter().map(own).collect();
            server.spawn();
            let status = server.wait_exit();
            if status.code() != Some(*code) || !server.output().contains(text) {
                let output = server.output();
                wrong += &format!("{kind:?} {flags:?} {envs:?}: {status}\n{output:.600}\n\n");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_data_directory_that_cannot_be_is_named() {
    let dir = scratch();
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").expect("the scratch directory is writable");
    let mut server = Server::single(Kind::subject(), dir.path(), &[]);
    server.data_dir = file.join("below");
    server.spawn();
    let status = server.wait_exit();
    assert_eq!(status.code(), Some(1), "{}", server.output());
    if server.kind != Kind::Quorate {
        return;
    }
    let below = format!("open {}: not a directory", file.join("below").display());
    let output = server.output();
    assert!(output.contains(&format!("failed to list data directory: {below}")), "{output}");
    let mut server = Server::single(Kind::Quorate, dir.path(), &[]);
    server.data_dir = file.clone();
    server.spawn();
    assert_eq!(server.wait_exit().code(), Some(1), "{}", server.output());
    let itself = format!("readdirent {}: not a directory", file.display());
    let output = server.output();
    assert!(output.contains(&format!("failed to list data directory: {itself}")), "{output}");
}

#[test]
fn a_data_directory_serves_one_process() {
    let dir = scratch();
    let mut first = Server::single(Kind::subject(), dir.path(), &[]);
    first.start();
    let mut second = Server::single(Kind::subject(), dir.path(), &[]);
    second.spawn();
    match second.kind {
        Kind::Quorate => {
            assert_eq!(second.wait_exit().code(), Some(1), "{}", second.output());
            assert!(second.output().contains("is in use by another process"));
        }
        // etcd waits for the other to go.
        Kind::Etcd(_) => {
            second.wait_log("another etcd process is using");
            second.kill();
        }
    }
    runtime().block_on(async {
        let mut client = Client::connect(&first.endpoint()).await;
        client.put(b"key", b"value").await.expect("the first one is not disturbed");
    });
}

#[test]
fn a_stop_and_a_kill_keep_everything() {
    let dir = scratch();
    let mut server = Server::single(Kind::subject(), dir.path(), &[]);
    runtime().block_on(async {
        server.start();
        let mut written = Written::default();
        written.put(&server, 50, 10).await.expect("a server that is ready takes writes");
        if server.terminate().code() != Some(0) {
            assert!(matches!(server.kind, Kind::Etcd(_)), "{}", server.output());
        }
        server.start();
        written.check(&server).await;
        written.put(&server, 50, 10).await.expect("a server that is ready takes writes");
        server.restart();
        written.check(&server).await;
    });
}

/// Members whose tokens differ are of different clusters, however well their URLs match.
#[test]
fn members_of_other_clusters_are_kept_out() {
    let dir = scratch();
    let mut cluster = Cluster::new(&Kind::subject(), dir.path(), 2, &[]);
    for (i, server) in cluster.servers.iter_mut().enumerate() {
        server.flags.push(format!("--initial-cluster-token=token-{i}"));
        server.spawn();
    }
    for server in &mut cluster.servers {
        server.wait_log("cluster ID mismatch");
        assert!(!server.has_logged("ready to serve"), "{} serves", server.name);
    }
}

/// A damaged spot that was durable once is found, named and not repaired by forgetting.
#[test]
fn a_damaged_log_is_refused_and_left_alone() {
    let dir = scratch();
    let mut server = Server::single(Kind::subject(), dir.path(), &[]);
    runtime().block_on(async {
        server.start();
        let mut written = Written::default();
        // More than one unsynced write can explain.
        written.put(&server, 120, 100_000).await.expect("a server that is ready takes writes");
        server.kill();
        let wal = server.data_dir.join("member/wal");
        let before = contents(&wal);
        let (path, offset) = flip_in_the_middle(&wal, &before);
        let damaged = contents(&wal);
        server.spawn();
        assert!(!server.wait_exit().success(), "{}", server.output());
        if server.kind == Kind::Quorate {
            let output = server.output();
            assert!(
                output.contains(&format!("{} is damaged at offset", path.display())),
                "{output}"
            );
            assert!(contents(&wal) == damaged, "the damaged log was changed");
        }
        flip(&path, offset);
        server.start();
        written.check(&server).await;
    });
}

fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = std::fs::read_dir(dir).expect("the log's directory is there").flatten();
    let files = files.map(|file| file.path()).filter(|p| p.extension().is_some_and(|e| e == "wal"));
    files.map(|path| (path.clone(), std::fs::read(path).expect("a log can be read"))).collect()
}

/// Damages the first segment half way to where its records end.
fn flip_in_the_middle(wal: &Path, contents: &BTreeMap<PathBuf, Vec<u8>>) -> (PathBuf, u64) {
    let (path, bytes) = contents.iter().next().unwrap_or_else(|| panic!("no log in {wal:?}"));
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("a log is not all zeroes");
    let offset = (end / 2) as u64;
    flip(path, offset);
    (path.clone(), offset)
}

fn flip(path: &Path, offset: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path);
    let file = file.expect("the log can be opened");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("the offset is inside");
    file.write_all_at(&[byte[0] ^ 0x55], offset).expect("the disk takes a byte");
}

/// A server on a full disk logs it and ends; with room again it has everything it acknowledged.
#[test]
fn a_full_disk_loses_nothing() {
    let dir = scratch();
    let Some(disk) = SmallDisk::mount(dir.path(), "200m") else { return };
    let mut server = Server::single(Kind::subject(), dir.path(), &[]);
    runtime().block_on(async {
        server.start();
        let mut written = Written::default();
        let refused = written.put(&server, 10_000, 200_000).await;
        let refused = refused.expect_err("2 GB do not fit");
        assert!(!server.wait_exit().success(), "{refused}: {}", server.output());
        let output = server.output().to_lowercase();
        assert!(output.contains("no space left on device"), "{output}");
        disk.grow("2g");
        server.start();
        written.check(&server).await;
        written.put(&server, 10, 1000).await.expect("there is room again");
    });
}

/// A limit of a file's size is an error that names the file, and no signal that ends the process without a
/// word; without the limit everything that was acknowledged is there.
#[test]
fn a_limit_of_file_sizes_is_an_error_with_its_file() {
    let dir = scratch();
    let mut server = Server::single(Kind::subject(), dir.path(), &[]);
    let limited = |blocks: &'static str| {
        let script = "ulimit -f \"$1\" && shift && exec \"$@\"";
        ["sh", "-c", script, "sh", blocks]
    };
    runtime().block_on(async {
        // 1 MB, in blocks of 512 bytes: less than the log's first file.
        server.run_under(&limited("2048"));
        server.spawn();
        refused_for_size(&mut server, "tmp");
        server.run_under(&[]);
        server.start();
        let mut written = Written::default();
        written.put(&server, 10, 1000).await.expect("a server that is ready takes writes");
        server.terminate();
        // A little more than a file of the log is allocated: what follows its last record does not fit.
        server.run_under(&limited("125002"));
        server.start();
        let refused = written.put(&server, 200, 1_400_000).await;
        refused.expect_err("the log's first file is full");
        refused_for_size(&mut server, "member/wal/");
        server.run_under(&[]);
        server.start();
        written.check(&server).await;
        written.put(&server, 10, 1000).await.expect("there is no limit any more");
    });
}

fn refused_for_size(server: &mut Server, file: &str) {
    let status = server.wait_exit();
    let output = server.output();
    assert_eq!(status.code(), Some(1), "{status}: {output}");
    let line = output.lines().find(|line| line.to_lowercase().contains("file too large"));
    let line = line.unwrap_or_else(|| panic!("the reason is missing: {output}"));
    assert!(line.contains(file), "{line}");
}

/// A file system in memory, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, loudly, without the right to mount.
    fn mount(at: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "it"]).arg(at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            _ => {
                loudly("SKIPPED: the full disk: mounting a small one takes root");
                None
            }
        }
    }

    fn grow(&self, size: &str) {
        let options = format!("remount,size={size}");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.0).status();
        assert!(status.is_ok_and(|status| status.success()), "remounting");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a test that failed may still have its server there.
        let status = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(status.is_ok_and(|status| status.success()), "unmounting {:?}", self.0);
    }
}

/// Keys that a server has acknowledged.
#[derive(Default)]
struct Written {
    sizes: Vec<usize>,
}

impl Written {
    /// Puts until all are there or one is refused.
    async fn put(&mut self, server: &Server, keys: usize, bytes: usize) -> Result<(), Status> {
        let mut client = Client::connect(&server.endpoint()).await;
        for _ in 0..keys {
            let key = format!("written/{:06}", self.sizes.len());
            client.put(key.as_bytes(), &vec![b'x'; bytes]).await?;
            self.sizes.push(bytes);
        }
        Ok(())
    }

    async fn check(&self, server: &Server) {
        let mut client = Client::connect(&server.endpoint()).await;
        for (i, size) in self.sizes.iter().enumerate() {
            let key = format!("written/{i:06}");
            let request = RangeRequest { key: key.clone().into(), ..Default::default() };
            let answer = client.range(request).await.expect("a server that is ready reads");
            let found = answer.kvs.first().map(|kv| kv.value.len());
            assert_eq!(found, Some(*size), "{key} was acknowledged");
        }
    }
}
