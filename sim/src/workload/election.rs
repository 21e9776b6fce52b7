//! An election: candidates queue, the first of them proclaims under its token, and observers, who look
//! for the oldest candidate at one revision, never see the leadership go back to an older one.

use std::time::Duration;

use quorate_proto::etcdserverpb::{
    RangeRequest, range_request::SortOrder, range_request::SortTarget,
};

use super::queue::{Place, judge};
use super::request::{Op, list, put, txn};
use super::{Client, Work, Workload};
use crate::evidence::Evidence;
use crate::verdict::Violation;

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

    fn setup<'a>(&'a mut self, _client: &'a Client) -> Work<'a> {
        Box::pin(async {})
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
            let mut turn = None;
            if place.wait(client, PREFIX).await && place.sure(client) {
                turn = Some(client.env.now());
                lead(client, &mut place).await;
            }
            place.leave(client, turn).await;
        })
    }

    fn check(&self, evidence: &Evidence) -> Vec<Violation> {
        judge(evidence, self.name(), PROCLAIMED.as_bytes())
    }
}

impl Election {
    async fn observe(&mut self, client: &Client) {
        let first = RangeRequest {
            sort_order: SortOrder::Ascend as i32,
            sort_target: SortTarget::Create as i32,
            limit: 1,
            ..list(PREFIX)
        };
        let Ok(found) = client.range(first).await else { return };
        let Some(leader) = found.kvs.first().map(|kv| kv.create_revision) else { return };
        if leader < self.leader {
            let text = format!("{leader} leads after {}", self.leader);
            client.complain("leadership never goes back", text);
        }
        self.leader = self.leader.max(leader);
    }
}

async fn lead(client: &Client, place: &mut Place) {
    for _ in 0..1 + client.below(5) {
        let value = format!("{} {}", place.token, String::from_utf8_lossy(&client.value()));
        let words = vec![put(PROCLAIMED, value).op()];
        let lost = matches!(
            client.txn(txn(vec![place.fence()], words, vec![])).await,
            Ok(answer) if !answer.succeeded
        );
        if lost || !place.keep(client).await || client.stop.is_set() {
            return;
        }
        client.env.sleep(Duration::from_millis(client.below(600))).await;
    }
}
