//! What clients do to a cluster while the nemesis is at work. Each workload records what it was told;
//! judging is for [`crate::check`].

pub mod kv;
pub mod leases;
pub mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quorate::env::Env;

/// Tells clients to end.
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

/// A number below `bound`, from the seed.
pub fn below(env: &Env, bound: u64) -> u64 {
    env.random_u64() % bound
}
