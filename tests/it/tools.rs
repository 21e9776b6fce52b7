//! Our tools as processes: what comes to them besides a server's answers.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::process::{Server, etcd_program};

const PATIENCE: Duration = Duration::from_secs(30);

/// Made text of, a key would be another key, and a directory an empty one.
#[test]
fn arguments_that_are_not_text_are_refused() {
    let bytes = OsStr::from_bytes(b"--data-dir=/tmp/\xff");
    let path = OsStr::from_bytes(b"/tmp/\xff");
    for (program, words, code) in [
        (
            env!("CARGO_BIN_EXE_quoratectl"),
            &[OsStr::new("snapshot"), OsStr::new("save"), path][..],
            128,
        ),
        (env!("CARGO_BIN_EXE_quorateutl"), &[OsStr::new("defrag"), bytes], 128),
        (env!("CARGO_BIN_EXE_quorate"), &[bytes], 2),
    ] {
        let output = Command::new(program).args(words).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{program}: {text}");
        assert!(text.contains(r#"/tmp/\xFF" is not UTF-8"#), "{program}: {text}");
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

/// Of etcd's tool, too: the lines of standard input are the command's, and a program that fails ends it,
/// though no line ends and no other watch does.
#[test]
fn an_interactive_watch_keeps_its_lines_and_ends_with_its_program() {
    let (_dir, server) = Server::serving();
    let endpoints = format!("--endpoints={}", server.endpoint());
    let etcdctl = etcd_program().with_file_name("etcdctl");
    assert_eq!(tool(&server, &["put", "k", "v"]).0, Some(0));
    for tool in [etcdctl, PathBuf::from(env!("CARGO_BIN_EXE_quoratectl"))] {
        let mut watch = Command::new(&tool)
            .args([&endpoints, "watch", "-i"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let pid = watch.id().to_string();
        let mut stdin = watch.stdin.take().expect("it is piped");
        let line = "watch k --rev=2 -- sh -c 'cat; echo read; exit 3'\n";
        stdin.write_all(line.as_bytes()).expect("a pipe takes a little");
        let (ended, end) = mpsc::channel();
        thread::spawn(move || ended.send(watch.wait_with_output()));
        let output = end.recv_timeout(PATIENCE);
        // None of it is left behind.
        let _ = Command::new("kill").args(["-KILL", &pid]).stderr(Stdio::null()).status();
        drop(stdin);
        let output = output.expect("it ends").expect("it was started");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{}: {err}", tool.display());
        assert_eq!(String::from_utf8_lossy(&output.stdout), "PUT\nk\nv\nread\n");
        let why = r#"command ["sh" "-c" "cat; echo read; exit 3"] error (exit status 3)"#;
        assert_eq!(err, format!("{why}\n"), "{}", tool.display());
    }
}

/// Runs our client's tool against a server; its output, whatever the exit code.
fn tool(server: &Server, words: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quoratectl"));
    command.arg(format!("--endpoints={}", server.endpoint())).args(words).stdin(Stdio::null());
    let output = command.output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The log is applied again at a start: what the store holds before that is not the state of any time since.
#[test]
fn a_time_around_a_restart_is_never_one_of_a_revision_from_before() {
    let (_dir, mut server) = Server::serving();
    for value in ["1", "2", "3", "4"] {
        assert_eq!(tool(&server, &["put", "k", value]).0, Some(0));
    }
    let now = |server: &Server| tool(server, &["get", "k", "--at", "0s ago"]);
    let began = Instant::now();
    while now(&server).1 != "k\n4\n" {
        assert!(began.elapsed() < PATIENCE, "{:?}", now(&server));
    }
    server.kill();
    server.start();
    let began = Instant::now();
    while now(&server).0 != Some(0) {
        assert!(began.elapsed() < PATIENCE, "{:?}", now(&server));
    }
    // From before the start there is none, and a clear error.
    for ago in 0..30 {
        let (code, out, err) = tool(&server, &["get", "k", "--at", &format!("{ago}s ago")]);
        match code {
            Some(0) => assert_eq!(out, "k\n4\n", "{ago} s ago"),
            _ => assert!(err.contains("from its last start on"), "{ago} s ago: {err}"),
        }
    }
    assert_eq!(tool(&server, &["get", "k", "--at", "1h ago"]).0, Some(1));
    let (code, _, err) = tool(&server, &["get", "k", "--at", "0"]);
    assert_eq!((code, err.contains("want a revision above 0")), (Some(128), true), "{err}");
    let (code, out, _) = tool(&server, &["diff", "2", "0s ago"]);
    assert_eq!((code, out.as_str()), (Some(0), "~ \"k\"\t\"1\" -> \"4\"\n"));
}

#[test]
fn a_history_has_all_lives_of_a_key_back_to_the_compaction() {
    let (_dir, server) = Server::serving();
    for words in [
        &["put", "k", "a"][..],
        &["put", "k", "b"],
        &["del", "k"],
        &["put", "other", "x"],
        &["put", "k", "c"],
    ] {
        assert_eq!(tool(&server, words).0, Some(0), "{words:?}");
    }
    let history = |words: &[&str]| tool(&server, &[&["history", "k"], words].concat()).1;
    let whole = "6\t1\t\"c\"\n4\t-\t(deleted)\n3\t2\t\"b\"\n2\t1\t\"a\"\n";
    assert_eq!(history(&[]), whole);
    assert_eq!(history(&["--limit=2"]), "6\t1\t\"c\"\n4\t-\t(deleted)\n");
    assert_eq!(tool(&server, &["history", "nothing"]).1, "(the key has never been there)\n");
    assert_eq!(tool(&server, &["del", "k"]).0, Some(0));
    assert!(history(&[]).starts_with("7\t-\t(deleted)\n6\t1\t\"c\"\n"));
    // What was there at the compaction is kept, and known to be of revision 3.
    assert_eq!(tool(&server, &["compaction", "3"]).0, Some(0));
    let cut = "(compacted at revision 3: older changes are gone)\n";
    let kept = format!("7\t-\t(deleted)\n6\t1\t\"c\"\n4\t-\t(deleted)\n3\t2\t\"b\"\n{cut}");
    assert_eq!(history(&[]), kept);
    assert!(!history(&["--limit=1"]).contains("compacted"));
    let json = history(&["-w", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["compact_revision"], 3);
    assert_eq!(json["changes"][1]["value"], "Yw==");
    assert_eq!(json["changes"][2]["type"], "DELETE");
    assert!(history(&["-w", "fields"]).contains("\"ModRevision\" : 6\n\"CreateRevision\" : 6\n"));
    let table = history(&["-w", "table"]);
    assert!(table.contains("REVISION │ VERSION │ CREATED"), "{table}");
    assert_eq!(tool(&server, &["history", "k", "-w", "protobuf"]).0, Some(4));
    let (_, out, _) = tool(&server, &["diff", "4", "-w", "json"]);
    assert_eq!(
        out,
        "[{\"change\":\"added\",\"key\":\"b3RoZXI=\",\"new\":\"eA==\",\"old\":null}]\n"
    );
}

/// After a crash the store may be empty, and everything in the log.
#[test]
fn a_verification_counts_the_entries_that_are_not_in_the_state() {
    let (_dir, mut server) = Server::serving();
    assert_eq!(tool(&server, &["put", "k", "v"]).0, Some(0));
    server.kill();
    let mut verify = Command::new(env!("CARGO_BIN_EXE_quorateutl"));
    let output = verify.arg("verify").arg(&server.data_dir).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains(" 0 keys") && text.ends_with("which a start applies\nsound\n"), "{text}");
}

/// As with etcd's tool, which asks on standard output, too.
#[test]
fn keys_and_values_are_of_any_bytes() {
    let (_dir, server) = Server::serving();
    let endpoints = format!("--endpoints={}", server.endpoint());
    let etcdctl = etcd_program().with_file_name("etcdctl");
    let (key, value) =
        (OsStr::from_bytes(b"k\xff\xfe"), OsStr::from_bytes(b"v\x80\n\xf4\x8f\xbe\x80"));
    for tool in [etcdctl, PathBuf::from(env!("CARGO_BIN_EXE_quoratectl"))] {
        let run = |words: &[&OsStr], input: &[u8]| {
            let mut command = Command::new(&tool);
            command.arg(&endpoints).args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().expect("it runs");
            let mut stdin = child.stdin.take().expect("it is piped");
            stdin.write_all(input).expect("a pipe takes a little");
            drop(stdin);
            let output = child.wait_with_output().expect("it ends");
            assert!(output.status.success(), "{words:?}");
            output.stdout
        };
        let word = OsStr::new;
        run(&[word("put"), key, value], b"");
        let whole = [key.as_bytes(), b"\n", value.as_bytes(), b"\n"].concat();
        assert_eq!(run(&[word("get"), key], b""), whole, "{}", tool.display());
        assert_eq!(run(&[word("get"), word("k"), word("--prefix")], b""), whole);
        // Lines of standard input have such bytes, too, and Go's escapes of them.
        let txn = b"val(\"k\\xff\\xfe\") = \"v\\x80\\n\\xf4\\x8f\\xbe\\x80\"\n\nput k\xff\xfe \"\\xff\"\n\n\n";
        assert_eq!(run(&[word("txn")], txn), b"SUCCESS\n\nOK\n");
        let print = [word("get"), key, word("--print-value-only")];
        assert_eq!(run(&print, b""), b"\xff\n");
        let echo =
            [word("watch"), key, word("--rev=2"), word("--"), word("printf"), word("END%s"), value];
        let mut watch = Command::new(&tool);
        watch.arg(&endpoints).args(echo).stdout(Stdio::piped());
        let mut watch = watch.spawn().expect("it runs");
        let stdout = BufReader::new(watch.stdout.take().expect("it is piped"));
        let (wanted, (found, end)) = ([&b"END"[..], value.as_bytes()].concat(), mpsc::channel());
        thread::spawn(move || {
            let mut seen = Vec::new();
            for byte in stdout.bytes().map_while(Result::ok) {
                seen.push(byte);
                if seen.ends_with(&wanted) {
                    let _ = found.send(());
                    return;
                }
            }
        });
        let ended = end.recv_timeout(PATIENCE);
        watch.kill().expect("it runs still");
        watch.wait().expect("it was killed");
        assert!(ended.is_ok(), "{}", tool.display());
        run(&[word("del"), key], b"");
    }
}
