//! The signal on which clients end. What they do meanwhile is not known here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ends clients.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
