//! Users, roles and permissions from outside: what each RPC requires of its caller, tokens that end, signed
//! tokens, and three members that know the same whatever happens to one. The commands of etcdctl are
//! compared with a real etcd's in `tests/conformance`.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full};
use prost::Message;
use quorate::auth::{ROOT, Rule};
use quorate::rpc::RPCS;
use quorate_proto::etcdserverpb::auth_client::AuthClient;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{
    AlarmRequest, AuthRoleGetRequest, AuthUserGetRequest, AuthenticateRequest, DeleteRangeRequest,
    LeaseKeepAliveRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest,
    RequestOp, TxnRequest, WatchCreateRequest, WatchRequest, WatchResponse,
    request_op::Request as Op,
};
use quorate_proto::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
};
use quorate_proto::v3lockpb::{LockRequest, UnlockRequest};
use tonic::body::Body;
use tower::Service;

use super::client::{Channel, Client, origin};
use super::crash::runtime;
use super::etcdctl::{Etcdctl, Output, Release};
use super::process::{Cluster, Kind, Server, scratch};

const CHEAP: &str = "--bcrypt-cost=4";
const PATIENCE: Duration = Duration::from_secs(30);

const NO_USER: &str = "etcdserver: user name is empty";
const DENIED: &str = "etcdserver: permission denied";
const BAD_TOKEN: &str = "etcdserver: invalid auth token";

/// Runs a command and expects it to work.
fn done(etcdctl: &Etcdctl, line: &str) -> Output {
    let output = run(etcdctl, line);
    assert_eq!(output.code, Some(0), "{line}: {output:?}");
    output
}

/// As [`done`], while a cluster that has lost a member may be without a leader. Doing it twice must do
/// no harm.
fn done_at_last(etcdctl: &Etcdctl, line: &str) -> Output {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = run(etcdctl, line);
        if output.code == Some(0) || Instant::now() > deadline {
            assert_eq!(output.code, Some(0), "{line}: {output:?}");
            return output;
        }
    }
}

fn run(etcdctl: &Etcdctl, line: &str) -> Output {
    etcdctl.run(&line.split(' ').collect::<Vec<_>>(), "")
}

/// Runs a command and expects it to fail with a text of etcd's.
fn refused(etcdctl: &Etcdctl, line: &str, text: &str) {
    let output = run(etcdctl, line);
    assert_ne!(output.code, Some(0), "{line}: {output:?}");
    assert!(output.stderr.contains(text), "{line}: {text:?} expected: {output:?}");
}

/// Root, and Ann with read and write permission below `ann/`.
fn set_up(etcdctl: &Etcdctl) {
    for line in [
        "user add root:rootpw",
        "user add ann:annpw",
        "role add r",
        "role grant-permission r --prefix=true readwrite ann/",
        "user grant-role ann r",
        "auth enable",
    ] {
        done(etcdctl, line);
    }
}

fn etcdctl(endpoints: &[String]) -> Etcdctl {
    Etcdctl::new(&Release::real(), endpoints)
}

async fn log_in(endpoint: &str, user: &str, password: &str) -> String {
    let channel = Channel::connect_within(endpoint, PATIENCE).await.expect("the server serves");
    let mut auth = AuthClient::with_origin(channel, origin(endpoint));
    let request = AuthenticateRequest { name: user.into(), password: password.into() };
    auth.authenticate(request).await.expect("the password is right").into_inner().token
}

/// What a call came to: the code and the text of its status, and the messages before it.
struct Answer {
    code: i32,
    text: String,
    messages: Vec<Bytes>,
}

/// A call by hand, so that any method can be called with any bytes.
struct Calls {
    channel: Channel,
    endpoint: String,
}

impl Calls {
    async fn to(endpoint: &str) -> Self {
        let channel = Channel::connect_within(endpoint, PATIENCE).await.expect("it serves");
        Self { channel, endpoint: endpoint.into() }
    }

    async fn call(&mut self, method: &str, token: Option<&str>, message: &[u8]) -> Answer {
        let mut frame = BytesMut::new();
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.len()).expect("it is short"));
        frame.put_slice(message);
        let mut request = Request::post(format!("http://{}/{method}", self.endpoint))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(token) = token {
            request = request.header("token", token);
        }
        let request = request.body(Body::new(Full::new(frame.freeze()))).expect("a request");
        let response = self.channel.call(request).await.expect("the connection lives");
        let (head, mut body) = response.into_parts();
        let (mut trailers, mut bytes) = (head.headers, BytesMut::new());
        while let Ok(Some(frame)) = tokio::time::timeout(PATIENCE, body.frame())
            .await
            .unwrap_or_else(|_| panic!("{method} does not end"))
            .transpose()
        {
            match frame.into_data() {
                Ok(data) => bytes.put(data),
                Err(frame) => trailers = frame.into_trailers().expect("the end"),
            }
            // A watch does not end: its first answer decides.
            if method.ends_with("/Watch") && bytes.len() > 5 {
                break;
            }
        }
        let mut messages = Vec::new();
        let mut rest = bytes.freeze();
        while rest.len() >= 5 {
            let size = u32::from_be_bytes(rest[1..5].try_into().expect("four bytes")) as usize;
            messages.push(rest.slice(5..5 + size));
            rest = rest.slice(5 + size..);
        }
        let header = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
        let code = header("grpc-status").and_then(|code| code.parse().ok()).unwrap_or(0);
        let text = header("grpc-message").unwrap_or_default().replace("%20", " ");
        Answer { code, text, messages }
    }
}

/// The requests to the methods whose rule is their content: keys, leases and records that are not
/// Ann's.
fn sample(method: &str) -> Vec<u8> {
    let key = Bytes::from_static(b"k");
    let put = PutRequest { key: key.clone(), ..Default::default() };
    let name = key.clone();
    let leader = Some(LeaderKey { name: name.clone(), key: key.clone(), rev: 1, lease: LEASE });
    match method {
        "etcdserverpb.KV/Range" | "etcdserverpb.KV/RangeStream" => {
            RangeRequest { key, ..Default::default() }.encode_to_vec()
        }
        "etcdserverpb.KV/Put" => put.encode_to_vec(),
        "etcdserverpb.KV/DeleteRange" => {
            DeleteRangeRequest { key, ..Default::default() }.encode_to_vec()
        }
        "etcdserverpb.KV/Txn" => {
            let op = |op| RequestOp { request: Some(op) };
            let inner = TxnRequest { success: vec![op(Op::RequestPut(put))], ..Default::default() };
            TxnRequest { failure: vec![op(Op::RequestTxn(inner))], ..Default::default() }
                .encode_to_vec()
        }
        "etcdserverpb.Watch/Watch" => {
            let create = WatchCreateRequest { key, ..Default::default() };
            let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
            request.encode_to_vec()
        }
        "etcdserverpb.Lease/LeaseRevoke" => LeaseRevokeRequest { id: LEASE }.encode_to_vec(),
        "etcdserverpb.Lease/LeaseKeepAlive" => LeaseKeepAliveRequest { id: LEASE }.encode_to_vec(),
        "etcdserverpb.Lease/LeaseTimeToLive" => {
            LeaseTimeToLiveRequest { id: LEASE, keys: true }.encode_to_vec()
        }
        "etcdserverpb.Maintenance/Alarm" => {
            AlarmRequest { action: 2, alarm: 1, ..Default::default() }.encode_to_vec()
        }
        "etcdserverpb.Auth/UserGet" => AuthUserGetRequest { name: ROOT.into() }.encode_to_vec(),
        "etcdserverpb.Auth/RoleGet" => AuthRoleGetRequest { role: ROOT.into() }.encode_to_vec(),
        "v3lockpb.Lock/Lock" => LockRequest { name, lease: 0 }.encode_to_vec(),
        "v3lockpb.Lock/Unlock" => UnlockRequest { key }.encode_to_vec(),
        "v3electionpb.Election/Campaign" => {
            CampaignRequest { name, lease: 0, value: Bytes::new() }.encode_to_vec()
        }
        "v3electionpb.Election/Proclaim" => {
            ProclaimRequest { leader, value: Bytes::new() }.encode_to_vec()
        }
        "v3electionpb.Election/Leader" | "v3electionpb.Election/Observe" => {
            LeaderRequest { name }.encode_to_vec()
        }
        "v3electionpb.Election/Resign" => ResignRequest { leader }.encode_to_vec(),
        // Judged before the message is looked at, or by nothing in it.
        _ => Vec::new(),
    }
}

/// On which `k` hangs.
const LEASE: i64 = 0x77;

#[test]
fn every_rpc_requires_the_permission_of_its_rule() {
    let dir = scratch();
    let mut server = Server::single(Kind::Quorate, dir.path(), &[CHEAP]);
    server.start();
    let endpoint = server.endpoint();
    let tool = etcdctl(std::slice::from_ref(&endpoint));
    runtime().block_on(async {
        let mut client = Client::connect(&endpoint).await;
        let mut calls = Calls::to(&endpoint).await;
        let grant = quorate_proto::etcdserverpb::LeaseGrantRequest { ttl: 600, id: LEASE };
        calls.call("etcdserverpb.Lease/LeaseGrant", None, &grant.encode_to_vec()).await;
        let put = PutRequest { key: "k".into(), lease: LEASE, ..Default::default() };
        client.kv.put(put).await.expect("auth is not enabled yet");
        set_up(&tool);
        let ann = log_in(&endpoint, "ann", "annpw").await;
        let mut judged = BTreeSet::new();
        for rpc in RPCS {
            let method = format!("{}/{}", rpc.service, rpc.method);
            judge(&mut calls, &method, expected(&method), &ann).await;
            judged.insert(method);
        }
        assert!(judged.len() > 45, "{} methods are too few to be all", judged.len());
    });
}

/// What etcd requires of a caller, independent of the table that the server uses: a rule that is weakened
/// there fails here.
fn expected(method: &str) -> Rule {
    match method {
        "etcdserverpb.Auth/AuthStatus"
        | "etcdserverpb.Auth/Authenticate"
        | "grpc.health.v1.Health/Check"
        | "grpc.health.v1.Health/List"
        | "grpc.health.v1.Health/Watch" => Rule::Anyone,
        "etcdserverpb.Lease/LeaseGrant"
        | "etcdserverpb.Cluster/MemberList"
        | "etcdserverpb.Maintenance/Status" => Rule::User,
        _ => Rule::Root,
    }
}

async fn judge(calls: &mut Calls, method: &str, rule: Rule, ann: &str) {
    let message = sample(method);
    let nobody = calls.call(method, None, &message).await;
    let stranger = calls.call(method, Some("nonsense.1"), &message).await;
    let ann = calls.call(method, Some(ann), &message).await;
    let texts = [&nobody, &stranger, &ann].map(|answer| {
        let cancelled = answer.messages.first().and_then(|first| {
            let response = WatchResponse::decode(first.clone()).ok()?;
            (method.ends_with("Watch/Watch")).then_some(response.cancel_reason)
        });
        cancelled.unwrap_or_else(|| answer.text.clone())
    });
    let [nobody, stranger, of_ann] = &texts;
    let is = |text: &str, wanted: &str| text.contains(wanted);
    match (method, rule) {
        // Closes without an error when it cannot go on, as etcd's.
        ("v3electionpb.Election/Observe", _) => {
            assert!(ann.messages.is_empty(), "{method} tells Ann of a leader");
        }
        (_, Rule::Anyone) => {
            let judged = texts.iter().any(|text| is(text, NO_USER) || is(text, DENIED));
            assert!(!judged, "{method}: {texts:?}");
        }
        (_, Rule::User) => {
            assert!(is(nobody, NO_USER) && is(stranger, BAD_TOKEN), "{method}: {texts:?}");
            assert!(!is(of_ann, DENIED) && !is(of_ann, NO_USER), "{method}: {texts:?}");
        }
        (_, Rule::Root | Rule::Content) => {
            assert!(is(nobody, NO_USER) && is(stranger, BAD_TOKEN), "{method}: {texts:?}");
            assert!(is(of_ann, DENIED), "{method}: {texts:?}");
        }
    }
}

#[test]
fn a_simple_token_ends_with_its_time_its_user_and_its_password() {
    let dir = scratch();
    let mut server = Server::single(Kind::Quorate, dir.path(), &[CHEAP, "--auth-token-ttl=1"]);
    server.start();
    let endpoint = server.endpoint();
    let tool = etcdctl(std::slice::from_ref(&endpoint));
    set_up(&tool);
    runtime().block_on(async {
        let mut calls = Calls::to(&endpoint).await;
        let range = RangeRequest { key: "ann/1".into(), ..Default::default() }.encode_to_vec();
        let read = "etcdserverpb.KV/Range";
        let token = log_in(&endpoint, "ann", "annpw").await;
        let (letters, index) = token.split_once('.').expect("as etcd's");
        assert!(letters.len() == 16 && index.parse::<u64>().is_ok(), "{token}");
        // Each use prolongs it.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(2500) {
            let answer = calls.call(read, Some(&token), &range).await;
            assert_eq!((answer.code, answer.text), (0, String::new()));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // Looking would prolong it: its time has to be waited out.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let answer = calls.call(read, Some(&token), &range).await;
        assert_eq!((answer.code, answer.text.as_str()), (16, BAD_TOKEN));

        let token = log_in(&endpoint, "ann", "annpw").await;
        let changed = tool.run(
            &["user", "passwd", "ann", "--interactive=false", "--user=root:rootpw"],
            "other\n",
        );
        assert_eq!(changed.code, Some(0), "{changed:?}");
        let answer = calls.call(read, Some(&token), &range).await;
        assert_eq!(answer.text, BAD_TOKEN, "the password has changed");
        refused(&tool, "get ann/1 --user=ann:annpw", "invalid user ID or password");
        let token = log_in(&endpoint, "ann", "other").await;
        done(&tool, "user delete ann --user=root:rootpw");
        let answer = calls.call(read, Some(&token), &range).await;
        assert_eq!(answer.text, BAD_TOKEN, "the user is gone");
    });
}

#[test]
fn signed_tokens_hold_on_every_member_with_the_key_and_end_with_a_change() {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/member/tokens/testdata/jwt");
    let option = |method, private: &str, public: &str| {
        let key = |kind, name: &str| match name {
            "" => String::new(),
            name => format!(",{kind}-key={}", keys.join(name).display()),
        };
        let keys = key("priv", private) + &key("pub", public);
        format!("--auth-token=jwt{keys},sign-method={method},ttl=5m")
    };
    for (method, private, public) in [
        ("RS256", "rsa.key", "rsa.pub"),
        ("PS384", "rsa.key", "rsa.pub"),
        ("ES512", "es512.key", "es512.pub"),
        ("EdDSA", "eddsa.key", "eddsa.pub"),
        ("HS256", "hs.key", ""),
    ] {
        let dir = scratch();
        let option = option(method, private, public);
        let mut server = Server::single(Kind::Quorate, dir.path(), &[CHEAP, &option]);
        server.start();
        let endpoint = server.endpoint();
        let tool = etcdctl(std::slice::from_ref(&endpoint));
        set_up(&tool);
        done(&tool, "put ann/1 one --user=ann:annpw");
        runtime().block_on(async {
            let token = log_in(&endpoint, "ann", "annpw").await;
            assert_eq!(token.matches('.').count(), 2, "{method}: {token}");
            // It is not kept: a server that starts again takes it.
            server.restart();
            let mut calls = Calls::to(&endpoint).await;
            let range = RangeRequest { key: "ann/1".into(), ..Default::default() }.encode_to_vec();
            let read = "etcdserverpb.KV/Range";
            let answer = calls.call(read, Some(&token), &range).await;
            assert_eq!((answer.code, answer.text.as_str()), (0, ""), "{method}");
            done(&tool, "role add another --user=root:rootpw");
            let answer = calls.call(read, Some(&token), &range).await;
            assert_eq!(answer.text, "etcdserver: revision of auth store is old", "{method}");
        });
        server.kill();
    }
}

#[test]
fn a_server_with_a_wrong_token_option_does_not_start() {
    for (option, text) in [
        ("jwt,sign-method=RS999", "auth: invalid auth options"),
        ("jwt,sign-method=RS256,pub-key=/nowhere.pub", "auth: invalid auth options"),
        ("jwt,sign-method=RS256", "auth: missing key data"),
        ("nonsense", "auth: invalid auth options"),
    ] {
        let dir = scratch();
        let flag = format!("--auth-token={option}");
        let mut server = Server::single(Kind::Quorate, dir.path(), &[&flag]);
        server.spawn();
        let status = server.wait_exit();
        assert_eq!(status.code(), Some(1), "{option}");
        assert!(server.output().contains(text), "{option}: {}", server.output());
    }
}

#[test]
fn three_members_judge_alike_through_a_restart_and_a_snapshot() {
    let dir = scratch();
    let flags = [CHEAP, "--snapshot-count=50", "--snapshot-catchup-entries=5"];
    let mut cluster = Cluster::new(&Kind::Quorate, dir.path(), 3, &flags);
    cluster.start();
    let endpoints = cluster.endpoints();
    let at = |n: usize| etcdctl(&endpoints[n..=n]);
    set_up(&at(0));
    done(&at(0), "put ann/1 one --user=ann:annpw");
    for n in 0..3 {
        let found = done(&at(n), "get ann/1 --user=ann:annpw");
        assert_eq!(found.stdout, "ann/1\none\n", "at member {n}");
        refused(&at(n), "get bob/1 --user=ann:annpw", DENIED);
        refused(&at(n), "get ann/1", NO_USER);
        refused(&at(n), "put ann/1 two --user=ann:wrong", "invalid user ID or password");
    }
    // A token from one member is good at all, at once: it names the entry that must be applied.
    runtime().block_on(async {
        let range = RangeRequest { key: "ann/1".into(), ..Default::default() }.encode_to_vec();
        for from in 0..3 {
            let token = log_in(&endpoints[from], "ann", "annpw").await;
            for endpoint in &endpoints {
                let mut calls = Calls::to(endpoint).await;
                let answer = calls.call("etcdserverpb.KV/Range", Some(&token), &range).await;
                assert_eq!((answer.code, answer.text.as_str()), (0, ""), "from {from}");
            }
        }
    });

    cluster.servers[1].kill();
    done_at_last(&at(0), "role grant-permission r read shared --user=root:rootpw");
    done_at_last(&at(0), "put shared 1 --user=root:rootpw");
    cluster.servers[1].start();
    // By what the member itself has loaded and replayed.
    let read = "get shared --consistency=s --user=ann:annpw";
    assert_eq!(done(&at(1), read).stdout, "shared\n1\n");
    refused(&at(1), "get bob/1 --consistency=s --user=ann:annpw", DENIED);

    cluster.servers[2].kill();
    done_at_last(&at(0), "put filler first --user=root:rootpw");
    done(&at(0), "role revoke-permission r shared --user=root:rootpw");
    for n in 0..120 {
        done_at_last(&at(0), &format!("put filler {n} --user=root:rootpw"));
    }
    cluster.servers[2].start();
    cluster.servers[2].wait_log("applied snapshot");
    refused(&at(2), read, DENIED);
    refused(&at(2), "get ann/1 --consistency=s", NO_USER);
    assert_eq!(done(&at(2), "get ann/1 --consistency=s --user=ann:annpw").stdout, "ann/1\none\n");

    refused(&at(1), "auth disable --user=ann:annpw", DENIED);
    done(&at(1), "auth disable --user=root:rootpw");
    assert_eq!(done(&at(1), "get ann/1").stdout, "ann/1\none\n");
}

#[test]
fn a_real_etcd_knows_our_users_from_a_backup() {
    let dir = scratch();
    let mut server = Server::single(Kind::Quorate, dir.path(), &[CHEAP]);
    server.start();
    let tool = etcdctl(&[server.endpoint()]);
    set_up(&tool);
    done(&tool, "put ann/1 one --user=ann:annpw");
    done(&tool, "put bob/1 one --user=root:rootpw");
    let backup = dir.path().join("backup").display().to_string();
    done(&tool, &format!("snapshot save {backup} --user=root:rootpw"));
    server.kill();

    let release = Release::real();
    let mut etcd = Server::single(Kind::Etcd(release.etcd.clone()), &dir.path().join("etcd"), &[]);
    let (data, peer) = (etcd.data_dir.display().to_string(), etcd.peer_url());
    done(
        &Etcdctl::utility(&release),
        &format!(
            "snapshot restore {backup} --data-dir={data} --name=m0 --initial-cluster=m0={peer} \
         --initial-advertise-peer-urls={peer}"
        ),
    );
    etcd.start();
    let tool = etcdctl(&[etcd.endpoint()]);
    assert_eq!(done(&tool, "get ann/1 --user=ann:annpw").stdout, "ann/1\none\n");
    refused(&tool, "get bob/1 --user=ann:annpw", DENIED);
    refused(&tool, "get ann/1", NO_USER);
}
