//! Clusters of releases that cannot be followed: a server leaves them alone.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::process::{Kind, Server, scratch};

/// A peer port that reports a cluster of this version, with itself and the member at `joining`; and the paths
/// that were called there. It serves until the process ends.
fn peer(version: &'static str, joining: String) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let members = format!(
        r#"[{{"id":1,"peerURLs":["{url}"],"name":"old","clientURLs":["{url}"]}},{{"id":2,"peerURLs":["{joining}"]}}]"#
    );
    let (called, calls) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut lines = BufReader::new(stream.try_clone().expect("a handle")).lines();
            let Some(Ok(request)) = lines.next() else { continue };
            // The head ends with an empty line; no call here has a body.
            lines
                .take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty()))
                .for_each(drop);
            let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
            let body = match &*path {
                "/members" => members.clone(),
                "/version" => {
                    format!(r#"{{"etcdserver":"{version}","etcdcluster":"{version}"}}"#)
                }
                "/downgrade/enabled" => "false".to_owned(),
                _ => String::new(),
            };
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-ID: 77\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            // A caller that has hung up has its answer.
            let _ = stream.write_all(answer.as_bytes());
            let _ = called.send(path);
        }
    });
    (url, calls)
}

/// It would end at the first entry that it cannot apply, and take a voter from the cluster with it.
#[test]
fn clusters_that_cannot_be_followed_are_left_alone() {
    for (version, remedy) in [
        ("3.3.0", "upgrade it to 3.5 first"),
        ("3.4.0", "upgrade it to 3.5 first"),
        ("3.9.0", "a newer release of Quorate is needed"),
    ] {
        let dir = scratch();
        let mut server = Server::joining(Kind::Quorate, dir.path(), "new");
        let (url, calls) = peer(version, server.peer_url());
        server.join([("old".to_owned(), vec![url])].into_iter());
        server.spawn();
        assert_eq!(server.wait_exit().code(), Some(1), "{version}");
        let why = format!("by member 1 its version is {version}");
        assert!(server.has_logged(&why) && server.has_logged(remedy), "{}", server.output());
        assert!(server.has_logged("\\\"member remove 2\\\" takes it out again"));
        let about_itself = ["/members", "/version", "/downgrade/enabled"];
        let called: Vec<String> = calls.try_iter().collect();
        assert!(called.contains(&"/version".to_owned()), "{version}: {called:?}");
        let other = called.iter().find(|path| !about_itself.contains(&path.as_str()));
        assert_eq!(other, None, "{version}: no message, no vote");
        assert!(!server.data_dir.join("member/wal").exists(), "{version}: nothing was begun");
    }
}
