//! Small formats: any bytes are read or refused.

use prost::Message;
use quorate::{codec, env, tls};
use quorate_proto::etcdserverpb::{InternalRaftRequest, PutRequest, RequestHeader};

/// The id of a request is the one that the decoder finds, where the bytes are a request.
pub fn request_id(input: &[u8]) {
    let found = codec::request_id(input);
    if let Ok(request) = InternalRaftRequest::decode(input)
        && let Some(header) = request.header
        && header.id != 0
    {
        assert!(found.is_some(), "{header:?}");
    }
}

pub fn request_id_seeds() -> Vec<Vec<u8>> {
    let header = Some(RequestHeader { id: 7, username: "u".into(), auth_revision: 3 });
    let put = Some(PutRequest { key: "k".into(), value: "v".into(), ..<_>::default() });
    let request = InternalRaftRequest { header, put, ..<_>::default() };
    vec![request.encode_to_vec(), Vec::new()]
}

pub fn timeout(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(timeout) = codec::grpc_timeout(text) {
        // What a caller adds it to: the time since the machine was started.
        assert!(timeout.as_secs() <= 99_999_999 * 3_600, "{text}");
    }
}

pub fn timeout_seeds() -> Vec<Vec<u8>> {
    ["5S", "99999999H", "1m", "0n", "+1S", "-1S", "5s", "", "S", "1é"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

/// Certificates and revocation lists.
pub fn der(input: &[u8]) {
    tls::fuzz::certificate(input);
    tls::fuzz::revocation_list(input);
}

pub fn der_seeds() -> Vec<Vec<u8>> {
    tls::fuzz::certificates()
}

/// Answers of name servers.
pub fn dns(input: &[u8]) {
    env::fuzz::answer(input);
}

pub fn dns_seeds() -> Vec<Vec<u8>> {
    let answer = b"\0\x07\x81\x80\0\x01\0\x01\0\0\0\0\x04_tcp\x01a\0\0\x21\0\x01\
        \xc0\x0c\0\x21\0\x01\0\0\0\x3c\0\x0a\0\x01\0\x02\x09\x4b\x01b\x01a\0";
    vec![answer.to_vec(), answer[..20].to_vec()]
}
