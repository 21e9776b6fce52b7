//! Planted faults of a member that applies: which request it carries out instead of the committed one, and
//! which it checks for permission instead of the one it carries out. Without the feature `plant` it is always
//! the committed one. They stand here and not in the checks themselves, so that no fault of the checks can
//! hide among them.

use std::borrow::Cow;

use quorate_proto::etcdserverpb::TxnRequest;

use super::Request;
use crate::auth::{Auth, Principal};
use crate::types::{Index, MemberId};

/// The circumstances in which a member applies an entry, of which nothing it does may depend.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    pub index: Index,
    /// Applied before the batch that the entry is part of.
    pub applied: Index,
    pub member: MemberId,
    /// Whether the member has the lowest id of all.
    pub is_first: bool,
    /// Whether the proposer, a client of this member, no longer waits.
    pub is_abandoned: bool,
}

/// The request to carry out, if any.
#[cfg(not(feature = "plant"))]
pub fn request_at(_: impl FnOnce() -> Circumstances, request: Request) -> Option<Request> {
    Some(request)
}

/// The request to carry out, if any.
#[cfg(feature = "plant")]
pub fn request_at(at: impl FnOnce() -> Circumstances, request: Request) -> Option<Request> {
    let at = at();
    (!at.is_passed_over()).then(|| at.distorted(request))
}

#[cfg(feature = "plant")]
impl Circumstances {
    fn is_passed_over(&self) -> bool {
        use crate::plant;
        let own = self.member.0.is_multiple_of(2) && self.index.0.is_multiple_of(50);
        let far = self.index.0 > self.applied.0 + 8;
        (plant::ABANDONED_REQUEST_SKIPPED.is_planted() && self.is_abandoned)
            || (plant::APPLY_DEPENDS_ON_MEMBER.is_planted() && own)
            || (plant::PAGE_TAKEN_FOR_ALL.is_planted() && far)
    }

    /// Another value, stored by one member now and then.
    fn distorted(&self, mut request: Request) -> Request {
        use crate::plant;
        let planted = plant::ROW_SILENTLY_DIFFERS.is_planted()
            || plant::CORRUPT_CHECK_ACCUSES_WRONG_MEMBER.is_planted();
        if planted
            && self.is_first
            && self.index.0.is_multiple_of(40)
            && let Request::Put(put) = &mut request
        {
            put.value = [&put.value, &b"!"[..]].concat().into();
        }
        request
    }
}

/// The request whose permission is checked.
pub(super) fn judged(request: &Request) -> Cow<'_, Request> {
    #[cfg(feature = "plant")]
    if is_any_planted() {
        return Cow::Owned(shown::request(request.clone()));
    }
    Cow::Borrowed(request)
}

/// The caller on whose behalf it is checked.
pub(super) fn judged_caller<'a>(_auth: &Auth, principal: &'a Principal) -> Cow<'a, Principal> {
    #[cfg(feature = "plant")]
    if crate::plant::OLD_AUTH_REVISION_ACCEPTED.is_planted()
        && (1.._auth.revision()).contains(&principal.revision)
    {
        // A proposal admitted under older permissions is not checked again: root's pass.
        let (user, revision) = (crate::auth::ROOT.into(), _auth.revision());
        return Cow::Owned(Principal { user, revision, ..principal.clone() });
    }
    Cow::Borrowed(principal)
}

/// As [`judged`], of a txn that only reads and so is no command.
pub fn judged_txn(txn: &TxnRequest) -> Cow<'_, TxnRequest> {
    #[cfg(feature = "plant")]
    if is_any_planted() {
        return Cow::Owned(shown::txn(txn.clone()));
    }
    Cow::Borrowed(txn)
}

/// As [`judged`], of the end of a range.
pub fn judged_end(range_end: &[u8]) -> &[u8] {
    #[cfg(feature = "plant")]
    if crate::plant::OPEN_RANGE_AS_ONE_KEY.is_planted() && range_end == [0] {
        return &[];
    }
    range_end
}

#[cfg(feature = "plant")]
fn is_any_planted() -> bool {
    use crate::plant;
    plant::NESTED_TXN_UNJUDGED.is_planted() || plant::OPEN_RANGE_AS_ONE_KEY.is_planted()
}

/// What the check is shown where a fault is planted.
#[cfg(feature = "plant")]
mod shown {
    use quorate_proto::etcdserverpb::{RequestOp, TxnRequest, request_op::Request as Op};

    use crate::apply::Request;
    use crate::plant;

    pub fn request(mut request: Request) -> Request {
        match &mut request {
            Request::Txn(inner) => *inner = txn(std::mem::take(inner)),
            Request::Range(range) => end(&mut range.range_end),
            Request::DeleteRange(delete) => end(&mut delete.range_end),
            _ => {}
        }
        request
    }

    pub fn txn(mut txn: TxnRequest) -> TxnRequest {
        txn.compare.iter_mut().for_each(|compare| end(&mut compare.range_end));
        for branch in [&mut txn.success, &mut txn.failure] {
            branch.retain(|op| {
                let nested = matches!(op.request, Some(Op::RequestTxn(_)));
                !(nested && plant::NESTED_TXN_UNJUDGED.is_planted())
            });
            branch.iter_mut().for_each(op);
        }
        txn
    }

    fn op(op: &mut RequestOp) {
        match &mut op.request {
            Some(Op::RequestRange(range)) => end(&mut range.range_end),
            Some(Op::RequestDeleteRange(delete)) => end(&mut delete.range_end),
            Some(Op::RequestTxn(nested)) => *nested = txn(std::mem::take(nested)),
            Some(Op::RequestPut(_)) | None => {}
        }
    }

    fn end(range_end: &mut bytes::Bytes) {
        *range_end = bytes::Bytes::copy_from_slice(super::judged_end(range_end));
    }
}
