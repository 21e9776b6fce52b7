//! HTTP on the client port, as far as it cannot be compared with an old etcd: addresses for HTTP only, what a
//! process shows of itself. What can be is in `tests/conformance`.

use serde_json::Value;

use super::curl::Curl;
use super::etcdctl::{Etcdctl, Release};
use super::process::{Kind, Server, free_port, scratch};

fn started(flags: &[&str]) -> (tempfile::TempDir, Server) {
    let dir = scratch();
    let mut server = Server::single(Kind::Quorate, dir.path(), flags);
    server.start();
    (dir, server)
}

#[test]
fn http_has_an_address_of_its_own_and_grpc_keeps_the_other() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let (_dir, server) = started(&[&format!("--listen-client-http-urls={url}")]);
    let (http, grpc) = (Curl::new(url.clone()), Curl::new(server.client_url()));

    let put = ["/v3/kv/put", "-d", r#"{"key":"YQ==","value":"MQ=="}"#];
    let answer = http.run(&put).stdout;
    assert!(answer.contains("\"revision\":\"2\""), "{answer}");
    assert_eq!(http.run(&["/health"]).stdout, r#"{"health":"true","reason":""}"#);
    assert_ne!(grpc.run(&["/health"]).code, Some(0), "HTTP is served where gRPC is");
    let refused = grpc.run(&["/health", "--http2-prior-knowledge"]);
    let fields: Vec<&str> = refused.stderr.lines().collect();
    assert!(fields.contains(&"status 415") && fields.contains(&"grpc-status: 3"), "{refused:?}");
    assert_eq!(refused.stdout, "");

    let release = Release::real();
    let etcdctl = |endpoint: &str| Etcdctl::new(&release, &[endpoint.to_owned()]);
    let got = etcdctl(&server.endpoint()).run(&["get", "a"], "");
    assert_eq!(got.stdout, "a\n1\n", "{got:?}");
    let elsewhere = etcdctl(url.trim_start_matches("http://"));
    let refused = elsewhere.run(&["get", "a", "--command-timeout=2s"], "");
    assert_ne!(refused.code, Some(0), "gRPC is served where HTTP is");
}

#[test]
fn the_gateway_can_be_left_out() {
    let (_dir, server) = started(&["--enable-grpc-gateway=false"]);
    let answer = Curl::new(server.client_url()).run(&["/v3/kv/range", "-d", "{}"]);
    assert_eq!(answer.stdout, "404 page not found\n");
}

#[test]
fn vars_show_the_process_and_raft() {
    let (_dir, server) = started(&[]);
    let answer = Curl::new(server.client_url()).run(&["/debug/vars"]);
    let vars: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    let line = vars["cmdline"].as_array().expect("words");
    assert!(line[0].as_str().is_some_and(|program| program.ends_with("quorate")), "{vars}");
    assert!(line.contains(&Value::from("--name=m0")), "{vars}");
    assert!(vars["file_descriptor_limit"].as_u64().is_some_and(|limit| limit > 0), "{vars}");
    let raft = &vars["raft.status"];
    assert_eq!(raft["raftState"], "StateLeader");
    assert_eq!(raft["lead"], raft["id"]);
    let own = &raft["progress"][raft["id"].as_str().expect("an id")];
    assert_eq!(own["match"], raft["commit"], "{vars}");
}
