//! Counts applied requests for the metrics.

use quorate_proto::etcdserverpb::{TxnResponse, response_op::Response};

use crate::apply::{Notice, Outcome, Reply};
use crate::error::{Error, Refused};
use crate::metrics::Metrics;
use crate::mvcc::Changed;

/// Operations on keys.
#[derive(Default)]
struct Operations {
    ranges: u64,
    puts: u64,
    deletes: u64,
}

impl Operations {
    fn add_txn(&mut self, txn: &TxnResponse) {
        for op in &txn.responses {
            match &op.response {
                Some(Response::ResponseRange(_)) => self.ranges += 1,
                Some(Response::ResponsePut(_)) => self.puts += 1,
                Some(Response::ResponseDeleteRange(_)) => self.deletes += 1,
                Some(Response::ResponseTxn(nested)) => self.add_txn(nested),
                None => {}
            }
        }
    }

    /// As etcd counts: what came together is also one txn.
    fn count(&self, metrics: &Metrics) {
        if self.ranges + self.puts + self.deletes > 1 {
            metrics.txns.inc();
        }
        for (counter, more) in [
            (&metrics.ranges, self.ranges),
            (&metrics.puts, self.puts),
            (&metrics.deletes, self.deletes),
        ] {
            if more > 0 {
                counter.inc_by(more);
            }
        }
    }
}

/// Counts a request that was carried out.
pub(in crate::member) fn applied(
    metrics: &Metrics,
    reply: &Reply,
    notice: Option<&Notice>,
    changed: &Changed,
) {
    let mut operations = Operations::default();
    match reply {
        Reply::Range(_) => operations.ranges = 1,
        Reply::Put(_) => operations.puts = 1,
        Reply::DeleteRange(_) => operations.deletes = 1,
        Reply::Txn(txn) => operations.add_txn(txn),
        Reply::LeaseGrant(granted) => {
            metrics.leases_granted.inc();
            metrics.lease_ttl.observe(granted.ttl as f64);
        }
        Reply::Compaction(_)
        | Reply::LeaseRevoke(_)
        | Reply::LeaseCheckpoint(_)
        | Reply::Alarm(_)
        | Reply::Authenticate(_)
        | Reply::AuthEnable(_)
        | Reply::AuthDisable(_)
        | Reply::AuthStatus(_)
        | Reply::AuthUserAdd(_)
        | Reply::AuthUserDelete(_)
        | Reply::AuthUserChangePassword(_)
        | Reply::AuthUserGrantRole(_)
        | Reply::AuthUserGet(_)
        | Reply::AuthUserRevokeRole(_)
        | Reply::AuthUserList(_)
        | Reply::AuthRoleAdd(_)
        | Reply::AuthRoleGrantPermission(_)
        | Reply::AuthRoleGet(_)
        | Reply::AuthRoleRevokePermission(_)
        | Reply::AuthRoleDelete(_)
        | Reply::AuthRoleList(_)
        | Reply::ClusterVersionSet(_)
        | Reply::ClusterMemberAttrSet(_)
        | Reply::DowngradeInfoSet(_)
        | Reply::DowngradeVersionTest(_)
        | Reply::Members(_)
        | Reply::Nothing => {}
    }
    if let Some(Notice::LeaseRevoked(_)) = notice {
        metrics.leases_revoked.inc();
        operations.deletes = changed.count as u64;
    }
    operations.count(metrics);
    metrics
        .put_bytes
        .add(i64::try_from(changed.put_bytes).expect("what is in memory can be counted"));
}

/// Counts a read-only txn that did not go through the log.
pub(in crate::member) fn read_only_txn(metrics: &Metrics, response: &TxnResponse) {
    let mut operations = Operations::default();
    operations.add_txn(response);
    operations.count(metrics);
}

/// Whether it counts as a success: to have been compacted already does, in etcd.
pub(in crate::member) fn succeeded(outcome: &Outcome) -> bool {
    match outcome {
        Err(Error::Refused(refused)) => matches!(refused, Refused::Compacted),
        outcome => outcome.is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_proto::etcdserverpb::{PutResponse, RangeResponse, ResponseOp};

    fn op(response: Response) -> ResponseOp {
        ResponseOp { response: Some(response) }
    }

    #[test]
    fn a_txns_operations_count_and_one_alone_is_no_txn() {
        let metrics = Metrics::new();
        let put = || op(Response::ResponsePut(PutResponse::default()));
        let nested = TxnResponse { responses: vec![put(), put()], ..TxnResponse::default() };
        let range = op(Response::ResponseRange(RangeResponse::default()));
        let responses = vec![range, op(Response::ResponseTxn(nested))];
        let txn = TxnResponse { responses, ..TxnResponse::default() };
        applied(&metrics, &Reply::Txn(txn), None, &Changed::default());
        applied(&metrics, &Reply::Put(PutResponse::default()), None, &Changed::default());
        let counted = (metrics.puts.get(), metrics.ranges.get(), metrics.txns.get());
        assert_eq!(counted, (3, 1, 1));
    }

    #[test]
    fn what_was_compacted_already_is_a_success() {
        assert!(succeeded(&Ok((Reply::Nothing, None))));
        assert!(succeeded(&Err(Refused::Compacted.into())));
        assert!(!succeeded(&Err(Refused::LeaseNotFound.into())));
    }

    #[test]
    fn a_revoked_lease_deletes_its_keys() {
        let metrics = Metrics::new();
        let revoked = Notice::LeaseRevoked(crate::types::LeaseId(7));
        let gone = Changed::of(2);
        applied(&metrics, &Reply::LeaseRevoke(Default::default()), Some(&revoked), &gone);
        assert_eq!((metrics.leases_revoked.get(), metrics.deletes.get()), (1, 2));
    }
}
