//! What foreign bytes reach here, for fuzzing.

use bytes::Bytes;

use super::index::Index;
use super::span::{Interest, Span};

/// Watchers by number, as the hub finds them.
pub struct Watchers(Index<u64>);

impl Watchers {
    pub fn new(seed: u64) -> Self {
        Self(Index::new(seed))
    }

    /// Adds a watcher; false for a range that holds no key.
    pub fn add(&mut self, key: Bytes, range_end: Bytes, watcher: u64) -> bool {
        let Some(span) = Span::new(key, range_end) else { return false };
        self.0.insert(&span, watcher, Interest::default());
        true
    }

    /// Takes out a watcher that was added with this range.
    pub fn remove(&mut self, key: Bytes, range_end: Bytes, watcher: u64) {
        let span = Span::new(key, range_end).expect("it was added");
        self.0.remove(&span, watcher);
    }

    /// The watchers of a key, in order.
    pub fn look(&self, key: &[u8]) -> Vec<u64> {
        let mut found = Vec::new();
        self.0.stab(key, |watcher, _| found.push(watcher));
        assert_eq!(self.0.contains(key), !found.is_empty());
        found.sort_unstable();
        found
    }
}
