//! What a workload is: one kind of traffic, as one client makes it, and how a client is driven. The
//! workloads themselves are in the files beside this one.

use std::pin::Pin;

use super::client::Client;
use crate::facts::evidence::{Evidence, Record};
use crate::facts::history::Operation;
use crate::facts::verdict::Violation;

pub type Work<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// One kind of traffic, as one client makes it.
pub trait Workload: Send {
    /// As plans and the report call it.
    fn name(&self) -> &'static str;

    /// What must be there before the first step. Made by every client, on a whole cluster.
    fn setup<'a>(&'a mut self, _client: &'a Client) -> Work<'a> {
        Box::pin(async {})
    }

    /// One operation, or a few that belong together, and the pause after it.
    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a>;

    /// What this workload alone can check, once for all its clients together; what holds of all calls
    /// is checked in [`crate::check`].
    fn check(&self, evidence: &Evidence) -> Vec<Violation>;
}

/// Steps until it is stopped, `steps_max` times at most.
pub async fn drive(mut workload: Box<dyn Workload>, client: Client, steps_max: u64) {
    for _ in 0..steps_max {
        if client.stop.is_set() {
            return;
        }
        workload.step(&client).await;
    }
}

/// The calls of one workload, in the order in which they ended.
pub fn calls<'a>(
    record: &'a Record,
    workload: &'static str,
) -> impl Iterator<Item = &'a Operation> {
    record.operations.iter().filter(move |operation| operation.workload == workload)
}
