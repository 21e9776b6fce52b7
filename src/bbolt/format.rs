//! The bytes of the format: page headers, elements, meta records, bucket headers. Little-endian, as
//! bbolt has it on every machine that matters (it writes the machine's own order). No I/O.

use std::io;

use bytes::{BufMut, BytesMut};

/// The number of a page.
pub type Pgid = u64;

/// Size of the pages written; pages read may be of another size.
pub const PAGE_BYTES: usize = 4096;
/// Sizes of a page that a reader accepts.
pub const PAGE_BYTES_MIN: usize = 1024;
pub const PAGE_BYTES_MAX: usize = 16 << 20;

/// id u64, flags u16, count u16, overflow u32.
pub const HEADER_BYTES: usize = 16;
/// Leaf: flags u32, pos u32, key size u32, value size u32. Branch: pos u32, key size u32, page u64.
pub const ELEMENT_BYTES: usize = 16;
/// root u64, sequence u64.
pub const BUCKET_BYTES: usize = 16;
/// magic, version, page size, flags: u32 each; root bucket; freelist, high water mark, transaction id,
/// checksum: u64 each.
pub const META_BYTES: usize = 64;

pub const BRANCH: u16 = 0x01;
pub const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREELIST: u16 = 0x10;

/// Set in a leaf element whose value is a bucket header.
pub const IS_BUCKET: u32 = 0x01;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// bbolt's own bounds.
pub const KEY_BYTES_MAX: usize = 32_768;
pub const VALUE_BYTES_MAX: usize = (1 << 31) - 2;

/// What is wrong with a file. Reaches callers inside an [`io::Error`] of kind `InvalidData`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    #[error("not a bbolt file: neither meta page is valid: {0}")]
    NoMeta(&'static str),
    #[error("bbolt file is cut short: {len} bytes of {need}")]
    Short { len: u64, need: u64 },
    #[error("bbolt file is corrupt: page {page}: {what}")]
    Page { page: Pgid, what: &'static str },
}

impl From<Corrupt> for io::Error {
    fn from(corrupt: Corrupt) -> Self {
        Self::new(io::ErrorKind::InvalidData, corrupt)
    }
}

/// The first 16 bytes of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub id: Pgid,
    pub flags: u16,
    pub count: u16,
    /// Pages behind this one that belong to it.
    pub overflow: u32,
}

impl Header {
    /// `bytes` holds at least [`HEADER_BYTES`].
    pub fn decode(bytes: &[u8]) -> Self {
        Self {
            id: u64_at(bytes, 0),
            flags: u16::from_le_bytes([bytes[8], bytes[9]]),
            count: u16::from_le_bytes([bytes[10], bytes[11]]),
            overflow: u32_at(bytes, 12),
        }
    }

    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.id);
        out.put_u16_le(self.flags);
        out.put_u16_le(self.count);
        out.put_u32_le(self.overflow);
    }
}

/// A decoded meta record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    pub page_bytes: u32,
    /// Root page of the tree of buckets.
    pub root: Pgid,
    pub freelist: Pgid,
    /// One more than the highest page in use.
    pub high_water: Pgid,
    pub txid: u64,
}

impl Meta {
    /// Decodes the record behind a page header, or returns why it does not count.
    pub fn decode(page: &[u8]) -> Result<Self, &'static str> {
        let record = page.get(HEADER_BYTES..HEADER_BYTES + META_BYTES).ok_or("too short")?;
        if u32_at(record, 0) != MAGIC {
            return Err("wrong magic number");
        }
        if u32_at(record, 4) != VERSION {
            return Err("unknown version");
        }
        if u64_at(record, 56) != fnv64a(&record[..56]) {
            return Err("wrong checksum");
        }
        let page_bytes = u32_at(record, 8);
        if !(PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&(page_bytes as usize))
            || !page_bytes.is_power_of_two()
        {
            return Err("impossible page size");
        }
        Ok(Self {
            page_bytes,
            root: u64_at(record, 16),
            freelist: u64_at(record, 32),
            high_water: u64_at(record, 40),
            txid: u64_at(record, 48),
        })
    }

    /// Writes the whole meta page `id`, 0 or 1.
    pub fn encode(&self, id: Pgid, out: &mut BytesMut) {
        Header { id, flags: META, count: 0, overflow: 0 }.encode(out);
        let start = out.len();
        out.put_u32_le(MAGIC);
        out.put_u32_le(VERSION);
        out.put_u32_le(self.page_bytes);
        out.put_u32_le(0);
        encode_bucket(self.root, out);
        out.put_u64_le(self.freelist);
        out.put_u64_le(self.high_water);
        out.put_u64_le(self.txid);
        let checksum = fnv64a(&out[start..]);
        out.put_u64_le(checksum);
        out.put_bytes(0, self.page_bytes as usize - HEADER_BYTES - META_BYTES);
    }
}

/// The freelist page `id` of a file in which no page is free.
pub fn encode_empty_freelist(id: Pgid, out: &mut BytesMut) {
    Header { id, flags: FREELIST, count: 0, overflow: 0 }.encode(out);
    out.put_bytes(0, PAGE_BYTES - HEADER_BYTES);
}

/// A bucket header. The sequence number, which etcd does not use, is 0.
pub fn encode_bucket(root: Pgid, out: &mut BytesMut) {
    out.put_u64_le(root);
    out.put_u64_le(0);
}

/// FNV-1a, 64 bits.
fn fnv64a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// The number at `offset`, which the caller knows to be inside `bytes`.
pub fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(number)
}

/// As [`u32_at`].
pub fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(number)
}
