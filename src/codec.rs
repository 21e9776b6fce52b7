//! Small wire helpers that several layers need: a request's id without decoding the request.
//! No message types of its own.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Field number of `InternalRaftRequest.header` and of `RequestHeader.ID` inside it.
const HEADER: u32 = 100;
const HEADER_ID: u32 = 1;

/// The id that the proposer put into an encoded `InternalRaftRequest`, skipping over the request
/// itself. `None` when there is none or the bytes are not such a message.
pub fn request_id(mut request: &[u8]) -> Option<u64> {
    let mut header = find_bytes(&mut request, HEADER)?;
    let buf = &mut header;
    while !buf.is_empty() {
        let (tag, wire_type) = decode_key(buf).ok()?;
        if tag == HEADER_ID && wire_type == WireType::Varint {
            return decode_varint(buf).ok();
        }
        skip_field(wire_type, tag, buf, DecodeContext::default()).ok()?;
    }
    None
}

/// The contents of the first length-delimited field `wanted`.
fn find_bytes<'a>(buf: &mut &'a [u8], wanted: u32) -> Option<&'a [u8]> {
    while !buf.is_empty() {
        let (tag, wire_type) = decode_key(buf).ok()?;
        if tag == wanted && wire_type == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(buf).ok()?).ok()?;
            return buf.get(..length);
        }
        skip_field(wire_type, tag, buf, DecodeContext::default()).ok()?;
    }
    None
}

/// The value of a `grpc-timeout` header: up to eight digits and a unit (gRPC over HTTP/2, "Timeout").
pub fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The encoding of `message`, in one allocation.
pub fn encode(message: &impl Message) -> Bytes {
    Bytes::from(message.encode_to_vec())
}
