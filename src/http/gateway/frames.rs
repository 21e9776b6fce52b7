//! Bodies of gRPC, whose messages have a flag and a length in front, and bodies of JSON. [`read_one`] and
//! [`Requests`] turn JSON into messages while it arrives; [`Frames`] splits the messages of an answer.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt as _;
use prost_reflect::MessageDescriptor;
use tonic::Status;
use tonic::body::Body;

use super::reader::{Bounds, Reader};
use crate::limits;

const PREFIX_BYTES: usize = 5;

/// Returns a message with its prefix.
pub(super) fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a request is bounded"));
    frame.extend_from_slice(message);
    frame.freeze()
}

/// Splits a gRPC body into messages, wherever its frames are cut.
#[derive(Debug, Default)]
pub(super) struct Frames(BytesMut);

impl Frames {
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Returns the length of the next message, if it has been received.
    pub fn length(&self) -> Option<usize> {
        let length = self.0.get(1..PREFIX_BYTES)?.try_into().ok()?;
        Some(u32::from_be_bytes(length) as usize)
    }

    /// Returns the received part of the next message, whose length is known.
    pub fn open(&mut self) -> Bytes {
        self.0.advance(PREFIX_BYTES);
        self.0.split().freeze()
    }

    /// Returns the next message, if it is complete.
    pub fn next(&mut self) -> Option<Bytes> {
        let length = self.length()?;
        if self.0.len() < PREFIX_BYTES + length {
            return None;
        }
        self.0.advance(PREFIX_BYTES);
        let message = self.0.split_to(length).freeze();
        if self.0.is_empty() {
            // The capacity of a large message is not kept.
            self.0 = BytesMut::new();
        }
        Some(message)
    }
}

/// The gRPC body of a stream of requests. As in etcd, an invalid request ends the stream, and the call
/// continues with those before it.
pub(super) struct Requests {
    body: Body,
    /// None at the end, when the call may go on for long: what it holds of a request is released.
    reader: Option<Reader>,
    /// Received JSON that is not read yet.
    rest: Bytes,
}

impl Requests {
    pub fn new(body: Body, kind: MessageDescriptor, bounds: Bounds) -> Self {
        Self { body, reader: Some(Reader::new(kind, bounds)), rest: Bytes::new() }
    }
}

impl HttpBody for Requests {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        while let Some(reader) = &mut this.reader {
            let step = this.rest.len().min(limits::GATEWAY_STEP_BYTES);
            let mut part = this.rest.slice(..step);
            let read = reader.read(&mut part);
            this.rest.advance(step - part.len());
            match read {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(Frame::data(frame(&message))))),
                Ok(None) if this.rest.is_empty() => {}
                Ok(None) => {
                    // Other tasks have their turn.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Err(_) => break,
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => this.rest = frame.into_data().unwrap_or_default(),
                // The body has failed, not what is in it: so has the call.
                Some(Err(error)) => {
                    (this.reader, this.rest) = (None, Bytes::new());
                    return Poll::Ready(Some(Err(error)));
                }
                None => break,
            }
        }
        (this.reader, this.rest) = (None, Bytes::new());
        Poll::Ready(None)
    }
}

/// Reads the message of a body's first object. As in etcd, an empty body is the default message, and bytes
/// behind the object are ignored.
pub(super) async fn read_one(
    mut body: Body,
    kind: &MessageDescriptor,
    bounds: Bounds,
) -> Result<Bytes, Status> {
    let mut reader = Reader::new(kind.clone(), bounds);
    while let Some(part) = body.frame().await {
        let mut rest = part?.into_data().unwrap_or_default();
        while !rest.is_empty() {
            let mut part = rest.split_to(rest.len().min(limits::GATEWAY_STEP_BYTES));
            if let Some(message) = reader.read(&mut part)? {
                return Ok(message);
            }
            if !rest.is_empty() {
                others_first().await;
            }
        }
    }
    reader.finish()
}

/// Lets other tasks have their turn.
async fn others_first() {
    let mut waited = false;
    poll_fn(|cx| match std::mem::replace(&mut waited, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

/// Returns the bounds of a request, by the bound of a gRPC message.
pub(super) fn bounds(request_bytes_max: usize) -> Bounds {
    let wire_bytes = request_bytes_max.saturating_add(limits::GRPC_OVERHEAD_BYTES);
    Bounds { json_bytes: wire_bytes.saturating_mul(limits::GATEWAY_JSON_FACTOR), wire_bytes }
}
