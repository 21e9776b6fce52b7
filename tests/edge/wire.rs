//! Bytes on the wire: error texts, timeouts, compression, ends within a message, paths.

use super::*;

/// Some clients compare the header as it is, which the library would write with `%20` for spaces.
#[tokio::test]
async fn texts_of_errors_are_on_the_wire_as_they_are() {
    let world = World::new(|_| {}).await;
    let empty = framed(0, b"");
    let refused = world.call("/etcdserverpb.KV/Put", &[], empty.clone()).await;
    assert_eq!(refused.headers()["grpc-message"], "etcdserver: key is not provided");
    let unknown = world.call("/etcdserverpb.KV/Get", &[], empty.clone()).await;
    let text = "unknown method Get for service etcdserverpb.KV";
    assert_eq!(unknown.headers()["grpc-message"], text);
    // A stream says it in its trailers.
    let headers = [("grpc-timeout", "100m")];
    let late = world.call("/etcdserverpb.Watch/Watch", &headers, Vec::new()).await;
    let trailers = late.body().trailers().expect("a result");
    assert_eq!(trailers["grpc-message"], "context deadline exceeded");
}

#[tokio::test]
async fn malformed_timeouts_are_refused_as_by_etcd() {
    let world = World::new(|_| {}).await;
    for (timeout, why) in [
        ("5s", "transport: timeout unit is not recognized: \"5s\""),
        ("-1S", "strconv.ParseUint: parsing \"-1\": invalid syntax"),
    ] {
        let headers = [("grpc-timeout", timeout)];
        let refused = world.call("/etcdserverpb.KV/Range", &headers, framed(0, b"")).await;
        assert_eq!(refused.status(), 400);
        assert_eq!(refused.headers()["grpc-status"], (Code::Internal as i32).to_string());
        let text = format!("malformed grpc-timeout: {why}");
        assert_eq!(refused.headers()["grpc-message"], text.as_str());
    }
}

#[tokio::test]
async fn compressed_calls_are_answered_compressed() {
    let world = World::new(|_| {}).await;
    let put = PutRequest { value: vec![b'v'; 200_000].into(), ..put(0) };
    let headers = [("grpc-encoding", "gzip")];
    let compressed = framed(1, &gzip(&put.encode_to_vec()));
    assert!(compressed.len() < 10_000);
    let answer = world.call("/etcdserverpb.KV/Put", &headers, compressed).await;
    assert_eq!(answer.headers()["grpc-encoding"], "gzip");
    assert_eq!(gunzipped(answer.into_body().to_bytes()).len(), 1);
    // Only announced.
    let range = RangeRequest { key: Bytes::from_static(b"k"), ..RangeRequest::default() };
    let range = framed(0, &range.encode_to_vec());
    let answer = world.call("/etcdserverpb.KV/Range", &headers, range.clone()).await;
    let body = answer.into_body().to_bytes();
    assert!(body.len() < 10_000, "{} bytes", body.len());
    let messages = gunzipped(body);
    let found = RangeResponse::decode(&messages[0][..]).expect("a message");
    assert_eq!(found.kvs[0].value.len(), 200_000);
    let answer = world.call("/etcdserverpb.KV/Range", &[], range).await;
    assert!(!answer.headers().contains_key("grpc-encoding"));
    // A stream.
    let snapshot = world.call("/etcdserverpb.Maintenance/Snapshot", &headers, framed(0, b"")).await;
    assert_eq!(snapshot.headers()["grpc-encoding"], "gzip");
    assert_eq!(snapshot.body().trailers().expect("a result")["grpc-status"], "0");
    assert!(!gunzipped(snapshot.into_body().to_bytes()).is_empty());
    let create = watch_on(b"w").encode_to_vec();
    let headers = [("grpc-encoding", "gzip"), ("grpc-timeout", "500m")];
    let watch = framed(1, &gzip(&create));
    let answer = world.call("/etcdserverpb.Watch/Watch", &headers, watch).await;
    let messages = gunzipped(answer.into_body().to_bytes());
    assert!(WatchResponse::decode(&messages[0][..]).expect("a message").created);
    // Bounded, and refused where it is no gzip and where it is another encoding.
    let bomb = framed(1, &gzip(&vec![0; 20 << 20]));
    for (encoding, body, code, text) in [
        (
            "gzip",
            bomb,
            Code::ResourceExhausted,
            "grpc: received message after decompression larger than max 2097152",
        ),
        (
            "gzip",
            framed(1, b"notgzip"),
            Code::Internal,
            "grpc: failed to decompress the message: unexpected EOF",
        ),
        (
            "snappy",
            framed(0, b""),
            Code::Unimplemented,
            "grpc: Decompressor is not installed for grpc-encoding \"snappy\"",
        ),
    ] {
        let headers = [("grpc-encoding", encoding)];
        let refused = world.call("/etcdserverpb.KV/Put", &headers, body).await;
        assert_eq!(refused.headers()["grpc-status"], (code as i32).to_string(), "{text}");
        assert_eq!(refused.headers()["grpc-message"], text);
    }
}

#[tokio::test]
async fn requests_that_cannot_be_read_are_refused_in_the_words_of_grpc_go() {
    const NO_PROTOBUF: &str = "proto: cannot parse invalid wire-format data";
    const NO_TEXT: &str = "string field contains invalid UTF-8";
    let world = World::new(|_| {}).await;
    let (broken, no_text) = (framed(0, b"\x0a\xff"), framed(0, b"\x0a\x02\xff\xfe"));
    let cut = broken[..6].to_vec();
    let unary = "grpc: error unmarshalling request: ";
    let stream = "grpc: failed to unmarshal the received message: ";
    let (range, user) = ("/etcdserverpb.KV/Range", "/etcdserverpb.Auth/UserGet");
    let (snapshot, watch) = ("/etcdserverpb.Maintenance/Snapshot", "/etcdserverpb.Watch/Watch");
    let keep_alive = "/etcdserverpb.Lease/LeaseKeepAlive";
    let none = "cardinality violation: received no request message from non-client-streaming RPC";
    let several =
        "cardinality violation: received multiple request messages for non-client-streaming RPC";
    for (path, body, code, text) in [
        (range, &broken, Code::Internal, format!("{unary}{NO_PROTOBUF}")),
        (user, &no_text, Code::Internal, format!("{unary}{NO_TEXT}")),
        (range, &Vec::new(), Code::Unknown, "EOF".to_owned()),
        (user, &Vec::new(), Code::Unknown, "EOF".to_owned()),
        (range, &cut[..3].to_vec(), Code::Unknown, "EOF".to_owned()),
        (range, &cut, Code::Unknown, "unexpected EOF".to_owned()),
        (snapshot, &broken, Code::Internal, format!("{stream}{NO_PROTOBUF}")),
        (snapshot, &Vec::new(), Code::Internal, none.to_owned()),
        (snapshot, &cut, Code::Internal, "unexpected EOF".to_owned()),
        (snapshot, &framed(0, b"").repeat(2), Code::Internal, several.to_owned()),
        (watch, &broken, Code::Internal, format!("{stream}{NO_PROTOBUF}")),
        (watch, &cut, Code::Internal, "unexpected EOF".to_owned()),
        (keep_alive, &broken, Code::Internal, format!("{stream}{NO_PROTOBUF}")),
    ] {
        let refused = world.call(path, &[], body.clone()).await;
        let trailers = refused.body().trailers().unwrap_or(refused.headers());
        assert_eq!(trailers["grpc-status"], (code as i32).to_string(), "{path} {text}");
        assert_eq!(trailers["grpc-message"], text, "{path}");
    }
    // What follows the message of a unary call is not looked at.
    let message = framed(0, b"\x0a\x01k");
    for behind in [&message[..], &broken, &cut, &[7; 6]] {
        let answer = world.call(range, &[], [&message[..], behind].concat()).await;
        assert_eq!(answer.body().trailers().expect("a result")["grpc-status"], "0");
    }
}

/// Trailers would be read as a part of the message.
#[tokio::test]
async fn a_deadline_within_a_message_resets_the_stream() {
    let world = World::new(|_| {}).await;
    let mut kv = world.kv();
    for key in [b"a", b"b", b"c"] {
        let put = PutRequest { key: Bytes::copy_from_slice(key), ..put(1 << 20) };
        kv.put(put).await.expect("put");
    }
    let mut client = h2::client::Builder::new();
    client.initial_window_size(65_535).initial_connection_window_size(1 << 20);
    let (mut sender, connection) =
        client.handshake::<_, Bytes>(world.connect().await).await.expect("a handshake");
    tokio::spawn(connection);
    let request = http::Request::post("http://x/etcdserverpb.KV/Range")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "400m")
        .body(())
        .expect("a request");
    let began = tokio::time::Instant::now();
    let (answer, mut body) = sender.send_request(request, false).expect("it is sent");
    let range = RangeRequest {
        key: Bytes::from_static(b"a"),
        range_end: Bytes::from_static(b"d"),
        ..RangeRequest::default()
    };
    body.send_data(framed(0, &range.encode_to_vec()).into(), true).expect("it is sent");
    let mut answer = answer.await.expect("it begins").into_body();
    let first = answer.data().await.expect("a part").expect("no error");
    // The window stays closed until the deadline is over.
    tokio::time::sleep_until(began + Duration::from_millis(800)).await;
    let mut seen = first.len();
    answer.flow_control().release_capacity(seen).expect("it was received");
    let end = loop {
        match tokio::time::timeout(PATIENCE, answer.data()).await.expect("it ends") {
            Some(Ok(part)) => {
                seen += part.len();
                answer.flow_control().release_capacity(part.len()).expect("it was received");
            }
            Some(Err(error)) => break error,
            None => panic!("it ends in order after {seen} bytes: {:?}", answer.trailers().await),
        }
    };
    assert_eq!(end.reason(), Some(h2::Reason::CANCEL), "{end}");
    assert!(seen < 3 << 20, "the message was not complete");
}

#[tokio::test]
async fn paths_and_headers_that_gos_server_refuses_are_refused() {
    let world = World::new(|_| {}).await;
    let redirected = world.http("POST", "/v3?a=b", "").await.to_lowercase();
    assert!(redirected.starts_with("http/1.1 307 "), "{redirected}");
    assert!(redirected.contains("\r\nlocation: /v3/?a=b\r\n"), "{redirected}");
    let malformed = world.http("POST", "/v3/kv/ran%ZZ", "{}").await.to_lowercase();
    assert!(malformed.starts_with("http/1.1 400 "), "{malformed}");
    assert!(malformed.ends_with("\r\n\r\n400 bad request"), "{malformed}");
    let mut socket = world.connect().await;
    let request = "POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                   Grpc-Metadata-foo-bin: !!!\r\nContent-Length: 2\r\n\r\n{}";
    socket.write_all(request.as_bytes()).await.expect("it reads");
    let mut refused = String::new();
    socket.read_to_string(&mut refused).await.expect("it answers");
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    let text = "{\"code\":3,\"message\":\"invalid binary header Grpc-Metadata-Foo-Bin: \
                illegal base64 data at input byte 0\"}";
    assert!(refused.ends_with(text), "{refused}");
}

#[tokio::test]
async fn paths_of_the_gateway_are_read_as_gos_server_reads_them() {
    let world = World::new(|_| {}).await;
    let range = r#"{"key":"YQ=="}"#;
    let answer = world.http("POST", "/v3/kv/%72ange", range).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let answer = world.http("POST", "//v3/kv/range", range).await;
    assert!(answer.starts_with("HTTP/1.1 307 "), "{answer}");
    assert!(answer.contains("\r\nlocation: /v3/kv/range\r\n"), "{answer}");
    assert!(world.get("/%76ersion").await.contains("\"etcdserver\":"));
}
