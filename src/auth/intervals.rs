//! A set of keys as the union of intervals. Follows etcd's interval tree over "affine" byte strings
//! (3.7, `server/auth/range_perm_cache.go`, `pkg/adt`): a request for a range must be covered by the
//! union, however many grants it takes; one that ends before it begins is judged by its first key.

use bytes::Bytes;

/// `[begin, end)`; no end is behind every key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Interval {
    begin: Bytes,
    end: Option<Bytes>,
}

/// Intervals that neither overlap nor touch, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intervals(Vec<Interval>);

impl Intervals {
    /// The union of `(key, range_end)` as requests write them: no end is the one key, a zero byte is
    /// every key from `key` on. What is empty adds nothing.
    pub fn union<'a>(grants: impl Iterator<Item = (&'a Bytes, &'a Bytes)>) -> Self {
        let mut all: Vec<_> = grants.map(|(key, end)| Interval::new(key, end)).collect();
        all.retain(|interval| interval.reaches_behind(&interval.begin));
        all.sort_by(|a, b| a.begin.cmp(&b.begin));
        let mut merged: Vec<Interval> = Vec::new();
        for next in all {
            match merged.last_mut().filter(|last| last.touches(&next.begin)) {
                Some(last) => last.extend_to(next.end),
                None => merged.push(next),
            }
        }
        Self(merged)
    }

    /// Whether the one key is among them.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.around(key).is_some()
    }

    /// Whether every key of `[begin, end)` is; no end is every key from `begin` on.
    pub fn covers(&self, begin: &[u8], end: Option<&[u8]>) -> bool {
        self.around(begin).is_some_and(|interval| match (&interval.end, end) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(last), Some(end)) => end <= &last[..],
        })
    }

    fn around(&self, key: &[u8]) -> Option<&Interval> {
        let behind = self.0.partition_point(|interval| &interval.begin[..] <= key);
        let last = self.0.get(behind.checked_sub(1)?)?;
        last.reaches_behind(key).then_some(last)
    }
}

impl Interval {
    fn new(key: &Bytes, range_end: &Bytes) -> Self {
        let end = match &range_end[..] {
            [] => Some(Bytes::from([key, &b"\0"[..]].concat())),
            [0] => None,
            _ => Some(range_end.clone()),
        };
        Self { begin: key.clone(), end }
    }

    fn reaches_behind(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| key < &end[..])
    }

    fn touches(&self, begin: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| begin <= &end[..])
    }

    fn extend_to(&mut self, end: Option<Bytes>) {
        self.end = match (self.end.take(), end) {
            (Some(own), Some(end)) => Some(own.max(end)),
            _ => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Keys of a world small enough to try each.
    fn key() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(255)], 1..3)
            .prop_map(Bytes::from)
    }

    fn end() -> impl Strategy<Value = Bytes> {
        prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(b"\0")), key()]
    }

    /// What a grant or a request means, key by key.
    fn holds(range: &(Bytes, Bytes), key: &[u8]) -> bool {
        match &range.1[..] {
            [] => key == &range.0[..],
            [0] => key >= &range.0[..],
            end => key >= &range.0[..] && key < end,
        }
    }

    /// Every key of up to four bytes over the alphabet: enough to have one between any two bounds.
    fn world() -> Vec<Vec<u8>> {
        let mut keys = vec![Vec::new()];
        let mut from = 0;
        for _ in 0..4 {
            let until = keys.len();
            for at in from..until {
                for byte in [0, 1, 255] {
                    let mut longer = keys[at].clone();
                    longer.push(byte);
                    keys.push(longer);
                }
            }
            from = until;
        }
        keys.split_off(1)
    }

    proptest! {
        #[test]
        fn a_key_is_in_the_union_when_a_grant_holds_it(
            grants in proptest::collection::vec((key(), end()), 0..5),
        ) {
            let union = Intervals::union(grants.iter().map(|(key, end)| (key, end)));
            for key in world() {
                let held = grants.iter().any(|grant| holds(grant, &key));
                prop_assert_eq!(union.contains(&key), held, "{:?}", key);
            }
        }

        #[test]
        fn a_range_is_covered_when_all_its_keys_are(
            grants in proptest::collection::vec((key(), end()), 0..5),
            begin in key(),
            end in prop_oneof![Just(None), key().prop_map(Some)],
        ) {
            let union = Intervals::union(grants.iter().map(|(key, end)| (key, end)));
            let asked = (begin.clone(), end.clone().unwrap_or(Bytes::from_static(b"\0")));
            let mut inside = world();
            // A bound of one zero byte as an end is "no end" in a request, but not here.
            inside.retain(|key| match &end {
                Some(end) => key[..] >= begin[..] && key[..] < end[..],
                None => holds(&asked, key),
            });
            let covered = union.covers(&begin, end.as_deref());
            if inside.is_empty() {
                prop_assert_eq!(covered, union.contains(&begin));
            } else {
                // An open range is covered only if the last interval is open too.
                let open = end.is_some() || grants.iter().any(|(_, end)| end[..] == [0]);
                let all = inside.iter().all(|key| grants.iter().any(|grant| holds(grant, key)));
                prop_assert_eq!(covered, all && open, "{:?}", inside);
            }
        }
    }
}
