//! Members that are given other peer URLs while they run: one more URL at which nothing listens, before or
//! behind the one they have, so that the others must look for them. Swapped names need no call and are in
//! [`super::acts`].

use std::time::Duration;

use super::acts::Nemesis;
use crate::cluster::Cluster;
use crate::facts::seen::Update;

/// What one change gets, faults included.
const LIMIT: Duration = Duration::from_secs(100);
/// Nothing listens here, or above.
const CLOSED_PORT: u16 = 2_400;

impl Nemesis {
    /// A change as others are: one at a time, and the heal waits for it.
    pub(super) async fn update(&self, hosts: &[String]) {
        let Some(host) = hosts.first().cloned() else { return };
        if !self.may_change() || !self.cluster.names().contains(&host) {
            return;
        }
        let (cluster, env, evidence) =
            (self.cluster.clone(), self.env.clone(), self.evidence.clone());
        let number = evidence.record().seen.updates.len() as u16;
        let urls = urls(&cluster, &host, number);
        self.begin_change(format!("update {host}"), async move {
            let note = |id, sure| {
                let update = Update { id, urls: urls.clone(), sure };
                evidence.record().seen.updates.push(update);
            };
            cluster.update_urls(&env, &host, &urls, LIMIT, note).await
        });
        self.until_changed().await;
    }
}

/// Every third time its own only.
fn urls(cluster: &Cluster, host: &str, number: u16) -> Vec<String> {
    let own = cluster.peer_url(host);
    let other = cluster.url(host, CLOSED_PORT + number);
    match number % 3 {
        0 => vec![other, own],
        1 => vec![own, other],
        _ => vec![own],
    }
}
