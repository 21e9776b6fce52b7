//! More proposals than members let in, at all of them at once, while leases come to their end: they must
//! end in time all the same, for what a cluster lives on has places of its own. Only for plans with few
//! places for clients (`proposals`).

use std::time::{Duration, Instant};

use futures::future::{join, join_all};
use quorate_proto::etcdserverpb::{LeaseGrantRequest, PutRequest, RangeRequest};

use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::request::{list, put};
use crate::facts::verdict::Violation;

const NAME: &str = "pressure";
const LEASES: usize = 40;
const TTL_S: u64 = 4;
/// What it may take to end all of them.
const GRACE: Duration = Duration::from_secs(4);
/// Leases that are granted at a time, while nothing else is called.
const GRANTS: usize = 4;
/// Clients that write to one member, and their pause after a refusal because there are too many.
const WRITERS: usize = 10;
const RETRY: Duration = Duration::from_millis(20);

pub struct Pressure;

impl Workload for Pressure {
    fn name(&self) -> &'static str {
        NAME
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            let prefix = format!("{NAME}/{}/", client.unique());
            for _ in 0..LEASES / GRANTS {
                join_all((0..GRANTS).map(|_| hang(client, &prefix))).await;
            }
            let until = client.env.now() + Duration::from_secs(TTL_S) + GRACE;
            let members = client.cluster.voters().len() as u64;
            let writers = (0..members).flat_map(|n| (0..WRITERS).map(move |_| n));
            let flood = join_all(writers.map(|n| write(client, n, until)));
            let look = async {
                client.env.sleep(Duration::from_secs(TTL_S) + GRACE).await;
                look(client, prefix).await;
            };
            join(flood, look).await;
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

/// A key on a lease of its own.
async fn hang(client: &Client, prefix: &str) {
    let request = LeaseGrantRequest { id: client.unique(), ttl: TTL_S as i64 };
    let Ok(granted) = client.grant(request).await else { return };
    let key = format!("{prefix}{:x}", granted.id);
    let _ = client.put(PutRequest { lease: granted.id, ..put(key, client.value()) }).await;
}

/// Writes to the `n`-th member without a pause.
async fn write(client: &Client, n: u64, until: Instant) {
    let member = client.on_member(n);
    while client.env.now() < until {
        let key = format!("{NAME}/flood/{}", client.below(10));
        if member.put(put(key, client.value())).await.is_err() {
            client.env.sleep(RETRY).await;
        }
    }
}

async fn look(client: &Client, prefix: String) {
    let all = RangeRequest { count_only: true, ..list(prefix) };
    match client.range(all).await {
        Ok(left) if left.count > 0 => {
            let text = format!("{} of {LEASES} keys {GRACE:?} after their time", left.count);
            client.complain("leases end under a flood of proposals", text);
        }
        _ => {}
    }
}
