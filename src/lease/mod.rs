//! Leases as replicated state: which exist, their times to live, the keys attached to them. No clock:
//! the leader decides when a lease has expired, and proposes to revoke it.
//!
//! The table in memory repeats the bucket `lease` (etcd's: id as big-endian i64 ->
//! `leasepb.Lease`); which keys are attached stands in the engine only. Both change in the batch of the
//! entry that changes them.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use quorate_proto::etcdserverpb::LeaseCheckpoint;
use quorate_proto::leasepb;

use crate::engine::Cf;
use crate::error::{Fatal, Refused};
use crate::limits::LEASE_TTL_MAX_S;
use crate::mvcc::{Store, View, Write};
use crate::types::LeaseId;

/// One lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What was granted.
    pub ttl_s: i64,
    /// Remaining time at the last checkpoint; 0 without one.
    pub remaining_s: i64,
}

/// All leases.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    table: BTreeMap<LeaseId, Lease>,
    ttl_min_s: i64,
}

impl Leases {
    /// Reads the table from its bucket.
    pub fn load(store: &Store) -> Result<Self, Fatal> {
        let mut leases = Self::default();
        for lease in list(&store.view())? {
            let entry = Lease { ttl_s: lease.ttl, remaining_s: lease.remaining_ttl };
            leases.table.insert(LeaseId(lease.id), entry);
        }
        Ok(leases)
    }

    /// Shorter leases are raised to this. Must be the same on every member, as etcd requires of the
    /// election timeout that it follows from.
    #[must_use]
    pub fn with_ttl_min(self, ttl_min_s: i64) -> Self {
        Self { ttl_min_s, ..self }
    }

    /// Grants a lease and returns its effective time to live.
    pub fn grant(
        &mut self,
        write: &mut Write<'_>,
        id: LeaseId,
        ttl_s: i64,
    ) -> Result<i64, Refused> {
        if id.0 == 0 {
            return Err(Refused::LeaseNotFound);
        }
        if ttl_s > LEASE_TTL_MAX_S {
            return Err(Refused::LeaseTtlTooLarge);
        }
        if self.table.contains_key(&id) {
            return Err(Refused::LeaseExists);
        }
        let lease = Lease { ttl_s: ttl_s.max(self.ttl_min_s), remaining_s: 0 };
        self.table.insert(id, lease);
        save(write, id, lease);
        Ok(lease.ttl_s)
    }

    /// Ends a lease and deletes the keys attached to it, in key order under one revision.
    pub fn revoke(
        &mut self,
        write: &mut Write<'_>,
        id: LeaseId,
    ) -> Result<Result<(), Refused>, Fatal> {
        if self.table.remove(&id).is_none() {
            return Ok(Err(Refused::LeaseNotFound));
        }
        write.delete_attached(id)?;
        write.delete_raw(Cf::Lease, &id.0.to_be_bytes());
        Ok(Ok(()))
    }

    /// Stores the remaining time of some leases. Leases that ended meanwhile are skipped.
    pub fn checkpoint(&mut self, write: &mut Write<'_>, checkpoints: &[LeaseCheckpoint]) {
        for checkpoint in checkpoints {
            let id = LeaseId(checkpoint.id);
            if let Some(lease) = self.table.get_mut(&id) {
                // Bounded as in a row of the bucket; leaders write nothing else.
                lease.remaining_s = checkpoint.remaining_ttl.clamp(0, LEASE_TTL_MAX_S);
                save(write, id, *lease);
            }
        }
    }

    pub fn get(&self, id: LeaseId) -> Option<Lease> {
        self.table.get(&id).copied()
    }

    /// All leases by id.
    pub fn iter(&self) -> impl Iterator<Item = (LeaseId, Lease)> + '_ {
        self.table.iter().map(|(id, lease)| (*id, *lease))
    }
}

/// The lease as `view` has it.
pub fn find(view: &View, id: LeaseId) -> Result<Option<leasepb::Lease>, Fatal> {
    let value = view.get(Cf::Lease, &id.0.to_be_bytes())?;
    value.map(|value| check_row(&id.0.to_be_bytes(), value)).transpose()
}

/// All leases as `view` has them, by id.
pub fn list(view: &View) -> Result<Vec<leasepb::Lease>, Fatal> {
    view.scan(Cf::Lease)
        .map(|row| row.map_err(Fatal::from).and_then(|(k, v)| check_row(&k, v)))
        .collect()
}

/// Reads a row of the bucket, which may come from elsewhere: refuses what no grant makes, so that times
/// to live can be added to a clock.
pub fn check_row(key: &[u8], value: Bytes) -> Result<leasepb::Lease, Fatal> {
    let refused = |why: String| Fatal::new(format!("lease record {key:02x?}"), why);
    let lease = leasepb::Lease::decode(value).map_err(|e| refused(e.to_string()))?;
    if key != lease.id.to_be_bytes() || lease.id == 0 {
        return Err(refused(format!("it is of lease {}", lease.id)));
    }
    for (what, seconds) in [("TTL", lease.ttl), ("remaining TTL", lease.remaining_ttl)] {
        if !(0..=LEASE_TTL_MAX_S).contains(&seconds) {
            return Err(refused(format!(
                "{what} {seconds} is not between 0 and {LEASE_TTL_MAX_S}"
            )));
        }
    }
    Ok(lease)
}

fn save(write: &mut Write<'_>, id: LeaseId, lease: Lease) {
    let record = leasepb::Lease { id: id.0, ttl: lease.ttl_s, remaining_ttl: lease.remaining_s };
    write.put_raw(Cf::Lease, &id.0.to_be_bytes(), &record.encode_to_vec());
}
