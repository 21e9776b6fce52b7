//! Writes responses as JSON in the form of etcd's gateway (grpc-gateway 2 over protojson): names as
//! in the .proto texts, 64-bit integers as strings, bytes in base64, enums by name, fields at their default
//! left out. Requests are read in `reader`.

use bytes::Bytes;
use prost_reflect::{DynamicMessage, MessageDescriptor, SerializeOptions};

const WRITING: SerializeOptions = SerializeOptions::new().use_proto_field_name(true);

/// Writes the message that `wire` encodes, without spaces.
pub(super) fn write(kind: &MessageDescriptor, wire: Bytes) -> Result<String, String> {
    let message = DynamicMessage::decode(kind.clone(), wire).map_err(|why| why.to_string())?;
    let mut text = Vec::new();
    let written =
        message.serialize_with_options(&mut serde_json::Serializer::new(&mut text), &WRITING);
    written.map_err(|why| why.to_string())?;
    String::from_utf8(text).map_err(|why| why.to_string())
}

/// Escapes characters of HTML, as Go's JSON library does in embedded JSON. They occur in strings only.
pub(super) fn escape(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// Returns the line of one result. Its capacity is its length, because it may be queued for long.
pub(super) fn result_line(json: &str) -> String {
    ["{\"result\":", &escape(json), "}\n"].concat()
}
