//! Leases that are granted, hold keys, are kept alive at any member for a while, queried,
//! revoked or left to end. Checking them is for [`crate::check::leases`].

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb::{LeaseGrantRequest, PutRequest};

use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::request::{Op, delete, put, txn};
use crate::facts::verdict::Violation;

#[derive(Default)]
pub struct Leases {
    held: Option<LeaseInUse>,
}

/// The lease in hand.
struct LeaseInUse {
    id: i64,
    ttl: u64,
    keys: Vec<Bytes>,
    /// Renewals still to come.
    renewals: u64,
}

impl Workload for Leases {
    fn name(&self) -> &'static str {
        "lease"
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            let Some(held) = &mut self.held else {
                self.held = begin(client).await;
                return client.pause(100).await;
            };
            if held.renewals == 0 {
                end(client, held).await;
                self.held = None;
                return;
            }
            held.renewals -= 1;
            // Sometimes so late that it may be too late.
            let pause = held.ttl * 1000 / 3 + client.below(held.ttl * 400);
            client.env.sleep(Duration::from_millis(pause)).await;
            let member = client.on_member(client.roll());
            let over = matches!(member.keep_alive(held.id).await, Ok(answer) if answer.ttl == 0);
            busy(client, held).await;
            if over {
                self.held = None;
            }
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

/// A new lease with its keys.
async fn begin(client: &Client) -> Option<LeaseInUse> {
    let id = if client.chance(3, 4) { client.unique() } else { 0 };
    let ttl = 1 + client.below(5);
    let granted = client.grant(LeaseGrantRequest { id, ttl: ttl as i64 }).await;
    let answer = match granted {
        Ok(answer) => answer,
        Err(_) => {
            client.rest(&granted, 0).await;
            return None;
        }
    };
    let count = 1 + client.below(if client.chance(1, 4) { 12 } else { 3 });
    let keys = (0..count).map(|n| format!("lease/{}/{n:02}", answer.id).into()).collect();
    let renewals = client.below(5);
    let held = LeaseInUse { id: answer.id, ttl: answer.ttl.max(1) as u64, keys, renewals };
    attach(client, &held).await;
    Some(held)
}

/// Hangs the keys on the lease, one by one or all at once.
async fn attach(client: &Client, held: &LeaseInUse) {
    let leased = |key: &Bytes| PutRequest { lease: held.id, ..put(key.clone(), client.value()) };
    if client.chance(1, 3) {
        let puts = held.keys.iter().map(|key| leased(key).op()).collect();
        let _ = client.txn(txn(vec![], puts, vec![])).await;
    } else {
        for key in &held.keys {
            let _ = client.put(leased(key)).await;
        }
    }
}

/// Something with a lease that lives, or may.
async fn busy(client: &Client, held: &LeaseInUse) {
    let key = held.keys[client.below(held.keys.len() as u64) as usize].clone();
    let value = client.value();
    match client.below(7) {
        0 => drop(client.put(PutRequest { lease: held.id, ..put(key, value) }).await),
        // Takes the key off its lease.
        1 => drop(client.put(put(key, value)).await),
        2 => drop(client.put(PutRequest { ignore_lease: true, ..put(key, value) }).await),
        3 => drop(client.delete(delete(key)).await),
        4 | 5 => drop(client.time_to_live(held.id, client.chance(1, 2)).await),
        _ => drop(client.leases().await),
    }
}

/// The lease is revoked, or left to itself for about as long as it lasts.
async fn end(client: &Client, held: &LeaseInUse) {
    if client.chance(1, 3) {
        let _ = client.revoke(held.id).await;
        // As by a client that does not know it yet, at a member that may not know it either.
        let member = client.on_member(client.roll());
        let _ = member.keep_alive(held.id).await;
    } else {
        let wait = held.ttl * client.below(1_500);
        client.env.sleep(Duration::from_millis(wait)).await;
    }
    let _ = client.time_to_live(held.id, true).await;
    if client.chance(1, 3) {
        // Hangs something on a lease that is over, or about to be.
        let late = PutRequest { lease: held.id, ..put(held.keys[0].clone(), client.value()) };
        let _ = client.put(late).await;
    }
}
