//! Response bodies of ranges and txns that are too large to be built at once: one gRPC message, whose
//! length is known before its first byte, encoded page by page while it is sent. The bytes are those of
//! the whole message.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use quorate_proto::etcdserverpb::{RangeResponse, ResponseOp, TxnResponse, response_op::Response};
use tonic::Status;
use tonic::body::Body;

use super::status::status;
use crate::limits;
use crate::member::{Charge, Pages};

/// A body that a handler attaches to its response in place of the message. Extensions must be cloneable;
/// the first clone that is taken has the body.
#[derive(Clone)]
pub(super) struct Paged(Arc<Mutex<Option<Writer>>>);

/// The memory budget of a response, held until its body is sent.
#[derive(Clone)]
pub(super) struct AnswerCharge(#[allow(dead_code, reason = "it is kept, not read")] Arc<Charge>);

impl AnswerCharge {
    pub fn new(charge: Charge) -> Self {
        Self(Arc::new(charge))
    }
}

impl Paged {
    /// Builds the body of `frame` with the keys of `pages`. A message that clients could not receive is
    /// refused with the text of gRPC's Go library.
    pub fn new(frame: &impl Listing, pages: Pages) -> Result<Self, Status> {
        let mut parts = Parts::default();
        frame.part(&mut parts, &pages);
        parts.flush();
        let (bytes, most) = (parts.bytes, limits::ANSWER_MESSAGE_BYTES_MAX);
        if bytes > most {
            let text = format!("grpc: trying to send message larger than max ({bytes} vs. {most})");
            return Err(Status::resource_exhausted(text));
        }
        let mut prefix = BytesMut::new();
        prefix.put_u8(0);
        prefix.put_u32(u32::try_from(bytes).expect("it was compared with what may be"));
        parts.list.push_front(Part::Bytes(prefix.freeze()));
        parts.list.push_back(Part::Trailers);
        let left = bytes + PREFIX_BYTES;
        Ok(Self(Arc::new(Mutex::new(Some(Writer { pages, left, parts: parts.list })))))
    }

    /// Returns the body.
    pub fn body(self) -> Body {
        let writer = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(writer) = writer else { return Body::empty() };
        Body::new(StreamBody::new(Box::pin(stream::try_unfold(writer, Writer::frame))))
    }
}

/// A message with lists of keys that are read in pages.
pub(super) trait Listing {
    /// Splits the message into encoded parts and lists.
    fn part(&self, parts: &mut Parts, pages: &Pages);
}

impl Listing for RangeResponse {
    fn part(&self, parts: &mut Parts, pages: &Pages) {
        parts.range(self, pages.bytes());
    }
}

impl Listing for TxnResponse {
    fn part(&self, parts: &mut Parts, pages: &Pages) {
        let TxnResponse { header, succeeded, responses } = self;
        let (header, succeeded) = (*header, *succeeded);
        parts.put(&TxnResponse { header, succeeded, responses: Vec::new() });
        for (n, op) in responses.iter().enumerate() {
            let list = pages.lists().iter().find(|(of, _)| *of == n);
            match (list, &op.response) {
                (Some((_, bytes)), Some(Response::ResponseRange(range))) => {
                    let inner = range.encoded_len() as u64 + bytes;
                    let outer = 1 + encoded_len_varint(inner) as u64 + inner;
                    parts.begin(RESPONSES, outer);
                    parts.begin(RESPONSE_RANGE, inner);
                    parts.range(range, *bytes);
                }
                _ => {
                    let responses = vec![ResponseOp { response: op.response.clone() }];
                    parts.put(&TxnResponse { responses, ..TxnResponse::default() });
                }
            }
        }
    }
}

/// Field numbers: `TxnResponse.responses`, `ResponseOp.response_range`.
const RESPONSES: u32 = 3;
const RESPONSE_RANGE: u32 = 1;

/// A message in pieces.
#[derive(Default)]
pub(super) struct Parts {
    list: VecDeque<Part>,
    /// Bytes that are not in the list yet.
    last: BytesMut,
    /// Size of the whole message.
    bytes: u64,
}

impl Parts {
    fn put(&mut self, message: &impl prost::Message) {
        self.bytes += message.encoded_len() as u64;
        message.encode(&mut self.last).expect("the buffer grows");
    }

    /// Begins a field that is a message of `bytes` bytes.
    fn begin(&mut self, field: u32, bytes: u64) {
        let before = self.last.len();
        encode_key(field, WireType::LengthDelimited, &mut self.last);
        encode_varint(bytes, &mut self.last);
        self.bytes += (self.last.len() - before) as u64;
    }

    /// Appends a range with `bytes` bytes of keys.
    fn range(&mut self, frame: &RangeResponse, bytes: u64) {
        self.put(&RangeResponse { header: frame.header, ..RangeResponse::default() });
        self.flush();
        self.list.push_back(Part::Keys);
        self.bytes += bytes;
        self.put(&RangeResponse { header: None, ..frame.clone() });
    }

    fn flush(&mut self) {
        if !self.last.is_empty() {
            self.list.push_back(Part::Bytes(self.last.split().freeze()));
        }
    }
}

/// A part of the body.
enum Part {
    Bytes(Bytes),
    /// A list of keys, read from the pages.
    Keys,
    Trailers,
}

struct Writer {
    pages: Pages,
    /// Bytes left to write.
    left: u64,
    parts: VecDeque<Part>,
}

impl Writer {
    async fn frame(mut self) -> Result<Option<(Frame<Bytes>, Self)>, Status> {
        let data = loop {
            match self.parts.pop_front() {
                None => return Ok(None),
                Some(Part::Trailers) if self.left > 0 => return Err(wrong_length()),
                Some(Part::Trailers) => {
                    let mut trailers = HeaderMap::new();
                    Status::ok("").add_header(&mut trailers)?;
                    return Ok(Some((Frame::trailers(trailers), self)));
                }
                Some(Part::Bytes(bytes)) => break bytes,
                Some(Part::Keys) => {
                    let kvs = self.pages.next().await.map_err(status)?;
                    if kvs.is_empty() {
                        continue;
                    }
                    self.parts.push_front(Part::Keys);
                    let page = RangeResponse { kvs, ..RangeResponse::default() };
                    break page.encode_to_vec().into();
                }
            }
        };
        self.left = self.left.checked_sub(data.len() as u64).ok_or_else(wrong_length)?;
        Ok(Some((Frame::data(data), self)))
    }
}

/// gRPC's prefix: a compression flag and the length.
const PREFIX_BYTES: u64 = 5;

/// Both passes read the same snapshot, so a difference is a bug of the server. The client sees a broken
/// response.
fn wrong_length() -> Status {
    tracing::error!("a range's pages are not what was measured");
    Status::internal("the answer is not what was measured")
}
