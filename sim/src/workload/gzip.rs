//! A client whose messages are compressed, as gRPC's libraries do where that is switched on. It stands where
//! a channel does, so that what is called, recorded and checked is the same.

use std::io::{self, Read as _, Write as _};
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures::future::BoxFuture;
use futures::stream;
use http::{HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use quorate::client::Channel;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;

/// Of a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
const ENCODING: &str = "grpc-encoding";

/// Unary calls on a channel.
#[derive(Clone)]
pub struct Gzip(pub Channel);

impl Service<Request<Body>> for Gzip {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let channel = self.0.clone();
        Box::pin(ask(channel, request))
    }
}

async fn ask(mut channel: Channel, request: Request<Body>) -> Result<Response<Body>, Status> {
    let (mut parts, body) = request.into_parts();
    let message = body.collect().await?.to_bytes();
    parts.headers.insert(ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.insert("grpc-accept-encoding", HeaderValue::from_static("gzip"));
    let packed = Full::new(pack(&message[PREFIX..]));
    let body = Body::new(packed.map_err(|never| match never {}));
    let response = channel.call(Request::from_parts(parts, body)).await?;
    let (mut parts, body) = response.into_parts();
    let is_compressed = parts.headers.remove(ENCODING).is_some_and(|it| it == "gzip");
    let arrived = body.collect().await.map_err(|why| Status::unavailable(why.to_string()))?;
    let trailers = arrived.trailers().cloned();
    let data = unpack(arrived.to_bytes(), is_compressed)
        .map_err(|why| Status::internal(format!("not a compressed answer: {why}")))?;
    let trailers = trailers.map(Frame::trailers);
    let frames = [Frame::data(data)].into_iter().chain(trailers).map(Ok::<_, Status>);
    Ok(Response::from_parts(parts, Body::new(StreamBody::new(stream::iter(frames)))))
}

fn pack(message: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let packed = encoder.write_all(message).and_then(|()| encoder.finish());
    let packed = packed.expect("memory takes all that is written");
    let mut framed = BytesMut::with_capacity(PREFIX + packed.len());
    framed.put_u8(1);
    framed.put_u32(packed.len() as u32);
    framed.extend_from_slice(&packed);
    framed.freeze()
}

/// The same messages, plain.
fn unpack(mut framed: Bytes, is_compressed: bool) -> io::Result<Bytes> {
    let mut plain = BytesMut::new();
    while framed.len() >= PREFIX {
        let (flag, length) = (framed.get_u8(), framed.get_u32() as usize);
        if length > framed.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let message = framed.split_to(length);
        let mut inflated = Vec::new();
        match flag {
            0 => inflated.extend_from_slice(&message),
            1 if is_compressed => drop(GzDecoder::new(&message[..]).read_to_end(&mut inflated)?),
            _ => return Err(io::Error::other(format!("flag {flag} without an encoding"))),
        }
        plain.put_u8(0);
        plain.put_u32(inflated.len() as u32);
        plain.extend_from_slice(&inflated);
    }
    Ok(plain.freeze())
}
