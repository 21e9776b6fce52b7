//! Pages of metrics compressed with gzip for a client that accepts it, as Prometheus does and etcd's
//! library answers. Nothing else is compressed.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tonic::body::Body;

use super::PROMETHEUS;

/// The answer to a request with these headers.
pub(super) async fn negotiated(request: &HeaderMap, response: Response<Body>) -> Response<Body> {
    let is_page = response.headers().get(CONTENT_TYPE) == Some(&PROMETHEUS);
    if !is_page || response.status() != StatusCode::OK || !accepts_gzip(request) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let page = body.collect().await.map(|page| page.to_bytes()).unwrap_or_default();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&page).expect("writing to memory does not fail");
    let compressed = encoder.finish().expect("writing to memory does not fail");
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Response::from_parts(parts, Body::new(Full::from(compressed)))
}

/// RFC 9110, 12.5.3: a coding with weight 0 is not acceptable.
fn accepts_gzip(request: &HeaderMap) -> bool {
    let values = request.get_all(ACCEPT_ENCODING).into_iter().filter_map(|v| v.to_str().ok());
    let mut codings = values.flat_map(|value| value.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts.find_map(|part| part.strip_prefix("q="));
        let refused = weight.and_then(|q| q.parse::<f32>().ok()).is_some_and(|q| q <= 0.0);
        is_gzip && !refused
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use futures::FutureExt as _;

    use super::*;

    fn asked(accepted: &[&str]) -> Response<Body> {
        let mut headers = HeaderMap::new();
        for value in accepted {
            headers.append(ACCEPT_ENCODING, value.parse().expect("a header's value"));
        }
        let page = super::super::metrics("page\n".into());
        negotiated(&headers, page).now_or_never().expect("the page is in memory")
    }

    #[test]
    fn a_page_of_metrics_is_compressed_when_the_client_accepts_gzip() {
        for accepted in [&["gzip"][..], &["deflate, GZIP;q=0.5"], &["identity", "gzip ; q=1"]] {
            let response = asked(accepted);
            assert_eq!(response.headers()[CONTENT_ENCODING], "gzip", "{accepted:?}");
            let body = response.into_body().collect().now_or_never().expect("in memory");
            let body = body.expect("it is whole").to_bytes();
            let mut page = String::new();
            GzDecoder::new(&*body).read_to_string(&mut page).expect("gzip");
            assert_eq!(page, "page\n");
        }
        for refused in [&[][..], &["deflate"], &["gzip;q=0"], &["gzip;q=0.0, br"]] {
            assert!(!asked(refused).headers().contains_key(CONTENT_ENCODING), "{refused:?}");
        }
    }
}
