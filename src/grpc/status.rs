//! From our errors to gRPC statuses, through the one table in [`crate::error`].

use tonic::{Code, Status};

use crate::error::Error;
use crate::metrics::Metrics;

/// The status on the wire: etcd's code and etcd's text.
pub fn status(error: Error) -> Status {
    Status::new(Code::from_i32(error.code() as i32), error.text())
}

/// Counts a client's stream that ended because what it brought cannot be read; that the client has left
/// is no failure.
pub fn count_failure(metrics: &Metrics, api: &str, error: &Status) {
    if matches!(error.code(), Code::Internal | Code::OutOfRange | Code::Unimplemented) {
        metrics.stream_failures.with_label_values(&["receive", api]).inc();
    }
}

/// What an RPC that this version does not serve answers.
pub fn unserved(rpc: &str) -> Status {
    Status::unimplemented(format!("quorate: {rpc} is not served yet"))
}
