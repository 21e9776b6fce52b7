//! Request paths as in Go's HTTP server: escapes are decoded before a path is looked up, and a path that is
//! not clean is redirected to the clean one. Knows no endpoints.

use std::borrow::Cow;

use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Method, Response, StatusCode, Uri};
use http_body_util::Full;
use tonic::body::Body;

use super::{TEXT, with_type};

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Decodes the escapes of a path; a path with an invalid escape is returned unchanged.
pub(super) fn decoded(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return path.into();
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = behind.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let Some(byte) = digits.and_then(|two| u8::from_str_radix(two, 16).ok()) else {
            return path.into();
        };
        bytes.push(byte);
        rest = &behind[2..];
    }
    String::from_utf8(bytes).map_or_else(|_| path.into(), Cow::from)
}

/// Whether a path has an escape that is none. Go's server refuses such a request before it looks at it.
pub(super) fn is_malformed(path: &str) -> bool {
    let is_escape = |behind: &str| {
        let digits = behind.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    path.split('%').skip(1).any(|behind| !is_escape(behind))
}

/// Returns the answer to a request with a malformed path, behind which the connection ends.
pub(super) fn bad_request() -> Response<Body> {
    let mut response = with_type(StatusCode::BAD_REQUEST, TEXT, "400 Bad Request");
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Returns the redirection of a request whose path is not clean, or is that of a `folder` without the slash
/// at its end.
pub(super) fn redirection(
    method: &Method,
    uri: &Uri,
    folder: Option<&str>,
) -> Option<Response<Body>> {
    let path = uri.path();
    let mut clean = clean(path);
    if folder.and_then(|folder| folder.strip_suffix('/')) == Some(&*decoded(&clean)) {
        clean.push('/');
    }
    if clean == path {
        return None;
    }
    let query = uri.query().map_or(String::new(), |query| format!("?{query}"));
    let location = format!("{clean}{query}");
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, HeaderValue::try_from(&location).ok()?);
    if matches!(*method, Method::GET | Method::HEAD) {
        response.headers_mut().insert(CONTENT_TYPE, HTML);
    }
    if *method == Method::GET {
        let location = location.replace('&', "&amp;").replace('"', "&#34;").replace('<', "&lt;");
        let text = format!("<a href=\"{location}\">Temporary Redirect</a>.\n\n");
        *response.body_mut() = Body::new(Full::new(text.into()));
    }
    Some(response)
}

/// Removes empty parts, `.` and `..` from a path; a slash at its end is kept.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut clean = format!("/{}", parts.join("/"));
    if path.ends_with('/') && clean != "/" {
        clean.push('/');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_in_a_path_are_resolved() {
        assert_eq!(decoded("/v3/kv/%72ange"), "/v3/kv/range");
        assert_eq!(decoded("/%7"), "/%7");
        assert_eq!(decoded("/%zz"), "/%zz");
        assert_eq!(decoded("/%ff"), "/%ff");
    }

    #[test]
    fn paths_that_are_not_clean_are_redirected() {
        let location = |path: &str| {
            let uri: Uri = path.parse().expect("a path");
            let response = redirection(&Method::POST, &uri, Some("/v3/"))?;
            assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
            Some(response.headers()[LOCATION].to_str().expect("ASCII").to_owned())
        };
        assert_eq!(location("/v3/kv/range"), None);
        assert_eq!(location("/"), None);
        assert_eq!(location("/debug/pprof/"), None);
        assert_eq!(location("//v3/kv/range").as_deref(), Some("/v3/kv/range"));
        assert_eq!(location("/v3/../v3/./kv/range?x=1").as_deref(), Some("/v3/kv/range?x=1"));
        assert_eq!(location("/a//").as_deref(), Some("/a/"));
        assert_eq!(location("/v3?x=1").as_deref(), Some("/v3/?x=1"));
        assert_eq!(location("//v3").as_deref(), Some("/v3/"));
        assert_eq!(location("/v3/"), None);
        assert_eq!(location("/v3beta"), None);
        assert!(redirection(&Method::POST, &"/v3".parse().expect("a path"), None).is_none());
    }

    #[test]
    fn escapes_that_are_none_are_malformed() {
        for path in ["/v3/kv/ran%ZZ", "/%", "/%7", "/a%2g", "/%20%+1", "/%\u{fc}"] {
            assert!(is_malformed(path), "{path}");
        }
        for path in ["/", "/v3/kv/%72ange", "/%ff", "/%25ZZ"] {
            assert!(!is_malformed(path), "{path}");
        }
        assert_eq!(bad_request().headers()[CONNECTION], "close");
    }
}
