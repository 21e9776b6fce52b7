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
    /// From the root to a leaf.
    stack: Vec<Level>,
    /// Pages loaded so far: a sound tree is walked without loading a page twice.
    loaded: u64,
}

/// A page of the path.
struct Level {
    page: Page,
    /// The element that the cursor stands before.
    index: usize,
    /// All keys of the page are below this.
    below: Option<Bytes>,
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
        match root {
            Root::Page(id) => cursor.enter(id, None, None)?,
            Root::Inline(page) => cursor.push(page, None, None)?,
        }
        loop {
            let Level { page, index, .. } = cursor.deepest();
            let at_or_above = page.lower_bound(key)?;
            if page.kind == Kind::Leaf {
                *index = at_or_above;
                return Ok(cursor);
            }
            // The child to search is the last one whose first key is not above `key`.
            let exact = at_or_above < page.count && *page.key(at_or_above)? == *key;
            *index = if exact { at_or_above } else { at_or_above.saturating_sub(1) };
            cursor.descend()?;
        }
    }

    /// The next element. After an error the cursor is of no use.
    pub fn next(&mut self) -> io::Result<Option<Element>> {
        while let Some(Level { page, index, .. }) = self.stack.last_mut() {
            if *index >= page.count {
                self.stack.pop();
                if let Some(parent) = self.stack.last_mut() {
                    parent.index += 1;
                }
            } else if page.kind == Kind::Branch {
                self.descend()?;
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
        &self.stack.last().expect("the leaf stays until the next element is read").page
    }

    fn deepest(&mut self) -> &mut Level {
        self.stack.last_mut().expect("a tree has a root, which stays until its end")
    }

    /// Enters the child that the deepest page, a branch, stands before.
    fn descend(&mut self) -> io::Result<()> {
        let Level { page, index, below } = self.deepest();
        let (child, from) = (page.child(*index), page.key(*index)?);
        let to = if *index + 1 < page.count { Some(page.key(*index + 1)?) } else { below.clone() };
        self.enter(child, Some(from), to)
    }

    fn enter(&mut self, id: Pgid, from: Option<Bytes>, below: Option<Bytes>) -> io::Result<()> {
        let page = self.pages.load(id)?;
        self.loaded += 1;
        if self.loaded > self.pages.meta.high_water || self.stack.len() >= LEVELS_MAX {
            return Err(page.corrupt("a tree that leads back to itself"));
        }
        self.push(page, from, below)
    }

    /// Checks that the keys of a page ascend within the bounds that its parent gives: then a search
    /// finds what a walk shows, in a damaged file too.
    fn push(&mut self, page: Page, from: Option<Bytes>, below: Option<Bytes>) -> io::Result<()> {
        let mut last = from;
        for index in 0..page.count {
            let key = page.key(index)?;
            // The first key of a page may be the one that its parent has for it.
            let ascends = last.is_none_or(|last| last < key || index == 0 && last == key);
            if !ascends || below.as_ref().is_some_and(|below| key >= *below) {
                return Err(page.corrupt("keys do not ascend"));
            }
            last = Some(key);
        }
        self.stack.push(Level { page, index: 0, below });
        Ok(())
    }
}

/// Keys and values of one bucket in ascending order. Ends after an error.
///
/// A bucket inside a bucket is an error: etcd has none, and to skip it would lose data silently.
pub struct Iter {
    cursor: Option<Cursor>,
}

impl Iter {
    pub(super) fn new(cursor: Cursor) -> Self {
        Self { cursor: Some(cursor) }
    }

    fn step(&mut self) -> io::Result<Option<(Bytes, Bytes)>> {
        let Some(cursor) = &mut self.cursor else { return Ok(None) };
        let Some(element) = cursor.next()? else { return Ok(None) };
        if element.is_bucket {
            return Err(cursor.page().corrupt("a bucket inside a bucket"));
        }
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
