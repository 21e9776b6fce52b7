//! Requests about a member as a whole: alarms, hashes, backups, leadership, status.

use std::io;

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, HashKvRequest, HashKvResponse, HashResponse, RangeRequest,
    StatusResponse, alarm_request::AlarmAction,
};
use tokio::sync::mpsc;

use crate::auth::Rule;
use crate::env::Work;
use crate::error::{Error, Refused, Unavailable};
use crate::limits;
use crate::member::propose::Origin;
use crate::member::snapshot;
use crate::member::{Caller, Member};
use crate::metrics::observe;
use crate::replica::Role;
use crate::types::{MemberId, Revision};

impl Member {
    /// Any user may list the alarms; raising and clearing them takes the root role.
    pub async fn alarm(
        &self,
        caller: &Caller,
        request: AlarmRequest,
    ) -> Result<AlarmResponse, Error> {
        let looks = request.action == AlarmAction::Get as i32;
        self.permit(caller, if looks { Rule::User } else { Rule::Root }).await?;
        self.propose(Origin::permitted(caller), request).await
    }

    pub async fn hash_kv(&self, request: HashKvRequest) -> Result<HashKvResponse, Error> {
        let began = self.0.env.now();
        let stored = self.0.hashes.at(Revision(request.revision));
        let hash = match stored {
            Some(stored) => stored,
            None => {
                self.read(Some(Work::Hashes), move |view| view.hash_kv(request.revision)).await?
            }
        };
        observe(&self.0.metrics.hash_kv_seconds, self.0.env.now() - began);
        Ok(HashKvResponse {
            header: Some(self.header()),
            hash: hash.hash,
            compact_revision: hash.compact_revision.0,
            hash_revision: hash.hash_revision.0,
        })
    }

    pub async fn hash(&self) -> Result<HashResponse, Error> {
        let began = self.0.env.now();
        let hash = self.read(Some(Work::Hashes), |view| view.hash().map(Ok)).await?;
        observe(&self.0.metrics.hash_seconds, self.0.env.now() - began);
        Ok(HashResponse { header: Some(self.header()), hash })
    }

    /// The number of keys; `None` when the store cannot be read.
    pub fn keys(&self) -> Option<i64> {
        let all = RangeRequest {
            key: bytes::Bytes::from_static(b"\0"),
            range_end: bytes::Bytes::from_static(b"\0"),
            count_only: true,
            ..RangeRequest::default()
        };
        Some(self.0.store.view().range(&all).ok()?.ok()?.count)
    }

    /// A backup of this member's state: a bbolt file and its hash, as stored by `etcdctl snapshot save`.
    /// Returns the size of the database in bytes, and its pieces; the last piece is the hash.
    pub async fn backup(&self) -> io::Result<(u64, mpsc::Receiver<io::Result<Bytes>>)> {
        let body = snapshot::source(&self.0.env, &self.0.store, snapshot::For::Backup).await?;
        Ok((body.total_bytes.unwrap_or(0), body.chunks))
    }

    /// Transfers leadership to another voter, and waits until it leads.
    pub async fn move_leader(&self, to: MemberId) -> Result<(), Error> {
        let raft = self.raft();
        if raft.role != Role::Leader {
            return Err(Refused::NotLeader.into());
        }
        if self.members().members.get(&to).is_none_or(|member| member.is_learner) {
            return Err(Refused::BadLeaderTransferee.into());
        }
        let mut status = self.0.replica.status();
        let moved = async {
            self.0.replica.transfer_leader(to).await?;
            match status.wait_for(|status| status.leader == to).await {
                Ok(_) => Ok(()),
                Err(_) => Err(Unavailable::Stopped.into()),
            }
        };
        let limit = limits::request_timeout(self.0.options.election_timeout);
        let moved = self.0.env.timeout(limit, moved).await;
        moved.unwrap_or(Err(Unavailable::TransferTimeout.into()))
    }

    pub fn status(&self) -> StatusResponse {
        let raft = self.raft();
        let mut errors = Vec::new();
        if raft.leader == MemberId::NONE {
            errors.push(Unavailable::NoLeader.text().to_owned());
        }
        errors.extend(self.alarms().list().iter().map(|alarm| {
            let kind = alarm.alarm().as_str_name();
            format!("memberID:{} alarm:{kind}", alarm.member_id)
        }));
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        StatusResponse {
            header: Some(self.header()),
            version: self.version().into(),
            // Space is reclaimed automatically, so the size is the size in use. Other figures would raise
            // alerts about a quota that counts live data, or suggest a defragmentation.
            db_size: signed(self.0.store.live_bytes()),
            leader: raft.leader.0,
            raft_index: raft.commit.0,
            raft_term: raft.term.0,
            raft_applied_index: self.0.store.applied().0,
            errors,
            db_size_in_use: signed(self.0.store.live_bytes()),
            is_learner: self.is_learner(),
            storage_version: self.storage_version(),
            db_size_quota: self.0.options.quota_bytes.map_or(-1, signed),
            downgrade_info: Some(self.downgrade_info()),
        }
    }
}
