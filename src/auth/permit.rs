//! Permission checks of requests by their keys, in etcd's order, so that the refusal is the same too (3.7,
//! `server/etcdserver/apply/auth.go`, `server/auth/store.go`). Changes nothing.

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, request_op::Request as Op,
};

use super::{Auth, Permitted, Principal, ROOT};
use crate::error::{Fatal, Refused};
use crate::mvcc::Outcome;
use crate::types::LeaseId;

/// The keys attached to a lease; none when there is no such lease.
pub type Attached<'a> = dyn Fn(LeaseId) -> Result<Vec<Bytes>, Fatal> + 'a;

/// Continues after a granted permission, or returns the refusal.
macro_rules! permit {
    ($judged:expr) => {
        if let Err(refused) = $judged {
            return Ok(Err(refused));
        }
    };
}

impl Auth {
    /// Whether `principal` is authenticated. A certificate without a common name is a caller without a name,
    /// which passes, as in etcd.
    pub fn is_user(&self, principal: &Principal) -> Result<(), Refused> {
        if self.enabled && principal.revision == 0 {
            return Err(Refused::UserEmpty);
        }
        Ok(())
    }

    /// Whether `principal` has the root role; as in etcd, the revision does not matter.
    pub fn is_admin(&self, principal: &Principal) -> Result<(), Refused> {
        if !self.enabled {
            return Ok(());
        }
        if principal.user.is_empty() {
            return Err(Refused::UserEmpty);
        }
        let user = self.users.get(&principal.user).ok_or(Refused::UserNotFound)?;
        match user.roles.iter().any(|role| role == ROOT) {
            true => Ok(()),
            false => Err(Refused::PermissionDenied),
        }
    }

    /// Whether `principal` may read a user: an admin, or the user itself.
    pub fn may_see_user(&self, principal: &Principal, user: &str) -> Result<(), Refused> {
        self.is_admin(principal).or_else(|refused| match principal.user == user {
            true => Ok(()),
            false => Err(refused),
        })
    }

    /// Whether `principal` may read a role: an admin, or a user that has it.
    pub fn may_see_role(&self, principal: &Principal, role: &str) -> Result<(), Refused> {
        self.is_admin(principal).or_else(|refused| {
            let own = self.users.get(&principal.user);
            match own.is_some_and(|own| own.roles.iter().any(|it| it == role)) {
                true => Ok(()),
                false => Err(refused),
            }
        })
    }

    pub fn may_read(
        &self,
        principal: &Principal,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), Refused> {
        self.may(principal, key, range_end, |permitted| &permitted.read)
    }

    pub fn may_write(
        &self,
        principal: &Principal,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), Refused> {
        self.may(principal, key, range_end, |permitted| &permitted.write)
    }

    /// Attaching to a lease and revoking it take the permission to write all keys attached to it.
    pub fn may_end_lease(
        &self,
        principal: &Principal,
        lease: i64,
        attached: &Attached<'_>,
    ) -> Outcome<()> {
        if lease == 0 || self.is_admin(principal).is_ok() {
            return Ok(Ok(()));
        }
        for key in attached(LeaseId(lease))? {
            permit!(self.may_write(principal, &key, b""));
        }
        Ok(Ok(()))
    }

    pub fn may_put(
        &self,
        principal: &Principal,
        put: &PutRequest,
        attached: &Attached<'_>,
    ) -> Outcome<()> {
        permit!(self.may_write(principal, &put.key, b""));
        permit!(self.may_end_lease(principal, put.lease, attached)?);
        if put.prev_kv {
            permit!(self.may_read(principal, &put.key, b""));
        }
        Ok(Ok(()))
    }

    pub fn may_delete(
        &self,
        principal: &Principal,
        delete: &DeleteRangeRequest,
    ) -> Result<(), Refused> {
        self.may_write(principal, &delete.key, &delete.range_end)?;
        if delete.prev_kv {
            self.may_read(principal, &delete.key, &delete.range_end)?;
        }
        Ok(())
    }

    /// Both branches count, whichever is taken, and so do the txns among their operations.
    pub fn may_txn(
        &self,
        principal: &Principal,
        txn: &TxnRequest,
        attached: &Attached<'_>,
    ) -> Outcome<()> {
        for compare in &txn.compare {
            permit!(self.may_read(principal, &compare.key, &compare.range_end));
        }
        for op in txn.success.iter().chain(&txn.failure) {
            permit!(self.may_op(principal, op, attached)?);
        }
        Ok(Ok(()))
    }

    fn may_op(
        &self,
        principal: &Principal,
        op: &RequestOp,
        attached: &Attached<'_>,
    ) -> Outcome<()> {
        match &op.request {
            Some(Op::RequestRange(range)) => {
                Ok(self.may_read(principal, &range.key, &range.range_end))
            }
            Some(Op::RequestPut(put)) => self.may_put(principal, put, attached),
            Some(Op::RequestDeleteRange(delete)) => Ok(self.may_delete(principal, delete)),
            Some(Op::RequestTxn(txn)) => self.may_txn(principal, txn, attached),
            None => Ok(Ok(())),
        }
    }

    fn may(
        &self,
        principal: &Principal,
        key: &[u8],
        range_end: &[u8],
        granted: impl Fn(&Permitted) -> &super::Intervals,
    ) -> Result<(), Refused> {
        if !self.enabled {
            return Ok(());
        }
        if principal.revision == 0 {
            return Err(Refused::UserEmpty);
        }
        if principal.revision < self.revision {
            return Err(Refused::AuthOldRevision);
        }
        let user = self.users.get(&principal.user).ok_or(Refused::PermissionDenied)?;
        if user.roles.iter().any(|role| role == ROOT) {
            return Ok(());
        }
        let permitted = self.permitted.get(&principal.user).ok_or(Refused::PermissionDenied)?;
        let granted = granted(permitted);
        let is = match range_end {
            [] => granted.contains(key),
            [0] => granted.covers(key, None),
            end => granted.covers(key, Some(end)),
        };
        is.then_some(()).ok_or(Refused::PermissionDenied)
    }
}
