//! Calls of service KV that are most of the load, without the layers of the library's router and service:
//! a request that arrived in one piece is decoded in place, and its answer is one message and the
//! result. What is anything else (cut messages, malformed ones) goes the library's way, from its first byte.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use prost::Message;
use quorate_proto::depth;
use quorate_proto::etcdserverpb::kv_server::Kv as _;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tower::Service as _;

use super::body::PREFIX_BYTES;
use super::kv::Kv;

/// A method that is served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Range,
    Put,
    DeleteRange,
    Txn,
}

impl Method {
    pub const ALL: [(&'static str, Self); 4] = [
        ("Range", Self::Range),
        ("Put", Self::Put),
        ("DeleteRange", Self::DeleteRange),
        ("Txn", Self::Txn),
    ];
}

/// Serves a call, whose body is plain and bounded.
pub(super) async fn call<B>(
    kv: &Kv,
    method: Method,
    request: Request<B>,
    routes: Routes,
) -> Response<Body>
where
    B: HttpBody<Data = Bytes, Error = Status> + Send + Unpin + 'static,
{
    let (parts, mut body) = request.into_parts();
    let first = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
    if body.is_end_stream()
        && let Some(Ok(frame)) = &first
        && let Some(message) = frame.data_ref().and_then(whole)
    {
        macro_rules! serve {
            ($handler:ident) => {
                if let Some(message) = decode(message) {
                    let metadata = MetadataMap::from_headers(parts.headers);
                    let request = tonic::Request::from_parts(metadata, parts.extensions, message);
                    return answer(kv.$handler(request).await);
                }
            };
        }
        match method {
            Method::Range => serve!(range),
            Method::Put => serve!(put),
            Method::DeleteRange => serve!(delete_range),
            Method::Txn => serve!(txn),
        }
    }
    let request = Request::from_parts(parts, Body::new(Resumed { first, body }));
    let mut routes = routes;
    routes.call(request).await.unwrap_or_else(|never| match never {})
}

/// The message, if `data` is exactly one that is not compressed.
fn whole(data: &Bytes) -> Option<&[u8]> {
    let (prefix, message) = data.split_at_checked(PREFIX_BYTES)?;
    let [0, length @ ..] = prefix else { return None };
    let length = u32::from_be_bytes(length.try_into().expect("four bytes are left"));
    (message.len() == usize::try_from(length).ok()?).then_some(message)
}

/// Decodes a message into memory of its own: what came with it from the connection is not kept alive.
fn decode<M: Message + Default + 'static>(message: &[u8]) -> Option<M> {
    depth::check::<M>(message).ok()?;
    M::decode(Bytes::copy_from_slice(message)).ok()
}

/// The response to a call with this outcome.
fn answer<M: Message>(outcome: Result<tonic::Response<M>, Status>) -> Response<Body> {
    let (metadata, message, extensions) = match outcome {
        Ok(answer) => answer.into_parts(),
        Err(status) => return status.into_http(),
    };
    let length = message.encoded_len();
    let mut data = BytesMut::with_capacity(PREFIX_BYTES + length);
    data.put_u8(0);
    data.put_u32(u32::try_from(length).expect("larger answers are paged"));
    message.encode(&mut data).expect("the buffer has room");
    let mut response = Response::new(Body::new(Whole { data: Some(data.freeze()), over: false }));
    *response.headers_mut() = metadata.into_headers();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    *response.extensions_mut() = extensions;
    response
}

/// One message, then the result of a call that succeeded.
struct Whole {
    data: Option<Bytes>,
    over: bool,
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

impl HttpBody for Whole {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if std::mem::replace(&mut self.over, true) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }
}

/// A body of which the first frame was taken out.
struct Resumed<B: HttpBody> {
    first: Option<Result<Frame<Bytes>, Status>>,
    body: B,
}

impl<B> HttpBody for Resumed<B>
where
    B: HttpBody<Data = Bytes, Error = Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use http_body_util::{BodyExt as _, StreamBody};
    use quorate_proto::etcdserverpb::{PutRequest, PutResponse, TxnRequest};
    use quorate_proto::etcdserverpb::{RequestOp, request_op};

    use super::*;

    fn framed(message: &impl Message) -> Bytes {
        let bytes = message.encode_to_vec();
        let length = u32::try_from(bytes.len()).expect("it is short");
        [&[0][..], &length.to_be_bytes(), &bytes].concat().into()
    }

    #[test]
    fn only_one_whole_plain_message_is_taken() {
        let put = framed(&PutRequest { key: "k".into(), ..PutRequest::default() });
        assert_eq!(whole(&put), Some(&put[PREFIX_BYTES..]));
        assert_eq!(whole(&put.slice(..put.len() - 1)), None, "a part of one");
        assert_eq!(whole(&put.slice(..3)), None, "a part of its prefix");
        assert_eq!(whole(&[&put[..], &put[..]].concat().into()), None, "two of them");
        let compressed: Bytes = [&[1][..], &put[1..]].concat().into();
        assert_eq!(whole(&compressed), None);
    }

    #[test]
    fn a_message_keeps_no_other_memory_alive() {
        let data = framed(&PutRequest { value: "value".into(), ..PutRequest::default() });
        let put: PutRequest = decode(whole(&data).expect("a message")).expect("a put");
        assert!(!data.as_ptr_range().contains(&put.value.as_ptr()));
        assert_eq!(decode::<PutRequest>(&[0x0a, 9]), None, "it is cut");
    }

    #[test]
    fn a_txn_that_nests_too_deep_is_not_decoded() {
        let mut txn = TxnRequest::default();
        for _ in 0..depth::NESTED_MAX + 2 {
            let request = Some(request_op::Request::RequestTxn(txn));
            txn = TxnRequest { success: vec![RequestOp { request }], ..TxnRequest::default() };
        }
        assert_eq!(decode::<TxnRequest>(&txn.encode_to_vec()), None);
    }

    #[tokio::test]
    async fn an_answer_is_one_message_and_the_result() {
        let put = PutResponse::default();
        let answered = answer(Ok(tonic::Response::new(put.clone())));
        assert_eq!(answered.headers()[CONTENT_TYPE], "application/grpc");
        let collected = answered.into_body().collect().await.expect("a body");
        let trailers = collected.trailers().expect("a result").clone();
        assert_eq!((trailers.len(), &trailers["grpc-status"]), (1, &HeaderValue::from_static("0")));
        assert_eq!(collected.to_bytes(), framed(&put));
        let refused = answer::<PutResponse>(Err(Status::not_found("no")));
        assert_eq!(refused.headers()["grpc-status"], "5");
    }

    #[tokio::test]
    async fn a_body_that_goes_the_other_way_begins_at_its_beginning() {
        let frame = |it: &'static str| Ok::<_, Status>(Frame::data(Bytes::from(it)));
        let rest = futures::stream::iter(["b", "c"].map(frame));
        let first = Some(frame("a"));
        let resumed = Resumed { first, body: StreamBody::new(rest.boxed()) };
        assert_eq!(resumed.collect().await.expect("all").to_bytes(), "abc");
    }
}
