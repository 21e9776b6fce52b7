//! Downgrades that are validated, begun and cancelled again, by one client alone: while one is under way
//! no other may be begun. Whether the cluster's version follows is for [`crate::check::versions`].

use std::time::Duration;

use quorate_proto::etcdserverpb::DowngradeRequest;
use quorate_proto::etcdserverpb::downgrade_request::DowngradeAction;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;

use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::request::{get, put};
use crate::facts::verdict::Violation;

/// The release that the cluster goes down to.
const TARGET: &str = "3.6";

#[derive(Default)]
pub struct Downgrade {
    asked: bool,
}

impl Workload for Downgrade {
    fn name(&self) -> &'static str {
        "downgrade"
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            let action = if self.asked { DowngradeAction::Cancel } else { DowngradeAction::Enable };
            let done = ask(client, action).await;
            self.asked = !self.asked;
            // Longer than a leader takes to notice; keys are written meanwhile as ever.
            for _ in 0..20 {
                let free = ask(client, DowngradeAction::Validate).await;
                if free && done && action == DowngradeAction::Enable {
                    let text = "another downgrade could begin while one is under way".to_owned();
                    client.complain("a downgrade that is under way is kept", text);
                }
                let _ = client.put(put("downgrade", client.value())).await;
                let _ = client.range(get("downgrade")).await;
                client.env.sleep(Duration::from_millis(600)).await;
                if client.stop.is_set() {
                    return;
                }
            }
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

/// Whether it was done, or could be.
async fn ask(client: &Client, action: DowngradeAction) -> bool {
    let request = DowngradeRequest { action: action as i32, version: TARGET.into() };
    let mut service = MaintenanceClient::new(client.channel.clone());
    let answer = client.env.timeout(Duration::from_secs(4), service.downgrade(request)).await;
    answer.is_ok_and(|answer| answer.is_ok())
}
