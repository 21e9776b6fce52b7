//! JSON as Go's `encoding/json` writes etcd's structures: fields in the order of their numbers, under
//! their names in the `.proto` files, left out when they have their default value.

use std::fmt::Write as _;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage as _, Value};
use quorate_proto::etcdserverpb::{
    LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseTimeToLiveResponse,
    Member, ResponseHeader, WatchResponse,
};

use super::{At, Header, Health};

fn descriptors() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        DescriptorPool::decode(quorate_proto::FILE_DESCRIPTOR_SET)
            .expect("the build script wrote the descriptors")
    })
}

/// A message of package `etcdserverpb`.
pub fn message(name: &str, message: &impl Message) -> String {
    of_package("etcdserverpb", name, message)
}

fn of_package(package: &str, name: &str, message: &impl Message) -> String {
    let descriptor = descriptors()
        .get_message_by_name(&format!("{package}.{name}"))
        .expect("every message has a descriptor");
    let bytes = message.encode_to_vec();
    let dynamic = DynamicMessage::decode(descriptor, &*bytes).expect("it was encoded just now");
    let mut text = String::new();
    write_message(&mut text, &dynamic);
    text
}

fn write_message(text: &mut String, message: &DynamicMessage) {
    let descriptor = message.descriptor();
    // etcdctl has a structure of its own around the alternatives.
    let wrapped = descriptor.full_name() == "etcdserverpb.ResponseOp";
    text.push_str(if wrapped { "{\"Response\":{" } else { "{" });
    let mut first = true;
    for field in descriptor.fields().filter(|field| message.has_field(field)) {
        if !std::mem::take(&mut first) {
            text.push(',');
        }
        let _ = write!(text, "\"{}\":", field.name());
        write_value(text, &message.get_field(&field));
    }
    text.push_str(if wrapped { "}}" } else { "}" });
}

fn write_value(text: &mut String, value: &Value) {
    let _ = match value {
        Value::Bool(value) => write!(text, "{value}"),
        Value::I32(value) | Value::EnumNumber(value) => write!(text, "{value}"),
        Value::I64(value) => write!(text, "{value}"),
        Value::U32(value) => write!(text, "{value}"),
        Value::U64(value) => write!(text, "{value}"),
        Value::F32(value) => write!(text, "{value}"),
        Value::F64(value) => write!(text, "{value}"),
        Value::String(value) => write!(text, "{}", string(value)),
        Value::Bytes(value) => write!(text, "\"{}\"", STANDARD.encode(value)),
        Value::Message(value) => {
            write_message(text, value);
            Ok(())
        }
        Value::List(values) => {
            text.push('[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                write_value(text, value);
            }
            text.push(']');
            Ok(())
        }
        Value::Map(_) => unreachable_map(text),
    };
}

/// etcd's messages have no maps.
fn unreachable_map(text: &mut String) -> std::fmt::Result {
    text.push_str("{}");
    Ok(())
}

/// A string with the characters escaped that Go escapes for HTML.
fn string(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    let mut escaped = String::with_capacity(quoted.len());
    for letter in quoted.chars() {
        match letter {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(escaped, "\\u{:04x}", u32::from(letter));
            }
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// The fields of a header that is embedded in another structure, each followed by a comma.
fn embedded(header: Header<'_>) -> String {
    let object = message("ResponseHeader", &header.cloned().unwrap_or_default());
    match object.trim_start_matches('{').trim_end_matches('}') {
        "" => String::new(),
        fields => format!("{fields},"),
    }
}

pub fn watch(response: &WatchResponse) -> String {
    let header = response.header.unwrap_or_default();
    let events: Vec<_> =
        response.events.iter().map(|event| of_package("mvccpb", "Event", event)).collect();
    let events = match events.is_empty() {
        true => "null".to_owned(),
        false => format!("[{}]", events.join(",")),
    };
    format!(
        "{{\"Header\":{},\"Events\":{events},\"CompactRevision\":{},\"Canceled\":{},\"Created\":{},\
         \"CancelReason\":{}}}",
        message("ResponseHeader", &header),
        response.compact_revision,
        response.canceled,
        response.created,
        string(&response.cancel_reason),
    )
}

pub fn lease_grant(response: &LeaseGrantResponse) -> String {
    let header = embedded(response.header.as_ref());
    let (id, ttl, error) = (response.id, response.ttl, string(&response.error));
    format!("{{{header}\"ID\":{id},\"TTL\":{ttl},\"Error\":{error}}}")
}

pub fn keep_alive(response: &LeaseKeepAliveResponse) -> String {
    let header = embedded(response.header.as_ref());
    format!("{{{header}\"ID\":{},\"TTL\":{}}}", response.id, response.ttl)
}

pub fn time_to_live(response: &LeaseTimeToLiveResponse) -> String {
    let header = embedded(response.header.as_ref());
    let (id, ttl, granted) = (response.id, response.ttl, response.granted_ttl);
    let keys: Vec<_> =
        response.keys.iter().map(|key| format!("\"{}\"", STANDARD.encode(key))).collect();
    let keys = if keys.is_empty() { "null".to_owned() } else { format!("[{}]", keys.join(",")) };
    format!("{{{header}\"id\":{id},\"ttl\":{ttl},\"granted-ttl\":{granted},\"keys\":{keys}}}")
}

pub fn leases(response: &LeaseLeasesResponse) -> String {
    let header = embedded(response.header.as_ref());
    let leases: Vec<_> =
        response.leases.iter().map(|lease| format!("{{\"id\":{}}}", lease.id)).collect();
    format!("{{{header}\"leases\":[{}]}}", leases.join(","))
}

pub fn health(all: &[Health]) -> String {
    let one = |one: &Health| {
        let error = match one.error.as_str() {
            "" => String::new(),
            error => format!(",\"error\":{}", string(error)),
        };
        let (endpoint, took) = (string(&one.endpoint), string(&one.took));
        format!("{{\"endpoint\":{endpoint},\"health\":{},\"took\":{took}{error}}}", one.healthy)
    };
    list(all.iter().map(one))
}

pub fn at<T: Message>(field: &str, name: &str, all: &[At<T>]) -> String {
    list(all.iter().map(|At { endpoint, response }| {
        let (endpoint, response) = (string(endpoint), message(name, response));
        format!("{{\"Endpoint\":{endpoint},\"{field}\":{response}}}")
    }))
}

/// Go writes an empty list that was never made as `null`.
fn list(all: impl Iterator<Item = String>) -> String {
    let all: Vec<_> = all.collect();
    if all.is_empty() { "null".to_owned() } else { format!("[{}]", all.join(",")) }
}

/// A response about members, with ids in hexadecimal.
pub fn members(header: Header<'_>, member: Option<&Member>, members: &[Member]) -> String {
    let added = member.map(|member| format!(",\"member\":{}", hex_member(member)));
    let members: Vec<_> = members.iter().map(hex_member).collect();
    format!(
        "{{\"header\":{}{},\"members\":[{}]}}",
        hex_header(&header.cloned().unwrap_or_default()),
        added.unwrap_or_default(),
        members.join(","),
    )
}

fn hex_header(header: &ResponseHeader) -> String {
    let mut text = format!(
        "{{\"cluster_id\":\"{:x}\",\"member_id\":\"{:x}\"",
        header.cluster_id, header.member_id
    );
    if header.revision != 0 {
        let _ = write!(text, ",\"revision\":{}", header.revision);
    }
    if header.raft_term != 0 {
        let _ = write!(text, ",\"raft_term\":{}", header.raft_term);
    }
    text + "}"
}

fn hex_member(member: &Member) -> String {
    let mut text = format!("{{\"ID\":\"{:x}\"", member.id);
    if !member.name.is_empty() {
        let _ = write!(text, ",\"name\":{}", string(&member.name));
    }
    for (field, urls) in [("peerURLs", &member.peer_urls), ("clientURLs", &member.client_urls)] {
        if !urls.is_empty() {
            let urls: Vec<_> = urls.iter().map(|url| string(url)).collect();
            let _ = write!(text, ",\"{field}\":[{}]", urls.join(","));
        }
    }
    if member.is_learner {
        text.push_str(",\"isLearner\":true");
    }
    text + "}"
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_proto::etcdserverpb::{
        PutResponse, RangeResponse, ResponseOp, TxnResponse, response_op::Response,
    };
    use quorate_proto::mvccpb::{Event, KeyValue, event::EventType};

    fn header() -> Option<ResponseHeader> {
        Some(ResponseHeader { cluster_id: 1, member_id: u64::MAX, revision: 2, raft_term: 3 })
    }

    fn kv() -> KeyValue {
        KeyValue { key: "k<".into(), value: "v".into(), mod_revision: 2, ..KeyValue::default() }
    }

    #[test]
    fn messages_have_gos_field_names_and_leave_defaults_out() {
        let range = RangeResponse { header: header(), kvs: vec![kv()], count: 1, more: false };
        let expected = "{\"header\":{\"cluster_id\":1,\"member_id\":18446744073709551615,\
                        \"revision\":2,\"raft_term\":3},\"kvs\":[{\"key\":\"azw=\",\
                        \"mod_revision\":2,\"value\":\"dg==\"}],\"count\":1}";
        assert_eq!(message("RangeResponse", &range), expected);
        assert_eq!(string("<&>\u{2028}\""), "\"\\u003c\\u0026\\u003e\\u2028\\\"\"");
    }

    #[test]
    fn alternatives_in_a_txn_are_wrapped() {
        let put = ResponseOp { response: Some(Response::ResponsePut(PutResponse::default())) };
        let txn = TxnResponse { succeeded: true, responses: vec![put], ..TxnResponse::default() };
        let expected = "{\"succeeded\":true,\"responses\":[{\"Response\":{\"response_put\":{}}}]}";
        assert_eq!(message("TxnResponse", &txn), expected);
    }

    #[test]
    fn structures_of_the_client_library_show_every_field() {
        let event = Event { r#type: EventType::Delete as i32, kv: Some(kv()), prev_kv: None };
        let events = WatchResponse { header: header(), events: vec![event], ..Default::default() };
        assert_eq!(
            watch(&events),
            "{\"Header\":{\"cluster_id\":1,\"member_id\":18446744073709551615,\"revision\":2,\
             \"raft_term\":3},\"Events\":[{\"type\":1,\"kv\":{\"key\":\"azw=\",\"mod_revision\":2,\
             \"value\":\"dg==\"}}],\"CompactRevision\":0,\"Canceled\":false,\"Created\":false,\
             \"CancelReason\":\"\"}"
        );
        let grant = LeaseGrantResponse { header: None, id: 7, ttl: 9, error: String::new() };
        assert_eq!(lease_grant(&grant), "{\"ID\":7,\"TTL\":9,\"Error\":\"\"}");
    }
}
