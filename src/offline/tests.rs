//! Command lines on buffers and real files: a database that a member of etcd has left, sealed as a backup
//! and in a data directory. The expected bytes are etcdutl 3.7.3's for the same files.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tempfile::TempDir;

use super::table::TOOL;
use super::{Exit, run};
use crate::bbolt;
use crate::tool::Output;
use crate::tool::table::without_case;

/// A member's own file: see its README.
const ETCD: &[u8] = include_bytes!("../bbolt/testdata/etcd.db");

#[derive(Default)]
struct Buffers {
    out: Mutex<String>,
    err: Mutex<String>,
}

impl Output for Buffers {
    fn out(&self, bytes: &[u8]) -> io::Result<()> {
        let text = std::str::from_utf8(bytes).expect("the tool prints text");
        self.out.lock().expect("no test panics while it writes").push_str(text);
        Ok(())
    }

    fn err(&self, text: &str) {
        self.err.lock().expect("no test panics while it writes").push_str(text);
    }

    fn variables(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn is_terminal(&self) -> bool {
        false
    }

    fn size(&self) -> Option<(u16, u16)> {
        None
    }
}

struct Place(TempDir);

impl Place {
    /// A backup `b`, and a data directory `d` of etcd's with the same database and no log.
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let sealed = bbolt::seal([Ok(Bytes::from_static(ETCD))].into_iter());
        let sealed = sealed.collect::<io::Result<Vec<_>>>().expect("no errors").concat();
        std::fs::write(dir.path().join("b"), sealed).expect("writable");
        let snap = dir.path().join("d/member/snap");
        std::fs::create_dir_all(&snap).expect("writable");
        std::fs::write(snap.join("db"), ETCD).expect("writable");
        Self(dir)
    }

    /// The outcome, standard output and standard error; `DIR` stands for the folder.
    async fn run(&self, line: &str) -> (Result<(), Exit>, String, String) {
        let dir = self.0.path().display().to_string();
        let words: Vec<_> = line.split(' ').map(|word| word.replace("DIR", &dir)).collect();
        let output = Arc::new(Buffers::default());
        let ran = run(crate::env::tokio::env(), output.clone(), &words).await;
        let ran = ran.map_err(|exit| Exit::new(exit.code, exit.why.replace(&dir, "DIR")));
        let text = |of: &Mutex<String>| {
            of.lock().expect("no test panics while it writes").replace(&dir, "DIR")
        };
        (ran, text(&output.out), text(&output.err))
    }

    async fn prints(&self, line: &str, expected: &str) {
        let (ran, out, _) = self.run(line).await;
        assert_eq!((ran, out.as_str()), (Ok(()), expected), "{line}");
    }

    async fn fails(&self, line: &str, code: u8, why: &str) {
        let (ran, out, _) = self.run(line).await;
        assert_eq!((ran, out.as_str()), (Err(Exit::new(code, why)), ""), "{line}");
    }
}

#[tokio::test]
async fn a_backup_is_described_in_etcdutls_formats() {
    let place = Place::new();
    let simple = "202b2839, 5, 171, 49 kB, \n";
    place.prints("etcdutl snapshot status DIR/b", simple).await;
    let json = "{\"hash\":539699257,\"revision\":5,\"totalKey\":171,\"totalSize\":49152,\"version\":\"\"}\n";
    place.prints("etcdutl -w json snapshot status DIR/b", json).await;
    place.prints("etcdutl snapshot status DIR/b -w=json", json).await;
    let fields = "\"Hash\" : 539699257\n\"Revision\" : 5\n\"Keys\" : 171\n\"Size\" : 49152\n\"Version\" : \n";
    place.prints("etcdutl snapshot --write-out fields status DIR/b", fields).await;
    let (_, table, _) = place.run("etcdutl snapshot status DIR/b -w table").await;
    assert!(table.contains("│ TOTAL SIZE │ VERSION │"), "{table}");
    place.prints("etcdutl snapshot status DIR/d/member/snap/db", simple).await;
    place.prints("etcdutl hashkv DIR/b", "3349264462, 5, -1\n").await;
}

#[tokio::test]
async fn mistakes_are_refused_with_etcdutls_codes_and_texts() {
    let place = Place::new();
    let check = async |line: &str, code: u8, why: &str| place.fails(line, code, why).await;
    check("etcdutl snapshot status", 128, "snapshot status requires exactly one argument").await;
    check("etcdutl snapshot status DIR/x", 1, "stat DIR/x: no such file or directory").await;
    check("etcdutl snapshot status DIR/b -w yaml", 4, "unsupported output format").await;
    let no_protobuf = "protobuf not supported as output format";
    check("etcdutl snapshot status DIR/b -w protobuf", 4, no_protobuf).await;
    check("etcdutl hashkv DIR/b -w protobuf", 4, no_protobuf).await;
    check("etcdutl hashkv", 1, "accepts 1 arg(s), received 0").await;
    check("etcdutl hashkv DIR/b DIR/b", 1, "accepts 1 arg(s), received 2").await;
    let future = "mvcc: required revision is a future revision";
    check("etcdutl hashkv DIR/b --rev 100000000", 1, future).await;
    check("etcdutl defrag", 1, "required flag(s) \"data-dir\" not set").await;
    let absent =
        "Failed to defragment etcd data[DIR] (stat DIR/member/snap/db: no such file or directory)";
    check("etcdutl defrag --data-dir DIR", 1, absent).await;
    let missing = "required flag(s) \"data-dir\", \"target-version\" not set";
    check("etcdutl migrate", 1, missing).await;
    let minimal = "target version \"3.4\" not supported. Minimal \"3.5\"";
    check("etcdutl migrate --data-dir DIR/d --target-version 3.4", 128, minimal).await;
    let both = "--mark-compacted required if --revision-bump > 0";
    check("etcdutl snapshot restore DIR/b --mark-compacted", 128, both).await;
    let unknown = "unknown command \"bogus\" for \"etcdutl\"\nRun 'etcdutl --help' for usage.";
    check("etcdutl bogus", 1, unknown).await;
    std::fs::write(place.0.path().join("g"), "hello").expect("writable");
    check("etcdutl snapshot status DIR/g", 1, "invalid database").await;
}

/// The texts are etcdutl 3.7.3's, but where it panics, or makes a database of an empty file.
#[tokio::test]
async fn files_that_are_no_databases_are_refused_by_name() {
    let place = Place::new();
    let dir = place.0.path();
    let backup = std::fs::read(dir.join("b")).expect("readable");
    let (cut, tail) = (&backup[..5_000], &backup[..backup.len() - 600]);
    let zeros = [0; 9_000];
    let files = [
        ("empty", &[][..]),
        ("few", &backup[..20]),
        ("cut", cut),
        ("tail", tail),
        ("zeros", &zeros),
    ];
    for (name, bytes) in files {
        std::fs::write(dir.join(name), bytes).expect("writable");
    }
    let check = async |line: &str, why: &str| place.fails(&format!("etcdutl {line}"), 1, why).await;
    for name in ["empty", "few", "zeros", "d"] {
        check(&format!("snapshot status DIR/{name}"), "invalid database").await;
    }
    check("snapshot status DIR/cut", "file size too small 5000").await;
    check("hashkv DIR/cut", "file size too small 5000").await;
    check("hashkv DIR/zeros", "invalid database").await;
    let (ran, ..) = place.run("etcdutl snapshot status DIR/tail").await;
    assert!(ran.expect_err("refused").why.starts_with("bbolt file is cut short: "));
    for name in ["empty", "few"] {
        let line = format!("snapshot restore DIR/{name} --data-dir DIR/r");
        let why = format!("seek DIR/{name}: invalid argument");
        check(&line, &why).await;
        check(&format!("{line} --skip-hash-check"), &why).await;
    }
    check("snapshot restore DIR/d --data-dir DIR/r", "read DIR/d: is a directory").await;
    let missing = "snapshot missing hash but --skip-hash-check=false";
    check("snapshot restore DIR/cut --data-dir DIR/r", missing).await;
    check("snapshot restore DIR/zeros --data-dir DIR/r", missing).await;
    let migrate = "migrate --data-dir DIR/d --target-version 3.6";
    check(migrate, "missing term information").await;
    check("verify DIR/nothing", "stat DIR/nothing: no such file or directory").await;
    let none =
        "DIR/d/member is no data directory: neither member/store nor member/snap/db is there";
    check("verify DIR/d/member", none).await;
}

#[tokio::test]
async fn versions_pages_and_scripts_come_from_the_table() {
    let place = Place::new();
    place.prints("/bin/etcdutl version", "etcdutl version: 3.7.1\nAPI version: 3.7\n").await;
    let (_, out, _) = place.run("quorateutl version").await;
    assert!(out.starts_with("quorateutl version: "), "{out}");
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let (ran, out, _) = place.run(&format!("etcdutl completion {shell}")).await;
        assert_eq!(ran, Ok(()));
        assert!(out.contains("skip-hash-check"), "{shell}: {out}");
    }
    let (ran, page, _) = place.run("quorateutl manual snapshot restore").await;
    assert_eq!(ran, Ok(()));
    assert!(page.contains(".TH") && page.contains("bump\\-revision"), "{page}");
    let synopsis = ".SH SYNOPSIS\n\\fBquorateutl snapshot restore\\fR <filename> \\-\\-data\\-dir";
    assert!(page.contains(synopsis), "{page}");
    let (_, help, _) = place.run("quorateutl snapshot restore --help").await;
    assert!(help.contains("Usage: quorateutl snapshot restore <filename> --data-dir"), "{help}");
    let (_, out, err) = place.run("etcdutl __complete snapshot restore -").await;
    assert!(out.contains("--bump-revision\tHow much") && out.ends_with(":4\n"), "{out}");
    assert!(err.starts_with("Completion ended with directive: "), "{err}");
    place.fails("quorateutl manual snap", 128, "unknown command \"snap\" for \"quorateutl\"").await;
}

#[tokio::test]
async fn a_database_keeps_its_rows_when_it_is_defragmented() {
    let place = Place::new();
    let (_, before, _) = place.run("etcdutl snapshot status DIR/d/member/snap/db -w json").await;
    place.prints("etcdutl defrag --data-dir DIR/d", "").await;
    let (_, after, _) = place.run("etcdutl snapshot status DIR/d/member/snap/db -w json").await;
    let but_size = |text: &str| text.split("\"totalSize\"").next().map(str::to_owned);
    assert_eq!(but_size(&before), but_size(&after));
    place.prints("etcdutl hashkv DIR/d", "3349264462, 5, -1\n").await;
}

#[tokio::test]
async fn a_restored_directory_is_sound_and_its_log_is_shown() {
    let place = Place::new();
    let restore = "quorateutl snapshot restore DIR/b --data-dir DIR/r --skip-hash-check";
    place.prints(restore, "").await;
    let (ran, out, err) = place.run("quorateutl verify DIR/r").await;
    assert_eq!((ran, err.as_str()), (Ok(()), ""), "{out}");
    assert!(out.ends_with("sound\n") && out.contains("entries after 1 up to 1"), "{out}");
    let (ran, out, _) = place.run("quorateutl wal dump DIR/r").await;
    assert_eq!(ran, Ok(()));
    assert!(out.contains("1\t1\tconf\tmethod=ConfChangeAddNode id=8e9e05c52164694d"), "{out}");
    let (_, json, _) = place.run("quorateutl wal dump DIR/r/member/wal -w json --limit 1").await;
    assert!(json.lines().all(|line| line.starts_with('{')), "{json}");
    let (_, later, _) = place.run("quorateutl wal dump DIR/r --from 2").await;
    assert!(!later.contains("conf\t"), "{later}");
    let nothing = "Nothing to defragment in DIR/r: ";
    let (ran, out, _) = place.run("quorateutl defrag --data-dir DIR/r").await;
    assert!(ran.is_ok() && out.starts_with(nothing), "{out}");

    // A log that ends before the state.
    let wal = place.0.path().join("r/member/wal");
    for file in std::fs::read_dir(&wal).expect("readable") {
        std::fs::remove_file(file.expect("readable").path()).expect("writable");
    }
    let (ran, _, err) = place.run("quorateutl verify DIR/r").await;
    assert_eq!(ran, Err(Exit::error("DIR/r: 1 problem(s)")));
    assert!(err.contains("there is no log in DIR/r/member/wal"), "{err}");
}

#[test]
fn every_command_and_flag_has_a_conformance_case() {
    let cases = [include_str!("../../tests/conformance/cases/etcdutl.txt")];
    assert_eq!(without_case(&TOOL, &cases, "etcdutl"), [""; 0]);
}
