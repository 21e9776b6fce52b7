//! What flags and the configuration file do to a whole process, beside a real etcd 3.5 where it has
//! them: texts and exit codes, log lines, the patience with clients that ping.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::client::Client;
use super::crash::runtime;
use super::curl::Curl;
use super::process::{Kind, Server, etcd_program, scratch};

fn kinds() -> [Kind; 2] {
    [Kind::Etcd(etcd_program()), Kind::subject()]
}

/// A file's text, the exit code, and what must be on standard error.
const FILES: &[(&str, i32, &str)] = &[
    (
        "name: [a]",
        1,
        "cannot unmarshal array into Go struct field configYAML.Config.name of type string",
    ),
    (
        "name: 1",
        1,
        "cannot unmarshal number into Go struct field configYAML.Config.name of type string",
    ),
    (
        "heartbeat-interval: -1",
        1,
        "cannot unmarshal number -1 into Go struct field configYAML.Config.heartbeat-interval of type uint",
    ),
    (
        "grpc-keepalive-interval: 10s",
        1,
        "cannot unmarshal string into Go struct field configYAML.Config.grpc-keepalive-interval of type \
         time.Duration",
    ),
    (
        "log-outputs: stderr",
        1,
        "cannot unmarshal string into Go struct field configYAML.Config.log-outputs of type []string",
    ),
    (
        "client-transport-security:\n  client-cert-auth: x",
        1,
        "cannot unmarshal string into Go struct field \
         securityConfig.configJSON.client-transport-security.client-cert-auth of type bool",
    ),
    (
        "feature-gates: [x]",
        1,
        "cannot unmarshal array into Go struct field configYAML.configJSON.feature-gates of type string",
    ),
    (
        "socket-options: {reuse-port: 1}",
        1,
        "cannot unmarshal number into Go struct field SocketOpts.Config.socket-options.reuse-port of \
         type bool",
    ),
    (
        "listen-client-urls: 127.0.0.1:1",
        1,
        "unexpected error setting up listen-client-urls: parse \"127.0.0.1:1\": first path segment",
    ),
    ("- a", 1, "cannot unmarshal array into Go value of type embed.configYAML"),
    ("a: b: c", 1, "error converting YAML to JSON: yaml: "),
    ("initial-cluster-state: old", 1, "unexpected clusterState"),
    ("auto-compaction-mode: x", 1, "unknown auto-compaction-mode"),
    ("listen-client-urls: x", 1, "unexpected error setting up listen-client-urls: URL scheme must"),
    ("heartbeat-interval: 100\nelection-timeout: 200", 1, "should be at least as 5 times as"),
    ("logger: capnslog", 1, "--logger=capnslog is removed in v3.5"),
    (
        "log-outputs: [stderr, default]",
        1,
        "multi logoutput for \\\"default\\\" is not supported yet",
    ),
    (
        "enable-log-rotation: true",
        1,
        "--log-outputs requires a single file path when --log-rotate-config-json is defined",
    ),
    (
        "enable-log-rotation: true\nlog-outputs: [x]\nlog-rotation-config-json: '{\"maxsize\": \"x\"}'",
        1,
        "json: cannot unmarshal string into Go struct field logRotationConfig.Logger.maxsize of type \
         int",
    ),
    (
        "enable-log-rotation: true\nlog-outputs: [x]\nlog-rotation-config-json: '[]'",
        1,
        "invalid log rotation config: json: cannot unmarshal array into Go value of type \
         embed.logRotationConfig",
    ),
    (
        "enable-log-rotation: true\nlog-outputs: [x]\nlog-rotation-config-json: '{'",
        1,
        "improperly formatted log rotation config: unexpected end of JSON input",
    ),
    (
        "enable-log-rotation: true\nlog-outputs: [x]\n\
         log-rotation-config-json: '{\"compress\": 1, \"maxage\": \"x\"}'",
        1,
        "cannot unmarshal number into Go struct field logRotationConfig.Logger.compress of type bool",
    ),
    ("log-outputs: [/nowhere/x]", 1, "open /nowhere/x: no such file or directory"),
];

/// URLs that no flag takes, and why: of all flags that have some, in turn.
const URLS: &[(&str, &str)] = &[
    ("http://[::1:2379", "missing ']' in host"),
    ("http://a:x", r#"invalid port ":x" after host"#),
    ("http://[::1]x:1", r#"invalid port "x:1" after host"#),
    ("http://::1:2379", r#"invalid port "::1:2379" after host"#),
    ("http://a:1:2", r#"invalid port ":1:2" after host"#),
    ("http://a b:1", r#"invalid character " " in host name"#),
    ("http://a|b:1", r#"invalid character "|" in host name"#),
    ("http://%zz:1", r#"invalid URL escape "%zz""#),
    ("http://a%41:1", r#"invalid URL escape "%41""#),
    ("http://a:1/%zz", r#"invalid URL escape "%zz""#),
    ("http://[fe80::1%en0]:1", r#"invalid URL escape "%en""#),
    ("http://a[:1", "invalid IP-literal"),
    ("http://[127.0.0.1]:1", "invalid IP-literal"),
    ("http://[]:1", r#"invalid host: ParseAddr(""): unable to parse IP"#),
    ("http://[localhost]:1", r#"invalid host: ParseAddr("localhost"): unable to parse IP"#),
    (
        "http://[1::2::3]:1",
        r#"invalid host: ParseAddr("1::2::3"): multiple :: in address (at ":3")"#,
    ),
    ("http://[::1%25]:1", r#"invalid host: ParseAddr("::1%"): zone must be a non-empty string"#),
    ("http://u @a:1", "net/url: invalid userinfo"),
    ("unix://a b", r#"invalid character " " in host name"#),
    ("unix:///a%zz", r#"invalid URL escape "%zz""#),
    ("unix://a:x", r#"invalid port ":x" after host"#),
    ("127.0.0.1:2379", "first path segment in URL cannot contain colon"),
    ("[::1]:1", "first path segment in URL cannot contain colon"),
    ("1http://a:1", "first path segment in URL cannot contain colon"),
    (":2379", "missing protocol scheme"),
];
/// The same, by rules of etcd's own.
const NO_ETCD_URLS: &[(&str, &str)] = &[
    ("http://a", "URL address does not have the form \"host:port\": "),
    ("http://[::1]", "URL address does not have the form \"host:port\": "),
    ("http:a:1", "URL address does not have the form \"host:port\": "),
    ("http://a]:1", "URL address does not have the form \"host:port\": "),
    ("http://a:1/", "URL must not contain a path: "),
    ("ftp://a:1", "URL scheme must be http, https, unix, or unixs: "),
    ("foo", "URL scheme must be http, https, unix, or unixs: "),
];

/// The words of Go's parser change with its releases: an etcd that was built with another one is passed over.
#[test]
fn urls_are_refused_as_etcd_does() {
    let version = std::process::Command::new(etcd_program()).arg("--version").output();
    let version = version.expect("etcd has a version").stdout;
    let is_alike = String::from_utf8_lossy(&version).contains("Go Version: go1.26");
    let whys = URLS.iter().map(|(url, why)| (*url, format!("parse \"{url}\": {why}")));
    let rules = NO_ETCD_URLS.iter().map(|(url, why)| (*url, format!("{why}{url}")));
    let flags = [
        "listen-client-urls",
        "advertise-client-urls",
        "listen-peer-urls",
        "initial-advertise-peer-urls",
        "initial-cluster",
    ];
    let mut wrong = String::new();
    for ((url, why), flag) in whys.chain(rules).zip(flags.iter().cycle()) {
        for kind in kinds().into_iter().filter(|kind| is_alike || *kind == Kind::Quorate) {
            let (given, code, wanted) = match *flag {
                "initial-cluster" => (
                    format!("--{flag}=m0=http://localhost:1,m1={url}"),
                    1,
                    format!("error setting up initial cluster: {why}"),
                ),
                _ => (
                    format!("--{flag}={url}"),
                    2,
                    format!("invalid value \"{url}\" for flag -{flag}: {why}"),
                ),
            };
            let dir = scratch();
            let mut server = Server::single(kind.clone(), dir.path(), &[&given]);
            server.spawn();
            let status = server.wait_exit();
            // In a log line quotes are escaped.
            let output = server.output().replace("\\\"", "\"");
            if status.code() != Some(code) || !output.contains(&wanted) {
                wrong += &format!("{kind:?} {given}: {status}, not {wanted}\n{output:.400}\n\n");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn configuration_files_are_refused_as_etcd_does() {
    let mut wrong = String::new();
    for kind in kinds() {
        for (text, code, wanted) in FILES {
            let dir = scratch();
            let path = dir.path().join("c.yml");
            std::fs::write(&path, text).expect("the scratch directory is writable");
            let flag = format!("--config-file={}", path.display());
            let mut server = Server::single(kind.clone(), dir.path(), &[&flag]);
            server.spawn();
            let status = server.wait_exit();
            if status.code() != Some(*code) || !server.output().contains(wanted) {
                let output = server.output();
                wrong += &format!("{kind:?} {text:?}: {status}\n{output:.600}\n\n");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The file is all that counts, whatever stands beside it.
#[test]
fn a_configuration_file_starts_a_member() {
    for kind in kinds() {
        let dir = scratch();
        let path = dir.path().join("c.json");
        let mut server = Server::single(kind, dir.path(), &["--heartbeat-interval=900"]);
        let text = format!(
            "{{\"name\": \"filed\", \"data-dir\": {:?}, \"listen-client-urls\": {:?}, \
             \"advertise-client-urls\": {:?}, \"listen-peer-urls\": {:?}, \
             \"initial-advertise-peer-urls\": {:?}, \"initial-cluster\": {:?}, \"unknown\": 1, \
             \"log-outputs\": [\"stderr\"], \"snapshot-count\": 500}}",
            dir.path().join("data"),
            server.client_url(),
            server.client_url(),
            server.peer_url(),
            server.peer_url(),
            format!("filed={}", server.peer_url()),
        );
        std::fs::write(&path, text).expect("the scratch directory is writable");
        server.envs.push(("ETCD_CONFIG_FILE".into(), path.display().to_string()));
        server.start();
        assert!(server.has_logged("loaded server configuration, other configuration command line"));
        assert!(dir.path().join("data/member").is_dir(), "the file's directory is used");
        runtime().block_on(async {
            let mut client = Client::connect(&server.endpoint()).await;
            client.put(b"key", b"value").await.expect("a server that is ready takes writes");
        });
    }
}

/// One line a request at level debug, with etcd's fields in etcd's order.
#[test]
fn requests_are_logged_as_etcd_does() {
    let lines: Vec<Vec<(String, Value)>> = kinds().into_iter().map(logged_put).collect();
    for line in &lines {
        let keys: Vec<&str> = line.iter().map(|(key, _)| key.as_str()).collect();
        let wanted = [
            "level",
            "ts",
            "caller",
            "msg",
            "start time",
            "time spent",
            "remote",
            "response type",
            "request count",
            "request size",
            "response count",
            "response size",
            "request content",
        ];
        assert_eq!(keys, wanted);
        assert!(line[6].1.as_str().is_some_and(|remote| remote.starts_with("127.0.0.1:")));
    }
    let of = |line: &[(String, Value)], keys: &[usize]| {
        keys.iter().map(|&key| line[key].1.clone()).collect::<Vec<_>>()
    };
    let content = |line: &[(String, Value)]| line[12].1.as_str().map(|text| text.trim().to_owned());
    for line in &lines {
        // The sizes of answers differ with the lengths of ids.
        assert_eq!(of(line, &[0, 3, 7, 8, 9, 10]), of(&lines[0], &[0, 3, 7, 8, 9, 10]));
        assert_eq!(content(line), content(&lines[0]));
        assert_eq!(content(line).as_deref(), Some("key:\"k\\001\" value_size:5"));
    }
}

/// The line about one put, read from a file beside standard error.
fn logged_put(kind: Kind) -> Vec<(String, Value)> {
    let dir = scratch();
    let file = dir.path().join("server.log");
    let outputs = format!("--log-outputs=stderr,{}", file.display());
    let mut server = Server::single(kind, dir.path(), &["--log-level=debug", &outputs]);
    server.start();
    runtime().block_on(async {
        let mut client = Client::connect(&server.endpoint()).await;
        client.put(b"k\x01", b"value").await.expect("a server that is ready takes writes");
    });
    server.wait_log("/etcdserverpb.KV/Put");
    let text = std::fs::read_to_string(&file).expect("the file that was named is written");
    let line = text.lines().find(|line| line.contains("/etcdserverpb.KV/Put"));
    in_order(line.unwrap_or_else(|| panic!("no such line in {text}")))
}

/// A JSON object's pairs as they stand there.
fn in_order(line: &str) -> Vec<(String, Value)> {
    let values: serde_json::Map<String, Value> = serde_json::from_str(line).expect("a JSON object");
    let mut pairs: Vec<_> = values.into_iter().collect();
    pairs.sort_by_key(|(key, _)| line.find(&format!("\"{key}\":")).expect("the key is there"));
    pairs
}

/// What takes longer than the limit is a warning, with the caller.
#[test]
fn slow_requests_are_logged() {
    let dir = scratch();
    let flags = ["--warning-unary-request-duration=1ns", "--warning-apply-duration=1ns"];
    let mut server = Server::single(Kind::Quorate, dir.path(), &flags);
    server.start();
    runtime().block_on(async {
        let mut client = Client::connect(&server.endpoint()).await;
        client.put(b"slow", b"value").await.expect("a server that is ready takes writes");
        client.scan(b"slow").await.expect("a server that is ready reads");
    });
    server.wait_log("\"response type\":\"/etcdserverpb.KV/Range\"");
    let output = server.output();
    let line = |text: &str| {
        let found = output.lines().find(|line| line.contains(text));
        found.unwrap_or_else(|| panic!("{text} is not in {output}"))
    };
    assert!(line("\"response type\":\"/etcdserverpb.KV/Put\"").contains("\"level\":\"warn\""));
    let applied = line("put:<key:\\\"slow\\\" value_size:5>");
    assert!(applied.contains("\"msg\":\"apply request took too long\""), "{applied}");
    assert!(applied.contains("\"expected-duration\":\"1ns\""), "{applied}");
    assert!(line("\"prefix\":\"read-only range \"").contains("range_response_count:1 size:"));
    assert!(!output.contains("value_size:0"), "{output}");
}

/// So are calls of the JSON gateway, and answers that are read while they are sent.
#[test]
fn every_kind_of_slow_call_is_logged() {
    let dir = scratch();
    let flags = ["--warning-unary-request-duration=1ns", "--warning-apply-duration=1ns"];
    let mut server = Server::single(Kind::Quorate, dir.path(), &flags);
    server.start();
    let put = ["/v3/kv/put", "-d", r#"{"key":"anNvbg==","value":"MQ=="}"#];
    let answer = Curl::new(server.client_url()).run(&put).stdout;
    assert!(answer.contains("\"revision\":\"2\""), "{answer}");
    runtime().block_on(async {
        let mut client = Client::connect(&server.endpoint()).await;
        for key in 0..5 {
            let key = format!("large{key}");
            client.put(key.as_bytes(), &[b'v'; 300 << 10]).await.expect("there is room for it");
        }
        client.scan(b"large").await.expect("a server that is ready reads");
    });
    server.wait_log("\"response type\":\"/etcdserverpb.KV/Range\"");
    let output = server.output();
    let told = |text: &str| output.lines().any(|line| line.contains(text));
    assert!(told("\"request content\":\"key:\\\"json\\\" value_size:1"), "{output}");
    assert!(told("range_response_count:5 size:1536"), "{output}");
    assert!(told("\"response count\":5,\"response size\":1536"), "{output}");
}

/// A client that pings without end is sent away with a reason, one that keeps to the measure is not.
#[test]
fn clients_that_ping_too_often_are_sent_away() {
    for kind in kinds() {
        let dir = scratch();
        let mut server = Server::single(kind, dir.path(), &[]);
        server.start();
        let mut wire = Wire::connect(&server.endpoint());
        let mut pings = 0;
        let farewell = loop {
            if pings < 10 {
                wire.send(6, &[7; 8]);
                pings += 1;
            }
            match wire.receive() {
                Some((7, payload)) => break payload,
                Some(_) => {}
                None => panic!("closed without a word after {pings} pings"),
            }
        };
        // ENHANCE_YOUR_CALM.
        assert_eq!(farewell[4..8], [0, 0, 0, 11]);
        assert_eq!(&farewell[8..], b"too_many_pings");
        assert!((4..10).contains(&pings), "{pings} pings");
        let mut wire = Wire::connect(&server.endpoint());
        for _ in 0..2 {
            wire.send(6, &[7; 8]);
        }
        let mut answers = 0;
        while answers < 2 {
            let (kind, _) = wire.receive().expect("two pings are no offence");
            answers += usize::from(kind == 6);
        }
    }
}

#[test]
fn a_connection_has_as_many_streams_as_its_flag_allows() {
    let dir = scratch();
    let mut server = Server::single(Kind::Quorate, dir.path(), &["--max-concurrent-streams=7"]);
    server.start();
    let mut wire = Wire::connect(&server.endpoint());
    let (_, settings) = wire.receive().expect("the server begins with its settings");
    let streams = settings.chunks(6).find(|setting| setting[..2] == [0, 3]);
    assert_eq!(streams.map(|setting| &setting[2..]), Some(&[0, 0, 0, 7][..]));
}

/// HTTP/2 frames by hand.
struct Wire(TcpStream);

impl Wire {
    fn connect(endpoint: &str) -> Self {
        let stream = TcpStream::connect(endpoint).expect("the server listens");
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).expect("a time that is not zero");
        let mut wire = Self(stream);
        wire.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("the server reads");
        wire.send(4, &[]);
        wire
    }

    fn send(&mut self, kind: u8, payload: &[u8]) {
        let length = u8::try_from(payload.len()).expect("short");
        let frame = [&[0, 0, length, kind, 0, 0, 0, 0, 0], payload].concat();
        // A server that has closed is noticed when it is listened to.
        let _ = self.0.write_all(&frame);
    }

    /// The next frame's kind and payload; none when the server has closed.
    fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).ok()?;
        Some((head[3], payload))
    }
}

/// Three members that know nothing but where to meet find each other at a real etcd; a fourth is too
/// late, and one without a cluster's size waits for none.
#[test]
fn members_meet_at_an_etcd() {
    let dir = scratch();
    let mut service = Server::single(Kind::Etcd(etcd_program()), dir.path(), &[]);
    service.start();
    let join = |name: &str, token: &str| {
        Server::discovering(Kind::Quorate, dir.path(), name, &service.client_url(), token)
    };
    runtime().block_on(async {
        let mut client = Client::connect(&service.endpoint()).await;
        client.put(b"/_etcd/registry/tok/_config/size", b"3").await.expect("it takes writes");
    });
    let mut members: Vec<Server> = ["a", "b", "c"].map(|name| join(name, "tok")).into();
    members.iter_mut().for_each(Server::spawn);
    members.iter_mut().for_each(Server::wait_ready);
    runtime().block_on(async {
        let mut first = Client::connect(&members[0].endpoint()).await;
        first.put(b"met", b"yes").await.expect("a cluster of three takes writes");
        let mut last = Client::connect(&members[2].endpoint()).await;
        assert_eq!(last.scan(b"met").await.expect("and answers").count, 1);
    });
    for (name, token, why) in [
        ("d", "tok", "discovery: cluster is full"),
        ("e", "other", "discovery: size key not found"),
    ] {
        let mut late = join(name, token);
        late.spawn();
        assert_eq!(late.wait_exit().code(), Some(1), "{}", late.output());
        assert!(late.output().contains(why), "{}", late.output());
    }
    // A member with a log needs no discovery.
    service.kill();
    members[1].restart();
    assert!(members[1].has_logged("discovery token is ignored since cluster already initialized"));
}

#[test]
fn a_large_log_is_put_aside() {
    let dir = scratch();
    let file = dir.path().join("logs/server.log");
    let outputs = format!("--log-outputs=stderr,{}", file.display());
    let flags = ["--enable-log-rotation", &outputs, "--log-rotation-config-json={\"maxsize\": 1}"];
    let old = vec![b'x'; (1 << 20) - 100];
    std::fs::create_dir_all(file.parent().expect("it has a folder")).expect("writable");
    std::fs::write(&file, &old).expect("writable");
    let mut server = Server::single(Kind::Quorate, dir.path(), &flags);
    server.start();
    let aside = aside(&file);
    assert!(aside.starts_with("server-") && aside.ends_with(".log"), "{aside}");
    let kept = std::fs::read(file.with_file_name(aside)).expect("it is there");
    assert!(kept.starts_with(&old), "what was written stays");
    let new = std::fs::read_to_string(&file).expect("it is there");
    assert!(new.contains("ready to serve client requests"), "{new}");
}

fn aside(file: &Path) -> String {
    let folder = file.parent().expect("it has a folder");
    let names = std::fs::read_dir(folder).expect("the folder is there").flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let others: Vec<_> = names.filter(|name| name != "server.log").collect();
    assert_eq!(others.len(), 1, "{others:?}");
    others[0].clone()
}
