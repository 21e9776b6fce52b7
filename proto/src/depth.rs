//! How deep encoded messages nest, found out before they are decoded. The generated decoders recurse,
//! one stack frame for each level; this scan does not. Judges nothing else: bytes that are malformed
//! pass, and the decoder refuses them.
//!
//! Only few messages of etcd's API contain themselves: a txn's operations, the answers to them, and
//! the answers that a raft message carries from a member's storage to its raft. What is decoded as a
//! message of its own at the edge is written one level deeper into the log, so the bound is on the
//! nesting itself: whatever passes here decodes in both places within prost's limit of 100 levels.
//! Unknown fields are not written again, so they cannot lift a message over that limit.

use std::any::TypeId;

use crate::{etcdserverpb as pb, raftpb};

/// How many times a message may contain itself: a txn within a txn, or a raft message within one.
/// etcd has no such bound of its own; it counts operations (`--max-txn-ops`, 128).
pub const NESTED_MAX: usize = 48;

/// How many comparisons and operations a txn may hold, with those of the txns in it: a few bytes are one,
/// and take a hundred times as much when they are decoded. `--max-txn-ops` bounds each list.
pub const OPERATIONS_MAX: usize = 1 << 17;

/// Levels of messages in the deepest thing that passes: [`pb::InternalRaftRequest`], then a txn and an
/// operation for each level, then the request in the innermost operation.
const LEVELS_MAX: usize = 1 + 2 * (NESTED_MAX + 1);

/// The decoder's limit.
const PROST_LEVELS_MAX: usize = 100;

const _: () = assert!(LEVELS_MAX < PROST_LEVELS_MAX, "what passes must decode in the log, too");

/// A message nests deeper than [`NESTED_MAX`], or holds more than [`OPERATIONS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooDeep;

impl std::fmt::Display for TooDeep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "nested deeper than {NESTED_MAX} levels or more than {OPERATIONS_MAX} operations")
    }
}

impl std::error::Error for TooDeep {}

/// A message that may contain itself, or one that contains such a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// [`pb::TxnRequest`].
    Txn,
    /// [`pb::RequestOp`].
    RequestOp,
    /// [`pb::InternalRaftRequest`].
    Internal,
    /// [`pb::TxnResponse`].
    TxnResponse,
    /// [`pb::ResponseOp`].
    ResponseOp,
    /// [`raftpb::Message`].
    RaftMessage,
}

impl Shape {
    /// The shape of a generated message; none for one that cannot nest without bound.
    pub fn of<M: 'static>() -> Option<Self> {
        let is = |of: TypeId| TypeId::of::<M>() == of;
        if is(TypeId::of::<pb::TxnRequest>()) {
            Some(Self::Txn)
        } else if is(TypeId::of::<pb::RequestOp>()) {
            Some(Self::RequestOp)
        } else if is(TypeId::of::<pb::InternalRaftRequest>()) {
            Some(Self::Internal)
        } else if is(TypeId::of::<pb::TxnResponse>()) {
            Some(Self::TxnResponse)
        } else if is(TypeId::of::<pb::ResponseOp>()) {
            Some(Self::ResponseOp)
        } else if is(TypeId::of::<raftpb::Message>()) {
            Some(Self::RaftMessage)
        } else {
            None
        }
    }

    /// Levels of messages that nest, from this one on.
    fn levels_max(self) -> usize {
        match self {
            Self::Txn | Self::TxnResponse => 2 * (NESTED_MAX + 1),
            Self::Internal | Self::RequestOp | Self::ResponseOp => LEVELS_MAX,
            Self::RaftMessage => NESTED_MAX + 1,
        }
    }

    /// The shape of the message in a field, if it is one that nests.
    fn field(self, tag: u64) -> Option<Self> {
        match (self, tag) {
            (Self::Txn, 2 | 3) => Some(Self::RequestOp),
            (Self::RequestOp, 4) | (Self::Internal, 6) => Some(Self::Txn),
            (Self::TxnResponse, 3) => Some(Self::ResponseOp),
            (Self::ResponseOp, 4) => Some(Self::TxnResponse),
            (Self::RaftMessage, 14) => Some(Self::RaftMessage),
            _ => None,
        }
    }
}

/// Checks the bytes of a message of type `M` before it is decoded. Costs nothing for the types that
/// cannot nest, and a look at the head of each operation for those that can.
pub fn check<M: 'static>(bytes: &[u8]) -> Result<(), TooDeep> {
    Shape::of::<M>().map_or(Ok(()), |shape| check_shape(shape, bytes))
}

/// As [`check`], for a shape known at run time.
pub fn check_shape(shape: Shape, bytes: &[u8]) -> Result<(), TooDeep> {
    let open = [Level { shape, end: bytes.len() }; LEVELS_MAX];
    Scan { bytes, at: 0, open, depth: 1, depth_max: shape.levels_max(), operations: 0 }.run()
}

/// A message whose end was not reached yet.
#[derive(Clone, Copy)]
struct Level {
    shape: Shape,
    end: usize,
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The first `depth` of them are open, the outermost first.
    open: [Level; LEVELS_MAX],
    depth: usize,
    depth_max: usize,
    operations: usize,
}

/// Wire types (protobuf's encoding, "Message structure").
mod wire {
    pub const VARINT: u64 = 0;
    pub const SIXTY_FOUR_BIT: u64 = 1;
    pub const LENGTH_DELIMITED: u64 = 2;
    pub const START_GROUP: u64 = 3;
    pub const END_GROUP: u64 = 4;
    pub const THIRTY_TWO_BIT: u64 = 5;
}

impl Scan<'_> {
    fn run(mut self) -> Result<(), TooDeep> {
        while let Some(level) = self.innermost() {
            let Some((tag, wire)) = self.key() else { return Ok(()) };
            if level.shape == Shape::Txn && (1..=3).contains(&tag) {
                self.operations += 1;
                if self.operations > OPERATIONS_MAX {
                    return Err(TooDeep);
                }
            }
            let nested = level.shape.field(tag).filter(|_| wire == wire::LENGTH_DELIMITED);
            let done = match nested {
                Some(shape) => self.enter(shape)?,
                None => self.skip(wire)?,
            };
            if done.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Closes the messages that end here and returns the one that goes on. As in the decoder, a length
    /// is held against what there is, and against the message around it only at its end: one that ends
    /// behind its parent is malformed, but was descended into.
    fn innermost(&mut self) -> Option<Level> {
        while let Some(last) = self.depth.checked_sub(1) {
            let level = self.open[last];
            match self.at.cmp(&level.end) {
                std::cmp::Ordering::Less => return Some(level),
                std::cmp::Ordering::Equal => self.depth = last,
                std::cmp::Ordering::Greater => return None,
            }
        }
        None
    }

    fn enter(&mut self, shape: Shape) -> Result<Option<()>, TooDeep> {
        let Some(end) = self.length() else { return Ok(None) };
        if self.depth == self.depth_max {
            return Err(TooDeep);
        }
        self.open[self.depth] = Level { shape, end };
        self.depth += 1;
        Ok(Some(()))
    }

    /// Skips a value. A group, which is always unknown, ends at its end mark, with what it nests.
    fn skip(&mut self, wire: u64) -> Result<Option<()>, TooDeep> {
        if wire != wire::START_GROUP {
            return Ok(self.skip_flat(wire));
        }
        let mut groups = 1;
        while groups > 0 {
            let Some((_, wire)) = self.key() else { return Ok(None) };
            match wire {
                wire::START_GROUP => groups += 1,
                wire::END_GROUP => groups -= 1,
                _ if self.skip_flat(wire).is_none() => return Ok(None),
                _ => {}
            }
            if self.depth + groups > PROST_LEVELS_MAX {
                return Err(TooDeep);
            }
        }
        Ok(Some(()))
    }

    fn skip_flat(&mut self, wire: u64) -> Option<()> {
        self.at = match wire {
            wire::VARINT => return self.varint().map(|_| ()),
            wire::SIXTY_FOUR_BIT => self.at.checked_add(8),
            wire::THIRTY_TWO_BIT => self.at.checked_add(4),
            wire::LENGTH_DELIMITED => self.length(),
            _ => None,
        }
        .filter(|at| *at <= self.bytes.len())?;
        Some(())
    }

    /// Reads a length; returns where what it measures ends.
    fn length(&mut self) -> Option<usize> {
        let length = usize::try_from(self.varint()?).ok()?;
        self.at.checked_add(length).filter(|end| *end <= self.bytes.len())
    }

    /// A field's number and wire type.
    fn key(&mut self) -> Option<(u64, u64)> {
        let key = self.varint().filter(|key| u32::try_from(*key).is_ok())?;
        Some((key >> 3, key & 7)).filter(|(tag, _)| *tag > 0)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return (shift < 63 || byte < 2).then_some(value);
            }
        }
        None
    }
}
