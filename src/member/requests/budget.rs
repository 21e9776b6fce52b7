//! Memory that is given out before it is used: a number of bytes of which everybody who is about to
//! need many takes some, waits until there are some, or is turned away. No clock, no tasks.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Unavailable;
use crate::plant;

/// Bytes to give out; clones share them.
#[derive(Clone)]
pub struct Budget {
    bytes: u32,
    free: Arc<Semaphore>,
    /// Places to wait.
    queue: Arc<Semaphore>,
}

/// Bytes given out, until it is dropped.
#[derive(Debug)]
pub struct Charge(Option<OwnedSemaphorePermit>);

impl Budget {
    /// Of `bytes`, for which at most `waiting_max` may wait.
    pub fn new(bytes: u32, waiting_max: usize) -> Self {
        let free = Arc::new(Semaphore::new(bytes as usize));
        Self { bytes, free, queue: Arc::new(Semaphore::new(waiting_max)) }
    }

    /// Takes bytes that are there now.
    pub fn try_take(&self, bytes: usize) -> Option<Charge> {
        let permit = self.free.clone().try_acquire_many_owned(self.share(bytes)).ok()?;
        Some(Charge(Some(permit)))
    }

    /// Takes bytes, waiting for them in turn. Refused when too many wait already.
    pub async fn take(&self, bytes: usize) -> Result<Charge, Unavailable> {
        if let Some(charge) = self.try_take(bytes) {
            return Ok(charge);
        }
        let _place = self.queue.try_acquire().map_err(|_| Unavailable::TooManyRequests)?;
        let permit = self.free.clone().acquire_many_owned(self.share(bytes)).await;
        Ok(Charge(Some(permit.expect("it is never closed"))))
    }

    /// Bytes that are given out.
    pub fn taken(&self) -> usize {
        self.bytes as usize - self.free.available_permits()
    }

    /// Nobody can have more than there is.
    fn share(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes)
    }
}

impl Charge {
    /// Gives back what is above `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.0 {
            drop(permit.split(permit.num_permits().saturating_sub(bytes)));
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if plant::BUDGET_NOT_RETURNED.is_planted()
            && let Some(permit) = self.0.take()
        {
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn bytes_come_back_and_waiters_have_their_turn() {
        let budget = Budget::new(10, 1);
        let six = budget.try_take(6).expect("there are ten");
        assert!(budget.try_take(5).is_none());
        let mut waits = Box::pin(budget.take(5));
        assert!((&mut waits).now_or_never().is_none());
        let refused = budget.take(9).now_or_never().expect("it need not wait");
        assert_eq!(refused.err(), Some(Unavailable::TooManyRequests));
        assert_eq!(budget.taken(), 10, "four are kept for who waits");
        drop(six);
        let five = waits.now_or_never().expect("there are ten again").expect("granted");
        assert_eq!(budget.taken(), 5);
        drop(five);
        let mut six = budget.try_take(6).expect("ten are free");
        six.shrink(7);
        assert_eq!(budget.taken(), 6);
        six.shrink(2);
        assert_eq!(budget.taken(), 2);
        drop(six);
        let all = budget.try_take(usize::MAX).expect("who wants more gets all");
        assert_eq!((budget.taken(), budget.try_take(1).is_none()), (10, true));
        drop(all);
        assert_eq!(budget.taken(), 0);
    }
}
