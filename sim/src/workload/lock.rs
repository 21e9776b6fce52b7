//! A lock: clients queue for it, and write under its token while they have it.

use super::queue::{Place, examine};
use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::verdict::Violation;

const PREFIX: &str = "lock/queue/";
const GUARDED: &str = "lock/guarded";

pub struct Lock;

impl Workload for Lock {
    fn name(&self) -> &'static str {
        "lock"
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            let Some(mut place) = Place::join(client, PREFIX).await else {
                return client.pause(300).await;
            };
            if place.wait(client, PREFIX).await && place.lease.sure(client) {
                let from = client.env.now();
                place.write(client, GUARDED).await;
                place.had(client, from);
            }
            place.leave(client).await;
            client.pause(300).await;
        })
    }

    fn check(&self, evidence: &Evidence) -> Vec<Violation> {
        examine(evidence, self.name(), GUARDED.as_bytes())
    }
}
