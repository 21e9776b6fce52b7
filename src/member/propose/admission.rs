//! Bounds the pending proposals of this member, in number and bytes. Vital proposals have a reserve, which a
//! flood of client requests cannot use.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::apply::Weight;
use crate::error::Unavailable;
use crate::member::options::Proposals;
use crate::plant;

/// All places.
pub struct Admission {
    common: Places,
    reserve: Places,
}

/// Bounds of one class of proposals.
struct Places {
    number: Semaphore,
    bytes: Semaphore,
    most: (usize, usize),
}

/// A place, until it is dropped.
pub struct Place<'a> {
    _number: SemaphorePermit<'a>,
    _bytes: SemaphorePermit<'a>,
}

impl Admission {
    pub fn new(proposals: Proposals) -> Self {
        let Proposals { number, bytes, number_reserved, bytes_reserved } = proposals;
        Self {
            common: Places::new(number - number_reserved, bytes - bytes_reserved),
            reserve: Places::new(number_reserved, bytes_reserved),
        }
    }

    /// A place for a proposal of so many bytes, if one is free.
    pub fn enter(&self, weight: Weight, bytes: usize) -> Result<Place<'_>, Unavailable> {
        let place = self.common.enter(bytes).or_else(|| match weight {
            Weight::Common => None,
            Weight::Vital if plant::RESERVE_NOT_KEPT.is_planted() => None,
            Weight::Vital => self.reserve.enter(bytes),
        });
        place.ok_or(Unavailable::TooManyRequests)
    }

    /// Pending proposals, and their bytes.
    pub fn taken(&self) -> (usize, usize) {
        let (common, reserve) = (self.common.taken(), self.reserve.taken());
        (common.0 + reserve.0, common.1 + reserve.1)
    }
}

impl Places {
    fn new(number: usize, bytes: usize) -> Self {
        let most = (number, bytes);
        Self { number: Semaphore::new(number), bytes: Semaphore::new(bytes), most }
    }

    fn enter(&self, bytes: usize) -> Option<Place<'_>> {
        let number = self.number.try_acquire().ok()?;
        // A proposal above the bound is admitted alone.
        let bytes = u32::try_from(bytes.min(self.most.1)).unwrap_or(u32::MAX);
        let bytes = self.bytes.try_acquire_many(bytes).ok()?;
        Some(Place { _number: number, _bytes: bytes })
    }

    fn taken(&self) -> (usize, usize) {
        let (number, bytes) = self.most;
        (number - self.number.available_permits(), bytes - self.bytes.available_permits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    #[test]
    fn a_flood_leaves_room_for_what_is_vital() {
        let admission = Admission::new(Proposals::default());
        let enter = |weight, bytes| admission.enter(weight, bytes);
        let common = limits::PROPOSALS_MAX - limits::PROPOSALS_RESERVED;
        let flood: Vec<_> = (0..common).map(|_| enter(Weight::Common, 1).expect("room")).collect();
        assert_eq!(enter(Weight::Common, 1).err(), Some(Unavailable::TooManyRequests));
        let revoke = enter(Weight::Vital, 1).expect("the reserve is there");
        assert_eq!(admission.taken(), (common + 1, common + 1));
        drop((flood, revoke));
        assert_eq!(admission.taken(), (0, 0));
    }

    #[test]
    fn bytes_are_bounded_and_one_that_is_larger_goes_alone() {
        let admission = Admission::new(Proposals::default());
        let most = limits::PROPOSAL_BYTES_MAX;
        let large = admission.enter(Weight::Common, 2 * most).expect("it is alone");
        assert_eq!(admission.enter(Weight::Common, 1).err(), Some(Unavailable::TooManyRequests));
        let vital = admission.enter(Weight::Vital, limits::REQUEST_BYTES_MAX).expect("a reserve");
        drop((large, vital));
        assert!(admission.enter(Weight::Common, 1).is_ok());
    }
}
