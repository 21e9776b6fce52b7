//! What a watcher looks at: the keys and the kinds of event. Nothing here knows where events come
//! from or go to.

use bytes::Bytes;
use quorate_proto::mvccpb::{Event, event::EventType};

use crate::plant;
use crate::types::Revision;

/// Where a range of keys ends. Ordered by how far it reaches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Just before this key.
    Before(Bytes),
    /// Nowhere: every key from the start on.
    Open,
}

impl End {
    /// Whether `key` lies before this end.
    pub fn is_after(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < &end[..],
            Self::Open => true,
        }
    }
}

/// The keys from `start` up to `end`. Ordered by start, so that an ordered structure of ranges can
/// be cut off early.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    pub start: Bytes,
    pub end: End,
}

#[cfg(test)]
impl Range {
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start[..] <= *key && self.end.is_after(key)
    }
}

/// The keys of one watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    Key(Bytes),
    Range(Range),
}

impl Span {
    /// Reads etcd's convention: an empty `range_end` means the one key, a zero byte means every key
    /// from `key` on. `None` when the range holds no key.
    pub fn new(key: Bytes, range_end: Bytes) -> Option<Self> {
        if range_end.is_empty() {
            return Some(Self::Key(key));
        }
        if range_end[..] == [0] && plant::OPEN_WATCH_SEES_ONE_KEY.is_planted() {
            return Some(Self::Key(key));
        }
        if range_end[..] == [0] {
            return Some(Self::Range(Range { start: key, end: End::Open }));
        }
        (key < range_end).then_some(Self::Range(Range { start: key, end: End::Before(range_end) }))
    }

    /// Whether any of its keys lies between these two, or is one of them.
    pub fn meets(&self, first: &[u8], last: &[u8]) -> bool {
        match self {
            Self::Key(own) => first <= &own[..] && &own[..] <= last,
            Self::Range(range) => range.start[..] <= *last && range.end.is_after(first),
        }
    }

    #[cfg(test)]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(own) => own == key,
            Self::Range(range) => range.contains(key),
        }
    }
}

/// Which events on its keys a watcher takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Events below are not for this watcher: it has them, or never wanted them.
    pub from: Revision,
    pub no_put: bool,
    pub no_delete: bool,
}

impl Interest {
    pub fn takes(&self, revision: Revision, event: &Event) -> bool {
        let filtered =
            if event.r#type == EventType::Delete as i32 { self.no_delete } else { self.no_put };
        revision >= self.from && !filtered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(key: &'static str, end: &'static str) -> Option<Span> {
        Span::new(Bytes::from_static(key.as_bytes()), Bytes::from_static(end.as_bytes()))
    }

    #[test]
    fn reads_the_three_conventions() {
        let one = span("b", "").expect("one key");
        assert!(one.contains(b"b") && !one.contains(b"bb") && !one.contains(b"a"));
        let range = span("b", "d").expect("a range");
        assert!(range.contains(b"b") && range.contains(b"cz"));
        assert!(!range.contains(b"d") && !range.contains(b"a"));
        let open = span("b", "\0").expect("an open range");
        assert!(open.contains(b"b") && open.contains(b"\xff\xff") && !open.contains(b"a"));
        let all = span("\0", "\0").expect("every key");
        assert!(all.contains(b"\0") && all.contains(b"a"));
    }

    #[test]
    fn meets_keys_between_two() {
        let meets = |key, end, first: &str, last: &str| {
            span(key, end).expect("keys").meets(first.as_bytes(), last.as_bytes())
        };
        assert!(meets("b", "", "b", "c") && meets("b", "", "a", "b"));
        assert!(!meets("b", "", "ba", "c") && !meets("b", "", "a", "az"));
        assert!(meets("b", "d", "a", "b") && meets("b", "d", "cz", "x"));
        assert!(!meets("b", "d", "d", "x") && !meets("b", "d", "a", "az"));
        assert!(meets("b", "\0", "x", "y") && !meets("b", "\0", "a", "az"));
    }

    #[test]
    fn refuses_ranges_that_hold_no_key() {
        assert_eq!(span("b", "b"), None);
        assert_eq!(span("c", "b"), None);
    }
}
