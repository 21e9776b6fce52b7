//! What clients called and were answered, in a form that a checker can replay. Knows the wire types only;
//! whether an answer is right is for [`crate::check`].

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use quorate::client::is_unsent;
use quorate_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse,
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse, request_op::Request,
    response_op::Response,
};
use quorate_proto::mvccpb::Event;
use tonic::Code;

use crate::facts::verdict::Proof;

/// All events of one revision, by revision.
pub type Log = BTreeMap<i64, Vec<Event>>;

/// What came back: the response, or why there is none.
pub type Answer<T> = Result<T, Failure>;

/// A call without a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    pub text: String,
    /// Whether what was asked for is certain not to have happened, and not to happen later.
    pub never: bool,
}

/// A request and what belongs to it.
#[derive(Clone, Debug)]
pub enum Call {
    Range(RangeRequest, Answer<RangeResponse>),
    Put(PutRequest, Answer<PutResponse>),
    Delete(DeleteRangeRequest, Answer<DeleteRangeResponse>),
    Txn(TxnRequest, Answer<TxnResponse>),
    Compact(CompactionRequest, Answer<CompactionResponse>),
    Grant(LeaseGrantRequest, Answer<LeaseGrantResponse>),
    Revoke(LeaseRevokeRequest, Answer<LeaseRevokeResponse>),
    KeepAlive(LeaseKeepAliveRequest, Answer<LeaseKeepAliveResponse>),
    TimeToLive(LeaseTimeToLiveRequest, Answer<LeaseTimeToLiveResponse>),
    Leases(LeaseLeasesRequest, Answer<LeaseLeasesResponse>),
}

/// One call of one client. Without an answer it may have happened at any later time, or never.
#[derive(Clone, Debug)]
pub struct Operation {
    pub client: usize,
    /// The workload that the client was busy with.
    pub workload: &'static str,
    pub began: Instant,
    pub ended: Instant,
    /// Simulated time of `began` since the world began, in microseconds.
    pub began_us: u64,
    pub call: Call,
    /// A range that came as a stream: the call has what its chunks come to.
    pub streamed: bool,
    /// The proxy that it went through.
    pub proxy: Option<usize>,
}

/// Does `$do` with the answer of whatever kind of call it is.
macro_rules! with_answer {
    ($call:expr, $answer:ident => $do:expr) => {
        match $call {
            Call::Range(_, $answer) => $do,
            Call::Put(_, $answer) => $do,
            Call::Delete(_, $answer) => $do,
            Call::Txn(_, $answer) => $do,
            Call::Compact(_, $answer) => $do,
            Call::Grant(_, $answer) => $do,
            Call::Revoke(_, $answer) => $do,
            Call::KeepAlive(_, $answer) => $do,
            Call::TimeToLive(_, $answer) => $do,
            Call::Leases(_, $answer) => $do,
        }
    };
}

impl Failure {
    /// Derives the effect from a gRPC status: a request that was never sent, or was refused because of its
    /// content or the state, has had no effect. Otherwise the effect is unknown.
    pub fn new(status: &tonic::Status) -> Self {
        let refused = matches!(
            status.code(),
            Code::InvalidArgument
                | Code::NotFound
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::ResourceExhausted
                | Code::Unimplemented
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::DataLoss
        );
        Self {
            code: status.code(),
            text: status.message().to_owned(),
            never: refused || is_unsent(status),
        }
    }

    /// No answer within the client's timeout.
    pub fn silence() -> Self {
        Self { code: Code::DeadlineExceeded, text: "no answer".into(), never: false }
    }

    /// Whether a server refused it: it has checked the request, in the state that it was in.
    pub fn is_refusal(&self) -> bool {
        self.never && self.code != Code::Unavailable
    }
}

impl Operation {
    pub fn answered(&self) -> bool {
        with_answer!(&self.call, answer => answer.is_ok())
    }

    pub fn failure(&self) -> Option<&Failure> {
        with_answer!(&self.call, answer => answer.as_ref().err())
    }

    /// Whether the call may have had an effect although no answer confirmed it.
    pub fn unknown(&self) -> bool {
        self.failure().is_some_and(|failure| !failure.never)
    }

    /// The header of the answer.
    pub fn header(&self) -> Option<ResponseHeader> {
        with_answer!(&self.call, answer => answer.as_ref().ok()?.header)
    }

    /// The revision in the answer's header.
    pub fn revision(&self) -> Option<i64> {
        self.header().map(|header| header.revision)
    }

    /// Whether the answer must reflect everything acknowledged before the call. Not so for reads that a
    /// member may answer from its own state, and for calls whose header is filled in before the answer is
    /// determined.
    pub fn linearizable(&self) -> bool {
        match &self.call {
            Call::Range(request, _) => !request.serializable,
            Call::Txn(txn, _) => !local(txn),
            Call::Put(..) | Call::Delete(..) | Call::Compact(..) => true,
            Call::Grant(..) | Call::Revoke(..) => true,
            Call::KeepAlive(..) | Call::TimeToLive(..) | Call::Leases(..) => false,
        }
    }

    /// Whether the answer may be one that a proxy has kept.
    pub fn may_be_kept(&self) -> bool {
        let serializable = matches!(&self.call, Call::Range(request, _) if request.serializable);
        serializable && self.proxy.is_some()
    }

    /// For the proof of a violation.
    pub fn proof(&self) -> Proof {
        Proof::Operation { client: self.client, began_us: self.began_us }
    }
}

impl Call {
    /// Whether the answer confirms a change.
    pub fn wrote(&self) -> bool {
        match self {
            Self::Put(_, answer) => answer.is_ok(),
            Self::Delete(_, Ok(answer)) => answer.deleted > 0,
            Self::Txn(_, Ok(answer)) => txn_wrote(answer),
            _ => false,
        }
    }

    /// Whether a call may change anything.
    pub fn may_write(&self) -> bool {
        match self {
            Self::Put(..) | Self::Delete(..) => true,
            Self::Txn(txn, _) => txn.success.iter().chain(&txn.failure).any(op_changes),
            _ => false,
        }
    }
}

fn txn_wrote(answer: &TxnResponse) -> bool {
    answer.responses.iter().any(|op| match &op.response {
        Some(Response::ResponsePut(_)) => true,
        Some(Response::ResponseDeleteRange(deleted)) => deleted.deleted > 0,
        Some(Response::ResponseTxn(nested)) => txn_wrote(nested),
        _ => false,
    })
}

fn op_changes(op: &RequestOp) -> bool {
    match &op.request {
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(DeleteRangeRequest { .. })) => {
            true
        }
        Some(Request::RequestTxn(TxnRequest { success, failure, .. })) => {
            success.iter().chain(failure).any(op_changes)
        }
        _ => false,
    }
}

/// Whether a txn is nothing but reads that any member may answer.
fn local(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match &op.request {
        Some(Request::RequestRange(range)) => range.serializable,
        _ => false,
    })
}

/// All puts of a txn, of both branches and of the txns among its operations.
pub fn puts(txn: &TxnRequest) -> Vec<&PutRequest> {
    let mut found = Vec::new();
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(Request::RequestPut(put)) => found.push(put),
            Some(Request::RequestTxn(nested)) => found.extend(puts(nested)),
            _ => {}
        }
    }
    found
}

/// As `client 3, txn at 12.345 s`.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.began_us as f64 / 1e6;
        let way = if self.streamed { " as a stream" } else { "" };
        write!(f, "client {} at {at:.3} s: {}{way}", self.client, self.call)
    }
}

/// The request in a line for people, without its outcome.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(request, _) => write_range(f, request),
            Self::Put(request, _) => write_put(f, request),
            Self::Delete(request, _) => {
                write!(f, "delete {}", keys(&request.key, &request.range_end))
            }
            Self::Txn(request, _) => write_txn(f, request),
            Self::Compact(request, _) => write!(f, "compact {}", request.revision),
            Self::Grant(request, _) => write!(f, "grant lease {} {} s", request.id, request.ttl),
            Self::Revoke(request, _) => write!(f, "revoke lease {}", request.id),
            Self::KeepAlive(request, _) => write!(f, "keep lease {}", request.id),
            Self::TimeToLive(request, _) => write!(f, "time to live of lease {}", request.id),
            Self::Leases(..) => write!(f, "list leases"),
        }
    }
}

fn write_range(f: &mut fmt::Formatter<'_>, request: &RangeRequest) -> fmt::Result {
    write!(f, "get {}", keys(&request.key, &request.range_end))?;
    if request.revision != 0 {
        write!(f, " at {}", request.revision)?;
    }
    if request.limit != 0 {
        write!(f, " limit {}", request.limit)?;
    }
    for (set, word) in [
        (request.count_only, " count only"),
        (request.keys_only, " keys only"),
        (request.serializable, " serializable"),
    ] {
        if set {
            f.write_str(word)?;
        }
    }
    Ok(())
}

fn write_put(f: &mut fmt::Formatter<'_>, request: &PutRequest) -> fmt::Result {
    write!(f, "put {} = {}", short(&request.key), short(&request.value))?;
    if request.lease != 0 {
        write!(f, " lease {}", request.lease)?;
    }
    Ok(())
}

fn write_txn(f: &mut fmt::Formatter<'_>, txn: &TxnRequest) -> fmt::Result {
    write!(f, "txn if {} then [", txn.compare.len())?;
    write_ops(f, &txn.success)?;
    f.write_str("] else [")?;
    write_ops(f, &txn.failure)?;
    f.write_str("]")
}

fn write_ops(f: &mut fmt::Formatter<'_>, ops: &[RequestOp]) -> fmt::Result {
    for (at, op) in ops.iter().enumerate() {
        if at > 0 {
            f.write_str("; ")?;
        }
        match &op.request {
            Some(Request::RequestRange(request)) => write_range(f, request)?,
            Some(Request::RequestPut(request)) => write_put(f, request)?,
            Some(Request::RequestDeleteRange(request)) => {
                write!(f, "delete {}", keys(&request.key, &request.range_end))?;
            }
            Some(Request::RequestTxn(request)) => write_txn(f, request)?,
            None => f.write_str("nothing")?,
        }
    }
    Ok(())
}

/// A range of keys as people read it.
pub fn keys(key: &[u8], end: &[u8]) -> String {
    match end {
        [] => short(key),
        [0] => format!("{}..", short(key)),
        _ => format!("{}..{}", short(key), short(end)),
    }
}

const SHORT: usize = 40;

/// Bytes as text, cut where people stop reading.
pub fn short(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHORT)]).replace('\0', "\\0");
    if bytes.len() > SHORT { format!("{text}... {} bytes", bytes.len()) } else { text }
}
