//! The syntax of URLs as Go 1.26 has it (`net/url`, RFC 3986), with its error texts: which texts etcd takes
//! for a URL, and what it takes for scheme and host. Where a URL leads is known to [`super::target`], which
//! URLs a flag may have to `config`.

use crate::codec;

/// What of a URL has a meaning here.
#[derive(Debug, PartialEq, Eq)]
pub struct Parts {
    /// In lower case; empty when there is none.
    pub scheme: String,
    /// With port and brackets, without the escapes of its written form.
    pub host: String,
    pub path: bool,
    /// A user, a query or a fragment.
    pub other: bool,
}

/// Which characters a part may hold without an escape, and which escapes.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Host,
    /// Of an IPv6 address (RFC 6874).
    Zone,
    /// All others: every escape is fine.
    Other,
}

pub fn parse(input: &str) -> Result<Parts, String> {
    let (url, fragment) = input.split_once('#').unwrap_or((input, ""));
    let refused = |url: &str, why: String| format!("parse {}: {why}", codec::go_quote(url));
    let mut parts = without_fragment(url).map_err(|why| refused(url, why))?;
    unescape(fragment, Part::Other).map_err(|why| refused(input, why))?;
    parts.other |= !fragment.is_empty();
    Ok(parts)
}

fn without_fragment(url: &str) -> Result<Parts, String> {
    if url.bytes().any(|byte| byte.is_ascii_control()) {
        return Err("net/url: invalid control character in URL".into());
    }
    let (scheme, rest) = split_scheme(url)?;
    let scheme = scheme.to_ascii_lowercase();
    let (rest, query) = match rest.split_once('?') {
        Some((rest, _)) => (rest, true),
        None => (rest, false),
    };
    let mut parts = Parts { scheme, host: String::new(), path: !rest.is_empty(), other: query };
    if !rest.starts_with('/') {
        if parts.scheme.is_empty() && rest.split('/').next().is_some_and(|part| part.contains(':'))
        {
            return Err("first path segment in URL cannot contain colon".into());
        }
        // Behind a scheme it is opaque: no host, and nothing in it is looked at.
        if parts.scheme.is_empty() {
            unescape(rest, Part::Other)?;
        }
        return Ok(parts);
    }
    let authority = rest.strip_prefix("//");
    let authority = authority.filter(|_| !parts.scheme.is_empty() || !rest.starts_with("///"));
    let path = match authority {
        Some(authority) => {
            let (authority, path) =
                authority.split_at(authority.find('/').unwrap_or(authority.len()));
            let user = authority.rsplit_once('@');
            parts.host = host(&parts.scheme, user.map_or(authority, |(_, host)| host))?;
            if let Some((user, _)) = user {
                check_user(user)?;
                parts.other = true;
            }
            path
        }
        None => rest,
    };
    unescape(path, Part::Other)?;
    parts.path = !path.is_empty();
    Ok(parts)
}

/// The scheme, empty when there is none, and what follows it.
fn split_scheme(url: &str) -> Result<(&str, &str), String> {
    let other = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '-' | '.');
    let end = url.find(other).unwrap_or(url.len());
    match url[end..].strip_prefix(':') {
        Some(_) if end == 0 => Err("missing protocol scheme".into()),
        Some(rest) if url.starts_with(|c: char| c.is_ascii_alphabetic()) => Ok((&url[..end], rest)),
        _ => Ok(("", url)),
    }
}

fn check_user(user: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
    match user.chars().all(allowed) {
        true => unescape(user, Part::Other).map(drop),
        false => Err("net/url: invalid userinfo".into()),
    }
}

/// Host and port; an address in brackets is one of IPv6.
fn host(scheme: &str, written: &str) -> Result<String, String> {
    match written.rfind('[') {
        Some(0) => return bracketed(&written[1..]),
        Some(_) => return Err("invalid IP-literal".into()),
        None => {}
    }
    // Other schemes may separate several hosts by commas, each with a port.
    let port = match scheme {
        "http" | "https" => written.find(':'),
        _ => written.rfind(':'),
    };
    check_port(port.map_or("", |at| &written[at..]))?;
    unescape(written, Part::Host)
}

fn bracketed(written: &str) -> Result<String, String> {
    let (inside, port) = written.rsplit_once(']').ok_or("missing ']' in host")?;
    check_port(port)?;
    let (address, zone) = inside.split_at(inside.find("%25").unwrap_or(inside.len()));
    let inside = unescape(address, Part::Host)? + &unescape(zone, Part::Zone)?;
    check_address(&inside)?;
    Ok(format!("[{inside}]{port}"))
}

/// Nothing, or a colon and digits, if any.
fn check_port(port: &str) -> Result<(), String> {
    let digits = port.strip_prefix(':').unwrap_or(if port.is_empty() { "" } else { "none" });
    match digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Ok(()),
        false => Err(format!("invalid port {} after host", codec::go_quote(port))),
    }
}

/// The text that a part stands for.
fn unescape(written: &str, part: Part) -> Result<String, String> {
    let bytes = written.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte != b'%' {
            if part != Part::Other && byte.is_ascii() && !is_of_host(byte) {
                let found = codec::go_quote(&char::from(byte).to_string());
                return Err(format!("invalid character {found} in host name"));
            }
            plain.push(byte);
            at += 1;
            continue;
        }
        let escape = &bytes[at..bytes.len().min(at + 3)];
        let value = (escape.len() == 3)
            .then(|| std::str::from_utf8(&escape[1..]).ok())
            .flatten()
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let allowed = |value: u8| match part {
            // Only what is not ASCII needs an escape there, and the percent sign before a zone.
            Part::Host => !value.is_ascii() || value == b'%',
            Part::Zone => matches!(value, b'%' | b' ') || is_of_host(value),
            Part::Other => true,
        };
        match value.filter(|value| allowed(*value)) {
            Some(value) => plain.push(value),
            None => return Err(format!("invalid URL escape {}", codec::go_quote_bytes(escape))),
        }
        at += 3;
    }
    Ok(String::from_utf8_lossy(&plain).into_owned())
}

/// What stands in a host as it is.
fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]<>\"".contains(&byte)
}

/// A host as it is written, with escapes where it needs some.
pub fn escape_host(plain: &str) -> String {
    let mut written = String::with_capacity(plain.len());
    for byte in plain.bytes() {
        match is_of_host(byte) {
            true => written.push(char::from(byte)),
            false => written += &format!("%{byte:02X}"),
        }
    }
    written
}

/// Whether this is an IPv6 address, with a zone or without.
fn check_address(text: &str) -> Result<(), String> {
    let refused =
        |why: &str| Err(format!("invalid host: ParseAddr({}): {why}", codec::go_quote(text)));
    match text.find(['.', ':', '%']).map(|at| text.as_bytes()[at]) {
        None => return refused("unable to parse IP"),
        Some(b'%') => return refused("missing IPv6 address"),
        Some(b'.') => {
            return match why_not_ipv4(text) {
                Some(why) => refused(&why),
                None => Err("invalid IP-literal".into()),
            };
        }
        Some(_) => {}
    }
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    if zone == Some("") {
        return refused("zone must be a non-empty string");
    }
    match why_not_ipv6(address) {
        Some(why) => refused(&why),
        None => Ok(()),
    }
}

/// With Go's words for the first thing that is wrong.
fn why_not_ipv6(address: &str) -> Option<String> {
    let at = |why: &str, rest: &str| Some(format!("{why} (at {})", codec::go_quote(rest)));
    let mut rest = address.strip_prefix("::").unwrap_or(address);
    let mut gap = rest.len() < address.len();
    let mut groups = 0;
    while !rest.is_empty() {
        if groups == 8 {
            return at("trailing garbage after address", rest);
        }
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        let behind = &rest[digits..];
        if digits > 4 {
            return at("each group must have 4 or less digits", rest);
        }
        if digits == 0 {
            return at("each colon-separated field must have at least one digit", rest);
        }
        if behind.starts_with('.') {
            if !gap && groups != 6 {
                let why = "embedded IPv4 address must replace the final 2 fields of the address";
                return at(why, rest);
            }
            if groups > 6 {
                return at(
                    "too many hex fields to fit an embedded IPv4 at the end of the address",
                    rest,
                );
            }
            if let Some(why) = why_not_ipv4(rest) {
                return Some(why);
            }
            groups += 2;
            break;
        }
        groups += 1;
        let Some(next) = behind.strip_prefix(':') else {
            if behind.is_empty() {
                break;
            }
            return at("unexpected character, want colon", behind);
        };
        if next.is_empty() {
            return at("colon must be followed by more characters", behind);
        }
        rest = next;
        if let Some(next) = next.strip_prefix(':') {
            if gap {
                return at("multiple :: in address", rest);
            }
            (gap, rest) = (true, next);
        }
    }
    match (groups, gap) {
        (8, true) => Some("the :: must expand to at least one field of zeros".into()),
        (..8, false) => Some("address string too short".into()),
        _ => None,
    }
}

fn why_not_ipv4(address: &str) -> Option<String> {
    let at = |why: &str, rest: &str| Some(format!("{why} (at {})", codec::go_quote(rest)));
    let mut start = 0;
    let mut fields = 0;
    for (end, c) in address.char_indices().chain([(address.len(), '.')]) {
        if c.is_ascii_digit() {
            let field = &address[start..=end];
            if field.len() > 1 && field.starts_with('0') {
                return Some("IPv4 field has octet with leading zero".into());
            }
            if field.parse::<u8>().is_err() {
                return Some("IPv4 field has value >255".into());
            }
            continue;
        }
        let last = end == address.len();
        if c != '.' {
            return at("unexpected character", &address[end..]);
        }
        // A point at the very end is as wrong as two in a row.
        if !last && (start == end || end + 1 == address.len()) {
            return at("IPv4 field must have at least one digit", &address[end..]);
        }
        fields += 1;
        if fields == 4 && !last {
            return Some("IPv4 address too long".into());
        }
        start = end + 1;
    }
    (fields < 4).then(|| "IPv4 address too short".into())
}

/// Go's `net.SplitHostPort`: IPv6 addresses stand in brackets; the port may be empty.
pub fn split_host_port(authority: &str) -> Option<(&str, &str)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return Some((host, rest.strip_prefix(':')?));
    }
    let (host, port) = authority.split_once(':')?;
    let stray = |c| matches!(c, ':' | '[' | ']' | '@');
    (!host.contains(stray) && !port.contains(stray)).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// URLs, and the reason of etcd 3.7.3 behind `parse "URL": `.
    const REFUSED: &[(&str, &str)] = &[
        ("http://[::1:2379", "missing ']' in host"),
        ("http://[fe80::1%25a/b]:1", "missing ']' in host"),
        ("unix://[a", "missing ']' in host"),
        ("http://[::1]:x", r#"invalid port ":x" after host"#),
        ("http://[::1]x:1", r#"invalid port "x:1" after host"#),
        ("http://[::1]%20:1", r#"invalid port "%20:1" after host"#),
        ("http://a:x", r#"invalid port ":x" after host"#),
        ("http://a:-1", r#"invalid port ":-1" after host"#),
        ("http://a:1:2", r#"invalid port ":1:2" after host"#),
        ("http://::1:2379", r#"invalid port "::1:2379" after host"#),
        ("http://a:1%zz", r#"invalid port ":1%zz" after host"#),
        ("http://a:\u{e9}", "invalid port \":\u{e9}\" after host"),
        ("unix://a:x", r#"invalid port ":x" after host"#),
        ("http://a b:1", r#"invalid character " " in host name"#),
        ("http://a\\b:1", r#"invalid character "\\" in host name"#),
        ("http://a|b:1", r#"invalid character "|" in host name"#),
        ("http://[a b]:1", r#"invalid character " " in host name"#),
        ("http://[fe80::1%25a b]:1", r#"invalid character " " in host name"#),
        ("http://\u{fc} b:1", r#"invalid character " " in host name"#),
        ("http://%zz:1", r#"invalid URL escape "%zz""#),
        ("http://a%41:1", r#"invalid URL escape "%41""#),
        ("http://a%4:1", r#"invalid URL escape "%4:""#),
        ("http://a%", r#"invalid URL escape "%""#),
        ("http://\u{fc}%z\u{fc}:1", r#"invalid URL escape "%z\xc3""#),
        ("http://[fe80::1%en0]:1", r#"invalid URL escape "%en""#),
        ("http://[fe80::1%25a%7Cb]:1", r#"invalid URL escape "%7C""#),
        ("http://a:1/%4", r#"invalid URL escape "%4""#),
        ("http://u%zz@a:1", r#"invalid URL escape "%zz""#),
        ("unix:///a%zz", r#"invalid URL escape "%zz""#),
        ("http://u @a:1", "net/url: invalid userinfo"),
        ("http://u[@a:1", "net/url: invalid userinfo"),
        ("http://a\tb:1", "net/url: invalid control character in URL"),
        ("http://a\u{7f}b:1", "net/url: invalid control character in URL"),
        ("http://a[:1", "invalid IP-literal"),
        ("http://[127.0.0.1]:1", "invalid IP-literal"),
        ("http://[[::1]]:1", "invalid IP-literal"),
        ("127.0.0.1:2379", "first path segment in URL cannot contain colon"),
        ("a_b:1", "first path segment in URL cannot contain colon"),
        ("1http://a:1", "first path segment in URL cannot contain colon"),
        ("[::1]:1", "first path segment in URL cannot contain colon"),
        (":2379", "missing protocol scheme"),
    ];

    /// Hosts in brackets, and why they are no addresses.
    const NO_ADDRESSES: &[(&str, &str)] = &[
        ("", "unable to parse IP"),
        ("localhost", "unable to parse IP"),
        ("v1.a", r#"unexpected character (at "v1.a")"#),
        ("::1%", "zone must be a non-empty string"),
        ("%eth0", "missing IPv6 address"),
        ("1.2.3", "IPv4 address too short"),
        (".1.2.3", r#"IPv4 field must have at least one digit (at ".1.2.3")"#),
        ("1::2::3", r#"multiple :: in address (at ":3")"#),
        ("1:2:3", "address string too short"),
        ("12345::", r#"each group must have 4 or less digits (at "12345::")"#),
        ("::g", r#"each colon-separated field must have at least one digit (at "g")"#),
        (":1", r#"each colon-separated field must have at least one digit (at ":1")"#),
        ("1:", r#"colon must be followed by more characters (at ":")"#),
        ("1:2:3:4:5:6:7:8:9", r#"trailing garbage after address (at "9")"#),
        ("1:2:3:4:5:6:7::8", "the :: must expand to at least one field of zeros"),
        ("1:2:3:4:5:6:7:8::", "the :: must expand to at least one field of zeros"),
        ("::1]:1", r#"unexpected character, want colon (at "]:1")"#),
        (
            "1:1.2.3.4",
            r#"embedded IPv4 address must replace the final 2 fields of the address (at "1.2.3.4")"#,
        ),
        ("::1.2.3", "IPv4 address too short"),
        ("::1.2.3.256", "IPv4 field has value >255"),
        ("::01.2.3.4", "IPv4 field has octet with leading zero"),
        ("::1.2.3.4.5", "IPv4 address too long"),
        ("::1..2.3", r#"IPv4 field must have at least one digit (at ".2.3")"#),
        ("::1.2.3.", r#"IPv4 field must have at least one digit (at ".")"#),
        ("::1.2.x.4", r#"unexpected character (at "x.4")"#),
    ];

    #[test]
    fn what_is_no_url_is_refused_with_gos_words() {
        for (url, why) in REFUSED {
            let quoted = codec::go_quote(url);
            assert_eq!(parse(url), Err(format!("parse {quoted}: {why}")), "{url}");
        }
        for (host, why) in NO_ADDRESSES {
            let url = format!("http://[{}]:1", host.replace('%', "%25"));
            let why = format!("invalid host: ParseAddr(\"{host}\"): {why}");
            assert_eq!(parse(&url), Err(format!("parse \"{url}\": {why}")));
        }
        // What is wrong before the fragment is reported without it.
        assert_eq!(
            parse("http://a:x#%zz").expect_err("a port"),
            r#"parse "http://a:x": invalid port ":x" after host"#
        );
        assert_eq!(
            parse("http://a:1#%zz").expect_err("a fragment"),
            r#"parse "http://a:1#%zz": invalid URL escape "%zz""#
        );
    }

    #[test]
    fn hosts_and_ports_are_split_as_by_go() {
        for (authority, wanted) in [
            ("a:1", Some(("a", "1"))),
            ("[::1]:1", Some(("::1", "1"))),
            (":", Some(("", ""))),
            ("a", None),
            ("::1", None),
            ("[::1]", None),
            ("a]:1", None),
        ] {
            assert_eq!(split_host_port(authority), wanted, "{authority}");
        }
    }

    #[test]
    fn parts_are_gos() {
        let parts = |url| parse(url).expect("a URL to Go");
        let found = |scheme: &str, host: &str, path, other| Parts {
            scheme: scheme.into(),
            host: host.into(),
            path,
            other,
        };
        assert_eq!(parts("HTTP://A:1"), found("http", "A:1", false, false));
        assert_eq!(parts("http://a:1/"), found("http", "a:1", true, false));
        assert_eq!(parts("http://a:1?%zz"), found("http", "a:1", false, true));
        assert_eq!(parts("http://a:1#"), found("http", "a:1", false, false));
        assert_eq!(parts("http://u:p@a:1"), found("http", "a:1", false, true));
        assert_eq!(parts("http://%C3%A4%25:1"), found("http", "\u{e4}%:1", false, false));
        assert_eq!(parts("http://a<b\":1"), found("http", "a<b\":1", false, false));
        assert_eq!(
            parts("http://[fe80::1%25a%20b]:1"),
            found("http", "[fe80::1%a b]:1", false, false)
        );
        assert_eq!(
            parts("http://[::ffff:1.2.3.4]:"),
            found("http", "[::ffff:1.2.3.4]:", false, false)
        );
        for address in
            ["::", "::1", "1::", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "1:2:3:4:5:6:1.2.3.4"]
        {
            let url = format!("http://[{address}]:1");
            assert_eq!(parse(&url).map(|parts| parts.host), Ok(format!("[{address}]:1")));
        }
        assert_eq!(parts("unix://a:1:2"), found("unix", "a:1:2", false, false));
        assert_eq!(parts("http:a:1"), found("http", "", true, false));
        assert_eq!(parts("//a:1"), found("", "a:1", false, false));
        assert_eq!(parts("foo"), found("", "", true, false));
        assert_eq!(parts(""), found("", "", false, false));
        assert_eq!(escape_host("[fe80::1%a b]:1"), "[fe80::1%25a%20b]:1");
        assert_eq!(escape_host("\u{e4}:1"), "%C3%A4:1");
    }
}
