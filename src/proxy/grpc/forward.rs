//! Calls on their way through the proxy: as they are, byte by byte, or decoded so that names of keys can be
//! changed. The metadata of the caller goes along, its token above all.

use futures::StreamExt as _;
use http::uri::PathAndQuery;
use http::{Request, Response, Version};
use prost::Message;
use tonic::body::Body;
use tonic::codegen::tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status, client, server};
use tonic_prost::ProstCodec;
use tower::Service as _;

use crate::client::Channel;

/// Hands the call on, and back what is answered.
pub(super) async fn whole(mut channel: Channel, request: Request<Body>) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    parts.version = Version::HTTP_2;
    parts.extensions = http::Extensions::new();
    match channel.call(Request::from_parts(parts, body)).await {
        Ok(response) => response.map(Body::new),
        Err(status) => status.into_http(),
    }
}

/// A unary call whose request and answer are changed on their way.
pub(super) async fn unary<Q, A>(
    channel: Channel,
    request: Request<Body>,
    enter: impl FnOnce(&mut Q) + Send,
    leave: impl FnOnce(&mut A) + Send,
) -> Response<Body>
where
    Q: Message + Default + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
{
    let path = path(&request);
    let mut changes = Some((enter, leave));
    let handler = tower::service_fn(|request: tonic::Request<Q>| {
        let (enter, leave) = changes.take().expect("one request is one call");
        let (channel, path) = (channel.clone(), path.clone());
        async move {
            let (metadata, mut message) = parts(request);
            enter(&mut message);
            let mut client = client::Grpc::new(channel).max_decoding_message_size(usize::MAX);
            let request = with_metadata(metadata, message);
            let answer = client.unary(request, path, ProstCodec::<Q, A>::default()).await;
            answer.map(|mut answer| {
                leave(answer.get_mut());
                answer
            })
        }
    });
    let mut server = server::Grpc::new(ProstCodec::<A, Q>::default());
    server = server.max_decoding_message_size(usize::MAX);
    server.unary(handler, request).await
}

/// The same for a call that is answered by a stream.
pub(super) async fn streaming<Q, A>(
    channel: Channel,
    request: Request<Body>,
    enter: impl FnOnce(&mut Q) + Send,
    leave: impl Fn(&mut A) + Send + 'static,
) -> Response<Body>
where
    Q: Message + Default + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
{
    let path = path(&request);
    let mut changes = Some((enter, leave));
    let handler = tower::service_fn(|request: tonic::Request<Q>| {
        let (enter, leave) = changes.take().expect("one request is one call");
        let (channel, path) = (channel.clone(), path.clone());
        async move {
            let (metadata, mut message) = parts(request);
            enter(&mut message);
            let mut client = client::Grpc::new(channel).max_decoding_message_size(usize::MAX);
            let request = with_metadata(metadata, message);
            let codec = ProstCodec::<Q, A>::default();
            let answers = client.server_streaming(request, path, codec).await?;
            Ok::<_, Status>(answers.map(|answers| changed(answers, leave)))
        }
    });
    let mut server = server::Grpc::new(ProstCodec::<A, Q>::default());
    server = server.max_decoding_message_size(usize::MAX);
    server.server_streaming(handler, request).await
}

fn changed<A: Send + 'static>(
    answers: tonic::Streaming<A>,
    leave: impl Fn(&mut A) + Send + 'static,
) -> impl Stream<Item = Result<A, Status>> + Send + 'static {
    answers.map(move |answer| {
        answer.map(|mut answer| {
            leave(&mut answer);
            answer
        })
    })
}

/// The caller's metadata and what it asks.
pub(super) fn parts<Q>(request: tonic::Request<Q>) -> (MetadataMap, Q) {
    let (metadata, _, message) = request.into_parts();
    (metadata, message)
}

pub(super) fn with_metadata<Q>(metadata: MetadataMap, message: Q) -> tonic::Request<Q> {
    tonic::Request::from_parts(metadata, Extensions::default(), message)
}

fn path(request: &Request<Body>) -> PathAndQuery {
    request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}
