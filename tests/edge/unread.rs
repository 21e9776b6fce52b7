//! Clients that read nothing of an answer, on the wire.

use http::Request as HttpRequest;

use super::*;

/// Calls with this window, of which nothing is ever given back, until the answer ends.
async fn call_and_read_nothing(
    world: &World,
    path: &str,
    message: &impl prost::Message,
    window: u32,
) -> (usize, h2::Error) {
    let mut client = h2::client::Builder::new();
    client.initial_window_size(window).initial_connection_window_size(1 << 20);
    let (mut sender, connection) =
        client.handshake::<_, Bytes>(world.connect().await).await.expect("a handshake");
    tokio::spawn(connection);
    let request = HttpRequest::post(format!("http://x{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "300m")
        .body(())
        .expect("a request");
    let (answer, mut body) = sender.send_request(request, false).expect("it is sent");
    let is_stream = path.ends_with("/Watch") || path.ends_with("KeepAlive");
    body.send_data(framed(0, &message.encode_to_vec()).into(), !is_stream).expect("it is sent");
    let reading = async {
        let mut answer = answer.await.expect("it begins").into_body();
        let mut seen = 0;
        loop {
            match answer.data().await {
                Some(Ok(part)) => seen += part.len(),
                Some(Err(error)) => return (seen, error),
                None => panic!("it ends in order: {:?}", answer.trailers().await),
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("it ends")
}

fn all_keys() -> RangeRequest {
    RangeRequest { key: "a".into(), range_end: "z".into(), ..RangeRequest::default() }
}

fn all_events() -> WatchRequest {
    let create = WatchCreateRequest {
        key: "a".into(),
        range_end: "z".into(),
        start_revision: 1,
        ..WatchCreateRequest::default()
    };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

/// Waits until so many calls of a method have ended at their deadline.
async fn wait_for_late(world: &World, method: &str, calls: usize) {
    let page = || async { world.get("/metrics").await };
    let is_line = |line: &str| {
        line.starts_with("grpc_server_handled_total{grpc_code=\"DeadlineExceeded\"")
            && line.contains(&format!("grpc_method=\"{method}\""))
            && line.ends_with(&format!(" {calls}"))
    };
    let wait = async { while !page().await.lines().any(is_line) {} };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{method} is not late"));
}

#[tokio::test]
async fn an_answer_that_is_not_read_ends_at_its_deadline() {
    let world = World::new(|_| {}).await;
    let mut kv = world.kv();
    for key in ["a", "b", "c"] {
        let put = PutRequest { key: key.into(), ..put(400_000) };
        kv.put(put).await.expect("put");
    }
    let world = &world;
    let (range, events) = (all_keys(), all_events());
    let request = Some(request_op::Request::RequestRange(all_keys()));
    let txn = TxnRequest { success: vec![RequestOp { request }], ..TxnRequest::default() };
    let everything = SnapshotRequest::default();
    for (calls, window) in [(1, 65_535), (2, 0), (3, 1 << 20)] {
        let (range, txn, stream, watch, snapshot) = tokio::join!(
            call_and_read_nothing(world, "/etcdserverpb.KV/Range", &range, window),
            call_and_read_nothing(world, "/etcdserverpb.KV/Txn", &txn, window),
            call_and_read_nothing(world, "/etcdserverpb.KV/RangeStream", &range, window),
            call_and_read_nothing(world, "/etcdserverpb.Watch/Watch", &events, window),
            call_and_read_nothing(world, "/etcdserverpb.Maintenance/Snapshot", &everything, window),
        );
        for (method, (seen, end)) in [
            ("Range", range),
            ("Txn", txn),
            ("RangeStream", stream),
            ("Watch", watch),
            ("Snapshot", snapshot),
        ] {
            assert_eq!(seen, window as usize, "{method}");
            assert_eq!(end.reason(), Some(h2::Reason::CANCEL), "{method}: {end}");
            wait_for_late(world, method, calls).await;
        }
    }
    for gauge in ["watch_stream", "watcher", "slow_watcher"] {
        wait_for(world, "/metrics", &format!("\netcd_debugging_mvcc_{gauge}_total 0\n")).await;
    }
}

/// What the client still takes of the last message is less than all of it.
#[tokio::test]
async fn a_window_for_a_part_of_a_small_message_does_not_keep_a_stream() {
    let world = World::new(|_| {}).await;
    world.lease().lease_grant(LeaseGrantRequest { id: 7, ttl: 100 }).await.expect("granted");
    world.kv().put(put(3)).await.expect("put");
    for window in [1, 20] {
        let keep = LeaseKeepAliveRequest { id: 7 };
        let path = "/etcdserverpb.Lease/LeaseKeepAlive";
        let (_, end) = call_and_read_nothing(&world, path, &keep, window).await;
        assert_eq!(end.reason(), Some(h2::Reason::CANCEL), "{end}");
        let path = "/etcdserverpb.Watch/Watch";
        let (_, end) = call_and_read_nothing(&world, path, &all_events(), window).await;
        assert_eq!(end.reason(), Some(h2::Reason::CANCEL), "{end}");
    }
}
