//! Walks one tree in key order. Holds one page per level.

use std::io;

use bytes::Bytes;

use super::format::Pgid;
use super::page::{Kind, Page, Pages};

/// Levels that a tree may have. With two children a page, the fewest, that is more pages than a file
/// can have.
const LEVELS_MAX: usize = 64;

/// Stands before an element of one tree, or at its end.
pub struct Cursor {
    pages: Pages,
    /// From the root to a leaf, with the index of the element that the cursor stands before.
    stack: Vec<(Page, usize)>,
    /// Pages loaded so far: a sound tree is walked without loading a page twice.
    loaded: u64,
}

/// An element of a leaf.
pub struct Element {
    pub key: Bytes,
    pub value: Bytes,
    pub is_bucket: bool,
}

/// The root of a tree.
pub enum Root {
    Page(Pgid),
    Inline(Page),
}

impl Cursor {
    /// Stands before the first key at or above `key`.
    pub fn seek(pages: Pages, root: Root, key: &[u8]) -> io::Result<Self> {
        let mut cursor = Self { pages, stack: Vec::new(), loaded: 0 };
        let mut page = match root {
            Root::Page(id) => cursor.load(id)?,
            Root::Inline(page) => page,
        };
        loop {
            let below = page.lower_bound(key)?;
            if page.kind == Kind::Leaf {
                cursor.stack.push((page, below));
                return Ok(cursor);
            }
            // The child to search is the last one whose first key is not above `key`.
            let exact = below < page.count && *page.key(below)? == *key;
            let index = if exact { below } else { below.saturating_sub(1) };
            let child = page.child(index);
            cursor.stack.push((page, index));
            page = cursor.load(child)?;
        }
    }

    /// The next element. After an error the cursor is of no use.
    pub fn next(&mut self) -> io::Result<Option<Element>> {
        while let Some((page, index)) = self.stack.last_mut() {
            if *index >= page.count {
                self.stack.pop();
                if let Some((_, parent)) = self.stack.last_mut() {
                    *parent += 1;
                }
            } else if page.kind == Kind::Branch {
                let child = page.child(*index);
                let child = self.load(child)?;
                self.stack.push((child, 0));
            } else {
                let at = *index;
                *index += 1;
                return Ok(Some(Element {
                    key: page.key(at)?,
                    value: page.value(at)?,
                    is_bucket: page.is_bucket(at),
                }));
            }
        }
        Ok(None)
    }

    /// The page that [`Self::next`] read the last element from.
    pub fn page(&self) -> &Page {
        let (page, _) = self.stack.last().expect("the leaf stays until the next element is read");
        page
    }

    fn load(&mut self, id: Pgid) -> io::Result<Page> {
        let page = self.pages.load(id)?;
        self.loaded += 1;
        if self.loaded > self.pages.meta.high_water || self.stack.len() >= LEVELS_MAX {
            return Err(page.corrupt("a tree that leads back to itself"));
        }
        Ok(page)
    }
}

/// Keys and values of one bucket in ascending order. Ends after an error.
///
/// A bucket inside a bucket is an error: etcd has none, and to skip it would lose data silently.
pub struct Iter {
    cursor: Option<Cursor>,
    last_key: Bytes,
}

impl Iter {
    pub(super) fn new(cursor: Cursor) -> Self {
        Self { cursor: Some(cursor), last_key: Bytes::new() }
    }

    fn step(&mut self) -> io::Result<Option<(Bytes, Bytes)>> {
        let Some(cursor) = &mut self.cursor else { return Ok(None) };
        let Some(element) = cursor.next()? else { return Ok(None) };
        if element.is_bucket {
            return Err(cursor.page().corrupt("a bucket inside a bucket"));
        }
        // Keys are never empty, so the first one passes.
        if element.key <= self.last_key {
            return Err(cursor.page().corrupt("keys do not ascend"));
        }
        self.last_key = element.key.clone();
        Ok(Some((element.key, element.value)))
    }
}

impl Iterator for Iter {
    type Item = io::Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.step().transpose();
        if !matches!(result, Some(Ok(_))) {
            self.cursor = None;
        }
        result
    }
}
