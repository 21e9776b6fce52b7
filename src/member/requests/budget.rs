//! Memory that is reserved before it is used: a caller takes a part of a fixed number of bytes, waits until
//! enough are free, or is refused. No clock, no tasks.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Unavailable;
use crate::plant;

/// A number of bytes; clones share them.
#[derive(Clone)]
pub struct Budget {
    bytes: u32,
    free: Arc<Semaphore>,
    /// Places to wait.
    queue: Arc<Semaphore>,
}

/// Reserved bytes, released on drop.
#[derive(Debug)]
pub struct Charge(Option<OwnedSemaphorePermit>);

impl Budget {
    /// A budget of `bytes`, for which at most `waiting_max` callers may wait.
    pub fn new(bytes: u32, waiting_max: usize) -> Self {
        let free = Arc::new(Semaphore::new(bytes as usize));
        Self { bytes, free, queue: Arc::new(Semaphore::new(waiting_max)) }
    }

    /// Reserves bytes if they are free.
    pub fn try_take(&self, bytes: usize) -> Option<Charge> {
        let permit = self.free.clone().try_acquire_many_owned(self.share(bytes)).ok()?;
        Some(Charge(Some(permit)))
    }

    /// Reserves bytes, waiting in order of arrival. Refused when too many wait already.
    pub async fn take(&self, bytes: usize) -> Result<Charge, Unavailable> {
        if let Some(charge) = self.try_take(bytes) {
            return Ok(charge);
        }
        let _place = self.queue.try_acquire().map_err(|_| Unavailable::TooManyRequests)?;
        let permit = self.free.clone().acquire_many_owned(self.share(bytes)).await;
        Ok(Charge(Some(permit.expect("it is never closed"))))
    }

    /// Reserved bytes.
    pub fn taken(&self) -> usize {
        self.bytes as usize - self.free.available_permits()
    }

    /// No reservation exceeds the budget.
    fn share(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes)
    }
}

impl Charge {
    /// Releases all but `bytes`.
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
    fn released_bytes_go_to_the_waiters_in_order() {
        let budget = Budget::new(10, 1);
        let six = budget.try_take(6).expect("there are ten");
        assert!(budget.try_take(5).is_none());
        let mut waits = Box::pin(budget.take(5));
        assert!((&mut waits).now_or_never().is_none());
        let refused = budget.take(9).now_or_never().expect("it need not wait");
        assert_eq!(refused.err(), Some(Unavailable::TooManyRequests));
        assert_eq!(budget.taken(), 10, "four are reserved for the waiter");
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
        let all = budget.try_take(usize::MAX).expect("a larger request gets all");
        assert_eq!((budget.taken(), budget.try_take(1).is_none()), (10, true));
        drop(all);
        assert_eq!(budget.taken(), 0);
    }
}
