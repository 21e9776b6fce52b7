//! The client's tools at a server that ends their streams at moments that no real one can be made to choose:
//! a watch before its first event, a renewal of a lease. The server is the test's own and follows a script.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use quorate_proto::etcdserverpb::lease_server::{Lease, LeaseServer};
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::watch_server::{Watch, WatchServer};
use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, ResponseHeader, WatchRequest, WatchResponse,
};
use quorate_proto::mvccpb::{Event, KeyValue};
use tokio_stream::StreamExt as _;
use tonic::{Response, Status, Streaming};

use super::crash::runtime;
use super::process::etcd_program;

const LEASE: i64 = 0x123;

/// What a stream's first request is answered with; then the stream ends.
type Script<A> = Arc<Mutex<VecDeque<Vec<Result<A, Status>>>>>;
type Answers<A> = tokio_stream::Iter<std::vec::IntoIter<Result<A, Status>>>;

fn next<A>(script: &Script<A>) -> Answers<A> {
    let answers = script.lock().expect("no test panics while it holds it").pop_front();
    tokio_stream::iter(answers.unwrap_or_else(|| vec![Err(Status::aborted("the script ended"))]))
}

fn script<A>(streams: Vec<Vec<Result<A, Status>>>) -> Script<A> {
    Arc::new(Mutex::new(streams.into()))
}

#[derive(Clone)]
struct Watches {
    script: Script<WatchResponse>,
    /// The revisions from which watches were created.
    from: Arc<Mutex<Vec<i64>>>,
}

#[tonic::async_trait]
impl Watch for Watches {
    type WatchStream = Answers<WatchResponse>;

    async fn watch(
        &self,
        request: tonic::Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let first = request.into_inner().next().await.expect("a watch is created")?;
        let Some(RequestUnion::CreateRequest(create)) = first.request_union else {
            return Err(Status::aborted("no watch is created"));
        };
        self.from.lock().expect("no test panics while it holds it").push(create.start_revision);
        Ok(Response::new(next(&self.script)))
    }
}

#[derive(Clone)]
struct Leases {
    script: Script<LeaseKeepAliveResponse>,
}

#[tonic::async_trait]
impl Lease for Leases {
    type LeaseKeepAliveStream = Answers<LeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        request: tonic::Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let first = request.into_inner().next().await.expect("a lease is renewed")?;
        assert_eq!(first.id, LEASE);
        Ok(Response::new(next(&self.script)))
    }

    async fn lease_grant(
        &self,
        _: tonic::Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn lease_revoke(
        &self,
        _: tonic::Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn lease_time_to_live(
        &self,
        _: tonic::Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn lease_leases(
        &self,
        _: tonic::Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }
}

/// Runs one service; its endpoint.
async fn serve<S>(service: S) -> String
where
    S: tower::Service<
            Request<Incoming>,
            Response = http::Response<tonic::body::Body>,
            Error = Infallible,
        > + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = listener.local_addr().expect("it is bound").to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service.clone();
            let answer = move |request: Request<Incoming>| service.clone().call(request);
            tokio::spawn(async move {
                let http = auto::Builder::new(TokioExecutor::new());
                // A tool that has ended leaves in the middle.
                let _ = http.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
            });
        }
    });
    endpoint
}

fn tools() -> [PathBuf; 2] {
    let etcdctl = etcd_program().with_file_name("etcdctl");
    [etcdctl, PathBuf::from(env!("CARGO_BIN_EXE_quoratectl"))]
}

/// Exit code, standard output and standard error. A tool that hangs is ended.
async fn run(tool: &Path, endpoint: &str, words: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new("timeout");
    command.arg("30").arg(tool).arg(format!("--endpoints={endpoint}")).args(words);
    let ran = tokio::task::spawn_blocking(move || command.output()).await;
    let output = ran.expect("it does not panic").expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn response(revision: i64) -> WatchResponse {
    let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
    WatchResponse { header, ..WatchResponse::default() }
}

fn created(revision: i64) -> Result<WatchResponse, Status> {
    Ok(WatchResponse { created: true, ..response(revision) })
}

/// An event, in a response of a store that has come to revision 5000.
fn event(mod_revision: i64) -> Result<WatchResponse, Status> {
    let (key, value) = ("k".into(), format!("{mod_revision}").into());
    let kv = Some(KeyValue { key, value, mod_revision, ..KeyValue::default() });
    Ok(WatchResponse { events: vec![Event { kv, ..Event::default() }], ..response(5000) })
}

fn stops() -> Result<WatchResponse, Status> {
    Err(Status::unavailable("the member stops"))
}

/// What is written between the two streams is before the first event of the second one. etcd's tool goes on
/// at the revision of the creation, whose events were there before.
#[test]
fn a_watch_goes_on_after_its_creation_and_after_its_last_event() {
    runtime().block_on(async {
        for (tool, after_creation) in tools().into_iter().zip([7, 8]) {
            let canceled = Ok(WatchResponse { canceled: true, ..response(5000) });
            let watches = Watches {
                script: script(vec![
                    vec![created(7), stops()],
                    vec![created(5000), event(9), event(12), stops()],
                    vec![created(5000), stops()],
                    vec![created(5000), canceled],
                ]),
                from: Arc::default(),
            };
            let endpoint = serve(WatchServer::new(watches.clone())).await;
            let (code, out, err) = run(&tool, &endpoint, &["watch", "k"]).await;
            let from = watches.from.lock().expect("nothing holds it").clone();
            assert_eq!(from, [0, after_creation, 13, 13], "{}: {out}{err}", tool.display());
            assert_eq!(out, "PUT\nk\n9\nPUT\nk\n12\n", "{}: {err}", tool.display());
            assert_eq!(code, Some(5), "{}: {err}", tool.display());
        }
    });
}

fn renewed(ttl: i64) -> Result<LeaseKeepAliveResponse, Status> {
    Ok(LeaseKeepAliveResponse { id: LEASE, ttl, ..LeaseKeepAliveResponse::default() })
}

/// etcd's tool renews on one stream as long as it lasts, which here is once.
#[test]
fn a_lease_is_kept_alive_over_failures_until_it_has_ended() {
    runtime().block_on(async {
        for tool in tools() {
            let no_leader = Err(Status::unavailable("etcdserver: no leader"));
            let script = script(vec![
                vec![renewed(6)],
                vec![no_leader],
                vec![],
                vec![Err(Status::internal("the stream broke"))],
                vec![renewed(2)],
                vec![renewed(0)],
            ]);
            let endpoint = serve(LeaseServer::new(Leases { script })).await;
            let (code, out, err) = run(&tool, &endpoint, &["lease", "keep-alive", "123"]).await;
            let kept = |ttl: u8| format!("lease 0000000000000123 keepalived with TTL({ttl})\n");
            let end = "lease 0000000000000123 expired or revoked.\n";
            assert_eq!(out, kept(6) + &kept(2) + end, "{}: {err}", tool.display());
            assert_eq!(code, Some(0), "{}: {err}", tool.display());
        }
    });
}

/// Nothing has renewed it for its time to live.
#[test]
fn a_lease_that_cannot_be_renewed_is_taken_for_ended() {
    runtime().block_on(async {
        for tool in tools() {
            let failed = || vec![Err(Status::unavailable("etcdserver: no leader"))];
            let mut streams = vec![vec![renewed(2)]];
            streams.extend((0..100).map(|_| failed()));
            let endpoint = serve(LeaseServer::new(Leases { script: script(streams) })).await;
            let (code, out, err) = run(&tool, &endpoint, &["lease", "keep-alive", "123"]).await;
            let end = "lease 0000000000000123 expired or revoked.\n";
            assert!(out.ends_with(end) && out.lines().count() == 2, "{}: {out}", tool.display());
            assert_eq!(code, Some(0), "{}: {err}", tool.display());
        }
    });
}
