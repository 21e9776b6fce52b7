//! What stands behind engine keys: etcd's `KeyValue` read without copying, and the two records of
//! our own. No keys, no engine.
//!
//! * `Cf::Key`: `mvccpb.KeyValue`; of a deletion only the key.
//! * `Cf::Head`: the sub revision as varint, then the newest `KeyValue`; of a deletion key, mod
//!   revision and version 0.
//! * `Cf::Versions`: create revision, version and the length of the record in `Cf::Key` as varints;
//!   version 0 is a deletion.

use bytes::Bytes;
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};
use quorate_proto::mvccpb::KeyValue;

use super::keys::{Rev, RevKey};
use crate::error::Fatal;

/// A `KeyValue` as it lies in the engine's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct KvRef<'a> {
    pub key: &'a [u8],
    pub create: i64,
    pub modified: i64,
    pub version: i64,
    pub value: &'a [u8],
    pub lease: i64,
}

/// The newest state of a key.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub rev: Rev,
    /// With version 0: deleted.
    pub kv: KeyValue,
}

/// What is remembered of a superseded state, apart from its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Outline {
    pub rev: Rev,
    pub create: i64,
    /// 0: a deletion.
    pub version: i64,
    /// Length of its record in `Cf::Key`.
    pub bytes: u64,
}

impl<'a> KvRef<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Fatal> {
        let mut reader = Fields(bytes);
        let mut kv = Self::default();
        while !reader.0.is_empty() {
            let read = match reader.tag() {
                Some((1, 2)) => reader.bytes().map(|v| kv.key = v),
                Some((2, 0)) => reader.varint().map(|v| kv.create = v as i64),
                Some((3, 0)) => reader.varint().map(|v| kv.modified = v as i64),
                Some((4, 0)) => reader.varint().map(|v| kv.version = v as i64),
                Some((5, 2)) => reader.bytes().map(|v| kv.value = v),
                Some((6, 0)) => reader.varint().map(|v| kv.lease = v as i64),
                Some((1..=6, _)) => None,
                // A later etcd's field.
                Some((_, 0)) => reader.varint().map(|_| ()),
                Some((_, 1)) => reader.take(8).map(|_| ()),
                Some((_, 2)) => reader.bytes().map(|_| ()),
                Some((_, 5)) => reader.take(4).map(|_| ()),
                _ => None,
            };
            read.ok_or_else(|| Fatal::new("history", format!("{bytes:02x?} is not a KeyValue")))?;
        }
        Ok(kv)
    }

    /// Splits a record of `Cf::Head`.
    pub fn parse_head(bytes: &'a [u8]) -> Result<(i64, Self), Fatal> {
        let mut reader = Fields(bytes);
        let sub = reader.varint().ok_or_else(|| Fatal::new("head", "an empty record"))?;
        Ok((sub as i64, Self::parse(reader.0)?))
    }

    pub fn to_kv(self) -> KeyValue {
        KeyValue {
            key: Bytes::copy_from_slice(self.key),
            value: Bytes::copy_from_slice(self.value),
            ..self.outline()
        }
    }

    /// Everything but key and value.
    pub fn outline(self) -> KeyValue {
        KeyValue {
            create_revision: self.create,
            mod_revision: self.modified,
            version: self.version,
            lease: self.lease,
            ..KeyValue::default()
        }
    }
}

/// A `KeyValue` that shares the bytes it was stored as.
pub(super) fn shared_kv(bytes: &Bytes) -> Result<KeyValue, Fatal> {
    let kv = KvRef::parse(bytes)?;
    Ok(share(bytes, kv))
}

/// The record of a deletion in `Cf::Key`.
pub(super) fn tombstone(key: &Bytes) -> Vec<u8> {
    KeyValue { key: key.clone(), ..KeyValue::default() }.encode_to_vec()
}

fn tombstone_len(key: &Bytes) -> usize {
    KeyValue { key: key.clone(), ..KeyValue::default() }.encoded_len()
}

fn share(owner: &Bytes, kv: KvRef<'_>) -> KeyValue {
    KeyValue {
        key: owner.slice_ref(kv.key),
        // An empty part of a buffer need not lie inside of it.
        value: if kv.value.is_empty() { Bytes::new() } else { owner.slice_ref(kv.value) },
        ..kv.outline()
    }
}

impl Head {
    pub fn parse(bytes: &Bytes) -> Result<Self, Fatal> {
        let (sub, kv) = KvRef::parse_head(bytes)?;
        Ok(Self { rev: Rev { main: kv.modified, sub }, kv: share(bytes, kv) })
    }

    pub fn is_tombstone(&self) -> bool {
        self.kv.version == 0
    }

    pub fn outline(&self) -> Outline {
        let KeyValue { create_revision: create, version, .. } = self.kv;
        let record =
            if self.is_tombstone() { tombstone_len(&self.kv.key) } else { self.kv.encoded_len() };
        Outline { rev: self.rev, create, version, bytes: record as u64 }
    }

    /// The record of `Cf::Head`, and from where on it is the record of `Cf::Key` for a put.
    pub fn encode(sub: i64, kv: &KeyValue) -> (Vec<u8>, usize) {
        let at = encoded_len_varint(sub as u64);
        let mut head = Vec::with_capacity(at + kv.encoded_len());
        encode_varint(sub as u64, &mut head);
        kv.encode(&mut head).expect("the buffer grows");
        (head, at)
    }
}

impl Outline {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(12);
        for number in [self.create as u64, self.version as u64, self.bytes] {
            encode_varint(number, &mut out);
        }
        out
    }

    pub fn parse(rev: Rev, bytes: &[u8]) -> Result<Self, Fatal> {
        let mut reader = Fields(bytes);
        match (reader.varint(), reader.varint(), reader.varint()) {
            (Some(create), Some(version), Some(bytes)) => {
                Ok(Self { rev, create: create as i64, version: version as i64, bytes })
            }
            _ => Err(Fatal::new("versions", format!("{bytes:02x?} is not an outline"))),
        }
    }

    pub fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    /// What it takes in `Cf::Key`, the key included.
    pub fn stored_bytes(&self) -> u64 {
        RevKey::new(self.rev, self.is_tombstone()).as_bytes().len() as u64 + self.bytes
    }
}

/// Protobuf's wire format, from the front of a buffer; `None` when it is broken.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Field number and wire type.
    fn tag(&mut self) -> Option<(u64, u64)> {
        let tag = self.varint().filter(|tag| (8..=u64::from(u32::MAX)).contains(tag))?;
        Some((tag >> 3, tag & 7))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for (i, byte) in self.0.iter().take(10).enumerate() {
            if i == 9 && *byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.0 = &self.0[i + 1..];
                return Some(value);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.varint()?;
        self.take(usize::try_from(len).ok()?)
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.0.get(..len)?;
        self.0 = &self.0[len..];
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_what_prost_writes(
            key in any::<Vec<u8>>(), value in any::<Vec<u8>>(), lease in any::<i64>(),
            create in any::<i64>(), modified in any::<i64>(), version in any::<i64>(), sub in 0..i64::MAX,
        ) {
            let kv = KeyValue {
                key: key.into(), create_revision: create, mod_revision: modified, version, value: value.into(), lease,
            };
            let (head, at) = Head::encode(sub, &kv);
            prop_assert_eq!(&head[at..], &kv.encode_to_vec()[..]);
            prop_assert_eq!(&KvRef::parse(&head[at..]).expect("parses").to_kv(), &kv);
            let parsed = Head::parse(&head.into()).expect("parses");
            prop_assert_eq!(parsed.rev, Rev { main: modified, sub });
            prop_assert_eq!(parsed.kv, kv);
        }

        #[test]
        fn broken_records_are_refused_not_misread(bytes in any::<Vec<u8>>()) {
            let ours = KvRef::parse(&bytes).map(KvRef::to_kv).ok();
            if let Some(ours) = ours {
                prop_assert_eq!(KeyValue::decode(&bytes[..]).ok(), Some(ours));
            }
        }
    }

    #[test]
    fn outlines_round_trip() {
        let outline =
            Outline { rev: Rev { main: 7, sub: 3 }, create: 300, version: i64::MAX, bytes: 200 };
        assert_eq!(Outline::parse(outline.rev, &outline.encode()).expect("parses"), outline);
    }
}
