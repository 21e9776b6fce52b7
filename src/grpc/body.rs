//! Request and response bodies of calls in the gate: requests bound the size of each message, responses
//! count the result and end at the deadline.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

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
use crate::rpc::Flow;

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
            let used = self.follow_one(data, &mut begins)?;
            data = &data[used..];
        }
        Ok(())
    }

    /// As [`Self::follow`], but not beyond the end of a message. Returns how many bytes were followed.
    fn follow_one<E>(
        &mut self,
        data: &[u8],
        mut begins: impl FnMut(u8, usize) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut at = 0;
        while at < data.len() {
            if self.rest > 0 {
                let skip = self.rest.min(data.len() - at);
                self.rest -= skip;
                at += skip;
            } else {
                let take = (PREFIX_BYTES - self.seen).min(data.len() - at);
                self.prefix[self.seen..self.seen + take].copy_from_slice(&data[at..at + take]);
                (self.seen, at) = (self.seen + take, at + take);
                if self.seen < PREFIX_BYTES {
                    break;
                }
                let [flag, length @ ..] = self.prefix;
                (self.seen, self.rest) = (0, u32::from_be_bytes(length) as usize);
                begins(flag, self.rest)?;
            }
            if self.rest == 0 {
                break;
            }
        }
        Ok(at)
    }
}

/// A request body whose messages are bounded and whose number is that of the method. A longer message fails
/// as soon as its length was read, with the text of gRPC's Go library, as all that is wrong. As there, what
/// follows the message of a unary call is not looked at.
pub(crate) struct Limited<B> {
    body: B,
    limit: usize,
    /// Whether messages may be compressed.
    compressed: bool,
    received: Received,
    boundaries: Boundaries,
    /// Messages that have begun.
    begun: usize,
}

impl<B> Limited<B> {
    pub fn new(body: B, limit: usize, compressed: bool, received: Received) -> Self {
        Self { body, limit, compressed, received, boundaries: Boundaries::default(), begun: 0 }
    }

    /// Returns how many bytes of `data` are for the handler.
    fn check(&mut self, data: &[u8]) -> Result<usize, Status> {
        let (limit, compressed, received) = (self.limit, self.compressed, &self.received);
        received.bytes(data.len());
        let (flow, is_taken, begun) = (received.flow(), self.is_taken(), &mut self.begun);
        let begins = |flag, length| {
            *begun += 1;
            if flow == Flow::ServerStream && *begun > 1 {
                return Err(Status::internal(SEVERAL_MESSAGES));
            }
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
        };
        match flow {
            Flow::Unary if is_taken => Ok(0),
            Flow::Unary => self.boundaries.follow_one(data, begins),
            _ => self.boundaries.follow(data, begins).map(|()| data.len()),
        }
    }

    /// Whether there was a message, and the last one was whole.
    fn is_taken(&self) -> bool {
        self.begun > 0 && self.boundaries.rest == 0
    }

    /// What is wrong with a body that ends here.
    fn end(&self) -> Result<(), Status> {
        let (flow, is_cut) = (self.received.flow(), self.boundaries.rest > 0);
        match flow {
            _ if self.is_taken() => Ok(()),
            Flow::Unary => Err(Status::unknown(if is_cut { CUT_MESSAGE } else { "EOF" })),
            _ if is_cut => Err(Status::internal(CUT_MESSAGE)),
            Flow::ServerStream => Err(Status::internal(NO_MESSAGE)),
            Flow::BidiStream => Ok(()),
        }
    }
}

const CUT_MESSAGE: &str = "unexpected EOF";
const NO_MESSAGE: &str =
    "cardinality violation: received no request message from non-client-streaming RPC";
const SEVERAL_MESSAGES: &str =
    "cardinality violation: received multiple request messages for non-client-streaming RPC";

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
        let this = &mut *self;
        loop {
            let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
                return Poll::Pending;
            };
            return Poll::Ready(match frame {
                None => this.end().err().map(Err),
                Some(Err(error)) => Some(Err(Status::from_error(error.into()))),
                Some(Ok(mut frame)) => {
                    let Some(data) = frame.data_mut() else { return Poll::Ready(Some(Ok(frame))) };
                    match this.check(data) {
                        Ok(0) if !data.is_empty() => continue,
                        Ok(length) => {
                            data.truncate(length);
                            Some(Ok(frame))
                        }
                        Err(refused) => Some(Err(refused)),
                    }
                }
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && self.end().is_ok()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// A response body; the result of the call is in its trailers.
pub(crate) struct ResponseBody {
    body: Body,
    call: Call,
    boundaries: Boundaries,
    /// What is left of data that is given in pieces, and up to which size it is given as a whole.
    rest: Bytes,
    whole_bytes_max: usize,
    /// The deadline of the call.
    deadline: Option<(Instant, BoxFuture<'static, ()>)>,
    /// The memory budget held for the response.
    _charge: Option<AnswerCharge>,
    /// Whether it is given up when the client takes nothing of it.
    is_bounded: bool,
    over: bool,
}

impl ResponseBody {
    pub fn new(body: Body, call: Call) -> Self {
        let is_bounded = unread::is_bounded(call.rpc());
        Self {
            body,
            boundaries: Boundaries::default(),
            rest: Bytes::new(),
            whole_bytes_max: unread::whole_bytes_max(call.rpc(), false),
            deadline: None,
            _charge: None,
            is_bounded,
            over: false,
            call,
        }
    }

    /// Adds the deadline and the memory budget of the response.
    pub(super) fn bounded(
        self,
        deadline: Option<(Instant, BoxFuture<'static, ()>)>,
        held: Option<AnswerCharge>,
    ) -> Self {
        let whole_bytes_max = unread::whole_bytes_max(self.call.rpc(), deadline.is_some());
        Self { deadline, whole_bytes_max, _charge: held, ..self }
    }

    /// Returns whether what was given ends with a message.
    fn is_between(&self) -> bool {
        self.rest.is_empty() && self.boundaries.is_between()
    }

    /// Notes that there is something to send.
    fn given(&self) {
        unread::given(self.is_bounded, self.deadline.as_ref().map(|(at, _)| *at));
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.deadline {
            Some((_, end)) => end.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    fn note(&mut self, frame: &mut Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.call.count_sent(data.len());
            let call = &self.call;
            let Ok::<(), Infallible>(()) = self.boundaries.follow(data, |_, _| {
                call.count_message();
                Ok(())
            });
            if data.len() > self.whole_bytes_max
                && let Some(data) = frame.data_mut()
            {
                self.rest = unread::split(data);
            }
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
        if !self.is_between() {
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

impl HttpBody for ResponseBody {
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
        if !self.is_between() && self.poll_deadline(cx).is_ready() {
            self.over = true;
            self.body = Body::empty();
            return Poll::Ready(Some(self.late()));
        }
        if !self.rest.is_empty() {
            let mut next = std::mem::take(&mut self.rest);
            self.rest = unread::split(&mut next);
            self.given();
            return Poll::Ready(Some(Ok(Frame::data(next))));
        }
        if let Poll::Ready(mut frame) = Pin::new(&mut self.body).poll_frame(cx) {
            match &mut frame {
                Some(Ok(frame)) => self.note(frame),
                Some(Err(error)) => self.call.end(error.code(), || error.message().to_owned()),
                None => self.call.end(Code::Ok, String::new),
            }
            self.given();
            return Poll::Ready(frame);
        }
        unread::waits();
        if self.poll_deadline(cx).is_pending() {
            return Poll::Pending;
        }
        self.over = true;
        self.body = Body::empty();
        Poll::Ready(Some(self.late()))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;
    use crate::grpc::calls::Calls;
    use crate::metrics::Metrics;

    #[test]
    fn messages_are_bounded_across_frames() {
        let calls = Calls::new(Arc::new(Metrics::new()), None);
        let call = calls.begin("/etcdserverpb.Watch/Watch").expect("a method");
        let mut limited = Limited::new((), 4, false, call.received());
        assert!(limited.check(&[0, 0, 0]).is_ok());
        assert!(limited.check(&[0, 4, 1, 2]).is_ok());
        assert!(limited.check(&[3, 4, 0, 0, 0, 0]).is_ok());
        let error = limited.check(&[5]).expect_err("five is above the limit of four");
        assert_eq!(error.message(), "grpc: received message larger than max (5 vs. 4)");
        assert_eq!(error.code(), tonic::Code::ResourceExhausted);
    }

    /// What the handler gets of a body that comes in these pieces.
    async fn limited(path: &str, pieces: &[&'static [u8]]) -> Result<Bytes, Status> {
        let calls = Calls::new(Arc::new(Metrics::new()), None);
        let call = calls.begin(path).expect("a method");
        let frame = |piece: &&'static [u8]| Ok::<_, Status>(Frame::data(Bytes::from_static(piece)));
        let frames: Vec<_> = pieces.iter().map(frame).collect();
        let body = StreamBody::new(futures::stream::iter(frames));
        Limited::new(body, 4, false, call.received()).collect().await.map(|all| all.to_bytes())
    }

    #[tokio::test]
    async fn of_a_unary_call_only_the_first_message_counts() {
        const ONE: &[u8] = b"\0\0\0\0\x02ab";
        let path = "/etcdserverpb.KV/Put";
        for rest in [&[][..], &[ONE], &[b"\0\0\0"], &[b"\x07\xff\xff\xff\xff"]] {
            let apart = [&[ONE], rest].concat();
            assert_eq!(limited(path, &apart).await.expect("it is taken"), ONE);
            let together = &*[ONE, &rest.concat()].concat().leak();
            assert_eq!(limited(path, &[together]).await.expect("it is taken"), ONE);
        }
        let empty: &[u8] = &[0; 5];
        assert_eq!(limited(path, &[empty, ONE]).await.expect("it is taken"), empty);
        for (pieces, text) in [
            (&[][..], "EOF"),
            (&[&ONE[..3]], "EOF"),
            (&[&ONE[..5]], "unexpected EOF"),
            (&[&ONE[..5], &ONE[5..6]], "unexpected EOF"),
        ] {
            let error = limited(path, pieces).await.expect_err("it is not whole");
            assert_eq!((error.code(), error.message()), (Code::Unknown, text));
        }
    }

    #[tokio::test]
    async fn streams_have_their_number_of_requests() {
        const ONE: &[u8] = b"\0\0\0\0\x02ab";
        let snapshot = "/etcdserverpb.Maintenance/Snapshot";
        assert_eq!(limited(snapshot, &[ONE]).await.expect("it is one"), ONE);
        for (pieces, text) in [
            (&[][..], NO_MESSAGE),
            (&[ONE, ONE], SEVERAL_MESSAGES),
            (&[&ONE[..6]], "unexpected EOF"),
        ] {
            let error = limited(snapshot, pieces).await.expect_err("it is not one");
            assert_eq!((error.code(), error.message()), (Code::Internal, text));
        }
        let watch = "/etcdserverpb.Watch/Watch";
        assert_eq!(limited(watch, &[]).await.expect("a stream may have none"), "");
        assert_eq!(limited(watch, &[ONE, ONE]).await.expect("or two").len(), 2 * ONE.len());
        let error = limited(watch, &[ONE, &ONE[..6]]).await.expect_err("it is cut");
        assert_eq!((error.code(), error.message()), (Code::Internal, "unexpected EOF"));
    }
}
