//! The proxies: the sub-commands `gateway start` and `grpc-proxy start` of the server's program, as etcd
//! has them (3.7, `server/proxy`, `server/etcdmain`). They keep no state that matters: one that is
//! lost is replaced by another.
//!
//! * The *gateway* forwards connections to members that can be reached.
//! * The *gRPC proxy* is a gRPC server and client. Most calls pass through it unchanged; ranges may be
//!   answered from a cache, watchers of one range share a watch, and all keys may have a common prefix.
//!
//! Environment variables (`ETCD_...`) are ignored by sub-commands.
//!
//! Reading order: this file (command lines), `flags`, [`gateway`] with `remotes` (choice of a member),
//! [`grpc`].

mod flags;
pub mod gateway;
pub mod grpc;
mod remotes;

use std::net::{IpAddr, SocketAddr};

use crate::config::pflag::{Flags, Kind};
use crate::config::urls::split_host_port;
use crate::env::Env;

/// The action of a command line.
#[derive(Debug)]
pub enum Command {
    /// Print this to stdout and exit with 0.
    Print(String),
    Gateway(gateway::Options),
    Grpc(Box<grpc::Options>),
}

/// Returns whether the program's first argument names a proxy.
pub fn is_command(word: &str) -> bool {
    matches!(word, "gateway" | "grpc-proxy")
}

/// Parses a command line that begins with the command's name. Errors are texts for stderr, with exit code 1.
pub fn parse(arguments: &[String]) -> Result<Command, String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (command, words) =
        words.split_first().map_or(("", &words[..]), |(first, rest)| (*first, rest));
    let table = match command {
        "gateway" => flags::GATEWAY,
        "grpc-proxy" => flags::GRPC,
        _ => return Err(flags::usage(command)),
    };
    let Some(at) = word(words, table) else {
        return match words.first() {
            None | Some(&("-h" | "--help" | "help")) => Ok(Command::Print(flags::usage(command))),
            Some(flag) => {
                let flag = flag.split('=').next().unwrap_or_default();
                Err(format!("Error: unknown flag: {flag}\n{}", flags::usage(command)))
            }
        };
    };
    match words[at] {
        "start" => {}
        "help" => return Ok(Command::Print(flags::usage(command))),
        other => {
            let usage = flags::usage(command);
            return Err(format!(
                "Error: unknown command {other:?} for \"etcd {command}\"\n{usage}"
            ));
        }
    }
    let words = [&words[..at], &words[at + 1..]].concat();
    let known: Vec<_> = table.iter().map(|row| (row.name, row.kind)).collect();
    let found = Flags::parse(&words, &known)
        .map_err(|why| format!("Error: {why}\n{}", flags::start_usage(command, table)))?;
    Ok(match command {
        _ if found.help => Command::Print(flags::start_usage(command, table)),
        "gateway" => Command::Gateway(flags::gateway(&found)),
        _ => Command::Grpc(Box::new(flags::grpc(&found)?)),
    })
}

/// Returns the position of the sub-command: the first word that is neither a flag nor a flag's value.
fn word(words: &[&str], table: &[flags::Row]) -> Option<usize> {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let Some(flag) = word.strip_prefix("--") else {
            match word.starts_with('-') {
                true => at += 1,
                false => return Some(at),
            }
            continue;
        };
        let row = table.iter().find(|row| row.name == flag);
        let takes_value = row.is_some_and(|row| row.kind != Kind::Bool);
        at += if takes_value { 2 } else { 1 };
    }
    None
}

/// Resolves the address to listen on. Returns all addresses of the host and the one that Go would choose.
async fn listen_address(env: &Env, text: &str) -> Result<(Vec<IpAddr>, SocketAddr), String> {
    let bad = || format!("failed to validate listen address: {text}");
    let (host, port) = split_host_port(text).ok_or_else(bad)?;
    let port = port.parse().map_err(|_| bad())?;
    // Go's spelling of the unspecified address.
    let host = if host.is_empty() { "::" } else { host };
    let all = env.net.addresses_of(host.to_owned()).await;
    let all = all.map_err(|_| format!("failed to resolve listen host: {host}"))?;
    let first = all.iter().find(|address| address.is_ipv4()).or(all.first());
    let first = *first.ok_or_else(|| format!("failed to resolve listen host: {host}"))?;
    Ok((all, SocketAddr::new(first, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        assert!(is_command(&words[0]));
        parse(&words)
    }

    #[test]
    fn commands_are_etcds() {
        for line in ["gateway", "grpc-proxy", "gateway --help", "grpc-proxy -h"] {
            let Ok(Command::Print(text)) = parsed(line) else { panic!("{line}") };
            assert!(text.contains(" start [flags]"), "{text}");
        }
        let Ok(Command::Print(text)) = parsed("grpc-proxy start -h") else { panic!("a text") };
        assert!(text.contains("  --namespace ''\n"), "{text}");
        let line = "gateway start --endpoints=http://a:1,b:2 --endpoints c:3 --retry-delay 1s";
        let Ok(Command::Gateway(options)) = parsed(line) else { panic!("a gateway") };
        assert_eq!(options.endpoints, ["http://a:1", "b:2", "c:3"]);
        let error = parsed("grpc-proxy start --nothing").expect_err("there is no such flag");
        assert!(error.starts_with("Error: unknown flag: --nothing\nUsage:"), "{error}");
    }

    #[test]
    fn flags_are_read_before_and_behind_the_word_start() {
        for line in [
            "gateway start --endpoints=a:1,b:2 --listen-addr c:3",
            "gateway --endpoints=a:1,b:2 start --listen-addr c:3",
            "gateway --listen-addr c:3 --insecure-discovery start --endpoints a:1,b:2",
            "gateway --endpoints a:1,b:2 --listen-addr=c:3 start",
        ] {
            let Ok(Command::Gateway(options)) = parsed(line) else { panic!("{line}") };
            assert_eq!((options.listen.as_str(), options.endpoints.len()), ("c:3", 2), "{line}");
        }
        let line = "grpc-proxy --listen-addr start start --namespace=n/";
        let Ok(Command::Grpc(options)) = parsed(line) else { panic!("{line}") };
        assert_eq!((options.listen.as_str(), options.namespace.as_str()), ("start", "n/"));
    }

    #[test]
    fn wrong_command_lines_are_errors_with_the_usage() {
        for (line, text) in [
            ("gateway stop", "Error: unknown command \"stop\" for \"etcd gateway\"\n"),
            (
                "grpc-proxy --debug stop",
                "Error: unknown command \"stop\" for \"etcd grpc-proxy\"\n",
            ),
            ("gateway --endpoints=a:1", "Error: unknown flag: --endpoints\n"),
            ("grpc-proxy --listen-addr start", "Error: unknown flag: --listen-addr\n"),
        ] {
            let error = parsed(line).expect_err(line);
            assert!(error.starts_with(text), "{line}: {error}");
            assert!(error.contains(" start [flags]"), "{line}: {error}");
        }
    }
}
