//! From a key to the watchers that look at it: a hash table for single keys, a tree of intervals for
//! ranges. Iterates in the order of the watchers' names only, never in hash order.
//!
//! The tree is a treap ordered by range, each node knowing how far its subtree reaches. Expected
//! depth is logarithmic in the number of *distinct* ranges whatever clients watch, because the
//! priorities come from a seed they do not know.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::span::{End, Interest, Range, Span};

type Watchers<T> = BTreeMap<T, Interest>;

/// Watchers by what they look at; `T` names a watcher.
pub struct Index<T> {
    keys: HashMap<Bytes, Watchers<T>>,
    ranges: Link<T>,
    priorities: Priorities,
}

impl<T: Ord + Copy> Index<T> {
    /// An empty index; `seed` shapes the tree and nothing else.
    pub fn new(seed: u64) -> Self {
        Self { keys: HashMap::new(), ranges: None, priorities: Priorities(seed) }
    }

    /// Adds `watcher`, which must not be there under the same span.
    pub fn insert(&mut self, span: &Span, watcher: T, interest: Interest) {
        let watchers = match span {
            Span::Key(key) => self.keys.entry(key.clone()).or_default(),
            Span::Range(range) => {
                if find(&mut self.ranges, range).is_none() {
                    let node = Node::new(range.clone(), self.priorities.next());
                    insert(&mut self.ranges, node);
                }
                find(&mut self.ranges, range).expect("found or just inserted")
            }
        };
        let replaced = watchers.insert(watcher, interest);
        assert!(replaced.is_none(), "a watcher is added once");
    }

    /// Takes out `watcher`, which must be there under this span.
    pub fn remove(&mut self, span: &Span, watcher: T) {
        match span {
            Span::Key(key) => {
                let watchers = self.keys.get_mut(key).expect("the watcher was added");
                watchers.remove(&watcher).expect("the watcher was added");
                if watchers.is_empty() {
                    self.keys.remove(key);
                }
            }
            Span::Range(range) => {
                let watchers = find(&mut self.ranges, range).expect("the watcher was added");
                watchers.remove(&watcher).expect("the watcher was added");
                if watchers.is_empty() {
                    remove(&mut self.ranges, range);
                }
            }
        }
    }

    /// Calls `found` with every watcher whose span contains `key`.
    pub fn stab(&self, key: &[u8], mut found: impl FnMut(T, &Interest)) {
        let mut each = |watchers: &Watchers<T>| {
            for (watcher, interest) in watchers {
                found(*watcher, interest);
            }
            true
        };
        if let Some(watchers) = self.keys.get(key) {
            each(watchers);
        }
        stab(&self.ranges, key, &mut each);
    }

    /// Whether any watcher looks at `key`.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.keys.contains_key(key) || !stab(&self.ranges, key, &mut |_| false)
    }
}

/// SplitMix64: cheap, and enough to keep a treap balanced.
struct Priorities(u64);

impl Priorities {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

type Link<T> = Option<Box<Node<T>>>;

struct Node<T> {
    range: Range,
    watchers: Watchers<T>,
    /// No child has a higher one.
    priority: u64,
    /// The farthest end in this subtree.
    reach: End,
    left: Link<T>,
    right: Link<T>,
}

impl<T> Node<T> {
    fn new(range: Range, priority: u64) -> Box<Self> {
        let reach = range.end.clone();
        let watchers = Watchers::new();
        Box::new(Self { range, watchers, priority, reach, left: None, right: None })
    }

    fn refresh(&mut self) {
        let mut reach = &self.range.end;
        for child in [&self.left, &self.right].into_iter().flatten() {
            reach = reach.max(&child.reach);
        }
        self.reach = reach.clone();
    }
}

fn find<'a, T>(mut link: &'a mut Link<T>, range: &Range) -> Option<&'a mut Watchers<T>> {
    while let Some(node) = link {
        link = match range.cmp(&node.range) {
            std::cmp::Ordering::Less => &mut node.left,
            std::cmp::Ordering::Greater => &mut node.right,
            std::cmp::Ordering::Equal => return Some(&mut node.watchers),
        };
    }
    None
}

/// Adds a node whose range is not in the tree.
fn insert<T>(link: &mut Link<T>, mut new: Box<Node<T>>) {
    match link {
        Some(node) if node.priority >= new.priority => {
            let side = if new.range < node.range { &mut node.left } else { &mut node.right };
            insert(side, new);
            node.refresh();
        }
        _ => {
            (new.left, new.right) = split(link.take(), &new.range);
            new.refresh();
            *link = Some(new);
        }
    }
}

/// Takes out the node of a range that is in the tree.
fn remove<T>(link: &mut Link<T>, range: &Range) {
    let node = link.as_mut().expect("the range is in the tree");
    match range.cmp(&node.range) {
        std::cmp::Ordering::Less => remove(&mut node.left, range),
        std::cmp::Ordering::Greater => remove(&mut node.right, range),
        std::cmp::Ordering::Equal => {
            *link = merge(node.left.take(), node.right.take());
            return;
        }
    }
    node.refresh();
}

/// The nodes below `at`, and the others.
fn split<T>(link: Link<T>, at: &Range) -> (Link<T>, Link<T>) {
    let Some(mut node) = link else { return (None, None) };
    if node.range < *at {
        let (below, others) = split(node.right.take(), at);
        node.right = below;
        node.refresh();
        (Some(node), others)
    } else {
        let (below, others) = split(node.left.take(), at);
        node.left = others;
        node.refresh();
        (below, Some(node))
    }
}

/// One tree of two, every range of `left` below every range of `right`.
fn merge<T>(left: Link<T>, right: Link<T>) -> Link<T> {
    match (left, right) {
        (None, link) | (link, None) => link,
        (Some(mut low), Some(high)) if low.priority >= high.priority => {
            low.right = merge(low.right.take(), Some(high));
            low.refresh();
            Some(low)
        }
        (Some(low), Some(mut high)) => {
            high.left = merge(Some(low), high.left.take());
            high.refresh();
            Some(high)
        }
    }
}

/// Visits the ranges that contain `key` until `visit` returns false; returns whether it never did.
fn stab<T>(link: &Link<T>, key: &[u8], visit: &mut impl FnMut(&Watchers<T>) -> bool) -> bool {
    let Some(node) = link else { return true };
    if !node.reach.is_after(key) {
        return true;
    }
    if !stab(&node.left, key, visit) {
        return false;
    }
    if node.range.start[..] > *key {
        return true; // Everything to the right starts later still.
    }
    if node.range.end.is_after(key) && !visit(&node.watchers) {
        return false;
    }
    stab(&node.right, key, visit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn depth<T>(link: &Link<T>) -> usize {
        link.as_ref().map_or(0, |node| 1 + depth(&node.left).max(depth(&node.right)))
    }

    fn keys() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(0..3u8, 1..4).prop_map(Bytes::from)
    }

    fn spans() -> impl Strategy<Value = Span> {
        (keys(), prop_oneof![Just(Bytes::new()), keys()])
            .prop_filter_map("the range holds no key", |(key, end)| Span::new(key, end))
    }

    proptest! {
        /// Against a plain list: the same watchers for every key, after any additions and removals.
        #[test]
        fn finds_what_a_list_finds(
            seed: u64,
            steps in prop::collection::vec((any::<prop::sample::Index>(), spans(), 0..3u8), 1..60),
            probes in prop::collection::vec(keys(), 20),
        ) {
            let mut index = Index::new(seed);
            let mut list: Vec<(Span, usize)> = Vec::new();
            for (number, (pick, span, kind)) in steps.into_iter().enumerate() {
                if kind == 0 && !list.is_empty() {
                    let (span, watcher) = list.swap_remove(pick.index(list.len()));
                    index.remove(&span, watcher);
                } else {
                    index.insert(&span, number, Interest::default());
                    list.push((span, number));
                }
            }
            for key in probes {
                let mut found = Vec::new();
                index.stab(&key, |watcher, _| found.push(watcher));
                found.sort_unstable();
                let mut wanted: Vec<_> =
                    list.iter().filter(|(span, _)| span.contains(&key)).map(|(_, w)| *w).collect();
                wanted.sort_unstable();
                prop_assert_eq!(index.contains(&key), !wanted.is_empty());
                prop_assert_eq!(found, wanted);
            }
        }
    }

    #[test]
    fn stays_shallow_when_ranges_come_in_order() {
        let mut index = Index::new(1);
        for number in 0..4096u32 {
            let start = Bytes::copy_from_slice(&number.to_be_bytes());
            let span = Span::Range(Range { start, end: End::Open });
            index.insert(&span, number, Interest::default());
        }
        assert!(depth(&index.ranges) < 64, "depth {}", depth(&index.ranges));
    }
}
