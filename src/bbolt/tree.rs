//! Turns sorted keys into the pages of one B+tree, in the order in which they stand in the file: each
//! branch page behind its children, the root last. Holds one unfinished page per level and nothing
//! else. What becomes of a page is the [`Sink`]'s business: to be counted or to be written.

use std::io;

use bytes::Bytes;

use super::format::{
    ELEMENT_BYTES, HEADER_BYTES, KEY_BYTES_MAX, PAGE_BYTES, Pgid, VALUE_BYTES_MAX,
};

/// Keys that a page takes even if they need overflow pages, as bbolt has it when it splits a page.
const KEYS_PER_PAGE_MIN: usize = 2;

/// One element of a leaf page.
#[derive(Debug)]
pub struct LeafElement {
    pub flags: u32,
    pub key: Bytes,
    pub value: Bytes,
}

/// One element of a branch page: all keys of `child` are at or above `key`.
#[derive(Debug)]
pub struct BranchElement {
    pub key: Bytes,
    pub child: Pgid,
}

/// Takes finished pages in file order and gives them their numbers.
pub trait Sink {
    /// `bytes` is what the page needs, header included, before it is filled up to whole pages.
    fn leaf(&mut self, elements: &[LeafElement], bytes: usize) -> Pgid;
    fn branch(&mut self, elements: &[BranchElement], bytes: usize) -> Pgid;
}

/// One tree on its way to a sink.
#[derive(Debug)]
pub struct Tree {
    leaf: Vec<LeafElement>,
    leaf_bytes: usize,
    /// Branch levels, the one above the leaves first. The top one has finished no page yet.
    levels: Vec<Level>,
    last_key: Option<Bytes>,
}

impl Tree {
    pub fn new() -> Self {
        Self { leaf: Vec::new(), leaf_bytes: HEADER_BYTES, levels: Vec::new(), last_key: None }
    }

    /// Adds the next key. `InvalidInput` when it is not above the one before or bbolt cannot hold it.
    pub fn push(&mut self, element: LeafElement, sink: &mut impl Sink) -> io::Result<()> {
        self.check(&element)?;
        let bytes = ELEMENT_BYTES + element.key.len() + element.value.len();
        if self.leaf.len() >= KEYS_PER_PAGE_MIN && self.leaf_bytes + bytes > PAGE_BYTES {
            self.finish_leaf(sink);
        }
        self.last_key = Some(element.key.clone());
        self.leaf.push(element);
        self.leaf_bytes += bytes;
        Ok(())
    }

    /// Finishes the tree and returns its root page. Without a key that is an empty leaf.
    pub fn finish(mut self, sink: &mut impl Sink) -> Pgid {
        if self.levels.is_empty() {
            return sink.leaf(&self.leaf, self.leaf_bytes);
        }
        if !self.leaf.is_empty() {
            self.finish_leaf(sink);
        }
        // Each round hands the rest of one level up; the top level is reached when one child is left.
        for level in 0.. {
            if let [root] = self.levels[level].elements.as_slice() {
                assert_eq!(level + 1, self.levels.len(), "a branch page was left with one child");
                return root.child;
            }
            let mut finished = Vec::new();
            self.levels[level].finish(sink, &mut finished);
            for element in finished {
                self.push_branch(level + 1, element, sink);
            }
        }
        unreachable!("each level has fewer elements than the one below")
    }

    fn check(&self, element: &LeafElement) -> io::Result<()> {
        let complaint = if element.key.is_empty() {
            "an empty key"
        } else if element.key.len() > KEY_BYTES_MAX {
            "a key over 32768 bytes"
        } else if element.value.len() > VALUE_BYTES_MAX {
            "a value over 2 GiB"
        } else if self.last_key.as_ref().is_some_and(|last| *last >= element.key) {
            "a key that is not above the one before"
        } else {
            return Ok(());
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("bbolt cannot hold {complaint}")))
    }

    fn finish_leaf(&mut self, sink: &mut impl Sink) {
        let child = sink.leaf(&self.leaf, self.leaf_bytes);
        // A copy: the key may be a small part of a large buffer, which it would keep alive.
        let key = Bytes::copy_from_slice(&self.leaf[0].key);
        self.leaf.clear();
        self.leaf_bytes = HEADER_BYTES;
        self.push_branch(0, BranchElement { key, child }, sink);
    }

    fn push_branch(&mut self, level: usize, element: BranchElement, sink: &mut impl Sink) {
        if level == self.levels.len() {
            self.levels.push(Level::default());
        }
        if let Some(finished) = self.levels[level].push(element, sink) {
            self.push_branch(level + 1, finished, sink);
        }
    }
}

/// The branch page under way on one level, and the beginning of the next.
///
/// A full page is held back until two more children are there, because a page with one child only
/// could otherwise be left at the end.
#[derive(Debug, Default)]
struct Level {
    elements: Vec<BranchElement>,
    /// Elements that fill a page, once there are more.
    full: Option<usize>,
}

impl Level {
    /// Adds a child; returns the element for the level above if that finished a page.
    fn push(&mut self, element: BranchElement, sink: &mut impl Sink) -> Option<BranchElement> {
        self.elements.push(element);
        let count = self.elements.len();
        if self.full.is_none()
            && count > KEYS_PER_PAGE_MIN
            && branch_bytes(&self.elements) > PAGE_BYTES
        {
            self.full = Some(count - 1);
        }
        let full = self.full.filter(|full| full + KEYS_PER_PAGE_MIN == count)?;
        self.full = None;
        Some(self.finish_page(full, sink))
    }

    /// Finishes what is left, two children or more, as one page or two.
    fn finish(&mut self, sink: &mut impl Sink, finished: &mut Vec<BranchElement>) {
        let count = self.elements.len();
        if self.full.take().is_some() && count >= 2 * KEYS_PER_PAGE_MIN {
            finished.push(self.finish_page(count / 2, sink));
        }
        finished.push(self.finish_page(self.elements.len(), sink));
    }

    fn finish_page(&mut self, count: usize, sink: &mut impl Sink) -> BranchElement {
        let page: Vec<_> = self.elements.drain(..count).collect();
        let child = sink.branch(&page, branch_bytes(&page));
        BranchElement { key: page[0].key.clone(), child }
    }
}

fn branch_bytes(elements: &[BranchElement]) -> usize {
    HEADER_BYTES + elements.iter().map(|element| ELEMENT_BYTES + element.key.len()).sum::<usize>()
}
