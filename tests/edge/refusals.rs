//! Requests that are refused, and streams that end, in etcd's words.

use super::*;

/// The same as a real etcd 3.4 answers, byte for byte.
#[tokio::test]
async fn large_late_and_unknown_requests_are_refused_in_etcds_words() {
    let world = World::new(|_| {}).await;
    let mut kv = world.kv();
    let refused = |code, text: &str| (code, text.to_owned());
    assert_eq!(
        refusal(kv.put(put(1_572_864)).await),
        refused(Code::InvalidArgument, "etcdserver: request is too large")
    );
    assert_eq!(
        refusal(kv.put(put(2_097_153)).await),
        refused(
            Code::ResourceExhausted,
            "grpc: received message larger than max (2097161 vs. 2097152)"
        )
    );
    let mut late = Request::new(put(1));
    late.metadata_mut().insert("grpc-timeout", "0m".parse().expect("a header value"));
    assert_eq!(
        refusal(kv.put(late).await),
        refused(Code::DeadlineExceeded, "context deadline exceeded")
    );
    let mut version = Request::new(put(1));
    let bytes = http::HeaderValue::from_bytes(b"\xff").expect("a header value");
    let mut headers = http::HeaderMap::new();
    headers.insert("client-api-version", bytes);
    *version.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
    assert_eq!(
        refusal(kv.put(version).await),
        refused(Code::InvalidArgument, "etcdserver: invalid client api version")
    );
    for (path, text) in [
        ("/a.B/C", "unknown service a.B"),
        ("/etcdserverpb.KV/Get", "unknown method Get for service etcdserverpb.KV"),
    ] {
        let mut grpc = tonic::client::Grpc::new(world.channel.clone());
        grpc.ready().await.expect("a channel is always ready");
        let codec = quorate_proto::codec::Codec::<PutRequest, PutResponse>::default();
        let path = path.parse().expect("a path");
        let answer = grpc.unary(Request::new(put(1)), path, codec).await;
        assert_eq!(refusal(answer), refused(Code::Unimplemented, text));
    }
}

/// An etcd commits them, and every etcd of the cluster ends.
#[tokio::test]
async fn a_members_urls_that_are_none_are_refused() {
    let world = World::new(|_| {}).await;
    let mut cluster = ClusterClient::new(world.channel.clone());
    let list = MemberListRequest { linearizable: true };
    let members = cluster.member_list(list).await.expect("the members").into_inner().members;
    let update = |id, urls: &[&str]| {
        let peer_urls = urls.iter().map(|url| (*url).to_owned()).collect();
        MemberUpdateRequest { id, peer_urls }
    };
    let bad = (Code::InvalidArgument, "etcdserver: given member URLs are invalid".to_owned());
    for urls in [&["nonsense"][..], &["http://a:1", "http://b"], &[]] {
        assert_eq!(refusal(cluster.member_update(update(members[0].id, urls)).await), bad);
    }
    let unknown = (Code::NotFound, "etcdserver: member not found".to_owned());
    assert_eq!(refusal(cluster.member_update(update(1, &["nonsense"])).await), unknown);
    let after = cluster.member_list(list).await.expect("the members").into_inner().members;
    assert_eq!(after, members);
}

#[tokio::test]
async fn a_watch_ends_at_its_deadline_and_at_what_cannot_be_read() {
    let world = World::new(|_| {}).await;
    let mut watch = world.watch(Some("300m")).await;
    let late = (Code::DeadlineExceeded, "context deadline exceeded".to_owned());
    assert_eq!(watch.end().await, late);

    let mut watch = world.watch(None).await;
    watch.requests.send(watch_on(&vec![b'k'; 3 << 20])).await.expect("the stream is open");
    assert_eq!(watch.end().await.0, Code::ResourceExhausted);
}

/// Names are keys of buckets: a longer one would be in no snapshot.
#[tokio::test]
async fn names_that_no_snapshot_can_hold_are_refused() {
    let world = World::new(|_| {}).await;
    let mut auth = AuthClient::new(world.channel.clone());
    let add = |bytes: usize| AuthRoleAddRequest { name: "r".repeat(bytes) };
    auth.role_add(add(32_768)).await.expect("it is added");
    let too_large = (Code::InvalidArgument, "etcdserver: request is too large".to_owned());
    assert_eq!(refusal(auth.role_add(add(32_769)).await), too_large);
    let user = AuthUserAddRequest { name: "u".repeat(32_769), ..AuthUserAddRequest::default() };
    assert_eq!(refusal(auth.user_add(user).await), too_large);
}

#[tokio::test]
async fn txns_that_nest_too_deep_or_hold_too_much_are_refused() {
    let world = World::new(|_| {}).await;
    let too_many = "etcdserver: too many operations in txn request";
    let mut txn = Vec::new();
    for _ in 0..2_000 {
        // TxnRequest.success { RequestOp.request_txn { .. } }
        let op = [&[0x22][..], &varint(txn.len()), &txn].concat();
        txn = [&[0x12][..], &varint(op.len()), &op].concat();
    }
    let refused = world.call("/etcdserverpb.KV/Txn", &[], framed(0, &txn)).await;
    assert_eq!(refused.headers()["grpc-message"], too_many);
    assert_eq!(refused.headers()["grpc-status"], (Code::InvalidArgument as i32).to_string());
    let json = r#"{"success":[{"request_txn":"#.repeat(2_000) + "{}" + &"}]}".repeat(2_000);
    let answer = world.http("POST", "/v3/kv/txn", &json).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(too_many), "{answer}");
    let wide = format!("{{\"success\":[{}]}}", vec!["{}"; 900_000].join(","));
    let answer = world.http("POST", "/v3/kv/txn", &wide).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(too_many), "{answer}");
    world.kv().put(put(1)).await.expect("the member serves on");
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
