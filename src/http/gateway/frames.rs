//! gRPC's messages on their way: a flag that says "not compressed", four bytes of length, the message.
//! [`Requests`] makes such a body of a body of JSON objects; [`Frames`] takes one apart.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};
use prost_reflect::MessageDescriptor;
use tonic::Status;
use tonic::body::Body;

use super::json::{self, Objects};
use crate::limits;

const PREFIX_BYTES: usize = 5;

/// One message with its prefix.
pub(super) fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a request is bounded"));
    frame.extend_from_slice(message);
    frame.freeze()
}

/// Takes messages out of what a gRPC body brings, wherever it is cut.
#[derive(Debug, Default)]
pub(super) struct Frames(BytesMut);

impl Frames {
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// How long the next message is, if that is there.
    pub fn length(&self) -> Option<usize> {
        let length = self.0.get(1..PREFIX_BYTES)?.try_into().ok()?;
        Some(u32::from_be_bytes(length) as usize)
    }

    /// What is there of the next message, whose length is known.
    pub fn open(&mut self) -> Bytes {
        self.0.advance(PREFIX_BYTES);
        self.0.split().freeze()
    }

    /// The next message, if all of it is there.
    pub fn next(&mut self) -> Option<Bytes> {
        let length = self.length()?;
        if self.0.len() < PREFIX_BYTES + length {
            return None;
        }
        self.0.advance(PREFIX_BYTES);
        let message = self.0.split_to(length).freeze();
        if self.0.is_empty() {
            // Room for a large message is not kept for the next one.
            self.0 = BytesMut::new();
        }
        Some(message)
    }
}

/// The gRPC body of a call with many requests. As with etcd, one that cannot be read is the last: the
/// call goes on with those before it.
pub(super) struct Requests {
    body: Body,
    kind: MessageDescriptor,
    objects: Objects,
    /// What of an object may wait for its end.
    bytes_max: usize,
    over: bool,
}

impl Requests {
    pub fn new(body: Body, kind: MessageDescriptor, bytes_max: usize) -> Self {
        Self { body, kind, objects: Objects::default(), bytes_max, over: false }
    }

    /// The next request, if all of it is there.
    fn next(&mut self) -> Result<Option<Bytes>, String> {
        let Some(object) = self.objects.next()? else { return Ok(None) };
        json::read(&self.kind, &object).map(|message| Some(frame(&message)))
    }
}

impl HttpBody for Requests {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        while !self.over {
            match self.next() {
                Ok(Some(request)) => return Poll::Ready(Some(Ok(Frame::data(request)))),
                Ok(None) if self.objects.len() <= self.bytes_max => {}
                Ok(None) | Err(_) => break,
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    self.objects.push(&data);
                }
                Some(Err(_)) | None => break,
            }
        }
        self.over = true;
        Poll::Ready(None)
    }
}

/// How much JSON may say one request that the gRPC side takes.
pub(super) fn json_bytes_max(request_bytes_max: usize) -> usize {
    limits::GATEWAY_JSON_FACTOR * (request_bytes_max + limits::GRPC_OVERHEAD_BYTES)
}
