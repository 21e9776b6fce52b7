//! One revision's events as sessions share them, and the response that carries them. An event is
//! encoded by the first session that sends it and never again.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use prost::Message;
use quorate_proto::etcdserverpb::{ResponseHeader, WatchResponse};
use quorate_proto::mvccpb::{Event, KeyValue};

use super::Publication;
use crate::types::Revision;

/// A publication with room for its encodings.
pub struct Record {
    pub revision: Revision,
    pub events: Arc<[Event]>,
    /// Keys and values, bytes: what keeping this record costs.
    pub bytes: usize,
    encodings: Box<[Encodings]>,
}

/// An event's bytes, without and with the state before it.
#[derive(Default)]
struct Encodings {
    plain: OnceLock<Bytes>,
    with_previous: OnceLock<Bytes>,
}

impl Record {
    pub fn new(publication: Publication) -> Self {
        let Publication { revision, events } = publication;
        let bytes = events.iter().map(bytes_of).sum();
        let encodings = events.iter().map(|_| Encodings::default()).collect();
        Self { revision, events, bytes, encodings }
    }

    /// The event's bytes on the wire.
    pub fn encoded(&self, event: usize, prev_kv: bool) -> Bytes {
        let (event, encodings) = (&self.events[event], &self.encodings[event]);
        if prev_kv && event.prev_kv.is_some() {
            encodings.with_previous.get_or_init(|| event.encode_to_vec().into()).clone()
        } else {
            let plain = || Event { prev_kv: None, ..event.clone() }.encode_to_vec().into();
            encodings.plain.get_or_init(plain).clone()
        }
    }

    pub fn key(&self, event: usize) -> &[u8] {
        key_of(&self.events[event])
    }
}

/// The key that an event is about.
pub fn key_of(event: &Event) -> &[u8] {
    event.kv.as_ref().map_or(&[], |kv| &kv.key)
}

/// What keeping an event costs, bytes.
pub fn bytes_of(event: &Event) -> usize {
    let size = |kv: &Option<KeyValue>| kv.as_ref().map_or(0, |kv| kv.key.len() + kv.value.len());
    size_of::<Event>() + size(&event.kv) + size(&event.prev_kv)
}

/// `etcdserverpb.WatchResponse`, byte for byte the same on the wire, with the events already
/// encoded: sending one event to a thousand streams copies its bytes and encodes nothing.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(int64, tag = "2")]
    pub watch_id: i64,
    #[prost(bool, tag = "3")]
    pub created: bool,
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    #[prost(int64, tag = "5")]
    pub compact_revision: i64,
    #[prost(string, tag = "6")]
    pub cancel_reason: String,
    #[prost(bool, tag = "7")]
    pub fragment: bool,
    #[prost(bytes = "bytes", repeated, tag = "11")]
    pub events: Vec<Bytes>,
}

impl From<Response> for WatchResponse {
    /// For an edge that uses the generated type; decoding shares the bytes.
    fn from(response: Response) -> Self {
        let decode = |event| Event::decode(event).expect("encoded by Record::encoded");
        Self {
            header: response.header,
            watch_id: response.watch_id,
            created: response.created,
            canceled: response.canceled,
            compact_revision: response.compact_revision,
            cancel_reason: response.cancel_reason,
            fragment: response.fragment,
            events: response.events.into_iter().map(decode).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_proto::mvccpb::event::EventType;

    fn event() -> Event {
        let kv = KeyValue { key: "k".into(), value: "v".into(), mod_revision: 7, ..<_>::default() };
        let previous = KeyValue { value: "u".into(), mod_revision: 5, ..kv.clone() };
        Event { r#type: EventType::Put as i32, kv: Some(kv), prev_kv: Some(previous) }
    }

    #[test]
    fn encodes_as_the_generated_type_does() {
        let record = Record::new(Publication { revision: Revision(7), events: [event()].into() });
        for prev_kv in [false, true] {
            let response = Response {
                header: Some(ResponseHeader { revision: 7, member_id: 3, ..<_>::default() }),
                watch_id: -1,
                created: true,
                canceled: true,
                compact_revision: 4,
                cancel_reason: "why".into(),
                fragment: true,
                events: vec![record.encoded(0, prev_kv)],
            };
            let wire = response.encode_to_vec();
            let generated = WatchResponse::from(response);
            assert_eq!(generated.encode_to_vec(), wire);
            assert_eq!(generated.events[0].prev_kv.is_some(), prev_kv);
            assert_eq!(WatchResponse::decode(&wire[..]).expect("decodes"), generated);
        }
    }

    #[test]
    fn encodes_an_event_once() {
        let record = Record::new(Publication { revision: Revision(7), events: [event()].into() });
        let (first, second) = (record.encoded(0, true), record.encoded(0, true));
        assert_eq!(first.as_ptr(), second.as_ptr());
    }
}
