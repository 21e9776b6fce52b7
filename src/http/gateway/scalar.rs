//! Parses JSON strings, numbers and words as protobuf scalars, like protojson of Go's protobuf library.
//! Messages and lists are the reader's.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost_reflect::{FieldDescriptor, Kind};

use super::reader::Position;

/// A value on the wire.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// No value: the name of an unknown enum value.
    Nothing,
    Varint(u64),
    Bytes(Cow<'a, [u8]>),
}

/// Parses the token `raw` as a value of a scalar field; none if it is of another kind.
pub(super) fn value<'a>(
    field: &FieldDescriptor,
    raw: &'a [u8],
    at: Position,
) -> Result<Option<Value<'a>>, String> {
    let signed = |value: i64| Value::Varint(value as u64);
    Ok(match field.kind() {
        Kind::Bool => match raw {
            b"true" => Some(Value::Varint(1)),
            b"false" => Some(Value::Varint(0)),
            _ => None,
        },
        Kind::Int32 => {
            integer(raw, at)?.and_then(|n| i32::try_from(n).ok()).map(|n| signed(n.into()))
        }
        Kind::Int64 => integer(raw, at)?.and_then(|n| i64::try_from(n).ok()).map(signed),
        Kind::Uint32 => {
            integer(raw, at)?.and_then(|n| u32::try_from(n).ok()).map(|n| Value::Varint(n.into()))
        }
        Kind::Uint64 => integer(raw, at)?.and_then(|n| u64::try_from(n).ok()).map(Value::Varint),
        Kind::Enum(kind) if raw.starts_with(b"\"") => {
            let found = kind.get_value_by_name(&unquote(raw, at)?);
            Some(found.map_or(Value::Nothing, |value| signed(value.number().into())))
        }
        Kind::Enum(_) => whole(raw).and_then(|n| i32::try_from(n).ok()).map(|n| signed(n.into())),
        Kind::String if raw.starts_with(b"\"") => Some(Value::Bytes(match unquote(raw, at)? {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        })),
        Kind::Bytes if raw.starts_with(b"\"") => {
            let text = unquote(raw, at)?;
            base64(text.as_bytes()).map(|bytes| Value::Bytes(Cow::Owned(bytes)))
        }
        // A test checks that requests have no other kinds.
        _ => None,
    })
}

/// Returns the name of a kind in Go's error texts.
pub(super) fn name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Bool => "bool",
        Kind::Int32 => "int32",
        Kind::Int64 => "int64",
        Kind::Uint32 => "uint32",
        Kind::Uint64 => "uint64",
        Kind::String => "string",
        Kind::Bytes => "bytes",
        Kind::Enum(_) => "enum",
        _ => "message",
    }
}

/// Decodes a string token.
pub(super) fn unquote(raw: &[u8], at: Position) -> Result<Cow<'_, str>, String> {
    let Position { line, column } = at;
    let wrong = |what: &str| format!("syntax error (line {line}:{column}): {what}");
    let inner = raw.strip_prefix(b"\"").and_then(|raw| raw.strip_suffix(b"\"")).unwrap_or(raw);
    let text = std::str::from_utf8(inner).map_err(|_| wrong("invalid UTF-8 in string"))?;
    let Some(first) = text.find('\\') else { return Ok(text.into()) };
    let (plain, mut rest) = text.split_at(first);
    let mut unquoted = String::with_capacity(text.len());
    unquoted.push_str(plain);
    while let Some(escape) = rest.strip_prefix('\\') {
        let escaped = escaped(escape);
        let Some((c, bytes)) = escaped else {
            let code = escape.get(..5).unwrap_or(escape);
            return Err(wrong(&format!("invalid escape code \"\\{code}\" in string")));
        };
        unquoted.push(c);
        rest = &escape[bytes..];
        let plain = rest.find('\\').unwrap_or(rest.len());
        unquoted.push_str(&rest[..plain]);
        rest = &rest[plain..];
    }
    Ok(unquoted.into())
}

/// Decodes an escape without its backslash; returns the character and the escape's size.
fn escaped(escape: &str) -> Option<(char, usize)> {
    let unit = |at: usize| u16::from_str_radix(escape.get(at..at + 4)?, 16).ok();
    Some(match escape.as_bytes().first()? {
        b'b' => ('\u{8}', 1),
        b'f' => ('\u{c}', 1),
        b'n' => ('\n', 1),
        b'r' => ('\r', 1),
        b't' => ('\t', 1),
        b'u' => {
            let high = unit(1)?;
            if let Some(c) = char::from_u32(high.into()) {
                return Some((c, 5));
            }
            // A surrogate; the other one follows.
            let low = escape.get(5..7).filter(|next| *next == "\\u").and_then(|_| unit(7))?;
            let mut pair = char::decode_utf16([high, low]);
            (pair.next()?.ok()?, 11)
        }
        other => (char::from(*other), 1),
    })
}

/// Parses an integer, which may be in a string.
fn integer(raw: &[u8], at: Position) -> Result<Option<i128>, String> {
    if !raw.starts_with(b"\"") {
        return Ok(whole(raw));
    }
    let text = unquote(raw, at)?;
    Ok(Some(text).filter(|text| is_number(text)).and_then(|text| whole(text.as_bytes())))
}

/// Returns whether a text is exactly one JSON number.
fn is_number(text: &str) -> bool {
    let rest = text.strip_prefix('-').unwrap_or(text);
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let int = digits(rest);
    if int == 0 || (int > 1 && rest.starts_with('0')) {
        return false;
    }
    let mut rest = &rest[int..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = &fraction[count..];
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let count = digits(exponent);
        return count > 0 && count == exponent.len();
    }
    rest.is_empty()
}

/// Returns the value of a number that is an integer, in any notation: `10`, `10.0`, `1e1`, `100e-1`.
fn whole(number: &[u8]) -> Option<i128> {
    /// Digits of the largest integer.
    const DIGITS_MAX: i64 = 20;
    let number = std::str::from_utf8(number).ok()?;
    let (negative, number) = match number.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, number),
    };
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (number, 0),
    };
    let (int, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let (int, fraction) = (int.trim_start_matches('0'), fraction.trim_end_matches('0'));
    if !int.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) || mantissa.is_empty()
    {
        return None;
    }
    if int.is_empty() && fraction.is_empty() {
        return Some(0);
    }
    // The significant digits and the number of zeroes after them.
    let digits = format!("{int}{fraction}");
    let mut zeroes = i64::from(exponent) - fraction.len() as i64;
    let significant = digits.trim_end_matches('0');
    zeroes += (digits.len() - significant.len()) as i64;
    if zeroes < 0 || significant.len() as i64 + zeroes > DIGITS_MAX {
        return None;
    }
    let value: i128 = significant.parse().ok()?;
    let value = value * 10_i128.pow(u32::try_from(zeroes).ok()?);
    Some(if negative { -value } else { value })
}

/// Decodes base64 like Go: in either alphabet, with or without padding, ignoring line breaks.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    const fn engine(
        alphabet: &base64::alphabet::Alphabet,
        padding: DecodePaddingMode,
    ) -> GeneralPurpose {
        let config = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
        GeneralPurpose::new(alphabet, config.with_decode_padding_mode(padding))
    }
    use DecodePaddingMode::{RequireCanonical, RequireNone};
    const PADDED: [GeneralPurpose; 2] =
        [engine(&STANDARD, RequireCanonical), engine(&URL_SAFE, RequireCanonical)];
    const BARE: [GeneralPurpose; 2] =
        [engine(&STANDARD, RequireNone), engine(&URL_SAFE, RequireNone)];
    let is_url = text.iter().any(|byte| matches!(byte, b'-' | b'_'));
    // As in Go, line breaks are counted.
    let engines = if text.len().is_multiple_of(4) { &PADDED } else { &BARE };
    let engine = &engines[usize::from(is_url)];
    let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
    match text.iter().any(is_break) {
        false => engine.decode(text).ok(),
        true => {
            let text: Vec<u8> = text.iter().copied().filter(|byte| !is_break(byte)).collect();
            engine.decode(text).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_read_however_they_are_written() {
        let read = |text: &str| whole(text.as_bytes());
        for (text, value) in [
            ("0", 0),
            ("-0", 0),
            ("1e0", 1),
            ("1.0", 1),
            ("-12.50e1", -125),
            ("100e-2", 1),
            ("1.5e3", 1500),
            ("9223372036854775807", i64::MAX.into()),
            ("18446744073709551615", u64::MAX.into()),
            ("0e99", 0),
        ] {
            assert_eq!(read(text), Some(value), "{text}");
        }
        for text in ["1.5", "1e-1", "1e400", "1e99999999999", "100000000000000000000000"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_in_strings_are_numbers_of_json() {
        for text in ["0", "-1", "10.50", "1e5", "1E+5", "1.5e-3"] {
            assert!(is_number(text), "{text}");
        }
        for text in ["", "+1", "01", " 1", "1 ", ".5", "1.", "1e", "1e+", "0x1", "1e5x", "-"] {
            assert!(!is_number(text), "{text}");
        }
    }

    #[test]
    fn base64_is_read_as_go_reads_it() {
        let read = |text: &str| base64(text.as_bytes());
        let wrapped = format!("{}\r\n{}\r\n", "YWFh", "YmJi");
        for (text, bytes) in [
            ("", &b""[..]),
            ("YQ==", b"a"),
            ("YQ", b"a"),
            ("YR==", b"a"),
            ("Y-_Q", b"c\xef\xd0"),
            ("Y+/Q", b"c\xef\xd0"),
            (&wrapped, b"aaabbb"),
            ("YWFh\n", b"aaa"),
            ("YWFh\nYg==\n\n\n", b"aaab"),
        ] {
            assert_eq!(read(text).as_deref(), Some(bytes), "{text:?}");
        }
        for text in ["Y!", "YQ==YQ==", "YQ=", "Y+_Q", "YQ==\n", "Y"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    #[test]
    fn escapes_are_read_and_halves_of_pairs_refused() {
        let read = |raw: &str| {
            unquote(raw.as_bytes(), Position { line: 2, column: 3 }).map(|text| text.into_owned())
        };
        assert_eq!(read(r#""a\n\u00fc\ud83d\ude00\/\"""#), Ok("a\n\u{fc}\u{1f600}/\"".into()));
        let why = "syntax error (line 2:3): invalid escape code \"\\ud800\" in string";
        assert_eq!(read(r#""\ud800x""#), Err(why.into()));
        assert_eq!(read(r#""\ud800\u0041""#), Err(why.into()));
        let raw = [b'"', 0xff, b'"'];
        let why = "syntax error (line 1:9): invalid UTF-8 in string";
        assert_eq!(unquote(&raw, Position { line: 1, column: 9 }), Err(why.into()));
    }
}
