//! Service Watch: connects a client stream with a watch session. Written out rather than generated,
//! because the events in a session's responses are encoded already.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join};
use futures::stream::BoxStream;
use http_body::Body as HttpBody;
use quorate_proto::codec::Codec;
use quorate_proto::etcdserverpb::WatchRequest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tower::Service;

use super::status::{count_failure, status};
use super::{caller, gate};
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
        let (answers, stream) = mpsc::channel(limits::WATCH_ANSWERS);
        let room = Arc::new(Semaphore::new(limits::WATCH_ANSWER_BYTES));
        let member = self.member.clone();
        self.member.env().spawn("watch stream", async move {
            let cut_off = member.cut_off(needs_leader);
            let (sender, mut responses) = mpsc::channel::<Result<watch::Response, _>>(1);
            let session = member.watch(caller, requests, sender);
            let forward = async {
                while let Some(response) = responses.recv().await {
                    let sent = response.as_ref().ok().map(Sent::new);
                    let began = member.env().now();
                    let place = place_in(&room, response.as_ref().map_or(0, size)).await;
                    if answers.send((response.map_err(status), place)).await.is_err() {
                        return;
                    }
                    if let Some(sent) = sent {
                        sent.observe(member.metrics(), member.env().now() - began);
                    }
                }
            };
            let end = async |error| drop(answers.send((Err(error), None)).await);
            tokio::select! {
                biased; // What is due goes out before the stream is given up.
                _ = join(forward, session) => {}
                () = answers.closed() => {}
                Ok(error) = breakage => end(error).await,
                error = cut_off => end(status(error)).await,
            }
        });
        Box::pin(ReceiverStream::new(stream).map(|(response, _place)| response))
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

/// The size of a response's events, bytes.
fn size(response: &watch::Response) -> usize {
    response.events.iter().map(Bytes::len).sum()
}

/// Waits for room for `bytes`; a larger response waits for all of the room.
async fn place_in(room: &Arc<Semaphore>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    let bytes = u32::try_from(bytes.min(limits::WATCH_ANSWER_BYTES)).unwrap_or(u32::MAX);
    room.clone().acquire_many_owned(bytes).await.ok()
}
