//! The replicated member table: the members of the cluster, the removed ids, and the cluster version. Pure
//! state in etcd's buckets. Which members consensus counts is the replica's matter; whether a change is
//! advisable is checked before it is proposed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_proto::raftpb::{ConfChange, ConfChangeType};
use serde::{Deserialize, Deserializer, Serialize};

use crate::engine::Cf;
use crate::error::{Fatal, Refused};
use crate::mvcc::{Store, View, Write};
use crate::plant;
use crate::types::MemberId;

/// A member as etcd stores it: JSON in bucket `members` and in the context of configuration changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    pub id: u64,
    #[serde(rename = "peerURLs", default, deserialize_with = "null_is_none")]
    pub peer_urls: Vec<String>,
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_learner: bool,
    /// Empty until the member has started and published itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(
        rename = "clientURLs",
        default,
        deserialize_with = "null_is_none",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub client_urls: Vec<String>,
}

impl MemberRecord {
    /// A member publishes its name when it starts.
    pub fn is_started(&self) -> bool {
        !self.name.is_empty()
    }

    /// Its key and value in bucket `members`.
    pub fn row(&self) -> (Bytes, Bytes) {
        (key(MemberId(self.id)).into(), json(self))
    }
}

/// The context of a change that adds a member or, with `is_promote`, makes a learner a voter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeContext {
    #[serde(flatten)]
    pub member: MemberRecord,
    #[serde(rename = "isPromote", default)]
    pub is_promote: bool,
}

/// Go writes a list that was never made as `null`.
pub(super) fn null_is_none<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(from)?.unwrap_or_default())
}

/// The table, small enough to be copied whole to its readers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    pub members: BTreeMap<MemberId, MemberRecord>,
    /// Removed ids, which are never reused.
    pub removed: BTreeSet<MemberId>,
    /// `major.minor.0`, once the cluster has agreed on one.
    pub cluster_version: Option<String>,
    /// The version that the cluster is being lowered to, `major.minor.0`.
    pub downgrade: Option<String>,
    /// Learners that there may be at a time. Not replicated: as in etcd it must be the same on all
    /// members.
    pub learners_max: usize,
}

const CLUSTER_VERSION: &[u8] = b"clusterVersion";
const DOWNGRADE: &[u8] = b"downgrade";
const REMOVED: &[u8] = b"removed";

impl Membership {
    /// Reads the table from its buckets.
    pub fn load(store: &Store) -> Result<Self, Fatal> {
        Self::read(&store.view())
    }

    /// The table as it is in `view`.
    pub fn read(view: &View) -> Result<Self, Fatal> {
        let mut table = Self::default();
        for row in view.scan(Cf::Members) {
            let (key, value) = row?;
            let record: MemberRecord = serde_json::from_slice(&value)
                .map_err(|e| Fatal::new(format!("member record {key:?}"), e))?;
            table.members.insert(MemberId(record.id), record);
        }
        for row in view.scan(Cf::MembersRemoved) {
            table.removed.insert(parse_key(&row?.0)?);
        }
        let version = view.get(Cf::Cluster, CLUSTER_VERSION)?;
        table.cluster_version = version.map(|v| String::from_utf8_lossy(&v).into_owned());
        if let Some(json) = view.get(Cf::Cluster, DOWNGRADE)? {
            let stored: StoredDowngrade = serde_json::from_slice(&json)
                .map_err(|e| Fatal::new("the stored downgrade does not decode", e))?;
            let kept = stored.enabled && !plant::DOWNGRADE_NOT_LOADED.is_planted();
            table.downgrade = Some(stored.target).filter(|_| kept);
        }
        Ok(table)
    }

    /// The voting members.
    pub fn voters(&self) -> impl Iterator<Item = &MemberRecord> {
        self.members.values().filter(|member| !member.is_learner)
    }

    pub fn learners(&self) -> usize {
        self.members.values().filter(|member| member.is_learner).count()
    }

    /// All members, by id.
    pub fn list(&self) -> Vec<MemberRecord> {
        self.members.values().cloned().collect()
    }

    /// Carries out a committed configuration change. `Refused` leaves the table as it was, and the
    /// caller must then apply a change of node 0 to the configuration.
    pub fn apply(&mut self, write: &mut Write<'_>, change: &ConfChange) -> Result<(), Refused> {
        let id = MemberId(change.node_id);
        if self.removed.contains(&id) {
            return Err(Refused::MemberNotFound);
        }
        match change.r#type() {
            ConfChangeType::ConfChangeAddNode | ConfChangeType::ConfChangeAddLearnerNode => {
                let context = context(change)?;
                if context.is_promote {
                    return self.promote(write, id);
                }
                self.add(write, context.member)
            }
            ConfChangeType::ConfChangeRemoveNode => self.remove(write, id),
            ConfChangeType::ConfChangeUpdateNode => {
                let urls = context(change)?.member.peer_urls;
                self.update(write, id, urls)
            }
        }
    }

    /// Stores a member's name and client URLs. Unknown and removed members are skipped: a member may be
    /// removed while its own announcement is in the log.
    pub fn publish(
        &mut self,
        write: &mut Write<'_>,
        id: MemberId,
        name: String,
        client_urls: Vec<String>,
    ) {
        if let Some(record) = self.members.get_mut(&id) {
            record.name = name;
            record.client_urls = client_urls;
            let record = record.clone();
            put(write, &record);
        }
    }

    pub fn set_version(&mut self, write: &mut Write<'_>, version: String) {
        write.put_raw(Cf::Cluster, CLUSTER_VERSION, version.as_bytes());
        self.cluster_version = Some(version);
    }

    /// Sets or, with `None`, cancels the target of a downgrade.
    pub fn set_downgrade(&mut self, write: &mut Write<'_>, target: Option<String>) {
        let (enabled, stored) = (target.is_some(), target.clone().unwrap_or_default());
        write.put_raw(Cf::Cluster, DOWNGRADE, &json(&StoredDowngrade { target: stored, enabled }));
        self.downgrade = target;
    }

    fn add(&mut self, write: &mut Write<'_>, member: MemberRecord) -> Result<(), Refused> {
        let id = MemberId(member.id);
        if self.members.contains_key(&id) {
            return Err(Refused::MemberExists);
        }
        if self.url_taken(id, &member.peer_urls) {
            return Err(Refused::PeerUrlExists);
        }
        if member.is_learner && self.learners() >= self.learners_max {
            return Err(Refused::TooManyLearners);
        }
        put(write, &member);
        self.members.insert(id, member);
        Ok(())
    }

    fn promote(&mut self, write: &mut Write<'_>, id: MemberId) -> Result<(), Refused> {
        let record = self.members.get_mut(&id).ok_or(Refused::MemberNotFound)?;
        if !record.is_learner {
            return Err(Refused::MemberNotLearner);
        }
        record.is_learner = false;
        let record = record.clone();
        if !plant::PROMOTION_NOT_STORED.is_planted() {
            put(write, &record);
        }
        Ok(())
    }

    /// The last voter cannot be removed: without one nothing is ever committed again.
    fn remove(&mut self, write: &mut Write<'_>, id: MemberId) -> Result<(), Refused> {
        if !self.members.contains_key(&id) {
            return Err(Refused::MemberNotFound);
        }
        if self.voters().all(|voter| voter.id == id.0) {
            return Err(Refused::NotEnoughStarted);
        }
        self.members.remove(&id);
        self.removed.insert(id);
        write.delete_raw(Cf::Members, key(id).as_bytes());
        write.put_raw(Cf::MembersRemoved, key(id).as_bytes(), REMOVED);
        Ok(())
    }

    fn update(
        &mut self,
        write: &mut Write<'_>,
        id: MemberId,
        urls: Vec<String>,
    ) -> Result<(), Refused> {
        if !self.members.contains_key(&id) {
            return Err(Refused::MemberNotFound);
        }
        if self.url_taken(id, &urls) {
            return Err(Refused::PeerUrlExists);
        }
        let record = self.members.get_mut(&id).ok_or(Refused::MemberNotFound)?;
        record.peer_urls = urls;
        let record = record.clone();
        if !plant::MEMBER_UPDATE_NOT_STORED.is_planted() {
            put(write, &record);
        }
        Ok(())
    }

    fn url_taken(&self, id: MemberId, urls: &[String]) -> bool {
        let others = self.members.values().filter(|m| m.id != id.0);
        others.flat_map(|m| &m.peer_urls).any(|url| urls.contains(url))
    }
}

/// As etcd stores it: JSON in bucket `cluster`.
#[derive(Serialize, Deserialize)]
struct StoredDowngrade {
    #[serde(rename = "target-version", default)]
    target: String,
    #[serde(default)]
    enabled: bool,
}

fn put(write: &mut Write<'_>, record: &MemberRecord) {
    let (key, value) = record.row();
    write.put_raw(Cf::Members, &key, &value);
}

fn context(change: &ConfChange) -> Result<ChangeContext, Refused> {
    serde_json::from_slice(&change.context).map_err(|_| Refused::MemberBadUrls)
}

/// The bucket key: the id in hex without padding.
fn key(id: MemberId) -> String {
    id.to_string()
}

fn parse_key(key: &[u8]) -> Result<MemberId, Fatal> {
    let text = String::from_utf8_lossy(key);
    let id =
        u64::from_str_radix(&text, 16).map_err(|e| Fatal::new(format!("member id {text:?}"), e))?;
    Ok(MemberId(id))
}

/// The configuration change that adds `member`, as it stands in the log.
pub fn add_change(member: &MemberRecord) -> ConfChange {
    let kind = if member.is_learner {
        ConfChangeType::ConfChangeAddLearnerNode
    } else {
        ConfChangeType::ConfChangeAddNode
    };
    change(kind, MemberId(member.id), json(member))
}

/// The change that makes a learner a voter.
pub fn promote_change(id: MemberId) -> ConfChange {
    let member = MemberRecord { id: id.0, ..MemberRecord::default() };
    let context = ChangeContext { member, is_promote: true };
    change(ConfChangeType::ConfChangeAddNode, id, json(&context))
}

/// The change that gives a member other peer URLs.
pub fn update_change(id: MemberId, peer_urls: Vec<String>) -> ConfChange {
    let member = MemberRecord { id: id.0, peer_urls, ..MemberRecord::default() };
    change(ConfChangeType::ConfChangeUpdateNode, id, json(&member))
}

pub fn remove_change(id: MemberId) -> ConfChange {
    change(ConfChangeType::ConfChangeRemoveNode, id, Bytes::new())
}

fn change(kind: ConfChangeType, id: MemberId, context: Bytes) -> ConfChange {
    ConfChange { id: 0, r#type: kind as i32, node_id: id.0, context }
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("a member and a context are plain JSON").into()
}

#[cfg(test)]
mod tests;
