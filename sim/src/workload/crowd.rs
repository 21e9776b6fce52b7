//! Many leases that end at one moment: all their keys must be gone soon after it, although every entry of
//! the log takes its time.

use std::time::Duration;

use futures::future::join_all;
use quorate_proto::etcdserverpb::{LeaseGrantRequest, PutRequest, RangeRequest};

use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::request::{list, put};
use crate::facts::verdict::Violation;

const LEASES: usize = 200;
const TTL_S: i64 = 4;
/// What it may take to end all of them.
const GRACE: Duration = Duration::from_secs(4);

pub struct Crowd;

impl Workload for Crowd {
    fn name(&self) -> &'static str {
        "crowd"
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            let prefix = format!("crowd/{}/", client.unique());
            join_all((0..LEASES).map(|_| hang(client, &prefix))).await;
            client.env.sleep(Duration::from_secs(TTL_S as u64) + GRACE).await;
            let all = RangeRequest { count_only: true, ..list(prefix) };
            match client.range(all).await {
                Ok(left) if left.count > 0 => {
                    let text =
                        format!("{} of {LEASES} keys {GRACE:?} after their time", left.count);
                    client.complain("leases that end together end soon", text);
                }
                _ => {}
            }
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

/// A key on a lease of its own.
async fn hang(client: &Client, prefix: &str) {
    let request = LeaseGrantRequest { id: client.unique(), ttl: TTL_S };
    let Ok(granted) = client.grant(request).await else { return };
    let key = format!("{prefix}{:x}", granted.id);
    let _ = client.put(PutRequest { lease: granted.id, ..put(key, client.value()) }).await;
}
