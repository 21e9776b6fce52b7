//! Go's command-line syntax (package `flag`) and its literals (`strconv`, `time.ParseDuration`), with
//! Go's error texts. Knows no flag by name but `help`.

use std::time::Duration;

use super::ConfigError;
use crate::codec;
pub(crate) use crate::codec::go_quote as quote;

/// A command line, split into flags.
#[derive(Debug, Default)]
pub(crate) struct Split {
    /// In the order given; a bool without `=` has the value `true`.
    pub flags: Vec<(String, String)>,
    /// `-h` or `--help` was met; nothing behind it was read.
    pub help: bool,
    /// The first argument that is no flag; nothing behind it was read.
    pub positional: Option<String>,
}

/// Splits as Go's `FlagSet.Parse` does. `is_bool` answers `None` for a flag that is not defined.
pub(crate) fn split(
    arguments: &[String],
    is_bool: impl Fn(&str) -> Option<bool>,
) -> Result<Split, ConfigError> {
    let mut split = Split::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let Some(flag) = argument.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            split.positional = Some(argument.clone());
            break;
        };
        if flag == "-" {
            split.positional = arguments.next().cloned();
            break;
        }
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        if flag.starts_with(['-', '=']) {
            return Err(ConfigError::Usage(format!("bad flag syntax: {argument}")));
        }
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let value = match (is_bool(name), value) {
            (None, _) if matches!(name, "h" | "help") => {
                split.help = true;
                break;
            }
            (None, _) => {
                let text = format!("flag provided but not defined: -{name}");
                return Err(ConfigError::Usage(text));
            }
            (Some(_), Some(value)) => value,
            (Some(true), None) => "true".to_owned(),
            (Some(false), None) => arguments
                .next()
                .cloned()
                .ok_or_else(|| ConfigError::Usage(format!("flag needs an argument: -{name}")))?,
        };
        split.flags.push((name.to_owned(), value));
    }
    Ok(split)
}

/// Why a literal was not taken, in Go's words.
pub(crate) type Why = String;

pub(crate) const SYNTAX: &str = "parse error";
const RANGE: &str = "value out of range";

/// `strconv.ParseBool`.
pub(crate) fn bool(text: &str) -> Result<bool, Why> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(SYNTAX.into()),
    }
}

/// `strconv.ParseUint` with base 0: `0x`, `0o`, `0b` and a leading `0` choose the base, and digits
/// may be grouped with `_` where the base is written.
pub(crate) fn uint(text: &str) -> Result<u64, Why> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &lower[..]),
    };
    let grouped = radix != 10 && !digits.ends_with('_') && !digits.contains("__");
    let digits = if grouped { digits.replace('_', "") } else { digits.to_owned() };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(SYNTAX.into());
    }
    u64::from_str_radix(&digits, radix).map_err(|_| RANGE.into())
}

/// [`uint`] for a type that may be smaller.
pub(crate) fn uint_as<T: TryFrom<u64>>(text: &str) -> Result<T, Why> {
    uint(text)?.try_into().map_err(|_| RANGE.into())
}

/// `strconv.ParseInt` with base 0.
pub(crate) fn int(text: &str) -> Result<i64, Why> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let value = i128::from(uint(digits)?);
    i64::try_from(if negative { -value } else { value }).map_err(|_| RANGE.into())
}

/// [`parse_duration`] as package `flag` reports it.
pub(crate) fn duration(text: &str) -> Result<Duration, Why> {
    parse_duration(text).map_err(|_| SYNTAX.into())
}

/// `time.ParseDuration`, for durations that are not negative: `1h30m`, `1.5s`, `0`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, Why> {
    without_sign(text, text.strip_prefix('+').unwrap_or(text))
}

/// `rest` is `text` behind its sign.
fn without_sign(text: &str, mut rest: &str) -> Result<Duration, Why> {
    let wrong = |what: &str| Err(format!("time: {what} duration {}", quote(text)));
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return wrong("invalid");
    }
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let mut end = digits(rest);
        if rest[end..].starts_with('.') {
            end += 1 + digits(&rest[end + 1..]);
        }
        // A point alone is no number either.
        let Ok(count) = rest[..end].parse::<f64>() else { return wrong("invalid") };
        rest = &rest[end..];
        let end = rest.find(is_number).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            "" => return wrong("missing unit in"),
            unit => return wrong(&format!("unknown unit {} in", quote(unit))),
        };
        nanos += count * unit;
        rest = &rest[end..];
    }
    // Go counts in signed 64-bit nanoseconds.
    match nanos > i64::MAX as f64 {
        true => wrong("invalid"),
        false => Ok(Duration::from_nanos(nanos.round() as u64)),
    }
}

/// [`duration`] where etcd takes a negative one for none.
pub(crate) fn delay(text: &str) -> Result<Duration, Why> {
    parse_delay(text).map_err(|_| SYNTAX.into())
}

/// [`parse_duration`] where etcd takes a negative one for none.
pub(crate) fn parse_delay(text: &str) -> Result<Duration, Why> {
    match text.strip_prefix('-') {
        Some(rest) => without_sign(text, rest).map(|_| Duration::ZERO),
        None => parse_duration(text),
    }
}

/// A plain `strconv.ParseUint`, whose own text etcd shows for some flags.
pub(crate) fn bare_uint_as<T: TryFrom<u64>>(text: &str) -> Result<T, Why> {
    uint_as(text).map_err(|why| {
        let why = if why == SYNTAX { "invalid syntax" } else { RANGE };
        format!("strconv.ParseUint: parsing {}: {why}", quote(text))
    })
}

/// Go's text for a file that cannot be opened or read.
pub(crate) fn file_error(what: &str, path: &str, error: &std::io::Error) -> String {
    format!("{what} {path}: {}", codec::go_error(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_go_does() {
        assert_eq!(uint("0"), Ok(0));
        assert_eq!(uint("0x10"), Ok(16));
        assert_eq!(uint("0o17"), Ok(15));
        assert_eq!(uint("017"), Ok(15));
        assert_eq!(uint("0b101"), Ok(5));
        assert_eq!(uint("0x_ff_ff"), Ok(65535));
        assert_eq!(uint("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(uint("18446744073709551616"), Err(RANGE.into()));
        for bad in ["", "-1", "1_000", "0x", "09", "+1", "1e3", "0x_"] {
            assert_eq!(uint(bad), Err(SYNTAX.into()), "{bad}");
        }
        assert_eq!(int("-5"), Ok(-5));
        assert_eq!(int("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(int("9223372036854775808"), Err(RANGE.into()));
        assert_eq!(uint_as::<u32>("4294967296"), Err(RANGE.into()));
        let bare = |text| bare_uint_as::<u32>(text).expect_err("no such number");
        assert_eq!(bare("x"), "strconv.ParseUint: parsing \"x\": invalid syntax");
        assert_eq!(
            bare("4294967296"),
            "strconv.ParseUint: parsing \"4294967296\": value out of range"
        );
    }

    #[test]
    fn durations_are_read_as_go_does() {
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for bad in ["", "5", "s", "1.2.3s", "-1s", "5d", ".s", "+"] {
            assert_eq!(duration(bad), Err(SYNTAX.into()), "{bad}");
        }
        let why = |text| parse_duration(text).expect_err("no duration");
        assert_eq!(why("1d"), "time: unknown unit \"d\" in duration \"1d\"");
        assert_eq!(why("1h5"), "time: missing unit in duration \"1h5\"");
        assert_eq!(why("1.2.3s"), "time: missing unit in duration \"1.2.3s\"");
        for bad in ["", "+", "x", ".s", "-1s", "9999999h"] {
            assert_eq!(why(bad), format!("time: invalid duration \"{bad}\""));
        }
        assert_eq!(delay("-1s"), Ok(Duration::ZERO));
        assert_eq!(delay("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(delay("--1s"), Err(SYNTAX.into()));
        assert_eq!(
            parse_delay("-1d").expect_err("no unit"),
            "time: unknown unit \"d\" in duration \"-1d\""
        );
    }
}
