//! The messages that the load sends, encoded, and what it needs to know of the answers.

use prost::Message;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, PutRequest, RangeRequest,
    WatchCreateRequest, WatchRequest, WatchResponse,
};

pub const PUT: &str = "/etcdserverpb.KV/Put";
pub const RANGE: &str = "/etcdserverpb.KV/Range";
pub const WATCH: &str = "/etcdserverpb.Watch/Watch";
pub const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
pub const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

/// The key that is watched.
pub const WATCHED: &str = "watched";

const VALUE_BYTES: usize = 256;

/// The value begins with `begin`.
pub fn put(key: &str, begin: &[u8]) -> Vec<u8> {
    let mut value = begin.to_vec();
    value.resize(VALUE_BYTES, b'v');
    PutRequest { key: key.to_owned().into(), value: value.into(), ..<_>::default() }.encode_to_vec()
}

pub fn range(request: &RangeRequest) -> Vec<u8> {
    request.encode_to_vec()
}

pub fn watch(key: &str) -> Vec<u8> {
    let create = WatchCreateRequest { key: key.to_owned().into(), ..<_>::default() };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }.encode_to_vec()
}

pub fn grant(id: i64) -> Vec<u8> {
    LeaseGrantRequest { ttl: 3600, id }.encode_to_vec()
}

pub fn granted(answer: &[u8]) -> i64 {
    LeaseGrantResponse::decode(answer).map_or(0, |answer| answer.id)
}

pub fn keep_alive(id: i64) -> Vec<u8> {
    LeaseKeepAliveRequest { id }.encode_to_vec()
}

/// Of each event, the number that its value begins with.
pub fn values(response: &[u8]) -> Vec<u64> {
    let response = WatchResponse::decode(bytes::Bytes::copy_from_slice(response));
    let events = response.map(|response| response.events).unwrap_or_default();
    let values = events.iter().filter_map(|event| event.kv.as_ref()?.value.first_chunk().copied());
    values.map(u64::from_be_bytes).collect()
}
