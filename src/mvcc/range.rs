//! What a Range answers: limit, count, filters and orders exactly as etcd 3.7 has them
//! (`server/etcdserver/txn/range.go`), its quirks included. Pure reading.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use quorate_proto::etcdserverpb::{
    RangeRequest, RangeResponse, ResponseHeader,
    range_request::{SortOrder, SortTarget},
};
use quorate_proto::mvccpb::KeyValue;

use super::interval::KeyRange;
use super::reader::{Found, Reader};
use super::{Halt, counts};
use crate::error::Fatal;
use crate::plant;

/// Whether `count` must be all keys of the range. Otherwise counting may end with the page, which
/// spares the way to the end of the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    Counted,
    Unneeded,
}

pub(super) fn range(
    reader: Reader<'_>,
    request: &RangeRequest,
    total: Total,
) -> Result<RangeResponse, Halt> {
    let rev = reader.resolve(request.revision)?;
    let keys = KeyRange::new(&request.key, &request.range_end);
    let header = Some(ResponseHeader { revision: reader.revision, ..ResponseHeader::default() });
    if request.count_only {
        let count = counts::count(reader, &keys, rev)?;
        return Ok(RangeResponse { header, count, ..RangeResponse::default() });
    }

    let page = Page { keys: &keys, rev, limit: fetch_limit(request), what: what(request), total };
    let (mut kvs, count) = page.read(reader)?;
    filter(&mut kvs, request);
    sort(&mut kvs, request);
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let cut = limit > 0 && kvs.len() > limit;
    if cut {
        kvs.truncate(limit);
    }
    let more = cut && !plant::is("more-forgotten");
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value.clear());
    }
    Ok(RangeResponse { header, kvs, more, count })
}

/// Every key of the range, whole.
pub(super) fn all(reader: Reader<'_>, keys: &KeyRange) -> Result<Vec<KeyValue>, Fatal> {
    let what = What::Whole;
    let page = Page { keys, rev: reader.revision, limit: None, what, total: Total::Unneeded };
    Ok(page.read(reader)?.0)
}

/// What is wanted of each key.
#[derive(Clone, Copy, PartialEq)]
enum What {
    Whole,
    /// etcd answers this from its index, which knows neither values nor leases.
    Index,
}

fn what(request: &RangeRequest) -> What {
    let by_value = request.sort_target == SortTarget::Value as i32;
    if request.keys_only && !by_value { What::Index } else { What::Whole }
}

struct Page<'a> {
    keys: &'a KeyRange,
    rev: i64,
    limit: Option<usize>,
    what: What,
    total: Total,
}

impl Page<'_> {
    /// The first keys up to the limit, and how many there are.
    fn read(&self, reader: Reader<'_>) -> Result<(Vec<KeyValue>, i64), Fatal> {
        if let Some(key) = self.keys.single() {
            let kv = reader.at(key, self.rev)?.map(|kv| self.trim(kv));
            let count = i64::from(kv.is_some());
            return Ok((kv.into_iter().collect(), count));
        }
        let mut kvs = Vec::new();
        let mut arena = Arena::default();
        let mut full = false;
        reader.walk(self.keys, self.rev, &mut |found| {
            if self.limit.is_some_and(|limit| kvs.len() >= limit) {
                full = true;
                return Ok(ControlFlow::Break(()));
            }
            kvs.push(self.take(reader, &mut arena, found)?);
            Ok(ControlFlow::Continue(()))
        })?;
        let read = i64::try_from(kvs.len()).expect("a page is in memory");
        let count = match self.total {
            Total::Counted if full => counts::count(reader, self.keys, self.rev)?,
            _ => read,
        };
        Ok((kvs, count))
    }

    fn trim(&self, kv: KeyValue) -> KeyValue {
        match self.what {
            What::Whole => kv,
            What::Index => KeyValue { value: Bytes::new(), lease: 0, ..kv },
        }
    }

    fn take(
        &self,
        reader: Reader<'_>,
        arena: &mut Arena,
        found: Found<'_>,
    ) -> Result<KeyValue, Fatal> {
        let whole = self.what == What::Whole;
        match found {
            Found::Newest(_, kv) => Ok(KeyValue {
                key: arena.copy(kv.key),
                create_revision: kv.create,
                mod_revision: kv.modified,
                version: kv.version,
                value: if whole { arena.copy(kv.value) } else { Bytes::new() },
                lease: if whole { kv.lease } else { 0 },
            }),
            Found::Older(_, outline) if whole => reader.fetch(outline.rev),
            Found::Older(key, outline) => Ok(KeyValue {
                key: arena.copy(key),
                create_revision: outline.create,
                mod_revision: outline.rev.main,
                version: outline.version,
                ..KeyValue::default()
            }),
        }
    }
}

/// Where the keys and values of a page are copied to, many to an allocation.
#[derive(Default)]
struct Arena {
    piece: BytesMut,
    /// Size of the last piece; the next one is larger, so that small pages stay small.
    bytes: usize,
}

impl Arena {
    const PIECE_BYTES: std::ops::RangeInclusive<usize> = 512..=64 << 10;

    fn copy(&mut self, bytes: &[u8]) -> Bytes {
        if self.piece.capacity() < bytes.len() {
            self.bytes =
                (self.bytes * 4).clamp(*Self::PIECE_BYTES.start(), *Self::PIECE_BYTES.end());
            self.piece = BytesMut::with_capacity(self.bytes.max(bytes.len()));
        }
        self.piece.extend_from_slice(bytes);
        self.piece.split().freeze()
    }
}

/// How many keys to fetch: one above the limit, to know whether there are more; all of them when an
/// order or a filter decides which ones count.
fn fetch_limit(request: &RangeRequest) -> Option<usize> {
    if request.limit <= 0 || !natural_order(request) || has_filters(request) {
        return None;
    }
    Some(usize::try_from(request.limit).map_or(usize::MAX, |limit| limit.saturating_add(1)))
}

/// Whether the request asks for the order in which keys are stored. Order NONE counts as such for
/// any target: with a limit, a page is cut in key order and sorted afterwards.
pub(super) fn natural_order(request: &RangeRequest) -> bool {
    request.sort_order == SortOrder::None as i32
        || (request.sort_target == SortTarget::Key as i32
            && request.sort_order == SortOrder::Ascend as i32)
}

pub(super) fn has_filters(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn filter(kvs: &mut Vec<KeyValue>, request: &RangeRequest) {
    if !has_filters(request) || plant::is("range-filter-ignored") {
        return;
    }
    let within =
        |value: i64, min: i64, max: i64| (max == 0 || value <= max) && (min == 0 || value >= min);
    kvs.retain(|kv| {
        within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
            && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
    });
}

fn sort(kvs: &mut [KeyValue], request: &RangeRequest) {
    let target = request.sort_target();
    let natural = target == SortTarget::Key && request.sort_order() != SortOrder::Descend;
    if natural || plant::is("sort-ignored") {
        return;
    }
    let compare = |a: &KeyValue, b: &KeyValue| -> Ordering {
        match target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        }
    };
    // etcd's sort is not stable, so any order among equals is one it could give; ours is by key.
    match request.sort_order() {
        SortOrder::Descend => kvs.sort_by(|a, b| compare(b, a)),
        SortOrder::None | SortOrder::Ascend => kvs.sort_by(compare),
    }
}
