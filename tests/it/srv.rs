//! Members that know only a domain, whose SRV records name them: real processes, a name server of the
//! test's, and what a real etcd makes of the same records.

use std::path::Path;

use super::client::Client;
use super::crash::runtime;
use super::names::{DOMAIN, NameServer, Record};
use super::process::{Kind, Server, etcd_program, scratch};

fn member(kind: &Kind, dir: &Path, name: &str) -> Server {
    Server::named(kind.clone(), dir, name, DOMAIN, &dir.join("resolv.conf"))
}

#[test]
fn members_find_each_other_by_dns() {
    let dir = scratch();
    let names = ["a", "b", "c"];
    let mut members = names.map(|name| member(&Kind::subject(), dir.path(), name));
    let record = |server: &Server| Record::local("_etcd-server-blue._tcp", server.peer_port);
    let Some(_server) = NameServer::start(dir.path(), members.iter().map(record).collect()) else {
        return;
    };
    for member in &mut members {
        // What is written in DNS is `localhost`.
        let url = format!("http://localhost:{}", member.peer_port);
        member.flags.push("--discovery-srv-name=blue".into());
        member.flags.push(format!("--initial-advertise-peer-urls={url}"));
        member.spawn();
    }
    members.iter_mut().for_each(Server::wait_ready);
    assert!(members[0].has_logged("got bootstrap from DNS for etcd-server"));
    runtime().block_on(async {
        let mut first = Client::connect(&members[0].endpoint()).await;
        first.put(b"met", b"yes").await.expect("a cluster of three takes writes");
        let mut last = Client::connect(&members[2].endpoint()).await;
        assert_eq!(last.scan(b"met").await.expect("and answers").count, 1);
    });
    // A member with a log needs no name server.
    std::fs::write(dir.path().join("resolv.conf"), "nameserver 127.0.0.1\n").expect("writable");
    members[1].restart();
}

#[test]
fn members_that_dns_does_not_name_do_not_start() {
    let dir = scratch();
    let stranger = Record::local("_etcd-server._tcp", 1);
    let Some(_server) = NameServer::start(dir.path(), vec![stranger]) else { return };
    let mut alone = member(&Kind::Quorate, dir.path(), "alone");
    alone.spawn();
    assert_eq!(alone.wait_exit().code(), Some(1), "{}", alone.output());
    let why = "cannot find local etcd member \\\"alone\\\" in SRV records";
    assert!(alone.output().contains(why), "{}", alone.output());

    // In the words of a real etcd.
    for kind in [Kind::Quorate, Kind::Etcd(etcd_program())] {
        let mut nobody = member(&kind, dir.path(), "nobody");
        nobody.flags.push("--discovery-srv-name=other".into());
        nobody.spawn();
        assert_eq!(nobody.wait_exit().code(), Some(1), "{kind:?}: {}", nobody.output());
        let service = "_etcd-server-ssl-other";
        let why =
            format!("error querying DNS SRV records for {service} lookup {service}._tcp.{DOMAIN}");
        assert!(nobody.output().contains(&why), "{kind:?}: {}", nobody.output());
        assert!(nobody.output().contains("no such host"), "{kind:?}: {}", nobody.output());
    }
}

/// A record of the wrong kind is worse than none.
#[test]
fn schemes_must_agree() {
    let dir = scratch();
    let mut server = member(&Kind::subject(), dir.path(), "m0");
    let record = Record::local("_etcd-server-ssl._tcp", server.peer_port);
    let Some(_server) = NameServer::start(dir.path(), vec![record]) else { return };
    server.spawn();
    assert_eq!(server.wait_exit().code(), Some(1), "{}", server.output());
    assert!(
        server.output().contains("has scheme mismatch with expected peer"),
        "{}",
        server.output()
    );
}
