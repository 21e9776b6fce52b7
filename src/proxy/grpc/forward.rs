//! Forwarding of calls: unchanged, byte by byte, or decoded to change keys. The caller's metadata, with its
//! token, is forwarded.

use futures::StreamExt as _;
use http::uri::PathAndQuery;
use http::{Request, Response, Version};
use prost::Message;
use quorate_proto::codec::Codec;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status, client, server};
use tower::Service as _;

use super::upstream::Upstream;

/// Forwards a call unchanged.
pub(super) async fn whole(mut upstream: Upstream, request: Request<Body>) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    parts.version = Version::HTTP_2;
    parts.extensions = http::Extensions::new();
    upstream.call(Request::from_parts(parts, body)).await.unwrap_or_else(Status::into_http)
}

/// Forwards a call with one request, changing the request and the responses. On the wire a unary call is a
/// stream with one response.
pub(super) async fn changed<Q, A>(
    upstream: Upstream,
    request: Request<Body>,
    enter: impl FnOnce(&mut Q) + Send,
    leave: impl Fn(&mut A) + Send + 'static,
) -> Response<Body>
where
    Q: Message + Default + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
{
    let path = path(&request);
    let mut changes = Some((upstream, enter, leave));
    let handler = tower::service_fn(|request: tonic::Request<Q>| {
        let (upstream, enter, leave) = changes.take().expect("one request is one call");
        let path = path.clone();
        async move {
            let (metadata, mut message) = parts(request);
            enter(&mut message);
            let mut client = client::Grpc::new(upstream).max_decoding_message_size(usize::MAX);
            let request = with_metadata(metadata, message);
            let codec = Codec::<Q, A>::default();
            let answers = client.server_streaming(request, path, codec).await?;
            let changed = move |answer: Result<A, Status>| {
                answer.map(|mut answer| {
                    leave(&mut answer);
                    answer
                })
            };
            Ok::<_, Status>(answers.map(|answers| answers.map(changed)))
        }
    });
    let mut server = server::Grpc::new(Codec::<A, Q>::default());
    server = server.max_decoding_message_size(usize::MAX);
    server.server_streaming(handler, request).await
}

/// Splits a request into metadata and message.
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
