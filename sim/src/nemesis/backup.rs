//! A backup under load: taken from one member as `etcdctl snapshot save` takes it, restored as a cluster of
//! one by the tool's own code on a host of its own, served there by a whole server, and read once. What
//! was read is evidence; whether it is right is checked in [`crate::check::backups`].
//!
//! The host is no member's: it is not observed, nothing is done to it, and it is gone when it was read.
//! Its data directory is not where the checkers of members' disks look.

use std::path::Path;
use std::time::Duration;

use quorate::client::Channel;
use quorate::env::{Env, Open};
use quorate::offline::Restore;
use quorate::server;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{
    LeaseLeasesRequest, LeaseTimeToLiveRequest, RangeRequest, RangeResponse, SnapshotRequest,
};
use tokio::sync::mpsc;
use tonic::{Response, Status};

use super::acts::Nemesis;
use crate::World;
use crate::check::backups;
use crate::cluster::{Cluster, Order, ROOT, serve};
use crate::facts::addresses::TOKEN;
use crate::facts::evidence::{Backup, Lease, Read};
use crate::facts::history::{Answer, Failure};
use crate::facts::request;
use crate::facts::verdict::Violation;
use crate::workload::scribe::NO_USER;

/// What a member gets to give all of it.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(10);
/// What the restored server gets to be read.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// What one call to it may take, and the pause before the next try.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(5);
/// How far back the past is read.
const BACK: i64 = 12;

const FILE: &str = "/backup";
const DATA: &str = "/restored";

impl Nemesis {
    /// Step `number`: takes a backup of a member and finds out what is in it. A member that does not give
    /// one, as it may be down, is let alone.
    pub(super) async fn backup(&self, number: usize, hosts: &[String]) {
        let Some(source) = hosts.first() else { return };
        let world = self.cluster.world();
        let (began, process) = (self.env.now(), world.processes(source));
        let Some(file) = self.download(source).await else { return };
        let guest = Guest::new(&self.cluster, format!("b{number}"));
        let (cluster, host) = (self.cluster.clone(), guest.host.clone());
        let options = cluster.server(&host, DATA);
        let work = move |env| restore_and_read(env, cluster, host, options, file);
        match world.start(&guest.host, work).await.join().await {
            Some(Ok((reads, leases))) => {
                let backup = Backup { source: source.clone(), process, began, reads, leases };
                self.evidence.record().backups.push(backup);
            }
            Some(Err(why)) => {
                let text = format!("the backup of {source}: {why}");
                let violation = Violation::new(backups::CHECKER, backups::SERVES, text);
                self.evidence.record().violations.push(violation);
            }
            None => {}
        }
        guest.clear().await;
    }

    /// The file, as the member gives it; its hash is checked when it is restored.
    async fn download(&self, source: &str) -> Option<Vec<u8>> {
        let mut client = MaintenanceClient::new(self.cluster.channel(&self.env, Some(source)));
        let download = async {
            let mut pieces = client.snapshot(SnapshotRequest {}).await.ok()?.into_inner();
            let mut file = Vec::new();
            while let Some(piece) = pieces.message().await.ok()? {
                file.extend_from_slice(&piece.blob);
            }
            Some(file)
        };
        self.env.timeout(DOWNLOAD_LIMIT, download).await.ok()?
    }
}

/// All that happens on the new host. The reader runs there too: nothing that is done to links comes
/// between, so that no lease ends before it was seen.
async fn restore_and_read(
    env: Env,
    cluster: Cluster,
    host: String,
    options: server::Options,
    file: Vec<u8>,
) -> Result<(Vec<Read>, Vec<Lease>), String> {
    restore(&env, &cluster, &host, file).await?;
    let (to_server, orders) = mpsc::channel(1);
    let serve = serve(env.clone(), options, orders);
    let serve = async move { serve.await.map_err(|fatal| fatal.to_string()) };
    let channel = cluster.channel(&env, Some(&host));
    let read = async move {
        let all = async { read(&env, admitted(&env, &cluster, channel).await).await };
        let read = env.timeout(READ_LIMIT, all).await;
        // A server that has ended returns its own error.
        let _ = to_server.send(Order::Stop).await;
        read.map_err(|_| format!("it could not be read within {READ_LIMIT:?}"))
    };
    futures::try_join!(serve, read).map(|((), read)| read)
}

/// The channel by which the server lets us read: root's, where the backup has users.
async fn admitted(env: &Env, cluster: &Cluster, channel: Channel) -> Channel {
    let nobody = channel.without_header(TOKEN);
    loop {
        let mut kv = KvClient::new(nobody.clone());
        let asked = env.timeout(PATIENCE, kv.range(request::get(vec![0]))).await;
        match asked {
            Ok(Ok(_)) => return nobody,
            Ok(Err(status)) if status.message().ends_with(NO_USER) => {
                if let Some(token) = cluster.log_in(&nobody, env, ROOT).await {
                    return nobody.with_header(TOKEN, token);
                }
            }
            // It is still starting.
            Ok(Err(_)) | Err(_) => {}
        }
        env.sleep(PAUSE).await;
    }
}

/// Everything there is, agreed upon and as the member has it, a bit of the past, and every lease.
async fn read(env: &Env, channel: Channel) -> (Vec<Read>, Vec<Lease>) {
    let everything = RangeRequest { range_end: vec![0].into(), ..request::get(vec![0]) };
    let now = range(env, &channel, everything.clone()).await;
    let revision = revision(&now.1);
    let here = RangeRequest { serializable: true, revision, ..everything.clone() };
    let past = RangeRequest { revision: (revision - BACK).max(1), ..everything };
    let here = range(env, &channel, here).await;
    let reads = vec![now, here, range(env, &channel, past).await];

    let lease = LeaseClient::new(channel);
    let listed = ask(env, || {
        let mut lease = lease.clone();
        async move { lease.lease_leases(LeaseLeasesRequest {}).await }
    });
    let mut leases = Vec::new();
    for listed in listed.await.map_or_else(|_| Vec::new(), |listed| listed.leases) {
        let asked = ask(env, || {
            let (mut lease, request) =
                (lease.clone(), LeaseTimeToLiveRequest { id: listed.id, keys: true });
            async move { lease.lease_time_to_live(request).await }
        });
        leases.push((listed.id, asked.await));
    }
    (reads, leases)
}

async fn range(env: &Env, channel: &Channel, request: RangeRequest) -> Read {
    let answer = ask(env, || {
        let (kv, request) = (KvClient::new(channel.clone()), request.clone());
        async move { kv.max_decoding_message_size(usize::MAX).range(request).await }
    });
    let answer = answer.await;
    (request, answer)
}

/// Repeats a call until there is an answer or a refusal.
async fn ask<T, F>(env: &Env, call: impl Fn() -> F) -> Answer<T>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    loop {
        match env.timeout(PATIENCE, call()).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) if Failure::new(&status).is_refusal() => {
                return Err(Failure::new(&status));
            }
            // It is still starting, or has no leader yet.
            Ok(Err(_)) | Err(_) => env.sleep(PAUSE).await,
        }
    }
}

fn revision(answer: &Answer<RangeResponse>) -> i64 {
    let header = answer.as_ref().ok().and_then(|answer| answer.header);
    header.map_or(0, |header| header.revision)
}

/// Makes the file the data directory of the one member of a cluster.
async fn restore(env: &Env, cluster: &Cluster, host: &str, file: Vec<u8>) -> Result<(), String> {
    let url = cluster.peer_url(host);
    let restore = Restore {
        name: host.to_owned(),
        data_dir: Some(DATA.into()),
        initial_cluster: format!("{host}={url}"),
        initial_cluster_token: format!("token of {host}"),
        advertise_peer_urls: url,
        ..Restore::new(FILE)
    };
    let disk = env.disk.clone();
    let restored = env.blocking("restore", move || {
        let saved = disk.open(Path::new(FILE), Open::CreateNew);
        saved.and_then(|saved| saved.write_all_at(&file, 0)).map_err(|e| e.to_string())?;
        restore.run(&disk).map_err(|why| why.to_string())
    });
    restored.await
}

/// A host for one server outside of the cluster; dropping it stops the server.
struct Guest {
    world: World,
    host: String,
}

impl Guest {
    fn new(cluster: &Cluster, host: String) -> Self {
        cluster.add_host(&host);
        Self { world: cluster.world().clone(), host }
    }

    /// Throws away what it had.
    async fn clear(self) {
        self.world.kill(&self.host);
        self.world.stopped(&self.host).await;
        self.world.replace_disk(&self.host);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.world.kill(&self.host);
    }
}
