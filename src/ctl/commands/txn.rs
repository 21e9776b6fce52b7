//! `txn`: compares and two lists of requests from standard input, a line each, an empty line behind each
//! list.

use quorate_proto::etcdserverpb::{
    Compare, RequestOp, TxnRequest, compare::CompareResult, compare::CompareTarget,
    compare::TargetUnion, request_op::Request,
};

use super::{bytes, decimal, hex_i64, keys};
use crate::client::Client;
use crate::ctl::Context;
use crate::ctl::print::quoted;
use crate::ctl::shell::Shell;
use crate::ctl::table::REQUESTS;
use crate::tool::arguments::{self, Wanted};
use crate::tool::exit::Exit;
use crate::tool::raw;

pub async fn run(context: &Context) -> Result<(), Exit> {
    if !context.arguments.words().is_empty() {
        return Err(Exit::arguments("txn command does not accept argument"));
    }
    let cluster = context.cluster().await?;
    let prompt = |text: &str| match context.arguments.bool("interactive") {
        true => context.printer.text(&format!("{text}\n")),
        false => Ok(()),
    };
    let shell = &*context.shell;
    prompt("compares:")?;
    let compare = list(shell, compare)?;
    prompt("success requests (get, put, del):")?;
    let success = list(shell, operation)?;
    prompt("failure requests (get, put, del):")?;
    let failure = list(shell, operation)?;
    let request = TxnRequest { compare, success, failure };
    let call = async |client: Client| client.kv().txn(request.clone()).await;
    context.printer.txn(&cluster.call_unlimited(call).await?)
}

fn list<T>(shell: &dyn Shell, parse: impl Fn(&str) -> Result<T, Exit>) -> Result<Vec<T>, Exit> {
    let mut items = Vec::new();
    loop {
        let line = shell.read_line()?;
        if !line.ends_with('\n') {
            return Err(Exit::new(Exit::INPUT, "EOF"));
        }
        match line.trim() {
            "" => return Ok(items),
            line => items.push(parse(line)?),
        }
    }
}

/// The parts of `"KEY") OPERATOR "VALUE"`, as far as they are there.
#[derive(Default)]
struct Scanned<'a> {
    key: Vec<u8>,
    operator: &'a str,
    value: Option<Vec<u8>>,
}

/// Reads as Go's library scans the format `%q) %s %q`: a space in it stands for one or more.
fn scan(text: &str) -> Scanned<'_> {
    let mut scanned = Scanned::default();
    let Some((key, rest)) = string(text.trim_start()) else { return scanned };
    scanned.key = key;
    let Some(rest) = rest.strip_prefix(')').filter(|rest| rest.starts_with(char::is_whitespace))
    else {
        return scanned;
    };
    let rest = rest.trim_start();
    let (operator, rest) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
    scanned.operator = operator;
    scanned.value = string(rest.trim_start()).map(|(value, _)| value);
    scanned
}

/// `TARGET("KEY") OPERATOR "VALUE"`.
fn compare(line: &str) -> Result<Compare, Exit> {
    let malformed =
        |got: &str| Exit::new(Exit::INPUT, format!("malformed comparison: {line}{got}"));
    let (target, rest) = line.split_once('(').ok_or_else(|| malformed(""))?;
    let Scanned { key, operator, value } = scan(rest);
    let Some(value) = value else {
        return Err(malformed(&format!("; got {target}({}) {operator} \"\"", quoted(&key))));
    };
    let result = match operator {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        _ => return Err(Exit::new(Exit::INPUT, format!("Unknown result op {operator}"))),
    };
    let text = String::from_utf8_lossy(&value);
    let invalid = |_| Exit::new(Exit::INPUT, format!("invalid txn compare request: {line}"));
    let number = || decimal(&text).map_err(invalid);
    let (target, union) = match target {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number()?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(value.clone().into())),
        // In hexadecimal, as leases are shown.
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(hex_i64(&text).map_err(invalid)?)),
        target => {
            let why = format!("malformed comparison: {line} (unknown target {target})");
            return Err(Exit::new(Exit::INPUT, why));
        }
    };
    Ok(Compare {
        result: result as i32,
        target: target as i32,
        key: key.into(),
        target_union: Some(union),
        ..Compare::default()
    })
}

/// A line such as `put KEY VALUE --lease=1a`.
fn operation(line: &str) -> Result<RequestOp, Exit> {
    let words = split(line)?;
    if words.len() < 2 {
        return Err(Exit::new(Exit::INPUT, format!("invalid txn compare request: {line}")));
    }
    let invalid = || Exit::new(Exit::INPUT, format!("invalid txn request: {line}"));
    let mut all = vec!["txn".to_owned()];
    all.extend(words);
    let Ok(Wanted::Run(arguments)) = arguments::parse(&REQUESTS, "txn", &all) else {
        return Err(invalid());
    };
    let request = match arguments.path[..] {
        // The rest of the input is not a value, but the rest of the transaction.
        ["put"] => Request::RequestPut(keys::put_request(&arguments, &|| Ok(Vec::new()))?),
        ["get"] if arguments.is_given("at") => return Err(invalid()),
        ["get"] => Request::RequestRange(keys::range_request(&arguments)?),
        ["del"] => Request::RequestDeleteRange(keys::delete_request(&arguments)?),
        _ => return Err(invalid()),
    };
    Ok(RequestOp { request: Some(request) })
}

/// The words of a line: bare, in single quotes as they are, or in double quotes as Go writes strings. A quote
/// that is not closed is passed over, as etcdctl does.
///
/// # Errors
/// When what stands in double quotes is no string of Go's.
pub fn split(line: &str) -> Result<Vec<String>, Exit> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let closed = match first {
            '\'' => rest[1..].find('\'').map(|at| at + 2),
            '"' => closing(rest),
            _ => None,
        };
        match (first, closed) {
            ('\'', Some(end)) => {
                words.push(rest[1..end - 1].to_owned());
                rest = &rest[end..];
            }
            (_, Some(end)) => {
                let invalid = || Exit::new(Exit::INPUT, "invalid syntax");
                let (word, _) = unquote(&rest[..end]).ok_or_else(invalid)?;
                words.push(raw::text(&word));
                rest = &rest[end..];
            }
            _ if first.is_whitespace() || matches!(first, '\'' | '"') => {
                rest = &rest[first.len_utf8()..];
            }
            _ => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                words.push(rest[..end].to_owned());
                rest = &rest[end..];
            }
        }
    }
    Ok(words)
}

/// Where a string in double quotes ends, behind its closing quote.
fn closing(text: &str) -> Option<usize> {
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some(at + 1),
            '\\' => drop(letters.next()),
            _ => {}
        }
    }
    None
}

/// A string as Go writes it, or as it is between backquotes, and what is behind it.
fn string(text: &str) -> Option<(Vec<u8>, &str)> {
    match text.strip_prefix('`') {
        Some(whole) => whole.split_once('`').map(|(whole, rest)| (bytes(whole), rest)),
        None => unquote(text),
    }
}

/// Reads a string as Go writes it, and returns its bytes and what is behind it.
fn unquote(text: &str) -> Option<(Vec<u8>, &str)> {
    let body = text.strip_prefix('"')?;
    let mut bytes = Vec::new();
    let mut letters = body.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((bytes, &body[at + 1..])),
            '\\' => {
                let (_, escaped) = letters.next()?;
                let mut digits = |count: usize, radix: u32| {
                    let mut digits = (0..count).map(|_| letters.next()?.1.to_digit(radix));
                    digits.try_fold(0_u32, |sum, digit| Some(sum * radix + digit?))
                };
                match escaped {
                    'a' => bytes.push(7),
                    'b' => bytes.push(8),
                    'f' => bytes.push(12),
                    'n' => bytes.push(b'\n'),
                    'r' => bytes.push(b'\r'),
                    't' => bytes.push(b'\t'),
                    'v' => bytes.push(11),
                    '\\' | '"' => bytes.push(escaped as u8),
                    'x' => bytes.push(u8::try_from(digits(2, 16)?).ok()?),
                    '0'..='7' => {
                        let value = escaped.to_digit(8)? * 64 + digits(2, 8)?;
                        bytes.push(u8::try_from(value).ok()?);
                    }
                    'u' | 'U' => {
                        let letter =
                            char::from_u32(digits(if escaped == 'u' { 4 } else { 8 }, 16)?)?;
                        bytes.extend(letter.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                    _ => return None,
                }
            }
            letter => match raw::byte(letter) {
                Some(byte) => bytes.push(byte),
                None => bytes.extend(letter.encode_utf8(&mut [0; 4]).as_bytes()),
            },
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_bare_or_quoted() {
        let check = |line: &str, words: &[&str]| {
            assert_eq!(split(line).expect("words"), words, "{line}");
        };
        check("put k v", &["put", "k", "v"]);
        check("put k \"\\xff\"", &["put", "k", &raw::text(b"\xff")]);
        check("put 'a b' \"c \\\"d\\x41\\n\"", &["put", "a b", "c \"dA\n"]);
        check("  get   k --prefix ", &["get", "k", "--prefix"]);
        // A quote that is not closed is none.
        check("put \"k", &["put", "k"]);
        check("put 'a' \"b", &["put", "a", "b"]);
        check("put 'a b", &["put", "a", "b"]);
        check("put a\"b c'd", &["put", "a\"b", "c'd"]);
        assert_eq!(split("put \"\\q\" v"), Err(Exit::new(3, "invalid syntax")));
    }

    #[test]
    fn compares_name_a_target_and_a_value() {
        let union = |line: &str| compare(line).expect(line).target_union;
        assert_eq!(union("ver(\"k\") > \"3\""), Some(TargetUnion::Version(3)));
        assert_eq!(union("value(\"k\") = \"a\\x00\""), Some(TargetUnion::Value("a\0".into())));
        assert_eq!(union("lease(\"k\") = \"1a\""), Some(TargetUnion::Lease(26)));
        let refused = |line: &str| compare(line).expect_err(line).why;
        assert_eq!(refused("ver \"k\""), "malformed comparison: ver \"k\"");
        let malformed = |line: &str, got: &str| {
            assert_eq!(refused(line), format!("malformed comparison: {line}; got {got}"));
        };
        malformed(r#"ver(a) = "1""#, r#"ver("")  """#);
        malformed(r#"ver("a" = "1""#, r#"ver("a")  """#);
        malformed(r#"ver("a") ) "1"#, r#"ver("a") ) """#);
        malformed(r#"ver("a") = 1"#, r#"ver("a") = """#);
        malformed(r#"ver("a") ="#, r#"ver("a") = """#);
        malformed(r#"ver("a")="1""#, r#"ver("a")  """#);
        malformed(r#"val("a\x00") = "1"#, r#"val("a\x00") = """#);
        assert_eq!(union("val( `k`) = `\\`"), Some(TargetUnion::Value("\\".into())));
        assert_eq!(union("val(\"k\") = \"1\" rest"), Some(TargetUnion::Value("1".into())));
        assert_eq!(
            refused("size(\"k\") = \"1\""),
            "malformed comparison: size(\"k\") = \"1\" (unknown target size)"
        );
        assert_eq!(
            refused("mod(\"k\") = \"x\""),
            "invalid txn compare request: mod(\"k\") = \"x\""
        );
    }
    #[test]
    fn requests_are_put_get_and_del_with_their_own_flags() {
        let refused = |line: &str| operation(line).expect_err(line);
        for line in [
            "get a -w json",
            "get a --endpoints=h:1",
            "put k v --hex",
            "put k v --nonsense",
            "get a --at 5",
            "watch a",
            "lease grant 5",
            "foo bar",
        ] {
            assert_eq!(refused(line), Exit::new(3, format!("invalid txn request: {line}")));
        }
        assert_eq!(refused("get"), Exit::new(3, "invalid txn compare request: get"));
        let why = "put command needs 1 argument and input from stdin or 2 arguments";
        assert_eq!(refused("put k"), Exit::new(128, why));
        for line in ["pu a b", "get a --stream", "g a --prefix", "d a"] {
            assert!(operation(line).is_ok(), "{line}");
        }
    }
}
