//! An election: candidates queue and the first one proclaims under its token. Observers read the oldest
//! candidate at one revision; the leadership that they read must never go back to an older candidate.

use super::queue::{Place, examine, first};
use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::verdict::Violation;

const PREFIX: &str = "election/queue/";
const PROCLAIMED: &str = "election/proclaimed";

#[derive(Default)]
pub struct Election {
    /// The token of the newest leader that was seen.
    leader: i64,
}

impl Workload for Election {
    fn name(&self) -> &'static str {
        "election"
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            if client.chance(1, 2) {
                self.observe(client).await;
                return client.pause(150).await;
            }
            let Some(mut place) = Place::join(client, PREFIX).await else {
                return client.pause(300).await;
            };
            if place.wait(client, PREFIX).await && place.lease.sure(client) {
                let from = client.env.now();
                place.write(client, PROCLAIMED).await;
                place.had(client, from);
            }
            place.leave(client).await;
        })
    }

    fn check(&self, evidence: &Evidence) -> Vec<Violation> {
        examine(evidence, self.name(), PROCLAIMED.as_bytes())
    }
}

impl Election {
    async fn observe(&mut self, client: &Client) {
        let Ok(found) = client.range(first(PREFIX)).await else { return };
        let Some(leader) = found.kvs.first().map(|kv| kv.create_revision) else { return };
        if leader < self.leader {
            let text = format!("{leader} leads after {}", self.leader);
            client.complain("leadership never goes back", text);
        }
        self.leader = self.leader.max(leader);
    }
}
