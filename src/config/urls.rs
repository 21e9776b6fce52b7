//! URLs as etcd takes them: scheme, host and port, or the file of a unix socket, kept exactly as
//! written, because member ids are hashes of their text. Resolves nothing; `localhost` stands for
//! 127.0.0.1.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::env::Place;
use crate::tls::target::Way;
pub(crate) use crate::tls::url::split_host_port;
use crate::tls::url::{self, Parts};
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
    /// One URL, with etcd's texts for what is wrong with it. A user, a query or a fragment, which etcd takes
    /// and never uses, is refused.
    pub fn parse(input: &str) -> Result<Self, String> {
        let input = input.trim();
        let parts = url::parse(input)?;
        match parts.scheme.as_str() {
            "http" | "https" => {}
            "unix" | "unixs" => return Self::unix(&parts, input),
            _ => {
                let text = "URL scheme must be http, https, unix, or unixs";
                return Err(format!("{text}: {input}"));
            }
        }
        let Some((host, port)) = split_host_port(&parts.host) else {
            return Err(format!("URL address does not have the form \"host:port\": {input}"));
        };
        if parts.path {
            return Err(format!("URL must not contain a path: {input}"));
        }
        if parts.other {
            return Err(format!("URL must not contain a user, a query or a fragment: {input}"));
        }
        let text = format!("{}://{}", parts.scheme, url::escape_host(&parts.host));
        Ok(Self { text, host: host.into(), port: port.into() })
    }

    /// A URL of a unix socket names a file.
    fn unix(parts: &Parts, input: &str) -> Result<Self, String> {
        let rest = &input[parts.scheme.len()..];
        let text = format!("{}{rest}", parts.scheme);
        let (host, port) = split_host_port(&parts.host).unwrap_or((&parts.host, ""));
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
        // As in the ids of etcd's members.
        let urls =
            Url::parse_list("HTTP://\u{e4}:1,http://[fe80::1%25x]:2#").expect("a valid list");
        assert_eq!(join(&urls), "http://%C3%A4:1,http://[fe80::1%25x]:2");
        assert_eq!((urls[0].host(), urls[1].host()), ("\u{e4}", "fe80::1%x"));
    }

    #[test]
    fn errors_are_etcds() {
        let error = |text| Url::parse(text).expect_err("not a URL that etcd takes");
        let form = "URL address does not have the form \"host:port\": ";
        assert_eq!(error("http://localhost"), format!("{form}http://localhost"));
        assert_eq!(error("http://a]:1"), format!("{form}http://a]:1"));
        assert_eq!(error("http:a:1"), format!("{form}http:a:1"));
        assert_eq!(
            error(" http://::1:1 "),
            "parse \"http://::1:1\": invalid port \"::1:1\" after host"
        );
        assert_eq!(error("http://a:1/"), "URL must not contain a path: http://a:1/");
        assert_eq!(
            error("localhost:2379"),
            "URL scheme must be http, https, unix, or unixs: localhost:2379"
        );
        assert_eq!(error("https://a:1/"), "URL must not contain a path: https://a:1/");
        assert_eq!(error("unix://m0:a"), "parse \"unix://m0:a\": invalid port \":a\" after host");
        assert_eq!(error("unix://"), "no path: unix://");
        for text in ["http://a:1?x", "http://u@a:1", "https://a:1#x"] {
            let other = "URL must not contain a user, a query or a fragment";
            assert_eq!(error(text), format!("{other}: {text}"));
        }
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
