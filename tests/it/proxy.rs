//! The proxies as real processes, between the real etcdctl and members of both kinds.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate::client::{self, Client};
use quorate_proto::etcdserverpb::RangeRequest;
use quorate_proto::health::HealthCheckRequest;
use quorate_proto::v3electionpb::{CampaignRequest, LeaderRequest, ResignRequest};
use quorate_proto::v3lockpb::{LockRequest, UnlockRequest};

use super::crash::runtime;
use super::curl::Curl;
use super::etcdctl::{Etcdctl, Release};
use super::names::{DOMAIN, NameServer, Record};
use super::pki::{Authority, Issued, Subject};
use super::process::{Cluster, Kind, Server, etcd_program, free_port, scratch};

/// The proxy that `arguments` describe, and its endpoint.
fn gateway(dir: &std::path::Path, arguments: &[&str]) -> (Server, String) {
    let endpoint = format!("127.0.0.1:{}", free_port());
    let listen = format!("--listen-addr={endpoint}");
    let arguments = [&["gateway", "start", &listen], arguments].concat();
    (Server::proxy(Kind::subject(), dir, &arguments), endpoint)
}

const GATEWAY_READY: &str = "ready to proxy client requests";

#[test]
fn a_gateway_goes_round_those_that_can_be_reached() {
    let dir = scratch();
    let mut cluster = Cluster::new(&Kind::subject(), dir.path(), 3, &[]);
    cluster.start();
    let endpoints = format!("--endpoints={}", cluster.endpoints().join(","));
    let (mut gateway, endpoint) = gateway(dir.path(), &[&endpoints, "--retry-delay=200ms"]);
    gateway.spawn();
    gateway.wait_log(GATEWAY_READY);
    let etcdctl = etcdctl(&endpoint);
    // curl makes one connection a time.
    let curl = Curl::new(format!("http://{endpoint}"));
    let statuses = || {
        let status = |_| curl.run(&["/v3/maintenance/status", "-d", "{}"]).stdout;
        let member = |status: String| {
            let (_, rest) = status.split_once("\"member_id\":\"").expect("a member answers");
            rest.split('"').next().expect("an id").to_owned()
        };
        (0..3).map(status).map(member).collect::<BTreeSet<_>>().len()
    };
    assert_eq!(statuses(), 3, "each connection goes to another member");
    assert_eq!(etcdctl.run(&["put", "k", "v"], "").stdout, "OK\n");

    cluster.servers[0].kill();
    for _ in 0..3 {
        assert_eq!(etcdctl.run(&["get", "k"], "").stdout, "k\nv\n");
    }
    gateway.wait_log("deactivated endpoint");
    gateway.wait_log("failed to activate endpoint (stay inactive for another interval)");
    cluster.start();
    gateway.wait_log("activated\"");
    assert_eq!(statuses(), 3);
    assert!(gateway.terminate().success());
}

#[test]
fn a_gateway_finds_members_by_dns() {
    let dir = scratch();
    let mut server = Server::single(Kind::subject(), dir.path(), &[]);
    server.start();
    let dead = free_port();
    let record = |priority, port| Record { priority, ..Record::local("_etcd-client._tcp", port) };
    let records = vec![record(1, dead), record(2, server.client_port)];
    let Some(names) = NameServer::start(dir.path(), records) else { return };
    let domain = format!("--discovery-srv={DOMAIN}");
    let (mut gateway, endpoint) = gateway(dir.path(), &[&domain, "--insecure-discovery"]);
    gateway.resolves_by(&names.resolv_conf);
    gateway.spawn();
    gateway.wait_log(GATEWAY_READY);
    let etcdctl = Etcdctl::new(&Release::real(), &[endpoint]);
    assert_eq!(etcdctl.run(&["put", "k", "v"], "").stdout, "OK\n");
    gateway.wait_log("deactivated endpoint");
}

#[test]
fn a_gateway_refuses_wrong_command_lines() {
    let dir = scratch();
    let own = free_port();
    let listen = format!("--listen-addr=localhost:{own}");
    let itself = format!("--endpoints=127.0.0.1:{own}");
    let cases: &[(&[&str], &str)] = &[
        (&["--nothing"], "unknown flag: --nothing"),
        (&["--listen-addr=x"], "failed to validate listen address: x"),
        (&["--endpoints=x"], "error parsing endpoint \"x\""),
        (&[&listen, &itself], "should not resolve to the gateway listen addr"),
    ];
    for (arguments, why) in cases {
        let arguments = [&["gateway", "start"], *arguments].concat();
        let mut gateway = Server::proxy(Kind::Quorate, dir.path(), &arguments);
        gateway.spawn();
        assert_eq!(gateway.wait_exit().code(), Some(1), "{arguments:?}");
        assert!(gateway.output().contains(why), "{arguments:?}: {}", gateway.output());
    }
}

/// A gRPC proxy in front of `endpoints`, serving, and its endpoint.
fn grpc_proxy(
    kind: Kind,
    dir: &std::path::Path,
    endpoints: &[String],
    arguments: &[&str],
) -> (Server, String) {
    let endpoint = format!("127.0.0.1:{}", free_port());
    let listen = format!("--listen-addr={endpoint}");
    let advertise = format!("--advertise-client-url={endpoint}");
    let endpoints = format!("--endpoints={}", endpoints.join(","));
    let words = ["grpc-proxy", "start", &listen, &advertise, &endpoints];
    let mut proxy = Server::proxy(kind, dir, &[&words, arguments].concat());
    proxy.spawn();
    proxy.wait_log("started gRPC proxy");
    (proxy, endpoint)
}

#[test]
fn profiles_of_a_proxy_are_its_own() {
    let dir = scratch();
    let server = alone(Kind::Quorate, dir.path());
    let told = |arguments: &[&str]| {
        let (_proxy, endpoint) =
            grpc_proxy(Kind::Quorate, dir.path(), &[server.endpoint()], arguments);
        Curl::new(format!("http://{endpoint}"))
            .run(&["/debug/pprof/cmdline", "--output", "-"])
            .stdout
    };
    assert!(told(&["--enable-pprof"]).contains("\0grpc-proxy\0start\0"));
    assert_eq!(told(&[]), "404 page not found\n");
}

fn etcdctl(endpoint: &str) -> Etcdctl {
    Etcdctl::new(&Release::real(), &[endpoint.to_owned()])
}

fn alone(kind: Kind, dir: &std::path::Path) -> Server {
    let mut server = Server::single(kind, dir, &[]);
    server.start();
    server
}

/// What etcdctl's commands print, each with its exit code.
fn said(etcdctl: &Etcdctl, commands: &[(&[&str], &str)]) -> String {
    let mut text = String::new();
    for (command, stdin) in commands {
        let output = etcdctl.run(command, stdin);
        let why = output.stderr.rsplit("Error: ").next().unwrap_or_default().trim();
        text += &format!(
            "> {}\n{}{}",
            command.join(" "),
            output.stdout,
            match output.code {
                Some(0) => String::new(),
                code => format!("{code:?} {why}\n"),
            }
        );
    }
    text
}

const LEASE: &str = "7587000000000000";

const COMMANDS: &[(&[&str], &str)] = &[
    (&["put", "a", "1"], ""),
    (&["put", "a", "2", "--prev-kv"], ""),
    (&["put", "b", "3"], ""),
    (&["get", "", "--prefix"], ""),
    (&["get", "a", "--from-key", "--keys-only"], ""),
    (&["get", "a", "--rev=2"], ""),
    (&["get", "a", "--rev=99"], ""),
    (&["txn"], "value(\"a\") = \"2\"\n\nput c 4\nget a\n\nget b\n\n"),
    (&["txn"], "mod(\"a\") = \"1\"\n\nput c 5\n\nget c\n\n"),
    (&["del", "b", "--prev-kv"], ""),
    (&["compact", "4"], ""),
    (&["get", "a", "--rev=2"], ""),
    (&["get", "a", "--rev=2", "--consistency=s"], ""),
    (&["lease", "revoke", LEASE], ""),
    (&["lock", "l", "echo", "held"], ""),
    (&["role", "add", "r"], ""),
    (&["role", "grant-permission", "r", "readwrite", "a"], ""),
    (&["user", "add", "root:x"], ""),
    (&["user", "grant-role", "root", "root"], ""),
    (&["user", "add", "ann:y"], ""),
    (&["user", "grant-role", "ann", "r"], ""),
    (&["auth", "enable"], ""),
    (&["get", "a"], ""),
    (&["--user=ann:y", "get", "a"], ""),
    (&["--user=ann:y", "get", "a", "--consistency=s"], ""),
    (&["--user=ann:y", "get", "b"], ""),
    (&["--user=ann:n", "get", "a"], ""),
    (&["--user=root:x", "auth", "disable"], ""),
];

/// Whichever proxy stands before whichever server, etcdctl sees what it sees without one.
#[test]
fn etcdctl_sees_the_cluster_through_the_proxy() {
    let etcd = Kind::Etcd(etcd_program());
    let dir = scratch();
    let direct = alone(Kind::Quorate, dir.path());
    let expected = said(&etcdctl(&direct.endpoint()), COMMANDS);
    assert!(expected.contains("SUCCESS"), "{expected}");
    for (proxy, server) in
        [(Kind::Quorate, Kind::Quorate), (Kind::Quorate, etcd.clone()), (etcd, Kind::Quorate)]
    {
        let dir = scratch();
        let server = alone(server, dir.path());
        let (proxy, endpoint) = grpc_proxy(proxy, dir.path(), &[server.endpoint()], &[]);
        let seen = said(&etcdctl(&endpoint), COMMANDS);
        assert_eq!(seen, expected, "{:?} before {:?}", proxy.kind, server.kind);
    }
}

#[test]
fn leases_watches_and_snapshots_go_through() {
    let dir = scratch();
    let server = alone(Kind::Quorate, dir.path());
    let (_proxy, endpoint) = grpc_proxy(Kind::Quorate, dir.path(), &[server.endpoint()], &[]);
    let etcdctl = etcdctl(&endpoint);
    let granted = etcdctl.run(&["lease", "grant", "60"], "").stdout;
    let lease = granted.split(' ').nth(1).expect("an id").to_owned();
    assert_eq!(etcdctl.run(&["put", "k", "v", &format!("--lease={lease}")], "").stdout, "OK\n");
    let alive = etcdctl.run(&["lease", "keep-alive", "--once", &lease], "").stdout;
    assert_eq!(alive, format!("lease {lease} keepalived with TTL(60)\n"));
    let left = etcdctl.run(&["lease", "timetolive", &lease, "--keys"], "").stdout;
    assert!(left.contains("attached keys([k])"), "{left}");
    let history = ["watch", "k", "--rev=1", "--prev-kv"];
    let watch = etcdctl.start(&history, "");
    let revoked = etcdctl.run(&["lease", "revoke", &lease], "").stdout;
    assert_eq!(revoked, format!("lease {lease} revoked\n"));
    let watched = watch.stop_after(8).stdout;
    assert!(
        watched.starts_with("PUT\n") && watched.contains("k\nv\nDELETE\nk\nv\nk\n"),
        "{watched}"
    );
    let file = dir.path().join("backup.db").display().to_string();
    let saved = etcdctl.run(&["snapshot", "save", &file], "");
    assert_eq!(saved.code, Some(0), "{saved:?}");
    let list = etcdctl.run(&["member", "list"], "").stdout;
    assert!(list.contains(&endpoint), "{list}");
    assert_eq!(etcdctl.run(&["endpoint", "health"], "").code, Some(0));
}

#[test]
fn a_namespace_is_all_that_clients_see() {
    let dir = scratch();
    let server = alone(Kind::Quorate, dir.path());
    let namespace = ["--namespace=ns/"];
    let (_proxy, endpoint) =
        grpc_proxy(Kind::Quorate, dir.path(), &[server.endpoint()], &namespace);
    let (inside, outside) = (etcdctl(&endpoint), etcdctl(&server.endpoint()));
    outside.run(&["put", "nr", "below"], "");
    outside.run(&["put", "nt", "above"], "");
    let seen = said(&inside, COMMANDS);
    assert!(seen.contains("> get  --prefix\na\n2\nb\n3\n"), "{seen}");
    assert!(seen.contains("> del b --prev-kv\n1\nb\n3\n"), "{seen}");
    assert!(!seen.contains("ns/"), "{seen}");
    let keys = outside.run(&["get", "", "--prefix", "--keys-only"], "").stdout;
    assert_eq!(keys, "nr\n\nns/a\n\nns/c\n\nnt\n\n");

    let watch = inside.start(&["watch", "", "--prefix", "--rev=5"], "");
    inside.run(&["put", "w", "1"], "");
    // Of three puts and a delete, of a lock that came and went, and of the last put.
    let watched = watch.stop_after(21).stdout;
    assert!(watched.ends_with("PUT\nw\n1\n") && !watched.contains("ns/"), "{watched}");
    assert_eq!(inside.run(&["lock", "l", "echo", "held"], "").stdout, "held\n");

    runtime().block_on(async {
        let connect = |endpoint: &str| {
            let options = client::Options::default();
            Client::new(quorate::env::tokio::env(), [endpoint], options).expect("an endpoint")
        };
        let (inside, outside) = (connect(&endpoint), connect(&server.endpoint()));
        let lock = LockRequest { name: "l".into(), ..Default::default() };
        let key = inside.lock().lock(lock).await.expect("it is free").into_inner().key;
        assert!(key.starts_with(b"l/"), "{key:?}");
        let count = async |client: &Client, key: Bytes| {
            let range = RangeRequest { key, ..Default::default() };
            client.kv().range(range).await.expect("it answers").into_inner().count
        };
        let real = Bytes::from([b"ns/", &key[..]].concat());
        assert_eq!(
            (count(&outside, real.clone()).await, count(&inside, key.clone()).await),
            (1, 1)
        );
        inside.lock().unlock(UnlockRequest { key }).await.expect("it is held");
        assert_eq!(count(&outside, real).await, 0);

        let campaign =
            CampaignRequest { name: "e".into(), value: "me".into(), ..Default::default() };
        let won = inside.election().campaign(campaign).await.expect("there is no other candidate");
        let leader = won.into_inner().leader;
        assert_eq!(leader.as_ref().expect("a leader").name, "e");
        let who = LeaderRequest { name: "e".into() };
        let seen =
            inside.election().leader(who.clone()).await.expect("somebody leads").into_inner();
        let seen = seen.kv.expect("a candidate");
        assert_eq!(
            (&seen.key, &seen.value[..]),
            (&leader.as_ref().expect("a leader").key, &b"me"[..])
        );
        outside.election().leader(who.clone()).await.expect_err("outside there is no leader");
        let mut observed = inside.election().observe(who).await.expect("it begins").into_inner();
        let first = observed.message().await.expect("it goes on").expect("somebody leads");
        assert_eq!(first.kv.expect("a candidate").key, seen.key);
        let resign = ResignRequest { leader };
        inside.election().resign(resign).await.expect("it leads");

        let stream = RangeRequest { key: "a".into(), ..Default::default() };
        let refused =
            inside.kv().range_stream(stream).await.expect("it begins").into_inner().message().await;
        let refused = refused.expect_err("not by a proxy");
        assert_eq!(refused.code(), tonic::Code::Unimplemented);
        assert_eq!(refused.message(), "RangeStream is not supported by the gRPC proxy");
        let nobody = inside.health().check(HealthCheckRequest::default()).await;
        let nobody = nobody.expect_err("a proxy has no such service");
        assert_eq!(nobody.message(), "unknown service grpc.health.v1.Health");
    });
}

/// The value of a metric on a page.
fn metric(url: &str, path: &str, name: &str) -> Option<f64> {
    let page = Curl::new(url.to_owned()).run(&[path]).stdout;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.parse().ok()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what} does not come");
    }
}

#[test]
fn watchers_share_and_survive_the_loss_of_the_server() {
    let dir = scratch();
    let mut server = alone(Kind::Quorate, dir.path());
    let (_proxy, endpoint) = grpc_proxy(Kind::Quorate, dir.path(), &[server.endpoint()], &[]);
    let (url, member) = (format!("http://{endpoint}"), server.client_url());
    let etcdctl = etcdctl(&endpoint);
    etcdctl.run(&["put", "k", "0"], "");
    let watches: Vec<_> = (0..4).map(|_| etcdctl.start(&["watch", "k"], "")).collect();
    let sharing = "etcd_grpc_proxy_watchers_coalescing_total";
    wait_for("sharing", || metric(&url, "/proxy/metrics", sharing) == Some(3.0));
    let upstream = || metric(&member, "/metrics", "etcd_debugging_mvcc_watcher_total");
    assert_eq!(upstream(), Some(1.0), "four watchers are one of the server's");
    etcdctl.run(&["put", "k", "1"], "");
    server.restart();
    wait_for("the watch", || upstream() == Some(1.0));
    assert_eq!(etcdctl.run(&["put", "k", "2"], "").stdout, "OK\n");
    for watch in watches {
        assert_eq!(watch.stop_after(6).stdout, "PUT\nk\n1\nPUT\nk\n2\n");
    }
    let events = metric(&url, "/proxy/metrics", "etcd_grpc_proxy_events_coalescing_total");
    assert_eq!(events, Some(6.0));
    wait_for("the end", || upstream() == Some(0.0));
}

#[test]
fn serializable_ranges_come_from_the_cache() {
    let dir = scratch();
    let server = alone(Kind::Quorate, dir.path());
    let (_proxy, endpoint) = grpc_proxy(Kind::Quorate, dir.path(), &[server.endpoint()], &[]);
    let (inside, outside) = (etcdctl(&endpoint), etcdctl(&server.endpoint()));
    let url = format!("http://{endpoint}");
    let get = || inside.run(&["get", "k", "--consistency=s"], "").stdout;
    inside.run(&["put", "k", "1"], "");
    assert_eq!(get(), "k\n1\n");
    outside.run(&["put", "k", "2"], "");
    assert_eq!(get(), "k\n1\n", "the proxy has not seen it");
    let counted =
        |name| metric(&url, "/proxy/metrics", &format!("etcd_grpc_proxy_cache_{name}_total"));
    assert_eq!(
        (counted("hits"), counted("misses"), counted("keys")),
        (Some(1.0), Some(1.0), Some(1.0))
    );
    inside.run(&["put", "k", "3"], "");
    assert_eq!(get(), "k\n3\n");
    inside.run(&["txn"], "\nput k 4\n\n\n");
    assert_eq!(get(), "k\n4\n");
    inside.run(&["del", "k"], "");
    assert_eq!(get(), "");
}

/// Whichever proxy it is, what is too large is refused in the same words.
#[test]
fn messages_are_bounded_in_both_directions() {
    let (small, large) = ("x".repeat(900), "x".repeat(1_500));
    let commands: &[(&[&str], &str)] = &[
        (&["put", "a", &small], ""),
        (&["put", "b", &small], ""),
        (&["put", "c", &small], ""),
        (&["put", "d", &large], ""),
        (&["txn"], &format!("\nput d {large}\n\n\n")),
        (&["get", "a", "--keys-only"], ""),
        (&["get", "", "--prefix"], ""),
        (&["get", "a", "--prefix", "--consistency=s"], ""),
        (&["put", "a", "1"], ""),
    ];
    let mut seen = Vec::new();
    for kind in [Kind::Quorate, Kind::Etcd(etcd_program())] {
        let dir = scratch();
        let server = alone(Kind::Quorate, dir.path());
        let bounds = ["--max-send-bytes=1000", "--max-recv-bytes=2000"];
        let (_proxy, endpoint) = grpc_proxy(kind, dir.path(), &[server.endpoint()], &bounds);
        seen.push(said(&etcdctl(&endpoint), commands));
    }
    for why in
        ["trying to send message larger than max (15", "received message larger than max (27"]
    {
        assert!(seen[0].contains(why), "{}", seen[0]);
    }
    // Headers have members' ids, which differ from run to run, and so does their length.
    let alike = |text: &str| {
        (2_700..2_800)
            .fold(text.to_owned(), |text, n| text.replace(&format!("({n} vs"), "(27.. vs"))
    };
    assert_eq!(alike(&seen[0]), alike(&seen[1]));
}

/// It starts with one member, learns of the others, and does without the first.
#[test]
fn a_proxy_outlives_the_member_that_it_started_with() {
    let dir = scratch();
    let mut cluster = Cluster::new(&Kind::Quorate, dir.path(), 3, &[]);
    cluster.start();
    let flags = [
        "--endpoints-auto-sync-interval=100ms",
        "--experimental-serializable-ordering",
        "--permit-without-stream",
        "--dial-keepalive-time=500ms",
    ];
    let first = [cluster.servers[0].endpoint()];
    let (mut proxy, endpoint) = grpc_proxy(Kind::Quorate, dir.path(), &first, &flags);
    proxy.wait_log("waiting for linearized read from cluster to recover ordering");
    let etcdctl = etcdctl(&endpoint);
    assert_eq!(etcdctl.run(&["put", "k", "1"], "").stdout, "OK\n");
    let asked = |server: &Server| {
        let name = "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"MemberList\",\
                    grpc_service=\"etcdserverpb.Cluster\",grpc_type=\"unary\"}";
        metric(&server.client_url(), "/metrics", name).unwrap_or_default()
    };
    // Of any member; once the answer has come, that may be another one.
    let often = || cluster.servers.iter().map(asked).sum::<f64>() > 1.0;
    wait_for("a question for the members", often);
    proxy.wait_log("set etcd endpoints by autoSync");
    cluster.servers[0].kill();
    wait_for("another member", || etcdctl.run(&["put", "k", "2"], "").stdout == "OK\n");
    assert_eq!(etcdctl.run(&["get", "k"], "").stdout, "k\n2\n");
    assert_eq!(etcdctl.run(&["get", "k", "--consistency=s"], "").stdout, "k\n2\n");
}

/// A cluster that was restored is behind the answers of its proxy. Reads are refused as long as it is; a
/// write is done, and once.
#[test]
fn a_txn_that_writes_is_sent_once() {
    let (dir, other) = (scratch(), scratch());
    let mut server = alone(Kind::Quorate, dir.path());
    let flags = ["--experimental-serializable-ordering"];
    let (_proxy, endpoint) = grpc_proxy(Kind::Quorate, dir.path(), &[server.endpoint()], &flags);
    let etcdctl = etcdctl(&endpoint);
    for value in ["1", "2", "3", "4"] {
        assert_eq!(etcdctl.run(&["put", "k", value], "").stdout, "OK\n");
    }
    server.kill();
    let mut restored = Server::single(Kind::Quorate, other.path(), &[]);
    restored.client_port = server.client_port;
    restored.start();
    let refused = etcdctl.run(&["get", "k", "--consistency=s"], "").stderr;
    assert!(refused.contains("no cluster members have a revision higher"), "{refused}");
    assert_eq!(etcdctl.run(&["txn"], "\nput k 5\n\n\n").stdout, "SUCCESS\n\nOK\n");
    let direct = self::etcdctl(&restored.endpoint());
    let found = direct.run(&["get", "k", "-w", "fields"], "").stdout;
    assert!(found.contains("\"Version\" : 1\n"), "{found}");
}

#[test]
fn pages_are_there_before_the_cluster_is() {
    let dir = scratch();
    let nobody = format!("127.0.0.1:{}", free_port());
    let flags = ["--experimental-serializable-ordering"];
    let (mut proxy, endpoint) = grpc_proxy(Kind::Quorate, dir.path(), &[nobody], &flags);
    proxy.wait_log("ordering recovery failed, retrying in 1s");
    let health = Curl::new(format!("http://{endpoint}")).run(&["/health"]).stdout;
    assert!(health.starts_with("{\"health\":\"false\""), "{health}");
}

#[test]
fn http_shows_proxy_and_members() {
    let dir = scratch();
    let mut server = alone(Kind::Quorate, dir.path());
    let metrics = format!("http://127.0.0.1:{}", free_port());
    let also = format!("--metrics-addr={metrics}");
    let (_proxy, endpoint) = grpc_proxy(Kind::Quorate, dir.path(), &[server.endpoint()], &[&also]);
    let healthy = "{\"health\":\"true\",\"reason\":\"\"}";
    for url in [format!("http://{endpoint}"), metrics.clone()] {
        let curl = Curl::new(url.clone());
        assert_eq!(curl.run(&["/health"]).stdout, healthy);
        assert_eq!(curl.run(&["/proxy/health"]).stdout, healthy);
        assert_eq!(metric(&url, "/metrics", "etcd_server_has_leader"), Some(1.0));
        assert!(metric(&url, "/proxy/metrics", "etcd_grpc_proxy_cache_hits_total").is_some());
        let page = curl.run(&["/version"]);
        assert_eq!(page.stdout, "404 page not found\n", "{page:?}");
        assert!(curl.run(&["/health", "-X", "POST"]).stderr.contains("status 405"));
    }
    server.kill();
    let curl = Curl::new(metrics);
    let ill = curl.run(&["/health"]);
    assert!(ill.stdout.starts_with("{\"health\":\"false\",\"reason\":\"GET ERROR:"), "{ill:?}");
    assert!(ill.stderr.contains("status 503"), "{ill:?}");
    assert_eq!(curl.run(&["/metrics"]).stdout, "Internal server error\n");
}

#[test]
fn both_ends_are_secured() {
    let dir = scratch();
    let ca = Authority::new(dir.path(), "ca");
    let hosts = ["localhost", "127.0.0.1"];
    let cert = ca.issue(dir.path(), "server", Subject::new("server", &hosts, 1));
    let mut server = Server::single(Kind::Quorate, dir.path(), &[]);
    server.flags.push(format!("--cert-file={}", cert.cert.display()));
    server.flags.push(format!("--key-file={}", cert.key.display()));
    server.secure_clients();
    server.start();
    let file = |name: &str, path: &std::path::Path| format!("--{name}={}", path.display());
    let arguments =
        [file("cacert", &ca.file), file("cert-file", &cert.cert), file("key-file", &cert.key)];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (_proxy, endpoint) =
        grpc_proxy(Kind::Quorate, dir.path(), &[server.client_url()], &arguments);
    let secured = etcdctl(&format!("https://{endpoint}"));
    let ca_file = file("cacert", &ca.file);
    assert_eq!(secured.run(&[&ca_file, "put", "k", "v"], "").stdout, "OK\n");
    assert_eq!(secured.run(&[&ca_file, "get", "k"], "").stdout, "k\nv\n");
    let page = Curl::new(format!("https://{endpoint}"));
    let ca_file = ca.file.display().to_string();
    let health = page.run(&["/health", "--http1.1", "--cacert", &ca_file]).stdout;
    assert_eq!(health, "{\"health\":\"true\",\"reason\":\"\"}");

    // A certificate for the calls of others must not name a user.
    let nameless = ca.issue(dir.path(), "nameless", Subject::new("", &hosts, 2));
    let shows = |issued: &Issued| {
        [file("cert", &issued.cert), file("key", &issued.key), file("cacert", &ca.file)]
    };
    let (endpoints, nameless) = ([server.client_url()], shows(&nameless));
    let nameless: Vec<&str> = nameless.iter().map(String::as_str).collect();
    let (_proxy, endpoint) = grpc_proxy(Kind::Quorate, dir.path(), &endpoints, &nameless);
    assert_eq!(etcdctl(&endpoint).run(&["get", "k"], "").stdout, "k\nv\n");
    for kind in [Kind::Quorate, Kind::Etcd(etcd_program())] {
        let [cert, key, ca] = shows(&cert);
        let endpoints = format!("--endpoints={}", server.client_url());
        let listen = format!("--listen-addr=127.0.0.1:{}", free_port());
        let words = ["grpc-proxy", "start", &listen, &endpoints, &cert, &key, &ca];
        let mut named = Server::proxy(kind, dir.path(), &words);
        named.spawn();
        assert_eq!(named.wait_exit().code(), Some(1));
        let (output, wanted) = (named.output(), "cert has non empty Common Name (server)");
        assert!(output.contains(wanted), "{output}");
    }
}

#[test]
fn proxies_know_each_other() {
    let dir = scratch();
    let server = alone(Kind::Quorate, dir.path());
    let resolver = ["--resolver-prefix=/proxies", "--resolver-ttl=60", "--namespace=ns/"];
    let (_one, first) = grpc_proxy(Kind::Quorate, dir.path(), &[server.endpoint()], &resolver);
    let (_other, second) =
        grpc_proxy(Kind::Etcd(etcd_program()), dir.path(), &[server.endpoint()], &resolver);
    for endpoint in [&first, &second] {
        let etcdctl = etcdctl(endpoint);
        let list = || etcdctl.run(&["member", "list"], "").stdout;
        wait_for("the other", || list().contains(&first) && list().contains(&second));
    }
}
