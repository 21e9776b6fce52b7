//! Checkpoints: the leader periodically proposes the remaining time of long leases, so that the next leader,
//! or a restart of all members, does not give them their full time again (etcd 3.7, `lease/lessor.go`,
//! feature gate `LeaseCheckpoint`). A renewal resets the checkpoint before it is answered: otherwise a new
//! leader would end a lease earlier than its holder was promised.

use std::time::Duration;

use quorate_proto::etcdserverpb::{LeaseCheckpoint, LeaseCheckpointRequest};
use tracing::debug;

use crate::error::Error;
use crate::limits::LEASE_CHECKPOINTS_MAX;
use crate::member::Member;
use crate::member::propose::Origin;
use crate::types::{LeaseId, Term};

/// Between two rounds, as in etcd.
const PAUSE: Duration = Duration::from_millis(500);

/// Proposes due checkpoints for as long as the member runs.
pub(super) async fn run(member: Member) {
    while !member.is_stopping() {
        member.0.env.sleep(PAUSE).await;
        // One batch at a time: each waits until the one before has been applied.
        while !member.is_stopping() && member.checkpoint_due().await {}
    }
}

impl Member {
    /// Proposes one batch; returns whether more may be due.
    async fn checkpoint_due(&self) -> bool {
        let (term, due) = {
            let mut clock = self.0.lessor.clock();
            let Some(term) = clock.term() else { return false };
            (term, clock.due(self.0.env.now(), LEASE_CHECKPOINTS_MAX))
        };
        if due.is_empty() {
            return false;
        }
        let (count, ids): (_, Vec<_>) = (due.len(), due.iter().map(|c| LeaseId(c.id)).collect());
        let written = self.propose_checkpoints(due, term).await;
        // A proposal that failed may still be committed.
        self.0.lessor.checkpointed(ids);
        match written {
            Ok(()) => self.metrics().lease_checkpoints.inc_by(count as u64),
            Err(error) => debug!(%error, count, "could not checkpoint leases"),
        }
        count == LEASE_CHECKPOINTS_MAX
    }

    /// Resets the checkpoint of a lease to its full time.
    pub(in crate::member) async fn take_back_checkpoint(
        &self,
        id: LeaseId,
        term: Term,
    ) -> Result<(), Error> {
        let full = LeaseCheckpoint { id: id.0, remaining_ttl: 0 };
        self.propose_checkpoints(vec![full], term).await?;
        self.0.lessor.clock().taken_back(id);
        Ok(())
    }

    async fn propose_checkpoints(
        &self,
        checkpoints: Vec<LeaseCheckpoint>,
        term: Term,
    ) -> Result<(), Error> {
        let request = LeaseCheckpointRequest { checkpoints };
        self.propose(Origin::leader(term), request).await.map(drop)
    }
}
