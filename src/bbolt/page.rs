//! One tree page as the reader sees it: where its elements are, checked before use. No B+tree.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::format::{
    BRANCH, BUCKET_BYTES, Corrupt, ELEMENT_BYTES, HEADER_BYTES, Header, IS_BUCKET, KEY_BYTES_MAX,
    LEAF, Meta, Pgid, u32_at, u64_at,
};
use crate::env::File;

/// The file and its meta record: enough to load any page.
#[derive(Clone)]
pub struct Pages {
    pub file: Arc<dyn File>,
    pub meta: Meta,
}

impl Pages {
    /// Reads the first page of leaf or branch page `id`, and its table of elements if that is longer.
    /// What lies in overflow pages is read on demand.
    pub fn load(&self, id: Pgid) -> io::Result<Page> {
        let wrong = |what| Corrupt::Page { page: id, what };
        if id < 2 || id >= self.meta.high_water {
            return Err(wrong("outside of the file").into());
        }
        let page_bytes = u64::from(self.meta.page_bytes);
        // In range: the database is open, so high water mark times page size is within the file.
        let base = id * page_bytes;
        let mut head = self.read(base, page_bytes as usize)?;
        let header = Header::decode(&head);
        if header.id != id {
            return Err(wrong("says that it is another page").into());
        }
        if u64::from(header.overflow) >= self.meta.high_water - id {
            return Err(wrong("runs out of the file").into());
        }
        let extent = (u64::from(header.overflow) + 1) * page_bytes;
        let table = HEADER_BYTES + usize::from(header.count) * ELEMENT_BYTES;
        if table as u64 > extent {
            return Err(wrong("has more elements than room").into());
        }
        if table > head.len() {
            head = self.read(base, table)?;
        }
        Page::new(id, header, head, Body::Overflow { pages: self.clone(), base, extent })
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; len];
        let read = self.file.read_at(&mut bytes, offset)?;
        if read < len {
            return Err(
                Corrupt::Short { len: offset + read as u64, need: offset + len as u64 }.into()
            );
        }
        Ok(bytes.into())
    }
}

/// The two kinds of tree page.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    Leaf,
    Branch,
}

/// A loaded page.
pub struct Page {
    id: Pgid,
    pub kind: Kind,
    pub count: usize,
    /// The beginning, with all of the table of elements.
    head: Bytes,
    body: Body,
}

/// What is behind the head.
enum Body {
    /// Nothing: the page is part of its bucket's header.
    Inline,
    Overflow {
        pages: Pages,
        base: u64,
        extent: u64,
    },
}

/// Where key and value of an element are, from the start of the page.
struct Place {
    key: u64,
    key_len: usize,
    value_len: usize,
}

impl Page {
    /// The page inside the value of a small bucket's header, which stands in page `holder`.
    pub fn inline(holder: Pgid, header_value: &Bytes) -> io::Result<Self> {
        let wrong = |what| Corrupt::Page { page: holder, what };
        if header_value.len() < BUCKET_BYTES + HEADER_BYTES {
            return Err(wrong("an inline bucket is too short").into());
        }
        let head = header_value.slice(BUCKET_BYTES..);
        let header = Header::decode(&head);
        let table = HEADER_BYTES + usize::from(header.count) * ELEMENT_BYTES;
        if header.flags != LEAF || table > head.len() {
            return Err(wrong("an inline bucket is not a leaf page").into());
        }
        Self::new(holder, header, head, Body::Inline)
    }

    fn new(id: Pgid, header: Header, head: Bytes, body: Body) -> io::Result<Self> {
        let kind = match header.flags {
            LEAF => Kind::Leaf,
            BRANCH => Kind::Branch,
            _ => return Err(Corrupt::Page { page: id, what: "neither leaf nor branch" }.into()),
        };
        if kind == Kind::Branch && header.count == 0 {
            return Err(Corrupt::Page { page: id, what: "a branch page without children" }.into());
        }
        Ok(Self { id, kind, count: usize::from(header.count), head, body })
    }

    pub fn key(&self, index: usize) -> io::Result<Bytes> {
        let place = self.place(index)?;
        self.slice(place.key, place.key_len)
    }

    /// The value of a leaf's element.
    pub fn value(&self, index: usize) -> io::Result<Bytes> {
        let place = self.place(index)?;
        self.slice(place.key + place.key_len as u64, place.value_len)
    }

    /// Whether the value of a leaf's element is a bucket header.
    pub fn is_bucket(&self, index: usize) -> bool {
        u32_at(&self.head, element_at(index)) & IS_BUCKET != 0
    }

    /// The page that a branch's element points to.
    pub fn child(&self, index: usize) -> Pgid {
        u64_at(&self.head, element_at(index) + 8)
    }

    /// The number of elements whose keys are below `key`, if the keys ascend.
    pub fn lower_bound(&self, key: &[u8]) -> io::Result<usize> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if *self.key(middle)? < *key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The page's number; for an inline page that of the page it stands in.
    pub fn id(&self) -> Pgid {
        self.id
    }

    pub fn corrupt(&self, what: &'static str) -> io::Error {
        Corrupt::Page { page: self.id, what }.into()
    }

    fn place(&self, index: usize) -> io::Result<Place> {
        assert!(index < self.count, "an element that the page does not have");
        let at = element_at(index);
        let (pos, key_len, value_len) = match self.kind {
            Kind::Leaf => (
                u32_at(&self.head, at + 4),
                u32_at(&self.head, at + 8),
                u32_at(&self.head, at + 12),
            ),
            Kind::Branch => (u32_at(&self.head, at), u32_at(&self.head, at + 4), 0),
        };
        // Sums of a few u32: no overflow in u64.
        let key = at as u64 + u64::from(pos);
        let end = key + u64::from(key_len) + u64::from(value_len);
        if key < element_at(self.count) as u64 || end > self.extent() {
            return Err(self.corrupt("an element lies outside of its page"));
        }
        let (key_len, value_len) = (key_len as usize, value_len as usize);
        if key_len == 0 || key_len > KEY_BYTES_MAX {
            return Err(self.corrupt("a key of an impossible length"));
        }
        Ok(Place { key, key_len, value_len })
    }

    fn extent(&self) -> u64 {
        match &self.body {
            Body::Inline => self.head.len() as u64,
            Body::Overflow { extent, .. } => *extent,
        }
    }

    /// Bytes that [`Self::place`] found to be inside the page.
    fn slice(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let end = offset + len as u64;
        match &self.body {
            Body::Overflow { pages, base, .. } if end > self.head.len() as u64 => {
                pages.read(base + offset, len)
            }
            _ => Ok(self.head.slice(offset as usize..end as usize)),
        }
    }
}

fn element_at(index: usize) -> usize {
    HEADER_BYTES + index * ELEMENT_BYTES
}
