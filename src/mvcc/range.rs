//! What a Range answers: limit, count, filters and orders exactly as etcd 3.7 has them
//! (`server/etcdserver/txn/range.go`), its quirks included. Pure reading.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::encoded_len_varint;
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

/// Answers a Range; none when there is no room for its keys.
pub(super) fn range(
    reader: Reader<'_>,
    request: &RangeRequest,
    total: Total,
    room: Room,
) -> Result<Option<RangeResponse>, Halt> {
    let rev = reader.resolve(request.revision)?;
    let keys = KeyRange::new(&request.key, &request.range_end);
    let header = Some(ResponseHeader { revision: reader.revision, ..ResponseHeader::default() });
    if request.count_only {
        let count = counts::count(reader, &keys, rev)?;
        return Ok(Some(RangeResponse { header, count, ..RangeResponse::default() }));
    }

    let scan = Scan::new(request, rev);
    let keys_max = fetch_limit(request);
    let most = keys_max.map_or(room.keys, |most| most.min(room.keys));
    let piece = scan.piece(reader, &keys, Some(most), room.bytes)?;
    let cut_short = piece.more && keys_max.is_none_or(|most| piece.kvs.len() < most);
    if cut_short || piece.bytes > room.bytes {
        return Ok(None);
    }
    let count = match total {
        Total::Counted if piece.more => counts::count(reader, &keys, rev)?,
        _ => piece.seen,
    };
    let mut kvs = piece.kvs;
    sort(&mut kvs, request);
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let cut = limit > 0 && kvs.len() > limit;
    if cut {
        kvs.truncate(limit);
    }
    let more = cut && !plant::MORE_FORGOTTEN.is_planted();
    strip(&mut kvs, request);
    Ok(Some(RangeResponse { header, kvs, more, count }))
}

/// A Range of any size.
pub(super) fn whole(
    reader: Reader<'_>,
    request: &RangeRequest,
    total: Total,
) -> Result<RangeResponse, Halt> {
    let answer = range(reader, request, total, Room::ANY)?;
    Ok(answer.expect("nothing takes more than there are bytes"))
}

/// What the keys of an answer may be.
#[derive(Clone, Copy)]
pub(super) struct Room {
    pub keys: usize,
    pub bytes: usize,
}

impl Room {
    const ANY: Self = Self { keys: usize::MAX, bytes: usize::MAX };

    /// Of so many bytes of any keys.
    pub fn of_bytes(bytes: usize) -> Self {
        Self { bytes, ..Self::ANY }
    }

    /// So that an answer that is read, sorted and encoded takes no more than `memory` bytes.
    pub fn in_memory(memory: usize) -> Self {
        // A list grows twofold, and sorting takes half of it again.
        Self { keys: memory / 2 / (3 * size_of::<KeyValue>()), bytes: memory / 4 }
    }
}

/// Takes the values out that were read for the sake of the order only.
pub(super) fn strip(kvs: &mut [KeyValue], request: &RangeRequest) {
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value.clear());
    }
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

/// Reads keys in their order: which of them, at which revision, what of each.
pub(super) struct Scan<'a> {
    pub request: &'a RangeRequest,
    pub rev: i64,
    what: What,
    filtered: bool,
}

/// A run of keys.
pub(super) struct Piece {
    pub kvs: Vec<KeyValue>,
    /// What they take in an answer.
    pub bytes: usize,
    /// How many keys there were, those that were filtered out included; up to its last key if there is
    /// more.
    pub seen: i64,
    /// Whether there is another key behind it.
    pub more: bool,
}

/// What a run of keys would be as a [`Piece`].
pub(super) struct Size {
    pub bytes: u64,
    pub keys: usize,
    pub seen: i64,
    pub more: bool,
}

impl<'a> Scan<'a> {
    pub fn new(request: &'a RangeRequest, rev: i64) -> Self {
        let filtered = has_filters(request) && !plant::RANGE_FILTER_IGNORED.is_planted();
        Self { request, rev, what: what(request), filtered }
    }

    /// The first keys: up to `keys_max` of them, and none after `bytes_max` are reached.
    pub fn piece(
        &self,
        reader: Reader<'_>,
        keys: &KeyRange,
        keys_max: Option<usize>,
        bytes_max: usize,
    ) -> Result<Piece, Fatal> {
        let mut piece = Piece { kvs: Vec::new(), bytes: 0, seen: 0, more: false };
        if let Some(key) = keys.single() {
            if let Some(kv) = reader.at(key, self.rev)? {
                piece.seen = 1;
                let fits = self.admits(kv.mod_revision, kv.create_revision);
                piece.kvs.extend(fits.then(|| self.trim(kv)));
                piece.bytes = piece.kvs.iter().map(|kv| in_answer(kv.encoded_len())).sum();
            }
            return Ok(piece);
        }
        let mut arena = Arena::default();
        // Not admitted since the last key that was: they belong to the next piece if there is one.
        let mut passed = 0;
        reader.walk(keys, self.rev, &mut |found| {
            if !self.admits(found.modified(), found.created()) {
                passed += 1;
                return Ok(ControlFlow::Continue(()));
            }
            let full = keys_max.is_some_and(|most| piece.kvs.len() >= most);
            if full || piece.bytes >= bytes_max {
                piece.more = true;
                return Ok(ControlFlow::Break(()));
            }
            piece.seen += std::mem::take(&mut passed) + 1;
            let kv = self.take(reader, &mut arena, found)?;
            piece.bytes += in_answer(kv.encoded_len());
            piece.kvs.push(kv);
            Ok(ControlFlow::Continue(()))
        })?;
        if !piece.more {
            piece.seen += passed;
        }
        Ok(piece)
    }

    /// What the first keys would take, up to `keys_max` of them, and none after `bytes_max` are reached.
    /// Copies nothing.
    pub fn measure(
        &self,
        reader: Reader<'_>,
        keys: &KeyRange,
        keys_max: usize,
        bytes_max: u64,
    ) -> Result<Size, Fatal> {
        let mut size = Size { bytes: 0, keys: 0, seen: 0, more: false };
        reader.walk(keys, self.rev, &mut |found| {
            if self.admits(found.modified(), found.created()) {
                if size.keys >= keys_max || size.bytes >= bytes_max {
                    size.more = true;
                    return Ok(ControlFlow::Break(()));
                }
                size.keys += 1;
                size.bytes += in_answer(self.bytes(&found)) as u64;
            }
            size.seen += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(size)
    }

    pub fn bytes(&self, found: &Found<'_>) -> usize {
        let whole = self.what == What::Whole;
        match found {
            Found::Newest(_, kv) => {
                let (value, lease) = if whole { (kv.value.len(), kv.lease) } else { (0, 0) };
                kv_bytes(kv.key.len(), [kv.create, kv.modified, kv.version, lease], value)
            }
            // It is stored as the `KeyValue` that would be sent.
            Found::Older(_, outline) if whole => outline.bytes as usize,
            Found::Older(key, outline) => {
                kv_bytes(key.len(), [outline.create, outline.rev.main, outline.version, 0], 0)
            }
        }
    }

    pub fn admits(&self, modified: i64, created: i64) -> bool {
        !self.filtered || passes(self.request, modified, created)
    }

    pub fn trim(&self, kv: KeyValue) -> KeyValue {
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

/// What a `KeyValue` of that length takes in an answer: the field's number, the length, itself.
pub(super) fn in_answer(bytes: usize) -> usize {
    1 + encoded_len_varint(bytes as u64) + bytes
}

/// The length of a `KeyValue`, all of whose fields have numbers of one byte.
fn kv_bytes(key: usize, numbers: [i64; 4], value: usize) -> usize {
    let text = |len: usize| if len == 0 { 0 } else { in_answer(len) };
    let number = |n: i64| if n == 0 { 0 } else { 1 + encoded_len_varint(n as u64) };
    text(key) + text(value) + numbers.into_iter().map(number).sum::<usize>()
}

/// What a key takes in an answer whose values are taken out.
pub(super) fn stripped_bytes(key: usize, kv: &KeyValue) -> usize {
    let numbers = [kv.create_revision, kv.mod_revision, kv.version, kv.lease];
    in_answer(kv_bytes(key, numbers, 0))
}

/// The first key behind `key`.
pub(super) fn after(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
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
/// order decides which ones count. Without an order a page is cut before it is sorted, unless it is
/// filtered.
pub(super) fn fetch_limit(request: &RangeRequest) -> Option<usize> {
    let all = !natural_order(request) || (has_filters(request) && is_sorted(request));
    if request.limit <= 0 || all {
        return None;
    }
    Some(usize::try_from(request.limit).map_or(usize::MAX, |limit| limit.saturating_add(1)))
}

/// Whether keys are put into another order than that in which they are stored.
pub fn is_sorted(request: &RangeRequest) -> bool {
    request.sort_target() != SortTarget::Key || request.sort_order() == SortOrder::Descend
}

/// Whether the requested order is the one in which keys are stored. Order NONE counts as such for
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

/// Whether a key's revisions are within the bounds of the request; 0 is no bound.
fn passes(request: &RangeRequest, modified: i64, created: i64) -> bool {
    let within =
        |value: i64, min: i64, max: i64| (max == 0 || value <= max) && (min == 0 || value >= min);
    within(modified, request.min_mod_revision, request.max_mod_revision)
        && within(created, request.min_create_revision, request.max_create_revision)
}

pub(super) fn sort(kvs: &mut [KeyValue], request: &RangeRequest) {
    if !is_sorted(request) || plant::SORT_IGNORED.is_planted() {
        return;
    }
    let target = request.sort_target();
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
