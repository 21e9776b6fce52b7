//! Calls that are traced: the spans that a server exports to an OpenTelemetry collector, and what becomes
//! of a server whose collector is not there. How contexts are read and shares are kept is tested elsewhere.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest, RangeRequest, WatchCreateRequest,
    WatchRequest,
};
use quorate_proto::otlp::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use quorate_proto::otlp::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use quorate_proto::otlp::common::v1::{KeyValue, any_value::Value};
use quorate_proto::otlp::trace::v1::Span;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};
use tower::Service as _;

use super::client::{Channel, Client, origin};
use super::curl::Curl;
use super::etcdctl::{Etcdctl, Release};
use super::process::{Kind, Server, etcd_program, free_port, scratch};

const PATIENCE: Duration = Duration::from_secs(30);
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// `traceparent` of a caller that records its span, or does not.
fn parent(sampled: bool) -> String {
    format!("00-{TRACE}-{CALLER}-0{}", u8::from(sampled))
}

/// A span as it was exported, and by which service.
#[derive(Debug)]
struct Told {
    service: BTreeMap<String, String>,
    span: Span,
}

impl Told {
    fn attributes(&self) -> BTreeMap<String, String> {
        written(&self.span.attributes)
    }

    fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }

    fn events(&self) -> Vec<&str> {
        self.span.events.iter().map(|event| &*event.name).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn written(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(truth) => truth.to_string(),
        other => panic!("no span has {other:?}"),
    };
    let value = |it: &KeyValue| it.value.as_ref().and_then(|any| any.value.as_ref()).map(text);
    attributes.iter().map(|it| (it.key.clone(), value(it).expect("it has a value"))).collect()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A collector that hands on what it receives.
struct Collector {
    endpoint: String,
    spans: mpsc::UnboundedReceiver<Told>,
}

struct Takes(mpsc::UnboundedSender<Told>);

#[tonic::async_trait]
impl TraceService for Takes {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        for of in request.into_inner().resource_spans {
            let service = written(&of.resource.unwrap_or_default().attributes);
            for span in of.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                // A test that has seen enough has gone.
                let _ = self.0.send(Told { service: service.clone(), span });
            }
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = listener.local_addr().expect("it is bound").to_string();
        let (told, spans) = mpsc::unbounded_channel();
        let server = TraceServiceServer::new(Takes(told));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                let answer = move |request: Request<Incoming>| server.clone().call(request);
                tokio::spawn(async move {
                    let http = auto::Builder::new(TokioExecutor::new());
                    // A server that was killed leaves in the middle.
                    let _ = http.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
                });
            }
        });
        Self { endpoint, spans }
    }

    fn flags(&self, rate: u32) -> Vec<String> {
        flags(&self.endpoint, rate)
    }

    async fn next(&mut self) -> Told {
        let told = tokio::time::timeout(PATIENCE, self.spans.recv()).await;
        told.expect("a span comes").expect("the collector lives as long as the test")
    }

    /// All exported spans, by name, once the server has ended.
    fn all(&mut self) -> BTreeMap<String, Vec<Told>> {
        let mut all: BTreeMap<String, Vec<Told>> = BTreeMap::new();
        while let Ok(told) = self.spans.try_recv() {
            all.entry(told.span.name.clone()).or_default().push(told);
        }
        all
    }
}

fn flags(collector: &str, rate: u32) -> Vec<String> {
    vec![
        "--enable-distributed-tracing".into(),
        format!("--distributed-tracing-address={collector}"),
        "--distributed-tracing-service-name=store".into(),
        "--distributed-tracing-instance-id=one".into(),
        format!("--distributed-tracing-sampling-rate={rate}"),
    ]
}

fn started(flags: &[String]) -> (tempfile::TempDir, Server) {
    let dir = scratch();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut server = Server::single(Kind::Quorate, dir.path(), &flags);
    server.start();
    (dir, server)
}

fn within<T>(message: T, parent: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("traceparent", parent.parse().expect("a value"));
    metadata.insert("tracestate", "vendor=1".parse().expect("a value"));
    request
}

fn put(key: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), ..PutRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_trace_goes_on() {
    let mut collector = Collector::start().await;
    let (_dir, mut server) = started(&collector.flags(0));
    let mut client = Client::connect(&server.endpoint()).await;
    client.put(b"alone", b"").await.expect("it is put");
    client.kv.put(within(put("not"), &parent(false))).await.expect("it is put");
    client.kv.put(within(put("traced"), &parent(true))).await.expect("it is put");
    let curl = Curl::new(server.client_url());
    let header = format!("Grpc-Metadata-traceparent: {}", parent(true));
    let answer = curl.run(&["/v3/kv/range", "-H", &header, "-d", r#"{"key":"anNvbg=="}"#]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert!(server.terminate().success(), "it ends well");

    let mut told = collector.all();
    let mut one = |name: &str| {
        let mut named = told.remove(name).unwrap_or_default();
        assert_eq!(named.len(), 1, "{name}: {named:?}");
        named.remove(0)
    };
    let (call, work) = (one("etcdserverpb.KV/Put"), one("put"));
    assert_eq!(call.service, map(&[("service.name", "store"), ("service.instance.id", "one")]));
    assert_eq!((call.trace(), hex(&call.span.parent_span_id)), (TRACE.into(), CALLER.into()));
    assert_eq!((call.span.kind, &*call.span.trace_state), (2, "vendor=1"));
    let port = server.client_port.to_string();
    let attributes = [
        ("rpc.method", "etcdserverpb.KV/Put"),
        ("rpc.system.name", "grpc"),
        ("rpc.response.status_code", "OK"),
        ("server.address", "127.0.0.1"),
        ("server.port", &port),
    ];
    assert_eq!(call.attributes(), map(&attributes));
    assert_eq!(call.span.status, None);
    assert_eq!((work.trace(), &work.span.parent_span_id), (TRACE.into(), &call.span.span_id));
    assert_eq!(work.attributes(), map(&[("key", "traced")]));
    assert_eq!(work.events(), ["Send raft proposal", "Receive raft result"]);
    assert!(call.span.start_time_unix_nano <= work.span.start_time_unix_nano);
    assert!(work.span.end_time_unix_nano <= call.span.end_time_unix_nano);

    let (call, work) = (one("etcdserverpb.KV/Range"), one("range"));
    assert_eq!((call.trace(), &work.span.parent_span_id), (TRACE.into(), &call.span.span_id));
    assert_eq!(work.attributes()["range_begin"], "json");
    assert!(told.is_empty(), "nothing else is traced: {told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_failures_are_exported() {
    let mut collector = Collector::start().await;
    let (_dir, mut server) = started(&collector.flags(0));
    let channel = Channel::connect_within(&server.endpoint(), PATIENCE).await.expect("it serves");
    let origin = origin(&server.endpoint());
    let mut leases = LeaseClient::with_origin(channel.clone(), origin.clone());
    let traced = |lease| within(LeaseRevokeRequest { id: lease }, &parent(true));
    let refused = leases.lease_revoke(traced(7)).await.expect_err("there is no such lease");
    assert_eq!(refused.code(), Code::NotFound);
    let ids = [LeaseKeepAliveRequest { id: 8 }, LeaseKeepAliveRequest { id: 9 }];
    let kept = within(tokio_stream::iter(ids), &parent(true));
    let kept = leases.lease_keep_alive(kept).await.expect("a stream").into_inner();
    assert_eq!(kept.collect::<Vec<_>>().await.len(), 2);

    let create = WatchCreateRequest { key: "w".into(), prev_kv: true, ..Default::default() };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // A client with an open call would not be gone when it leaves.
    let requests = tokio_stream::once(create);
    let mut watches = WatchClient::with_origin(channel.clone(), origin.clone());
    let watch = watches.watch(within(requests, &parent(true))).await.expect("a stream");
    let mut watch = watch.into_inner();
    assert!(watch.message().await.expect("an answer").expect("an answer").created);
    drop(watch);
    for name in ["lease_revoke", "etcdserverpb.Lease/LeaseRevoke", "lease_renew", "lease_renew"] {
        assert_eq!(collector.next().await.span.name, name);
    }
    assert_eq!(collector.next().await.span.name, "etcdserverpb.Lease/LeaseKeepAlive");

    let mut late = within(RangeRequest { key: "k".into(), ..Default::default() }, &parent(true));
    late.metadata_mut().insert("grpc-timeout", "1n".parse().expect("a value"));
    let mut client = Client::new(&channel, &server.endpoint());
    let late = client.kv.range(late).await.expect_err("a nanosecond is too short");
    assert_eq!(late.code(), Code::DeadlineExceeded);
    assert!(server.terminate().success(), "it ends well");

    let told = collector.all();
    let one = |name: &str| {
        let named = &told[name];
        assert_eq!(named.len(), 1, "{name}: {named:?}");
        &named[0]
    };
    let (call, work) = (one("etcdserverpb.Watch/Watch"), one("watch"));
    assert_eq!(call.attributes()["rpc.response.status_code"], "CANCELLED");
    assert_eq!((&call.span.status, &work.span.parent_span_id), (&None, &call.span.span_id));
    let (attributes, expected) = (work.attributes(), [("key", "w"), ("prev_kv", "true")]);
    assert!(expected.iter().all(|(key, value)| attributes[*key] == *value), "{attributes:?}");
    let call = one("etcdserverpb.KV/Range");
    assert_eq!(call.attributes()["rpc.response.status_code"], "DEADLINE_EXCEEDED");
    let status = call.span.status.as_ref().expect("the server failed");
    assert_eq!((status.code, &*status.message), (2, "context deadline exceeded"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_the_others_is_traced() {
    let mut collector = Collector::start().await;
    let (_dir, server) = started(&collector.flags(1_000_000));
    let etcdctl = Etcdctl::new(&Release::real(), &[server.endpoint()]);
    assert_eq!(etcdctl.run(&["put", "a", "1"], "").stdout, "OK\n");
    // No server has to stop for it.
    let mut told = collector.next().await;
    while told.span.name != "etcdserverpb.KV/Put" {
        told = collector.next().await;
    }
    assert!(told.span.parent_span_id.is_empty(), "it begins a trace: {told:?}");
    assert_ne!(told.trace(), "0".repeat(32));
    // Counted once the collector has answered, which the test may see first.
    let (curl, deadline) = (Curl::new(server.client_url()), Instant::now() + PATIENCE);
    loop {
        let page = curl.run(&["/metrics"]).stdout;
        let mut lines = page.lines();
        let exported = lines.find_map(|line| line.strip_prefix("quorate_spans_exported_total "));
        let exported = exported.and_then(|count| count.parse::<u64>().ok());
        if exported.is_some_and(|count| count >= 2) {
            break;
        }
        assert!(Instant::now() < deadline, "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_collector_delays_nothing() {
    let address = format!("127.0.0.1:{}", free_port());
    let (_dir, mut server) = started(&flags(&address, 1_000_000));
    let mut client = Client::connect(&server.endpoint()).await;
    // More than the queue takes.
    for n in 0..1500 {
        client.put(format!("k{n}").as_bytes(), b"").await.expect("it is put");
    }
    server.wait_log("exporting spans failed");
    let page = Curl::new(server.client_url()).run(&["/metrics"]).stdout;
    assert!(page.contains("quorate_spans_dropped_total{reason=\"queue\"}"), "{page}");
    let began = Instant::now();
    assert!(server.terminate().success(), "it ends well");
    assert!(began.elapsed() < Duration::from_secs(10), "it waits for no collector");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_of_etcd_have_the_same_names() {
    let mut collector = Collector::start().await;
    let dir = scratch();
    let address = format!("--distributed-tracing-address={}", collector.endpoint);
    let flags = ["--enable-distributed-tracing", &address];
    let mut server = Server::single(Kind::Etcd(etcd_program()), dir.path(), &flags);
    server.start();
    let mut client = Client::connect(&server.endpoint()).await;
    client.kv.put(within(put("traced"), &parent(true))).await.expect("it is put");
    let mut spans = Vec::new();
    while spans.len() < 2 {
        let exported = collector.next().await;
        if exported.trace() == TRACE {
            assert_eq!(exported.service["service.name"], "etcd");
            spans.push(exported.span);
        }
    }
    // Spans are exported in the order of their ends.
    let [work, call] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((&*work.name, work.kind), ("put", 1));
    assert_eq!((&*call.name, call.kind), ("etcdserverpb.KV/Put", 2));
    assert_eq!(hex(&call.parent_span_id), CALLER);
    assert_eq!(work.parent_span_id, call.span_id);
}
