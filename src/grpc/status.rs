//! Maps errors to gRPC statuses through the table in [`crate::error`], and writes statuses as headers.

use http::{HeaderMap, HeaderValue, Response};
use quorate_proto::codec::MALFORMED;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::error::Error;
use crate::metrics::Metrics;
use crate::rpc::{Flow, Rpc};

/// Returns the status of an error, with etcd's code and text.
pub fn status(error: Error) -> Status {
    Status::new(Code::from_i32(error.code() as i32), error.text())
}

/// Returns the response of a call that ends without messages.
pub(crate) fn refusal(status: &Status) -> Response<Body> {
    let mut response: Response<Body> = status.clone().into_http();
    spell_message(response.headers_mut());
    response
}

/// Counts a stream that failed because a request could not be read. A cancelled stream is no failure.
pub fn count_failure(metrics: &Metrics, api: &str, error: &Status) {
    if matches!(error.code(), Code::Internal | Code::OutOfRange | Code::Unimplemented) {
        metrics.stream_failures.with_label_values(&["receive", api]).inc();
    }
}

/// Rewrites the message of a result in the protocol's "Percent-Byte-Encoded" form, which encodes only bytes
/// below 0x20, above 0x7E and `%`. The library encodes more bytes, spaces among them, which clients that
/// compare the raw header do not decode.
pub(crate) fn spell_message(headers: &mut HeaderMap) {
    let Some(message) = headers.get_mut(Status::GRPC_MESSAGE) else { return };
    let mut rest = message.as_bytes();
    let mut spelled = Vec::with_capacity(rest.len());
    while let Some((&byte, behind)) = rest.split_first() {
        let escaped = (byte == b'%').then(|| behind.get(..2).and_then(hex)).flatten();
        match escaped {
            Some(plain @ 0x20..=0x7e) if plain != b'%' => {
                spelled.push(plain);
                rest = &behind[2..];
            }
            _ => {
                spelled.push(byte);
                rest = behind;
            }
        }
    }
    if let Ok(value) = HeaderValue::from_bytes(&spelled) {
        *message = value;
    }
}

/// Rewrites the message of a call that ends without messages as [`spell_message`]. In the words of gRPC's Go
/// library, a request that cannot be read is another thing in a unary call than in a stream.
pub(crate) fn spell_refusal(headers: &mut HeaderMap, rpc: &Rpc) {
    spell_message(headers);
    let Some(message) = headers.get_mut(Status::GRPC_MESSAGE) else { return };
    if rpc.flow == Flow::Unary
        && let Some(why) = message.as_bytes().strip_prefix(MALFORMED.as_bytes())
        && let Ok(value) = HeaderValue::from_bytes(&[MALFORMED_UNARY.as_bytes(), why].concat())
    {
        *message = value;
    }
}

/// What [`MALFORMED`] is in a unary call.
const MALFORMED_UNARY: &str = "grpc: error unmarshalling request: ";

/// Parses two hexadecimal digits.
fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(digits[at]).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_encoded_no_more_than_the_protocol_requires() {
        let spelled = |text: &str| {
            let mut headers = HeaderMap::new();
            Status::unknown(text).add_header(&mut headers).expect("a header");
            spell_message(&mut headers);
            let value = headers.get(Status::GRPC_MESSAGE).expect("a message");
            value.to_str().expect("plain text").to_owned()
        };
        assert_eq!(spelled("etcdserver: invalid auth token"), "etcdserver: invalid auth token");
        assert_eq!(spelled("~ \"a\" <b> #?`{c}"), "~ \"a\" <b> #?`{c}");
        assert_eq!(spelled("100% %20"), "100%25 %2520");
        assert_eq!(spelled("a\nb\u{7f}"), "a%0Ab%7F");
        assert_eq!(spelled("gr\u{fc}n"), "gr%C3%BCn");
    }

    #[test]
    fn a_spelled_message_is_read_back() {
        let mut headers = HeaderMap::new();
        let text = "50% of \u{fc}: \n{x}";
        Status::unknown(text).add_header(&mut headers).expect("a header");
        spell_message(&mut headers);
        let read = Status::from_header_map(&headers).expect("a status");
        assert_eq!(read.message(), text);
    }
}
