//! Whether an entry that another member sends could be applied. Judged before it is proposed or appended,
//! because an entry that is committed and does not decode ends every member, now and at each start. What
//! members of one cluster apply is not changed by it: an entry that is refused is never committed with
//! this member's help.

use bytes::Bytes;
use prost::Message;
use quorate_proto::depth::{self, TooDeep};
use quorate_proto::etcdserverpb::{InternalRaftRequest, RequestHeader};
use quorate_proto::raftpb::{ConfChange, ConfChangeType, Entry, EntryType};

use super::membership::ChangeContext;
use super::{Request, v2};

/// Why bytes are no request or no configuration change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error(transparent)]
    Malformed(#[from] prost::DecodeError),
    #[error(transparent)]
    TooDeep(#[from] TooDeep),
}

/// Why an entry is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("entry {0} does not decode: {1}")]
    Broken(u64, Broken),
    #[error("entry {0} has no request that this version can apply")]
    Unknown(u64),
    #[error("a joint configuration change, which neither etcd nor this server proposes")]
    Joint,
    #[error("a configuration change of no known kind")]
    Change,
    #[error("a configuration change without a member: {0}")]
    Context(String),
}

/// Fewer bytes cannot nest deeper than the decoder's own limit: each level takes two.
const SHALLOW_BYTES: usize = 192;

/// Decodes the request of a normal entry. The decoder recurses, so the depth is checked first.
pub fn request(data: &Bytes) -> Result<(RequestHeader, Option<Request>), Broken> {
    if data.len() > SHALLOW_BYTES {
        depth::check::<InternalRaftRequest>(data)?;
    }
    Ok(Request::decode(data.clone())?)
}

/// Whether an entry of the leader's log can be appended.
pub fn appended(entry: &Entry) -> Result<(), Unfit> {
    let broken = |error| Unfit::Broken(entry.index, error);
    match entry.r#type() {
        EntryType::EntryNormal if entry.data.is_empty() => Ok(()),
        EntryType::EntryNormal => match request(&entry.data) {
            Ok((_, Some(_))) => Ok(()),
            Ok((_, None)) if v2::decode_inside(&entry.data).is_some() => Ok(()),
            Ok((_, None)) => Err(Unfit::Unknown(entry.index)),
            Err(_) if v2::decode(&entry.data).is_some() => Ok(()),
            Err(error) => Err(broken(error)),
        },
        EntryType::EntryConfChange => {
            ConfChange::decode(entry.data.clone()).map(drop).map_err(|error| broken(error.into()))
        }
        EntryType::EntryConfChangeV2 => Err(Unfit::Joint),
    }
}

/// Whether an entry that another member proposes can be appended by this leader. etcd ends at a change
/// whose member does not parse.
pub fn proposed(entry: &Entry) -> Result<(), Unfit> {
    appended(entry)?;
    if entry.r#type() != EntryType::EntryConfChange {
        return Ok(());
    }
    let change = ConfChange::decode(entry.data.clone())
        .map_err(|error| Unfit::Broken(entry.index, error.into()))?;
    match ConfChangeType::try_from(change.r#type) {
        Err(_) => Err(Unfit::Change),
        Ok(_) if change.node_id == 0 => Err(Unfit::Change),
        Ok(ConfChangeType::ConfChangeRemoveNode) => Ok(()),
        Ok(_) => match serde_json::from_slice::<ChangeContext>(&change.context) {
            Ok(context) if context.member.id == change.node_id => Ok(()),
            Ok(_) => Err(Unfit::Context("its id is another".into())),
            Err(error) => Err(Unfit::Context(error.to_string())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::apply::membership::{self, MemberRecord};
    use crate::types::MemberId;

    fn entry(kind: EntryType, data: Vec<u8>) -> Entry {
        Entry { r#type: kind as i32, index: 7, term: 2, data: data.into() }
    }

    fn normal(data: &[u8]) -> Entry {
        entry(EntryType::EntryNormal, data.to_vec())
    }

    #[test]
    fn garbage_that_is_in_the_log_is_an_error_with_its_index_and_a_remedy() {
        let error = crate::apply::Command::decode(&normal(b"garbage")).err().expect("garbage");
        let text = error.to_string();
        assert!(text.contains("log entry 7 of 7 bytes does not decode"), "{text}");
        assert!(text.contains("remove its data and add it again"), "{text}");
    }

    #[test]
    fn garbage_is_neither_proposed_nor_appended() {
        for data in [&b"garbage"[..], b"\xff", b"\x22\x05abc"] {
            let refused = appended(&normal(data));
            assert!(matches!(refused, Err(Unfit::Broken(7, _))), "{data:?}: {refused:?}");
            assert_eq!(proposed(&normal(data)), refused);
        }
        let change = entry(EntryType::EntryConfChange, b"garbage".to_vec());
        assert!(matches!(appended(&change), Err(Unfit::Broken(7, _))));
        assert_eq!(appended(&entry(EntryType::EntryConfChangeV2, vec![])), Err(Unfit::Joint));
    }

    /// One field of a later release, and a header alone.
    #[test]
    fn a_request_of_no_known_kind_is_neither_proposed_nor_appended() {
        for data in [&b"\x82\x7d\x00"[..], b"\xa2\x06\x02\x08\x07"] {
            assert!(matches!(request(&data.to_vec().into()), Ok((_, None))), "{data:?}");
            assert_eq!(appended(&normal(data)), Err(Unfit::Unknown(7)));
            assert_eq!(proposed(&normal(data)), Err(Unfit::Unknown(7)));
        }
    }

    #[test]
    fn a_request_that_nests_too_deep_is_neither_proposed_nor_appended() {
        let nested = |levels: usize| {
            let mut message = Vec::new();
            for level in 0..2 * levels {
                // A txn is field 4 of an operation, an operation field 2 of a txn.
                let tag = if level % 2 == 0 { 4 << 3 | 2 } else { 2 << 3 | 2 };
                let mut outer = vec![tag];
                prost::encoding::encode_varint(message.len() as u64, &mut outer);
                outer.append(&mut message);
                message = outer;
            }
            let mut request = vec![6 << 3 | 2];
            prost::encoding::encode_varint(message.len() as u64, &mut request);
            request.append(&mut message);
            normal(&request)
        };
        assert_eq!(appended(&nested(depth::NESTED_MAX - 1)), Ok(()));
        for levels in [depth::NESTED_MAX + 1, 2_000, 20_000] {
            let refused = appended(&nested(levels));
            assert!(matches!(refused, Err(Unfit::Broken(7, Broken::TooDeep(_)))), "{levels}");
        }
    }

    #[test]
    fn requests_of_this_and_older_releases_are_taken() {
        let put = quorate_proto::etcdserverpb::PutRequest::default();
        let request = InternalRaftRequest { put: Some(put), ..Default::default() };
        for data in
            [&request.encode_to_vec()[..], b"", b"\x08\x01\x12\x04SYNC\x1a\x00\x22\x00\x28\x00"]
        {
            assert_eq!(proposed(&normal(data)), Ok(()), "{data:?}");
        }
    }

    #[test]
    fn a_proposed_change_names_its_member() {
        let change = |change: &ConfChange| {
            proposed(&entry(EntryType::EntryConfChange, change.encode_to_vec()))
        };
        let member = MemberRecord { id: 9, ..MemberRecord::default() };
        assert_eq!(change(&membership::add_change(&member)), Ok(()));
        assert_eq!(change(&membership::promote_change(MemberId(9))), Ok(()));
        assert_eq!(change(&membership::update_change(MemberId(9), vec![])), Ok(()));
        assert_eq!(change(&membership::remove_change(MemberId(9))), Ok(()));
        let without = ConfChange { context: Default::default(), ..membership::add_change(&member) };
        assert!(matches!(change(&without), Err(Unfit::Context(_))));
        let other = ConfChange { node_id: 8, ..membership::add_change(&member) };
        assert!(matches!(change(&other), Err(Unfit::Context(_))));
        let nobody = ConfChange { node_id: 0, ..membership::remove_change(MemberId(9)) };
        assert_eq!(change(&nobody), Err(Unfit::Change));
        let unknown = ConfChange { r#type: 4, ..membership::remove_change(MemberId(9)) };
        assert_eq!(change(&unknown), Err(Unfit::Change));
    }
}
