//! Members and maintenance: status, alarms, hashes, snapshots, the leader.

use std::collections::BTreeSet;
use std::time::Duration;

use etcd_client::{
    AlarmAction, AlarmOptions, AlarmType, Client, Member, MemberAddOptions, StatusResponse,
};
use sha2::{Digest, Sha256};

use crate::{World, denied, refused};

const BBOLT_MAGIC: [u8; 4] = [0xed, 0xda, 0x0c, 0xed];
const DIGEST_BYTES: usize = 32;

pub async fn members(world: World) {
    let mut root = world.user("root").await;
    let count = world.endpoints.len();
    let members = list(&mut root).await;
    let urls: BTreeSet<_> = members.iter().flat_map(Member::client_urls).cloned().collect();
    let wanted: BTreeSet<_> = world.endpoints.iter().map(|e| format!("https://{e}")).collect();
    assert_eq!((members.len(), urls), (count, wanted));
    assert!(members.iter().all(|member| !member.is_learner()), "{members:?}");
    let ids: BTreeSet<_> = members.iter().map(Member::id).collect();
    let mut answering = BTreeSet::new();
    let mut clusters = BTreeSet::new();
    for i in 0..count {
        let answer = world.user_at(i, "root").await.put("ids", "1", None).await.expect("root may");
        let header = answer.header().expect("every answer has a header");
        answering.insert(header.member_id());
        clusters.insert(header.cluster_id());
    }
    assert_eq!((answering, clusters.len()), (ids, 1));
}

/// A learner, so that no quorum depends on it.
pub async fn a_learner_comes_and_goes(world: World) {
    // Of one member: lists are read without the leader.
    let mut root = world.user_at(0, "root").await;
    let count = world.endpoints.len();
    let learner = || Some(MemberAddOptions::new().with_is_learner());
    denied(world.user("ann").await.member_add(["https://127.0.0.1:2"], learner()).await);
    let added = root.member_add(["https://127.0.0.1:2"], learner()).await.expect("root may");
    let member = added.member().expect("it was added").clone();
    assert_eq!(member.peer_urls(), ["https://127.0.0.1:2"]);
    assert!(member.is_learner());
    assert_eq!(added.member_list().len(), count + 1);
    refused(
        root.member_promote(member.id()).await,
        "FailedPrecondition",
        "etcdserver: can only promote a learner member which is in sync with leader",
    );
    let moved = root.member_update(member.id(), ["https://127.0.0.1:3".to_owned()]).await;
    moved.expect("root may");
    let members = list(&mut root).await;
    let found = members.iter().find(|m| m.id() == member.id()).expect("it is there still");
    assert_eq!((found.name(), found.peer_urls()), ("", &["https://127.0.0.1:3".to_owned()][..]));
    let left = root.member_remove(member.id()).await.expect("root may");
    assert_eq!(left.members().len(), count);
    refused(root.member_remove(1).await, "NotFound", "etcdserver: member not found");
}

pub async fn status(world: World) {
    let mut root = world.user_at(0, "root").await;
    let before = root.status().await.expect("root may");
    root.put("status", "1", None).await.expect("root may");
    let after = root.status().await.expect("root may");
    let version: Vec<_> = after.version().split('.').map(str::parse::<u32>).collect();
    assert!(matches!(version[..], [Ok(3), Ok(_), Ok(_)]), "{}", after.version());
    assert!(after.raft_index() > before.raft_index(), "{before:?} {after:?}");
    assert!(after.db_size() > 0 && after.raft_term() > 0 && !after.is_learner(), "{after:?}");
    let ids: Vec<_> = list(&mut root).await.iter().map(Member::id).collect();
    let leaders: BTreeSet<_> = statuses(&world).await.iter().map(StatusResponse::leader).collect();
    assert_eq!(leaders, BTreeSet::from([after.leader()]));
    assert!(ids.contains(&after.leader()), "{after:?} {ids:?}");
}

pub async fn alarm(world: World) {
    let mut root = world.user_at(0, "root").await;
    let mut ann = world.user_at(0, "ann").await;
    let member = root.status().await.expect("root may").leader();
    let at = || Some(with_member(member));
    let full = AlarmType::Nospace;
    let raised = root.alarm(AlarmAction::Activate, full, at()).await.expect("root may");
    assert_eq!(raised.alarms().iter().map(|a| a.member_id()).collect::<Vec<_>>(), [member]);
    let listed = root.alarm(AlarmAction::Get, AlarmType::None, None).await.expect("root may");
    assert_eq!(listed.alarms().iter().map(|a| a.alarm()).collect::<Vec<_>>(), [full]);
    refused(
        ann.put("ann/full", "1", None).await,
        "ResourceExhausted",
        "etcdserver: mvcc: database space exceeded",
    );
    assert_eq!(ann.delete("ann/full", None).await.expect("it makes room").deleted(), 0);
    root.alarm(AlarmAction::Deactivate, full, at()).await.expect("root may");
    let listed = root.alarm(AlarmAction::Get, AlarmType::None, None).await.expect("root may");
    assert!(listed.alarms().is_empty(), "{listed:?}");
    ann.put("ann/full", "2", None).await.expect("there is room");
}

fn with_member(member: u64) -> AlarmOptions {
    let mut options = AlarmOptions::new();
    options.with_member(member);
    options
}

pub async fn hash_and_defragment(world: World) {
    let mut root = world.user_at(0, "root").await;
    let put = root.put("defragment", "1", None).await.expect("root may");
    let revision = put.header().expect("every answer has a header").revision();
    let mut hashes = BTreeSet::new();
    for i in 0..world.endpoints.len() {
        let mut client = world.user_at(i, "root").await;
        // What is read has been applied there.
        client.get("defragment", None).await.expect("root may");
        hashes.insert(client.hash_kv(revision).await.expect("root may").hash());
        client.defragment().await.expect("root may");
        hashes.insert(client.hash_kv(revision).await.expect("root may").hash());
    }
    assert_eq!(hashes.len(), 1, "members differ: {hashes:?}");
    let put = root.put("defragment", "2", None).await.expect("root may");
    let revision = put.header().expect("every answer has a header").revision();
    let after = root.hash_kv(revision).await.expect("root may").hash();
    assert!(!hashes.contains(&after), "the hash does not change");
    denied(world.user("ann").await.defragment().await);
}

/// Blobs of a database, with what is left after each; then the digest of all of them.
pub async fn snapshot(world: World) {
    const VALUE: &str = "a value to be found in the file";
    let mut root = world.user_at(0, "root").await;
    let put = root.put("ann/snapshot", VALUE, None).await;
    put.expect("root may");
    let mut stream = root.snapshot().await.expect("root may");
    let mut file = Vec::new();
    let mut ends = Vec::new();
    while let Some(answer) = stream.message().await.expect("the stream ends well") {
        file.extend_from_slice(answer.blob());
        ends.push(file.len() as u64 + answer.remaining_bytes());
    }
    let database_bytes = file.len() - DIGEST_BYTES;
    let (database, digest) = file.split_at(database_bytes);
    assert_eq!(Sha256::digest(database).as_slice(), digest);
    assert_eq!(database_bytes % 512, 0, "pages, as the reader of the file checks it");
    assert_eq!(database[16..20], BBOLT_MAGIC);
    let (digest_end, blob_ends) = ends.split_last().expect("something comes");
    assert_eq!(*digest_end, file.len() as u64);
    assert!(!blob_ends.is_empty(), "the digest comes by itself");
    assert!(blob_ends.iter().all(|end| *end == database_bytes as u64), "{ends:?}");
    assert!(database.windows(VALUE.len()).any(|part| part == VALUE.as_bytes()));
    let mut stream = world.user("ann").await.snapshot().await;
    match &mut stream {
        Ok(stream) => denied(stream.message().await),
        Err(_) => denied(stream),
    }
}

pub async fn leader_moves(world: World) {
    let all = statuses(&world).await;
    let leader = all[0].leader();
    let id = |status: &StatusResponse| status.header().expect("every answer has one").member_id();
    let at = all.iter().position(|status| id(status) == leader).expect("the leader is a member");
    let mut at_leader = world.user_at(at, "root").await;
    refused(
        at_leader.move_leader(1).await,
        "FailedPrecondition",
        "etcdserver: bad leader transferee",
    );
    let Some(next) = all.iter().map(id).find(|id| *id != leader) else { return };
    let mut elsewhere = world.user_at(at + 1, "root").await;
    refused(elsewhere.move_leader(next).await, "FailedPrecondition", "etcdserver: not leader");
    at_leader.move_leader(next).await.expect("the leader may");
    while statuses(&world).await.iter().any(|status| status.leader() != next) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    at_leader.put("moved", "1", None).await.expect("the new leader serves");
}

async fn list(client: &mut Client) -> Vec<Member> {
    client.member_list().await.expect("members are listed").members().to_vec()
}

/// Of every member, in the order of the endpoints.
async fn statuses(world: &World) -> Vec<StatusResponse> {
    let mut all = Vec::new();
    for i in 0..world.endpoints.len() {
        all.push(world.user_at(i, "root").await.status().await.expect("root may"));
    }
    all
}
