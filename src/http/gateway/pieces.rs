//! Translates a large message to JSON while it is received, field by field, with the result of
//! [`json::write`] for the whole message. Requires that fields are in the order of their numbers and not
//! split, as encoders write them. Maps are not supported; etcd's responses have none.

use bytes::{Buf, Bytes, BytesMut};
use prost::encoding::{WireType, decode_key, decode_varint};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::json;

/// A message that is being translated.
pub(super) struct Pieces {
    /// Received bytes that are not translated yet.
    bytes: BytesMut,
    /// JSON that is not returned yet.
    begun: Vec<u8>,
    /// Open messages, the outermost first.
    open: Vec<Open>,
    /// A nested message above this size is translated in pieces as well.
    large: usize,
}

/// An open message.
struct Open {
    kind: MessageDescriptor,
    /// Bytes left to read.
    left: u64,
    /// Number of the open list.
    list: Option<u32>,
    empty: bool,
}

/// The key and length of a field.
struct Head {
    number: u32,
    bytes: usize,
    content: usize,
}

impl Pieces {
    /// Begins a message of `bytes` bytes.
    pub fn new(kind: MessageDescriptor, bytes: usize, large: usize) -> Self {
        let mut pieces =
            Self { bytes: BytesMut::new(), begun: Vec::new(), open: Vec::new(), large };
        pieces.begin(kind, bytes);
        pieces
    }

    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns whether the message is complete.
    pub fn is_over(&self) -> bool {
        self.open.is_empty() && self.begun.is_empty()
    }

    /// Returns the next JSON, about `enough` bytes; empty if more input is needed.
    pub fn next(&mut self, enough: usize) -> Result<Bytes, String> {
        while self.begun.len() < enough && self.step()? {}
        Ok(std::mem::take(&mut self.begun).into())
    }

    /// Translates one field; false if more input is needed.
    fn step(&mut self) -> Result<bool, String> {
        let Some(open) = self.open.last_mut() else { return Ok(false) };
        if open.left == 0 {
            let end: &[u8] = if open.list.is_some() { b"]}" } else { b"}" };
            self.begun.extend_from_slice(end);
            self.open.pop();
            return Ok(true);
        }
        let Some(head) = Head::read(&self.bytes)? else { return Ok(false) };
        let whole = head.bytes.checked_add(head.content);
        let left = whole.and_then(|whole| open.left.checked_sub(whole as u64));
        let (Some(whole), Some(left)) = (whole, left) else {
            return Err("a field is larger than its message".to_owned());
        };
        let field = open.kind.get_field(head.number);
        if let Some(field) = &field
            && let Kind::Message(kind) = field.kind()
            && head.content > self.large
        {
            open.left = left;
            open.name(field, &mut self.begun);
            self.bytes.advance(head.bytes);
            self.begin(kind, head.content);
            return Ok(true);
        }
        if self.bytes.len() < whole {
            return Ok(false);
        }
        open.left = left;
        let wire = self.bytes.split_to(whole).freeze();
        if let Some(field) = field {
            open.write(&field, wire, &mut self.begun)?;
        }
        Ok(true)
    }

    fn begin(&mut self, kind: MessageDescriptor, bytes: usize) {
        self.begun.push(b'{');
        self.open.push(Open { kind, left: bytes as u64, list: None, empty: true });
    }
}

impl Open {
    /// Writes a complete field.
    fn write(
        &mut self,
        field: &FieldDescriptor,
        wire: Bytes,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        // Written as the only field of a message.
        let text = json::write(&self.kind, wire)?;
        let name = format!("{{\"{}\":", field.name());
        // A default value is left out.
        let Some(value) = text.strip_prefix(&name).and_then(|rest| rest.strip_suffix('}')) else {
            return Ok(());
        };
        let of_list = || value.strip_prefix('[')?.strip_suffix(']');
        let value = if field.is_list() { of_list().unwrap_or_default() } else { value };
        self.name(field, out);
        out.extend_from_slice(value.as_bytes());
        Ok(())
    }

    /// Writes the separator and name before a value or list element.
    fn name(&mut self, field: &FieldDescriptor, out: &mut Vec<u8>) {
        if self.list == Some(field.number()) {
            return out.push(b',');
        }
        if self.list.take().is_some() {
            out.push(b']');
        }
        if !std::mem::replace(&mut self.empty, false) {
            out.push(b',');
        }
        out.extend_from_slice(format!("\"{}\":", field.name()).as_bytes());
        if field.is_list() {
            out.push(b'[');
            self.list = Some(field.number());
        }
    }
}

impl Head {
    /// None if more input is needed.
    fn read(bytes: &[u8]) -> Result<Option<Self>, String> {
        /// Maximum size of a key and a length, or a number.
        const LONGEST: usize = 20;
        match Self::read_whole(bytes) {
            Ok(head) => Ok(Some(head)),
            Err(_) if bytes.len() < LONGEST => Ok(None),
            Err(why) => Err(why),
        }
    }

    fn read_whole(bytes: &[u8]) -> Result<Self, String> {
        let mut rest = bytes;
        let (number, kind) = decode_key(&mut rest).map_err(|why| why.to_string())?;
        let key = bytes.len() - rest.len();
        let mut varint = || decode_varint(&mut rest).map_err(|why| why.to_string());
        let content = match kind {
            WireType::LengthDelimited => varint()? as usize,
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::Varint => {
                varint()?;
                let content = bytes.len() - rest.len() - key;
                return Ok(Self { number, bytes: key, content });
            }
            WireType::StartGroup | WireType::EndGroup => return Err("a group".to_owned()),
        };
        Ok(Self { number, bytes: bytes.len() - rest.len(), content })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quorate_proto::etcdserverpb::{
        DeleteRangeResponse, Member, MemberListResponse, RangeResponse, ResponseHeader, ResponseOp,
        TxnResponse, response_op::Response,
    };
    use quorate_proto::mvccpb::KeyValue;

    use super::*;
    use crate::http::gateway::paths;

    /// Translates a message in pieces of `cut` bytes.
    fn in_pieces(kind: &MessageDescriptor, wire: &[u8], cut: usize, large: usize) -> String {
        let mut pieces = Pieces::new(kind.clone(), wire.len(), large);
        let (mut text, mut parts) = (Vec::new(), wire.chunks(cut.max(1)));
        while !pieces.is_over() {
            let piece = pieces.next(cut).expect("a message");
            match (piece.is_empty(), pieces.is_over()) {
                (true, false) => pieces.push(parts.next().expect("more is to come")),
                _ => text.extend_from_slice(&piece),
            }
        }
        assert!(parts.next().is_none(), "it is over too early");
        String::from_utf8(text).expect("JSON is text")
    }

    fn check(path: &str, message: &impl prost::Message, cut: usize, large: usize) {
        let rpc = paths::find(path).expect("a path");
        let wire = message.encode_to_vec();
        let whole = json::write(&rpc.response, wire.clone().into()).expect("a message");
        assert_eq!(in_pieces(&rpc.response, &wire, cut, large), whole);
    }

    fn kv() -> impl Strategy<Value = KeyValue> {
        let number = prop_oneof![Just(0), any::<i64>()];
        let text = prop::collection::vec(any::<u8>(), 0..40);
        (text.clone(), text, number.clone(), number.clone(), number).prop_map(
            |(key, value, create_revision, mod_revision, lease)| KeyValue {
                key: key.into(),
                value: value.into(),
                create_revision,
                mod_revision,
                version: mod_revision & 1,
                lease,
            },
        )
    }

    fn range() -> impl Strategy<Value = RangeResponse> {
        (any::<bool>(), prop::collection::vec(kv(), 0..5), any::<bool>(), -1_i64..3).prop_map(
            |(headed, kvs, more, count)| {
                let header = headed.then(|| ResponseHeader { revision: 7, ..<_>::default() });
                RangeResponse { header, kvs, more, count }
            },
        )
    }

    fn op() -> impl Strategy<Value = ResponseOp> {
        let range = range().prop_map(|range| Some(Response::ResponseRange(range)));
        let delete = prop::collection::vec(kv(), 0..3).prop_map(|prev_kvs| {
            Some(Response::ResponseDeleteRange(DeleteRangeResponse { prev_kvs, ..<_>::default() }))
        });
        prop_oneof![3 => range, 2 => delete, 1 => Just(None)]
            .prop_map(|response| ResponseOp { response })
    }

    fn txn() -> impl Strategy<Value = TxnResponse> {
        (any::<bool>(), prop::collection::vec(op(), 0..4), prop::collection::vec(op(), 0..3))
            .prop_map(|(succeeded, mut responses, nested)| {
                let nested = TxnResponse { responses: nested, ..<_>::default() };
                responses.push(ResponseOp { response: Some(Response::ResponseTxn(nested)) });
                TxnResponse { succeeded, responses, ..<_>::default() }
            })
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_whole(
            range in range(), txn in txn(), cut in 1..60_usize, large in 0..60_usize,
        ) {
            check("/v3/kv/range", &range, cut, large);
            check("/v3/kv/txn", &txn, cut, large);
        }
    }

    #[test]
    fn lists_of_other_things_are_lists() {
        let urls = |n: usize| (0..n).map(|n| format!("http://<{n}>\"")).collect();
        let member =
            |n| Member { id: n as u64, name: "m".into(), peer_urls: urls(n), ..<_>::default() };
        let members = MemberListResponse { header: None, members: (0..3).map(member).collect() };
        for cut in 1..40 {
            check("/v3/cluster/member/list", &members, cut, 1);
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let kind = &paths::find("/v3/kv/range").expect("a path").response;
        let mut pieces = Pieces::new(kind.clone(), 3, 0);
        // A field of nine bytes in a message of three.
        pieces.push(&[0x12, 9, 0]);
        assert!(pieces.next(9).is_err());
        let mut pieces = Pieces::new(kind.clone(), 30, 0);
        // The largest length that can be encoded.
        pieces.push(&[&[0x12][..], &[0xff; 9], &[1; 20]].concat());
        assert!(pieces.next(9).is_err());
        let mut pieces = Pieces::new(kind.clone(), 40, 0);
        pieces.push(&[0xff; 30]);
        assert!(pieces.next(9).is_err());
    }
}
