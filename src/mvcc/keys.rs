//! The encoding of revisions, versions and attachments as engine keys. Does not read or write the engine.
//!
//! * [`Cf::Key`](crate::engine::Cf::Key), etcd's own: main revision as big-endian u64, `_`, sub
//!   revision likewise; a deletion has a `t` behind it (etcd 3.7 `server/storage/mvcc/revision.go`).
//! * `Cf::Versions`: the user key with zero bytes escaped, a terminator, then the revision with all
//!   bits inverted, so that a key's states stand together, newest first, and keys keep their order.
//! * `Cf::Attached`: lease as big-endian i64, then the user key.

use bytes::Bytes;

use crate::error::Fatal;
use crate::types::LeaseId;

/// A change's place in history: the main revision it belongs to and its number within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Rev {
    pub main: i64,
    pub sub: i64,
}

/// A key of `Cf::Key`.
#[derive(Clone, Copy)]
pub(super) struct RevKey {
    bytes: [u8; RevKey::TOMBSTONE_BYTES],
    len: usize,
}

impl Rev {
    /// The first change of a main revision.
    pub fn first(main: i64) -> Self {
        Self { main, sub: 0 }
    }

    /// The last change that could come before this one, which is not the very first.
    pub fn before(self) -> Self {
        match self.sub {
            0 => Self::last(self.main - 1),
            sub => Self { sub: sub - 1, ..self },
        }
    }

    /// The last change that a main revision could have.
    pub fn last(main: i64) -> Self {
        Self { main, sub: i64::MAX }
    }
}

impl RevKey {
    pub const BYTES: usize = 17;
    pub const TOMBSTONE_BYTES: usize = 18;
    const MARK: u8 = b't';

    pub fn new(rev: Rev, tombstone: bool) -> Self {
        let mut bytes = [0; Self::TOMBSTONE_BYTES];
        bytes[..8].copy_from_slice(&rev.main.to_be_bytes());
        bytes[8] = b'_';
        bytes[9..17].copy_from_slice(&rev.sub.to_be_bytes());
        bytes[17] = Self::MARK;
        Self { bytes, len: if tombstone { Self::TOMBSTONE_BYTES } else { Self::BYTES } }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(self.as_bytes())
    }

    /// The revision, and whether it is a deletion.
    pub fn parse(key: &[u8]) -> Result<(Rev, bool), Fatal> {
        let tombstone = key.len() == Self::TOMBSTONE_BYTES && key[17] == Self::MARK;
        let main = key.get(..8).and_then(be_i64);
        let sub = key.get(9..17).and_then(be_i64);
        match (main, sub) {
            (Some(main), Some(sub))
                if key[8] == b'_'
                    && (tombstone || key.len() == Self::BYTES)
                    && main >= 0
                    && sub >= 0 =>
            {
                Ok((Rev { main, sub }, tombstone))
            }
            _ => Err(Fatal::new("history", format!("{key:02x?} is not a revision"))),
        }
    }
}

/// What the versions of a user key begin with.
pub(super) fn version_prefix(user_key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(user_key.len() + 2 + 16);
    for piece in user_key.split_inclusive(|byte| *byte == 0) {
        out.extend_from_slice(piece);
        if piece.last() == Some(&0) {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0, 0]);
    out
}

/// The key of one version.
pub(super) fn version_key(user_key: &[u8], rev: Rev) -> Vec<u8> {
    let mut out = version_prefix(user_key);
    push_version(&mut out, rev);
    out
}

/// Completes a prefix to the key of one version.
pub(super) fn push_version(prefix: &mut Vec<u8>, rev: Rev) {
    prefix.extend_from_slice(&(!rev.main).to_be_bytes());
    prefix.extend_from_slice(&(!rev.sub).to_be_bytes());
}

/// The revision of a version's key, given what its prefix must be; none if it is another user key's.
pub(super) fn version_rev(prefix: &[u8], key: &[u8]) -> Option<Rev> {
    let rest = key.strip_prefix(prefix)?;
    if rest.len() != 16 {
        return None;
    }
    Some(Rev { main: !be_i64(&rest[..8])?, sub: !be_i64(&rest[8..])? })
}

pub(super) fn attached_prefix(lease: LeaseId) -> [u8; 8] {
    lease.0.to_be_bytes()
}

pub(super) fn attached_key(lease: LeaseId, user_key: &[u8]) -> Vec<u8> {
    [&attached_prefix(lease)[..], user_key].concat()
}

pub(super) fn be_i64(bytes: &[u8]) -> Option<i64> {
    bytes.try_into().ok().map(i64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn revisions_are_spelled_as_etcd_spells_them() {
        let key = RevKey::new(Rev { main: 2, sub: 1 }, true);
        assert_eq!(key.as_bytes(), b"\0\0\0\0\0\0\0\x02_\0\0\0\0\0\0\0\x01t");
        assert_eq!(RevKey::parse(key.as_bytes()).expect("parses"), (Rev { main: 2, sub: 1 }, true));
        for broken in [&b""[..], b"\0\0\0\0\0\0\0\x02_\0\0\0\0\0\0\0", &[0; 17], &[0xff; 18]] {
            assert!(RevKey::parse(broken).is_err(), "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn versions_sort_by_key_then_newest_first(
            a in proptest::collection::vec(0_u8..4, 0..6), b in proptest::collection::vec(0_u8..4, 0..6),
            x in 0_i64..300, y in 0_i64..300,
        ) {
            let (left, right) = (Rev { main: x, sub: y }, Rev { main: y, sub: x });
            let (left_key, right_key) = (version_key(&a, left), version_key(&b, right));
            prop_assert_eq!(left_key.cmp(&right_key), a.cmp(&b).then(right.cmp(&left)));
            prop_assert_eq!(version_rev(&version_prefix(&a), &left_key), Some(left));
            if a != b {
                prop_assert_eq!(version_rev(&version_prefix(&a), &right_key), None);
            }
        }
    }
}
