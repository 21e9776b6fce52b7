//! Translates JSON requests to protobuf while they are received. Only the current token is kept of the JSON,
//! so that a request takes no more memory than its encoding and one token. Accepts what etcd's gateway
//! accepts (protojson of Go's protobuf library behind Go's JSON scanner) and refuses the rest with the same
//! texts: field names in snake or camel case, unknown ones skipped; integers as numbers or strings, with an
//! exponent or a zero fraction; each field once.
//!
//! Not recursive. The nesting of messages is bounded where they are decoded.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use tonic::Status;

use super::scalar::{self, Value};
use super::scanner::{Event, Scanner};
use crate::limits;

/// Reads one object after the other.
pub(super) struct Reader {
    kind: MessageDescriptor,
    bounds: Bounds,
    scanner: Scanner,
    /// Open containers, the outermost first.
    open: Vec<Open>,
    /// The last name, as written, and its position.
    name: (Vec<u8>, Position),
    wire: Wire,
    /// The first error in the message. As in Go, syntax errors in the rest take precedence.
    wrong: Option<String>,
}

/// Bounds of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Maximum size of its JSON, and of its encoding.
    pub json_bytes: usize,
    pub wire_bytes: usize,
}

/// A line and a column, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub line: usize,
    pub column: usize,
}

enum Open {
    Message(OpenMessage),
    List(FieldDescriptor),
    /// An object or list that is skipped.
    Skipped,
}

struct OpenMessage {
    kind: MessageDescriptor,
    /// Bit sets of the fields that were named, and of those with a value.
    named: u128,
    set: u128,
    /// The field of the next value; none if it is unknown.
    field: Option<FieldDescriptor>,
    /// Offset of its encoding; none for the outermost.
    begin: Option<usize>,
}

/// The place of a value.
enum Place {
    Root,
    Field(FieldDescriptor),
    Element(FieldDescriptor),
    Nowhere,
}

impl Reader {
    pub fn new(kind: MessageDescriptor, bounds: Bounds) -> Self {
        Self {
            kind,
            bounds,
            scanner: Scanner::new(),
            open: Vec::new(),
            name: (Vec::new(), Position { line: 1, column: 1 }),
            wire: Wire::new(bounds.wire_bytes),
            wrong: None,
        }
    }

    /// Returns whether an object is incomplete.
    pub fn is_partial(&self) -> bool {
        self.scanner.bytes() > 0
    }

    /// Returns the memory of an incomplete object, bytes: its encoding, and the current token with the open
    /// containers.
    #[cfg(test)]
    pub fn kept(&self) -> (usize, usize) {
        (self.wire.bytes.len(), self.scanner.kept())
    }

    /// Consumes the bytes of the current object from `json`; returns its message if the object ends there.
    pub fn read(&mut self, json: &mut Bytes) -> Result<Option<Bytes>, Status> {
        loop {
            let event = self.scanner.next(json).map_err(Status::invalid_argument)?;
            let bytes = self.scanner.bytes();
            if bytes > self.bounds.json_bytes {
                let max = self.bounds.json_bytes;
                let text = format!("request larger than max ({bytes} vs. {max})");
                return Err(Status::resource_exhausted(text));
            }
            let Some(event) = event else { return Ok(None) };
            if self.take(event)? {
                return self.end_root().map(Some);
            }
        }
    }

    /// Handles the end of the input. An empty input is the default message.
    pub fn finish(&mut self) -> Result<Bytes, Status> {
        if !self.is_partial() {
            return Ok(Bytes::new());
        }
        match self.scanner.finish() {
            Some(event) if self.open.is_empty() => {
                self.take(event)?;
                self.end_root()
            }
            _ => Err(Status::invalid_argument("unexpected EOF")),
        }
    }

    /// Processes an event; returns whether the outermost value has ended.
    fn take(&mut self, event: Event) -> Result<bool, Status> {
        let at = self.scanner.token_at();
        match event {
            Event::BeginObject | Event::BeginList => {
                if self.open.len() >= limits::GATEWAY_JSON_DEPTH {
                    return Err(Status::invalid_argument("exceeded max depth"));
                }
                let is_object = matches!(event, Event::BeginObject);
                let opened = if is_object { self.begin_object(at) } else { self.begin_list(at) };
                let opened = opened.unwrap_or_else(|why| {
                    self.refuse(why);
                    Open::Skipped
                });
                self.open.push(opened);
            }
            Event::End => {
                if let Some(Open::Message(OpenMessage { begin: Some(begin), .. })) = self.open.pop()
                {
                    self.wire.end(begin);
                }
            }
            Event::Name => {
                let named = self.name(at);
                self.check(named);
            }
            Event::Scalar => {
                let taken = self.scalar(at);
                self.check(taken);
            }
        }
        self.scanner.keep(self.wants(event));
        Ok(self.open.is_empty() && event != Event::Name)
    }

    /// Returns whether the token after this event is used.
    fn wants(&self, event: Event) -> bool {
        self.wrong.is_none()
            && match (self.open.last(), event) {
                (Some(Open::Skipped), _) => false,
                (Some(Open::Message(message)), Event::Name) => message.field.is_some(),
                _ => true,
            }
    }

    fn end_root(&mut self) -> Result<Bytes, Status> {
        let wire = std::mem::replace(&mut self.wire, Wire::new(self.bounds.wire_bytes));
        self.scanner.restart();
        if let Some(why) = self.wrong.take() {
            return Err(Status::invalid_argument(why));
        }
        let (length, max) = (wire.length, self.bounds.wire_bytes);
        if length > max {
            let text = format!("grpc: received message larger than max ({length} vs. {max})");
            return Err(Status::resource_exhausted(text));
        }
        Ok(wire.bytes.freeze())
    }

    fn check(&mut self, result: Result<(), String>) {
        if let Err(why) = result {
            self.refuse(why);
        }
    }

    fn refuse(&mut self, why: String) {
        if self.wrong.is_none() {
            self.wrong = Some(format!("proto: {why}"));
            // The encoding is not used any more.
            self.wire.bytes = BytesMut::new();
        }
    }

    /// Returns the place of the next value. After an error only the syntax is checked.
    fn place(&mut self) -> Place {
        if self.wrong.is_some() {
            return Place::Nowhere;
        }
        match self.open.last_mut() {
            None => Place::Root,
            Some(Open::Message(message)) => {
                message.field.take().map_or(Place::Nowhere, Place::Field)
            }
            Some(Open::List(field)) => Place::Element(field.clone()),
            Some(Open::Skipped) => Place::Nowhere,
        }
    }

    fn begin_object(&mut self, at: Position) -> Result<Open, String> {
        let message = |kind, begin| {
            Ok(Open::Message(OpenMessage { kind, named: 0, set: 0, field: None, begin }))
        };
        match self.place() {
            Place::Nowhere => Ok(Open::Skipped),
            Place::Root => message(self.kind.clone(), None),
            Place::Field(field) => {
                self.set(&field)?;
                match field.kind() {
                    _ if field.is_list() => Err(unexpected(at, "{")),
                    Kind::Message(kind) => message(kind, Some(self.wire.begin(field.number()))),
                    _ => Err(invalid(&field, at, "{")),
                }
            }
            Place::Element(field) => match field.kind() {
                Kind::Message(kind) => message(kind, Some(self.wire.begin(field.number()))),
                _ => Err(invalid(&field, at, "{")),
            },
        }
    }

    fn begin_list(&mut self, at: Position) -> Result<Open, String> {
        match self.place() {
            Place::Nowhere => Ok(Open::Skipped),
            Place::Root => Err(unexpected(at, "[")),
            Place::Field(field) if field.is_list() => Ok(Open::List(field)),
            Place::Field(field) | Place::Element(field) => match field.kind() {
                Kind::Message(_) => Err(unexpected(at, "[")),
                _ => Err(invalid(&field, at, "[")),
            },
        }
    }

    fn name(&mut self, at: Position) -> Result<(), String> {
        if self.wrong.is_some() {
            return Ok(());
        }
        let Some(Open::Message(message)) = self.open.last_mut() else { return Ok(()) };
        let raw = self.scanner.token();
        self.name.0.clear();
        self.name.0.extend_from_slice(raw);
        self.name.1 = at;
        let name = scalar::unquote(raw, at)?;
        let field = message.kind.get_field_by_json_name(&name);
        message.field = field.or_else(|| message.kind.get_field_by_name(&name));
        let Some(field) = &message.field else { return Ok(()) };
        let bit = bit(field);
        if message.named & bit != 0 {
            let Position { line, column } = at;
            return Err(format!("(line {line}:{column}): duplicate field {}", lossy(raw)));
        }
        message.named |= bit;
        Ok(())
    }

    fn scalar(&mut self, at: Position) -> Result<(), String> {
        let place = self.place();
        let raw = self.scanner.token();
        let is_null = raw == b"null";
        let field = match place {
            Place::Nowhere => return Ok(()),
            Place::Root => return Err(unexpected(at, &lossy(raw))),
            // Null leaves the field unset.
            Place::Field(_) if is_null => return Ok(()),
            Place::Field(field) if field.is_list() => return Err(unexpected(at, &lossy(raw))),
            Place::Field(field) => {
                self.set(&field)?;
                field
            }
            Place::Element(field) => field,
        };
        let raw = self.scanner.token();
        if let Kind::Message(_) = field.kind() {
            return Err(unexpected(at, &lossy(raw)));
        }
        match scalar::value(&field, raw, at)? {
            Some(value) => self.wire.put(field.number(), &value),
            None => return Err(invalid(&field, at, &lossy(raw))),
        }
        Ok(())
    }

    /// Marks a field of the innermost message as set; refuses a second field of a oneof.
    fn set(&mut self, field: &FieldDescriptor) -> Result<(), String> {
        let Some(Open::Message(message)) = self.open.last_mut() else { return Ok(()) };
        if let Some(oneof) = field.containing_oneof()
            && oneof.fields().any(|other| message.set & bit(&other) != 0)
        {
            let (raw, Position { line, column }) = &self.name;
            let (name, oneof) = (lossy(raw), oneof.full_name());
            return Err(format!(
                "(line {line}:{column}): error parsing {name}, oneof {oneof} is already set"
            ));
        }
        message.set |= bit(field);
        Ok(())
    }
}

/// Returns the field's bit. A test checks that all numbers are small.
fn bit(field: &FieldDescriptor) -> u128 {
    1_u128.checked_shl(field.number()).unwrap_or(0)
}

fn lossy(raw: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(raw)
}

fn unexpected(at: Position, raw: &str) -> String {
    let Position { line, column } = at;
    format!("syntax error (line {line}:{column}): unexpected token {raw}")
}

fn invalid(field: &FieldDescriptor, at: Position, raw: &str) -> String {
    let Position { line, column } = at;
    let (kind, name) = (scalar::name(&field.kind()), field.json_name());
    format!("(line {line}:{column}): invalid value for {kind} field {name}: {raw}")
}

/// The encoding of a message. Above its bound it is only measured.
struct Wire {
    bytes: BytesMut,
    length: usize,
    max: usize,
}

impl Wire {
    fn new(max: usize) -> Self {
        Self { bytes: BytesMut::new(), length: 0, max }
    }

    fn append(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        if self.length > self.max {
            self.bytes = BytesMut::new();
        } else if self.bytes.len() + bytes.len() == self.length {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn varint(&mut self, value: u64) {
        let (bytes, length) = varint(value);
        self.append(&bytes[..length]);
    }

    fn put(&mut self, number: u32, value: &Value<'_>) {
        match value {
            Value::Nothing => {}
            Value::Varint(value) => {
                self.varint(u64::from(number) << 3);
                self.varint(*value);
            }
            Value::Bytes(bytes) => {
                self.varint(u64::from(number) << 3 | 2);
                self.varint(bytes.len() as u64);
                self.append(bytes);
            }
        }
    }

    /// Begins a nested message, with one byte reserved for its length.
    fn begin(&mut self, number: u32) -> usize {
        self.varint(u64::from(number) << 3 | 2);
        self.append(&[0]);
        self.length
    }

    fn end(&mut self, begin: usize) {
        let content = self.length - begin;
        let (prefix, bytes) = varint(content as u64);
        let is_kept = self.bytes.len() == self.length;
        self.append(&prefix[..bytes - 1]);
        if is_kept && self.bytes.len() == self.length {
            let end = begin + content;
            self.bytes.copy_within(begin..end, begin + bytes - 1);
            self.bytes[begin - 1..begin - 1 + bytes].copy_from_slice(&prefix[..bytes]);
        }
    }
}

/// Returns a varint and its size.
fn varint(mut value: u64) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return (bytes, at + 1);
        }
        *byte |= 0x80;
    }
    (bytes, bytes.len())
}

#[cfg(test)]
mod tests;
