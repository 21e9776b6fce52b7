//! From our errors to gRPC statuses, through the one table in [`crate::error`].

use tonic::{Code, Status};

use crate::error::Error;

/// The status on the wire: etcd's code and etcd's text.
pub fn status(error: Error) -> Status {
    Status::new(Code::from_i32(error.code() as i32), error.text())
}

/// What an RPC that this version does not serve answers.
pub fn unserved(rpc: &str) -> Status {
    Status::unimplemented(format!("quorate: {rpc} is not served yet"))
}
