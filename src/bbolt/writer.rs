//! From sorted input to the bytes of a whole file: [`plan`] counts the pages, [`Plan::emit`] writes
//! them. No files and no sockets: the result is an iterator of chunks.
//!
//! The file has a real, empty freelist page, which bbolt in every version and with every option opens
//! without walking the whole file (it would have to for a file without a freelist).

use std::io;
use std::vec;

use bytes::{BufMut, Bytes, BytesMut};

use super::format::{
    BRANCH, ELEMENT_BYTES, HEADER_BYTES, Header, IS_BUCKET, LEAF, Meta, PAGE_BYTES, Pgid,
    encode_bucket, encode_empty_freelist,
};
use super::tree::{BranchElement, LeafElement, Sink, Tree};
use crate::limits::BBOLT_CHUNK_BYTES;

const FREELIST_PAGE: Pgid = 2;
const FIRST_TREE_PAGE: Pgid = 3;
/// Transaction id in meta page 0, which therefore counts; page 1 holds the one before. Even, because
/// bbolt writes transaction n to meta page n mod 2.
const TXID: u64 = 2;

/// What is to be written. Read twice, with the same result: a database snapshot.
pub trait Source {
    /// Names of the buckets, in any order.
    fn buckets(&self) -> io::Result<Vec<Bytes>>;
    /// Keys and values of one bucket, in ascending order of the keys.
    fn scan(&self, bucket: &Bytes) -> io::Result<Scan>;
}

/// What [`Source::scan`] returns. Owns what it needs of the source.
pub type Scan = Box<dyn Iterator<Item = io::Result<(Bytes, Bytes)>> + Send>;

impl<S: Source + ?Sized> Source for &S {
    fn buckets(&self) -> io::Result<Vec<Bytes>> {
        (**self).buckets()
    }

    fn scan(&self, bucket: &Bytes) -> io::Result<Scan> {
        (**self).scan(bucket)
    }
}

/// Where everything will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    root: Pgid,
    pages: u64,
}

/// The first pass: reads all of `source` to lay out the pages.
///
/// `InvalidInput` when bbolt cannot hold the input: an empty or too long key, keys that do not ascend,
/// a bucket twice. Errors of the source are passed on.
pub fn plan(source: &impl Source) -> io::Result<Plan> {
    let mut walk = Walk::new(source, Counter { next: FIRST_TREE_PAGE });
    loop {
        if let Some(root) = walk.step()? {
            return Ok(Plan { root, pages: walk.sink.next });
        }
    }
}

impl Plan {
    /// The exact size of the file.
    pub fn total_bytes(&self) -> u64 {
        self.pages * PAGE_BYTES as u64
    }

    /// The second pass: the file from front to back, in chunks of [`BBOLT_CHUNK_BYTES`] (the last one
    /// may be shorter). After an error there are no more chunks and the file is not valid; it is an
    /// error, too, if `source` does not give the rows again that it gave to [`plan`].
    pub fn emit<S: Source>(self, source: S) -> Emit<S> {
        let mut writer = PageWriter { next: FIRST_TREE_PAGE, out: BytesMut::new() };
        for id in 0..FREELIST_PAGE {
            let meta = Meta {
                page_bytes: PAGE_BYTES as u32,
                root: self.root,
                freelist: FREELIST_PAGE,
                high_water: self.pages,
                txid: TXID - id,
            };
            meta.encode(id, &mut writer.out);
        }
        encode_empty_freelist(FREELIST_PAGE, &mut writer.out);
        Emit { plan: self, walk: Some(Walk::new(source, writer)), rest: BytesMut::new() }
    }
}

/// The chunks of a file; see [`Plan::emit`].
pub struct Emit<S> {
    plan: Plan,
    /// `None` when all pages are made, or after an error.
    walk: Option<Walk<S, PageWriter>>,
    /// What was left to hand out when all pages were made.
    rest: BytesMut,
}

impl<S: Source> Emit<S> {
    /// Makes pages until there is a chunk of them or all are made.
    fn fill(&mut self) -> io::Result<()> {
        while let Some(walk) = &mut self.walk {
            if walk.sink.out.len() >= BBOLT_CHUNK_BYTES {
                return Ok(());
            }
            let root = walk.step()?;
            let finished = root.map(|root| Plan { root, pages: walk.sink.next });
            let agrees = finished.map_or(walk.sink.next <= self.plan.pages, |it| it == self.plan);
            if !agrees {
                return Err(io::Error::other("the source of a bbolt file changed between passes"));
            }
            if finished.is_some() {
                self.rest = std::mem::take(&mut walk.sink.out);
                self.walk = None;
            }
        }
        Ok(())
    }
}

impl<S: Source> Iterator for Emit<S> {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.fill() {
            self.walk = None;
            return Some(Err(error));
        }
        let out = self.walk.as_mut().map_or(&mut self.rest, |walk| &mut walk.sink.out);
        let chunk = out.split_to(out.len().min(BBOLT_CHUNK_BYTES));
        (!chunk.is_empty()).then(|| Ok(chunk.freeze()))
    }
}

/// One pass over the source, bucket after bucket and then the tree of buckets.
struct Walk<S, P> {
    source: S,
    sink: P,
    /// Buckets to come, in order of their names; `None` before the first step.
    names: Option<vec::IntoIter<Bytes>>,
    current: Option<(Bytes, Scan, Tree)>,
    buckets: Option<Tree>,
}

impl<S: Source, P: Sink> Walk<S, P> {
    fn new(source: S, sink: P) -> Self {
        Self { source, sink, names: None, current: None, buckets: Some(Tree::new()) }
    }

    /// Does the next bit of work; returns the root page after the last. Not to be called after that.
    fn step(&mut self) -> io::Result<Option<Pgid>> {
        if let Some((_, scan, tree)) = &mut self.current
            && let Some(item) = scan.next()
        {
            let (key, value) = item?;
            tree.push(LeafElement { flags: 0, key, value }, &mut self.sink)?;
            return Ok(None);
        }
        if let Some((name, _, tree)) = self.current.take() {
            let root = tree.finish(&mut self.sink);
            let header = LeafElement { flags: IS_BUCKET, key: name, value: bucket_header(root) };
            let buckets = self.buckets.as_mut().expect("finished only after the last bucket");
            buckets.push(header, &mut self.sink)?;
        }
        if self.names.is_none() {
            let mut names = self.source.buckets()?;
            names.sort_unstable();
            self.names = Some(names.into_iter());
        }
        if let Some(name) = self.names.as_mut().and_then(Iterator::next) {
            let scan = self.source.scan(&name)?;
            self.current = Some((name, scan, Tree::new()));
            return Ok(None);
        }
        let buckets = self.buckets.take().expect("the last step is done once");
        Ok(Some(buckets.finish(&mut self.sink)))
    }
}

fn bucket_header(root: Pgid) -> Bytes {
    let mut header = BytesMut::new();
    encode_bucket(root, &mut header);
    header.freeze()
}

fn pages_of(bytes: usize) -> u64 {
    bytes.div_ceil(PAGE_BYTES) as u64
}

/// Numbers pages.
struct Counter {
    next: Pgid,
}

impl Counter {
    fn take(&mut self, bytes: usize) -> Pgid {
        let id = self.next;
        self.next += pages_of(bytes);
        id
    }
}

impl Sink for Counter {
    fn leaf(&mut self, _: &[LeafElement], bytes: usize) -> Pgid {
        self.take(bytes)
    }

    fn branch(&mut self, _: &[BranchElement], bytes: usize) -> Pgid {
        self.take(bytes)
    }
}

/// Numbers pages and writes them.
struct PageWriter {
    next: Pgid,
    /// Bytes not yet handed out: at most a chunk and one page with its overflow.
    out: BytesMut,
}

impl PageWriter {
    fn begin(&mut self, flags: u16, count: usize, bytes: usize) -> Pgid {
        let id = self.next;
        let pages = pages_of(bytes);
        self.next += pages;
        self.out.reserve(pages as usize * PAGE_BYTES);
        let count = u16::try_from(count).expect("a page of this size has fewer elements");
        let overflow = u32::try_from(pages - 1).expect("two values are below 2^32 pages");
        Header { id, flags, count, overflow }.encode(&mut self.out);
        id
    }

    fn end(&mut self, bytes: usize) {
        self.out.put_bytes(0, bytes.next_multiple_of(PAGE_BYTES) - bytes);
    }
}

impl Sink for PageWriter {
    fn leaf(&mut self, elements: &[LeafElement], bytes: usize) -> Pgid {
        let id = self.begin(LEAF, elements.len(), bytes);
        // An element's position counts from the element itself to its key; the value follows the key.
        let mut pos = elements.len() * ELEMENT_BYTES;
        for element in elements {
            self.out.put_u32_le(element.flags);
            self.out.put_u32_le(pos as u32);
            self.out.put_u32_le(element.key.len() as u32);
            self.out.put_u32_le(element.value.len() as u32);
            pos = pos + element.key.len() + element.value.len() - ELEMENT_BYTES;
        }
        for element in elements {
            self.out.put_slice(&element.key);
            self.out.put_slice(&element.value);
        }
        self.end(bytes);
        id
    }

    fn branch(&mut self, elements: &[BranchElement], bytes: usize) -> Pgid {
        let id = self.begin(BRANCH, elements.len(), bytes);
        let mut pos = elements.len() * ELEMENT_BYTES;
        for element in elements {
            self.out.put_u32_le(pos as u32);
            self.out.put_u32_le(element.key.len() as u32);
            self.out.put_u64_le(element.child);
            pos = pos + element.key.len() - ELEMENT_BYTES;
        }
        for element in elements {
            self.out.put_slice(&element.key);
        }
        self.end(bytes);
        id
    }
}

const _: () = assert!(BBOLT_CHUNK_BYTES >= PAGE_BYTES && HEADER_BYTES == ELEMENT_BYTES);
