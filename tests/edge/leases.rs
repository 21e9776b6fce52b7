//! Answers about leases: the fate of a lease, and the revision of a revocation.

use super::*;

#[tokio::test]
async fn keep_alives_show_the_fate_of_a_lease() {
    let world = World::new(|_| {}).await;
    let mut lease = world.lease();
    for (id, ttl) in [(3, 500), (2, 100), (1, 300)] {
        let grant = lease.lease_grant(LeaseGrantRequest { id, ttl }).await;
        assert_eq!(grant.expect("granted").into_inner().ttl, ttl);
    }
    let short = lease.lease_grant(LeaseGrantRequest { id: 4, ttl: -1 }).await;
    assert_eq!(short.expect("granted").into_inner().ttl, 2, "raised to etcd's minimum");

    let (requests, stream) = mpsc::channel(4);
    let answers = lease.lease_keep_alive(ReceiverStream::new(stream)).await;
    let mut answers = answers.expect("the stream opens").into_inner();
    for (id, ttl) in [(99, 0), (2, 100)] {
        requests.send(LeaseKeepAliveRequest { id }).await.expect("the stream is open");
        let answer = answers.message().await.expect("an answer").expect("not the end");
        assert_eq!((answer.id, answer.ttl), (id, ttl));
    }
    drop(requests);
    assert_eq!(answers.message().await.expect("an orderly end"), None);

    // The first keep-alive has waited for the leader to keep the time.
    let leases = lease.lease_leases(LeaseLeasesRequest {}).await.expect("listed").into_inner();
    let ids: Vec<i64> = leases.leases.iter().map(|lease| lease.id).collect();
    assert_eq!(ids, [4, 2, 1, 3], "soonest to end first");
}

/// A watch from that revision on must not miss the deletion, whatever others write meanwhile.
#[tokio::test]
async fn a_revocations_answer_has_the_revision_of_its_own_deletion() {
    let world = World::new(|_| {}).await;
    let writers: Vec<_> = (0..6)
        .map(|_| {
            let mut kv = world.kv();
            tokio::spawn(async move {
                loop {
                    kv.put(put(1)).await.expect("it is put");
                }
            })
        })
        .collect();
    let (mut kv, mut lease) = (world.kv(), world.lease());
    for _ in 0..30 {
        let grant = LeaseGrantRequest { ttl: 60, id: 0 };
        let id = lease.lease_grant(grant).await.expect("it is granted").into_inner().id;
        let key = Bytes::from_static(b"leased");
        let leased = PutRequest { key: key.clone(), lease: id, ..PutRequest::default() };
        kv.put(leased).await.expect("it is put");
        let revoked = lease.lease_revoke(LeaseRevokeRequest { id }).await.expect("it is revoked");
        let gone_at = revoked.into_inner().header.expect("a header").revision;
        let mut there = Vec::new();
        for revision in [gone_at - 1, gone_at] {
            let read = RangeRequest { key: key.clone(), revision, ..RangeRequest::default() };
            there.push(kv.range(read).await.expect("it is read").into_inner().count);
        }
        assert_eq!(there, [1, 0], "before and at revision {gone_at}");
    }
    writers.iter().for_each(tokio::task::JoinHandle::abort);
}
