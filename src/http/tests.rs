//! Every endpoint over a server with a given state.

use expect_test::{Expect, expect};
use futures::FutureExt as _;
use http_body_util::BodyExt as _;
use quorate_proto::etcdserverpb::AlarmType;

use super::*;
use crate::error::Unavailable;
use crate::types::MemberId;

/// A server with the state of a test.
struct Fake {
    alarms: Vec<AlarmType>,
    has_leader: bool,
    is_learner: bool,
    cluster: Option<String>,
    metrics: Metrics,
}

impl Fake {
    fn new() -> Self {
        Self {
            alarms: Vec::new(),
            has_leader: true,
            is_learner: false,
            cluster: Some("3.7.0".into()),
            metrics: Metrics::new(),
        }
    }
}

impl Served for Fake {
    fn versions(&self) -> Versions {
        let storage = self.cluster.clone();
        Versions { server: "3.7.1", cluster: self.cluster.clone(), storage }
    }

    fn alarms(&self) -> Vec<AlarmMember> {
        let alarms = self.alarms.iter();
        alarms.map(|kind| AlarmMember { member_id: 1, alarm: *kind as i32 }).collect()
    }

    fn has_leader(&self) -> bool {
        self.has_leader
    }

    fn is_learner(&self) -> bool {
        self.is_learner
    }

    fn revision_before(&self, ago: std::time::Duration) -> Option<crate::types::Revision> {
        (ago.as_secs() <= 600).then_some(crate::types::Revision(42))
    }

    fn has_users(&self) -> bool {
        false
    }

    /// Only the cluster's read needs a leader.
    fn read(&self, serializable: bool) -> BoxFuture<'_, Result<(), Error>> {
        let outcome = match serializable || self.has_leader {
            true => Ok(()),
            false => Err(Unavailable::Timeout.into()),
        };
        Box::pin(std::future::ready(outcome))
    }

    fn raft(&self) -> BoxFuture<'_, Raft> {
        let (id, leader) = (MemberId(0xa), MemberId(0xb));
        let progress = [(id, 3), (leader, 5)].into();
        let raft =
            Raft { id, leader, term: 2, commit: 5, applied: 4, state: "StateLeader", progress };
        Box::pin(std::future::ready(raft))
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn rows(&self) -> Vec<Row> {
        vec![Row::gauge("etcd_server_has_leader", "").value(f64::from(u8::from(self.has_leader)))]
    }
}

/// Status, the headers that matter, and the body.
async fn call(served: &Arc<dyn Served>, method: Method, path: &str) -> String {
    let request = Request::builder().method(method).uri(path).body(Body::empty());
    let endpoints = Endpoints {
        served: served.clone(),
        gateway: None,
        access: Arc::default(),
        process: Arc::new(Process {
            command_line: vec!["a".into(), "\"b".into()],
            files_max: 7,
            profiler: None,
        }),
        secure: false,
    };
    let response = endpoints.answer(request.expect("a valid request")).await;
    let (parts, body) = response.into_parts();
    let mut text = parts.status.as_u16().to_string();
    for name in [CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS, ALLOW] {
        if let Some(value) = parts.headers.get(name) {
            text.push_str(&format!(" [{}]", value.to_str().expect("headers are ASCII")));
        }
    }
    let body = body.collect().await.expect("a body in memory").to_bytes();
    format!("{text}\n{}", String::from_utf8_lossy(&body))
}

fn get(served: &Arc<dyn Served>, path: &str) -> String {
    call(served, Method::GET, path).now_or_never().expect("nothing here waits")
}

fn check(fake: Fake, paths: &[&str], expect: &Expect) {
    let served: Arc<dyn Served> = Arc::new(fake);
    let transcript: String =
        paths.iter().map(|path| format!("GET {path} -> {}\n", get(&served, path))).collect();
    expect.assert_eq(&transcript);
}

#[test]
fn versions_are_told() {
    check(
        Fake::new(),
        &["/version"],
        &expect![[r#"
        GET /version -> 200 [application/json]
        {"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}
    "#]],
    );
    let young = Fake { cluster: None, ..Fake::new() };
    check(
        young,
        &["/version?x=y"],
        &expect![[r#"
        GET /version?x=y -> 200 [application/json]
        {"etcdserver":"3.7.1","etcdcluster":"not_decided","storage":"unknown"}
    "#]],
    );
}

#[test]
fn a_process_says_how_it_was_started() {
    check(
        Fake::new(),
        &["/debug/vars"],
        &expect![[r#"
        GET /debug/vars -> 200 [application/json; charset=utf-8]
        {
        "cmdline": ["a","\"b"],
        "file_descriptor_limit": 7,
        "raft.status": {"id":"a","term":2,"commit":5,"lead":"b","raftState":"StateLeader","applied":4,"progress":{"a":{"match":3},"b":{"match":5}}}
        }

    "#]],
    );
}

#[test]
fn a_time_in_the_past_has_a_revision_if_the_member_ran_then() {
    check(
        Fake::new(),
        &["/debug/revision?ago=600", "/debug/revision?ago=601", "/debug/revision?ago=x"],
        &expect![[r#"
        GET /debug/revision?ago=600 -> 200 [text/plain; charset=utf-8] [nosniff]
        42

        GET /debug/revision?ago=601 -> 404 [text/plain; charset=utf-8] [nosniff]
        not known

        GET /debug/revision?ago=x -> 400 [text/plain; charset=utf-8] [nosniff]
        ago is not a number of seconds

    "#]],
    );
}

#[test]
fn a_healthy_server_says_so() {
    let paths = ["/health", "/livez", "/readyz", "/readyz?verbose", "/readyz/non_learner"];
    check(
        Fake::new(),
        &paths,
        &expect![[r#"
        GET /health -> 200 [text/plain; charset=utf-8]
        {"health":"true","reason":""}
        GET /livez -> 200 [text/plain; charset=utf-8] [nosniff]
        ok

        GET /readyz -> 200 [text/plain; charset=utf-8] [nosniff]
        ok

        GET /readyz?verbose -> 200 [text/plain; charset=utf-8] [nosniff]
        [+]data_corruption ok
        [+]serializable_read ok
        [+]linearizable_read ok
        [+]non_learner ok
        ok

        GET /readyz/non_learner -> 200 [text/plain; charset=utf-8] [nosniff]
        ok

    "#]],
    );
}

#[test]
fn without_a_leader_only_local_reads_are_healthy() {
    let paths = [
        "/health",
        "/health?serializable=true",
        "/livez",
        "/livez/serializable_read?verbose",
        "/readyz",
        "/readyz?exclude=linearizable_read&exclude=nonsense",
        "/readyz/linearizable_read",
    ];
    check(
        Fake { has_leader: false, ..Fake::new() },
        &paths,
        &expect![[r#"
        GET /health -> 503 [text/plain; charset=utf-8] [nosniff]
        {"health":"false","reason":"RAFT NO LEADER"}

        GET /health?serializable=true -> 200 [text/plain; charset=utf-8]
        {"health":"true","reason":""}
        GET /livez -> 200 [text/plain; charset=utf-8] [nosniff]
        ok

        GET /livez/serializable_read?verbose -> 200 [text/plain; charset=utf-8] [nosniff]
        [+]serializable_read ok
        ok

        GET /readyz -> 503 [text/plain; charset=utf-8] [nosniff]
        [+]data_corruption ok
        [+]serializable_read ok
        [-]linearizable_read failed: etcdserver: request timed out
        [+]non_learner ok


        GET /readyz?exclude=linearizable_read&exclude=nonsense -> 200 [text/plain; charset=utf-8] [nosniff]
        ok

        GET /readyz/linearizable_read -> 503 [text/plain; charset=utf-8] [nosniff]
        [-]linearizable_read failed: etcdserver: request timed out


    "#]],
    );
}

#[test]
fn alarms_come_first() {
    let alarms = vec![AlarmType::Nospace, AlarmType::Corrupt];
    let fake = Fake { alarms, has_leader: false, is_learner: true, ..Fake::new() };
    let paths = [
        "/health",
        "/health?exclude=NOSPACE",
        "/health?exclude=NOSPACE&exclude=CORRUPT",
        "/readyz?exclude=linearizable_read",
        "/readyz/data_corruption?exclude=data_corruption",
    ];
    check(
        fake,
        &paths,
        &expect![[r#"
        GET /health -> 503 [text/plain; charset=utf-8] [nosniff]
        {"health":"false","reason":"ALARM NOSPACE"}

        GET /health?exclude=NOSPACE -> 503 [text/plain; charset=utf-8] [nosniff]
        {"health":"false","reason":"ALARM CORRUPT"}

        GET /health?exclude=NOSPACE&exclude=CORRUPT -> 503 [text/plain; charset=utf-8] [nosniff]
        {"health":"false","reason":"RAFT NO LEADER"}

        GET /readyz?exclude=linearizable_read -> 503 [text/plain; charset=utf-8] [nosniff]
        [-]data_corruption failed: alarm activated: CORRUPT
        [+]serializable_read ok
        [-]non_learner failed: not supported for learner


        GET /readyz/data_corruption?exclude=data_corruption -> 503 [text/plain; charset=utf-8] [nosniff]
        [-]data_corruption failed: alarm activated: CORRUPT


    "#]],
    );
}

#[test]
fn other_paths_and_methods_are_refused() {
    let paths = ["/", "/v2/keys", "/livez/", "/livez/non_learner", "/health/"];
    check(
        Fake::new(),
        &paths,
        &expect![[r#"
        GET / -> 404 [text/plain; charset=utf-8] [nosniff]
        404 page not found

        GET /v2/keys -> 404 [text/plain; charset=utf-8] [nosniff]
        404 page not found

        GET /livez/ -> 404 [text/plain; charset=utf-8] [nosniff]
        404 page not found

        GET /livez/non_learner -> 404 [text/plain; charset=utf-8] [nosniff]
        404 page not found

        GET /health/ -> 404 [text/plain; charset=utf-8] [nosniff]
        404 page not found

    "#]],
    );
    let served: Arc<dyn Served> = Arc::new(Fake::new());
    for path in ["/version", "/health", "/livez"] {
        let answer = call(&served, Method::POST, path).now_or_never().expect("nothing here waits");
        let wanted = "405 [text/plain; charset=utf-8] [nosniff] [GET]\nMethod Not Allowed\n";
        assert_eq!(answer, wanted);
    }
}

#[test]
fn health_is_counted() {
    let served: Arc<dyn Served> = Arc::new(Fake { has_leader: false, ..Fake::new() });
    for path in ["/health", "/health?serializable=true", "/readyz"] {
        get(&served, path);
    }
    let page = get(&served, "/metrics");
    assert!(page.starts_with("200 [text/plain; version=0.0.4; charset=utf-8]\n# HELP "), "{page}");
    for line in [
        "etcd_server_health_success 1",
        "etcd_server_health_failures 1",
        "etcd_server_has_leader 0",
        "etcd_server_healthcheck{name=\"linearizable_read\",type=\"readyz\"} 0",
        "etcd_server_healthchecks_total{name=\"data_corruption\",status=\"success\",type=\"readyz\"} 1",
    ] {
        assert!(page.contains(&format!("\n{line}\n")), "{line} is not on the page:\n{page}");
    }
}

#[test]
fn metrics_are_compressed_for_a_client_that_accepts_it() {
    let page = |accepted: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(accepted));
        let response = metrics(&headers, "a 1\n".repeat(1_000));
        let coding = response.headers().get(CONTENT_ENCODING).cloned();
        let body = response.into_body().collect().now_or_never().expect("nothing here waits");
        (coding, body.expect("a body in memory").to_bytes())
    };
    for accepted in ["gzip", "deflate, gzip;q=0.5"] {
        let (coding, body) = page(accepted);
        assert_eq!(coding, Some(HeaderValue::from_static("gzip")));
        let mut text = String::new();
        let mut decoder = flate2::read::GzDecoder::new(&body[..]);
        std::io::Read::read_to_string(&mut decoder, &mut text).expect("it is gzip");
        assert_eq!(text.len(), 4_000);
    }
    for accepted in ["identity", "gzip;q=0", "br"] {
        assert_eq!(page(accepted).0, None);
    }
}
