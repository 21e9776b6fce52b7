//! The digest of everything that crossed the wire, with its simulated time: two runs are the same run
//! when their digests are equal. It keeps no events.

use std::hash::{DefaultHasher, Hasher};
use std::time::Instant;

#[derive(Clone)]
pub(crate) struct Digest {
    start: Instant,
    hasher: DefaultHasher,
    events: u64,
}

impl Digest {
    pub(crate) fn new(start: Instant) -> Self {
        // Fixed keys: the same bytes give the same digest in every process of one toolchain.
        Self { start, hasher: DefaultHasher::new(), events: 0 }
    }

    pub(crate) fn add(&mut self, now: Instant, id: u64, payload: &[u8]) {
        self.events += 1;
        self.hasher.write_u64((now - self.start).as_nanos() as u64);
        self.hasher.write_u64(id);
        self.hasher.write_usize(payload.len());
        self.hasher.write(payload);
    }

    pub(crate) fn value(&self) -> u64 {
        self.hasher.finish()
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }
}
