//! URLs as etcd takes them: scheme, host and port, or the file of a unix socket, kept exactly as
//! written, because member ids are hashes of their text. Resolves nothing; `localhost` stands for
//! 127.0.0.1.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::go;
use crate::env::Place;
use crate::tls::target::Way;
use crate::tls::{Listen, Target};

/// `http://host:port`, `https://host:port`, `unix://file`, `unixs://file`. Ordered by its text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    text: String,
    host: String,
    port: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Url {
    /// One URL, with etcd's texts for what is wrong with it.
    pub fn parse(input: &str) -> Result<Self, String> {
        let input = input.trim();
        let (scheme, rest) =
            split_scheme(input).map_err(|why| format!("parse {}: {why}", go::quote(input)))?;
        let scheme = scheme.to_ascii_lowercase();
        match scheme.as_str() {
            "http" | "https" => {}
            "unix" | "unixs" => return Self::unix(&scheme, rest, input),
            _ => {
                let text = "URL scheme must be http, https, unix, or unixs";
                return Err(format!("{text}: {input}"));
            }
        }
        let form = || format!("URL address does not have the form \"host:port\": {input}");
        let address = rest.strip_prefix("//").ok_or_else(form)?;
        let (authority, path) = match address.find(['/', '?', '#']) {
            Some(at) => address.split_at(at),
            None => (address, ""),
        };
        let (host, port) = split_host_port(authority).ok_or_else(form)?;
        if !path.is_empty() {
            return Err(format!("URL must not contain a path: {input}"));
        }
        check_port(port, input)?;
        Ok(Self { text: format!("{scheme}://{authority}"), host: host.into(), port: port.into() })
    }

    /// A URL of a unix socket names a file; a port, if there is one, must be a number, as in Go's parser.
    fn unix(scheme: &str, rest: &str, input: &str) -> Result<Self, String> {
        let text = format!("{scheme}:{rest}");
        let authority = rest.strip_prefix("//").unwrap_or_default();
        let authority = authority.split('/').next().unwrap_or_default();
        let (host, port) = split_host_port(authority).unwrap_or((authority, ""));
        check_port(port, input)?;
        Target::parse(&text).map_err(|why| format!("{why}: {input}"))?;
        Ok(Self { text, host: host.into(), port: port.into() })
    }

    /// A comma-separated list: sorted, without repetitions, as etcd keeps them.
    pub fn parse_list(input: &str) -> Result<Vec<Self>, String> {
        let mut urls = input.split(',').map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        urls.dedup();
        Ok(urls)
    }

    /// As [`Self::parse_list`]; an empty text is an empty list.
    pub fn parse_list_or_none(input: &str) -> Result<Vec<Self>, String> {
        match input {
            "" => Ok(Vec::new()),
            _ => Self::parse_list(input),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> &str {
        &self.port
    }

    pub fn scheme(&self) -> &str {
        self.text.split(':').next().unwrap_or_default()
    }

    /// Whether the scheme implies TLS.
    pub fn is_secure(&self) -> bool {
        matches!(self.scheme(), "https" | "unixs")
    }

    fn is_unix(&self) -> bool {
        matches!(self.scheme(), "unix" | "unixs")
    }

    /// Where a listener binds: only addresses, `localhost` and files, never names.
    pub fn listen(&self) -> Result<Listen, String> {
        let place = match Target::parse(&self.text).map(|target| target.way) {
            Ok(Way::Unix(path)) => Place::Unix(path),
            _ => Place::Tcp(self.bind_address()?),
        };
        Ok(Listen { place, secure: self.is_secure() })
    }

    fn bind_address(&self) -> Result<SocketAddr, String> {
        let host =
            self.address().ok_or_else(|| format!("expected IP in URL for binding ({self})"))?;
        let port = self.port.parse().map_err(|_| format!("invalid port in URL ({self})"))?;
        Ok(SocketAddr::new(host, port))
    }

    /// The host as an address, where that needs no resolver.
    fn address(&self) -> Option<IpAddr> {
        match self.host.as_str() {
            "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            host => host.parse().ok(),
        }
    }

    /// Whether both lead to the same place, as far as that can be decided without a resolver.
    pub fn same_place(&self, other: &Self) -> bool {
        let (here, there) = (self.address(), other.address());
        let same = here.is_some() && here == there && self.port == other.port;
        self == other || same && self.scheme() == other.scheme() && !self.is_unix()
    }

    /// Checks that an advertised URL names a host.
    pub fn check_host(&self) -> Result<(), String> {
        match self.host.is_empty() && !self.is_unix() {
            true => Err(format!("unexpected empty host ({self})")),
            false => Ok(()),
        }
    }
}

/// The scheme, empty when there is none, and what follows it; otherwise the reason as Go's `url.Parse`
/// words it.
fn split_scheme(input: &str) -> Result<(&str, &str), &'static str> {
    let other = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '-' | '.');
    let end = input.find(other).unwrap_or(input.len());
    match input[end..].strip_prefix(':') {
        Some(_) if end == 0 => Err("missing protocol scheme"),
        Some(rest) if input.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            Ok((&input[..end], rest))
        }
        _ => {
            let segment = input.split(['/', '?', '#']).next().unwrap_or_default();
            match segment.contains(':') {
                true => Err("first path segment in URL cannot contain colon"),
                false => Ok(("", input)),
            }
        }
    }
}

fn check_port(port: &str, input: &str) -> Result<(), String> {
    match port.bytes().all(|c| c.is_ascii_digit()) {
        true => Ok(()),
        false => Err(format!(
            "parse {}: invalid port {} after host",
            go::quote(input),
            go::quote(&format!(":{port}"))
        )),
    }
}

/// Go's `net.SplitHostPort`: IPv6 addresses stand in brackets; the port may be empty.
pub(crate) fn split_host_port(authority: &str) -> Option<(&str, &str)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return Some((host, rest.strip_prefix(':')?));
    }
    let (host, port) = authority.split_once(':')?;
    let stray = |c| matches!(c, ':' | '[' | ']' | '@');
    (!host.contains(stray) && !port.contains(stray)).then_some((host, port))
}

/// `a,b`: how a list of URLs is shown.
pub(crate) fn join(urls: &[Url]) -> String {
    urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_kept_and_sorted() {
        let urls = Url::parse_list("http://b:1,http://a:2, http://b:1").expect("a valid list");
        assert_eq!(join(&urls), "http://a:2,http://b:1");
        assert!(Url::parse_list("").is_err());
    }

    #[test]
    fn errors_are_etcds() {
        let error = |text| Url::parse(text).expect_err("not a URL that etcd takes");
        let form = "URL address does not have the form \"host:port\": ";
        assert_eq!(error("http://localhost"), format!("{form}http://localhost"));
        assert_eq!(error("http://::1:2379"), format!("{form}http://::1:2379"));
        assert_eq!(error("http://a:1/"), "URL must not contain a path: http://a:1/");
        assert_eq!(
            error("localhost:2379"),
            "URL scheme must be http, https, unix, or unixs: localhost:2379"
        );
        assert_eq!(error("https://a:1/"), "URL must not contain a path: https://a:1/");
        assert_eq!(error("unix://m0:a"), "parse \"unix://m0:a\": invalid port \":a\" after host");
        assert_eq!(error("unix://"), "no path: unix://");
        for text in ["127.0.0.1:2379", "a_b:1", "[::1]:1"] {
            let colon = "first path segment in URL cannot contain colon";
            assert_eq!(error(text), format!("parse \"{text}\": {colon}"));
        }
        assert_eq!(error(":2379"), "parse \":2379\": missing protocol scheme");
        let scheme = "URL scheme must be http, https, unix, or unixs: ";
        for text in ["", "foo", "//a:1", "ftp://a:1"] {
            assert_eq!(error(text), format!("{scheme}{text}"));
        }
    }

    #[test]
    fn only_addresses_are_bound() {
        let bind = |text| {
            let listen = Url::parse(text).expect("a valid URL").listen()?;
            Ok::<_, String>(listen.address().expect("TCP"))
        };
        assert_eq!(bind("http://localhost:1"), Ok("127.0.0.1:1".parse().expect("an address")));
        assert_eq!(bind("http://[::1]:1"), Ok("[::1]:1".parse().expect("an address")));
        assert_eq!(
            bind("http://name:1").expect_err("a name"),
            "expected IP in URL for binding (http://name:1)"
        );
        assert!(bind("http://:1").is_err());
        assert!(bind("http://1.2.3.4:").is_err());
        assert!(bind("http://1.2.3.4:70000").is_err());
        assert_eq!(bind("https://[::1]:1"), Ok("[::1]:1".parse().expect("an address")));
    }

    #[test]
    fn unix_urls_name_files() {
        let listen = |text| Url::parse(text).expect("a valid URL").listen();
        let file = |path: &str, secure| Ok(Listen { place: Place::Unix(path.into()), secure });
        assert_eq!(listen("unix://localhost:2379"), file("localhost:2379", false));
        assert_eq!(listen("unixs://m0"), file("m0", true));
        assert_eq!(listen("unix:///run/etcd.sock"), file("/run/etcd.sock", false));
        assert_eq!(listen("unix:/run/etcd.sock"), file("/run/etcd.sock", false));
        let url = Url::parse("unix://localhost:2379").expect("a valid URL");
        assert_eq!(url.as_str(), "unix://localhost:2379");
        assert!(!url.same_place(&Url::parse("unix://127.0.0.1:2379").expect("a valid URL")));
        assert_eq!(url.check_host(), Ok(()));
        assert_eq!(Url::parse("unix:///x").expect("a valid URL").check_host(), Ok(()));
    }
}
