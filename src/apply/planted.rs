//! Planted faults of a member that applies: which request it carries out instead of the committed one.
//! Without the feature `plant` it is always the committed one.

use super::Request;
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
