//! Transactions, in etcd's three passes (etcd 3.7 `server/etcdserver/txn/txn.go`): decide all branches
//! of the whole tree on the state before, check the chosen path, carry it out. What can be refused is
//! refused in the second pass, on every member alike, so the third never stops half-way.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    Compare, RangeRequest, RangeResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest,
    TxnResponse,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
    response_op::Response,
};
use quorate_proto::mvccpb::KeyValue;

use super::interval::KeyRange;
use super::range::{self, Scan, Total};
use super::reader::{Found, Reader};
use super::record::KvRef;
use super::{Halt, View, Write};
use crate::error::{Fatal, Refused};
use crate::limits::TXN_READS_UNWEIGHED;
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

/// Whether what a txn reads may be much: ranges, or many keys. What it answers of states before its
/// writes counts as read.
pub fn reads_much(txn: &TxnRequest) -> bool {
    fn reads(txn: &TxnRequest) -> usize {
        let of = |range_end: &[u8]| if range_end.is_empty() { 1 } else { TXN_READS_UNWEIGHED + 1 };
        let read = |op: &RequestOp| match &op.request {
            Some(Request::RequestRange(range)) if !range.count_only => of(&range.range_end),
            Some(Request::RequestDeleteRange(delete)) if delete.prev_kv => of(&delete.range_end),
            Some(Request::RequestPut(put)) if put.prev_kv => 1,
            Some(Request::RequestTxn(nested)) => reads(nested),
            _ => 0,
        };
        txn.success.iter().chain(&txn.failure).map(read).sum()
    }
    reads(txn) > TXN_READS_UNWEIGHED
}

impl View {
    /// What the ranges of a txn, and the states before its writes where they are wanted, would take
    /// in memory if it were carried out here, whichever way it goes, bytes; no more than a little above
    /// `bytes_max` is found out.
    pub fn weigh_txn(&self, txn: &TxnRequest, bytes_max: u64) -> Result<u64, Fatal> {
        weigh(self.reader(), txn, bytes_max)
    }
}

fn weigh(reader: Reader<'_>, txn: &TxnRequest, bytes_max: u64) -> Result<u64, Fatal> {
    let mut most = 0;
    for ops in [&txn.success, &txn.failure] {
        let mut sum = 0;
        for op in ops {
            let left = bytes_max.saturating_sub(sum);
            sum += match &op.request {
                Some(Request::RequestRange(range)) => weigh_range(reader, range, left)?,
                Some(Request::RequestDeleteRange(delete)) if delete.prev_kv => {
                    weigh_keys(reader, &delete.key, &delete.range_end, left)?
                }
                Some(Request::RequestPut(put)) if put.prev_kv => {
                    weigh_keys(reader, &put.key, &Bytes::new(), left)?
                }
                Some(Request::RequestTxn(nested)) => weigh(reader, nested, left)?,
                _ => 0,
            };
        }
        most = most.max(sum);
    }
    Ok(most)
}

fn weigh_keys(
    reader: Reader<'_>,
    key: &Bytes,
    range_end: &Bytes,
    bytes_max: u64,
) -> Result<u64, Fatal> {
    let (key, range_end) = (key.clone(), range_end.clone());
    weigh_range(reader, &RangeRequest { key, range_end, ..RangeRequest::default() }, bytes_max)
}

/// It is there as it was read and as it is encoded.
fn weigh_range(reader: Reader<'_>, request: &RangeRequest, bytes_max: u64) -> Result<u64, Fatal> {
    if request.count_only {
        return Ok(0);
    }
    // What is refused reads nothing.
    let Ok(rev) = reader.resolve(request.revision) else { return Ok(0) };
    let keys = KeyRange::new(&request.key, &request.range_end);
    let keys_max = range::fetch_limit(request).unwrap_or(usize::MAX);
    let size = Scan::new(request, rev).measure(reader, &keys, keys_max, bytes_max / 2)?;
    Ok(2 * (size.bytes + (size.keys * size_of::<KeyValue>()) as u64))
}

/// Carries out a txn on a batch. The caller ends the revision.
pub(super) fn write(write: &mut Write<'_>, txn: &TxnRequest) -> Result<TxnResponse, Halt> {
    let path = decide(write.reader(), txn)?;
    check(write.reader(), Some(write), txn, &path, &mut None)?;
    let mut response = execute(write, txn, &path)?;
    response.header = write.header();
    Ok(response)
}

/// What a txn that only reads has to read.
pub(super) struct Chosen<'a> {
    succeeded: bool,
    pub ranges: Vec<&'a RangeRequest>,
}

/// Decides a txn that only reads.
pub(super) fn choose<'a>(reader: Reader<'_>, txn: &'a TxnRequest) -> Result<Chosen<'a>, Halt> {
    let path = decide(reader, txn)?;
    check(reader, None, txn, &path, &mut None)?;
    let ranges = branch(txn, path.succeeded).iter().filter_map(|op| match &op.request {
        Some(Request::RequestRange(range)) => Some(range),
        _ => None,
    });
    Ok(Chosen { succeeded: path.succeeded, ranges: ranges.collect() })
}

impl Chosen<'_> {
    pub fn answer(&self, reader: Reader<'_>, responses: Vec<ResponseOp>) -> TxnResponse {
        let header =
            Some(ResponseHeader { revision: reader.revision, ..ResponseHeader::default() });
        TxnResponse { header, succeeded: self.succeeded, responses }
    }
}

fn decide(reader: Reader<'_>, txn: &TxnRequest) -> Result<Path, Fatal> {
    let mut succeeded = true;
    for compare in &txn.compare {
        if !holds(reader, compare)? && !plant::TXN_COMPARES_IGNORED.is_planted() {
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
    let keys = KeyRange::new(&compare.key, &compare.range_end);
    let (mut any, mut all) = (false, true);
    reader.walk(&keys, reader.revision, &mut |found| {
        let Found::Newest(_, kv) = found else {
            return Err(Fatal::new("txn", "a key is newer than the present"));
        };
        any = true;
        all = matches(compare, kv);
        Ok(if all { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    if !any {
        let by_value = compare.target == CompareTarget::Value as i32;
        return Ok(!by_value && matches(compare, KvRef::default()));
    }
    Ok(all)
}

/// Compares one key. An operand of another target than the one compared counts as not given: zero, or
/// empty. Unknown targets compare as equal, unknown results hold, as in etcd.
fn matches(compare: &Compare, kv: KvRef<'_>) -> bool {
    let union = compare.target_union.as_ref();
    let order = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => kv.version.cmp(&match union {
            Some(TargetUnion::Version(version)) => *version,
            _ => 0,
        }),
        Ok(CompareTarget::Create) => kv.create.cmp(&match union {
            Some(TargetUnion::CreateRevision(revision)) => *revision,
            _ => 0,
        }),
        Ok(CompareTarget::Mod) => kv.modified.cmp(&match union {
            Some(TargetUnion::ModRevision(revision)) => *revision,
            _ => 0,
        }),
        Ok(CompareTarget::Value) => match union {
            Some(TargetUnion::Value(value)) => kv.value.cmp(&value[..]),
            _ => kv.value.cmp(&[][..]),
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
///
/// `emptied` is the lowest key from which on the operations so far delete every key. Only such a delete may
/// precede a put of the same key (see [`super::overlaps`]), and a put that inherits finds nothing then. etcd
/// 3.7.3 misses this case here and panics when it carries the put out, on every member.
fn check<'t>(
    reader: Reader<'_>,
    write: Option<&Write<'_>>,
    txn: &'t TxnRequest,
    path: &Path,
    emptied: &mut Option<&'t Bytes>,
) -> Result<(), Halt> {
    let mut nested = path.nested.iter();
    for op in branch(txn, path.succeeded) {
        match (&op.request, write) {
            (Some(Request::RequestRange(_)), _) if plant::TXN_HALF_DONE.is_planted() => {}
            (Some(Request::RequestRange(range)), _) => check_revision(reader, range.revision)?,
            (Some(Request::RequestTxn(txn)), _) => {
                let path = nested.next().expect("the path was decided on the same txn");
                check(reader, write, txn, path, emptied)?;
            }
            (Some(Request::RequestPut(put)), Some(write)) => {
                write.check_put(put)?;
                let inherits = put.ignore_value || put.ignore_lease;
                if inherits && emptied.is_some_and(|from| *from <= put.key) {
                    return Err(Refused::KeyNotFound.into());
                }
            }
            (Some(Request::RequestDeleteRange(delete)), Some(_)) => {
                let from = Some(&delete.key).filter(|_| delete.range_end[..] == [0]);
                *emptied = (*emptied).into_iter().chain(from).min();
            }
            (None, _) => {}
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

fn execute(write: &mut Write<'_>, txn: &TxnRequest, path: &Path) -> Result<TxnResponse, Halt> {
    let mut nested = path.nested.iter();
    let mut responses = Vec::new();
    for op in branch(txn, path.succeeded) {
        let response = match &op.request {
            Some(Request::RequestRange(range)) => {
                Some(Response::ResponseRange(read(write, range)?))
            }
            Some(Request::RequestPut(put)) => Some(Response::ResponsePut(write.put_op(put)?)),
            Some(Request::RequestDeleteRange(delete)) => {
                Some(Response::ResponseDeleteRange(write.delete_op(delete)?))
            }
            Some(Request::RequestTxn(txn)) => {
                let path = nested.next().expect("the path was decided on the same txn");
                Some(Response::ResponseTxn(execute(write, txn, path)?))
            }
            // An operation without content answers without content.
            None => None,
        };
        responses.push(ResponseOp { response });
    }
    // A nested txn's header stays empty; the outermost one's is set by the caller.
    let header = Some(ResponseHeader::default());
    Ok(TxnResponse { header, succeeded: path.succeeded, responses })
}

/// Reading changes nothing, so it is left out where no caller waits for the answer.
fn read(write: &Write<'_>, request: &RangeRequest) -> Result<RangeResponse, Halt> {
    if !write.is_answered() {
        return Ok(RangeResponse::default());
    }
    let reader = write.reader();
    let overlay = reader.overlay.filter(|_| !plant::TXN_OWN_WRITES_UNSEEN.is_planted());
    range::whole(Reader { overlay, ..reader }, request, Total::Counted)
}
