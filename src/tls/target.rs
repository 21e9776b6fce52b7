//! The targets of URLs: `http`, `https`, `unix` and `unixs`, as etcd takes them. A unix URL names a
//! file: its host and port, its path, or both in a row, so `unix://m0:2379` is the file `m0:2379` in the
//! folder in which the process was started.

use std::io;
use std::path::PathBuf;

use crate::env::{BoxConn, Env};

/// A place to connect to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    pub way: Way,
    /// Whether the scheme requires TLS; `None` when there is no scheme.
    pub secure: Option<bool>,
    /// The host alone, without brackets: what a certificate must name.
    pub name: String,
    /// Host and port, as HTTP writes them.
    pub authority: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Host and port.
    Tcp(String),
    Unix(PathBuf),
}

impl Target {
    /// From a URL, or from `host:port` alone. A path behind host and port is passed over.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
            None => match text.split_once(':') {
                // As in `unix:/run/etcd.sock`.
                Some((scheme @ ("unix" | "unixs"), rest)) => (scheme.to_owned(), rest),
                _ => (String::new(), text),
            },
        };
        let secure = match scheme.as_str() {
            "http" | "unix" => Some(false),
            "https" | "unixs" => Some(true),
            "" => None,
            _ => return Err(format!("scheme {scheme:?} is not supported")),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if matches!(scheme.as_str(), "unix" | "unixs") {
            if rest.is_empty() {
                return Err("no path".into());
            }
            let (name, _) = split(authority).unwrap_or((authority, ""));
            return Ok(Self {
                way: Way::Unix(format!("{authority}{path}").into()),
                secure,
                name: if name.is_empty() { "localhost".into() } else { name.into() },
                authority: if authority.is_empty() { "localhost".into() } else { authority.into() },
            });
        }
        let default = match secure {
            Some(true) => "443",
            Some(false) => "80",
            None => "",
        };
        let (name, port) = split(authority).unwrap_or((authority, default));
        let known = |c: char| !matches!(c, '@' | '?' | '#' | '[' | ']') && !c.is_whitespace();
        if name.is_empty() || !name.chars().all(known) {
            return Err("no host".into());
        }
        if port.parse::<u16>().is_err() {
            return Err("no port".into());
        }
        let bracketed = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
        let authority = format!("{bracketed}:{port}");
        Ok(Self { way: Way::Tcp(authority.clone()), secure, name: name.to_owned(), authority })
    }

    /// The plain stream.
    pub async fn connect(&self, env: &Env) -> io::Result<BoxConn> {
        match &self.way {
            Way::Tcp(host_port) => env.net.connect(host_port.clone()).await,
            Way::Unix(path) => env.net.connect_unix(path.clone()).await,
        }
    }
}

/// Host, without the brackets of an IPv6 address, and port.
fn split(authority: &str) -> Option<(&str, &str)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return rest.strip_prefix(':').map(|port| (host, port));
    }
    authority.rsplit_once(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lead_to_hosts_and_files() {
        let tcp = |text: &str| match Target::parse(text) {
            Ok(Target { way: Way::Tcp(host_port), secure, name, .. }) => (host_port, secure, name),
            other => panic!("{text}: {other:?}"),
        };
        let found = |host_port: &str, secure, name: &str| (host_port.into(), secure, name.into());
        assert_eq!(tcp("http://a:1"), found("a:1", Some(false), "a"));
        assert_eq!(tcp("https://a.example"), found("a.example:443", Some(true), "a.example"));
        assert_eq!(tcp("http://10.0.0.1"), found("10.0.0.1:80", Some(false), "10.0.0.1"));
        assert_eq!(tcp("https://[::1]:2/ignored"), found("[::1]:2", Some(true), "::1"));
        assert_eq!(tcp("a:1"), found("a:1", None, "a"));

        let unix = |text: &str| match Target::parse(text) {
            Ok(Target { way: Way::Unix(path), name, authority, .. }) => {
                (path.display().to_string(), name, authority)
            }
            other => panic!("{text}: {other:?}"),
        };
        let found = |path: &str, name: &str, host: &str| (path.into(), name.into(), host.into());
        assert_eq!(unix("unix://m0:2379"), found("m0:2379", "m0", "m0:2379"));
        assert_eq!(unix("unixs:///run/e.sock"), found("/run/e.sock", "localhost", "localhost"));
        assert_eq!(unix("unix:/run/e.sock"), found("/run/e.sock", "localhost", "localhost"));

        for bad in ["", "a", ":1", "http://", "ftp://a:1", "a:b", "http://a:70000", "unix://"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }
}
