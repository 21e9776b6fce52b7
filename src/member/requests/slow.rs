//! Warnings about slow requests (`--warning-apply-duration`), with etcd's text and fields, and their count:
//! entries from the beginning to the end of apply, reads from their arrival to their response.

use std::time::{Duration, Instant};

use prost::Message as _;
use quorate_proto::etcdserverpb::{
    RangeRequest, RangeResponse, TxnRequest, TxnResponse, response_op::Response,
};
use quorate_proto::raftpb::Entry;
use tracing::warn;

use super::loggable;
use crate::apply::{Command, Reply};
use crate::codec;
use crate::error::Error;
use crate::member::{Member, ReadResponse};
use crate::metrics::Metrics;

impl Member {
    /// `size` returns the number of keys in the response and its bytes; it is called for slow requests only.
    pub(in crate::member) fn warn_of_range<A>(
        &self,
        started: Instant,
        request: &RangeRequest,
        outcome: &Result<A, Error>,
        size: impl FnOnce(&A) -> (i64, u64),
    ) {
        let Some(took) = self.too_long(started) else { return };
        let response = outcome.as_ref().map(size).map_or_else(
            |_| String::new(),
            |(keys, bytes)| format!("range_response_count:{keys} size:{bytes}"),
        );
        let error = outcome.as_ref().err().map(ToString::to_string);
        self.warn(took, "read-only range ", &loggable::range(request), &response, error);
    }

    pub(in crate::member) fn warn_of_txn(
        &self,
        started: Instant,
        request: &TxnRequest,
        outcome: &Result<ReadResponse<TxnResponse>, Error>,
    ) {
        let Some(took) = self.too_long(started) else { return };
        let response = outcome.as_ref().map_or_else(
            |_| String::new(),
            |answer| {
                let (response, bytes) = match answer {
                    ReadResponse::Whole(response, _) => (response, 0),
                    ReadResponse::Paged(response, pages) => (response, pages.bytes()),
                };
                let counts = response.responses.iter().filter_map(|op| match &op.response {
                    Some(Response::ResponseRange(range)) => Some(range),
                    _ => None,
                });
                let paged = |n| matches!(answer, ReadResponse::Paged(_, pages) if pages.has(n));
                let counts = counts.enumerate().map(|(n, range)| {
                    // Of a paged response, all keys of the range.
                    let keys = if paged(n) { range.count } else { range.kvs.len() as i64 };
                    format!("range_response_count:{keys}")
                });
                let counts = counts.collect::<Vec<_>>().join(" ");
                format!("responses:<{counts}> size:{}", response.encoded_len() as u64 + bytes)
            },
        );
        let error = outcome.as_ref().err().map(ToString::to_string);
        self.warn(took, "read-only txn ", &loggable::txn(request), &response, error);
    }

    fn too_long(&self, started: Instant) -> Option<Duration> {
        let took = self.0.env.now() - started;
        (took > self.0.options.apply_warning).then_some(took)
    }

    fn warn(
        &self,
        took: Duration,
        prefix: &str,
        request: &str,
        response: &str,
        error: Option<String>,
    ) {
        report(
            &self.0.metrics,
            took,
            self.0.options.apply_warning,
            prefix,
            request,
            response,
            error,
        );
    }
}

/// Number of keys and bytes.
pub(in crate::member) fn range_size(response: &RangeResponse) -> (i64, u64) {
    let keys = i64::try_from(response.kvs.len()).unwrap_or(i64::MAX);
    (keys, response.encoded_len() as u64)
}

/// Logs an entry whose apply took longer than `expected`.
pub(in crate::member) fn warn_of_entry(
    metrics: &Metrics,
    took: Duration,
    expected: Duration,
    entry: &Entry,
    outcome: Result<&Reply, &Error>,
) {
    // Decoded a second time, so that no entry is kept for the rare slow one.
    let request = match Command::decode(entry) {
        Ok(Command::Request(header, request)) => loggable::entry(&header, &request),
        _ => format!("entry {}", entry.index),
    };
    let size = outcome.ok().and_then(Reply::response_len);
    let response = size.map_or_else(String::new, |size| format!("size:{size}"));
    let error = outcome.err().map(ToString::to_string);
    report(metrics, took, expected, "", &request, &response, error);
}

fn report(
    metrics: &Metrics,
    took: Duration,
    expected: Duration,
    prefix: &str,
    request: &str,
    response: &str,
    error: Option<String>,
) {
    metrics.slow_applies.inc();
    let (took, expected) = (codec::go_duration(took), codec::go_duration(expected));
    match error {
        None => warn!(
            took,
            expected_duration = expected,
            prefix,
            request,
            response,
            "apply request took too long"
        ),
        Some(error) => warn!(
            took,
            expected_duration = expected,
            prefix,
            request,
            response,
            error,
            "apply request took too long"
        ),
    }
}
