//! `--config-file`: YAML, and so JSON, with a key for nearly every flag. The text is turned into flags
//! and set as if it stood on a command line; all rules are there. etcd's texts, as Go's `encoding/json`
//! words them; unknown keys are passed over, as etcd does.

use serde_json::Value;

use super::flags::{self, Flag, Kind, Takes};
use super::{ConfigError, Values, go, yaml};

/// The keys that are not simply the name of a flag: which mapping they are in, the key, the flag.
const NESTED: &[(&[&str], &str, &str)] = &[
    (CLIENT, "cert-file", "cert-file"),
    (CLIENT, "key-file", "key-file"),
    (CLIENT, "client-cert-file", "client-cert-file"),
    (CLIENT, "client-key-file", "client-key-file"),
    (CLIENT, "client-cert-auth", "client-cert-auth"),
    (CLIENT, "trusted-ca-file", "trusted-ca-file"),
    (CLIENT, "auto-tls", "auto-tls"),
    (CLIENT, "allowed-hostname", "client-cert-allowed-hostname"),
    (PEER, "cert-file", "peer-cert-file"),
    (PEER, "key-file", "peer-key-file"),
    (PEER, "client-cert-file", "peer-client-cert-file"),
    (PEER, "client-key-file", "peer-client-key-file"),
    (PEER, "client-cert-auth", "peer-client-cert-auth"),
    (PEER, "trusted-ca-file", "peer-trusted-ca-file"),
    (PEER, "auto-tls", "peer-auto-tls"),
    (PEER, "allowed-cn", "peer-cert-allowed-cn"),
    (PEER, "allowed-hostname", "peer-cert-allowed-hostname"),
    (PEER, "skip-client-san-verification", "peer-skip-client-san-verification"),
    (SOCKETS, "reuse-port", "socket-reuse-port"),
    (SOCKETS, "reuse-address", "socket-reuse-address"),
    (&[DISCOVERY], "token", "discovery-token"),
    (&[DISCOVERY, "client"], "endpoints", "discovery-endpoints"),
    (&[DISCOVERY, "client"], "request-timeout", "discovery-request-timeout"),
    (&[DISCOVERY, "client"], "dial-timeout", "discovery-dial-timeout"),
    (&[DISCOVERY, "client"], "keepalive-time", "discovery-keepalive-time"),
    (&[DISCOVERY, "client"], "keepalive-timeout", "discovery-keepalive-timeout"),
    (&[DISCOVERY, "client", "secure"], "cert", "discovery-cert"),
    (&[DISCOVERY, "client", "secure"], "key", "discovery-key"),
    (&[DISCOVERY, "client", "secure"], "cacert", "discovery-cacert"),
    (&[DISCOVERY, "client", "secure"], "insecure-transport", "discovery-insecure-transport"),
    (
        &[DISCOVERY, "client", "secure"],
        "insecure-skip-tls-verify",
        "discovery-insecure-skip-tls-verify",
    ),
    (&[DISCOVERY, "client", "auth"], "username", "discovery-user"),
    (&[DISCOVERY, "client", "auth"], "password", "discovery-password"),
];
const CLIENT: &[&str] = &["client-transport-security"];
const PEER: &[&str] = &["peer-transport-security"];
const SOCKETS: &[&str] = &["socket-options"];
const DISCOVERY: &str = "discovery-config";
/// Mappings, and what Go calls their types.
const MAPPINGS: &[(&[&str], &str)] = &[
    (CLIENT, "embed.securityConfig"),
    (PEER, "embed.securityConfig"),
    (SOCKETS, "transport.SocketOpts"),
    (&[DISCOVERY], "v3discovery.DiscoveryConfig"),
    (&[DISCOVERY, "client"], "clientv3.ConfigSpec"),
    (&[DISCOVERY, "client", "secure"], "clientv3.SecureConfig"),
    (&[DISCOVERY, "client", "auth"], "clientv3.AuthConfig"),
];
/// Flags without a key.
const KEYLESS: &[&str] = &[
    "raft-read-timeout",
    "raft-write-timeout",
    "client-crl-file",
    "peer-crl-file",
    "discovery-fallback",
    "config-file",
    "version",
];
/// Flags that take URLs: Go reads a string first and ends the process when it does not like it.
const URLS: &[&str] = &[
    "listen-peer-urls",
    "listen-client-urls",
    "listen-client-http-urls",
    "initial-advertise-peer-urls",
    "advertise-client-urls",
    "listen-metrics-urls",
];

/// Other flags that an empty text leaves as they are.
const OPTIONAL: &[&str] = &["cors", "host-whitelist"];

/// Every value as the file gives it, on top of the defaults.
pub(super) fn read(bytes: &[u8]) -> Result<Values, ConfigError> {
    let text = decode(bytes).map_err(|why| {
        ConfigError::Invalid(format!("error converting YAML to JSON: yaml: {why}"))
    })?;
    let document = yaml::parse(&text).map_err(ConfigError::Invalid)?;
    if !document.is_null() && !document.is_object() {
        let found = kind(&document);
        return Err(unmarshal(&format!("{found} into Go value of type embed.configYAML")));
    }
    check_mappings(&document)?;
    let mut values = flags::defaults();
    for flag in flags::all().filter(|flag| !matches!(flag.kind, Kind::Ignored)) {
        if let Some((path, node)) = node_of(&document, flag) {
            set(&mut values, flag, &path, node)?;
        }
    }
    // There is no flag for it.
    let names = get(&document, CLIENT[0]).and_then(|client| get(client, "allowed-cn"));
    if let Some(names) = names.and_then(Value::as_array) {
        let names = names.iter().filter_map(|name| name.as_str().map(str::to_owned));
        values.client_tls.allowed_cns = names.collect();
    }
    Ok(values)
}

/// The text of a file in UTF-8, or in UTF-16 if it begins with a byte-order mark (YAML 1.1, section 5.2).
fn decode(bytes: &[u8]) -> Result<String, &'static str> {
    let units = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
        let text = String::from_utf16(&units).ok().filter(|_| rest.is_empty());
        text.ok_or("incomplete UTF-16 character")
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => units(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => units(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => {
            String::from_utf8(rest.to_vec()).map_err(|_| "invalid leading UTF-8 octet")
        }
    }
}

/// The node of a flag, and the path to it; none when the file does not have it, or has it as null.
fn node_of<'a>(document: &'a Value, flag: &Flag) -> Option<(String, &'a Value)> {
    let nested = NESTED.iter().find(|(_, _, name)| *name == flag.name);
    let (path, key) = match nested {
        Some((path, key, _)) => (*path, *key),
        None if KEYLESS.contains(&flag.name) => return None,
        None => (&[][..], flag.name),
    };
    let node = path.iter().try_fold(document, |node, key| get(node, key))?;
    Some((joined(path, key), get(node, key)?))
}

/// As `encoding/json` finds keys: one that is written so, or else one that differs in case only.
fn get<'a>(node: &'a Value, key: &str) -> Option<&'a Value> {
    let mapping = node.as_object()?;
    let alike = || mapping.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
    let found = mapping.get(key).or_else(|| alike().map(|(_, value)| value));
    found.filter(|value| !value.is_null())
}

fn set(values: &mut Values, flag: &Flag, path: &str, node: &Value) -> Result<(), ConfigError> {
    let text = literal(flag, path, node)?;
    // What is empty is as good as left out: Go's zero value.
    let optional = is_url(flag) || OPTIONAL.contains(&flag.name) || flag.takes() != Takes::Text;
    if text.is_empty() && optional {
        return Ok(());
    }
    flag.set(values, &text).map_err(|why| {
        if is_url(flag) {
            ConfigError::Plain(format!("unexpected error setting up {}: {why}", url_name(flag)))
        } else if flag.name == "initial-cluster-state" {
            ConfigError::Invalid(format!("unexpected clusterState {}", go::quote(&text)))
        } else if matches!(flag.takes(), Takes::Uint | Takes::Int) {
            mismatch(&format!("number {text}"), path, flag)
        } else {
            ConfigError::Invalid(why)
        }
    })
}

/// What would stand on a command line.
fn literal(flag: &Flag, path: &str, node: &Value) -> Result<String, ConfigError> {
    let text = match (flag.takes(), node) {
        (Takes::Text, Value::String(text)) => text.clone(),
        (Takes::Bool, Value::Bool(value)) => value.to_string(),
        (Takes::Int | Takes::Uint, Value::Number(number)) => number.to_string(),
        (Takes::Duration, Value::Number(nanos)) if nanos.is_i64() => format!("{nanos}ns"),
        (Takes::List, Value::Array(parts)) => {
            let text = |part: &Value| match part {
                Value::String(text) => Ok(text.clone()),
                other => Err(mismatch_of(kind(other), path, "string")),
            };
            parts.iter().map(text).collect::<Result<Vec<_>, _>>()?.join(",")
        }
        (Takes::Duration, Value::Number(number)) => {
            return Err(mismatch(&format!("number {number}"), path, flag));
        }
        (_, node) => return Err(mismatch(kind(node), path, flag)),
    };
    // To Go these are the same as absent keys.
    match (flag.name, text.as_str()) {
        ("initial-cluster-state", "") => Ok("new".into()),
        ("self-signed-cert-validity", "0") => Ok("1".into()),
        // In a file any text is taken, that of older releases, too.
        ("v2-deprecation", _) => Ok(String::new()),
        _ => Ok(text),
    }
}

/// Where there must be mappings, there are.
fn check_mappings(document: &Value) -> Result<(), ConfigError> {
    for (path, of) in MAPPINGS {
        let Some(node) = path.iter().try_fold(document, |node, key| get(node, key)) else {
            continue;
        };
        if !node.is_object() {
            return Err(mismatch_of(kind(node), &path.join("."), of));
        }
    }
    Ok(())
}

fn joined(path: &[&str], key: &str) -> String {
    path.iter().copied().chain([key]).collect::<Vec<_>>().join(".")
}

fn mismatch(found: &str, path: &str, flag: &Flag) -> ConfigError {
    let of = match flag.takes() {
        Takes::Bool => "bool",
        Takes::Text => "string",
        Takes::Int if flag.name == "quota-backend-bytes" => "int64",
        Takes::Int => "int",
        Takes::Uint if flag.name == "max-concurrent-streams" => "uint32",
        Takes::Uint if flag.name.starts_with("snapshot-") => "uint64",
        Takes::Uint => "uint",
        Takes::Duration => "time.Duration",
        Takes::List => "[]string",
    };
    mismatch_of(found, path, of)
}

/// Go names the innermost mapping's type, then the embedded struct that the key belongs to, then the
/// whole path.
fn mismatch_of(found: &str, path: &str, of: &str) -> ConfigError {
    let inside = |mapping: &[&str]| path.starts_with(&format!("{}.", mapping.join(".")));
    let outer = MAPPINGS.iter().rfind(|(mapping, _)| inside(mapping));
    let outer = outer.and_then(|(_, of)| of.split('.').nth(1)).unwrap_or("configYAML");
    let first = path.split('.').next().unwrap_or_default();
    let own = [CLIENT[0], PEER[0], "cors", "host-whitelist", "feature-gates"];
    let embedded =
        if own.contains(&first) || URLS.contains(&first) { "configJSON" } else { "Config" };
    unmarshal(&format!("{found} into Go struct field {outer}.{embedded}.{path} of type {of}"))
}

fn unmarshal(what: &str) -> ConfigError {
    ConfigError::Invalid(format!(
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {what}"
    ))
}

/// What JSON calls it.
pub(super) fn kind(node: &Value) -> &'static str {
    match node {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_url(flag: &Flag) -> bool {
    URLS.contains(&flag.name)
}

/// etcd names another flag for one of them.
fn url_name(flag: &Flag) -> &'static str {
    match flag.name {
        "advertise-client-urls" => "advertise-peer-urls",
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Command, Config, Notice, parse};
    use super::*;
    use crate::member::InitialState;

    fn run(line: &str, text: &str) -> Result<(Config, Vec<Notice>), ConfigError> {
        let line: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let variables = [("ETCD_NAME".to_owned(), "variable".to_owned())];
        let read = |path: &str| {
            assert_eq!(path, "c.yml");
            Ok(text.to_owned())
        };
        match parse(&line, &variables, read)? {
            (Command::Run(config), notices) => Ok((*config, notices)),
            (Command::Print(text), _) => panic!("{line:?} printed {text}"),
        }
    }

    fn invalid(text: &str) -> String {
        match run("--config-file c.yml", text) {
            Err(ConfigError::Invalid(why)) => why,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn every_key_is_a_flags() {
        let names = NESTED.iter().map(|(_, _, name)| name).chain(KEYLESS);
        let names = names.chain(URLS).chain(OPTIONAL);
        for name in names {
            assert!(flags::find(name).is_some(), "{name} is no flag");
        }
        let mappings = NESTED.iter().map(|(path, ..)| path);
        for path in mappings {
            assert!(MAPPINGS.iter().any(|(mapping, _)| mapping == path), "{path:?}");
        }
    }

    #[test]
    fn a_file_is_all_that_counts() {
        let text = "name: m1\nheartbeat-interval: 50\nunknown: x\nPRE-VOTE: no\nwal-dir:\n\
                    listen-client-urls: http://127.0.0.1:1,http://127.0.0.1:2\n\
                    grpc-keepalive-interval: 60000000000\nlog-outputs: [stderr]\n\
                    initial-cluster: m1=http://localhost:2380\ninitial-cluster-state: ''\n";
        let line = "--name flag --election-timeout 1 --config-file c.yml";
        let (config, notices) = run(line, text).expect("a valid file");
        assert_eq!(config.server.member.name, "m1");
        assert_eq!(config.server.member.heartbeat, Duration::from_millis(50));
        assert_eq!(config.server.member.election_timeout, Duration::from_secs(1));
        assert_eq!(config.server.keep_alive_interval, Duration::from_secs(60));
        assert!(
            !config.server.member.pre_vote
                && config.server.member.wal_dir.is_none()
                && config.server.member.initial_state == InitialState::New
        );
        assert_eq!(config.server.listen_client.len(), 2);
        // Unlike on a command line, what is advertised keeps its default.
        assert_eq!(config.server.member.advertise_client_urls[0], "http://localhost:2379");
        assert!(notices.contains(&Notice::LoadedFile("c.yml".into())));
        assert!(!notices.iter().any(|notice| matches!(notice, Notice::UsedVariable { .. })));
        let (empty, _) = run(line, "").expect("a file may say nothing");
        assert_eq!(empty.initial_cluster.to_string(), "default=http://localhost:2380");
    }

    #[test]
    fn mappings_hold_what_flags_hold() {
        let text = "client-transport-security:\n  cert-file: c.pem\n  key-file: k.pem\n  \
                    allowed-hostname: [a, b]\npeer-transport-security: {allowed-cn: [x], \
                    skip-client-san-verification: true}\n";
        let (config, _) = run("--config-file c.yml", text).expect("a valid file");
        assert_eq!(config.server.tls.cert_file.to_str(), Some("c.pem"));
        assert_eq!(config.server.tls.allowed_hostnames, ["a", "b"]);
        assert_eq!(config.server.member.peer_tls.allowed_cns, ["x"]);
        assert!(config.server.member.peer_tls.skip_client_san_verification);
    }

    #[test]
    fn http_and_checks_are_set_by_a_file() {
        let text = "listen-client-http-urls: http://127.0.0.1:7\nenable-grpc-gateway: false\n\
                    cors: http://b:1,http://a:2\nhost-whitelist: m1,m2\nmetrics: extensive\n\
                    corrupt-check-time: 1000000000\ncompact-hash-check-time: 2000000000\n\
                    feature-gates: CompactHashCheck=true,LeaseCheckpoint=true\n";
        let (config, _) = run("--config-file c.yml", text).expect("a valid file");
        assert_eq!(config.server.listen_client_http.len(), 1);
        assert!(!config.server.gateway && config.server.time_calls);
        assert_eq!(Vec::from_iter(&config.server.access.origins), ["http://a:2", "http://b:1"]);
        assert_eq!(Vec::from_iter(&config.server.access.hosts), ["m1", "m2"]);
        assert_eq!(config.server.member.corrupt_check_time, Duration::from_secs(1));
        assert_eq!(config.server.member.compact_hash_check_time, Duration::from_secs(2));
        assert!(
            config.server.member.compact_hash_check
                && config.server.member.lease_checkpoint_interval.is_some()
        );
        assert!(!config.server.member.initial_corrupt_check);
        let (config, _) = run("--config-file c.yml", "cors: ''\nhost-whitelist: ''\n")
            .expect("both may be empty");
        assert!(
            config.server.access.origins.contains("*") && config.server.access.hosts.contains("*")
        );
        assert_eq!(
            invalid("compact-hash-check-time: 0"),
            "--compact-hash-check-time must be >0 (set to 0s)"
        );
    }

    /// As etcd 3.7.3 answers to these files.
    #[test]
    fn what_is_wrong_has_etcds_text() {
        let cannot = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal ";
        let cases = [
            (
                "heartbeat-interval: x",
                "string",
                "configYAML.Config.heartbeat-interval of type uint",
            ),
            (
                "heartbeat-interval: -1",
                "number -1",
                "configYAML.Config.heartbeat-interval of type uint",
            ),
            (
                "heartbeat-interval: 1.5",
                "number 1.5",
                "configYAML.Config.heartbeat-interval of type uint",
            ),
            ("name: [a]", "array", "configYAML.Config.name of type string"),
            ("name: 1", "number", "configYAML.Config.name of type string"),
            ("log-outputs: x", "string", "configYAML.Config.log-outputs of type []string"),
            ("pre-vote: 1", "number", "configYAML.Config.pre-vote of type bool"),
            ("pre-vote: \"true\"", "string", "configYAML.Config.pre-vote of type bool"),
            (
                "grpc-keepalive-interval: 10s",
                "string",
                "configYAML.Config.grpc-keepalive-interval of type time.Duration",
            ),
            (
                "client-transport-security: x",
                "string",
                "configYAML.configJSON.client-transport-security of type embed.securityConfig",
            ),
            (
                "client-transport-security:\n  client-cert-auth: x",
                "string",
                "securityConfig.configJSON.client-transport-security.client-cert-auth of type bool",
            ),
        ];
        let more = [
            (
                "listen-peer-urls: 1",
                "number",
                "configYAML.configJSON.listen-peer-urls of type string",
            ),
            ("cors: 1", "number", "configYAML.configJSON.cors of type string"),
            ("feature-gates: [x]", "array", "configYAML.configJSON.feature-gates of type string"),
            (
                "socket-options: {reuse-port: 1}",
                "number",
                "SocketOpts.Config.socket-options.reuse-port of type bool",
            ),
            (
                "discovery-config: {client: {secure: {cert: 1}}}",
                "number",
                "SecureConfig.Config.discovery-config.client.secure.cert of type string",
            ),
            (
                "discovery-config: {client: 1}",
                "number",
                "DiscoveryConfig.Config.discovery-config.client of type clientv3.ConfigSpec",
            ),
        ];
        for (text, found, wanted) in cases.into_iter().chain(more) {
            let wanted = format!("{cannot}{found} into Go struct field {wanted}");
            assert_eq!(invalid(text), wanted, "{text}");
        }
        assert_eq!(invalid("- a"), format!("{cannot}array into Go value of type embed.configYAML"));
        assert_eq!(invalid("initial-cluster-state: x"), "unexpected clusterState \"x\"");
        assert_eq!(invalid("feature-gates: X=true"), "unrecognized feature gate: X");
        assert_eq!(invalid("v2-deprecation: gone\nauto-compaction-mode: x"), {
            "unknown auto-compaction-mode \"x\""
        });
        let url = run("--config-file c.yml", "listen-client-urls: foo").expect_err("no URL");
        let text = "unexpected error setting up listen-client-urls: URL scheme must be http, https, \
                    unix, or unixs: foo";
        assert_eq!(url, ConfigError::Plain(text.into()));
    }

    #[test]
    fn files_of_other_encodings_and_older_releases_are_read() {
        let quota = |text: &[u8]| {
            let words = ["--config-file".to_owned(), "c.yml".to_owned()];
            match parse(&words, &[], |_| Ok(text)).expect("a valid file") {
                (Command::Run(config), _) => config.server.member.quota_bytes,
                (Command::Print(text), _) => panic!("it printed {text}"),
            }
        };
        // As Helm writes a number that is not a text.
        let text = "name: \u{e9}\nquota-backend-bytes: 8.589934592e+09\nv2-deprecation: not-yet\n";
        let units: Vec<u16> = std::iter::once(0xfeff).chain(text.encode_utf16()).collect();
        let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        let marked = ["\u{feff}", text].concat();
        for bytes in [text.as_bytes(), marked.as_bytes(), &little, &big] {
            assert_eq!(quota(bytes), Some(8_589_934_592));
        }
        assert_eq!(invalid("quota-backend-bytes: 8.5"), {
            "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal number 8.5 into Go \
             struct field configYAML.Config.quota-backend-bytes of type int64"
        });
        assert_eq!(decode(&little[..5]), Err("incomplete UTF-16 character"));
        assert_eq!(decode(b"name: \xff"), Err("invalid leading UTF-8 octet"));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let line = ["--config-file=nope.yml".to_owned()];
        let gone = |_: &str| Err::<String, _>(std::io::Error::from_raw_os_error(2));
        let error = parse(&line, &[], gone).expect_err("there is no file");
        let text = "open nope.yml: no such file or directory";
        assert_eq!(error, ConfigError::Invalid(text.into()));
        let variable = [("ETCD_CONFIG_FILE".to_owned(), "nope.yml".to_owned())];
        let error = parse(&[], &variable, gone).expect_err("there is no file");
        assert_eq!(error, ConfigError::Invalid(text.into()));
    }
}
