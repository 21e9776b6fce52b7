//! Access control of HTTP requests from browsers: allowed hosts (`--host-whitelist`) and origins (`--cors`).
//! gRPC requests are not checked.

use std::collections::BTreeSet;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, HOST,
    HeaderMap, HeaderValue, ORIGIN,
};
use http::{Request, Response, StatusCode};
use tonic::body::Body;
use tracing::warn;

use super::plain;

const ALL: &str = "*";
const METHODS: HeaderValue = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static("accept, content-type, authorization");

/// Allowed names. An empty set and `*` allow everything.
#[derive(Clone, Debug, Default)]
pub struct Access {
    pub origins: BTreeSet<String>,
    pub hosts: BTreeSet<String>,
}

impl Access {
    /// Returns the refusal of a request for another host. Over TLS every host is allowed, because a foreign
    /// name is in no certificate of the server.
    pub(super) fn refuse(&self, request: &Request<Body>, secure: bool) -> Option<Response<Body>> {
        let host = host(request);
        if secure || allows(&self.hosts, host) {
            return None;
        }
        warn!(host, "rejecting HTTP request to prevent DNS rebinding attacks");
        Some(plain(StatusCode::MISDIRECTED_REQUEST, misdirected(host)))
    }

    /// Returns the CORS headers of the response to a request with these headers.
    pub(super) fn headers(&self, request: &HeaderMap) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let origin = match request.get(ORIGIN) {
            _ if allows(&self.origins, ALL) => HeaderValue::from_static(ALL),
            Some(origin) if origin.to_str().is_ok_and(|o| self.origins.contains(o)) => {
                origin.clone()
            }
            _ => return headers,
        };
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        headers
    }
}

fn allows(names: &BTreeSet<String>, name: &str) -> bool {
    names.is_empty() || names.contains(ALL) || names.contains(name)
}

/// Returns the host of the request, without a port.
fn host(request: &Request<Body>) -> &str {
    let header = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let host = header.or_else(|| request.uri().authority().map(|a| a.as_str())).unwrap_or_default();
    let split = match host.strip_prefix('[') {
        Some(rest) => rest.split_once("]:"),
        // More than one colon and no brackets: not a host and a port.
        None => host.split_once(':').filter(|(_, port)| !port.contains(':')),
    };
    split.map_or(host, |(host, _)| host)
}

/// Returns etcd's help text.
fn misdirected(host: &str) -> String {
    format!(
        "
etcd received your request, but the Host header was unrecognized.

To fix this, choose one of the following options:
- Enable TLS, then any HTTPS request will be allowed.
- Add the hostname you want to use to the whitelist in settings.
  - e.g. etcd --host-whitelist {host:?}

This requirement has been added to help prevent \"DNS Rebinding\" attacks (CVE-2018-5702).

"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn request(host: &str) -> Request<Body> {
        let request = Request::get("/version").header(HOST, host).header(ORIGIN, "http://page");
        request.body(Body::empty()).expect("a valid request")
    }

    #[test]
    fn hosts_are_told_from_ports() {
        for (given, host) in [
            ("name", "name"),
            ("name:1", "name"),
            ("[::1]:1", "::1"),
            ("[::1]", "[::1]"),
            ("::1", "::1"),
            ("", ""),
        ] {
            assert_eq!(super::host(&request(given)), host);
        }
    }

    #[test]
    fn other_hosts_are_misdirected_unless_secured() {
        let access = Access { hosts: names(&["good"]), origins: BTreeSet::new() };
        assert!(access.refuse(&request("good:1"), false).is_none());
        let refused = access.refuse(&request("evil"), false).expect("not on the list");
        assert_eq!(refused.status(), StatusCode::MISDIRECTED_REQUEST);
        assert!(access.refuse(&request("evil"), true).is_none());
        assert!(Access::default().refuse(&request("evil"), false).is_none());
        assert!(misdirected("evil").contains("  - e.g. etcd --host-whitelist \"evil\"\n"));
    }

    #[test]
    fn origins_are_told_what_they_may() {
        let headers = |list: &[&str]| {
            let access = Access { origins: names(list), hosts: BTreeSet::new() };
            let headers = access.headers(request("x").headers());
            headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).map(|value| value.to_owned())
        };
        assert_eq!(headers(&[]), Some(HeaderValue::from_static("*")));
        assert_eq!(headers(&["http://page", "*"]), Some(HeaderValue::from_static("*")));
        assert_eq!(headers(&["http://page"]), Some(HeaderValue::from_static("http://page")));
        assert_eq!(headers(&["http://other"]), None);
    }
}
