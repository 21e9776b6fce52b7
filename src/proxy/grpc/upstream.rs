//! The connection to the cluster, with bounds on the messages sent and received. A larger message is refused
//! with the text of gRPC's Go library. Every response ends with a result, also if its connection is lost.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use crate::client::Channel;
use crate::env::BoxFuture;
use crate::grpc::body::Boundaries;

/// Clones share the connection.
#[derive(Clone)]
pub(super) struct Upstream {
    channel: Channel,
    sent_bytes_max: usize,
    received_bytes_max: usize,
}

impl Upstream {
    pub fn new(channel: Channel, sent_bytes_max: usize, received_bytes_max: usize) -> Self {
        Self { channel, sent_bytes_max, received_bytes_max }
    }

    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The same connection with one more header on every request.
    pub fn with_header(self, name: &'static str, value: HeaderValue) -> Self {
        Self { channel: self.channel.with_header(name, value), ..self }
    }

    pub fn kv(&self) -> KvClient<Self> {
        KvClient::new(self.clone()).max_decoding_message_size(usize::MAX)
    }

    pub fn watch(self) -> WatchClient<Self> {
        WatchClient::new(self).max_decoding_message_size(usize::MAX)
    }
}

impl Service<Request<Body>> for Upstream {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let refusal = Refusal::default();
        let way = Way::Out(refusal.clone());
        let (sent, received) = (self.sent_bytes_max, self.received_bytes_max);
        let request = request.map(|body| Body::new(Bounded::new(body, sent, way)));
        let answer = self.channel.call(request);
        Box::pin(async move {
            match answer.await {
                Ok(answer) => {
                    Ok(answer.map(|body| Body::new(Bounded::new(body, received, Way::In))))
                }
                Err(status) => Err(refusal.take().unwrap_or(status)),
            }
        })
    }
}

/// The reason for an aborted request, which the connection does not report.
#[derive(Clone, Default)]
struct Refusal(Arc<Mutex<Option<Status>>>);

impl Refusal {
    fn set(&self, status: Status) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
    }

    fn take(&self) -> Option<Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The direction of a body.
enum Way {
    /// To the cluster; a refusal fails the body.
    Out(Refusal),
    /// To the client; a failure becomes the result.
    In,
}

impl Way {
    fn too_large(&self, bytes: usize, limit: usize) -> Status {
        let what = match self {
            Self::Out(_) => "trying to send message larger than max",
            Self::In => "grpc: received message larger than max",
        };
        Status::resource_exhausted(format!("{what} ({bytes} vs. {limit})"))
    }
}

/// A body whose messages are bounded.
struct Bounded<B> {
    body: B,
    limit: usize,
    way: Way,
    boundaries: Boundaries,
    over: bool,
}

impl<B> Bounded<B> {
    fn new(body: B, limit: usize, way: Way) -> Self {
        Self { body, limit, way, boundaries: Boundaries::default(), over: false }
    }

    fn check(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Status> {
        let (limit, way) = (self.limit, &self.way);
        let bound = |_flag, bytes| match bytes > limit {
            true => Err(way.too_large(bytes, limit)),
            false => Ok(()),
        };
        frame.data_ref().map_or(Ok(()), |data| self.boundaries.follow(data, bound))?;
        Ok(frame)
    }

    fn fail(&mut self, status: Status) -> Result<Frame<Bytes>, Status> {
        self.over = true;
        match &self.way {
            Way::Out(refusal) => {
                refusal.set(status.clone());
                Err(status)
            }
            Way::In => {
                let mut trailers = HeaderMap::new();
                status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))
            }
        }
    }
}

impl<B> HttpBody for Bounded<B>
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
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            return Poll::Pending;
        };
        let Some(frame) = frame else { return Poll::Ready(None) };
        let checked = frame.and_then(|frame| self.check(frame));
        Poll::Ready(Some(checked.or_else(|status| self.fail(status))))
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
    use futures::FutureExt as _;
    use http_body_util::{BodyExt as _, Full};
    use tonic::Code;

    use super::*;

    /// A message of two bytes, one of three.
    const MESSAGES: &[u8] = &[0, 0, 0, 0, 2, 7, 7, 0, 0, 0, 0, 3, 7, 7, 7];

    fn body(
        limit: usize,
        way: Way,
    ) -> Bounded<impl HttpBody<Data = Bytes, Error = Status> + Unpin> {
        let whole = Full::new(Bytes::from_static(MESSAGES));
        Bounded::new(whole.map_err(|never| -> Status { match never {} }), limit, way)
    }

    fn collected(
        body: Bounded<impl HttpBody<Data = Bytes, Error = Status> + Unpin>,
    ) -> Result<http_body_util::Collected<Bytes>, Status> {
        body.collect().now_or_never().expect("there is nothing to wait for")
    }

    #[test]
    fn what_fits_goes_through() {
        for way in [Way::In, Way::Out(Refusal::default())] {
            let through = collected(body(3, way)).expect("nothing is too large");
            assert!(through.trailers().is_none());
            assert_eq!(through.to_bytes(), MESSAGES);
        }
    }

    #[test]
    fn a_request_that_is_too_large_fails_and_says_why() {
        let refusal = Refusal::default();
        let failed = collected(body(2, Way::Out(refusal.clone()))).expect_err("3 are more than 2");
        let told = refusal.take().expect("the reason is kept");
        assert_eq!((failed.code(), failed.message()), (told.code(), told.message()));
        assert_eq!(told.message(), "trying to send message larger than max (3 vs. 2)");
    }

    #[test]
    fn an_answer_that_is_too_large_ends_with_that() {
        let answer = collected(body(2, Way::In)).expect("it ends in order");
        let trailers = answer.trailers().expect("a result");
        let status = Status::from_header_map(trailers).expect("a result");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "grpc: received message larger than max (3 vs. 2)");
    }
}
