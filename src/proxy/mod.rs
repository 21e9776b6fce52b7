//! The proxies: the sub-commands `gateway start` and `grpc-proxy start` of the server's program, as etcd
//! has them (3.7, `server/proxy`, `server/etcdmain`). They keep no state that matters: one that is
//! lost is replaced by another.
//!
//! * The *gateway* hands bytes on, connection by connection, to members that can be reached.
//! * The *gRPC proxy* speaks gRPC at both ends. Most calls pass through it as they are; ranges may be
//!   answered from a cache, watchers of one range share a watch, and all keys may live below a prefix.
//!
//! Variables (`ETCD_...`) do not count for sub-commands.
//!
//! Reading order: this file (the commands), `flags` (their flags), [`gateway`] with `remotes` (which member
//! is next), [`grpc`].

mod flags;
pub mod gateway;
pub mod grpc;
mod remotes;

use std::net::{IpAddr, SocketAddr};

use crate::config::pflag::Flags;
use crate::config::urls::split_host_port;
use crate::env::Env;

/// What a command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Print this to stdout and exit with 0.
    Print(String),
    Gateway(gateway::Options),
    Grpc(Box<grpc::Options>),
}

/// Whether the program's first argument names a proxy.
pub fn is_command(word: &str) -> bool {
    matches!(word, "gateway" | "grpc-proxy")
}

/// Reads a command line that begins with the command's name. Errors are texts for stderr; the exit
/// code is 1 then.
pub fn parse(arguments: &[String]) -> Result<Command, String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["gateway", "start", ref words @ ..] => gateway_command(words),
        ["grpc-proxy", "start", ref words @ ..] => grpc_command(words),
        // As in etcd, whatever else stands there.
        [command, ..] => Ok(Command::Print(flags::usage(command))),
        [] => Ok(Command::Print(flags::usage(""))),
    }
}

fn gateway_command(words: &[&str]) -> Result<Command, String> {
    let flags = start(words, "gateway", flags::GATEWAY)?;
    match flags.help {
        true => Ok(Command::Print(flags::start_usage("gateway", flags::GATEWAY))),
        false => Ok(Command::Gateway(flags::gateway(&flags))),
    }
}

fn grpc_command(words: &[&str]) -> Result<Command, String> {
    let flags = start(words, "grpc-proxy", flags::GRPC)?;
    match flags.help {
        true => Ok(Command::Print(flags::start_usage("grpc-proxy", flags::GRPC))),
        false => Ok(Command::Grpc(Box::new(flags::grpc(&flags)?))),
    }
}

fn start(words: &[&str], command: &str, table: &[flags::Row]) -> Result<Flags, String> {
    let known: Vec<_> = table.iter().map(|row| (row.name, row.kind)).collect();
    Flags::parse(words, &known)
        .map_err(|why| format!("Error: {why}\n{}", flags::start_usage(command, table)))
}

/// All addresses of the host that is to be listened on, and the one that is: Go's choice for a name.
async fn listen_address(env: &Env, text: &str) -> Result<(Vec<IpAddr>, SocketAddr), String> {
    let bad = || format!("failed to validate listen address: {text}");
    let (host, port) = split_host_port(text).ok_or_else(bad)?;
    let port = port.parse().map_err(|_| bad())?;
    // Go's word for everywhere.
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
        for line in ["gateway", "grpc-proxy", "gateway stop", "grpc-proxy --help"] {
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
}
