//! The state machine: what a committed request does to the state. One match over etcd's
//! `InternalRaftRequest`; the same input gives the same output on every member, so nothing here
//! knows a clock, a random number, a task or a client.
//!
//! Invariants:
//! * Every entry moves the applied index, also one that is refused or does nothing, and in the same
//!   batch as its effects: it is never applied twice, and never half.
//! * A refusal changes nothing.
//!
//! Reading order: this file, [`membership`], [`alarm`], `auth`.

pub mod alarm;
mod auth;
pub mod check;
pub mod membership;
pub mod v2;

use bytes::Bytes;
use prost::Message;
use quorate_proto::authpb::Permission;
use quorate_proto::etcdserverpb::{
    AlarmMember, AlarmType, CompactionRequest, DeleteRangeResponse, InternalRaftRequest,
    LeaseCheckpointRequest, LeaseGrantRequest, PutResponse, RangeResponse, RequestOp, TxnRequest,
    TxnResponse, request_op::Request as Op,
};
use quorate_proto::raftpb::{ConfChange, ConfState, Entry, EntryType};

use crate::auth::Auth;
use crate::engine::Cf;
use crate::error::{Error, Fatal, Refused};
use crate::lease::Leases;
use crate::mvcc::{Store, View, Write};
use crate::plant;
use crate::types::{Index, LeaseId, MemberId, Term};
use alarm::Alarms;
use check::Broken;
use membership::{MemberRecord, Membership};

/// What a request that was carried out answers. Headers carry a revision and nothing else.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Range(RangeResponse),
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    LeaseGrant {
        id: LeaseId,
        ttl: i64,
    },
    Alarm(Vec<AlarmMember>),
    /// The members after a configuration change.
    Members(Vec<MemberRecord>),
    AuthStatus {
        enabled: bool,
        revision: u64,
    },
    /// A login at this auth revision. The token is empty when it is not kept but signed.
    Authenticated {
        revision: u64,
        token: String,
    },
    /// Users, roles, or the roles of a user.
    Names(Vec<String>),
    /// The permissions of a role.
    Permissions(Vec<Permission>),
    /// Done; there is nothing to tell.
    Done,
}

/// What the rest of the member must hear about an applied entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    LeaseGranted(LeaseId, i64),
    LeaseRevoked(LeaseId),
    Alarms,
    Members,
    /// Users, roles or permissions.
    Auth,
    /// And whoever holds this user's tokens must log in again.
    UserTokensEnd(String),
    /// And whoever holds any token must.
    TokensEnd,
    TokenGiven {
        user: String,
        token: String,
    },
}

/// All replicated state, in the hands of the one task that applies.
pub struct StateMachine {
    store: Store,
    leases: Leases,
    pub members: Membership,
    pub alarms: Alarms,
    pub auth: Auth,
}

/// A committed entry, decoded.
pub enum Command {
    /// A new leader's first entry, or one whose proposer had nothing to say.
    Nothing,
    Request(Box<InternalRaftRequest>),
    Change(ConfChange),
}

impl Command {
    /// An entry that does not decode was written by no version that this one can follow.
    pub fn decode(entry: &Entry) -> Result<Self, Fatal> {
        let broken = |e: Broken| {
            let (index, bytes) = (entry.index, entry.data.len());
            let remedy = "this member cannot go on from its own log; remove its data and add it again, \
                          so that it starts from another member's snapshot, or restore a backup";
            Fatal::new(format!("log entry {index} of {bytes} bytes does not decode ({remedy})"), e)
        };
        match entry.r#type() {
            EntryType::EntryNormal if entry.data.is_empty() => Ok(Self::Nothing),
            EntryType::EntryNormal => {
                let (request, old) = match check::request(&entry.data) {
                    Ok(request) => (Ok(request), v2::decode_inside(&entry.data)),
                    Err(error) => (Err(error), v2::decode(&entry.data)),
                };
                match old {
                    Some(v2::Meaning::Request(request)) => Ok(Self::Request(request)),
                    Some(v2::Meaning::Nothing) => Ok(Self::Nothing),
                    None => Ok(Self::Request(Box::new(request.map_err(broken)?))),
                }
            }
            EntryType::EntryConfChange => {
                let change =
                    ConfChange::decode(entry.data.clone()).map_err(|e| broken(e.into()))?;
                Ok(Self::Change(change))
            }
            EntryType::EntryConfChangeV2 => Err(Fatal::new(
                format!("entry {}", entry.index),
                "joint configuration changes are never proposed by etcd or by us",
            )),
        }
    }
}

/// What one entry came to.
pub type Outcome = Result<(Reply, Option<Notice>), Error>;

impl StateMachine {
    /// Takes the state as `store` has it.
    pub fn load(store: &Store) -> Result<Self, Fatal> {
        Ok(Self {
            store: store.clone(),
            leases: if plant::LEASES_NOT_LOADED.is_planted() {
                Leases::default()
            } else {
                Leases::load(store)?
            },
            members: Membership::load(store)?,
            alarms: Alarms::load(store)?,
            auth: Auth::load(store)?,
        })
    }

    /// Shorter leases are raised to this at apply: another member's proposal may carry less.
    #[must_use]
    pub fn with_lease_ttl_min(self, ttl_min_s: i64) -> Self {
        Self { leases: self.leases.with_ttl_min(ttl_min_s), ..self }
    }

    /// No change makes more members learners than this.
    #[must_use]
    pub fn with_learners_max(mut self, learners_max: usize) -> Self {
        self.members.learners_max = learners_max;
        self
    }

    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Carries out one request. The caller has begun the entry on `write`.
    pub fn apply(
        &mut self,
        write: &mut Write<'_>,
        request: InternalRaftRequest,
    ) -> Result<Outcome, Fatal> {
        let done = |reply| Ok((reply, None));
        if let Some(refused) = self.alarmed(&request) {
            return Ok(Err(refused.into()));
        }
        let who = auth::principal(request.header.as_ref());
        if let Err(refused) = self.permitted(write, &who, &request)? {
            return Ok(refuse(refused));
        }
        if let Some(outcome) = self.about_auth(write, &request) {
            return Ok(outcome);
        }
        let outcome = if let Some(put) = request.put {
            write.put(&put)?.map(Reply::Put).map_or_else(refuse, done)
        } else if let Some(txn) = request.txn {
            write.txn(&txn)?.map(Reply::Txn).map_or_else(refuse, done)
        } else if let Some(range) = request.range {
            write.range(&range)?.map(Reply::Range).map_or_else(refuse, done)
        } else if let Some(delete) = request.delete_range {
            write.delete_range(&delete)?.map(Reply::DeleteRange).map_or_else(refuse, done)
        } else if let Some(CompactionRequest { revision, .. }) = request.compaction {
            write.compact(revision)?.map(|()| Reply::Done).map_or_else(refuse, done)
        } else if let Some(LeaseGrantRequest { id, ttl }) = request.lease_grant {
            let id = LeaseId(id);
            match self.leases.grant(write, id, ttl) {
                Ok(ttl) => Ok((Reply::LeaseGrant { id, ttl }, Some(Notice::LeaseGranted(id, ttl)))),
                Err(refused) => refuse(refused),
            }
        } else if let Some(revoke) = request.lease_revoke {
            let id = LeaseId(revoke.id);
            match self.leases.revoke(write, id)? {
                Ok(()) => Ok((Reply::Done, Some(Notice::LeaseRevoked(id)))),
                Err(refused) => refuse(refused),
            }
        } else if let Some(LeaseCheckpointRequest { checkpoints }) = request.lease_checkpoint {
            self.leases.checkpoint(write, &checkpoints);
            done(Reply::Done)
        } else if let Some(alarm) = request.alarm {
            let alarms = self.alarms.apply(write, &alarm);
            Ok((Reply::Alarm(alarms), Some(Notice::Alarms)))
        } else if let Some(set) = request.cluster_version_set {
            self.members.set_version(write, set.ver);
            Ok((Reply::Done, Some(Notice::Members)))
        } else if let Some(set) = request.downgrade_info_set {
            self.members.set_downgrade(write, Some(set.ver).filter(|_| set.enabled));
            Ok((Reply::Done, Some(Notice::Members)))
        } else if request.downgrade_version_test.is_some() {
            // An entry that older releases cannot read, and nothing else.
            done(Reply::Done)
        } else if let Some(set) = request.cluster_member_attr_set {
            let attributes = set.member_attributes.unwrap_or_default();
            let id = MemberId(set.member_id);
            self.members.publish(write, id, attributes.name, attributes.client_urls);
            Ok((Reply::Done, Some(Notice::Members)))
        } else {
            // What we do not serve, we never propose; another member of the cluster may.
            return Err(Fatal::new(
                format!("request {:?}", request.header),
                "a kind of request that this version cannot apply",
            ));
        };
        Ok(outcome)
    }

    /// Carries out a configuration change on the member table. A refusal means that consensus must
    /// be given a change of nobody.
    pub fn change(&mut self, write: &mut Write<'_>, change: &ConfChange) -> Result<(), Refused> {
        self.members.apply(write, change)
    }

    /// Writes what consensus needs to know at the next start, in etcd's form (bucket `meta`).
    pub fn remember_conf_state(write: &mut Write<'_>, state: &ConfState) {
        if plant::CONF_STATE_LEFT_OUT.is_planted() {
            return;
        }
        let (key, value) = Self::conf_state_row(state);
        write.put_raw(Cf::Meta, &key, &value);
    }

    /// How the configuration stands in bucket `meta`.
    pub fn conf_state_row(state: &ConfState) -> (Bytes, Bytes) {
        let stored =
            StoredConfState { voters: state.voters.clone(), learners: state.learners.clone() };
        let json = serde_json::to_vec(&stored).expect("two lists of numbers are plain JSON");
        (Bytes::from_static(CONF_STATE), json.into())
    }

    /// The configuration as of the applied index; empty before the first entry.
    pub fn conf_state(view: &View) -> Result<ConfState, Fatal> {
        let Some(value) = view.get(Cf::Meta, CONF_STATE)? else { return Ok(ConfState::default()) };
        let json: StoredConfState = serde_json::from_slice(&value)
            .map_err(|e| Fatal::new("the stored configuration does not decode", e))?;
        Ok(ConfState { voters: json.voters, learners: json.learners, ..ConfState::default() })
    }

    /// etcd's answer to writes while an alarm stands. A txn counts by both its branches.
    fn alarmed(&self, request: &InternalRaftRequest) -> Option<Refused> {
        if self.alarms.stands(AlarmType::Corrupt) && touches_keys(request) {
            return Some(Refused::Corrupt);
        }
        let grows = request.put.is_some()
            || request.lease_grant.is_some()
            || request.txn.as_ref().is_some_and(puts);
        let full =
            self.alarms.stands(AlarmType::Nospace) && !plant::QUOTA_NOT_ENFORCED.is_planted();
        (grows && full).then_some(Refused::NoSpace)
    }

    pub fn store(&self) -> &Store {
        &self.store
    }
}

/// Where an entry stands, for [`Write::start_entry`].
pub fn position(entry: &Entry) -> (Index, Term) {
    (Index(entry.index), Term(entry.term))
}

const CONF_STATE: &[u8] = b"confState";

/// Unset lists are left out, as etcd 3.7 does.
#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
struct StoredConfState {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    voters: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    learners: Vec<u64>,
}

fn refuse(refused: Refused) -> Outcome {
    Err(refused.into())
}

fn touches_keys(request: &InternalRaftRequest) -> bool {
    request.range.is_some()
        || request.put.is_some()
        || request.delete_range.is_some()
        || request.txn.is_some()
        || request.compaction.is_some()
        || request.lease_grant.is_some()
        || request.lease_revoke.is_some()
}

/// Whether any branch of the tree puts, taken or not.
fn puts(txn: &TxnRequest) -> bool {
    let op_puts = |op: &RequestOp| match &op.request {
        Some(Op::RequestPut(_)) => true,
        Some(Op::RequestTxn(nested)) => puts(nested),
        _ => false,
    };
    txn.success.iter().chain(&txn.failure).any(op_puts)
}
