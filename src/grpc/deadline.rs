//! The deadline of a call: the header `grpc-timeout`, read as gRPC's Go library reads it, and the answer
//! to one that is malformed. Does not enforce it.

use std::time::Duration;

use http::{HeaderMap, Response, StatusCode};
use tonic::Status;
use tonic::body::Body;

use super::status::refusal;

const TIMEOUT: &str = "grpc-timeout";
/// Eight digits and the unit.
const TIMEOUT_BYTES_MAX: usize = 9;

/// The time that the caller allows, if it sets one. Of a malformed header, the reason.
pub(super) fn read(headers: &HeaderMap) -> Result<Option<Duration>, String> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    parse(&String::from_utf8_lossy(value.as_bytes())).map(Some)
}

fn parse(text: &str) -> Result<Duration, String> {
    let wrong = |what: &str| Err(format!("transport: timeout {what}: {text:?}"));
    match text.len() {
        0 | 1 => return wrong("string is too short"),
        bytes if bytes > TIMEOUT_BYTES_MAX => return wrong("string is too long"),
        _ => {}
    }
    let unit = text.chars().next_back().unwrap_or_default();
    let digits = &text[..text.len() - unit.len_utf8()];
    let of: fn(u64) -> Duration = match unit {
        'H' => |count| Duration::from_secs(count * 3600),
        'M' => |count| Duration::from_secs(count * 60),
        'S' => Duration::from_secs,
        'm' => Duration::from_millis,
        'u' => Duration::from_micros,
        'n' => Duration::from_nanos,
        _ => return wrong("unit is not recognized"),
    };
    let count = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
    count.map(of).ok_or_else(|| format!("strconv.ParseUint: parsing {digits:?}: invalid syntax"))
}

/// The answer to a malformed header: an HTTP error with a result.
pub(super) fn malformed(why: &str) -> Response<Body> {
    let mut response = refusal(&Status::internal(format!("malformed grpc-timeout: {why}")));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Duration>, String> {
        let mut headers = HeaderMap::new();
        headers.insert(TIMEOUT, text.parse().expect("a header value"));
        super::read(&headers)
    }

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(read("1S"), Ok(Some(Duration::from_secs(1))));
        assert_eq!(read("4999750u"), Ok(Some(Duration::from_micros(4_999_750))));
        assert_eq!(read("2H"), Ok(Some(Duration::from_secs(7200))));
        assert_eq!(read("99999999H"), Ok(Some(Duration::from_secs(99_999_999 * 3600))));
        assert_eq!(super::read(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn malformed_timeouts_are_refused_in_the_words_of_grpc_go() {
        let why = |text: &str| read(text).expect_err("it is malformed");
        assert_eq!(why("5s"), "transport: timeout unit is not recognized: \"5s\"");
        assert_eq!(why("5"), "transport: timeout string is too short: \"5\"");
        assert_eq!(why(""), "transport: timeout string is too short: \"\"");
        assert_eq!(why("123456789m"), "transport: timeout string is too long: \"123456789m\"");
        assert_eq!(why("-1S"), "strconv.ParseUint: parsing \"-1\": invalid syntax");
        assert_eq!(why("+1S"), "strconv.ParseUint: parsing \"+1\": invalid syntax");
        let answer = malformed(&why("5s"));
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        let text = "malformed grpc-timeout: transport: timeout unit is not recognized: \"5s\"";
        assert_eq!(answer.headers()["grpc-message"], text);
        assert_eq!(answer.headers()["grpc-status"], "13");
    }
}
