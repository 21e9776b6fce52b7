//! A YAML document as the JSON value that etcd's library (`sigs.k8s.io/yaml`, YAML 1.1) makes of it: the
//! parser gives events, what they come to is decided here. Merge keys and tags are not looked at; an
//! alias is refused, for a configuration needs none. What is no YAML is refused in the words of Go's parser,
//! where it has some for the same.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};
use serde_json::{Map, Number, Value};

/// A sequence or mapping that has not ended.
enum Open {
    Sequence(Vec<Value>),
    /// With the key whose value comes next.
    Mapping(Map<String, Value>, Option<String>),
}

/// The first document of the text; null when there is none.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut open: Vec<Open> = Vec::new();
    // The lines in which these began.
    let mut began: Vec<usize> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| misread(&error, text, began.last()))?;
        match event {
            Event::SequenceStart(..) | Event::MappingStart(..) => began.push(span.start.line()),
            Event::SequenceEnd | Event::MappingEnd => drop(began.pop()),
            _ => {}
        }
        let done = match event {
            Event::SequenceStart(..) => {
                open.push(Open::Sequence(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Mapping(Map::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::Sequence(parts)) => Value::Array(parts),
                Some(Open::Mapping(pairs, _)) => Value::Object(pairs),
                None => continue,
            },
            Event::Scalar(text, ScalarStyle::Plain, ..) => scalar(&text),
            Event::Scalar(text, ..) => Value::String(text.into_owned()),
            Event::Alias(_) => return Err(at(span.start.line(), "aliases are not served")),
            _ => continue,
        };
        match open.last_mut() {
            None => return Ok(done),
            Some(Open::Sequence(parts)) => parts.push(done),
            Some(Open::Mapping(pairs, key)) => match key.take() {
                None => *key = Some(as_key(done)),
                // Of a key that comes twice the last one counts.
                Some(key) => drop(pairs.insert(key, done)),
            },
        }
    }
    Ok(Value::Null)
}

/// Which part of Go's parser (`goyaml.v2`) finds an error: the two count lines differently.
#[derive(Clone, Copy, PartialEq)]
enum Finder {
    /// Names the line of the error.
    Scanner,
    /// Names the line before that in which the sequence or mapping begins, or else the line before the
    /// error's.
    Parser,
}

/// What our parser calls an error, and what Go's does.
const WORDS: &[(&str, &str, Finder)] = &[
    (
        "mapping values are not allowed",
        "mapping values are not allowed in this context",
        Finder::Scanner,
    ),
    ("found unexpected end of stream", "found unexpected end of stream", Finder::Scanner),
    ("unknown escape character", "found unknown escape character", Finder::Scanner),
    ("tabs disallowed", CANNOT_START, Finder::Scanner),
    ("unexpected character: ", CANNOT_START, Finder::Scanner),
    ("simple key expected", "could not find expected ':'", Finder::Scanner),
    ("expected ',' or ']'", "did not find expected ',' or ']'", Finder::Parser),
    ("expected ',' or '}'", "did not find expected ',' or '}'", Finder::Parser),
    ("expected '-' indicator", "did not find expected '-' indicator", Finder::Parser),
    ("did not find expected key", "did not find expected key", Finder::Parser),
    ("misplaced bracket", "did not find expected node content", Finder::Parser),
];
const CANNOT_START: &str = "found character that cannot start any token";

/// `began` is the line of the innermost sequence or mapping. Lines count from 1, and neither part of Go's
/// parser names its first.
fn misread(error: &ScanError, text: &str, began: Option<&usize>) -> String {
    let (line, info) = (error.marker().line(), error.info());
    if info.contains("unknown anchor") {
        let line = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        let name = line.split_once('*').map_or("", |(_, rest)| rest);
        let name = name.split(|c: char| c.is_whitespace() || c == ',').next().unwrap_or_default();
        return format!("{CONVERTING}unknown anchor '{name}' referenced");
    }
    let Some((_, why, finder)) = WORDS.iter().find(|(ours, ..)| info.contains(ours)) else {
        return at(line, info);
    };
    let named = match finder {
        Finder::Scanner => Some(line).filter(|line| *line > 1),
        Finder::Parser => {
            let before = |line: usize| line.checked_sub(1).filter(|line| *line > 0);
            began.copied().and_then(before).or(before(line))
        }
    };
    named.map_or_else(|| format!("{CONVERTING}{why}"), |line| at(line, why))
}

const CONVERTING: &str = "error converting YAML to JSON: yaml: ";

fn at(line: usize, why: &str) -> String {
    format!("{CONVERTING}line {line}: {why}")
}

/// JSON has texts as keys only.
fn as_key(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// What a text without quotes stands for.
fn scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Value::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        _ => number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let plain = text.strip_prefix('+').unwrap_or(text).replace('_', "");
    let radix = |prefix, radix| {
        plain.strip_prefix(prefix).and_then(|digits| u64::from_str_radix(digits, radix).ok())
    };
    let octal = || plain.len().gt(&1).then(|| radix("0", 8)).flatten();
    let whole = radix("0x", 16).or_else(|| radix("0o", 8)).or_else(|| radix("0b", 2));
    if let Some(whole) = whole.or_else(octal).or_else(|| plain.parse().ok()) {
        return Some(whole.into());
    }
    if let Ok(negative) = plain.parse::<i64>() {
        return Some(negative.into());
    }
    float(plain.parse().ok()?)
}

/// A whole number, however it is written, is one: Go writes it into JSON without an exponent.
fn float(value: f64) -> Option<Number> {
    let whole = value.fract() == 0.0;
    match value {
        _ if whole && (0.0..u64::MAX as f64).contains(&value) => Some((value as u64).into()),
        _ if whole && (i64::MIN as f64..0.0).contains(&value) => Some((value as i64).into()),
        _ => Number::from_f64(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_are_those_of_yaml_1_1() {
        let text = "a: yes\nb: 'yes'\nc: 0x10\nd: 017\ne: 1_000\nf: -5\ng: 1.5\nh: ~\ni:\nj: 1s\n\
                    k: 18446744073709551615\nl: http://a:1\nm: 0\nq: 8.589934592e+09\no: -1.0\n\
                    p: 1e30\nz: off\n";
        let wanted = json!({
            "a": true, "b": "yes", "c": 16, "d": 15, "e": 1000, "f": -5, "g": 1.5, "h": null,
            "i": null, "j": "1s", "k": 18_446_744_073_709_551_615_u64, "l": "http://a:1", "m": 0,
            "q": 8_589_934_592_u64, "o": -1, "p": 1e30,
            "z": false,
        });
        assert_eq!(parse(text), Ok(wanted));
    }

    #[test]
    fn json_is_yaml_and_the_last_key_counts() {
        let text = r#"{"a": [1, {"b": "c"}], "a": ["x", []], "d": {}}"#;
        assert_eq!(parse(text), Ok(json!({"a": ["x", []], "d": {}})));
        assert_eq!(parse("# nothing\n"), Ok(Value::Null));
        assert_eq!(parse("a: 1\n---\nb: 2\n"), Ok(json!({"a": 1})));
    }

    #[test]
    fn errors_of_yaml_have_their_line() {
        let error = |text| parse(text).expect_err("no YAML");
        // As etcd 3.7.3 has them.
        for (text, wanted) in [
            ("a: b: c", "mapping values are not allowed in this context"),
            ("a: 1\n b: 2", "line 2: mapping values are not allowed in this context"),
            ("a: 1\nb: 2\n  c: 3\n", "line 3: mapping values are not allowed in this context"),
            ("a: [b", "line 1: did not find expected ',' or ']'"),
            ("a: {b", "line 1: did not find expected ',' or '}'"),
            ("a: 'b", "found unexpected end of stream"),
            ("a: x\nb: \"http://a", "line 2: found unexpected end of stream"),
            ("a: \"\\q\"", "found unknown escape character"),
            ("a:\n\tb: 1", "line 2: found character that cannot start any token"),
            ("@a", "found character that cannot start any token"),
            ("a: 1\nb", "line 3: could not find expected ':'"),
            ("- a\nb: 1", "line 1: did not find expected '-' indicator"),
            ("a: x\n- y", "line 1: did not find expected key"),
            ("]", "did not find expected node content"),
            ("a: *x", "unknown anchor 'x' referenced"),
        ] {
            assert_eq!(error(text), format!("{CONVERTING}{wanted}"), "{text:?}");
        }
        assert!(error("a: &x b\nc: *x\n").contains("line 2: aliases are not served"));
    }
}
