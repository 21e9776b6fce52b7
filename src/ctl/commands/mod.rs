//! The commands, a function each: read the arguments, call the cluster, print the response.
//!
//! | file | commands |
//! |---|---|
//! | [`keys`] | put get del compaction |
//! | [`txn`] | txn |
//! | [`watch`] | watch |
//! | [`history`] | history diff |
//! | [`past`] | get --at, of times |
//! | [`lease`] | lease |
//! | [`session`] | lock elect |
//! | [`endpoint`] | endpoint defrag move-leader |
//! | [`member`] | member downgrade alarm |
//! | [`snapshot`] | snapshot |
//! | [`auth`] | auth user role |
//! | [`mirror`] | make-mirror |
//! | [`mod@bench`] | check |
//! | [`top`] | top |

mod auth;
mod bench;
mod endpoint;
mod history;
mod keys;
mod lease;
mod member;
mod mirror;
mod past;
mod session;
mod snapshot;
mod top;
mod txn;
mod watch;

use super::Context;
use super::cluster::{Cluster, Target};
use super::table::TOOL;
use crate::tool::arguments::{self, Arguments};
use crate::tool::exit::Exit;
use crate::tool::raw;

/// The version of the API that the tool uses, and the release of etcdctl that it follows.
const API_VERSION: &str = "3.7";
const ETCDCTL_VERSION: &str = "3.7.1";

/// Whether the command needs no cluster.
pub(super) fn is_local(arguments: &Arguments) -> bool {
    matches!(arguments.path[..], ["completion" | "manual" | "options" | "version"])
}

/// Whether the command's arguments are keys and values, which may be any bytes.
pub(super) fn takes_bytes(arguments: &Arguments) -> bool {
    match arguments.path[..] {
        [name] => ["put", "get", "del", "watch", "history"].contains(&name),
        ["role", leaf] => ["grant-permission", "revoke-permission"].contains(&leaf),
        _ => false,
    }
}

/// The bytes of an argument.
fn bytes(word: &str) -> Vec<u8> {
    raw::bytes(word).into_owned()
}

/// Runs the command that the arguments name.
pub(super) async fn run(program: &'static str, context: &Context) -> Result<(), Exit> {
    match context.arguments.path[..] {
        ["put"] => keys::put(context).await,
        ["get"] => keys::get(context).await,
        ["del"] => keys::del(context).await,
        ["compaction"] => keys::compaction(context).await,
        ["txn"] => txn::run(context).await,
        ["watch"] => watch::run(context).await,
        ["history"] => history::history(context).await,
        ["diff"] => history::diff(context).await,
        ["top"] => top::run(context).await,
        ["lease", leaf] => lease::run(context, leaf).await,
        ["alarm", leaf] => member::alarm(context, leaf).await,
        ["defrag"] => endpoint::defrag(context).await,
        ["downgrade", leaf] => member::downgrade(context, leaf).await,
        ["endpoint", leaf] => endpoint::run(context, leaf).await,
        ["move-leader"] => endpoint::move_leader(context).await,
        ["member", leaf] => member::run(context, leaf).await,
        ["snapshot", "save"] => snapshot::save(context).await,
        ["lock"] => session::lock(context).await,
        ["elect"] => session::elect(context).await,
        ["auth", leaf] => auth::auth(context, leaf).await,
        ["user", leaf] => auth::user(context, leaf).await,
        ["role", leaf] => auth::role(context, leaf).await,
        ["make-mirror"] => mirror::run(context).await,
        ["check", leaf] => bench::run(context, leaf).await,
        ["completion"] => {
            let script = arguments::completion(&TOOL, program, &context.arguments)?;
            Ok(context.shell.out(&script)?)
        }
        ["manual"] => {
            let page = arguments::manual(&TOOL, program, &context.arguments)?;
            Ok(context.shell.out(&page)?)
        }
        ["options"] => context.printer.text(&arguments::options_help(&TOOL)),
        ["version"] => context.printer.text(&version(program)),
        ref path => Err(Exit::error(format!("command {path:?} is in the table but not served"))),
    }
}

fn version(program: &str) -> String {
    // Scripts read etcdctl's version; the program's own name shows which build this is.
    match program {
        "etcdctl" => format!("etcdctl version: {ETCDCTL_VERSION}\nAPI version: {API_VERSION}\n"),
        _ => {
            let version = env!("CARGO_PKG_VERSION");
            format!(
                "{program} version: {version}\netcdctl version: {ETCDCTL_VERSION}\n\
                 API version: {API_VERSION}\n"
            )
        }
    }
}

impl Context {
    /// A client of the cluster that the global flags name.
    async fn cluster(&self) -> Result<Cluster, Exit> {
        Target::of_flags(self).await?.connect(self).await
    }
}

/// The end of the range of keys that begin with `prefix`; a zero byte, which stands for the end of the
/// key space, when every byte is 0xff.
pub(super) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// An id in hexadecimal, as etcdctl reads members and leases.
fn hex_u64(text: &str) -> Result<u64, String> {
    parse_hex(text, "ParseUint", u64::from_str_radix)
}

fn hex_i64(text: &str) -> Result<i64, String> {
    parse_hex(text, "ParseInt", i64::from_str_radix)
}

fn parse_hex<T>(
    text: &str,
    function: &str,
    parse: fn(&str, u32) -> Result<T, std::num::ParseIntError>,
) -> Result<T, String> {
    number(text, function, parse(text, 16))
}

/// A decimal number, as Go's `strconv` reads it.
fn decimal(text: &str) -> Result<i64, String> {
    number(text, "ParseInt", text.parse())
}

/// Go's error text for a number that does not parse.
fn number<T>(
    text: &str,
    function: &str,
    parsed: Result<T, std::num::ParseIntError>,
) -> Result<T, String> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    parsed.map_err(|error| {
        let why = match error.kind() {
            PosOverflow | NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.{function}: parsing {}: {why}", super::print::quoted(text.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_where_the_next_prefix_begins() {
        assert_eq!(prefix_end(b"a"), b"b");
        assert_eq!(prefix_end(b"a\xff"), b"b");
        assert_eq!(prefix_end(b"\xff\xff"), b"\0");
        assert_eq!(prefix_end(b""), b"\0");
    }

    #[test]
    fn numbers_are_refused_in_gos_words() {
        assert_eq!(hex_i64("1a"), Ok(26));
        assert_eq!(hex_i64("x"), Err("strconv.ParseInt: parsing \"x\": invalid syntax".into()));
        let large = "ffffffffffffffff";
        assert_eq!(hex_u64(large), Ok(u64::MAX));
        assert_eq!(
            hex_i64(large),
            Err(format!("strconv.ParseInt: parsing \"{large}\": value out of range"))
        );
    }
}
