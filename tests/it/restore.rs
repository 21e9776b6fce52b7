//! Backups that become clusters, in both directions: what a real etcd has saved is restored by our tool and
//! served by us, what we have saved is restored by a real etcdctl and served by a real etcd. Read with
//! the real etcdctl on both sides.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::etcdctl::{Etcdctl, Release};
use super::process::{Cluster, Kind, Server, etcd_program, scratch};

#[test]
fn etcds_backup_is_served_by_us() {
    let dir = scratch();
    let backup = dir.path().join("backup");
    let told = shown_after_a_life(&Kind::Etcd(etcd_program()), dir.path(), &backup);
    let mut server = Server::single(Kind::Quorate, &dir.path().join("new"), &[]);
    restore(&quorateutl(), &server, &member(&server), &backup, &[]);
    server.start();
    assert_eq!(told, tell(&ctl(&server)));
    for_good(&mut server);
}

#[test]
fn our_backup_is_served_by_etcd() {
    let dir = scratch();
    let backup = dir.path().join("backup");
    let told = shown_after_a_life(&Kind::Quorate, dir.path(), &backup);
    let etcdutl = Release::real().etcdutl;
    let mut server = Server::single(Kind::Etcd(etcd_program()), &dir.path().join("new"), &[]);
    restore(&etcdutl, &server, &member(&server), &backup, &[]);
    server.start();
    assert_eq!(told, tell(&ctl(&server)));
    for_good(&mut server);
}

/// The ids of members and cluster are those that etcd's tool computes.
#[test]
fn three_members_begin_from_one_backup() {
    let dir = scratch();
    let backup = dir.path().join("backup");
    let told = shown_after_a_life(&Kind::Quorate, dir.path(), &backup);
    let mut cluster = Cluster::new(&Kind::Quorate, &dir.path().join("new"), 3, &[]);
    let members: Vec<_> = cluster.servers.iter().map(member).collect();
    for server in &cluster.servers {
        restore(&quorateutl(), server, &members.join(","), &backup, &["--initial-cluster-token=t"]);
    }
    cluster.start();
    for server in &cluster.servers {
        assert_eq!(told, tell(&ctl(server)), "{}", server.name);
    }
    let shown = ctl(&cluster.servers[0]).run(&["member", "list", "-w", "json"], "").stdout;
    drop(cluster);

    let mut etcd = Cluster::new(&Kind::Quorate, &dir.path().join("etcd"), 3, &[]);
    for (server, name) in etcd.servers.iter_mut().zip(&members) {
        server.peer_port =
            name.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        server.kind = Kind::Etcd(etcd_program());
    }
    let etcdutl = Release::real().etcdutl;
    let log = restore(
        &etcdutl,
        &etcd.servers[0],
        &members.join(","),
        &backup,
        &["--initial-cluster-token=t"],
    );
    let ids = shown.split("\"ID\":").skip(1).chain(shown.split("\"cluster_id\":").skip(1));
    let ids: Vec<_> = ids.map(digits).collect();
    assert_eq!(ids.len(), 4, "{shown}");
    for id in ids {
        let id = format!("{:x}", id.parse::<u64>().expect("an id"));
        assert!(log.contains(&id), "{id} is not in {log}");
    }
}

#[test]
fn revisions_that_clients_may_have_seen_are_passed_over() {
    let dir = scratch();
    let backup = dir.path().join("backup");
    let told = shown_after_a_life(&Kind::Quorate, dir.path(), &backup);
    let mut server = Server::single(Kind::Quorate, &dir.path().join("new"), &[]);
    let flags = ["--bump-revision=1000000", "--mark-compacted"];
    restore(&quorateutl(), &server, &member(&server), &backup, &flags);
    server.start();
    let ctl = ctl(&server);
    let now = tell(&ctl);
    assert_eq!(told.keys, now.keys);
    assert_eq!((told.leases, told.users), (now.leases, now.users));
    assert_eq!(now.revision, told.revision + 1_000_000);
    let before = format!("--rev={}", told.revision);
    let past = ctl.run(&["get", "a", &before], "");
    assert!(past.stderr.contains("required revision has been compacted"), "{past:?}");
    let count = ctl.run(&["get", "", "--prefix", "--limit=1", "-w", "fields"], "").stdout;
    assert!(count.contains(&format!("\"Count\" : {}", told.keys.lines().count() / 2)), "{count}");
    for_good(&mut server);
}

/// What a client sees of a state.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    revision: i64,
    keys: String,
    leases: String,
    users: String,
    /// Everything about one key.
    record: Vec<String>,
}

/// Starts a member, lets it live, saves a backup and returns what was to be seen.
fn shown_after_a_life(kind: &Kind, dir: &Path, backup: &Path) -> Told {
    let mut server = Server::single(kind.clone(), &dir.join("old"), &[]);
    server.start();
    let told = live(&ctl(&server));
    let saved = ctl(&server).run(&["snapshot", "save", &backup.to_string_lossy()], "");
    assert_eq!(saved.code, Some(0), "{saved:?}");
    told
}

/// Changes of every kind, with a compaction among them.
fn live(ctl: &Etcdctl) -> Told {
    let done = |line: &str| {
        let output = ctl.run(&line.split(' ').collect::<Vec<_>>(), "");
        assert_eq!(output.code, Some(0), "{line}: {output:?}");
        output.stdout
    };
    done("role add reader");
    done("role grant-permission reader read key000");
    done("user add ada:secret");
    done("user grant-role ada reader");
    let granted = done("lease grant 3600");
    let lease = granted.split(' ').nth(1).expect("lease ID granted");
    for number in 0..300 {
        done(&format!("put key{:03} {number}", number % 100));
    }
    done(&format!("put --lease={lease} a leased"));
    done("del key007");
    done("compaction 200");
    done("put key008 last");
    let told = tell(ctl);
    assert!(told.keys.lines().count() == 200 && told.leases.contains(lease), "{told:?}");
    told
}

/// A member is etcd, then ours, then etcd again, without a peer or a backup: its directory is brought over.
#[test]
fn a_directory_is_brought_in_and_back() {
    let dir = scratch();
    let mut server = Server::single(Kind::Etcd(etcd_program()), &dir.path().join("etcd"), &[]);
    server.start();
    let told = live(&ctl(&server));
    let hash = hash_kv(&ctl(&server));
    let members = ctl(&server).run(&["member", "list"], "").stdout;
    // What is in the log only is brought over, too.
    server.kill();
    let etcds = server.data_dir.clone();

    let before = contents(&etcds);
    let mut refused = Server::single(Kind::Quorate, &dir.path().join("refused"), &[]);
    refused.data_dir = etcds.clone();
    refused.spawn();
    assert_eq!(refused.wait_exit().code(), Some(1));
    let why = format!("\\\"quorateutl import --from {}", etcds.display());
    assert!(refused.has_logged(&why), "{}", refused.output());
    assert_eq!(before, contents(&etcds), "nothing is changed");

    let (ours, back) = (dir.path().join("ours"), dir.path().join("back"));
    bring("import", &etcds, &ours);
    assert_eq!(before, contents(&etcds), "nothing is changed");
    (server.kind, server.data_dir) = (Kind::Quorate, ours.clone());
    server.start();
    assert_eq!(told, tell(&ctl(&server)));
    assert_eq!(hash, hash_kv(&ctl(&server)));
    assert_eq!(members, ctl(&server).run(&["member", "list"], "").stdout);
    for_good(&mut server);
    let (told, hash) = (tell(&ctl(&server)), hash_kv(&ctl(&server)));
    server.kill();

    bring("export", &ours, &back);
    (server.kind, server.data_dir) = (Kind::Etcd(etcd_program()), back);
    server.start();
    assert_eq!(told, tell(&ctl(&server)));
    assert_eq!(hash, hash_kv(&ctl(&server)));
    assert_eq!(members, ctl(&server).run(&["member", "list"], "").stdout);
    for_good(&mut server);
}

/// Also one that `etcdutl` has restored, on which no etcd ever started.
#[test]
fn a_directory_that_etcdutl_restored_is_brought_in() {
    let dir = scratch();
    let backup = dir.path().join("backup");
    let told = shown_after_a_life(&Kind::Etcd(etcd_program()), dir.path(), &backup);
    let mut server = Server::single(Kind::Quorate, &dir.path().join("new"), &[]);
    restore(&Release::real().etcdutl, &server, &member(&server), &backup, &[]);
    let ours = dir.path().join("ours");
    bring("import", &server.data_dir, &ours);
    server.data_dir = ours;
    server.start();
    assert_eq!(told, tell(&ctl(&server)));
    for_good(&mut server);
}

fn hash_kv(ctl: &Etcdctl) -> String {
    let shown = ctl.run(&["endpoint", "hashkv", "-w", "json"], "").stdout;
    let hash = shown.split("\"hash\":").nth(1).map(digits).expect("a hash");
    let compacted = shown.split("\"compact_revision\":").nth(1).map(digits);
    format!("{hash} after {compacted:?}")
}

/// Names, sizes and times of all files below `dir`.
fn contents(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let entry = entry.expect("an entry");
        let about = entry.metadata().expect("its metadata");
        if about.is_dir() {
            found.extend(contents(&entry.path()));
        } else {
            let (path, time) = (entry.path(), about.modified().expect("a time"));
            found.push(format!("{} {} {time:?}", path.display(), about.len()));
        }
    }
    found.sort();
    found
}

/// Brings a directory over with our tool.
fn bring(command: &str, from: &Path, to: &Path) {
    let mut tool = Command::new(quorateutl());
    let output = tool.arg(command).arg("--from").arg(from).arg("--to").arg(to).output();
    let output = output.expect("our tool starts");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command}: {log}");
}

fn tell(ctl: &Etcdctl) -> Told {
    let run = |line: &str| {
        let output = ctl.run(&line.split(' ').collect::<Vec<_>>(), "");
        assert_eq!(output.code, Some(0), "{line}: {output:?}");
        output.stdout
    };
    let all = ctl.run(&["get", "", "--prefix"], "");
    let one = run("get a -w json");
    let revision = one.split("\"revision\":").nth(1).map(digits).expect("a revision");
    let lines = run("get key008 -w fields");
    Told {
        revision: revision.parse().expect("a number"),
        keys: all.stdout,
        leases: run("lease list"),
        users: run("user get ada") + &run("role get reader"),
        record: lines
            .lines()
            .filter(|line| !line.contains("ID\"") && !line.contains("Term"))
            .map(str::to_owned)
            .collect(),
    }
}

fn digits(text: &str) -> String {
    text.chars().take_while(char::is_ascii_digit).collect()
}

/// It takes writes, and has everything after a restart.
fn for_good(server: &mut Server) {
    let put = ctl(server).run(&["put", "after", "restore"], "");
    assert_eq!(put.code, Some(0), "{put:?}");
    let told = tell(&ctl(server));
    server.restart();
    assert_eq!(told, tell(&ctl(server)));
    let got = ctl(server).run(&["get", "after"], "");
    assert_eq!(got.stdout, "after\nrestore\n");
}

/// Runs `snapshot restore` for the member that is to be `server`, and returns what was logged.
fn restore(
    program: &Path,
    server: &Server,
    cluster: &str,
    backup: &Path,
    flags: &[&str],
) -> String {
    let output = Command::new(program)
        .env("ETCDCTL_API", "3")
        .args(["snapshot", "restore"])
        .arg(backup)
        .arg(format!("--name={}", server.name))
        .arg(format!("--data-dir={}", server.data_dir.display()))
        .arg(format!("--initial-cluster={cluster}"))
        .arg(format!("--initial-advertise-peer-urls={}", server.peer_url()))
        .args(flags)
        .output()
        .unwrap_or_else(|e| panic!("starting {}: {e}", program.display()));
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{log}");
    log
}

fn member(server: &Server) -> String {
    format!("{}={}", server.name, server.peer_url())
}

/// The tool that verifies a directory holds the lock that a member holds.
#[test]
fn a_member_that_has_stopped_is_sound() {
    let dir = scratch();
    let mut server = Server::single(Kind::Quorate, dir.path(), &[]);
    server.start();
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
        ctl(&server).run(&["put", key, value], "");
    }
    ctl(&server).run(&["del", "b"], "");
    // Else all of it may be in the log alone.
    ctl(&server).run(&["defrag"], "");
    let verified = |server: &Server| {
        let output = Command::new(quorateutl()).arg("verify").arg(&server.data_dir).output();
        let output = output.expect("the tool can be run");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let (code, text) = verified(&server);
    assert!(code == Some(1) && text.contains("is in use by a member"), "{text}");
    server.terminate();
    let (code, text) = verified(&server);
    assert!(code == Some(0) && text.ends_with("sound\n"), "{text}");
    assert!(text.contains("4 changes, 1 keys"), "{text}");
}

fn quorateutl() -> PathBuf {
    env!("CARGO_BIN_EXE_quorateutl").into()
}

fn ctl(server: &Server) -> Etcdctl {
    Etcdctl::new(&Release::real(), &[server.endpoint()])
}
