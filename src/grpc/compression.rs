//! Compressed messages (gRPC's "Message Encoding"): requests with `grpc-encoding: gzip` are inflated
//! before they are decoded, and their answers are compressed. Messages are processed in steps between
//! which other calls run, and what a message inflates to is bounded as a message is. Answers that are
//! written page by page stay as they are, which the protocol allows for each message.
//!
//! Not the library's own support: it bounds a message only before it is inflated, and inflates it
//! without a pause.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::{GzEncoder, MultiGzDecoder};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame};
use tonic::Status;
use tonic::body::Body;

use super::body::{Limited, PREFIX_BYTES};
use super::calls::Received;
use crate::limits;
use crate::plant;

const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
const IDENTITY: &[u8] = b"identity";

/// The encoding of a call's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
}

impl Encoding {
    /// Returns the encoding that the request announces; refuses one that is not supported.
    pub fn of(headers: &HeaderMap) -> Result<Self, Status> {
        match headers.get(ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"" | IDENTITY) => Ok(Self::Identity),
            Some(b"gzip") => Ok(Self::Gzip),
            Some(other) => Err(Status::unimplemented(format!(
                "grpc: Decompressor is not installed for grpc-encoding {:?}",
                String::from_utf8_lossy(other)
            ))),
        }
    }

    /// Returns the request with plain messages of at most `limit` bytes.
    pub fn plain<B>(self, request: Request<B>, limit: usize, received: Received) -> Request<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let compressed = self == Self::Gzip;
        let limited = |body| Limited::new(body, limit, compressed, received);
        match self {
            Self::Identity => request.map(|body| Body::new(limited(body))),
            Self::Gzip => {
                let mut request =
                    request.map(|body| Body::new(Inflated::new(limited(body), limit)));
                // Handlers see plain messages.
                request.headers_mut().remove(ENCODING);
                request
            }
        }
    }

    /// Returns the response with messages in the request's encoding.
    pub fn encode(self, mut response: Response<Body>) -> Response<Body> {
        if self == Self::Identity {
            return response;
        }
        response.headers_mut().insert(ENCODING, GZIP);
        response.map(|body| Body::new(Deflated::new(body)))
    }
}

/// A request body whose compressed messages are inflated.
struct Inflated<B> {
    body: B,
    limit: usize,
    /// Received bytes that are not processed yet.
    input: BytesMut,
    /// The message that is being inflated.
    message: Option<Inflating>,
    over: bool,
}

/// A message in the decoder.
struct Inflating {
    decoder: MultiGzDecoder<Bounded>,
    /// Compressed bytes left to read.
    rest: usize,
    begun: bool,
}

/// A buffer with a maximum size.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
    exceeded: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let unbounded = plant::COMPRESSED_SIZE_UNBOUNDED.is_planted();
        if self.bytes.len() + bytes.len() > self.limit && !unbounded {
            self.exceeded = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The outcome of a step.
enum Step {
    Frame(Bytes),
    /// More can be done with the input.
    Again,
    /// More input is needed.
    Starved,
}

impl<B> Inflated<B> {
    fn new(body: B, limit: usize) -> Self {
        Self { body, limit, input: BytesMut::new(), message: None, over: false }
    }

    fn step(&mut self) -> Result<Step, Status> {
        let Some(message) = &mut self.message else { return Ok(self.begin()) };
        let take = self.input.len().min(message.rest).min(limits::GZIP_STEP_IN_BYTES);
        if take == 0 && message.rest > 0 {
            return Ok(Step::Starved);
        }
        let part = self.input.split_to(take);
        message.rest -= take;
        message.inflate(&part, self.limit)?;
        if message.rest > 0 {
            return Ok(Step::Again);
        }
        let message = self.message.take().expect("it was matched above");
        message.finish(self.limit).map(Step::Frame)
    }

    /// Begins the next message; a plain one is passed on.
    fn begin(&mut self) -> Step {
        let [flag, a, b, c, d, ..] = self.input[..] else { return Step::Starved };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if flag == 0 {
            if self.input.len() < PREFIX_BYTES + length {
                return Step::Starved;
            }
            return Step::Frame(self.input.split_to(PREFIX_BYTES + length).freeze());
        }
        self.input.advance(PREFIX_BYTES);
        let bounded = Bounded {
            bytes: vec![0; PREFIX_BYTES],
            limit: PREFIX_BYTES + self.limit,
            exceeded: false,
        };
        let decoder = MultiGzDecoder::new(bounded);
        self.message = Some(Inflating { decoder, rest: length, begun: false });
        Step::Again
    }
}

impl Inflating {
    fn inflate(&mut self, part: &[u8], limit: usize) -> Result<(), Status> {
        if !self.begun && !part.is_empty() {
            self.begun = true;
            check_magic(part, self.rest == 0)?;
        }
        let written = self.decoder.write_all(part);
        written.map_err(|error| self.failure(&error, limit))
    }

    fn finish(mut self, limit: usize) -> Result<Bytes, Status> {
        if !self.begun {
            return Err(not_begun("EOF"));
        }
        if let Err(error) = self.decoder.try_finish() {
            return Err(self.failure(&error, limit));
        }
        let mut frame = std::mem::take(&mut self.decoder.get_mut().bytes);
        let length = u32::try_from(frame.len() - PREFIX_BYTES).expect("a message is bounded");
        frame[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
        Ok(frame.into())
    }

    /// Returns the status, with the text of gRPC's Go library.
    fn failure(&self, error: &io::Error, limit: usize) -> Status {
        if self.decoder.get_ref().exceeded {
            return Status::resource_exhausted(format!(
                "grpc: received message after decompression larger than max {limit}"
            ));
        }
        let why = match error.kind() {
            io::ErrorKind::UnexpectedEof => "unexpected EOF".to_owned(),
            _ => error.to_string(),
        };
        Status::internal(format!("grpc: failed to read decompressed data: {why}"))
    }
}

/// Checks the first bytes of a message (RFC 1952, 2.3).
fn check_magic(part: &[u8], whole: bool) -> Result<(), Status> {
    const HEADER_BYTES: usize = 10;
    match part {
        _ if whole && part.len() < HEADER_BYTES => Err(not_begun("unexpected EOF")),
        [0x1f, 0x8b, 8, ..] | [0x1f, 0x8b] | [0x1f] => Ok(()),
        _ => Err(not_begun("gzip: invalid header")),
    }
}

fn not_begun(why: &str) -> Status {
    Status::internal(format!("grpc: failed to decompress the message: {why}"))
}

impl<B> HttpBody for Inflated<B>
where
    B: HttpBody<Data = Bytes, Error = Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        loop {
            match self.step() {
                Ok(Step::Frame(frame)) => return Poll::Ready(Some(Ok(Frame::data(frame)))),
                Ok(Step::Again) => return again(cx),
                Ok(Step::Starved) => {}
                Err(status) => {
                    self.over = true;
                    return Poll::Ready(Some(Err(status)));
                }
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.input.extend_from_slice(&data),
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(status)) => {
                    self.over = true;
                    return Poll::Ready(Some(Err(status)));
                }
                None => {
                    self.over = true;
                    // The decoder refuses a truncated message.
                    let rest = self.input.split().freeze();
                    let rest = Some(rest).filter(|rest| !rest.is_empty());
                    return Poll::Ready(rest.map(|rest| Ok(Frame::data(rest))));
                }
            }
        }
    }
}

/// Lets other tasks run before the next step.
fn again<T>(cx: &Context<'_>) -> Poll<T> {
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// A response body whose messages are compressed.
struct Deflated {
    body: Body,
    /// Bytes of the plain body that are not processed yet.
    input: BytesMut,
    /// The message that is being compressed, and its bytes left to read.
    message: Option<(GzEncoder<Vec<u8>>, usize)>,
    /// Frames to send after the messages: trailers.
    behind: VecDeque<Frame<Bytes>>,
    over: bool,
}

impl Deflated {
    fn new(body: Body) -> Self {
        let behind = VecDeque::new();
        Self { body, input: BytesMut::new(), message: None, behind, over: false }
    }

    fn step(&mut self) -> Step {
        let Some((encoder, rest)) = &mut self.message else {
            let [_, a, b, c, d, ..] = self.input[..] else { return Step::Starved };
            self.input.advance(PREFIX_BYTES);
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            let encoder = GzEncoder::new(vec![0; PREFIX_BYTES], Compression::fast());
            self.message = Some((encoder, length));
            return Step::Again;
        };
        let take = self.input.len().min(*rest).min(limits::GZIP_STEP_OUT_BYTES);
        if take == 0 && *rest > 0 {
            return Step::Starved;
        }
        encoder.write_all(&self.input.split_to(take)).expect("a buffer grows");
        *rest -= take;
        if *rest > 0 {
            return Step::Again;
        }
        let (encoder, _) = self.message.take().expect("it was matched above");
        let mut frame = encoder.finish().expect("a buffer grows");
        let length = u32::try_from(frame.len() - PREFIX_BYTES).expect("a message is bounded");
        let mut prefix = &mut frame[..PREFIX_BYTES];
        prefix.put_u8(1);
        prefix.put_u32(length);
        Step::Frame(frame.into())
    }
}

impl HttpBody for Deflated {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut steps = 0;
        loop {
            match self.step() {
                Step::Frame(frame) => return Poll::Ready(Some(Ok(Frame::data(frame)))),
                // Two steps compress a small message.
                Step::Again if steps < 2 => {
                    steps += 1;
                    continue;
                }
                Step::Again => return again(cx),
                Step::Starved => {}
            }
            if let Some(frame) = self.behind.pop_front() {
                return Poll::Ready(Some(Ok(frame)));
            }
            if self.over {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.input.extend_from_slice(&data),
                    Err(trailers) => self.behind.push_back(trailers),
                },
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => self.over = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::Arc;

    use futures::FutureExt as _;
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use tonic::Code;

    use super::*;
    use crate::grpc::calls::Calls;
    use crate::metrics::Metrics;

    fn message(flag: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).expect("a small message");
        [&[flag][..], &length.to_be_bytes(), content].concat()
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).expect("a buffer grows");
        encoder.finish().expect("a buffer grows")
    }

    /// The result of a future that only pauses.
    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let mut future = Box::pin(future);
        let mut cx = Context::from_waker(futures::task::noop_waker_ref());
        loop {
            if let Poll::Ready(result) = future.as_mut().poll(&mut cx) {
                return result;
            }
        }
    }

    /// A body of these bytes, in parts of `part` bytes.
    fn body(bytes: &[u8], part: usize) -> Body {
        let parts: Vec<_> = bytes
            .chunks(part)
            .map(|part| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(part))))
            .collect();
        Body::new(StreamBody::new(futures::stream::iter(parts)))
    }

    /// The plain body of a request with such messages, or its refusal.
    fn inflated(
        encoding: Encoding,
        bytes: &[u8],
        part: usize,
        limit: usize,
    ) -> Result<Bytes, Status> {
        let calls = Calls::new(Arc::new(Metrics::new()), None);
        let call = calls.begin("/etcdserverpb.Watch/Watch").expect("a method");
        let request = Request::new(body(bytes, part));
        let plain = encoding.plain(request, limit, call.received());
        block_on(plain.into_body().collect()).map(http_body_util::Collected::to_bytes)
    }

    #[test]
    fn compressed_and_plain_messages_are_inflated_wherever_they_are_cut() {
        let large: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let messages: [&[u8]; 4] = [b"one", b"", &large, b"four"];
        let sent: Vec<u8> = messages
            .iter()
            .enumerate()
            .flat_map(|(n, m)| if n == 3 { message(0, m) } else { message(1, &gzip(m)) })
            .collect();
        let plain: Vec<u8> = messages.iter().flat_map(|m| message(0, m)).collect();
        for part in [1, 7, 4096, usize::MAX] {
            let found = inflated(Encoding::Gzip, &sent, part, 1 << 20).expect("it is inflated");
            assert!(found == plain, "parts of {part} bytes");
        }
    }

    #[test]
    fn messages_that_cannot_be_inflated_are_refused_in_the_words_of_grpc_go() {
        let refusal = |encoding, bytes: &[u8]| {
            let status = inflated(encoding, bytes, 1000, 10_000).expect_err("it is refused");
            (status.code(), status.message().to_owned())
        };
        let bomb = message(1, &gzip(&vec![0; 5 << 20]));
        assert!(bomb.len() < 10_000, "the bound is on what comes out");
        let text = "grpc: received message after decompression larger than max 10000";
        assert_eq!(refusal(Encoding::Gzip, &bomb), (Code::ResourceExhausted, text.into()));
        let text = "grpc: failed to decompress the message: unexpected EOF";
        assert_eq!(refusal(Encoding::Gzip, &message(1, b"notgzip")), (Code::Internal, text.into()));
        let text = "grpc: failed to decompress the message: gzip: invalid header";
        let wrong = message(1, b"this is not gzip");
        assert_eq!(refusal(Encoding::Gzip, &wrong), (Code::Internal, text.into()));
        let mut cut = gzip(b"content");
        cut.truncate(cut.len() - 9);
        let text = "grpc: failed to read decompressed data: unexpected EOF";
        assert_eq!(refusal(Encoding::Gzip, &message(1, &cut)), (Code::Internal, text.into()));
        let text = "grpc: compressed flag set with identity or empty encoding";
        let compressed = message(1, &gzip(b"content"));
        assert_eq!(refusal(Encoding::Identity, &compressed), (Code::Internal, text.into()));
        let text = "grpc: received unexpected payload format 2";
        assert_eq!(refusal(Encoding::Gzip, &message(2, b"x")), (Code::Internal, text.into()));
    }

    #[test]
    fn encodings_other_than_gzip_are_not_installed() {
        let of = |value: &'static str| {
            Encoding::of(&HeaderMap::from_iter([(ENCODING, HeaderValue::from_static(value))]))
        };
        assert_eq!(of("gzip").ok(), Some(Encoding::Gzip));
        assert_eq!(of("identity").ok(), Some(Encoding::Identity));
        assert_eq!(Encoding::of(&HeaderMap::new()).ok(), Some(Encoding::Identity));
        let refused = of("snappy").expect_err("it is not supported");
        let text = "grpc: Decompressor is not installed for grpc-encoding \"snappy\"";
        assert_eq!((refused.code(), refused.message()), (Code::Unimplemented, text));
    }

    #[test]
    fn answers_are_compressed_message_by_message_and_keep_their_trailers() {
        let large: Vec<u8> = (0..300_000_u32).map(|n| (n % 253) as u8).collect();
        let messages: [&[u8]; 3] = [b"one", b"", &large];
        let sent: Vec<u8> = messages.iter().flat_map(|m| message(0, m)).collect();
        for part in [3, 5000, usize::MAX] {
            let trailers = HeaderMap::from_iter([(
                HeaderName::from_static("grpc-status"),
                HeaderValue::from_static("0"),
            )]);
            let answer = body(&sent, part).with_trailers(async move { Some(Ok(trailers)) }.boxed());
            let answer = Encoding::Gzip.encode(Response::new(Body::new(answer)));
            assert_eq!(answer.headers()[ENCODING], "gzip");
            let answer = block_on(answer.into_body().collect()).expect("it ends well");
            assert_eq!(answer.trailers().expect("trailers")["grpc-status"], "0");
            let mut rest = answer.to_bytes();
            for plain in messages {
                assert_eq!(rest.get_u8(), 1, "it is compressed");
                let length = rest.get_u32() as usize;
                let mut found = Vec::new();
                let mut decoder = flate2::read::GzDecoder::new(&rest[..length]);
                decoder.read_to_end(&mut found).expect("it is gzip");
                assert!(found == plain);
                rest.advance(length);
            }
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn an_answer_without_compression_is_left_alone() {
        let plain = Body::new(Full::new(Bytes::from_static(b"x")));
        let answer = Encoding::Identity.encode(Response::new(plain));
        assert!(!answer.headers().contains_key(ENCODING));
        let bytes = block_on(answer.into_body().collect()).expect("it ends").to_bytes();
        assert_eq!(&bytes[..], b"x");
    }
}
