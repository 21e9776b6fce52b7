//! Transactions, in etcd's three passes (etcd 3.7 `server/etcdserver/txn/txn.go`): decide all branches
//! of the whole tree on the state before, check the chosen path, carry it out. What can be refused is
//! refused in the second pass, on every member alike, so the third never stops half-way.

use std::cmp::Ordering;

use quorate_proto::etcdserverpb::{
    Compare, RangeRequest, RangeResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest,
    TxnResponse,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
    response_op::Response,
};
use quorate_proto::mvccpb::KeyValue;

use super::interval::KeyRange;
use super::range::{self, Total};
use super::reader::Reader;
use super::{Halt, Write};
use crate::error::{Fatal, Refused};
use crate::plant;

/// The branch taken by a txn, and by the txns among its operations, in their order.
struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

/// Whether a txn has nothing but reads in both branches, so that it need not go through the log. A
/// nested txn counts as a write, whatever is in it.
pub fn is_read_only(txn: &TxnRequest) -> bool {
    ranges(txn).all(|range| range.is_some())
}

/// Whether a txn may be answered from local state: every operation is a serializable read.
pub fn is_serializable(txn: &TxnRequest) -> bool {
    ranges(txn).all(|range| range.is_some_and(|range| range.serializable))
}

fn ranges(txn: &TxnRequest) -> impl Iterator<Item = Option<&RangeRequest>> {
    txn.success.iter().chain(&txn.failure).map(|op| match &op.request {
        Some(Request::RequestRange(range)) => Some(range),
        _ => None,
    })
}

/// Carries out a txn on a batch. The caller ends the revision.
pub(super) fn write(write: &mut Write<'_>, txn: &TxnRequest) -> Result<TxnResponse, Halt> {
    let path = decide(write.reader(), txn)?;
    check(write.reader(), Some(write), txn, &path)?;
    let mut response = execute(&mut Target::Write(write), txn, &path)?;
    response.header = write.header();
    Ok(response)
}

/// Answers a txn that only reads.
pub(super) fn read(reader: Reader<'_>, txn: &TxnRequest) -> Result<TxnResponse, Halt> {
    let path = decide(reader, txn)?;
    check(reader, None, txn, &path)?;
    let mut response = execute(&mut Target::Read(reader), txn, &path)?;
    let revision = reader.revision;
    response.header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
    Ok(response)
}

/// What the third pass runs on.
enum Target<'a, 'b> {
    Read(Reader<'a>),
    Write(&'a mut Write<'b>),
}

fn decide(reader: Reader<'_>, txn: &TxnRequest) -> Result<Path, Fatal> {
    let mut succeeded = true;
    for compare in &txn.compare {
        if !holds(reader, compare)? && !plant::is("txn-compares-ignored") {
            succeeded = false;
            break;
        }
    }
    let nested = nested(branch(txn, succeeded)).map(|txn| decide(reader, txn));
    Ok(Path { succeeded, nested: nested.collect::<Result<_, _>>()? })
}

fn branch(txn: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &txn.success } else { &txn.failure }
}

fn nested(ops: &[RequestOp]) -> impl Iterator<Item = &TxnRequest> {
    ops.iter().filter_map(|op| match &op.request {
        Some(Request::RequestTxn(txn)) => Some(txn),
        _ => None,
    })
}

/// A comparison must hold for every key of its range; without any key it is made once with nothing,
/// except that a value that is not there compares as nothing at all.
fn holds(reader: Reader<'_>, compare: &Compare) -> Result<bool, Fatal> {
    let kvs = range::all(reader, &KeyRange::new(&compare.key, &compare.range_end))?;
    if kvs.is_empty() {
        let by_value = compare.target == CompareTarget::Value as i32;
        return Ok(!by_value && matches(compare, &KeyValue::default()));
    }
    Ok(kvs.iter().all(|kv| matches(compare, kv)))
}

/// Compares one key. An operand of another target than the one compared counts as not given: zero, or
/// empty. Unknown targets compare as equal, unknown results hold, as in etcd.
fn matches(compare: &Compare, kv: &KeyValue) -> bool {
    let union = compare.target_union.as_ref();
    let order = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => kv.version.cmp(&match union {
            Some(TargetUnion::Version(version)) => *version,
            _ => 0,
        }),
        Ok(CompareTarget::Create) => kv.create_revision.cmp(&match union {
            Some(TargetUnion::CreateRevision(revision)) => *revision,
            _ => 0,
        }),
        Ok(CompareTarget::Mod) => kv.mod_revision.cmp(&match union {
            Some(TargetUnion::ModRevision(revision)) => *revision,
            _ => 0,
        }),
        Ok(CompareTarget::Value) => match union {
            Some(TargetUnion::Value(value)) => kv.value.cmp(value),
            _ => kv.value[..].cmp(&[][..]),
        },
        Ok(CompareTarget::Lease) => kv.lease.cmp(&match union {
            Some(TargetUnion::Lease(lease)) => *lease,
            _ => 0,
        }),
        Err(_) => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => order.is_eq(),
        Ok(CompareResult::NotEqual) => order.is_ne(),
        Ok(CompareResult::Greater) => order.is_gt(),
        Ok(CompareResult::Less) => order.is_lt(),
        Err(_) => true,
    }
}

/// Refuses what the chosen path cannot do, judged on the state before the txn.
fn check(
    reader: Reader<'_>,
    write: Option<&Write<'_>>,
    txn: &TxnRequest,
    path: &Path,
) -> Result<(), Halt> {
    let mut nested = path.nested.iter();
    for op in branch(txn, path.succeeded) {
        match (&op.request, write) {
            (Some(Request::RequestRange(_)), _) if plant::is("txn-half-done") => {}
            (Some(Request::RequestRange(range)), _) => check_revision(reader, range.revision)?,
            (Some(Request::RequestTxn(txn)), _) => {
                let path = nested.next().expect("the path was decided on the same txn");
                check(reader, write, txn, path)?;
            }
            (Some(Request::RequestPut(put)), Some(write)) => write.check_put(put)?,
            (Some(Request::RequestDeleteRange(_)), Some(_)) | (None, _) => {}
            (Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)), None) => {
                return Err(Fatal::new("txn", "a txn that writes came by the way for reads").into());
            }
        }
    }
    Ok(())
}

/// As a single Range would judge it, but a negative revision is a revision like any other.
fn check_revision(reader: Reader<'_>, revision: i64) -> Result<(), Refused> {
    match revision {
        0 => Ok(()),
        _ if revision > reader.revision => Err(Refused::FutureRevision),
        _ if revision < reader.compacted => Err(Refused::Compacted),
        _ => Ok(()),
    }
}

fn execute(
    target: &mut Target<'_, '_>,
    txn: &TxnRequest,
    path: &Path,
) -> Result<TxnResponse, Halt> {
    let mut nested = path.nested.iter();
    let mut responses = Vec::new();
    for op in branch(txn, path.succeeded) {
        let response = match (&op.request, &mut *target) {
            (Some(Request::RequestRange(range)), target) => {
                Some(Response::ResponseRange(target.range(range)?))
            }
            (Some(Request::RequestPut(put)), Target::Write(write)) => {
                Some(Response::ResponsePut(write.put_op(put)?))
            }
            (Some(Request::RequestDeleteRange(delete)), Target::Write(write)) => {
                Some(Response::ResponseDeleteRange(write.delete_op(delete)?))
            }
            (Some(Request::RequestTxn(txn)), target) => {
                let path = nested.next().expect("the path was decided on the same txn");
                Some(Response::ResponseTxn(execute(target, txn, path)?))
            }
            // An operation without content answers without content; a write on the way for reads was
            // refused by the check.
            (_, _) => None,
        };
        responses.push(ResponseOp { response });
    }
    // A nested txn's header stays empty; the outermost one's is set by the caller.
    let header = Some(ResponseHeader::default());
    Ok(TxnResponse { header, succeeded: path.succeeded, responses })
}

impl Target<'_, '_> {
    fn range(&mut self, request: &RangeRequest) -> Result<RangeResponse, Halt> {
        let reader = match self {
            Self::Read(reader) => *reader,
            Self::Write(write) => write.reader(),
        };
        let overlay = reader.overlay.filter(|_| !plant::is("txn-own-writes-unseen"));
        range::whole(Reader { overlay, ..reader }, request, Total::Counted)
    }
}
