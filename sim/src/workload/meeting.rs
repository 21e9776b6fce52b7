//! Members of a new cluster that meet at this one, as `--discovery-endpoints` has them do: more come than
//! there is room for, all at once. The first so many are the cluster, and all of them get the same list;
//! the others are refused as it is full. What they write stands on record as the client's.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use quorate::config::Discovery;
use quorate::discovery::{self, DiscoveryError};
use quorate::types::MemberId;

use super::{Client, Work, Workload};
use crate::facts::addresses::{PEER_PORT, host_of};
use crate::facts::evidence::Evidence;
use crate::facts::history::{Call, Failure};
use crate::facts::request::put;
use crate::facts::verdict::Violation;

const NAME: &str = "meeting";
const SIZE: usize = 3;
const COMING: usize = 5;
/// They come within this.
const SPREAD_MS: u64 = 400;
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Meeting {
    met: usize,
}

impl Workload for Meeting {
    fn name(&self) -> &'static str {
        NAME
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            self.met += 1;
            let token = format!("{NAME}-{}-{}", client.number, self.met);
            let key = format!("/_etcd/registry/{token}/_config/size");
            // A value that no other call writes: the number has zeros before it.
            let width = client.number * 100 + self.met;
            if client.put(put(key, format!("{SIZE:0width$}"))).await.is_ok() {
                let all = join_all((0..COMING).map(|_| come(client, &token))).await;
                examine(client, &all);
            }
            client.pause(1_000).await;
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

/// One member that came.
struct Guest {
    /// As it has written itself down.
    own: String,
    /// The cluster in its answer; `None` without an answer in time.
    told: Option<Result<String, DiscoveryError>>,
}

async fn come(client: &Client, token: &str) -> Guest {
    client.env.sleep(Duration::from_millis(client.below(SPREAD_MS))).await;
    let id = MemberId(client.unique() as u64);
    let name = String::from_utf8_lossy(&client.value()).into_owned();
    let own = format!("{name}=http://{name}:{PEER_PORT}");
    let settings = Discovery {
        endpoints: vec![client.cluster.client_url(host_of(&client.channel.endpoint()))],
        token: token.to_owned(),
        dial_timeout: Duration::from_secs(2),
        request_timeout: Duration::from_secs(2),
        keep_alive_interval: Duration::from_secs(2),
        keep_alive_timeout: Duration::from_secs(6),
        tls: client.cluster.tls(),
        user: None,
    };
    let key = format!("/_etcd/registry/{token}/members/{id}");
    let writes = client.implied(Call::Put(put(key, own.clone()), Err(Failure::silence())));
    let join = discovery::join(&client.env, &settings, id, &own);
    let told = client.env.timeout(PATIENCE, join).await.ok();
    writes.unanswered();
    Guest { own, told }
}

fn examine(client: &Client, guests: &[Guest]) {
    let told = || guests.iter().map(|guest| format!("{}: {:?}", guest.own, guest.told));
    let complain = |property| client.complain(property, told().collect::<Vec<_>>().join(", "));
    let let_in = |guest: &&Guest| matches!(guest.told, Some(Ok(_)));
    let clusters: BTreeSet<_> =
        guests.iter().filter_map(|guest| guest.told.as_ref()?.as_ref().ok()).collect();
    if clusters.len() > 1 {
        complain("all members discover the same cluster");
    }
    for guest in guests.iter().filter(let_in) {
        let is_in = |cluster: &&String| cluster.split(',').any(|member| member == guest.own);
        if !clusters.iter().all(is_in) {
            return complain("an admitted member is part of the cluster");
        }
    }
    let heard = guests.iter().all(|guest| guest.told.is_some());
    if heard && guests.iter().filter(let_in).count() != SIZE {
        complain("as many members are admitted as the cluster has room for");
    }
}
