//! TLS and unix sockets as the real etcdctl, curl and openssl meet them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::etcdctl::{Etcdctl, Output, Release};
use super::pki::{Authority, Issued, Subject};
use super::process::{Cluster, Kind, Server, free_port, loudly, scratch};

const LOCAL: &[&str] = &["localhost", "127.0.0.1"];

/// A server whose client port is secured, and the clients that it accepts.
struct World {
    dir: tempfile::TempDir,
    ca: Authority,
    cert: Issued,
    server: Server,
}

impl World {
    /// Not started yet.
    fn new(flags: &[&str]) -> Self {
        let dir = scratch();
        let ca = Authority::new(dir.path(), "ca");
        let cert = ca.issue(dir.path(), "server", Subject::new("server", LOCAL, 1));
        let mut server = Server::single(Kind::Quorate, dir.path(), flags);
        server.flags.push(format!("--cert-file={}", cert.cert.display()));
        server.flags.push(format!("--key-file={}", cert.key.display()));
        server.secure_clients();
        Self { dir, ca, cert, server }
    }

    fn client(&self, cn: &str, serial: u64) -> Issued {
        self.ca.issue(self.dir.path(), cn, Subject::new(cn, &[], serial))
    }

    fn etcdctl(&self, args: &[&str], shown: Option<&Issued>) -> Output {
        etcdctl(&self.server.client_url(), args, &self.ca.file, shown)
    }

    fn lets_in(&self, shown: Option<&Issued>) -> bool {
        self.etcdctl(&["put", "k", "v"], shown).code == Some(0)
    }

    /// What `openssl s_client` with `arguments` finds out.
    fn openssl(&self, arguments: &[&str]) -> String {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &self.server.endpoint(), "-CAfile"])
            .arg(&self.ca.file)
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .output()
            .expect("openssl is installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

fn etcdctl(url: &str, args: &[&str], ca: &Path, shown: Option<&Issued>) -> Output {
    let mut line = vec![
        "--dial-timeout=2s".to_owned(),
        "--command-timeout=3s".to_owned(),
        format!("--cacert={}", ca.display()),
    ];
    if let Some(issued) = shown {
        line.push(format!("--cert={}", issued.cert.display()));
        line.push(format!("--key={}", issued.key.display()));
    }
    line.extend(args.iter().map(|&arg| arg.to_owned()));
    Etcdctl::new(&Release::real(), &[url.to_owned()]).run(&line, "")
}

fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl").args(["-sS", "--max-time", "20"]).args(arguments).output();
    let output = output.expect("curl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn has_openssl() -> bool {
    let found = Command::new("openssl").arg("version").output().is_ok();
    if !found {
        loudly("SKIPPED: what needs openssl");
    }
    found
}

#[test]
fn clients_are_served_over_tls() {
    let metrics_port = free_port();
    let mut world =
        World::new(&[&format!("--listen-metrics-urls=https://127.0.0.1:{metrics_port}")]);
    world.server.start();
    world.server.wait_log("serving client traffic securely");
    assert_eq!(world.etcdctl(&["put", "k", "v"], None).stdout, "OK\n");
    assert_eq!(world.etcdctl(&["get", "k"], None).stdout, "k\nv\n");
    let health = world.etcdctl(&["endpoint", "health"], None);
    assert_eq!(health.code, Some(0), "{health:?}");

    let (url, ca) = (world.server.client_url(), world.ca.file.display().to_string());
    let health = curl(&["--cacert", &ca, &format!("{url}/health")]);
    assert_eq!(health, "{\"health\":\"true\",\"reason\":\"\"}");
    let metrics = curl(&["--cacert", &ca, "--http1.1", &format!("{url}/metrics")]);
    assert!(metrics.contains("etcd_server_has_leader 1"), "{metrics}");

    let metrics = curl(&["--cacert", &ca, &format!("https://127.0.0.1:{metrics_port}/metrics")]);
    assert!(metrics.contains("etcd_server_has_leader 1"), "{metrics}");

    let plain = format!("http://{}", world.server.endpoint());
    let refused = etcdctl(&plain, &["get", "k"], &world.ca.file, None);
    assert_ne!(refused.code, Some(0), "nothing plain is served");
    let other = Authority::new(world.dir.path(), "other");
    let refused = etcdctl(&url, &["get", "k"], &other.file, None);
    assert_ne!(refused.code, Some(0), "the server is not believed");
}

/// As one moves from plain to secured clients.
#[test]
fn both_are_spoken_on_one_address() {
    let mut world = World::new(&[]);
    let (secured, plain) = (world.server.client_url(), world.server.endpoint());
    world.server.flags.push(format!("--listen-client-urls={secured},http://{plain}"));
    world.server.start();
    assert_eq!(world.etcdctl(&["put", "k", "v"], None).stdout, "OK\n");
    let etcdctl = Etcdctl::new(&Release::real(), &[format!("http://{plain}")]);
    assert_eq!(etcdctl.run(&["get", "k"], "").stdout, "k\nv\n");
    let health = curl(&[&format!("http://{plain}/health")]);
    assert_eq!(health, "{\"health\":\"true\",\"reason\":\"\"}");
}

#[test]
fn our_own_tool_speaks_tls() {
    let mut world = World::new(&["--client-cert-auth"]);
    world.server.flags.push(format!("--trusted-ca-file={}", world.ca.file.display()));
    world.server.start();
    let alice = world.client("alice", 2);
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_quoratectl"))
            .arg(format!("--endpoints={}", world.server.client_url()))
            .args(args)
            .output()
            .expect("quoratectl runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
    let (ca, cert) = (flag("cacert", &world.ca.file), flag("cert", &alice.cert));
    let key = flag("key", &alice.key);
    assert_eq!(run(&[&ca, &cert, &key, "put", "k", "v"]), (Some(0), "OK\n".into()));
    let blind = ["--insecure-skip-tls-verify", &cert, &key, "get", "k"];
    assert_eq!(run(&blind), (Some(0), "k\nv\n".into()));
    let (code, why) = run(&[&ca, "get", "k"]);
    assert_eq!(code, Some(1), "{why}");
    let (code, why) = run(&[&cert, &key, "get", "k"]);
    assert!(code == Some(1) && why.contains("UnknownIssuer"), "{why}");
}

#[test]
fn clients_must_show_a_certificate() {
    let mut world = World::new(&["--client-cert-auth"]);
    let crl = world.dir.path().join("revoked.crl");
    let (alice, bob) = (world.client("alice", 2), world.client("bob", 3));
    fs::write(&crl, world.ca.revoke(&[bob.serial])).expect("writable");
    world.server.flags.push(format!("--trusted-ca-file={}", world.ca.file.display()));
    world.server.flags.push(format!("--client-crl-file={}", crl.display()));
    world.server.start();
    assert!(world.lets_in(Some(&alice)));
    assert!(!world.lets_in(None));
    assert!(!world.lets_in(Some(&bob)), "revoked");
    world.server.wait_log("rejected connection on client endpoint");
    let other = Authority::new(world.dir.path(), "other");
    let mallory = other.issue(world.dir.path(), "mallory", Subject::new("alice", &[], 4));
    assert!(!world.lets_in(Some(&mallory)));
    fs::write(&crl, world.ca.revoke(&[alice.serial])).expect("writable");
    assert!(soon(|| world.lets_in(Some(&bob))), "a new list counts within a second");
    assert!(!world.lets_in(Some(&alice)));
}

/// Operators look for it in the log: the client sees an alert at most.
#[test]
fn clients_that_cannot_be_served_are_logged_with_the_reason() {
    if !has_openssl() {
        return;
    }
    let mut world = World::new(&["--client-cert-auth"]);
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tls/tests/testdata");
    let file = |name: &str| testdata.join(name).display().to_string();
    // Either vouches for itself.
    let mut trusted = fs::read(&world.ca.file).expect("it is there");
    for name in ["rsa1024.pem", "p521.pem"] {
        trusted.extend(fs::read(file(name)).expect("it is there"));
    }
    let authorities = world.dir.path().join("trusted.pem");
    fs::write(&authorities, trusted).expect("writable");
    world.server.flags.push(format!("--trusted-ca-file={}", authorities.display()));
    world.server.start();
    world.openssl(&["-servername", "no name"]);
    world.server.wait_log("tls: the server name (SNI) of the client is not a DNS name");
    let show = |name: &str| {
        let (cert, key) = (file(&format!("{name}.pem")), file(&format!("{name}.key")));
        // Else the tool itself refuses the small key.
        world.openssl(&["-cipher", "DEFAULT@SECLEVEL=0", "-cert", &cert, "-key", &key]);
    };
    show("rsa1024");
    show("p521");
    world.server.wait_log("RSA keys below 2048 bits are not served, and this one has 1024");
    world
        .server
        .wait_log("tls: client didn't provide a certificate (none is shown whose key is on");
}

#[test]
fn a_certificate_names_the_user() {
    let mut world = World::new(&["--client-cert-auth"]);
    world.server.flags.push(format!("--trusted-ca-file={}", world.ca.file.display()));
    world.server.start();
    let [root, alice, nobody] =
        [("root", 2), ("alice", 3), ("nobody", 4)].map(|(cn, serial)| world.client(cn, serial));
    let set_up: [&[&str]; 6] = [
        &["user", "add", "root:secret"],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "reader"],
        &["role", "grant-permission", "reader", "readwrite", "alice/", "alice0"],
        &["user", "add", "alice:secret"],
        &["user", "grant-role", "alice", "reader"],
    ];
    for line in set_up.into_iter().chain([&["auth", "enable"][..]]) {
        let output = world.etcdctl(line, Some(&root));
        assert_eq!(output.code, Some(0), "{line:?}: {output:?}");
    }
    let put = |key: &str, shown: &Issued, user: &[&str]| {
        let output = world.etcdctl(&[&["put", key, "v"], user].concat(), Some(shown));
        (output.code, output.stderr)
    };
    assert_eq!(put("alice/k", &alice, &[]).0, Some(0));
    assert_eq!(put("bob/k", &root, &[]).0, Some(0));
    let (code, why) = put("bob/k", &alice, &[]);
    assert!(code == Some(1) && why.contains("permission denied"), "{why}");
    let (code, why) = put("alice/k", &nobody, &[]);
    assert!(code == Some(1) && why.contains("permission denied"), "{why}");
    // A token decides over the user, whatever the certificate names.
    assert_eq!(put("bob/k", &alice, &["--user=root:secret"]).0, Some(0));
    // One that names no user is that of a user without roles: what needs no permission is allowed.
    let unnamed = world.client("", 5);
    let (code, why) = put("alice/k", &unnamed, &[]);
    assert!(code == Some(1) && why.contains("permission denied"), "{why}");
    let allowed: [&[&str]; 3] =
        [&["lease", "grant", "100"], &["member", "list"], &["alarm", "list"]];
    for line in allowed {
        let output = world.etcdctl(line, Some(&unnamed));
        assert_eq!(output.code, Some(0), "{line:?}: {output:?}");
    }
    let refused = world.etcdctl(&["user", "list"], Some(&unnamed));
    assert!(refused.stderr.contains("etcdserver: user name is empty"), "{refused:?}");
}

/// Whether a changed certificate counts in time: after a second, and what one attempt takes.
fn soon(counts: impl Fn() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        if counts() {
            return true;
        }
    }
    false
}

#[test]
fn certificates_are_replaced_without_a_restart() {
    let mut world = World::new(&[]);
    world.server.start();
    assert!(world.lets_in(None));
    let key = fs::read(&world.cert.key).expect("there");
    fs::write(&world.cert.key, "broken").expect("writable");
    assert!(soon(|| !world.lets_in(None)));
    world.server.wait_log("failed to create peer certificate");
    fs::write(&world.cert.key, key).expect("writable");
    assert!(soon(|| world.lets_in(None)), "mended");
    let other = Authority::new(world.dir.path(), "other");
    other.issue(world.dir.path(), "server", Subject::new("server", LOCAL, 5));
    assert!(soon(|| !world.lets_in(None)), "another authority's");
    world.ca = other;
    assert!(world.lets_in(None));
    world.server.wait_log("reloaded certificates");
}

#[test]
fn versions_and_suites_are_those_of_the_flags() {
    if !has_openssl() {
        return;
    }
    let suite = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
    let mut world = World::new(&["--tls-max-version=TLS1.2", &format!("--cipher-suites={suite}")]);
    world.server.start();
    let met = world.openssl(&["-tls1_2"]);
    assert!(met.contains("Cipher is ECDHE-ECDSA-AES256-GCM-SHA384"), "{met}");
    assert!(met.contains("Verify return code: 0 (ok)"), "{met}");
    assert!(!world.openssl(&["-tls1_3"]).contains("Cipher is TLS"), "no TLS 1.3");
    let met = world.openssl(&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"]);
    assert!(met.contains("Cipher is (NONE)"), "{met}");
    assert_eq!(world.etcdctl(&["put", "k", "v"], None).code, Some(0));

    let mut world = World::new(&["--tls-min-version=TLS1.3"]);
    world.server.start();
    assert!(world.openssl(&["-tls1_2"]).contains("Cipher is (NONE)"));
    let met = world.openssl(&["-tls1_3", "-alpn", "h2"]);
    assert!(met.contains("TLSv1.3") && met.contains("ALPN protocol: h2"), "{met}");
}

#[test]
fn a_member_makes_its_own_certificate() {
    let dir = scratch();
    let mut server = Server::single(Kind::Quorate, dir.path(), &["--auto-tls", "--peer-auto-tls"]);
    server.secure_clients();
    server.secure_peers();
    server.start();
    let cert = server.data_dir.join("fixtures/client/cert.pem");
    assert!(server.data_dir.join("fixtures/peer/key.pem").exists());
    let put = |server: &Server| etcdctl(&server.client_url(), &["put", "k", "v"], &cert, None);
    assert_eq!(put(&server).stdout, "OK\n");
    let before = fs::read(&cert).expect("made");
    server.restart();
    assert_eq!(put(&server).stdout, "OK\n");
    assert_eq!(fs::read(&cert).expect("there"), before, "kept");
}

#[test]
fn what_cannot_be_secured_is_not_started() {
    let refusal = |server: &mut Server| {
        server.spawn();
        assert_eq!(server.wait_exit().code(), Some(1));
        server.output()
    };
    let dir = scratch();
    let mut server = Server::single(Kind::Quorate, dir.path(), &[]);
    server.secure_clients();
    let url = server.client_url();
    let why = format!(
        "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme"
    );
    assert!(refusal(&mut server).contains(&why), "{}", server.output());
    let missing = dir.path().join("missing.crt");
    server.flags.push(format!("--cert-file={}", missing.display()));
    server.flags.push(format!("--key-file={}", missing.display()));
    let why = format!("open {}: no such file or directory", missing.display());
    assert!(refusal(&mut server).contains(&why), "{}", server.output());
}

/// Members whose peer traffic is secured by certificates from one authority.
struct Peers {
    dir: tempfile::TempDir,
    ca: Authority,
    cluster: Cluster,
}

impl Peers {
    fn new(size: usize, flags: &[&str]) -> Self {
        let dir = scratch();
        let ca = Authority::new(dir.path(), "ca");
        let mut cluster = Cluster::new(&Kind::Quorate, dir.path(), size, flags);
        cluster.secure_peers();
        for (number, server) in cluster.servers.iter_mut().enumerate() {
            let subject = Subject::new(&server.name, LOCAL, number as u64 + 1);
            let issued = ca.issue(dir.path(), &format!("peer-{}", server.name), subject);
            server.flags.push(format!("--peer-cert-file={}", issued.cert.display()));
            server.flags.push(format!("--peer-key-file={}", issued.key.display()));
            server.flags.push(format!("--peer-trusted-ca-file={}", ca.file.display()));
        }
        Self { dir, ca, cluster }
    }

    fn put(&self) -> bool {
        let output = Etcdctl::new(&Release::real(), &self.cluster.endpoints())
            .run(&["--command-timeout=3s", "put", "k", "v"], "");
        output.code == Some(0)
    }

    /// Whether a member has all of the others' news, which came over its peer connections.
    fn follows(&self, member: usize) -> bool {
        let endpoint = [self.cluster.servers[member].endpoint()];
        let output = Etcdctl::new(&Release::real(), &endpoint)
            .run(&["--command-timeout=2s", "get", "k"], "");
        output.code == Some(0) && output.stdout == "k\nv\n"
    }

    fn wait_follows(&self, member: usize) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.follows(member) {
            assert!(Instant::now() < deadline, "member {member} does not follow");
        }
    }
}

#[test]
fn members_talk_over_tls() {
    let mut peers = Peers::new(3, &["--peer-client-cert-auth", "--peer-cert-allowed-cn=m0,m1,m2"]);
    peers.cluster.start();
    assert!(peers.put());
    (0..3).for_each(|member| peers.wait_follows(member));
    let url = format!("{}/version", peers.cluster.servers[0].peer_url());
    let own = peers.ca.issue(peers.dir.path(), "own", Subject::new("m1", LOCAL, 9));
    let (ca, cert, key) = (&peers.ca.file, &own.cert, &own.key);
    let shown = |cert: &Path, key: &Path| {
        Command::new("curl")
            .args(["-sS", "--max-time", "20", &url, "--cacert"])
            .arg(ca)
            .arg("--cert")
            .arg(cert)
            .arg("--key")
            .arg(key)
            .output()
            .expect("curl is installed")
            .status
            .success()
    };
    assert!(shown(cert, key));
    let other = peers.ca.issue(peers.dir.path(), "mallory", Subject::new("mallory", LOCAL, 10));
    assert!(!shown(&other.cert, &other.key), "not in the list of names");
    let far = peers.ca.issue(peers.dir.path(), "far", Subject::new("m1", &["192.0.2.1"], 11));
    assert!(!shown(&far.cert, &far.key), "from another address than its certificate names");
}

/// The others connect to it all the same, so it may well take part; its own connections are refused
/// until its revocation is lifted.
#[test]
fn a_revoked_member_is_not_let_in() {
    let mut peers = Peers::new(3, &["--peer-client-cert-auth"]);
    let crl = peers.dir.path().join("revoked.crl");
    fs::write(&crl, peers.ca.revoke(&[3])).expect("writable");
    for server in &mut peers.cluster.servers[..2] {
        server.flags.push(format!("--peer-crl-file={}", crl.display()));
    }
    for server in &mut peers.cluster.servers {
        server.spawn();
    }
    peers.cluster.servers[0].wait_ready();
    peers.cluster.servers[0].wait_log("rejected connection on peer endpoint");
    assert!(peers.put());
    fs::write(&crl, peers.ca.revoke(&[])).expect("writable");
    (0..3).for_each(|member| peers.wait_follows(member));
}

#[test]
fn members_with_certificates_of_their_own_form_a_cluster() {
    let dir = scratch();
    let mut cluster = Cluster::new(&Kind::Quorate, dir.path(), 3, &["--peer-auto-tls"]);
    cluster.secure_peers();
    cluster.start();
    let put = Etcdctl::new(&Release::real(), &cluster.endpoints()).run(&["put", "k", "v"], "");
    assert_eq!(put.stdout, "OK\n", "{put:?}");
}

/// Each connects to the other; the answer of a member of 3.4 is another matter.
#[test]
fn an_etcd_and_we_believe_each_other() {
    for generated in [false, true] {
        let mut peers = Peers::new(2, &["--peer-client-cert-auth"]);
        if generated {
            peers.cluster.servers.iter_mut().for_each(|s| s.flags = vec!["--peer-auto-tls".into()]);
        }
        let (ours, etcd) = peers.cluster.servers.split_at_mut(1);
        etcd[0].kind = Kind::Etcd(Release::real().etcd);
        etcd[0].spawn();
        ours[0].spawn();
        let established =
            r#""established TCP streaming connection with remote peer","stream-reader"#;
        ours[0].wait_log(established);
        etcd[0].wait_log(established);
    }
}

#[test]
fn unix_sockets_are_served() {
    let dir = scratch();
    let mut server = Server::single(Kind::Quorate, dir.path(), &[]);
    let socket = dir.path().join("client.sock");
    // What a killed process has left.
    fs::write(&socket, "").expect("writable");
    let url = format!("unix://{}", socket.display());
    server.flags.push(format!("--listen-client-urls={},{url}", server.client_url()));
    server.flags.push(format!("--advertise-client-urls={url}"));
    server.start();
    let ctl = Etcdctl::new(&Release::real(), std::slice::from_ref(&url));
    assert_eq!(ctl.run(&["put", "k", "v"], "").stdout, "OK\n");
    let socket_text = socket.display().to_string();
    let health = curl(&["--unix-socket", &socket_text, "http://localhost/health"]);
    assert_eq!(health, "{\"health\":\"true\",\"reason\":\"\"}");
    let own = Command::new(env!("CARGO_BIN_EXE_quoratectl"))
        .args([&format!("--endpoints={url}"), "get", "k"])
        .output()
        .expect("quoratectl runs");
    assert_eq!(String::from_utf8_lossy(&own.stdout), "k\nv\n", "{own:?}");
    assert!(server.terminate().success());
    assert!(!socket.exists(), "the socket goes with the server");
}

/// The files are named `host:port`, in the folder in which the members were started.
#[test]
fn members_talk_over_unix_sockets() {
    let dir = scratch();
    let mut cluster = Cluster::new(&Kind::Quorate, dir.path(), 3, &[]);
    cluster.peers_over_unix(dir.path());
    cluster.start();
    let put = Etcdctl::new(&Release::real(), &cluster.endpoints()).run(&["put", "k", "v"], "");
    assert_eq!(put.stdout, "OK\n", "{put:?}");
    for server in &cluster.servers {
        assert!(dir.path().join(format!("localhost:{}", server.peer_port)).exists());
    }
}
