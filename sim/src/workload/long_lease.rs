//! Leases that last long enough for several leaders, some of them kept alive once, late; queried
//! all the time. Checking them is for [`crate::check::leases`].

use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb::{LeaseGrantRequest, PutRequest};

use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::request::put;
use crate::facts::verdict::Violation;

const TTL_S: i64 = 12;

#[derive(Default)]
pub struct LongLease {
    held: Option<LeaseInUse>,
}

/// The lease in hand.
struct LeaseInUse {
    id: i64,
    /// When it is to be kept alive, if at all.
    renewal: Option<Instant>,
}

impl Workload for LongLease {
    fn name(&self) -> &'static str {
        "long-lease"
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            let Some(held) = &mut self.held else {
                self.held = begin(client).await;
                return client.pause(200).await;
            };
            client.env.sleep(Duration::from_millis(400 + client.below(500))).await;
            if held.renewal.is_some_and(|at| at <= client.env.now()) {
                held.renewal = None;
                let _ = client.keep_alive(held.id).await;
            }
            let asked = client.time_to_live(held.id, client.chance(1, 4)).await;
            if asked.is_ok_and(|answer| answer.ttl < 0) {
                self.held = None;
            }
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

async fn begin(client: &Client) -> Option<LeaseInUse> {
    let request = LeaseGrantRequest { id: client.unique(), ttl: TTL_S };
    let granted = client.grant(request).await.ok()?;
    let key = format!("long/{}", granted.id);
    let _ = client.put(PutRequest { lease: granted.id, ..put(key, client.value()) }).await;
    let late = Duration::from_millis(6_000 + client.below(4_000));
    let renewal = client.chance(3, 4).then(|| client.env.now() + late);
    Some(LeaseInUse { id: granted.id, renewal })
}
