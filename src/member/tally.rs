//! Counts what was applied, and names requests, for the metrics. Decides nothing.

use quorate_proto::etcdserverpb::{InternalRaftRequest, TxnResponse, response_op::Response};

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
pub(super) fn applied(
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
        Reply::LeaseGrant { ttl, .. } => {
            metrics.leases_granted.inc();
            metrics.lease_ttl.observe(*ttl as f64);
        }
        _ => {}
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
pub(super) fn read_only_txn(metrics: &Metrics, response: &TxnResponse) {
    let mut operations = Operations::default();
    operations.add_txn(response);
    operations.count(metrics);
}

/// Whether it counts as a success: to have been compacted already does, in etcd.
pub(super) fn succeeded(outcome: &Outcome) -> bool {
    match outcome {
        Err(Error::Refused(refused)) => matches!(refused, Refused::Compacted),
        outcome => outcome.is_ok(),
    }
}

/// The name of a request's kind, as etcd labels it.
pub(super) fn kind(request: &InternalRaftRequest) -> &'static str {
    let kinds = [
        (request.range.is_some(), "Range"),
        (request.put.is_some(), "Put"),
        (request.delete_range.is_some(), "DeleteRange"),
        (request.txn.is_some(), "Txn"),
        (request.compaction.is_some(), "Compaction"),
        (request.lease_grant.is_some(), "LeaseGrant"),
        (request.lease_revoke.is_some(), "LeaseRevoke"),
        (request.lease_checkpoint.is_some(), "LeaseCheckpoint"),
        (request.alarm.is_some(), "Alarm"),
        (request.authenticate.is_some(), "Authenticate"),
        (request.auth_enable.is_some(), "AuthEnable"),
        (request.auth_disable.is_some(), "AuthDisable"),
        (request.auth_status.is_some(), "AuthStatus"),
        (request.auth_user_add.is_some(), "AuthUserAdd"),
        (request.auth_user_delete.is_some(), "AuthUserDelete"),
        (request.auth_user_change_password.is_some(), "AuthUserChangePassword"),
        (request.auth_user_grant_role.is_some(), "AuthUserGrantRole"),
        (request.auth_user_get.is_some(), "AuthUserGet"),
        (request.auth_user_revoke_role.is_some(), "AuthUserRevokeRole"),
        (request.auth_role_add.is_some(), "AuthRoleAdd"),
        (request.auth_role_grant_permission.is_some(), "AuthRoleGrantPermission"),
        (request.auth_role_get.is_some(), "AuthRoleGet"),
        (request.auth_role_revoke_permission.is_some(), "AuthRoleRevokePermission"),
        (request.auth_role_delete.is_some(), "AuthRoleDelete"),
        (request.auth_user_list.is_some(), "AuthUserList"),
        (request.auth_role_list.is_some(), "AuthRoleList"),
        (request.cluster_version_set.is_some(), "ClusterVersionSet"),
        (request.downgrade_info_set.is_some(), "DowngradeInfoSet"),
        (request.cluster_member_attr_set.is_some(), "ClusterMemberAttrSet"),
    ];
    kinds.iter().find(|(is, _)| *is).map_or("Unknown", |(_, name)| name)
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
        assert!(succeeded(&Ok((Reply::Done, None))));
        assert!(succeeded(&Err(Refused::Compacted.into())));
        assert!(!succeeded(&Err(Refused::LeaseNotFound.into())));
    }

    #[test]
    fn a_revoked_lease_deletes_its_keys() {
        let metrics = Metrics::new();
        let revoked = Notice::LeaseRevoked(crate::types::LeaseId(7));
        let gone = Changed::of(2);
        applied(&metrics, &Reply::Done, Some(&revoked), &gone);
        assert_eq!((metrics.leases_revoked.get(), metrics.deletes.get()), (1, 2));
    }
}
