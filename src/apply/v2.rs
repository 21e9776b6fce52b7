//! Log entries of etcd 3.5 and older that carry a request of the v2 store: a member's attributes and the
//! cluster version become the requests that took their place, everything else becomes nothing, because
//! the v2 store's own keys are not served (etcd 3.5, `etcdserver/apply_v2.go`; 3.6, `v2ToV3Request`).
//!
//! Such a request is the whole payload of an entry, or field 2 of an `InternalRaftRequest`. The payload
//! never decodes as an `InternalRaftRequest`: releases that wrote it also wrote fields that are zero, and
//! its field 5 is a number where the other has a message.

pub mod store;

use bytes::Bytes;
use prost::Message;
use quorate_proto::etcdserverpb::RequestHeader;
use quorate_proto::membershippb::{
    Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest,
};
use serde::Deserialize;

use super::Request;
use super::membership::null_is_none;
use crate::codec;

/// Field number of `InternalRaftRequest.v2`.
const V2: u32 = 2;

/// What a request of the v2 store comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    /// It concerns the membership: the command with the same effect.
    Request(RequestHeader, Request),
    /// It concerns keys of the v2 store, or nothing that can be understood.
    Nothing,
}

/// The meaning of a payload that is a v2 request; `None` when it is not one.
pub fn decode(payload: &[u8]) -> Option<Meaning> {
    // A request of another kind may pass for one with unknown fields alone.
    let request = OldRequest::decode(payload).ok().filter(|request| !request.method.is_empty())?;
    Some(request.meaning())
}

/// The meaning of the v2 request inside of an `InternalRaftRequest`; `None` when there is none.
pub fn decode_inside(payload: &[u8]) -> Option<Meaning> {
    // Fields are in the order of their numbers, and only an id comes before: others are not searched.
    const ID_OR_V2: [u8; 2] = [1 << 3, 2 << 3 | 2];
    payload.first().filter(|first| ID_OR_V2.contains(first))?;
    decode(codec::bytes_field(payload, V2)?)
}

/// What a v2 request does to a key; the path is that of the store, below `/1` for keys of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyChange {
    Set(String),
    /// A new key in this directory.
    Queued(String),
    /// The key, or the directory with all keys in it.
    Deleted(String),
}

/// What an entry does to keys of the v2 store; `None` where it surely does nothing to which keys there are.
pub fn key_change(payload: &[u8]) -> Option<KeyChange> {
    let decode = |payload: &[u8]| {
        let request = OldRequest::decode(payload).ok()?;
        matches!(request.method.as_str(), "PUT" | "POST" | "DELETE").then_some(request)
    };
    let inside = codec::bytes_field(payload, V2).and_then(decode);
    let request = inside.or_else(|| decode(payload))?;
    let must_exist = request.prev_exist == Some(true)
        || request.prev_index > 0
        || !request.prev_value.is_empty();
    match request.method.as_str() {
        "PUT" if !request.dir && !must_exist => Some(KeyChange::Set(request.path)),
        "POST" if !request.dir => Some(KeyChange::Queued(request.path)),
        "DELETE" if !must_exist => Some(KeyChange::Deleted(request.path)),
        _ => None,
    }
}

/// `etcdserverpb.Request` of etcd 3.5, the fields that count here.
#[derive(Clone, PartialEq, Message)]
struct OldRequest {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(string, tag = "3")]
    path: String,
    #[prost(bytes = "bytes", tag = "4")]
    value: Bytes,
    #[prost(bool, tag = "5")]
    dir: bool,
    #[prost(string, tag = "6")]
    prev_value: String,
    #[prost(uint64, tag = "7")]
    prev_index: u64,
    #[prost(bool, optional, tag = "8")]
    prev_exist: Option<bool>,
}

impl OldRequest {
    fn meaning(self) -> Meaning {
        let conditional =
            self.prev_exist.is_some() || self.prev_index > 0 || !self.prev_value.is_empty();
        if self.method != "PUT" || conditional {
            return Meaning::Nothing;
        }
        let header = RequestHeader { id: self.id, ..RequestHeader::default() };
        let request = if let Some(member_id) = member_of(&self.path) {
            let Ok(attributes) = serde_json::from_slice::<MemberAttributes>(&self.value) else {
                return Meaning::Nothing;
            };
            let MemberAttributes { name, client_urls } = attributes;
            let member_attributes = Some(Attributes { name, client_urls });
            ClusterMemberAttrSetRequest { member_id, member_attributes }.into()
        } else if self.path == "/0/version"
            && let Some(ver) = version(&self.value)
        {
            ClusterVersionSetRequest { ver }.into()
        } else {
            return Meaning::Nothing;
        };
        Meaning::Request(header, request)
    }
}

/// The JSON below `/0/members/<id>/attributes`.
#[derive(Deserialize)]
struct MemberAttributes {
    #[serde(default)]
    name: String,
    #[serde(rename = "clientURLs", default, deserialize_with = "null_is_none")]
    client_urls: Vec<String>,
}

/// The member whose attributes are at `path`. etcd looks for the pattern anywhere in the path and takes
/// the id from the last but one of its parts.
fn member_of(path: &str) -> Option<u64> {
    let is_id = |part: &str| {
        (1..=16).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let mut after = path.split("/0/members/").skip(1);
    let matches = after.any(|rest| {
        rest.split_once('/').is_some_and(|(id, rest)| is_id(id) && rest.starts_with("attributes"))
    });
    let id = path.rsplit('/').nth(1).filter(|id| matches && is_id(id))?;
    u64::from_str_radix(id, 16).ok()
}

/// A version of three numbers; etcd ends when it is none.
fn version(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let parts: Vec<_> = text.split('.').collect();
    let numbers = parts.iter().all(|part| part.parse::<u32>().is_ok());
    (parts.len() == 3 && numbers).then(|| text.to_owned())
}

/// A v2 request as gogo/protobuf writes it for etcd 3.5: zeroes, too.
#[cfg(any(test, feature = "plant"))]
pub(crate) fn payload(id: u64, method: &str, path: &str, value: &str) -> Vec<u8> {
    use prost::encoding::{bool, bytes, int64, string, uint64};
    let mut buf = Vec::new();
    uint64::encode(1, &id, &mut buf);
    for (tag, text) in [(2, method), (3, path), (4, value)] {
        bytes::encode(tag, &text.as_bytes().to_vec(), &mut buf);
    }
    // Dir, PrevValue, PrevIndex, and no PrevExist.
    bool::encode(5, &false, &mut buf);
    string::encode(6, &String::new(), &mut buf);
    uint64::encode(7, &0, &mut buf);
    // Expiration, Wait, Since, Recursive, Sorted, Quorum, Time, Stream.
    (9..17).for_each(|tag| int64::encode(tag, &0, &mut buf));
    buf
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_proto::etcdserverpb::InternalRaftRequest;

    fn payload(method: &str, path: &str, value: &str) -> Vec<u8> {
        super::payload(77, method, path, value)
    }

    fn request(payload: &[u8]) -> (u64, Request) {
        match decode(payload) {
            Some(Meaning::Request(header, request)) => (header.id, request),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_v2_request_is_no_v3_request() {
        for (method, path) in [("PUT", "/0/version"), ("SYNC", ""), ("QGET", "/1/a")] {
            let bytes = payload(method, path, "");
            assert!(InternalRaftRequest::decode(&bytes[..]).is_err(), "{method} {path}");
            assert!(decode(&bytes).is_some(), "{method} {path}");
        }
    }

    #[test]
    fn a_v3_request_is_no_v2_request() {
        let put = quorate_proto::etcdserverpb::PutRequest {
            key: Bytes::from_static(b"k"),
            ..Default::default()
        };
        let header = Some(RequestHeader { id: 9, ..Default::default() });
        let request = InternalRaftRequest { header, put: Some(put), ..Default::default() };
        assert_eq!(decode(&request.encode_to_vec()), None);
        assert_eq!(decode(b"\xff\xff"), None);
        assert_eq!(decode(b""), None);
    }

    #[test]
    fn attributes_of_a_member_are_published() {
        let json = r#"{"name":"m1","clientURLs":["http://a:2379","http://b:2379"]}"#;
        let path = "/0/members/8e9e05c52164694d/attributes";
        let (id, Request::ClusterMemberAttrSet(set)) = request(&payload("PUT", path, json)) else {
            panic!("no attributes");
        };
        assert_eq!(set.member_id, 0x8e9e_05c5_2164_694d);
        let attributes = set.member_attributes.expect("attributes");
        assert_eq!(attributes.name, "m1");
        assert_eq!(attributes.client_urls, ["http://a:2379", "http://b:2379"]);
        assert_eq!(id, 77);
    }

    #[test]
    fn the_cluster_version_is_set() {
        let (_, request) = request(&payload("PUT", "/0/version", "3.5.0"));
        assert_eq!(request, ClusterVersionSetRequest { ver: "3.5.0".into() }.into());
    }

    #[test]
    fn keys_of_the_v2_store_are_passed_over() {
        let nothing = [
            ("SYNC", "", ""),
            ("QGET", "/1/a", ""),
            ("POST", "/1/queue", "x"),
            ("DELETE", "/0/version", ""),
            ("PUT", "/1/a", "x"),
            ("PUT", "/0/version", "three"),
            ("PUT", "/0/members/8e9e05c52164694d/raftAttributes", "{}"),
            ("PUT", "/0/members/nothex/attributes", "{}"),
            ("PUT", "/0/members/12345678901234567/attributes", "{}"),
            ("PUT", "/0/members/a/attributes", "not json"),
        ];
        for (method, path, value) in nothing {
            let meaning = decode(&payload(method, path, value));
            assert_eq!(meaning, Some(Meaning::Nothing), "{method} {path} {value}");
        }
        let mut conditional = payload("PUT", "/0/version", "3.5.0");
        conditional.extend([8 << 3, 1]);
        assert_eq!(decode(&conditional), Some(Meaning::Nothing), "PrevExist is set");
    }

    #[test]
    fn requests_change_keys_of_the_v2_store() {
        let set = Some(KeyChange::Set("/1/a".into()));
        assert_eq!(key_change(&payload("PUT", "/1/a", "v")), set);
        let inside = payload("PUT", "/1/a", "v");
        let inside = [&[2 << 3 | 2, inside.len() as u8][..], &inside].concat();
        assert_eq!(key_change(&inside), set);
        let queued = Some(KeyChange::Queued("/1/a".into()));
        assert_eq!(key_change(&payload("POST", "/1/a", "v")), queued);
        let deleted = Some(KeyChange::Deleted("/1/a".into()));
        assert_eq!(key_change(&payload("DELETE", "/1/a", "")), deleted);
        let old = |dir, prev_exist, prev_index| {
            let (method, path) = ("PUT".into(), "/1/a".into());
            let old =
                OldRequest { method, path, dir, prev_exist, prev_index, ..Default::default() };
            key_change(&old.encode_to_vec())
        };
        assert_eq!(old(false, Some(false), 0), set, "a key that must be new");
        for no_new_key in [old(true, None, 0), old(false, Some(true), 0), old(false, None, 7)] {
            assert_eq!(no_new_key, None);
        }
        for other in [&b""[..], b"junk", &payload("SYNC", "", ""), &payload("QGET", "/1/a", "")] {
            assert_eq!(key_change(other), None);
        }
    }

    #[test]
    fn a_v2_request_may_be_inside_of_a_v3_request() {
        let inner = payload("PUT", "/0/version", "3.4.0");
        let mut bytes = vec![0x12, u8::try_from(inner.len()).expect("short")];
        bytes.extend(&inner);
        let Some(Meaning::Request(_, request)) = decode_inside(&bytes) else {
            panic!("not found");
        };
        assert_eq!(request, ClusterVersionSetRequest { ver: "3.4.0".into() }.into());
        assert_eq!(decode_inside(&inner), None, "a string is no request");
    }
}
