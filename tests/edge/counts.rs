//! What the pages of metrics count.

use super::*;

#[tokio::test]
async fn what_happens_is_counted() {
    let world = World::new(|_| {}).await;
    let mut kv = world.kv();
    for _ in 0..3 {
        kv.put(put(100)).await.expect("put");
    }
    kv.range(RangeRequest { key: Bytes::from_static(b"k"), ..RangeRequest::default() })
        .await
        .expect("read");
    let _ = kv.put(PutRequest::default()).await;
    let watch = world.watch(None).await;
    world.lease().lease_grant(LeaseGrantRequest { id: 1, ttl: 60 }).await.expect("granted");
    kv.compact(CompactionRequest { revision: 4, physical: true }).await.expect("compacted");
    wait_for(&world, "/metrics", "\netcd_cluster_version{cluster_version=\"3.7\"} 1\n").await;
    let page = world.get("/metrics").await;
    let own = world.server.member().id();
    let put = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";
    for line in [
        "etcd_server_has_leader 1",
        "etcd_server_is_leader 1",
        &format!("etcd_network_known_peers{{Local=\"{own}\",Remote=\"{own}\"}} 1"),
        "etcd_server_proposals_pending 0",
        "etcd_server_proposals_failed_total 0",
        "etcd_server_leader_changes_seen_total 1",
        "etcd_mvcc_put_total 3",
        "etcd_mvcc_range_total 1",
        "etcd_server_range_duration_seconds_count{success=\"true\"} 1",
        "etcd_debugging_mvcc_db_compaction_keys_total 2",
        "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count 1",
        "etcd_debugging_mvcc_total_put_size_in_bytes 303",
        "etcd_debugging_mvcc_keys_total 1",
        "etcd_debugging_mvcc_current_revision 4",
        "etcd_debugging_lease_granted_total 1",
        "etcd_debugging_mvcc_watch_stream_total 1",
        "etcd_debugging_mvcc_watcher_total 1",
        "etcd_server_client_requests_total{client_api_version=\"unknown\",type=\"stream\"} 1",
        "etcd_server_request_duration_seconds_count{success=\"true\",type=\"Put\"} 3",
        &format!("grpc_server_started_total{{{put}}} 4"),
        &format!("grpc_server_handled_total{{grpc_code=\"OK\",{put}}} 3"),
        &format!("grpc_server_handled_total{{grpc_code=\"InvalidArgument\",{put}}} 1"),
    ] {
        assert!(page.contains(&format!("\n{line}\n")), "{line} is not on the page:\n{page}");
    }
    for counted in [
        "etcd_disk_wal_fsync_duration_seconds",
        "etcd_disk_wal_write_duration_seconds",
        "etcd_disk_backend_commit_duration_seconds",
        "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
    ] {
        assert!(!page.contains(&format!("\n{counted}_count 0\n")), "{counted}:\n{page}");
    }
    drop(watch);
}

#[tokio::test]
async fn streams_that_cannot_be_read_are_counted() {
    let world = World::new(|_| {}).await;
    for method in ["Watch/Watch", "Lease/LeaseKeepAlive"] {
        // One message of one byte, which begins a number that does not end.
        let body = tonic::body::Body::new(Full::new(Bytes::from_static(&[0, 0, 0, 0, 1, 0xff])));
        let request = http::Request::post(format!("/etcdserverpb.{method}"))
            .header("content-type", "application/grpc")
            .body(body)
            .expect("a request");
        let answer = world.channel.clone().call(request).await.expect("an answer");
        let answer = answer.into_body().collect().await.expect("it ends");
        let trailers = answer.trailers().expect("a status");
        assert_eq!(trailers["grpc-status"], (Code::Internal as i32).to_string(), "{method}");
    }
    drop(world.watch(None).await);
    let page = world.get("/metrics").await;
    for api in ["lease-keepalive", "watch"] {
        let labels = format!("API=\"{api}\",Type=\"receive\"");
        let line = format!("\netcd_network_server_stream_failures_total{{{labels}}} 1\n");
        assert!(page.contains(&line), "{page}");
    }
}

#[tokio::test]
async fn gauges_of_watches_go_down_however_a_client_leaves() {
    let world = World::new(|_| {}).await;
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(world.watch(None).await);
        // Requests end, the client still listens; then it is gone.
        let Watch { requests, responses } = world.watch(None).await;
        drop(requests);
        drop(responses);
        // The client is gone at once.
        drop(world.watch(None).await);
        let mut late = world.watch(Some("100m")).await;
        late.next().await.expect_err("its time is up");
        let broken = world.call("/etcdserverpb.Watch/Watch", &[], framed(0, &[0xff])).await;
        assert!(broken.body().trailers().is_some());
    }
    let gauges = |streams, watchers| {
        format!(
            "etcd_debugging_mvcc_watch_stream_total {streams}\n# HELP \
             etcd_debugging_mvcc_watcher_total Watchers on all streams.\n# TYPE \
             etcd_debugging_mvcc_watcher_total gauge\netcd_debugging_mvcc_watcher_total {watchers}\n"
        )
    };
    wait_for(&world, "/metrics", &gauges(10, 10)).await;
    drop(open);
    wait_for(&world, "/metrics", &gauges(0, 0)).await;
}

/// What the calls of maintenance take.
#[tokio::test]
async fn defragmentations_and_snapshots_are_counted() {
    let world = World::new(|_| {}).await;
    let counts = |page: &str, defrags: u64, snapshots: u64| {
        let lines = [
            format!("\netcd_disk_backend_defrag_duration_seconds_count {defrags}\n"),
            "\netcd_disk_defrag_inflight 0\n".into(),
            format!("\netcd_disk_backend_snapshot_duration_seconds_count {snapshots}\n"),
        ];
        lines.iter().all(|line| page.contains(line))
    };
    let page = world.get("/metrics").await;
    assert!(counts(&page, 0, 0), "{page}");
    let mut maintenance = MaintenanceClient::new(world.channel.clone());
    for times in 1..=2 {
        maintenance.defragment(DefragmentRequest {}).await.expect("defragmented");
        let page = world.get("/metrics").await;
        assert!(counts(&page, times, times - 1), "{page}");
        assert!(!world.snapshot().await.is_empty());
        // The last piece is counted when it is sent.
        let counted = async { while !counts(&world.get("/metrics").await, times, times) {} };
        tokio::time::timeout(PATIENCE, counted).await.expect("the snapshot is counted");
    }
}
