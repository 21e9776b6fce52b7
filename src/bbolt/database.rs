//! Opens a file, finds the meta page that counts, finds buckets. Reads only; does not lock: the file
//! must not change meanwhile.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::cursor::{Cursor, Element, Iter, Root};
use super::format::{
    BUCKET_BYTES, Corrupt, HEADER_BYTES, META_BYTES, Meta, PAGE_BYTES_MAX, PAGE_BYTES_MIN, u64_at,
};
use super::page::{Page, Pages};
use super::writer::{Scan, Source};
use crate::env::File;

/// An open file. Cheap to clone; keeps nothing in memory but the meta record.
///
/// Every method blocks on the file, and fails with `InvalidData` and a [`Corrupt`] inside when the
/// file is damaged.
#[derive(Clone)]
pub struct Database {
    pages: Pages,
}

impl Database {
    /// Opens the state of the last transaction: of the valid meta pages the one with the higher
    /// transaction id. Bytes behind the last page in use, such as a [`super::Seal`], do not matter.
    pub fn open(file: Box<dyn File>) -> io::Result<Self> {
        let file: Arc<dyn File> = file.into();
        let meta = newest_meta(&*file)?;
        let len = file.len()?;
        let need = meta.high_water.saturating_mul(u64::from(meta.page_bytes));
        if len < need {
            return Err(Corrupt::Short { len, need }.into());
        }
        Ok(Self { pages: Pages { file, meta } })
    }

    /// Bytes of the file that are in use, from its beginning.
    pub fn used_bytes(&self) -> u64 {
        self.pages.meta.high_water * u64::from(self.pages.meta.page_bytes)
    }

    /// Names of the buckets, ascending.
    pub fn buckets(&self) -> io::Result<Vec<Bytes>> {
        let mut cursor = self.seek_bucket(&[])?;
        let mut names: Vec<Bytes> = Vec::new();
        while let Some(Element { key, is_bucket, .. }) = cursor.next()? {
            if !is_bucket {
                return Err(cursor.page().corrupt("a key outside of any bucket"));
            }
            names.push(key);
        }
        Ok(names)
    }

    /// Keys and values of `bucket`; none if there is no such bucket.
    pub fn iter(&self, bucket: &[u8]) -> io::Result<Option<Iter>> {
        self.iter_from(bucket, &[])
    }

    /// As [`Self::iter`], from the first key at or above `key`.
    pub fn iter_from(&self, bucket: &[u8], key: &[u8]) -> io::Result<Option<Iter>> {
        let Some(root) = self.root(bucket)? else { return Ok(None) };
        Cursor::seek(self.pages.clone(), root, key).map(|cursor| Some(Iter::new(cursor)))
    }

    /// The value of `key` in `bucket`, if there are such.
    pub fn get(&self, bucket: &[u8], key: &[u8]) -> io::Result<Option<Bytes>> {
        let Some(root) = self.root(bucket)? else { return Ok(None) };
        let element = Cursor::seek(self.pages.clone(), root, key)?.next()?;
        Ok(element.filter(|it| it.key == key && !it.is_bucket).map(|it| it.value))
    }

    /// The root of the tree of `bucket`.
    fn root(&self, bucket: &[u8]) -> io::Result<Option<Root>> {
        let mut cursor = self.seek_bucket(bucket)?;
        let Some(element) = cursor.next()?.filter(|it| it.key == bucket) else { return Ok(None) };
        if !element.is_bucket || element.value.len() < BUCKET_BYTES {
            return Err(cursor.page().corrupt("not a bucket header"));
        }
        let holder = cursor.page().id();
        match u64_at(&element.value, 0) {
            0 => Ok(Some(Root::Inline(Page::inline(holder, &element.value)?))),
            root => Ok(Some(Root::Page(root))),
        }
    }

    fn seek_bucket(&self, name: &[u8]) -> io::Result<Cursor> {
        Cursor::seek(self.pages.clone(), Root::Page(self.pages.meta.root), name)
    }
}

/// An open file is a source for a new one, which has no free pages: a compacted copy.
impl Source for Database {
    fn buckets(&self) -> io::Result<Vec<Bytes>> {
        self.buckets()
    }

    fn scan(&self, bucket: &Bytes) -> io::Result<Scan> {
        let iter = self.iter(bucket)?;
        Ok(Box::new(iter.into_iter().flatten()))
    }
}

/// Finds the meta pages without knowing the page size, as bbolt does: page 0 has it, and if that is
/// not valid, page 1 is looked for where it would be for each possible size.
fn newest_meta(file: &dyn File) -> io::Result<Meta> {
    let first = read_meta(file, 0)?;
    let second = match &first {
        Ok(meta) => read_meta(file, u64::from(meta.page_bytes))?
            .ok()
            .filter(|second| second.page_bytes == meta.page_bytes),
        Err(_) => {
            let mut offset = PAGE_BYTES_MIN;
            let mut found = None;
            while found.is_none() && offset <= PAGE_BYTES_MAX {
                let meta = read_meta(file, offset as u64)?.ok();
                found = meta.filter(|meta| meta.page_bytes as usize == offset);
                offset *= 2;
            }
            found
        }
    };
    match (first, second) {
        (Ok(first), Some(second)) if second.txid > first.txid => Ok(second),
        (Ok(first), _) => Ok(first),
        (Err(_), Some(second)) => Ok(second),
        (Err(why), None) => Err(Corrupt::NoMeta(why).into()),
    }
}

fn read_meta(file: &dyn File, offset: u64) -> io::Result<Result<Meta, &'static str>> {
    let mut page = [0; HEADER_BYTES + META_BYTES];
    let read = file.read_at(&mut page, offset)?;
    Ok(Meta::decode(&page[..read]))
}
