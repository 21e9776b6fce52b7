//! The gateway over a gRPC service that records its call and returns a given response.

use std::sync::{Arc, Mutex};

use bytes::{BufMut as _, BytesMut};
use expect_test::{Expect, expect};
use futures::FutureExt as _;
use http_body::Frame;
use prost::Message;
use quorate_proto::etcdserverpb::{
    AlarmMember, AlarmResponse, AlarmType, LeaseLeasesResponse, RangeResponse, ResponseHeader,
    ResponseOp, TxnResponse, WatchResponse, response_op,
};
use quorate_proto::mvccpb::event::EventType;
use quorate_proto::mvccpb::{Event, KeyValue};

use super::*;
use crate::limits;

/// The response of a call: messages, then a result.
#[derive(Clone)]
struct Given {
    messages: Vec<Bytes>,
    status: Status,
}

impl Given {
    fn ok(messages: &[&dyn DynEncode]) -> Self {
        Self { messages: messages.iter().map(|m| m.encoded()).collect(), status: Status::ok("") }
    }

    fn fails(status: Status) -> Self {
        Self { messages: Vec::new(), status }
    }
}

/// Any message.
trait DynEncode {
    fn encoded(&self) -> Bytes;
}

impl<M: Message> DynEncode for M {
    fn encoded(&self) -> Bytes {
        self.encode_to_vec().into()
    }
}

/// Path, token and messages of the last call.
type Recorded = Arc<Mutex<String>>;

fn grpc(given: Given, recorded: Recorded) -> Grpc {
    Grpc::new(tower::service_fn(move |request: Request<Body>| {
        let (given, recorded) = (given.clone(), recorded.clone());
        async move {
            let (parts, body) = request.into_parts();
            let kind = rpc_of(parts.uri.path()).request.clone();
            let mut frames = Frames::default();
            frames.push(&body.collect().await.expect("the gateway's bodies end").to_bytes());
            let mut text = parts.uri.path().to_owned();
            for name in ["authorization", "token", "hasleader", "grpc-timeout", "accept"] {
                if let Some(value) = parts.headers.get(name) {
                    text.push_str(&format!(" {name}={}", value.to_str().expect("ASCII")));
                }
            }
            while let Some(message) = frames.next() {
                text.push_str(&format!("\n  {}", json::write(&kind, message).expect("a message")));
            }
            *recorded.lock().expect("nobody panics") = text;
            Ok(respond(given))
        }
    }))
}

fn rpc_of(path: &str) -> &'static Rpc {
    paths::all().find(|rpc| rpc.path == path).expect("in the table")
}

fn respond(given: Given) -> Response<Body> {
    if given.messages.is_empty() && given.status.code() != Code::Ok {
        return given.status.into_http();
    }
    let mut all = BytesMut::new();
    given.messages.iter().for_each(|message| all.put(frame(message)));
    let mut trailers = HeaderMap::new();
    given.status.add_header(&mut trailers).expect("a status is a header");
    // In pieces of three bytes, which split every message.
    let pieces: Vec<_> = all.chunks(3).map(Bytes::copy_from_slice).collect();
    let frames = pieces.into_iter().map(Frame::data).chain([Frame::trailers(trailers)]);
    let frames: Vec<Result<_, Infallible>> = frames.map(Ok).collect();
    Response::new(Body::new(StreamBody::new(stream::iter(frames))))
}

fn post(path: &str, json: &str) -> Request<Body> {
    Request::post(path).body(Body::new(Full::new(Bytes::from(json.to_owned())))).expect("a request")
}

fn gateway(grpc: Grpc) -> Gateway {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let env = runtime.block_on(async { crate::env::tokio::env() });
    Gateway::new(env, grpc, limits::REQUEST_BYTES_MAX)
}

/// Returns the recorded call and the response.
fn call(request: Request<Body>, given: Given) -> String {
    let recorded = Recorded::default();
    let gateway = gateway(grpc(given, recorded.clone()));
    let response = gateway.answer(request).now_or_never().expect("nothing here waits");
    let (parts, body) = response.into_parts();
    let body = body.collect().now_or_never().expect("nothing here waits").expect("it ends");
    let mut text =
        format!("{}\n{}", recorded.lock().expect("nobody panics"), parts.status.as_u16());
    for (name, value) in &parts.headers {
        text.push_str(&format!(" {name}: {}", value.to_str().expect("ASCII")));
    }
    format!("{text}\n{}", String::from_utf8_lossy(&body.to_bytes()))
}

fn check(request: Request<Body>, given: Given, expect: &Expect) {
    expect.assert_eq(&call(request, given));
}

fn header() -> Option<ResponseHeader> {
    Some(ResponseHeader { cluster_id: u64::MAX, member_id: 2, revision: -1, raft_term: 0 })
}

fn range() -> RangeResponse {
    let kv = KeyValue {
        key: "\u{0}<a>".into(),
        create_revision: 7,
        mod_revision: i64::MAX,
        version: 1,
        ..KeyValue::default()
    };
    RangeResponse { header: header(), kvs: vec![kv, KeyValue::default()], more: true, count: 2 }
}

#[test]
fn a_call_is_asked_and_answered() {
    let json = r#" {"key":"Zm9v","rangeEnd":"_-8","limit":"5","min_mod_revision":6,"sort_order":"DESCEND",
        "sort_target":2,"serializable":null,"nobody":{"knows":[1]}} and what comes behind"#;
    let mut request = post("/v3/kv/range", json);
    for (name, value) in [
        ("authorization", "Bearer t.1"),
        ("grpc-metadata-hasleader", "true"),
        ("grpc-metadata-grpc-timeout", "1n"),
        ("grpc-timeout", "5S"),
        ("accept", "*/*"),
    ] {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    check(
        request,
        Given::ok(&[&range()]),
        &expect![[r#"
        /etcdserverpb.KV/Range authorization=Bearer t.1 hasleader=true grpc-timeout=5S
          {"key":"Zm9v","range_end":"/+8=","limit":"5","sort_order":"DESCEND","sort_target":"CREATE","min_mod_revision":"6"}
        200 content-type: application/json grpc-metadata-content-type: application/grpc
        {"header":{"cluster_id":"18446744073709551615","member_id":"2","revision":"-1"},"kvs":[{"key":"ADxhPg==","create_revision":"7","mod_revision":"9223372036854775807","version":"1"},{}],"more":true,"count":"2"}"#]],
    );
}

#[test]
fn members_of_unions_are_there_though_empty() {
    let op = |response| ResponseOp { response: Some(response) };
    let responses = vec![
        op(response_op::Response::ResponseRange(RangeResponse::default())),
        op(response_op::Response::ResponsePut(Default::default())),
    ];
    let txn = TxnResponse { header: None, succeeded: false, responses };
    let json = r#"{"compare":[{"key":"YQ==","target":"VALUE","value":""}],
        "success":[{"request_txn":{"failure":[{"requestPut":{"key":"YQ=="}}]}}]}"#;
    check(
        post("/v3/kv/txn", json),
        Given::ok(&[&txn]),
        &expect![[r#"
        /etcdserverpb.KV/Txn
          {"compare":[{"target":"VALUE","key":"YQ==","value":""}],"success":[{"request_txn":{"failure":[{"request_put":{"key":"YQ=="}}]}}]}
        200 content-type: application/json grpc-metadata-content-type: application/grpc
        {"responses":[{"response_range":{}},{"response_put":{}}]}"#]],
    );
}

#[test]
fn names_are_as_in_the_texts() {
    let alarm = AlarmMember { member_id: 1, alarm: AlarmType::Nospace as i32 };
    let other = AlarmMember { member_id: 2, alarm: 9 };
    let alarms = AlarmResponse { header: None, alarms: vec![alarm, other] };
    let json = r#"{"action":"ACTIVATE","memberID":"1","alarm":1}"#;
    check(
        post("/v3/maintenance/alarm", json),
        Given::ok(&[&alarms]),
        &expect![[r#"
        /etcdserverpb.Maintenance/Alarm
          {"action":"ACTIVATE","memberID":"1","alarm":"NOSPACE"}
        200 content-type: application/json grpc-metadata-content-type: application/grpc
        {"alarms":[{"memberID":"1","alarm":"NOSPACE"},{"memberID":"2","alarm":9}]}"#]],
    );
    let json = r#"{"peerURLs":["http://a:1"],"is_learner":true}"#;
    check(
        post("/v3/cluster/member/add", json),
        Given::ok(&[&AlarmResponse::default()]),
        &expect![[r#"
            /etcdserverpb.Cluster/MemberAdd
              {"peerURLs":["http://a:1"]}
            200 content-type: application/json grpc-metadata-content-type: application/grpc
            {}"#]],
    );
}

#[test]
fn no_body_is_an_empty_request() {
    let given = || Given::ok(&[&LeaseLeasesResponse::default()]);
    check(
        post("/v3/kv/lease/leases", ""),
        given(),
        &expect![[r#"
        /etcdserverpb.Lease/LeaseLeases
          {}
        200 content-type: application/json grpc-metadata-content-type: application/grpc
        {}"#]],
    );
}

#[test]
fn what_cannot_be_read_is_refused() {
    for (json, expect) in [
        (
            "xx",
            expect![[r#"

            400 content-type: application/json
            {"code":3,"message":"invalid character 'x' looking for beginning of value"}"#]],
        ),
        (
            "[]",
            expect![[r#"

            400 content-type: application/json
            {"code":3,"message":"proto: syntax error (line 1:1): unexpected token ["}"#]],
        ),
        (
            r#"{"key":"#,
            expect![[r#"

            400 content-type: application/json
            {"code":3,"message":"unexpected EOF"}"#]],
        ),
        (
            r#"{"key":"!"}"#,
            expect![[r#"

            400 content-type: application/json
            {"code":3,"message":"proto: (line 1:8): invalid value for bytes field key: \"!\""}"#]],
        ),
        (
            r#"{"limit":"x"}"#,
            expect![[r#"

            400 content-type: application/json
            {"code":3,"message":"proto: (line 1:10): invalid value for int64 field limit: \"x\""}"#]],
        ),
        (
            r#"{"key":}"#,
            expect![[r#"

            400 content-type: application/json
            {"code":3,"message":"invalid character '}' looking for beginning of value"}"#]],
        ),
    ] {
        check(post("/v3/kv/range", json), Given::ok(&[]), &expect);
    }
    let mut late = post("/v3/kv/range", "{}");
    late.headers_mut().insert("grpc-timeout", HeaderValue::from_static("soon"));
    check(
        late,
        Given::ok(&[]),
        &expect![[r#"

        400 content-type: application/json
        {"code":3,"message":"invalid grpc-timeout: soon"}"#]],
    );
}

#[test]
fn requests_are_bounded() {
    let gateway = |bytes| {
        let mut gateway = self::gateway(grpc(Given::ok(&[&range()]), Recorded::default()));
        gateway.bounds.json_bytes = bytes;
        let request = post("/v3/kv/range", r#"{"key":"Zm9v""#);
        gateway.answer(request).now_or_never().expect("nothing here waits").status()
    };
    assert_eq!(gateway(12), StatusCode::TOO_MANY_REQUESTS);
    // It is incomplete all the same.
    assert_eq!(gateway(13), StatusCode::BAD_REQUEST);
}

#[test]
fn errors_have_their_code() {
    let refused = |code, text: &str| Given::fails(Status::new(code, text));
    let text = "etcdserver: \"key\" <is> not provided";
    check(
        post("/v3/kv/put", "{}"),
        refused(Code::InvalidArgument, text),
        &expect![[r#"
        /etcdserverpb.KV/Put
          {}
        400 content-type: application/json
        {"code":3,"message":"etcdserver: \"key\" <is> not provided"}"#]],
    );
    check(
        post("/v3/kv/put", "{}"),
        refused(Code::Unauthenticated, "no"),
        &expect![[r#"
        /etcdserverpb.KV/Put
          {}
        401 content-type: application/json www-authenticate: no
        {"code":16,"message":"no"}"#]],
    );
    check(
        post("/v3/kv/put", "{}"),
        refused(Code::Unavailable, ""),
        &expect![[r#"
        /etcdserverpb.KV/Put
          {}
        503 content-type: application/json
        {"code":14}"#]],
    );
    // The call failed after the message.
    let late = Given { status: Status::internal("late"), ..Given::ok(&[&range()]) };
    check(
        post("/v3/kv/put", "{}"),
        late,
        &expect![[r#"
        /etcdserverpb.KV/Put
          {}
        500 content-type: application/json
        {"code":13,"message":"late"}"#]],
    );
}

#[test]
fn other_paths_and_methods_are_refused() {
    let given = || Given::ok(&[]);
    check(
        post("/v3/kv/rangestream", "{}"),
        given(),
        &expect![[r#"

        404 content-type: application/json
        {"code":5,"message":"Not Found"}"#]],
    );
    let get = Request::get("/v3/kv/range").body(Body::empty()).expect("a request");
    check(
        get,
        given(),
        &expect![[r#"

        501 content-type: application/json
        {"code":12,"message":"Method Not Allowed"}"#]],
    );
    let old = post("/v3beta/kv/range", "{}");
    assert!(call(old, Given::ok(&[&range()])).starts_with("/etcdserverpb.KV/Range\n"));
}

#[test]
fn streams_have_a_line_a_message() {
    let kv = KeyValue { key: "a".into(), ..KeyValue::default() };
    let event = Event { r#type: EventType::Delete as i32, kv: Some(kv), prev_kv: None };
    let created = WatchResponse { created: true, header: header(), ..WatchResponse::default() };
    let deleted = WatchResponse { watch_id: -1, events: vec![event], ..WatchResponse::default() };
    let reason = "<a> & \u{2028}b".to_owned();
    let canceled = WatchResponse { canceled: true, cancel_reason: reason, ..deleted.clone() };
    let given = Given {
        status: Status::cancelled("a > b"),
        ..Given::ok(&[&created, &deleted, &canceled, &WatchResponse::default()])
    };
    let json = r#"{"create_request":{"key":"YQ==","filters":["NOPUT",1]}}
        {"progress_request":{}}{"cancel_request":{"watch_id":"3"}} never read {"progress_request":{}}"#;
    check(
        post("/v3/watch", json),
        given,
        &expect![[r#"
        /etcdserverpb.Watch/Watch
          {"create_request":{"key":"YQ==","filters":["NOPUT","NODELETE"]}}
          {"progress_request":{}}
          {"cancel_request":{"watch_id":"3"}}
        200 content-type: application/json grpc-metadata-content-type: application/grpc
        {"result":{"header":{"cluster_id":"18446744073709551615","member_id":"2","revision":"-1"},"created":true}}
        {"result":{"watch_id":"-1","events":[{"type":"DELETE","kv":{"key":"YQ=="}}]}}
        {"result":{"watch_id":"-1","canceled":true,"cancel_reason":"\u003ca\u003e \u0026 \u2028b","events":[{"type":"DELETE","kv":{"key":"YQ=="}}]}}
        {"result":{}}
        {"error":{"code":1,"message":"a \u003e b"}}
    "#]],
    );
}

#[test]
fn streams_that_fail_at_once_have_a_code() {
    let given = || Given::fails(Status::permission_denied("no"));
    check(
        post("/v3/watch", "{}"),
        given(),
        &expect![[r#"
        /etcdserverpb.Watch/Watch
          {}
        403 content-type: application/json
        {"error":{"code":7,"message":"no"}}
    "#]],
    );
    check(
        post("/v3/election/observe", "{}"),
        given(),
        &expect![[r#"
        /v3electionpb.Election/Observe
          {}
        403 content-type: application/json
        {"error":{"code":7,"message":"no"}}
    "#]],
    );
    check(
        post("/v3/lease/keepalive", "x"),
        Given::ok(&[]),
        &expect![[r#"
        /etcdserverpb.Lease/LeaseKeepAlive
        200 content-type: application/json grpc-metadata-content-type: application/grpc
    "#]],
    );
}

#[test]
fn a_line_takes_no_more_memory_than_it_has_bytes() {
    let line = json::result_line(r#"{"key":"<"}"#);
    assert_eq!(line, "{\"result\":{\"key\":\"\\u003c\"}}\n");
    assert_eq!(line.capacity(), line.len());
}

/// A response that is too large to be translated at once.
fn large() -> RangeResponse {
    let kv = |n: usize| KeyValue {
        key: format!("<{n}>").into(),
        value: vec![b'v'; 37 * n % 3_000].into(),
        mod_revision: n as i64,
        ..KeyValue::default()
    };
    RangeResponse { header: header(), kvs: (0..400).map(kv).collect(), more: true, count: 400 }
}

#[test]
fn a_large_answer_is_written_while_it_comes() {
    let message = large();
    assert!(message.encoded_len() > 3 * limits::GATEWAY_WHOLE_BYTES);
    let given = call(post("/v3/kv/range", "{}"), Given::ok(&[&message]));
    let kind = &rpc_of("/etcdserverpb.KV/Range").response;
    let whole = json::write(kind, message.encoded()).expect("a message");
    let head = "200 content-type: application/json grpc-metadata-content-type: application/grpc";
    assert_eq!(given, format!("/etcdserverpb.KV/Range\n  {{}}\n{head}\n{whole}"));
}

#[test]
fn a_large_answer_that_breaks_off_does_not_end_well() {
    let late = Given { status: Status::internal("late"), ..Given::ok(&[&large()]) };
    let gateway = gateway(grpc(late, Recorded::default()));
    let response = gateway.answer(post("/v3/kv/range", "{}"));
    let response = response.now_or_never().expect("nothing here waits");
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().now_or_never().expect("nothing here waits");
    assert!(body.is_err_and(|why| why.to_string().contains("late")));
}
