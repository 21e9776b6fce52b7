//! A request body that reports each message to the simulator, which counts what its clients use of the
//! protocol. In a build without the feature `plant`, and where nothing listens, bodies stay as they are.

use http::Request;
use tonic::body::Body;

use crate::member::Member;

/// Whether bodies are reported.
#[inline(always)]
pub fn is_listened_to() -> bool {
    #[cfg(feature = "plant")]
    return crate::mark::requests_are_listened_to();
    #[cfg(not(feature = "plant"))]
    false
}

/// The request, reported while its handler reads it.
#[cfg(not(feature = "plant"))]
#[inline(always)]
pub fn tap(_: &Member, request: Request<Body>) -> Request<Body> {
    request
}

/// The request, reported while its handler reads it.
#[cfg(feature = "plant")]
pub fn tap(member: &Member, request: Request<Body>) -> Request<Body> {
    if !is_listened_to() {
        return request;
    }
    let path = request.uri().path().to_owned();
    let role = match member.raft().role {
        crate::replica::Role::Leader => "leader",
        _ if member.is_learner() => "learner",
        _ => "follower",
    };
    request.map(|body| Body::new(planted::Tapped { body, path, role, arrived: Vec::new() }))
}

#[cfg(feature = "plant")]
mod planted {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use http_body::{Body as HttpBody, Frame};
    use tonic::Status;
    use tonic::body::Body;

    use crate::grpc::body::PREFIX_BYTES;
    use crate::mark;

    pub struct Tapped {
        pub body: Body,
        pub path: String,
        pub role: &'static str,
        /// The part of a message that has arrived.
        pub arrived: Vec<u8>,
    }

    impl Tapped {
        fn report(&mut self) {
            while let [_, a, b, c, d, ..] = self.arrived[..] {
                let end = PREFIX_BYTES + u32::from_be_bytes([a, b, c, d]) as usize;
                let Some(message) = self.arrived.get(PREFIX_BYTES..end) else { return };
                mark::request(&self.path, self.role, message);
                self.arrived.drain(..end);
            }
        }
    }

    impl HttpBody for Tapped {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            let frame = Pin::new(&mut self.body).poll_frame(cx);
            if let Poll::Ready(Some(Ok(frame))) = &frame
                && let Some(data) = frame.data_ref()
            {
                self.arrived.extend_from_slice(data);
                self.report();
            }
            frame
        }
    }
}
