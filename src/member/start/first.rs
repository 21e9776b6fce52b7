//! The beginning of a cluster: its members, their ids and the first entries of the log, the same on every
//! member. Writes nothing.

use bytes::Bytes;
use prost::Message;
use quorate_proto::raftpb::{ConfState, Entry, EntryType};

use super::identity::{cluster_id, member_id};
use crate::apply::membership::{MemberRecord, add_change};
use crate::types::{ClusterId, MemberId};

/// A new cluster, from the view of one of its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCluster {
    /// The member whose view this is.
    pub id: MemberId,
    pub cluster: ClusterId,
    /// All members, by id.
    pub members: Vec<MemberRecord>,
}

impl NewCluster {
    /// `initial`: name and peer URLs of every member. `None` when `own` is not among them.
    pub fn new(own: &str, initial: &[(String, Vec<String>)], token: &str) -> Option<Self> {
        let record = |(name, urls): &(String, Vec<String>)| MemberRecord {
            id: member_id(urls, token).0,
            peer_urls: urls.clone(),
            name: name.clone(),
            ..MemberRecord::default()
        };
        let mut members: Vec<_> = initial.iter().map(record).collect();
        members.sort_by_key(|member| member.id);
        let id = MemberId(members.iter().find(|member| member.name == own)?.id);
        let cluster = cluster_id(members.iter().map(|member| MemberId(member.id)));
        Some(Self { id, cluster, members })
    }

    /// The same cluster, before its members have published their names.
    #[must_use]
    pub fn unnamed(mut self) -> Self {
        self.members.iter_mut().for_each(|member| member.name.clear());
        self
    }

    /// etcd's first entries: one configuration change per member, in the order of ids.
    pub fn entries(&self) -> Vec<Entry> {
        let entry = |(index, member)| Entry {
            r#type: EntryType::EntryConfChange as i32,
            term: 1,
            index,
            data: Bytes::from(add_change(member).encode_to_vec()),
        };
        (1..).zip(&self.members).map(entry).collect()
    }

    pub fn voters(&self) -> Vec<u64> {
        self.members.iter().map(|member| member.id).collect()
    }

    /// The configuration after the first entries.
    pub fn conf_state(&self) -> ConfState {
        ConfState { voters: self.voters(), ..ConfState::default() }
    }
}
