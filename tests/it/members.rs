//! Members that come and go: a learner, its promotion, a removal, every member of three replaced in
//! turn while others write; and a cluster of one made of what a lost quorum left behind.

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
    RangeRequest,
};
use tonic::{Code, Status};

use super::client::{Channel, Client, origin};
use super::cluster::Probe;
use super::crash::runtime;
use super::curl::Curl;
use super::load::{Load, scan};
use super::process::{Cluster, Kind, Server, loudly, scratch};

const PATIENCE: Duration = Duration::from_secs(60);
/// Two elections, and what the machine does besides.
const PAUSE_MAX: Duration = Duration::from_secs(4);
const REMOVED: &str = "the member has been permanently removed from the cluster";

#[test]
fn each_member_is_replaced_in_turn_under_load() {
    let dir = scratch();
    let mut cluster = Cluster::new(&Kind::subject(), dir.path(), 3, &[]);
    let mut fresh: Vec<_> =
        (3..6).map(|i| Server::joining(Kind::subject(), dir.path(), &format!("m{i}"))).collect();
    runtime().block_on(async {
        cluster.start();
        let endpoints: Vec<_> =
            cluster.servers.iter().chain(&fresh).map(Server::endpoint).collect();
        let mut load = Load::start(4, &endpoints);
        load.progress(200).await;
        let mut longest = Duration::ZERO;
        for mut fresh in fresh.drain(..) {
            let mut old = cluster.servers.remove(0);
            let probe = Probe::start(&cluster.endpoints()).await;
            let began = Instant::now();
            replace(&cluster, &mut old, &mut fresh).await;
            probe.acknowledged_since(Instant::now()).await;
            longest = longest.max(probe.longest_pause(began));
            cluster.servers.push(fresh);
            load.progress(100).await;
        }
        loudly(&format!("replacing three members: writes stopped for {} ms", longest.as_millis()));
        assert!(longest < PAUSE_MAX, "writes stopped for {longest:?}");
        load.stop().await;
        let promises = load.promises();
        for server in &cluster.servers {
            let mut client = Client::connect(&server.endpoint()).await;
            let scan = scan(&mut client).await.expect("a member that is ready reads");
            load.check(&promises, &scan).expect("what was written meanwhile is there");
        }
        super::crash::assert_same_hash(&cluster, promises.revision).await;
        let members = list(&cluster.servers[0]).await.expect("a member lists the members");
        let names: Vec<_> = members.iter().map(|member| &member.name[..]).collect();
        assert_eq!(members.len(), 3, "{names:?}");
    });
}

/// A learner comes and catches up, becomes a voter, and the old member goes.
async fn replace(cluster: &Cluster, old: &mut Server, fresh: &mut Server) {
    let survivor = &cluster.servers[0];
    join(survivor, fresh, true).await;
    learns_but_does_not_serve(fresh).await;
    let id = member_of(survivor, fresh).await.id;
    until_done(|| async {
        let request = MemberPromoteRequest { id };
        calls(survivor).await.member_promote(request).await.map(drop)
    })
    .await;
    let id = member_of(survivor, old).await.id;
    until_done(|| async {
        let request = MemberRemoveRequest { id };
        calls(survivor).await.member_remove(request).await.map(drop)
    })
    .await;
    let status = old.wait_exit();
    assert!(status.success() && old.has_logged(REMOVED), "{status}: {}", old.output());
    // Its data is of no use any more.
    old.spawn();
    let status = old.wait_exit();
    assert!(status.success() && old.has_logged(REMOVED), "{status}: {}", old.output());
}

/// Gets a place for `fresh` and starts it there.
async fn join(at: &Server, fresh: &mut Server, is_learner: bool) {
    let url = fresh.peer_url();
    until_done(|| async {
        let request = MemberAddRequest { peer_urls: vec![url.clone()], is_learner };
        match calls(at).await.member_add(request).await {
            // A try before this one was done, and its answer lost.
            Err(status) if status.message().ends_with("Peer URLs already exists") => Ok(()),
            answer => answer.map(drop),
        }
    })
    .await;
    // Not by a quorum's word: the second member of all is needed for one.
    let members = calls(at).await.member_list(MemberListRequest { linearizable: false }).await;
    let members = members.expect("a member lists the members").into_inner().members;
    fresh.join(members.into_iter().map(|member| (member.name, member.peer_urls)));
    fresh.start();
}

async fn learns_but_does_not_serve(learner: &Server) {
    let mut client = Client::connect(&learner.endpoint()).await;
    let status = client.status().await.expect("a learner has a status");
    assert!(status.is_learner);
    let read = RangeRequest { key: "load/".into(), ..Default::default() };
    let stale = RangeRequest { serializable: true, ..read.clone() };
    client.range(stale).await.expect("a learner serves what need not be up to date");
    let refused = (Code::FailedPrecondition, "etcdserver: rpc not supported for learner");
    let told = |status: Status| assert_eq!((status.code(), status.message()), refused);
    told(client.range(read).await.expect_err("a learner does not know what is up to date"));
    told(client.put(b"k", b"v").await.expect_err("a learner takes no writes"));
    told(list(learner).await.expect_err("nor does it list the members"));
}

/// Only the leader can promote; the others pass the request on to it, and its answer back.
#[test]
fn the_peer_port_of_a_follower_passes_a_promotion_on() {
    let dir = scratch();
    let mut cluster = Cluster::new(&Kind::subject(), dir.path(), 3, &[]);
    runtime().block_on(async { cluster.start() });
    for server in &cluster.servers {
        let answer = Curl::new(server.peer_url()).run(&["/members/promote/12345", "-XPOST"]);
        assert!(answer.stderr.contains("status 404"), "{answer:?}");
        assert_eq!(answer.stdout, "membership: ID not found\n", "{answer:?}");
    }
}

/// Two of three are lost for good; the third goes on alone with what it has, and grows again.
#[test]
fn a_member_goes_on_alone_when_it_is_forced_to() {
    let dir = scratch();
    let mut cluster = Cluster::new(&Kind::subject(), dir.path(), 3, &[]);
    runtime().block_on(async {
        cluster.start();
        let mut client = Client::connect(&cluster.servers[0].endpoint()).await;
        client.put(b"k", b"before").await.expect("three members serve");
        cluster.servers.iter_mut().for_each(Server::kill);
        let mut alone = cluster.servers.remove(0);
        alone.flags.push("--force-new-cluster".into());
        alone.start();
        let members = list(&alone).await.expect("it serves alone");
        assert_eq!(members.len(), 1);
        alone.flags.pop();
        alone.restart();
        let mut client = Client::connect(&alone.endpoint()).await;
        let found = client.scan(b"k").await.expect("it serves alone");
        assert_eq!(found.kvs[0].value, "before");
        let mut second = Server::joining(Kind::subject(), dir.path(), "second");
        join(&alone, &mut second, false).await;
        let mut client = Client::connect(&second.endpoint()).await;
        client.put(b"k", b"after").await.expect("two members serve");
    });
}

#[test]
fn a_member_that_was_not_added_does_not_join() {
    let dir = scratch();
    let mut single = Server::single(Kind::subject(), dir.path(), &[]);
    single.start();
    let mut stranger = Server::joining(Kind::subject(), dir.path(), "stranger");
    stranger.join([("m0".to_owned(), vec![single.peer_url()])].into_iter());
    stranger.spawn();
    let status = stranger.wait_exit();
    assert_eq!(status.code(), Some(1));
    assert!(stranger.has_logged("member count is unequal"), "{}", stranger.output());
    assert!(!has_log(&stranger.data_dir), "nothing was begun");
}

/// A member that has lost its data does not come back under the id whose promises it has forgotten.
#[test]
fn a_member_without_its_data_does_not_begin_again() {
    let dir = scratch();
    let mut cluster = Cluster::new(&Kind::subject(), dir.path(), 3, &[]);
    cluster.start();
    let lost = &mut cluster.servers[1];
    lost.kill();
    std::fs::remove_dir_all(&lost.data_dir).expect("it is ours");
    lost.spawn();
    let status = lost.wait_exit();
    assert_eq!(status.code(), Some(1));
    assert!(lost.has_logged("has already been bootstrapped"), "{}", lost.output());
}

fn has_log(data_dir: &Path) -> bool {
    std::fs::read_dir(data_dir.join("member/wal")).is_ok_and(|mut files| files.next().is_some())
}

async fn calls(at: &Server) -> ClusterClient<Channel> {
    let channel = Channel::connect_within(&at.endpoint(), PATIENCE).await;
    ClusterClient::with_origin(channel.expect("the server listens"), origin(&at.endpoint()))
}

async fn list(at: &Server) -> Result<Vec<Member>, Status> {
    let answer = calls(at).await.member_list(MemberListRequest { linearizable: true }).await;
    answer.map(|answer| answer.into_inner().members)
}

async fn member_of(at: &Server, server: &Server) -> Member {
    let url = server.peer_url();
    let members = list(at).await.expect("a member lists the members");
    members.into_iter().find(|member| member.peer_urls.contains(&url)).expect("it is a member")
}

/// Repeats the call until it is done: members must have been connected for a while, learners catch up.
async fn until_done<F: Future<Output = Result<(), Status>>>(mut call: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(status) = call().await {
        assert!(Instant::now() < deadline, "{status}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
