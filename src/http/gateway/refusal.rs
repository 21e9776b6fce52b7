//! Errors of calls as HTTP responses: status codes (grpc-gateway's table) and bodies.

use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use serde_json::json;
use tonic::body::Body;
use tonic::{Code, Status};

use super::json;
use crate::http::{JSON, with_type};

/// Returns the response of a failed call.
pub(super) fn answer(status: &Status) -> Response<Body> {
    let mut response = with_type(http_status(status.code()), JSON, text(status));
    if status.code() == Code::Unauthenticated
        && let Ok(value) = HeaderValue::from_str(status.message())
    {
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    response
}

/// Returns the last line of a failed stream.
pub(super) fn line(status: &Status) -> String {
    format!("{{\"error\":{}}}\n", json::escape(&text(status)))
}

/// Writes a `google.rpc.Status` without details.
fn text(status: &Status) -> String {
    let code = status.code() as i32;
    match status.message() {
        "" => json!({"code": code}),
        message => json!({"code": code, "message": message}),
    }
    .to_string()
}

pub(super) fn http_status(code: Code) -> StatusCode {
    let number = match code {
        Code::Ok => 200,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::ResourceExhausted => 429,
        Code::Cancelled => 499,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
    };
    StatusCode::from_u16(number).expect("the table's codes are codes")
}
