//! The proxies as real processes, between the real etcdctl and members of both kinds.

use super::etcdctl::{Etcdctl, Release};
use super::names::{DOMAIN, NameServer, Record};
use super::process::{Cluster, Kind, Server, free_port, scratch};

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
    let etcdctl = Etcdctl::new(&Release::v3_4(), std::slice::from_ref(&endpoint));
    let statuses = || {
        let status = |_| etcdctl.run(&["endpoint", "status", "-w", "simple"], "").stdout;
        let mut members: Vec<String> = (0..3)
            .map(status)
            .map(|line| line.split(", ").nth(1).expect("a member's id").to_owned())
            .collect();
        members.sort();
        members.dedup();
        members.len()
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
    let etcdctl = Etcdctl::new(&Release::v3_4(), &[endpoint]);
    assert_eq!(etcdctl.run(&["put", "k", "v"], "").stdout, "OK\n");
    gateway.wait_log("deactivated endpoint");
}

#[test]
fn a_gateway_tells_what_is_wrong() {
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
