//! Leases, and what stands on them: locks and elections.

use std::time::Duration;

use etcd_client::{
    EventType, GetOptions, LeaseGrantOptions, LeaseTimeToLiveOptions, LockOptions, ProclaimOptions,
    PutOptions, ResignOptions, WatchOptions,
};

use crate::{World, denied, events, refused};

const NOT_FOUND: &str = "etcdserver: requested lease not found";
/// Locks and elections hide the codes of the calls that they make.
const DENIED: &str = "etcdserver: permission denied";

pub async fn life(world: World) {
    let mut ann = world.user_at(0, "ann").await;
    let mut other = world.user_at(1, "ann").await;
    let id = || Some(LeaseGrantOptions::new().with_id(7001));
    let lease = ann.lease_grant(600, id()).await.expect("ann may");
    assert_eq!((lease.id(), lease.ttl()), (7001, 600));
    refused(
        other.lease_grant(600, id()).await,
        "FailedPrecondition",
        "etcdserver: lease already exists",
    );
    let leased = || Some(PutOptions::new().with_lease(7001));
    ann.put("ann/lease/b", "2", leased()).await.expect("ann may");
    ann.put("ann/lease/a", "1", leased()).await.expect("ann may");
    assert_eq!(ann.get("ann/lease/a", None).await.expect("ann may").kvs()[0].lease(), 7001);
    let with_keys = || Some(LeaseTimeToLiveOptions::new().with_keys());
    let info = other.lease_time_to_live(7001, with_keys()).await.expect("ann may");
    let mut keys = info.keys().to_vec();
    keys.sort();
    assert_eq!(keys, [b"ann/lease/a", b"ann/lease/b"]);
    assert_eq!((info.id(), info.granted_ttl()), (7001, 600));
    assert!((500..=600).contains(&info.ttl()), "{info:?}");
    let listed = ann.leases().await.expect("ann may");
    assert!(listed.leases().iter().any(|lease| lease.id() == 7001), "{listed:?}");
    ann.lease_revoke(7001).await.expect("ann may");
    let prefix = Some(GetOptions::new().with_prefix());
    assert_eq!(other.get("ann/lease/", prefix).await.expect("ann may").count(), 0);
    assert_eq!(other.lease_time_to_live(7001, None).await.expect("ann may").ttl(), -1);
    let kept = ann.lease_keep_alive(7001).await.map(|_| ()).expect_err("there is none");
    assert!(kept.to_string().contains("lease not found"), "{kept}");
    refused(ann.lease_revoke(7001).await, "NotFound", NOT_FOUND);
    refused(ann.put("ann/lease/a", "1", leased()).await, "NotFound", NOT_FOUND);
    let root_lease = world.user("root").await.lease_grant(600, None).await.expect("root may").id();
    let leased = Some(PutOptions::new().with_lease(root_lease));
    world.user("root").await.put("shared/leased", "1", leased).await.expect("root may");
    denied(ann.lease_revoke(root_lease).await);
}

/// Of two leases of the same length the one that is kept alive outlives the other.
pub async fn kept_alive(world: World) {
    let mut ann = world.user("ann").await;
    let options = WatchOptions::new().with_prefix();
    let mut stream = ann.watch("ann/alive/", Some(options)).await.expect("ann may");
    let created = stream.message().await.expect("ann may").expect("the stream is open");
    assert!(created.created(), "{created:?}");
    let kept = ann.lease_grant(4, None).await.expect("ann may");
    let (mut keeper, mut answers) = ann.lease_keep_alive(kept.id()).await.expect("it lives");
    assert_eq!((kept.ttl(), keeper.id()), (4, kept.id()));
    let left = ann.lease_grant(4, None).await.expect("ann may");
    for (name, lease) in [("ann/alive/kept", kept.id()), ("ann/alive/left", left.id())] {
        let leased = Some(PutOptions::new().with_lease(lease));
        ann.put(name, "1", leased).await.expect("ann may");
    }
    let wait = async {
        let seen = events(&mut stream, 3).await;
        let end = seen[2].kv().expect("every event has a key").key().to_vec();
        assert_eq!((seen[2].event_type(), &end[..]), (EventType::Delete, &b"ann/alive/left"[..]));
    };
    let keep = async {
        loop {
            keeper.keep_alive().await.expect("the stream is open");
            let answer = answers.message().await.expect("it lives").expect("the stream is open");
            assert_eq!((answer.id(), answer.ttl()), (kept.id(), 4));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::select! {
        // The end that is waited for goes first.
        biased;
        () = wait => {}
        () = keep => {}
    }
    assert_eq!(ann.get("ann/alive/kept", None).await.expect("ann may").count(), 1);
    ann.lease_revoke(kept.id()).await.expect("ann may");
    assert_eq!(ann.get("ann/alive/kept", None).await.expect("ann may").count(), 0);
}

pub async fn lock(world: World) {
    let mut ann = world.user("ann").await;
    let mut other = world.user_at(1, "ann").await;
    let first = ann.lease_grant(60, None).await.expect("ann may").id();
    let second = ann.lease_grant(60, None).await.expect("ann may").id();
    let with = |lease| Some(LockOptions::new().with_lease(lease));
    refused(ann.lock("bob/lock", with(first)).await, "Unknown", DENIED);
    let held = ann.lock("ann/lock", with(first)).await.expect("nobody has it");
    assert_eq!(held.key(), format!("ann/lock/{first:x}").as_bytes());
    let kvs = ann.get(held.key(), None).await.expect("ann may");
    assert_eq!(kvs.kvs()[0].lease(), first);

    // From the present of the cluster on: the member that watches may be behind it.
    let now = revision!(kvs);
    let options = Some(WatchOptions::new().with_prefix().with_start_revision(now + 1));
    let mut stream = ann.watch("ann/lock/", options).await.expect("ann may");
    let created = stream.message().await.expect("ann may").expect("the stream is open");
    assert!(created.created(), "{created:?}");
    let waiting = tokio::spawn(async move { other.lock("ann/lock", with(second)).await });
    let queued = events(&mut stream, 1).await;
    let key = queued[0].kv().expect("every event has a key").key();
    assert_eq!(key, format!("ann/lock/{second:x}").as_bytes());
    // An answer that comes too early would be here after another call on the same runtime.
    ann.get(key, None).await.expect("ann may");
    assert!(!waiting.is_finished(), "two have the lock");
    ann.unlock(held.key()).await.expect("it is held");
    let held = waiting.await.expect("no panic").expect("it is free");
    assert_eq!(held.key(), key);
    ann.lease_revoke(second).await.expect("ann may");
    assert_eq!(ann.get(held.key(), None).await.expect("ann may").count(), 0, "its lease is gone");
    ann.lease_revoke(first).await.expect("ann may");
}

pub async fn election(world: World) {
    let mut ann = world.user("ann").await;
    let mut other = world.user_at(1, "ann").await;
    let mut third = world.user_at(2, "ann").await;
    let none = "election: no leader";
    refused(ann.leader("ann/election").await, "Unknown", none);
    let first = ann.lease_grant(60, None).await.expect("ann may").id();
    let second = ann.lease_grant(60, None).await.expect("ann may").id();
    refused(ann.campaign("bob/election", "1", first).await, "Unknown", DENIED);
    let won = ann.campaign("ann/election", "one", first).await.expect("nobody leads");
    let leader = won.leader().expect("a leader has a key").clone();
    assert_eq!((leader.name(), leader.lease()), (&b"ann/election"[..], first));
    assert_eq!(leader.key(), format!("ann/election/{first:x}").as_bytes());

    let mut observed = third.observe("ann/election").await.expect("ann may");
    let mut next = async || {
        let answer = observed.message().await.expect("ann may").expect("the stream is open");
        let kv = answer.kv().expect("a leader has a key");
        (kv.key_str().expect("text").to_owned(), kv.value_str().expect("text").to_owned())
    };
    let key = |lease: i64| format!("ann/election/{lease:x}");
    assert_eq!(next().await, (key(first), "one".to_owned()));

    let options = Some(WatchOptions::new().with_prefix());
    let mut stream = ann.watch(key(second), options).await.expect("ann may");
    let created = stream.message().await.expect("ann may").expect("the stream is open");
    assert!(created.created(), "{created:?}");
    let waiting = tokio::spawn(async move { other.campaign("ann/election", "two", second).await });
    events(&mut stream, 1).await;
    let found = ann.leader("ann/election").await.expect("one leads");
    assert_eq!(found.kv().expect("a leader has a key").value(), b"one");
    assert!(!waiting.is_finished(), "two lead");

    let with = || Some(ProclaimOptions::new().with_leader(leader.clone()));
    ann.proclaim("uno", with()).await.expect("it leads");
    assert_eq!(next().await, (key(first), "uno".to_owned()));
    ann.resign(Some(ResignOptions::new().with_leader(leader.clone()))).await.expect("it leads");
    let won = waiting.await.expect("no panic").expect("the first is gone");
    let successor = won.leader().expect("a leader has a key");
    assert_eq!(successor.lease(), second);
    assert_eq!(next().await, (key(second), "two".to_owned()));
    refused(ann.proclaim("dos", with()).await, "Unknown", "election: not leader");
    let found = ann.leader("ann/election").await.expect("two leads");
    assert_eq!(found.kv().expect("a leader has a key").value(), b"two");
    ann.lease_revoke(second).await.expect("ann may");
    refused(ann.leader("ann/election").await, "Unknown", none);
    ann.lease_revoke(first).await.expect("ann may");
}
