//! `txn`: compares and two lists of requests from standard input, a line each, an empty line behind each
//! list.

use quorate_proto::etcdserverpb::{
    Compare, RequestOp, TxnRequest, compare::CompareResult, compare::CompareTarget,
    compare::TargetUnion, request_op::Request,
};

use super::{decimal, hex_i64, keys};
use crate::client::Client;
use crate::ctl::Context;
use crate::ctl::shell::Shell;
use crate::ctl::table::TOOL;
use crate::tool::arguments::{self, Wanted};
use crate::tool::exit::Exit;

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
    let success = list(shell, |line| operation(line, shell))?;
    prompt("failure requests (get, put, del):")?;
    let failure = list(shell, |line| operation(line, shell))?;
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

/// `TARGET("KEY") OPERATOR "VALUE"`.
fn compare(line: &str) -> Result<Compare, Exit> {
    let malformed = || Exit::new(Exit::INPUT, format!("malformed comparison: {line}"));
    let (target, rest) = line.split_once('(').ok_or_else(malformed)?;
    let (key, rest) = unquote(rest).ok_or_else(malformed)?;
    let rest = rest.trim_start().strip_prefix(')').ok_or_else(malformed)?.trim_start();
    let (operator, rest) = rest.split_once(char::is_whitespace).ok_or_else(malformed)?;
    let (value, _) = unquote(rest.trim_start()).ok_or_else(malformed)?;
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
fn operation(line: &str, shell: &dyn Shell) -> Result<RequestOp, Exit> {
    let words = split(line)
        .ok_or_else(|| Exit::new(Exit::INPUT, format!("invalid quoted string in: {line}")))?;
    if words.len() < 2 {
        return Err(Exit::new(Exit::INPUT, format!("invalid txn compare request: {line}")));
    }
    let invalid = || Exit::new(Exit::INPUT, format!("invalid txn request: {line}"));
    let mut all = vec!["txn".to_owned()];
    all.extend(words);
    let Ok(Wanted::Run(arguments)) = arguments::parse(&TOOL, "txn", &all) else {
        return Err(invalid());
    };
    let request = match arguments.path[..] {
        ["put"] => Request::RequestPut(keys::put_request(&arguments, shell)?),
        ["get"] => Request::RequestRange(keys::range_request(&arguments)?),
        ["del"] => Request::RequestDeleteRange(keys::delete_request(&arguments)?),
        _ => return Err(invalid()),
    };
    Ok(RequestOp { request: Some(request) })
}

/// The words of a line: bare, in single quotes as they are, or in double quotes as Go writes strings.
pub fn split(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        match first {
            '\'' => {
                let (word, behind) = rest[1..].split_once('\'')?;
                words.push(word.to_owned());
                rest = behind;
            }
            '"' => {
                let (word, behind) = unquote(rest)?;
                words.push(String::from_utf8_lossy(&word).into_owned());
                rest = behind;
            }
            _ => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                words.push(rest[..end].to_owned());
                rest = &rest[end..];
            }
        }
        rest = rest.trim_start();
    }
    Some(words)
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
            letter => bytes.extend(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_bare_or_quoted() {
        let check = |line: &str, words: &[&str]| assert_eq!(split(line).expect(line), words);
        check("put k v", &["put", "k", "v"]);
        check("put 'a b' \"c \\\"d\\x41\\n\"", &["put", "a b", "c \"dA\n"]);
        check("  get   k --prefix ", &["get", "k", "--prefix"]);
        assert_eq!(split("put \"k"), None);
        assert_eq!(split("put 'k"), None);
    }

    #[test]
    fn compares_name_a_target_and_a_value() {
        let union = |line: &str| compare(line).expect(line).target_union;
        assert_eq!(union("ver(\"k\") > \"3\""), Some(TargetUnion::Version(3)));
        assert_eq!(union("value(\"k\") = \"a\\x00\""), Some(TargetUnion::Value("a\0".into())));
        assert_eq!(union("lease(\"k\") = \"1a\""), Some(TargetUnion::Lease(26)));
        let refused = |line: &str| compare(line).expect_err(line).why;
        assert_eq!(refused("ver \"k\""), "malformed comparison: ver \"k\"");
        assert_eq!(
            refused("size(\"k\") = \"1\""),
            "malformed comparison: size(\"k\") = \"1\" (unknown target size)"
        );
        assert_eq!(
            refused("mod(\"k\") = \"x\""),
            "invalid txn compare request: mod(\"k\") = \"x\""
        );
    }
}
