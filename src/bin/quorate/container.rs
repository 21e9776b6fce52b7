//! The program as the entry point of a container's image, where no shell decides what is started: which
//! program the arguments name, what a member without arguments is started with, and which variables of
//! other images are refused. The image sets [`MARK`]; without it nothing here has an effect.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

/// The variable that the image sets.
pub const MARK: &str = "QUORATE_IMAGE";
/// The folder of the image's programs.
const PROGRAMS: &str = "/usr/local/bin";
/// The folder of the data of a member without arguments.
const DATA: &str = "/var/lib/etcd";

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Start {
    /// Go on as a server, or a proxy, with these arguments.
    Server(Vec<String>),
    /// Become another program of the image.
    Other { program: String, arguments: Vec<String> },
    /// Ask the member of this container whether it is well, at this path.
    Health(String),
    /// A variable would be misunderstood.
    Refused(String),
}

/// Decides by arguments and variables only.
pub fn decide(arguments: Vec<String>, variables: &[(String, String)]) -> Start {
    if value(variables, MARK).is_none() {
        return Start::Server(arguments);
    }
    let mut words = arguments.into_iter().peekable();
    let first = words.peek().map(|word| word.strip_prefix("/usr/local/bin/").unwrap_or(word));
    match first {
        Some(tool @ ("etcdctl" | "etcdutl" | "quoratectl" | "quorateutl")) => {
            let program = format!("{PROGRAMS}/{tool}");
            Start::Other { program, arguments: words.skip(1).collect() }
        }
        Some("healthcheck") => Start::Health(words.nth(1).unwrap_or_else(|| "/readyz".to_owned())),
        Some("etcd" | "quorate") => server(words.skip(1).collect(), variables),
        _ => server(words.collect(), variables),
    }
}

fn server(arguments: Vec<String>, variables: &[(String, String)]) -> Start {
    if let Some(why) = refused(variables) {
        return Start::Refused(why);
    }
    if !arguments.is_empty() || value(variables, "ETCD_CONFIG_FILE").is_some() {
        return Start::Server(arguments);
    }
    Start::Server(defaults(variables))
}

/// The flags of a member without arguments: one that is reached from outside of its container. What a
/// variable sets is left to it. Of listening and advertising clients' URLs, the first needs the second.
fn defaults(variables: &[(String, String)]) -> Vec<String> {
    let free = |name| value(variables, name).is_none();
    let mut flags = Vec::new();
    let mut add = |flag: &str, value: &str| flags.extend([flag.to_owned(), value.to_owned()]);
    if free("ETCD_DATA_DIR") {
        add("--data-dir", DATA);
    }
    if free("ETCD_LISTEN_CLIENT_URLS") {
        add("--listen-client-urls", "http://0.0.0.0:2379");
        if free("ETCD_ADVERTISE_CLIENT_URLS") {
            add("--advertise-client-urls", "http://localhost:2379");
        }
    }
    if free("ETCD_LISTEN_PEER_URLS") {
        add("--listen-peer-urls", "http://0.0.0.0:2380");
    }
    flags
}

/// Bitnami's image begins users, backups and recovery by variables. Here that is the operator's: a member
/// that passed over them would serve without the password, or empty.
fn refused(variables: &[(String, String)]) -> Option<String> {
    for name in ["ETCD_ROOT_PASSWORD", "ETCD_ROOT_PASSWORD_FILE"] {
        if value(variables, name).is_some() {
            return Some(format!(
                "{name} is a variable of another image and not served here: start without it, then set \
                 the password with `etcdctl user add root`, `etcdctl user grant-role root root` and \
                 `etcdctl auth enable`"
            ));
        }
    }
    for name in ["ETCD_START_FROM_SNAPSHOT", "ETCD_DISASTER_RECOVERY"] {
        if value(variables, name).is_some_and(is_yes) {
            return Some(format!(
                "{name} is a variable of another image and not served here: restore with `etcdutl \
                 snapshot restore` into the data directory before the start"
            ));
        }
    }
    let none = value(variables, "ALLOW_NONE_AUTHENTICATION");
    none.filter(|value| !is_yes(value)).map(|value| {
        format!(
            "ALLOW_NONE_AUTHENTICATION={value} is not served here: authentication is switched on with \
             `etcdctl auth enable`"
        )
    })
}

fn is_yes(text: &str) -> bool {
    ["yes", "true", "1"].iter().any(|yes| text.eq_ignore_ascii_case(yes))
}

/// A variable that is empty counts as absent, as etcd has it.
fn value<'a>(variables: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = variables.iter().find(|(variable, _)| variable == name);
    found.map(|(_, value)| &**value).filter(|value| !value.is_empty())
}

/// Becomes another program. Returns only when there is no such program.
pub fn become_other(program: &str, arguments: &[String]) -> ExitCode {
    let error = Command::new(program).args(arguments).exec();
    eprintln!("{program}: {error}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    /// In the image, with variables as `NAME=VALUE`.
    fn started(line: &str, variables: &str) -> Start {
        let pairs = words(variables);
        let mut variables = vec![(MARK.to_owned(), "1".to_owned())];
        variables.extend(pairs.iter().map(|pair| {
            let (name, value) = pair.split_once('=').expect("NAME=VALUE");
            (name.to_owned(), value.to_owned())
        }));
        decide(words(line), &variables)
    }

    fn flags(line: &str) -> Start {
        Start::Server(words(line))
    }

    #[test]
    fn without_arguments_a_member_is_reached_from_outside() {
        let usual = "--data-dir /var/lib/etcd --listen-client-urls http://0.0.0.0:2379 \
                     --advertise-client-urls http://localhost:2379 \
                     --listen-peer-urls http://0.0.0.0:2380";
        for line in ["", "etcd", "/usr/local/bin/etcd", "quorate", "/usr/local/bin/quorate"] {
            assert_eq!(started(line, ""), flags(usual), "{line:?}");
        }
        assert_eq!(started("", "ETCD_NAME=m1 ETCD_DATA_DIR="), flags(usual));
    }

    #[test]
    fn what_a_variable_sets_is_not_set_twice() {
        let all =
            "ETCD_DATA_DIR=/d ETCD_LISTEN_CLIENT_URLS=http://a:1 ETCD_LISTEN_PEER_URLS=http://a:2";
        assert_eq!(started("", all), flags(""));
        let advertised = "ETCD_ADVERTISE_CLIENT_URLS=http://a:1 ETCD_DATA_DIR=/d";
        let listens =
            "--listen-client-urls http://0.0.0.0:2379 --listen-peer-urls http://0.0.0.0:2380";
        assert_eq!(started("", advertised), flags(listens));
        assert_eq!(started("", "ETCD_CONFIG_FILE=/c"), flags(""));
    }

    #[test]
    fn with_arguments_nothing_is_added() {
        assert_eq!(started("--name m1", ""), flags("--name m1"));
        assert_eq!(started("/usr/local/bin/etcd --name etcd", ""), flags("--name etcd"));
        assert_eq!(started("grpc-proxy start", ""), flags("grpc-proxy start"));
    }

    #[test]
    fn the_first_argument_names_the_program() {
        for (line, program) in [
            ("etcdctl get k", "/usr/local/bin/etcdctl"),
            ("/usr/local/bin/etcdctl get k", "/usr/local/bin/etcdctl"),
            ("etcdutl get k", "/usr/local/bin/etcdutl"),
            ("quoratectl get k", "/usr/local/bin/quoratectl"),
        ] {
            let other = Start::Other { program: program.to_owned(), arguments: words("get k") };
            assert_eq!(started(line, "ETCD_ROOT_PASSWORD=x"), other, "{line}");
        }
        assert_eq!(started("healthcheck", ""), Start::Health("/readyz".to_owned()));
        assert_eq!(started("healthcheck /livez", ""), Start::Health("/livez".to_owned()));
    }

    #[test]
    fn variables_of_another_image_are_refused_by_name() {
        for (variables, name) in [
            ("ETCD_ROOT_PASSWORD=x", "ETCD_ROOT_PASSWORD "),
            ("ETCD_ROOT_PASSWORD_FILE=x", "ETCD_ROOT_PASSWORD_FILE "),
            ("ETCD_START_FROM_SNAPSHOT=yes", "ETCD_START_FROM_SNAPSHOT "),
            ("ETCD_DISASTER_RECOVERY=True", "ETCD_DISASTER_RECOVERY "),
            ("ALLOW_NONE_AUTHENTICATION=no", "ALLOW_NONE_AUTHENTICATION=no "),
        ] {
            let Start::Refused(why) = started("--name m1", variables) else {
                panic!("{variables}")
            };
            assert!(why.starts_with(name), "{why}");
        }
        let served = "ALLOW_NONE_AUTHENTICATION=yes ETCD_DISASTER_RECOVERY=no ETCD_ROOT_PASSWORD=";
        assert_eq!(started("--name m1", served), flags("--name m1"));
    }

    #[test]
    fn outside_of_an_image_arguments_are_what_they_are() {
        let variables = [("ETCD_ROOT_PASSWORD".to_owned(), "x".to_owned())];
        assert_eq!(decide(words("etcdctl get k"), &variables), flags("etcdctl get k"));
        assert_eq!(decide(words(""), &variables), flags(""));
    }
}
