//! Implements the endpoints' view of a server for a running member.

use std::time::Duration;

use quorate_proto::etcdserverpb::{AlarmMember, RangeRequest};

use super::vars::Raft;
use super::{Served, Versions, rows};
use crate::env::BoxFuture;
use crate::error::Error;
use crate::member::{Caller, Member};
use crate::metrics::{Metrics, Row};
use crate::replica::Role;
use crate::types::Revision;

impl Served for Member {
    fn versions(&self) -> Versions {
        Versions {
            server: self.version(),
            cluster: self.cluster_version(),
            storage: Some(self.storage_version()),
        }
    }

    fn alarms(&self) -> Vec<AlarmMember> {
        Member::alarms(self).list()
    }

    fn has_leader(&self) -> bool {
        Member::has_leader(self)
    }

    fn is_learner(&self) -> bool {
        Member::is_learner(self)
    }

    fn revision_before(&self, ago: Duration) -> Option<Revision> {
        Member::revision_before(self, ago)
    }

    fn has_users(&self) -> bool {
        self.auth().is_enabled()
    }

    /// Learners read, too: a separate check distinguishes them.
    fn read(&self, serializable: bool) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            if !serializable {
                self.linearizable().await?;
            }
            let one = RangeRequest {
                key: bytes::Bytes::from_static(b"\0"),
                limit: 1,
                keys_only: true,
                serializable: true,
                ..RangeRequest::default()
            };
            // Health checks need no credentials.
            self.range(&Caller::internal(), one).await.map(drop)
        })
    }

    fn raft(&self) -> BoxFuture<'_, Raft> {
        Box::pin(async move {
            let status = Member::raft(self);
            Raft {
                id: status.id,
                term: status.term.0,
                commit: status.commit.0,
                applied: status.applied.0,
                leader: status.leader,
                state: match status.role {
                    Role::Follower => "StateFollower",
                    Role::PreCandidate => "StatePreCandidate",
                    Role::Candidate => "StateCandidate",
                    Role::Leader => "StateLeader",
                },
                progress: self.progress().await,
            }
        })
    }

    fn metrics(&self) -> &Metrics {
        Member::metrics(self)
    }

    fn rows(&self) -> Vec<Row> {
        rows::rows(self)
    }
}
