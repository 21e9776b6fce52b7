//! Messages as JSON, in the shape that etcd's gateway gives them (grpc-gateway 2 over protojson): names
//! as in the .proto texts, 64-bit integers as strings, bytes in base64, enums by name, fields at their
//! default left out. What is read may also have lower camel case names, numbers for strings, names that
//! nobody knows. Texts for JSON that cannot be read are not etcd's, which promises none.

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};

const READING: DeserializeOptions = DeserializeOptions::new().deny_unknown_fields(false);
const WRITING: SerializeOptions = SerializeOptions::new().use_proto_field_name(true);

/// The encoding of the message that `json` says.
pub(super) fn read(kind: &MessageDescriptor, json: &[u8]) -> Result<Bytes, String> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let message = DynamicMessage::deserialize_with_options(kind.clone(), &mut reader, &READING);
    let message = message.map_err(|why| format!("proto: {why}"))?;
    Ok(message.encode_to_vec().into())
}

/// The message that `wire` encodes, as JSON without any space.
pub(super) fn write(kind: &MessageDescriptor, wire: Bytes) -> Result<String, String> {
    let message = DynamicMessage::decode(kind.clone(), wire).map_err(|why| why.to_string())?;
    let mut text = Vec::new();
    let written =
        message.serialize_with_options(&mut serde_json::Serializer::new(&mut text), &WRITING);
    written.map_err(|why| why.to_string())?;
    String::from_utf8(text).map_err(|why| why.to_string())
}

/// As Go's JSON library writes what it embeds: fit to stand inside HTML. Such characters are in strings only.
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

/// One of many results, as a line. It takes no more memory than it has bytes: it may wait long.
pub(super) fn result_line(json: &str) -> String {
    ["{\"result\":", &escape(json), "}\n"].concat()
}

/// Cuts a stream of bytes into JSON objects. What is inside an object is not looked at.
#[derive(Debug, Default)]
pub(super) struct Objects {
    /// From the start of an object on; white space before it is dropped.
    bytes: Vec<u8>,
    /// So many of them have been looked at.
    seen: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Objects {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next object, if all of it is there. Anything else is an error, with Go's text.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        if self.seen == 0 {
            let blank = self.bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.bytes.drain(..blank);
            match self.bytes.first() {
                None | Some(b'{') => {}
                Some(other) => return Err(no_object(*other)),
            }
        }
        while let Some(&byte) = self.bytes.get(self.seen) {
            self.seen += 1;
            self.step(byte);
            if self.depth == 0 {
                let rest = self.bytes.split_off(self.seen);
                self.seen = 0;
                return Ok(Some(std::mem::replace(&mut self.bytes, rest)));
            }
        }
        Ok(None)
    }

    /// Bytes that wait for the rest of their object.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    fn step(&mut self, byte: u8) {
        match (self.in_string, byte) {
            _ if self.escaped => self.escaped = false,
            (true, b'\\') => self.escaped = true,
            (_, b'"') => self.in_string = !self.in_string,
            (false, b'{' | b'[') => self.depth += 1,
            (false, b'}' | b']') => self.depth -= 1,
            _ => {}
        }
    }
}

fn no_object(byte: u8) -> String {
    match byte {
        b'[' | b'"' | b'-' | b'0'..=b'9' => {
            format!("proto: syntax error (line 1:1): unexpected token {}", char::from(byte))
        }
        _ => format!("invalid character {:?} looking for beginning of value", char::from(byte)),
    }
}
