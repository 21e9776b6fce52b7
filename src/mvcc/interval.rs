//! The keys that a request addresses. Follows etcd's reading of `key` and `range_end`.

use bytes::Bytes;

/// One key, or a half-open interval of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    start: Bytes,
    end: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// The key alone.
    Single,
    /// This key and everything behind it.
    Open,
    Before(Bytes),
}

impl KeyRange {
    /// As in requests: no `range_end` is the one key, `"\0"` is every key from `key` on, otherwise
    /// `[key, range_end)`, which is empty when the end is not behind the start.
    pub fn new(key: &Bytes, range_end: &Bytes) -> Self {
        let end = match &range_end[..] {
            [] => End::Single,
            [0] => End::Open,
            _ => End::Before(range_end.clone()),
        };
        Self { start: key.clone(), end }
    }

    /// Every key.
    pub fn all() -> Self {
        Self { start: Bytes::new(), end: End::Open }
    }

    /// From `start` on, up to `end` if there is one.
    pub(super) fn between(start: Bytes, end: Option<Bytes>) -> Self {
        Self { start, end: end.map_or(End::Open, End::Before) }
    }

    /// The part of an interval before `end`, which lies in it.
    pub(super) fn until(&self, end: Bytes) -> Self {
        Self { start: self.start.clone(), end: End::Before(end) }
    }

    /// The part of an interval from `start` on, which lies in it.
    pub(super) fn from(&self, start: Bytes) -> Self {
        Self { start, end: self.end.clone() }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Single => key == self.start,
            End::Open => key >= &self.start[..],
            End::Before(end) => key >= &self.start[..] && key < &end[..],
        }
    }

    /// The key, when the range is a single one.
    pub fn single(&self) -> Option<&Bytes> {
        (self.end == End::Single).then_some(&self.start)
    }

    /// Where it begins.
    pub fn lower(&self) -> &[u8] {
        &self.start
    }

    /// What it ends before; none when it is open. Not meant for single keys.
    pub fn upper(&self) -> Option<&[u8]> {
        match &self.end {
            End::Before(end) => Some(end),
            End::Single | End::Open => None,
        }
    }
}
