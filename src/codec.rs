//! Small things on wires and in logs that several layers need: a request's id without decoding the
//! request, times as Go writes them. No message types of its own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Field number of `InternalRaftRequest.header` and of `RequestHeader.ID` inside it.
pub const HEADER: u32 = 100;
const HEADER_ID: u32 = 1;

/// The id that the proposer put into an encoded `InternalRaftRequest`, skipping over the request
/// itself. `None` when there is none or the bytes are not such a message.
pub fn request_id(request: &[u8]) -> Option<u64> {
    let mut header = bytes_field(request, HEADER)?;
    let buf = &mut header;
    while !buf.is_empty() {
        let (tag, wire_type) = decode_key(buf).ok()?;
        if tag == HEADER_ID && wire_type == WireType::Varint {
            return decode_varint(buf).ok();
        }
        skip_field(wire_type, tag, buf, DecodeContext::default()).ok()?;
    }
    None
}

/// The contents of the first length-delimited field with number `wanted` of an encoded message.
pub fn bytes_field(mut message: &[u8], wanted: u32) -> Option<&[u8]> {
    let buf = &mut message;
    while !buf.is_empty() {
        let (tag, wire_type) = decode_key(buf).ok()?;
        if tag == wanted && wire_type == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(buf).ok()?).ok()?;
            return buf.get(..length);
        }
        skip_field(wire_type, tag, buf, DecodeContext::default()).ok()?;
    }
    None
}

/// The value of a `grpc-timeout` header: up to eight digits and a unit (gRPC over HTTP/2, "Timeout").
pub fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The encoding of `message`, in one allocation.
pub fn encode(message: &impl Message) -> Bytes {
    Bytes::from(message.encode_to_vec())
}

/// Nanoseconds since 1970, as protocols count them; 0 before.
pub fn unix_nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// RFC 3339 in UTC with microseconds.
pub fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = civil(since.as_secs() / 86_400);
    let second = since.as_secs() % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_micros()
    )
}

/// Year, month and day of a day counted from 1970-01-01. Years are counted from March, so that the
/// leap day is a year's last (H. Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// As Go writes a duration: `1h0m2.5s`, `1.5ms`, `0s`.
pub fn go_duration(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes, seconds, nanos) {
        (0, 0, 0, 0) => "0s".to_owned(),
        (0, 0, 0, ..1_000) => format!("{nanos}ns"),
        (0, 0, 0, ..1_000_000) => format!("{}µs", decimal(nanos / 1_000, nanos % 1_000, 3)),
        (0, 0, 0, _) => format!("{}ms", decimal(nanos / 1_000_000, nanos % 1_000_000, 6)),
        (0, 0, ..) => format!("{}s", decimal(rest, nanos, 9)),
        (0, ..) => format!("{minutes}m{}s", decimal(rest, nanos, 9)),
        _ => format!("{hours}h{minutes}m{}s", decimal(rest, nanos, 9)),
    }
}

/// A fraction of so many digits, without the zeroes at its end.
fn decimal(whole: impl std::fmt::Display, fraction: u32, digits: usize) -> String {
    let text = format!("{whole}.{fraction:0digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The system's text for an error as Go has it: without a capital and a number.
pub fn go_error(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

/// Go's `%q`. What of a script Go takes for printable follows its tables of Unicode; here it is what is no
/// control, no space and no mark of format.
pub fn go_quote(text: &str) -> String {
    go_quote_bytes(text.as_bytes())
}

/// [`go_quote`] of what may be no UTF-8.
pub fn go_quote_bytes(bytes: &[u8]) -> String {
    let mut quoted = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                '\u{7}' => quoted += "\\a",
                '\u{8}' => quoted += "\\b",
                '\u{b}' => quoted += "\\v",
                '\u{c}' => quoted += "\\f",
                '\n' | '\r' | '\t' => quoted.extend(c.escape_default()),
                ' '..='~' => quoted.push(c),
                c if c.is_ascii() => quoted += &format!("\\x{:02x}", u32::from(c)),
                // Rust's table of printable characters; marks, which it escapes, are printable to Go.
                c if c.escape_debug().len() == 1 || is_mark(c) => quoted.push(c),
                c if u32::from(c) < 0x1_0000 => quoted += &format!("\\u{:04x}", u32::from(c)),
                c => quoted += &format!("\\U{:08x}", u32::from(c)),
            }
        }
        for byte in chunk.invalid() {
            quoted += &format!("\\x{byte:02x}");
        }
    }
    quoted.push('"');
    quoted
}

/// Whether this only extends the character before it: Rust escapes it where nothing is before it.
fn is_mark(c: char) -> bool {
    format!("a{c}").escape_debug().count() == 2
}

/// A size as the Go package `humanize` writes it: steps of 1000, a decimal below ten.
pub fn humanize(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let (mut unit, mut scale) = (0, 1.0);
    while unit + 1 < UNITS.len() && bytes as f64 / scale >= 1000.0 {
        (unit, scale) = (unit + 1, scale * 1000.0);
    }
    let value = (bytes as f64 / scale * 10.0 + 0.5).floor() / 10.0;
    let digits = usize::from(value < 10.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_by_go() {
        for (text, quoted) in [
            ("a b\"\\'", r#""a b\"\\'""#),
            ("\0\u{7}\u{8}\t\n\u{b}\u{c}\r\u{1b}\u{7f}", r#""\x00\a\b\t\n\v\f\r\x1b\x7f""#),
            ("\u{e4}\u{1f600}e\u{301}", "\"\u{e4}\u{1f600}e\u{301}\""),
            ("\u{a0}\u{ad}\u{200b}\u{3000}\u{e0001}", r#""\u00a0\u00ad\u200b\u3000\U000e0001""#),
        ] {
            assert_eq!(go_quote(text), quoted);
        }
        assert_eq!(go_quote_bytes(b"%z\xc3"), r#""%z\xc3""#);
    }

    #[test]
    fn sizes_are_written_as_humanize_does() {
        let check = |bytes, text: &str| assert_eq!(humanize(bytes), text, "{bytes}");
        check(0, "0 B");
        check(9, "9 B");
        check(10, "10 B");
        check(999, "999 B");
        check(1_000, "1.0 kB");
        check(9_949, "9.9 kB");
        check(9_950, "10 kB");
        check(20_480, "20 kB");
        check(2_147_483_648, "2.1 GB");
        check(u64::MAX, "18 EB");
    }

    #[test]
    fn errors_of_the_system_are_those_of_go() {
        let error = std::io::Error::from_raw_os_error(2);
        assert_eq!(go_error(&error), "no such file or directory");
    }

    #[test]
    fn days_are_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(59), (1970, 3, 1));
        assert_eq!(civil(10_957), (2000, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(47_541), (2100, 3, 1));
    }

    #[test]
    fn durations_are_written_as_go_does() {
        let text = |nanos| go_duration(Duration::from_nanos(nanos));
        assert_eq!(text(0), "0s");
        assert_eq!(text(999), "999ns");
        assert_eq!(text(564_118), "564.118µs");
        assert_eq!(text(1_262_587), "1.262587ms");
        assert_eq!(text(100_000_000), "100ms");
        assert_eq!(text(1_500_000_000), "1.5s");
        assert_eq!(text(10_000_000_000), "10s");
        assert_eq!(text(3_602_000_000_000), "1h0m2s");
        assert_eq!(text(90_000_000_001), "1m30.000000001s");
    }
}
