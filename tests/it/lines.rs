//! Log lines that operators look for, as etcd writes them: their texts, names of fields and forms of values.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::etcdctl::{Etcdctl, Release};
use super::pki::{Authority, Subject};
use super::process::{Cluster, Kind, Server, scratch};

/// The first line of this run with this message.
fn line(server: &mut Server, message: &str) -> Value {
    server.wait_log(&format!("\"msg\":\"{message}\""));
    let output = server.output();
    let lines = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.into_iter().find(|line| line["msg"] == message).expect("it was waited for")
}

#[test]
fn the_configuration_is_one_line_wherever_a_value_came_from() {
    let dir = scratch();
    let flags = ["--snapshot-catchup-entries=77", "--cors=http://b:1,http://a:1"];
    let mut server = Server::single(Kind::subject(), dir.path(), &flags);
    server.envs.push(("ETCD_QUOTA_BACKEND_BYTES".into(), "1000000000".into()));
    server.start();
    let shown = line(&mut server, "starting an etcd server");
    assert_eq!(shown["member-initialized"], false);
    assert_eq!(shown["snapshot-catchup-entries"], 77);
    assert_eq!(shown["cors"], json!(["http://a:1", "http://b:1"]));
    assert_eq!(shown["quota-backend-bytes"], 1_000_000_000);
    assert_eq!(shown["max-wals"], 5);
    assert_eq!(shown["v2-deprecation"], "write-only");
    assert_eq!(shown["listen-client-urls"], json!([server.client_url()]));
    assert_eq!(shown["compact-check-time-interval"], "1m0s");
    let running = line(&mut server, "Running: ");
    let args = running["args"].as_array().expect("a list");
    assert!(args.contains(&flags[0].into()), "{args:?}");
    server.restart();
    assert_eq!(line(&mut server, "starting an etcd server")["member-initialized"], true);
}

/// At every start with the defaults, by etcd 3.7 and by us.
#[test]
fn what_is_not_recommended_is_warned_of() {
    let texts = [
        "Running http and grpc server on single port. This is not recommended for production.",
        "simple token is not cryptographically signed",
    ];
    let dir = scratch();
    let mut server = Server::single(Kind::subject(), dir.path(), &[]);
    server.start();
    for text in texts {
        let shown = line(&mut server, text);
        assert_eq!(shown["level"], "warn");
        let fields: Vec<&String> = shown.as_object().expect("a line").keys().collect();
        let known = ["level", "ts", "caller", "msg"];
        assert!(fields.iter().all(|field| known.contains(&field.as_str())), "{fields:?}");
    }
    let dir = scratch();
    let mut server = Server::single(Kind::Quorate, dir.path(), &["--auth-token="]);
    server.start();
    assert!(!server.has_logged(texts[1]), "there are no such tokens");
}

#[test]
fn a_compaction_is_logged_with_what_it_did() {
    let dir = scratch();
    let mut server = Server::single(Kind::subject(), dir.path(), &[]);
    server.start();
    let etcdctl = Etcdctl::new(&Release::real(), &[server.client_url()]);
    for value in ["1", "2", "3"] {
        assert_eq!(etcdctl.run(&["put", "k", value], "").code, Some(0));
    }
    assert_eq!(etcdctl.run(&["compact", "4", "--physical"], "").code, Some(0));
    let shown = line(&mut server, "finished scheduled compaction");
    assert_eq!(shown["compact-revision"], 4);
    // Computed beside the deletions, which end first where there is little to delete.
    let kept = etcdctl.run(&["endpoint", "hashkv", "--rev", "4", "-w", "json"], "").stdout;
    let hash = shown["hash"].as_u64().expect("a number");
    assert!(kept.contains(&format!("\"hash\":{hash},")), "{shown}, {kept}");
    assert!(shown["number-of-keys-compacted"].as_u64() > Some(0), "{shown}");
    assert!(shown["took"].as_str().is_some_and(|took| took.ends_with('s')), "{shown}");
    for size in ["current-db-size", "current-db-size-in-use"] {
        assert!(shown[&format!("{size}-bytes")].as_u64() > Some(0), "{shown}");
        assert!(shown[size].as_str().is_some_and(|size| size.ends_with('B')), "{shown}");
    }
}

#[test]
fn a_folder_that_others_may_enter_is_warned_of() {
    let dir = scratch();
    let mut server = Server::single(Kind::subject(), dir.path(), &[]);
    fs::create_dir(&server.data_dir).expect("a new folder");
    fs::set_permissions(&server.data_dir, fs::Permissions::from_mode(0o755)).expect("our folder");
    server.start();
    let shown = line(&mut server, "check file permission");
    let wanted = format!(
        "directory {:?} exist, but the permission is \"drwxr-xr-x\". The recommended permission is \
         \"-rwx------\" to prevent possible unprivileged access to the data",
        server.data_dir.display().to_string()
    );
    assert_eq!(shown["error"], wanted);
    assert_eq!(server.output().matches("check file permission").count(), 1);
}

#[test]
fn an_advertised_address_of_no_machine_is_warned_of_once() {
    let dir = scratch();
    let mut server = Server::single(Kind::Quorate, dir.path(), &[]);
    let urls = ["http://0.0.0.0:1", "http://[::]:1"];
    server.flags.push(format!("--advertise-client-urls={}", urls.join(",")));
    server.start();
    let text = "advertised URLs have an address that other machines cannot connect to";
    assert_eq!(line(&mut server, text)["urls"], json!(urls));
    assert_eq!(server.output().matches(text).count(), 1);
}

/// Two members of one list with different tokens make two clusters; an operator finds the reason on both.
#[test]
fn a_member_of_another_cluster_is_logged_on_both_sides() {
    let dir = scratch();
    let mut cluster = Cluster::new(&Kind::subject(), dir.path(), 2, &[]);
    for (at, server) in cluster.servers.iter_mut().enumerate() {
        server.flags.push(format!("--initial-cluster-token=token-{at}"));
        server.spawn();
    }
    for server in &mut cluster.servers {
        let shown = line(server, "request cluster ID mismatch");
        let (own, other) = (&shown["local-member-cluster-id"], &shown["remote-peer-cluster-id"]);
        assert!(own.is_string() && other.is_string() && own != other, "{shown}");
        let text = "request sent was ignored by remote peer due to cluster ID mismatch";
        let sent = line(server, text);
        assert_eq!(sent["error"], "cluster ID mismatch");
        assert_eq!(
            (&sent["local-member-cluster-id"], &sent["remote-peer-cluster-id"]),
            (own, other)
        );
    }
}

#[test]
fn clients_that_do_not_believe_a_certificate_are_logged_in_gos_words() {
    let dir = scratch();
    let (ca, other) = (Authority::new(dir.path(), "ca"), Authority::new(dir.path(), "other"));
    let cert = ca.issue(dir.path(), "server", Subject::new("server", &["127.0.0.1"], 1));
    let mut server = Server::single(Kind::subject(), dir.path(), &[]);
    server.flags.push(format!("--cert-file={}", cert.cert.display()));
    server.flags.push(format!("--key-file={}", cert.key.display()));
    server.secure_clients();
    server.start();
    let failed = etcdctl_with_ca(&server.client_url(), &other.file);
    assert_ne!(failed, Some(0), "the certificate is another authority's");
    server.wait_log("remote error: tls: bad certificate");
    let shown = line(&mut server, "rejected connection on client endpoint");
    assert_eq!(shown["server-name"], "");
}

fn etcdctl_with_ca(url: &str, ca: &Path) -> Option<i32> {
    let (url, ca) = (url.to_owned(), format!("--cacert={}", ca.display()));
    let etcdctl = Etcdctl::new(&Release::real(), &[url]);
    etcdctl.run(&[ca.as_str(), "--command-timeout=2s", "--dial-timeout=2s", "get", "k"], "").code
}

/// What Go's runtime ignores, and scripts for the rotation of logs send.
#[test]
fn signals_that_etcd_ignores_end_nothing() {
    let dir = scratch();
    let mut server = Server::single(Kind::subject(), dir.path(), &[]);
    server.start();
    let pid = server.pid().expect("it runs").to_string();
    for signal in ["USR1", "USR2", "ALRM", "VTALRM", "PROF", "XCPU", "XFSZ", "IO", "PWR"] {
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).status();
        assert!(sent.expect("kill(1) is there").success(), "{signal}");
    }
    let etcdctl = Etcdctl::new(&Release::real(), &[server.client_url()]);
    assert_eq!(etcdctl.run(&["put", "k", "v"], "").stdout, "OK\n");
    assert_eq!(server.pid().map(|pid| pid.to_string()), Some(pid));
    server.terminate();
}
