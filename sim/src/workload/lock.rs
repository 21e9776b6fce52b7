//! A lock: clients queue for it, and write under its token while they have it.

use std::time::Duration;

use super::queue::{Place, judge};
use super::request::{Op, put, txn};
use super::{Client, Work, Workload};
use crate::evidence::Evidence;
use crate::verdict::Violation;

const PREFIX: &str = "lock/queue/";
const GUARDED: &str = "lock/guarded";

pub struct Lock;

impl Workload for Lock {
    fn name(&self) -> &'static str {
        "lock"
    }

    fn setup<'a>(&'a mut self, _client: &'a Client) -> Work<'a> {
        Box::pin(async {})
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            let Some(mut place) = Place::join(client, PREFIX).await else {
                return client.pause(300).await;
            };
            let mut turn = None;
            if place.wait(client, PREFIX).await && place.sure(client) {
                turn = Some(client.env.now());
                work(client, &mut place).await;
            }
            place.leave(client, turn).await;
            client.pause(300).await;
        })
    }

    fn check(&self, evidence: &Evidence) -> Vec<Violation> {
        judge(evidence, self.name(), GUARDED.as_bytes())
    }
}

/// Writes under the token; sometimes for so long that the lock is lost meanwhile.
async fn work(client: &Client, place: &mut Place) {
    let forgets = client.chance(1, 5);
    for _ in 0..1 + client.below(6) {
        let value = format!("{} {}", place.token, String::from_utf8_lossy(&client.value()));
        let guarded = txn(vec![place.fence()], vec![put(GUARDED, value).op()], vec![]);
        let lost = matches!(client.txn(guarded).await, Ok(answer) if !answer.succeeded);
        let over = !forgets && !place.keep(client).await;
        if lost || over || client.stop.is_set() {
            return;
        }
        client.env.sleep(Duration::from_millis(client.below(800))).await;
    }
}
