//! The body of a range's answer that is too large to be built at once: one gRPC message, whose length
//! is known before its first byte, made page by page while it is sent. Byte for byte what the message
//! would be as a whole.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;
use quorate_proto::etcdserverpb::RangeResponse;
use tonic::Status;
use tonic::body::Body;

use super::status::status;
use crate::limits;
use crate::member::{Charge, Pages};

/// What a handler leaves to be sent in place of its message. Cheap to clone, as what goes along with
/// a response must be; only the first who takes it has it.
#[derive(Clone)]
pub(super) struct Paged(Arc<Mutex<Option<Pages>>>);

/// What was set aside for an answer, until its body is sent.
#[derive(Clone)]
pub(super) struct Held(#[allow(dead_code, reason = "it is kept, not read")] Arc<Charge>);

impl Held {
    pub fn new(charge: Charge) -> Self {
        Self(Arc::new(charge))
    }
}

impl Paged {
    /// Refused as gRPC's Go library does, when clients could not take it.
    pub fn new(pages: Pages) -> Result<Self, Status> {
        let (bytes, most) = (message_bytes(&pages), limits::ANSWER_MESSAGE_BYTES_MAX);
        if bytes > most {
            let text = format!("grpc: trying to send message larger than max ({bytes} vs. {most})");
            return Err(Status::resource_exhausted(text));
        }
        Ok(Self(Arc::new(Mutex::new(Some(pages)))))
    }

    /// The body to send.
    pub fn body(self) -> Body {
        let pages = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(pages) = pages else { return Body::empty() };
        let bytes = message_bytes(&pages);
        let writer = Writer { pages, left: bytes, part: Part::Head };
        Body::new(StreamBody::new(Box::pin(stream::try_unfold(writer, Writer::frame))))
    }
}

/// What the message takes, its keys included.
fn message_bytes(pages: &Pages) -> u64 {
    pages.bytes() + pages.frame().encoded_len() as u64
}

/// What is written next.
enum Part {
    Head,
    Keys,
    Trailers,
    Nothing,
}

struct Writer {
    pages: Pages,
    /// Bytes of the message that are still to come.
    left: u64,
    part: Part,
}

impl Writer {
    async fn frame(mut self) -> Result<Option<(Frame<Bytes>, Self)>, Status> {
        let frame = match self.part {
            Part::Head => {
                let mut out = BytesMut::new();
                out.put_u8(0);
                out.put_u32(u32::try_from(self.left).expect("it was compared with what may be"));
                let header = self.pages.frame().header;
                RangeResponse { header, ..RangeResponse::default() }
                    .encode(&mut out)
                    .expect("the buffer grows");
                self.left -= out.len() as u64 - PREFIX_BYTES;
                self.part = Part::Keys;
                Frame::data(out.freeze())
            }
            Part::Keys => {
                let kvs = self.pages.next().await.map_err(status)?;
                let page = RangeResponse { kvs, ..RangeResponse::default() };
                let page = if page.kvs.is_empty() {
                    self.part = Part::Trailers;
                    RangeResponse { header: None, ..self.pages.frame().clone() }
                } else {
                    page
                };
                let out = Bytes::from(page.encode_to_vec());
                self.left = self.left.checked_sub(out.len() as u64).ok_or_else(wrong_length)?;
                Frame::data(out)
            }
            Part::Trailers if self.left > 0 => return Err(wrong_length()),
            Part::Trailers => {
                self.part = Part::Nothing;
                let mut trailers = HeaderMap::new();
                Status::ok("").add_header(&mut trailers)?;
                Frame::trailers(trailers)
            }
            Part::Nothing => return Ok(None),
        };
        Ok(Some((frame, self)))
    }
}

/// Of gRPC's prefix: a compression flag and the length.
const PREFIX_BYTES: u64 = 5;

/// The state was read twice at one moment, so this is a fault of ours; the client sees a broken answer.
fn wrong_length() -> Status {
    tracing::error!("a range's pages are not what was measured");
    Status::internal("the answer is not what was measured")
}
