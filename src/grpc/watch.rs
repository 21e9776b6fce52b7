//! Service Watch: connects a client stream with a watch session. Written out rather than generated,
//! because the events in a session's responses are encoded already.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http_body::Body as HttpBody;
use quorate_proto::codec::Codec;
use quorate_proto::etcdserverpb::WatchRequest;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tower::Service;

use super::served::{Served, Woken};
use super::status::{count_failure, status};
use super::{caller, gate};
use crate::error::Error;
use crate::limits;
use crate::member::Member;
use crate::metrics::{Metrics, observe};
use crate::watch;

#[derive(Clone)]
pub struct Watch {
    pub member: Member,
}

impl NamedService for Watch {
    const NAME: &'static str = "etcdserverpb.Watch";
}

impl<B> Service<http::Request<B>> for Watch
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let method = self.clone();
        Box::pin(async move {
            if request.uri().path() != "/etcdserverpb.Watch/Watch" {
                return Ok(Status::unimplemented("").into_http());
            }
            let codec = Codec::<watch::Response, WatchRequest>::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(usize::MAX);
            Ok(grpc.streaming(method, request).await)
        })
    }
}

type Responses = BoxStream<'static, Result<watch::Response, Status>>;

impl StreamingService<WatchRequest> for Watch {
    type Response = watch::Response;
    type ResponseStream = Responses;
    type Future = std::future::Ready<Result<Response<Responses>, Status>>;

    fn call(&mut self, request: Request<Streaming<WatchRequest>>) -> Self::Future {
        std::future::ready(Ok(Response::new(self.serve(request))))
    }
}

impl Watch {
    fn serve(&self, request: Request<Streaming<WatchRequest>>) -> Responses {
        let needs_leader = gate::needs_leader(request.metadata());
        // A stream that breaks, or whose request cannot be read, ends with the reason.
        let (broken, breakage) = oneshot::channel();
        let mut broken = Some(broken);
        let (caller, requests) = caller::of(request);
        let metrics = self.member.metrics().clone();
        let requests = requests.map_while(move |request| match request {
            Ok(request) => Some(request),
            Err(error) => {
                count_failure(&metrics, "watch", &error);
                // The receiver is gone if the session has ended before.
                let _ = broken.take().map(|broken| broken.send(error));
                None
            }
        });
        let (sender, answers) = mpsc::channel(limits::WATCH_ANSWERS);
        let member = self.member.clone();
        let serving = async move {
            let cut_off = member.cut_off(needs_leader);
            tokio::select! {
                biased; // What is due goes out before the stream is given up.
                () = member.watch(caller, Woken::new(requests), sender) => Ok(()),
                Ok(error) = breakage => Err(error),
                error = cut_off => Err(status(error)),
            }
        };
        let answers = Served::new(serving, answers);
        Box::pin(Timed { answers, member: self.member.clone(), sent: None })
    }
}

/// The responses of a stream, each of which is timed until the next one is requested: the connection has
/// taken it then.
struct Timed {
    answers: Served<Result<watch::Response, Error>>,
    member: Member,
    /// The last response, and when it was handed over.
    sent: Option<(Sent, Instant)>,
}

impl Stream for Timed {
    type Item = Result<watch::Response, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let env = this.member.env();
        if let Some((sent, began)) = this.sent.take() {
            sent.observe(this.member.metrics(), env.now().saturating_duration_since(began));
        }
        let Poll::Ready(answer) = Pin::new(&mut this.answers).poll_next(cx) else {
            return Poll::Pending;
        };
        Poll::Ready(answer.map(|answer| {
            let response = answer?.map_err(status)?;
            this.sent = Some((Sent::new(&response), env.now()));
            Ok(response)
        }))
    }
}

/// The kind of a response, as etcd times them.
enum Sent {
    Events(usize),
    /// The answer to a request of the client.
    Control,
    Progress,
}

impl Sent {
    fn new(response: &watch::Response) -> Self {
        match response.events.len() {
            0 if response.created || response.canceled => Self::Control,
            0 => Self::Progress,
            events => Self::Events(events),
        }
    }

    fn observe(self, metrics: &Metrics, took: Duration) {
        match self {
            Self::Events(events) => {
                let seconds = took.as_secs_f64();
                metrics.watch_send_seconds.observe(seconds);
                metrics.watch_send_event_seconds.observe(seconds / events as f64);
            }
            Self::Control => observe(&metrics.watch_control_seconds, took),
            Self::Progress => observe(&metrics.watch_progress_seconds, took),
        }
    }
}
