//! The state machine: what a committed request does to the state. One match over [`Request`]; the same
//! input gives the same output on every member, so nothing here knows a clock, a random number, a task or a
//! client.
//!
//! Invariants:
//! * Every entry moves the applied index, also one that is refused or does nothing, and in the same
//!   batch as its effects: it is never applied twice, and never half.
//! * A refusal changes nothing.
//! * Everything that has to be decided about a command is decided by a match without a wildcard: a new
//!   command does not compile before.
//!
//! Reading order: [`request`] (the commands), this file, `auth`, [`membership`], [`alarm`], [`planted`].

pub mod alarm;
mod auth;
pub mod check;
pub mod membership;
pub mod planted;
pub mod release;
pub mod request;
pub mod v2;

use bytes::Bytes;
use prost::Message;
use quorate_proto::etcdserverpb::{AlarmResponse, AlarmType, LeaseGrantResponse, RequestHeader};
use quorate_proto::raftpb::{ConfChange, ConfState, Entry, EntryType};

use crate::auth::Auth;
use crate::engine::Cf;
use crate::error::{Error, Fatal, Refused};
use crate::lease::Leases;
use crate::mvcc::{self, Store, View, Write};
use crate::plant;
use crate::types::{Index, LeaseId, MemberId, Term};
use alarm::Alarms;
use check::Broken;
use membership::Membership;
use planted::{judged, judged_caller};

pub use release::Release;
pub use request::{Proposable, Reply, Request, Weight};

/// What the rest of the member must know of an applied entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    LeaseGranted(LeaseId, i64),
    LeaseRevoked(LeaseId),
    Alarms,
    Members,
    /// Users, roles or permissions.
    Auth,
    /// As [`Self::Auth`], and the tokens of this user are no longer valid.
    UserTokensEnd(String),
    /// As [`Self::Auth`], and no token is valid any more.
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
    release: Release,
}

/// A committed entry, decoded.
pub enum Command {
    /// A new leader's first entry, or one proposed empty.
    Nothing,
    Request(RequestHeader, Request),
    Change(ConfChange),
}

impl Command {
    /// Decodes an entry; the one place that knows what may stand in one. What does not decode was written
    /// by a version that this one cannot follow.
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
                let old = match check::request(&entry.data) {
                    Ok((header, Some(request))) => return Ok(Self::Request(header, request)),
                    Ok((header, None)) => v2::decode_inside(&entry.data).ok_or_else(|| {
                        // Never proposed by this version; another member of the cluster may.
                        Fatal::new(
                            format!("entry {}, request {}", entry.index, header.id),
                            "a kind of request that this version cannot apply",
                        )
                    })?,
                    Err(error) => v2::decode(&entry.data).ok_or_else(|| broken(error))?,
                };
                Ok(match old {
                    v2::Meaning::Request(header, request) => Self::Request(header, request),
                    v2::Meaning::Nothing => Self::Nothing,
                })
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

/// The result of one entry.
pub type Outcome = Result<(Reply, Option<Notice>), Error>;

impl StateMachine {
    /// Loads the state from `store`.
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
            release: Release::default(),
        })
    }

    /// Raises shorter leases to this at apply: another member's proposal may carry less.
    #[must_use]
    pub fn with_lease_ttl_min(self, ttl_min_s: i64) -> Self {
        Self { leases: self.leases.with_ttl_min(ttl_min_s), ..self }
    }

    /// Bounds the number of learners.
    #[must_use]
    pub fn with_learners_max(mut self, learners_max: usize) -> Self {
        self.members.learners_max = learners_max;
        self
    }

    /// Applies as this release does.
    #[must_use]
    pub fn with_release(self, release: Release) -> Self {
        Self { release, ..self }
    }

    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Carries out one request. The caller has begun the entry on `write`.
    pub fn apply(
        &mut self,
        write: &mut Write<'_>,
        header: RequestHeader,
        request: Request,
    ) -> Result<Outcome, Fatal> {
        if let Err(refused) = self.admitted(write, header, &request)? {
            return Ok(refuse(refused));
        }
        Ok(match request {
            Request::Put(put) => plain(write.put(&put)?.map(Reply::Put)),
            Request::Txn(txn) => plain(write.txn(&txn)?.map(Reply::Txn)),
            Request::Range(range) => plain(write.range(&range)?.map(Reply::Range)),
            Request::DeleteRange(delete) => {
                plain(write.delete_range(&delete)?.map(Reply::DeleteRange))
            }
            Request::Compaction(compaction) => {
                let done = write.compact(compaction.revision)?;
                plain(done.map(|()| Reply::Compaction(Default::default())))
            }
            Request::LeaseGrant(grant) => {
                let id = LeaseId(grant.id);
                let granted = self.leases.grant(write, id, grant.ttl).map(|ttl| {
                    let reply = LeaseGrantResponse { id: id.0, ttl, ..Default::default() };
                    (Reply::LeaseGrant(reply), Some(Notice::LeaseGranted(id, ttl)))
                });
                granted.map_err(Error::from)
            }
            Request::LeaseRevoke(revoke) => {
                let id = LeaseId(revoke.id);
                let done = self.leases.revoke(write, id)?;
                let reply = Reply::LeaseRevoke(Default::default());
                changed(done, reply, Notice::LeaseRevoked(id))
            }
            Request::LeaseCheckpoint(request) => {
                self.leases.checkpoint(write, &request.checkpoints);
                plain(Ok(Reply::LeaseCheckpoint(Default::default())))
            }
            Request::Alarm(alarm) => {
                let alarms = self.alarms.apply(write, &alarm);
                let reply = Reply::Alarm(AlarmResponse { header: None, alarms });
                changed(Ok(()), reply, Notice::Alarms)
            }
            Request::ClusterVersionSet(set) => {
                self.members.set_version(write, set.ver);
                changed(Ok(()), Reply::ClusterVersionSet(Default::default()), Notice::Members)
            }
            Request::DowngradeInfoSet(set) => {
                self.members.set_downgrade(write, Some(set.ver).filter(|_| set.enabled));
                changed(Ok(()), Reply::DowngradeInfoSet(Default::default()), Notice::Members)
            }
            // An entry that older releases cannot read, and nothing else.
            Request::DowngradeVersionTest(_) => {
                plain(Ok(Reply::DowngradeVersionTest(Default::default())))
            }
            Request::ClusterMemberAttrSet(set) => {
                let attributes = set.member_attributes.unwrap_or_default();
                let id = MemberId(set.member_id);
                self.members.publish(write, id, attributes.name, attributes.client_urls);
                changed(Ok(()), Reply::ClusterMemberAttrSet(Default::default()), Notice::Members)
            }
            Request::Authenticate(login) => self.authenticate(write, login),
            Request::AuthStatus(_) => self.auth_status(),
            Request::AuthEnable(_) => {
                let done = self.auth.enable(write);
                changed(done, Reply::AuthEnable(Default::default()), Notice::Auth)
            }
            Request::AuthDisable(_) => {
                let ended = self.auth.disable(write);
                let notice = if ended { Notice::TokensEnd } else { Notice::Auth };
                changed(Ok(()), Reply::AuthDisable(Default::default()), notice)
            }
            Request::AuthUserAdd(add) => {
                let done = self.auth.user_add(write, &add);
                changed(done, Reply::AuthUserAdd(Default::default()), Notice::Auth)
            }
            Request::AuthUserDelete(delete) => {
                let done = self.auth.user_delete(write, &delete.name);
                let reply = Reply::AuthUserDelete(Default::default());
                changed(done, reply, Notice::UserTokensEnd(delete.name))
            }
            Request::AuthUserChangePassword(change) => {
                let done = self.auth.user_change_password(write, &change);
                let reply = Reply::AuthUserChangePassword(Default::default());
                changed(done, reply, Notice::UserTokensEnd(change.name))
            }
            Request::AuthUserGrantRole(grant) => {
                let done = self.auth.user_grant_role(write, &grant.user, &grant.role);
                changed(done, Reply::AuthUserGrantRole(Default::default()), Notice::Auth)
            }
            Request::AuthUserRevokeRole(revoke) => {
                let done = self.auth.user_revoke_role(write, &revoke.name, &revoke.role);
                changed(done, Reply::AuthUserRevokeRole(Default::default()), Notice::Auth)
            }
            Request::AuthRoleAdd(add) => {
                let done = self.auth.role_add(write, &add.name);
                changed(done, Reply::AuthRoleAdd(Default::default()), Notice::Auth)
            }
            Request::AuthRoleDelete(delete) => {
                let done = self.auth.role_delete(write, &delete.role);
                changed(done, Reply::AuthRoleDelete(Default::default()), Notice::Auth)
            }
            Request::AuthRoleGrantPermission(grant) => {
                let done = self.auth.role_grant_permission(write, &grant);
                changed(done, Reply::AuthRoleGrantPermission(Default::default()), Notice::Auth)
            }
            Request::AuthRoleRevokePermission(revoke) => {
                let done = self.auth.role_revoke_permission(write, &revoke);
                changed(done, Reply::AuthRoleRevokePermission(Default::default()), Notice::Auth)
            }
            Request::AuthUserGet(get) => plain(self.user(&get.name)),
            Request::AuthRoleGet(get) => plain(self.role(&get.role)),
            Request::AuthUserList(_) => plain(Ok(self.users())),
            Request::AuthRoleList(_) => plain(Ok(self.roles())),
        })
    }

    /// Carries out a configuration change on the member table. After a refusal a change of node 0 must
    /// be applied to the configuration.
    pub fn change(&mut self, write: &mut Write<'_>, change: &ConfChange) -> Result<(), Refused> {
        self.members.apply(write, change)
    }

    /// Writes the configuration for the next start, in etcd's form (bucket `meta`).
    pub fn remember_conf_state(write: &mut Write<'_>, state: &ConfState) {
        if plant::CONF_STATE_LEFT_OUT.is_planted() {
            return;
        }
        let (key, value) = Self::conf_state_row(state);
        write.put_raw(Cf::Meta, &key, &value);
    }

    /// The row of the configuration in bucket `meta`.
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

    /// Whether the request is applied: neither an alarm nor missing permissions prevent it.
    fn admitted(
        &self,
        write: &Write<'_>,
        header: RequestHeader,
        request: &Request,
    ) -> mvcc::Outcome<()> {
        if let Some(refused) = self.alarmed(request) {
            return Ok(Err(refused));
        }
        let caller = auth::principal(header);
        let (judged, caller) = (judged(request), judged_caller(&self.auth, &caller));
        self.permitted(write, &caller, &judged)
    }

    /// etcd's answer to requests while an alarm stands.
    fn alarmed(&self, request: &Request) -> Option<Refused> {
        if self.alarms.stands(AlarmType::Corrupt) && request.touches_keys() {
            return Some(Refused::Corrupt);
        }
        let full =
            self.alarms.stands(AlarmType::Nospace) && !plant::QUOTA_NOT_ENFORCED.is_planted();
        (full && request.grows()).then_some(Refused::NoSpace)
    }

    pub fn store(&self) -> &Store {
        &self.store
    }
}

/// The position of an entry, for [`Write::start_entry`].
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

/// The outcome of a command of which nothing has to be published.
fn plain(done: Result<Reply, Refused>) -> Outcome {
    Ok((done?, None))
}

/// The outcome of a command whose effect is published with `notice`.
fn changed(done: Result<(), Refused>, reply: Reply, notice: Notice) -> Outcome {
    done?;
    Ok((reply, Some(notice)))
}
