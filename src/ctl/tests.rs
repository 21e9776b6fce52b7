//! Command lines on buffers, without a cluster.

use std::io;
use std::sync::{Arc, Mutex};

use super::table::TOOL;
use super::{Ended, Exit, Shell, run};
use crate::env::BoxFuture;
use crate::tool::Output;
use crate::tool::arguments::{Arguments, Wanted, command, parse, with_variables};
use crate::tool::table::without_case;

#[derive(Default)]
struct Buffers {
    out: Mutex<Vec<u8>>,
    err: Mutex<String>,
    variables: Vec<(String, String)>,
}

impl Output for Buffers {
    fn out(&self, bytes: &[u8]) -> io::Result<()> {
        self.out.lock().expect("no test panics while it writes").extend(bytes);
        Ok(())
    }

    fn err(&self, text: &str) {
        self.err.lock().expect("no test panics while it writes").push_str(text);
    }

    fn variables(&self) -> Vec<(String, String)> {
        self.variables.clone()
    }

    fn is_terminal(&self) -> bool {
        false
    }

    fn size(&self) -> Option<(u16, u16)> {
        None
    }
}

impl Shell for Buffers {
    fn read_line(&self) -> io::Result<String> {
        Ok(String::new())
    }

    fn read_to_end(&self) -> io::Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn read_password(&self, _: &str) -> io::Result<String> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn run<'a>(
        &'a self,
        _: &'a [String],
        _: &'a [(String, String)],
    ) -> BoxFuture<'a, io::Result<Ended>> {
        Box::pin(async { Ok(Ended::Exited(0)) })
    }

    fn quit_key(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn interrupted(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

async fn ran(line: &str, variables: &[(&str, &str)]) -> (Result<(), Exit>, String, String) {
    let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
    let variables =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let shell = Arc::new(Buffers { variables, ..Buffers::default() });
    let ended = run(crate::env::tokio::env(), shell.clone(), &words).await;
    let out = shell.out.lock().expect("no test panics while it writes").clone();
    let err = shell.err.lock().expect("no test panics while it writes").clone();
    (ended, String::from_utf8(out).expect("text"), err)
}

#[tokio::test]
async fn wrong_arguments_are_refused_with_etcdctls_codes_and_texts() {
    let check = async |line: &str, code: u8, why: &str| {
        let (ended, out, _) = ran(line, &[]).await;
        assert_eq!(ended, Err(Exit::new(code, why)), "{line}");
        assert_eq!(out, "", "{line}");
    };
    check("etcdctl put", 128, "put command needs 1 argument and input from stdin or 2 arguments")
        .await;
    check("etcdctl put k", 128, "put command needs 1 argument and input from stdin or 2 arguments")
        .await;
    check(
        "etcdctl put k v --lease zz",
        128,
        "bad lease ID (strconv.ParseInt: parsing \"zz\": invalid syntax), expecting ID in Hex",
    )
    .await;
    check(
        "etcdctl get",
        128,
        "get command needs one argument as key and an optional argument as range_end",
    )
    .await;
    check(
        "etcdctl get k --prefix --from-key",
        128,
        "`--prefix` and `--from-key` cannot be set at the same time, choose one",
    )
    .await;
    check("etcdctl get k --order UP", 4, "bad sort order UP").await;
    check("etcdctl get k --consistency x", 4, "unknown consistency flag \"x\"").await;
    check("etcdctl get k -w yaml", 4, "unsupported output format").await;
    check(
        "etcdctl lease grant x",
        128,
        "bad TTL (strconv.ParseInt: parsing \"x\": invalid syntax)",
    )
    .await;
    check("etcdctl member add m", 128, "member peer urls not provided").await;
    check(
        "etcdctl member add m http://a:1",
        128,
        "too many arguments, did you mean --peer-urls=http://a:1",
    )
    .await;
    let scheme = "URL scheme must be http, https, unix, or unixs: nonsense";
    check("etcdctl member add m --peer-urls=nonsense", 1, scheme).await;
    let form = "URL address does not have the form \"host:port\": http://b";
    check("etcdctl member update 1 --peer-urls=http://a:1,http://b", 1, form).await;
    check("etcdctl elect e", 128, "no proposal argument but -l not set").await;
    check("etcdctl --cert= get k", 128, "empty string is passed to --cert option").await;
    check("etcdctl snapshot save", 128, "snapshot save expects one argument <filename>").await;
    check(
        "etcdctl role grant-permission r",
        128,
        "role grant command requires role name, permission type, and key [endkey] as its argument",
    )
    .await;
    check("etcdctl role grant-permission r RED k", 128, "invalid permission type: RED").await;
}

#[tokio::test]
async fn local_commands_need_no_cluster() {
    let (ended, out, _) = ran("/usr/local/bin/etcdctl version", &[]).await;
    assert_eq!((ended, out.as_str()), (Ok(()), "etcdctl version: 3.7.1\nAPI version: 3.7\n"));
    let (ended, out, _) = ran("quoratectl version", &[]).await;
    assert_eq!(ended, Ok(()));
    assert!(out.starts_with("quoratectl version: "), "{out}");
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let (ended, out, _) = ran(&format!("etcdctl completion {shell}"), &[]).await;
        assert_eq!(ended, Ok(()), "{shell}");
        assert!(out.contains("keep-alive"), "{shell}: {out}");
    }
    let (ended, out, _) = ran("etcdctl --hex=true __complete get k -w js", &[]).await;
    assert_eq!((ended, out.as_str()), (Ok(()), "json\n:4\n"));
    let (ended, out, _) = ran("etcdctl options", &[]).await;
    assert_eq!(ended, Ok(()));
    assert!(out.contains("-w, --write-out"), "{out}");
}

#[tokio::test]
async fn variables_that_conflict_or_are_unknown_are_reported() {
    let unread = "etcdctl --endpoints= get k";
    let (ended, _, err) = ran(unread, &[("ETCDCTL_API", "3"), ("ETCDCTL_HEX", "")]).await;
    assert_eq!(ended, Err(Exit::new(2, "etcdclient: no available endpoints")));
    assert!(err.contains("unrecognized environment variable") && err.contains("ETCDCTL_API=3"));
    assert!(err.contains("\"ETCDCTL_HEX=\""), "{err}");
    // A command that needs no cluster reads none of them, and a wrong command line comes first.
    let (ended, _, err) = ran("etcdctl version --hex", &[("ETCDCTL_HEX", "1")]).await;
    assert_eq!((ended, err.as_str()), (Ok(()), ""));
    let (ended, _, err) = ran("etcdctl get -z", &[("ETCDCTL_API", "3")]).await;
    assert_eq!((ended.expect_err("refused").code, err.as_str()), (1, ""));
    let line = "etcdctl get k --endpoints a:1";
    let (ended, _, err) = ran(line, &[("ETCDCTL_ENDPOINTS", "b:1")]).await;
    assert_eq!(ended, Err(Exit::silent(1)));
    assert!(err.contains("conflicting environment variable"), "{err}");
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_a_time_limit() {
    let line = "etcdctl --endpoints 127.0.0.1:1 --command-timeout=200ms get k";
    let (ended, ..) = ran(line, &[]).await;
    assert_eq!(ended, Err(Exit::error("context deadline exceeded")));
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn parsed(line: &str) -> Arguments {
    match parse(&TOOL, "etcdctl", &words(line)) {
        Ok(Wanted::Run(arguments)) => arguments,
        other => panic!("{line}: {other:?}"),
    }
}

fn error(line: &str) -> String {
    parse(&TOOL, "etcdctl", &words(line)).expect_err(line).why
}

#[test]
fn the_table_is_a_valid_command() {
    command(&TOOL, "etcdctl").debug_assert();
}

#[test]
fn global_flags_stand_before_and_behind_the_command() {
    for line in ["etcdctl --endpoints a:1 get k --hex", "etcdctl get --hex=true k --endpoints=a:1"]
    {
        let arguments = parsed(line);
        assert_eq!(arguments.text("endpoints"), "a:1", "{line}");
        assert_eq!(arguments.words(), ["k"], "{line}");
        assert!(arguments.bool("hex") && arguments.is_given("hex"), "{line}");
        assert!(!arguments.bool("prefix") && !arguments.is_given("prefix"), "{line}");
    }
    assert_eq!(parsed("etcdctl lease keep-alive --once 1a").path, ["lease", "keep-alive"]);
    assert!(parsed("etcdctl endpoint --cluster health").bool("cluster"));
    assert!(parsed("etcdctl endpoint health --cluster").bool("cluster"));
    assert_eq!(parsed("etcdctl get k --rev=-1").int("rev"), -1);
    assert_eq!(parsed("etcdctl put k -- -v").words(), ["k", "-v"]);
    assert_eq!(parsed("etcdctl watch k -- echo x").behind(), Some(words("echo x")));
    assert_eq!(parsed("etcdctl get k -w=json -w fields").text("write-out"), "fields");
    let line = "etcdctl --endpoints a:1,b:1 get k --endpoints=c:1 -- --endpoints=d:1";
    assert_eq!(parsed(line).text("endpoints"), "a:1,b:1,c:1");
    assert_eq!(parsed(line).behind(), Some(words("--endpoints=d:1")));
    assert_eq!(parsed("etcdctl get k").text("endpoints"), "127.0.0.1:2379");
    assert_eq!(parsed("etcdctl get k --endpoints=").text("endpoints"), "");
    assert_eq!(parsed("etcdctl get k --endpoints= --endpoints=a:1").text("endpoints"), "a:1");
    assert_eq!(parsed("etcdctl get k --endpoints=,").text("endpoints"), ",");
    assert!(parsed("etcdctl watch k --").separated);
    assert!(!parsed("etcdctl watch k -- x").separated && !parsed("etcdctl watch k").separated);
    assert!(!parsed("etcdctl watch k -- --").separated);
}

#[test]
fn mistakes_are_reported_as_etcdctl_does() {
    let unknown = |word: &str, meant: &str| {
        let end = "Run 'etcdctl --help' for usage.";
        format!("unknown command \"{word}\" for \"etcdctl\"\n{meant}{end}")
    };
    assert_eq!(error("etcdctl nonsense"), unknown("nonsense", ""));
    let meant = "\nDid you mean this?\n\tget\n\n";
    assert_eq!(error("etcdctl gett k"), unknown("gett", meant));
    let meant = "\nDid you mean this?\n\tget\n\tput\n\tdel\n\n";
    assert_eq!(error("etcdctl GET k"), unknown("GET", meant));
    // Two of them begin so, and two letters make the third.
    let meant = "\nDid you mean this?\n\tget\n\tdel\n\tdefrag\n\n";
    assert_eq!(error("etcdctl de k"), unknown("de", meant));
    assert_eq!(error("etcdctl get k --prefiks"), "unknown flag: --prefiks");
    assert_eq!(error("etcdctl get k -z"), "unknown shorthand flag: 'z' in -z");
    assert_eq!(error("etcdctl get k --limit"), "flag needs an argument: --limit");
    assert_eq!(error("etcdctl get k -w"), "flag needs an argument: 'w' in -w");
    assert_eq!(error("etcdctl get k --endpoints"), "flag needs an argument: --endpoints");
    assert_eq!(
        error("etcdctl get k --keepalive-time 10"),
        "invalid argument \"10\" for \"--keepalive-time\" flag: time: missing unit in duration \"10\""
    );
    assert_eq!(
        error("etcdctl get k --limit x"),
        "invalid argument \"x\" for \"--limit\" flag: strconv.ParseInt: parsing \"x\": invalid syntax"
    );
    for line in ["etcdctl lease", "etcdctl lease nonsense", "etcdctl -w json role nonsense x"] {
        assert!(matches!(parse(&TOOL, "etcdctl", &words(line)), Ok(Wanted::Help(_))), "{line}");
    }
    assert!(matches!(parse(&TOOL, "etcdctl", &words("etcdctl")), Ok(Wanted::Help(_))));
}

#[test]
fn variables_are_flags_unless_a_flag_conflicts() {
    let variables = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    };
    let with = |line: &str, set: &[(String, String)]| {
        with_variables(&TOOL, &parsed(line).path, &words(line), set)
    };
    let set = variables(&[("ETCDCTL_ENDPOINTS", "a:1"), ("ETCDCTL_API", "3"), ("HOME", "/")]);
    let (all, warnings) = with("etcdctl get k", &set).expect("no conflict");
    assert_eq!(all, words("etcdctl --endpoints=a:1 get k"));
    assert_eq!(warnings, ["ETCDCTL_API=3"]);
    for line in ["etcdctl get k --endpoints b:1", "etcdctl --endpoints=b:1 get k"] {
        assert_eq!(with(line, &set), Err("ETCDCTL_ENDPOINTS".into()));
    }
    let set = variables(&[("ETCDCTL_WRITE_OUT", "json")]);
    assert!(with("etcdctl get k -wjson", &set).is_err());
    assert!(with("etcdctl put k -- -w", &set).is_ok());
    // What is no value of the flag's type is its zero.
    let set = [("HEX", "banana"), ("DIAL_TIMEOUT", "3"), ("MAX_RECV_BYTES", "x")];
    let set = set.map(|(name, value)| (format!("ETCDCTL_{name}"), value.to_owned()));
    let (all, _) = with("etcdctl get", &set).expect("no conflict");
    assert_eq!(all, words("etcdctl --hex=false --dial-timeout=0s --max-recv-bytes=0 get"));
    // A group's flag is one for its commands; elsewhere the variable is unknown.
    let set = variables(&[("ETCDCTL_CLUSTER", "1"), ("ETCDCTL_HEX", "1")]);
    let (all, warnings) = with("etcdctl endpoint health", &set).expect("no conflict");
    assert_eq!(all, words("etcdctl --hex=1 endpoint health --cluster=1"));
    assert_eq!(warnings, [""; 0]);
    assert!(parsed(&all.join(" ")).bool("cluster"));
    let (all, _) = with("etcdctl endpoint hashkv -- x", &set).expect("no conflict");
    assert_eq!(all, words("etcdctl --hex=1 endpoint hashkv --cluster=1 -- x"));
    for line in ["etcdctl endpoint --cluster status", "etcdctl endpoint status --cluster=false"] {
        assert_eq!(with(line, &set), Err("ETCDCTL_CLUSTER".into()), "{line}");
    }
    for line in ["etcdctl defrag", "etcdctl defrag --cluster", "etcdctl get k"] {
        let (_, warnings) = with(line, &set).expect("no conflict");
        assert_eq!(warnings, ["ETCDCTL_CLUSTER=1"], "{line}");
    }
    // The same with variables of one command; an empty one means nothing there either.
    let set = variables(&[("ETCDCTL_WATCH_KEY", "k"), ("ETCDCTL_WATCH_RANGE_END", "")]);
    let warnings = |line: &str| with(line, &set).expect("no conflict").1;
    assert_eq!(warnings("etcdctl watch"), ["ETCDCTL_WATCH_RANGE_END="]);
    assert_eq!(warnings("etcdctl get k"), ["ETCDCTL_WATCH_KEY=k", "ETCDCTL_WATCH_RANGE_END="]);
}

#[test]
fn every_command_and_flag_has_a_conformance_case() {
    let cases = [
        include_str!("../../tests/conformance/cases/etcdctl.txt"),
        include_str!("../../tests/conformance/cases/tools.txt"),
    ];
    assert_eq!(without_case(&TOOL, &cases, "etcdctl"), [""; 0]);
}

#[test]
fn a_command_or_a_flag_without_a_case_is_found() {
    let missing = without_case(&TOOL, &["$ get a --limit 1\n$ etcdutl put\n"], "etcdutl");
    let has = |name: &str| missing.iter().any(|one| one == name);
    assert!(has("lease grant") && has("get --rev") && has("--hex"), "{missing:?}");
    assert!(!has("get") && !has("get --limit") && !has("put"), "{missing:?}");
    // What etcd's tools do not have needs none.
    assert!(!has("history") && !has("get --at"), "{missing:?}");
}
