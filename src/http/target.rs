//! Request paths as in Go's HTTP server: escapes are decoded before a path is looked up, and a path that is
//! not clean is redirected to the clean one. Knows no endpoints.

use std::borrow::Cow;

use http::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Method, Response, StatusCode, Uri};
use http_body_util::Full;
use tonic::body::Body;

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

/// Returns the redirection of a request whose path is not clean.
pub(super) fn redirection(method: &Method, uri: &Uri) -> Option<Response<Body>> {
    let path = uri.path();
    let clean = clean(path);
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
            let response = redirection(&Method::POST, &uri)?;
            assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
            Some(response.headers()[LOCATION].to_str().expect("ASCII").to_owned())
        };
        assert_eq!(location("/v3/kv/range"), None);
        assert_eq!(location("/"), None);
        assert_eq!(location("/debug/pprof/"), None);
        assert_eq!(location("//v3/kv/range").as_deref(), Some("/v3/kv/range"));
        assert_eq!(location("/v3/../v3/./kv/range?x=1").as_deref(), Some("/v3/kv/range?x=1"));
        assert_eq!(location("/a//").as_deref(), Some("/a/"));
    }
}
