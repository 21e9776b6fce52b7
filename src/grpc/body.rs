//! Request and response bodies of calls in the gate: requests bound the size of each message, responses
//! count the result and end at the deadline.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use super::calls::{Call, Received};
use super::paged::AnswerCharge;
use super::status::{spell_message, status};
use super::unread;
use crate::env::BoxFuture;
use crate::error::{Error, Unavailable};

/// A gRPC message's prefix: a compression flag and a length, big-endian.
pub(super) const PREFIX_BYTES: usize = 5;

/// Tracks message boundaries through a body, wherever its frames are cut.
#[derive(Debug, Default)]
pub(crate) struct Boundaries {
    /// A message's prefix, how many bytes of it were read, and how many are left of the message.
    prefix: [u8; PREFIX_BYTES],
    seen: usize,
    rest: usize,
}

impl Boundaries {
    /// Returns whether the position is between two messages.
    pub fn is_between(&self) -> bool {
        self.seen == 0 && self.rest == 0
    }

    /// Calls `begins` with the flag and the length of every message that begins in `data`.
    pub fn follow<E>(
        &mut self,
        mut data: &[u8],
        mut begins: impl FnMut(u8, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        while !data.is_empty() {
            if self.rest > 0 {
                let skip = self.rest.min(data.len());
                self.rest -= skip;
                data = &data[skip..];
                continue;
            }
            let take = (PREFIX_BYTES - self.seen).min(data.len());
            self.prefix[self.seen..self.seen + take].copy_from_slice(&data[..take]);
            (self.seen, data) = (self.seen + take, &data[take..]);
            if self.seen == PREFIX_BYTES {
                let [flag, length @ ..] = self.prefix;
                (self.seen, self.rest) = (0, u32::from_be_bytes(length) as usize);
                begins(flag, self.rest)?;
            }
        }
        Ok(())
    }
}

/// A request body whose messages are bounded. A longer one fails as soon as its length was read, with the
/// text of gRPC's Go library.
pub(crate) struct Limited<B> {
    body: B,
    limit: usize,
    /// Whether messages may be compressed.
    compressed: bool,
    received: Received,
    boundaries: Boundaries,
}

impl<B> Limited<B> {
    pub fn new(body: B, limit: usize, compressed: bool, received: Received) -> Self {
        Self { body, limit, compressed, received, boundaries: Boundaries::default() }
    }

    fn check(&mut self, data: &[u8]) -> Result<(), Status> {
        let (limit, compressed, received) = (self.limit, self.compressed, &self.received);
        received.bytes(data.len());
        self.boundaries.follow(data, |flag, length| {
            match flag {
                0 => {}
                1 if compressed => {}
                1 => {
                    let text = "grpc: compressed flag set with identity or empty encoding";
                    return Err(Status::internal(text));
                }
                flag => {
                    let text = format!("grpc: received unexpected payload format {flag}");
                    return Err(Status::internal(text));
                }
            }
            if length > limit {
                return Err(Status::resource_exhausted(format!(
                    "grpc: received message larger than max ({length} vs. {limit})"
                )));
            }
            received.message();
            Ok(())
        })
    }
}

impl<B> HttpBody for Limited<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            return Poll::Pending;
        };
        Poll::Ready(match frame {
            None => None,
            Some(Err(error)) => Some(Err(Status::from_error(error.into()))),
            Some(Ok(frame)) => {
                let checked = frame.data_ref().map_or(Ok(()), |data| self.check(data));
                Some(checked.map(|()| frame))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response body; the result of the call is in its trailers.
pub(crate) struct Answer {
    body: Body,
    call: Call,
    boundaries: Boundaries,
    /// The deadline of the call.
    deadline: Option<BoxFuture<'static, ()>>,
    /// The memory budget held for the response.
    _charge: Option<AnswerCharge>,
    /// Whether it is given up when the client takes nothing of it.
    is_bounded: bool,
    over: bool,
}

impl Answer {
    pub fn new(body: Body, call: Call) -> Self {
        let (boundaries, is_bounded) = (Boundaries::default(), unread::is_bounded(call.rpc()));
        Self { body, call, boundaries, deadline: None, _charge: None, is_bounded, over: false }
    }

    /// Adds the deadline and the memory budget of the response.
    pub(super) fn bounded(
        self,
        deadline: Option<BoxFuture<'static, ()>>,
        held: Option<AnswerCharge>,
    ) -> Self {
        Self { deadline, _charge: held, ..self }
    }

    fn note(&mut self, frame: &mut Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.call.count_sent(data.len());
            let call = &self.call;
            let Ok::<(), Infallible>(()) = self.boundaries.follow(data, |_, _| {
                call.count_message();
                Ok(())
            });
        } else if let Some(trailers) = frame.trailers_mut() {
            self.call.end(code(trailers).unwrap_or(Code::Unknown), || message(trailers));
            spell_message(trailers);
        }
    }

    /// Returns the last frame at the deadline: trailers between two messages, else an error that resets the
    /// stream, because a client would read trailers as part of the message.
    fn late(&mut self) -> Result<Frame<Bytes>, Status> {
        let mut late = status(Error::from(Unavailable::DeadlineExceeded));
        self.call.end(late.code(), || late.message().to_owned());
        if !self.boundaries.is_between() {
            late.set_source(Arc::new(h2::Error::from(h2::Reason::CANCEL)));
            return Err(late);
        }
        let mut trailers = HeaderMap::new();
        late.add_header(&mut trailers)?;
        spell_message(&mut trailers);
        Ok(Frame::trailers(trailers))
    }
}

/// Returns the result in these headers or trailers, if any.
pub(crate) fn code(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

/// Returns the message of the result in these headers or trailers.
pub(crate) fn message(headers: &HeaderMap) -> String {
    let status = Status::from_header_map(headers);
    status.map(|status| status.message().to_owned()).unwrap_or_default()
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        // Between two pieces of a message the client may have read nothing for long.
        if !self.boundaries.is_between()
            && let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            self.over = true;
            self.body = Body::empty();
            return Poll::Ready(Some(self.late()));
        }
        if let Poll::Ready(mut frame) = Pin::new(&mut self.body).poll_frame(cx) {
            match &mut frame {
                Some(Ok(frame)) => self.note(frame),
                Some(Err(error)) => self.call.end(error.code(), || error.message().to_owned()),
                None => self.call.end(Code::Ok, String::new),
            }
            if self.is_bounded {
                unread::given();
            }
            return Poll::Ready(frame);
        }
        unread::waits();
        let Some(deadline) = &mut self.deadline else { return Poll::Pending };
        if deadline.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.over = true;
        self.body = Body::empty();
        Poll::Ready(Some(self.late()))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::calls::Calls;
    use crate::metrics::Metrics;

    #[test]
    fn messages_are_bounded_across_frames() {
        let calls = Calls::new(Arc::new(Metrics::new()), None);
        let call = calls.begin("/etcdserverpb.KV/Put").expect("a method");
        let mut limited = Limited::new((), 4, false, call.received());
        assert!(limited.check(&[0, 0, 0]).is_ok());
        assert!(limited.check(&[0, 4, 1, 2]).is_ok());
        assert!(limited.check(&[3, 4, 0, 0, 0, 0]).is_ok());
        let error = limited.check(&[5]).expect_err("five is above the limit of four");
        assert_eq!(error.message(), "grpc: received message larger than max (5 vs. 4)");
        assert_eq!(error.code(), tonic::Code::ResourceExhausted);
    }
}
