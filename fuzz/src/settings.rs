//! What operators and discovery write: flags, variables, the configuration file, tokens, registries.

use std::io;
use std::path::Path;
use std::sync::OnceLock;

use quorate::config::{self, Command};
use quorate::{discovery, member};

use crate::disk::MemDisk;

/// Lines are words of the command line; behind an empty line, variables.
pub fn flags(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else { return };
    let (words, variables) = input.split_once("\n\n").unwrap_or((input, ""));
    let words: Vec<String> = words.lines().map(str::to_owned).collect();
    let variables: Vec<(String, String)> = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (format!("ETCD_{name}"), value.to_owned()))
        .collect();
    let no_file = |_: &str| -> io::Result<Vec<u8>> { Err(io::ErrorKind::NotFound.into()) };
    judge(config::parse(&words, &variables, no_file));
}

/// A configuration file.
pub fn yaml(input: &[u8]) {
    let words = ["--config-file=x".to_owned()];
    judge(config::parse(&words, &[], |_| Ok(input)));
}

fn judge<N, E>(parsed: Result<(Command, N), E>) {
    if let Ok((Command::Run(config), _)) = parsed {
        assert!(config.server.member.election_timeout >= 5 * config.server.member.heartbeat);
        assert!(!config.server.member.heartbeat.is_zero());
        let _ = config.check_first_start();
    }
}

pub fn flag_seeds() -> Vec<Vec<u8>> {
    [
        "--name=a\n--listen-client-urls=http://127.0.0.1:2379\n--advertise-client-urls\nhttp://a:2379",
        "--initial-cluster=a=http://a:2380,b=http://b:2380\n--initial-cluster-state=new\n\nNAME=b\nHEARTBEAT_INTERVAL=100",
        "--auto-compaction-mode=periodic\n--auto-compaction-retention=1h30m\n--quota-backend-bytes=8GB",
        "--auth-token=jwt,pub-key=/a,priv-key=/b,sign-method=RS256,ttl=5m\n--cors=*\n--host-whitelist=a,b",
        "--election-timeout=1000\n--feature-gates=InitialCorruptCheck=true\n--log-outputs=stderr\n-help",
        "--experimental-peer-skip-client-san-verification\n--cipher-suites=TLS_AES_128_GCM_SHA256\n--tls-min-version=TLS1.2",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

pub fn yaml_seeds() -> Vec<Vec<u8>> {
    [
        "name: a\ndata-dir: /tmp/a\nlisten-client-urls: http://127.0.0.1:2379\n",
        "quota-backend-bytes: 8.589934592e+09\nlog-outputs: [stderr]\nclient-transport-security:\n  cert-file: a\n  key-file: b\n",
        "{\"name\": \"a\", \"heartbeat-interval\": 0x64, \"election-timeout\": 1_000}\n",
        "feature-gates: InitialCorruptCheck=true\nauto-compaction-mode: revision\nauto-compaction-retention: \"1000\"\n",
        "&a [*a, {? x : y}, !!int 3, ~, yes, 0o17, .inf]\n--- |\n  text\n...\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// A token of any text; with a signature made right, so that what is inside is reached.
pub fn token(input: &[u8]) {
    const SECRET: &[u8] = b"secret";
    static TOKENS: OnceLock<member::fuzz::Tokens> = OnceLock::new();
    let Ok(text) = std::str::from_utf8(input) else { return };
    let tokens = TOKENS.get_or_init(|| {
        let (disk, key) = (MemDisk::default(), Path::new("/key"));
        disk.put(key, SECRET.to_vec());
        member::fuzz::Tokens::new(&disk, key)
    });
    tokens.read(text, SECRET);
}

pub fn token_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"alg":"HS256","typ":"JWT"}.{"exp":1e10,"revision":7,"username":"root"}"#,
        r#"{"alg":"HS256"}.{"exp":"soon","revision":-1,"username":"a","nbf":3}"#,
        r#"{"alg":"none"}.{}"#,
        "AbCdEfGhIjKlMnOp.42",
        "a.b.c",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// What a discovery service answers: lines of a key and its value, the first the size.
pub fn discovery(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    discovery::fuzz::registry(text);
}

pub fn discovery_seeds() -> Vec<Vec<u8>> {
    [
        "3\n/_etcd/registry/t/members/1 a=http://a:2380\n/_etcd/registry/t/members/2 b=http://b:2380,b=http://c:2380",
        "0\n",
        "1\n/_etcd/registry/t/members/me me=http://a:2380\n/_etcd/registry/t/members/me x",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
