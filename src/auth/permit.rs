//! Who may do what. Judges requests by the keys they speak of, in etcd's order of checks, so that the
//! refusal is the same too (3.7, `server/etcdserver/apply/auth.go`, `server/auth/store.go`). Changes
//! nothing.

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, request_op::Request as Op,
};

use super::{Auth, Permitted, Principal, ROOT};
use crate::error::{Fatal, Refused};
use crate::mvcc::Outcome;
use crate::plant;
use crate::types::LeaseId;

/// The keys attached to a lease; none when there is no such lease.
pub type Attached<'a> = dyn Fn(LeaseId) -> Result<Vec<Bytes>, Fatal> + 'a;

/// Unwraps a judgement, or passes the refusal on.
macro_rules! permit {
    ($judged:expr) => {
        if let Err(refused) = $judged {
            return Ok(Err(refused));
        }
    };
}

impl Auth {
    /// Whether `who` is somebody at all.
    pub fn is_user(&self, who: &Principal) -> Result<(), Refused> {
        // A certificate without a name is a caller without a name, who passes as in etcd.
        if self.enabled && who.revision == 0 {
            return Err(Refused::UserEmpty);
        }
        Ok(())
    }

    /// Whether `who` has the root role. At whatever revision: as in etcd.
    pub fn is_admin(&self, who: &Principal) -> Result<(), Refused> {
        if !self.enabled {
            return Ok(());
        }
        if who.user.is_empty() {
            return Err(Refused::UserEmpty);
        }
        let user = self.users.get(&who.user).ok_or(Refused::UserNotFound)?;
        match user.roles.iter().any(|role| role == ROOT) {
            true => Ok(()),
            false => Err(Refused::PermissionDenied),
        }
    }

    /// Whether `who` may be told of a user: an admin, or the user itself.
    pub fn may_see_user(&self, who: &Principal, user: &str) -> Result<(), Refused> {
        self.is_admin(who).or_else(|refused| match who.user == user {
            true => Ok(()),
            false => Err(refused),
        })
    }

    /// Whether `who` may be told of a role: an admin, or whoever has it.
    pub fn may_see_role(&self, who: &Principal, role: &str) -> Result<(), Refused> {
        self.is_admin(who).or_else(|refused| {
            let own = self.users.get(&who.user);
            match own.is_some_and(|own| own.roles.iter().any(|it| it == role)) {
                true => Ok(()),
                false => Err(refused),
            }
        })
    }

    pub fn may_read(&self, who: &Principal, key: &[u8], range_end: &[u8]) -> Result<(), Refused> {
        self.may(who, key, range_end, |permitted| &permitted.read)
    }

    pub fn may_write(&self, who: &Principal, key: &[u8], range_end: &[u8]) -> Result<(), Refused> {
        self.may(who, key, range_end, |permitted| &permitted.write)
    }

    /// A lease may be attached to, or ended, by whoever may write all keys attached to it.
    pub fn may_end_lease(
        &self,
        who: &Principal,
        lease: i64,
        attached: &Attached<'_>,
    ) -> Outcome<()> {
        if lease == 0 || self.is_admin(who).is_ok() {
            return Ok(Ok(()));
        }
        for key in attached(LeaseId(lease))? {
            permit!(self.may_write(who, &key, b""));
        }
        Ok(Ok(()))
    }

    pub fn may_put(
        &self,
        who: &Principal,
        put: &PutRequest,
        attached: &Attached<'_>,
    ) -> Outcome<()> {
        permit!(self.may_write(who, &put.key, b""));
        permit!(self.may_end_lease(who, put.lease, attached)?);
        if put.prev_kv {
            permit!(self.may_read(who, &put.key, b""));
        }
        Ok(Ok(()))
    }

    pub fn may_delete(&self, who: &Principal, delete: &DeleteRangeRequest) -> Result<(), Refused> {
        self.may_write(who, &delete.key, &delete.range_end)?;
        if delete.prev_kv {
            self.may_read(who, &delete.key, &delete.range_end)?;
        }
        Ok(())
    }

    /// Both branches count, whichever is taken, and so do the txns among their operations.
    pub fn may_txn(
        &self,
        who: &Principal,
        txn: &TxnRequest,
        attached: &Attached<'_>,
    ) -> Outcome<()> {
        for compare in &txn.compare {
            permit!(self.may_read(who, &compare.key, &compare.range_end));
        }
        for op in txn.success.iter().chain(&txn.failure) {
            permit!(self.may_op(who, op, attached)?);
        }
        Ok(Ok(()))
    }

    fn may_op(&self, who: &Principal, op: &RequestOp, attached: &Attached<'_>) -> Outcome<()> {
        match &op.request {
            Some(Op::RequestRange(range)) => Ok(self.may_read(who, &range.key, &range.range_end)),
            Some(Op::RequestPut(put)) => self.may_put(who, put, attached),
            Some(Op::RequestDeleteRange(delete)) => Ok(self.may_delete(who, delete)),
            Some(Op::RequestTxn(_)) if plant::NESTED_TXN_UNJUDGED.is_planted() => Ok(Ok(())),
            Some(Op::RequestTxn(txn)) => self.may_txn(who, txn, attached),
            None => Ok(Ok(())),
        }
    }

    fn may(
        &self,
        who: &Principal,
        key: &[u8],
        range_end: &[u8],
        granted: impl Fn(&Permitted) -> &super::Intervals,
    ) -> Result<(), Refused> {
        if !self.enabled {
            return Ok(());
        }
        if who.revision == 0 {
            return Err(Refused::UserEmpty);
        }
        if who.revision < self.revision {
            // Planted: what was let in by other permissions needs no judgement any more.
            let accepted = plant::OLD_AUTH_REVISION_ACCEPTED.is_planted();
            return accepted.then_some(()).ok_or(Refused::AuthOldRevision);
        }
        let user = self.users.get(&who.user).ok_or(Refused::PermissionDenied)?;
        if user.roles.iter().any(|role| role == ROOT) {
            return Ok(());
        }
        let permitted = self.permitted.get(&who.user).ok_or(Refused::PermissionDenied)?;
        let granted = granted(permitted);
        let is = match range_end {
            [] => granted.contains(key),
            [0] if plant::OPEN_RANGE_AS_ONE_KEY.is_planted() => granted.contains(key),
            [0] => granted.covers(key, None),
            end => granted.covers(key, Some(end)),
        };
        is.then_some(()).ok_or(Refused::PermissionDenied)
    }
}
