//! Spans of calls: the parent from the headers, attributes and the result. Names and attributes are those
//! of otelgrpc 0.68, which etcd uses.

use std::net::SocketAddr;

use http::HeaderMap;
use quorate_proto::otlp::common::v1::KeyValue;
use tonic::Code;

use crate::trace::span::{number, text};
use crate::trace::{Span, Tracer};

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";

/// Creates the spans of calls received at one address.
#[derive(Clone)]
pub struct Spans {
    tracer: Tracer,
    /// Attributes of the address; none for an unspecified address or a unix socket.
    server: Vec<KeyValue>,
}

impl Spans {
    pub fn new(tracer: Tracer, address: Option<SocketAddr>) -> Self {
        let known = address.filter(|address| !address.ip().is_unspecified());
        let server = known.map(|address| {
            let ip = address.ip().to_string();
            [text("server.address", ip.as_bytes()), number("server.port", address.port().into())]
        });
        Self { tracer, server: server.into_iter().flatten().collect() }
    }

    /// Starts the span of a call of `path`, if it is sampled.
    pub fn begin(&self, path: &str, headers: &HeaderMap) -> Option<Span> {
        let header = |name: &str| headers.get(name)?.to_str().ok();
        let name = path.trim_start_matches('/');
        let span = self.tracer.serve(name, header(PARENT), header(STATE))?;
        let method = text("rpc.method", name.as_bytes());
        span.add([method, text("rpc.system.name", b"grpc")]);
        span.add(self.server.iter().cloned());
        Some(span)
    }
}

/// Ends the span of a call. Failures of the server are recorded as errors, those of the caller are not.
pub fn end(span: &Span, code: Code, why: impl FnOnce() -> String) {
    span.add([text("rpc.response.status_code", name(code).as_bytes())]);
    let failed = matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    );
    if failed {
        span.fail(&why());
    }
    span.end();
}

/// Returns the name of a result in gRPC's protocol.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
