//! Checkpoints: as leader, writes down now and then how much is left of long leases, so that a leader
//! after it, or a restart of all members, does not give them their full time again (etcd 3.7,
//! `lease/lessor.go`, feature gate `LeaseCheckpoint`). A renewal takes back what was written down before
//! it is answered: otherwise a new leader would end a lease that its holder was promised.

use std::time::Duration;

use quorate_proto::etcdserverpb::{LeaseCheckpoint, LeaseCheckpointRequest};
use tracing::debug;

use crate::error::Error;
use crate::limits::LEASE_CHECKPOINTS_MAX;
use crate::member::Member;
use crate::member::propose::Origin;
use crate::types::{LeaseId, Term};

/// Between two looks, as etcd has it.
const PAUSE: Duration = Duration::from_millis(500);

/// Writes down what is due for as long as the member runs.
pub(super) async fn run(member: Member) {
    while !member.is_stopping() {
        member.0.env.sleep(PAUSE).await;
        // One batch after the other: each waits until the log has taken the one before.
        while !member.is_stopping() && member.checkpoint_due().await {}
    }
}

impl Member {
    /// Writes one batch down; tells whether there may be more to do at once.
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
        // One that failed may still come to be.
        self.0.lessor.checkpointed(ids);
        match written {
            Ok(()) => self.metrics().lease_checkpoints.inc_by(count as u64),
            Err(error) => debug!(%error, count, "could not checkpoint leases"),
        }
        count == LEASE_CHECKPOINTS_MAX
    }

    /// Makes the log forget that less than a lease's full time is left.
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
