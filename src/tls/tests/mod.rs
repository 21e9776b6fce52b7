//! Handshakes between an acceptor and a dialer, in one process: which certificates either accepts, and
//! what a changed file does.

mod authorities;
mod pki;
mod refused;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, io};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::env::clocks::Ahead;
use crate::env::{Disk, File, Lock, Open};
use crate::limits::TLS_FILES_FRESH;
use pki::{Authority, Issued, Subject};

/// An authority, and a server's certificate for localhost in the same folder.
struct World {
    env: Env,
    clock: Arc<Ahead>,
    dir: TempDir,
    ca: Authority,
    server: Issued,
}

const LOCAL: &[&str] = &["localhost", "127.0.0.1"];

impl World {
    fn new() -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        let ca = Authority::new(dir.path(), "ca");
        let server = ca.issue(dir.path(), "server", Subject::new("server", LOCAL, 1));
        let (env, clock) = Ahead::moved();
        Self { env, clock, dir, ca, server }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn client(&self, cn: &str, hosts: &[&str], serial: u64) -> Issued {
        self.ca.issue(self.path(), cn, Subject::new(cn, hosts, serial))
    }

    /// A server that requires certificates.
    fn asking(&self) -> Settings {
        Settings {
            cert_file: self.server.cert.clone(),
            key_file: self.server.key.clone(),
            trusted_ca_file: self.ca.file.clone(),
            client_cert_auth: true,
            ..Settings::default()
        }
    }

    /// A client that trusts the authority.
    fn believing(&self, shown: Option<&Issued>) -> Settings {
        let (cert_file, key_file) =
            shown.map(|issued| (issued.cert.clone(), issued.key.clone())).unwrap_or_default();
        let trusted_ca_file = self.ca.file.clone();
        Settings { cert_file, key_file, trusted_ca_file, ..Settings::default() }
    }

    async fn acceptor(&self, settings: &Settings) -> Acceptor {
        Acceptor::new(&self.env, settings, Port::Peer).await.expect("good settings")
    }

    /// Connects both ends: the client's name as the server has it, and the outcome at the client.
    async fn meet(
        &self,
        acceptor: &Acceptor,
        client: &Settings,
    ) -> (Option<Option<String>>, Result<(), String>) {
        let (near, far) = tokio::io::duplex(1 << 16);
        let from: SocketAddr = ([127, 0, 0, 1], 7).into();
        let serving = async {
            let accepted = acceptor.accept(Box::new(far), Some(from)).await.ok()?;
            let mut conn = accepted.conn;
            conn.write_all(b"hello").await.ok()?;
            conn.shutdown().await.ok()?;
            Some(accepted.client.map(|name| name.0.to_string()))
        };
        let dialing = async {
            let dialer = Dialer::new(&self.env, client, &[]);
            let secured = dialer.secure("localhost", Box::new(near)).await;
            let mut conn = secured.map_err(|error| error.to_string())?;
            // In TLS 1.3 a client learns only now whether its certificate was taken.
            let mut heard = String::new();
            conn.read_to_string(&mut heard).await.map_err(|error| error.to_string())?;
            match heard.as_str() {
                "hello" => Ok(()),
                other => Err(format!("heard {other:?}")),
            }
        };
        tokio::join!(serving, dialing)
    }

    /// Writes a file and waits until it takes effect.
    fn write(&self, path: &Path, contents: impl AsRef<[u8]>) {
        fs::write(path, contents).expect("writable");
        self.clock.skip(TLS_FILES_FRESH);
    }

    async fn lets_in(&self, server: &Settings, client: &Settings) -> bool {
        let acceptor = self.acceptor(server).await;
        let (served, heard) = self.meet(&acceptor, client).await;
        assert_eq!(served.is_some(), heard.is_ok(), "{heard:?}");
        served.is_some()
    }
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate() {
    let world = World::new();
    let alice = world.client("alice", &[], 2);
    let acceptor = world.acceptor(&world.asking()).await;
    let (served, heard) = world.meet(&acceptor, &world.believing(Some(&alice))).await;
    assert_eq!((served, heard), (Some(Some("alice".into())), Ok(())));
    let (served, heard) = world.meet(&acceptor, &world.believing(None)).await;
    assert_eq!(served, None, "no certificate");
    assert!(heard.is_err());

    let other = Authority::new(world.path(), "other");
    let mallory = other.issue(world.path(), "mallory", Subject::new("alice", &[], 3));
    assert_eq!(world.meet(&acceptor, &world.believing(Some(&mallory))).await.0, None);
    let expired = Subject { expired: true, ..Subject::new("alice", &[], 4) };
    let expired = world.ca.issue(world.path(), "expired", expired);
    assert_eq!(world.meet(&acceptor, &world.believing(Some(&expired))).await.0, None);

    // A CA alone requires certificates, too, but names no user.
    let settings = Settings { client_cert_auth: false, ..world.asking() };
    let acceptor = world.acceptor(&settings).await;
    assert_eq!(world.meet(&acceptor, &world.believing(Some(&alice))).await.0, Some(None));
    assert_eq!(world.meet(&acceptor, &world.believing(None)).await.0, None);
    let settings = Settings { trusted_ca_file: "".into(), ..settings };
    assert!(world.lets_in(&settings, &world.believing(None)).await, "nobody is asked");
}

#[tokio::test]
async fn a_server_is_believed_by_its_names_and_its_issuer() {
    let world = World::new();
    let mut server = world.asking();
    (server.trusted_ca_file, server.client_cert_auth) = ("".into(), false);
    let believing = world.believing(None);
    assert!(world.lets_in(&server, &believing).await);
    assert!(!world.lets_in(&server, &Settings::default()).await, "not by the system's CAs");
    let blind = Settings { insecure_skip_verify: true, ..Settings::default() };
    assert!(world.lets_in(&server, &blind).await);
    let other = world.ca.issue(world.path(), "other", Subject::new("localhost", &["a.b"], 5));
    let misnamed = Settings { cert_file: other.cert, key_file: other.key, ..server.clone() };
    assert!(!world.lets_in(&misnamed, &believing).await, "a common name is no host");
    // The allowed names apply to servers as well, as in etcd.
    let cns = Settings { allowed_cns: vec!["server".into()], ..believing.clone() };
    assert!(world.lets_in(&server, &cns).await);
    let cns = Settings { allowed_cns: vec!["another".into()], ..believing.clone() };
    assert!(!world.lets_in(&server, &cns).await);
    // A server's own certificate may be the only one that a client trusts.
    let itself = Settings { trusted_ca_file: server.cert_file.clone(), ..believing };
    assert!(world.lets_in(&server, &itself).await);
}

#[tokio::test]
async fn only_allowed_names_come_in() {
    let world = World::new();
    let alice = world.believing(Some(&world.client("alice", &["127.0.0.1", "a.example"], 2)));
    let cns = |cns: &[&str]| Settings {
        allowed_cns: cns.iter().map(|&cn| cn.into()).collect(),
        ..world.asking()
    };
    assert!(world.lets_in(&cns(&["bob", "alice"]), &alice).await);
    assert!(!world.lets_in(&cns(&["bob", "Alice"]), &alice).await);
    let hosts = |host: &str| Settings { allowed_hostnames: vec![host.into()], ..world.asking() };
    assert!(world.lets_in(&hosts("a.example"), &alice).await);
    assert!(world.lets_in(&hosts("127.0.0.1"), &alice).await);
    assert!(!world.lets_in(&hosts("b.example"), &alice).await);
    let both = Settings { allowed_cns: vec!["a".into()], ..hosts("b") };
    let refused = Acceptor::new(&world.env, &both, Port::Peer).await.err().expect("contradiction");
    let why = "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[\"a\"], \
               hostnames=[\"b\"])";
    assert_eq!(refused.to_string(), why);
}

#[tokio::test]
async fn a_member_comes_from_where_its_certificate_says() {
    let world = World::new();
    let client = world.believing(Some(&world.client("m1", &["192.0.2.1"], 2)));
    assert!(!world.lets_in(&world.asking(), &client).await, "from 127.0.0.1");
    let lax = Settings { skip_client_san_verification: true, ..world.asking() };
    assert!(world.lets_in(&lax, &client).await);
    let client = world.believing(Some(&world.client("m2", &["localhost"], 3)));
    assert!(world.lets_in(&world.asking(), &client).await, "the name's address");
}

#[tokio::test]
async fn the_revoked_stay_outside() {
    let world = World::new();
    let (alice, bob) = (world.client("alice", &[], 0x80), world.client("bob", &[], 3));
    let crl_file = world.path().join("revoked.crl");
    fs::write(&crl_file, world.ca.revoke(&[alice.serial])).expect("writable");
    let settings = Settings { crl_file: crl_file.clone(), ..world.asking() };
    let acceptor = world.acceptor(&settings).await;
    let lets_in =
        async |who: &Issued| world.meet(&acceptor, &world.believing(Some(who))).await.0.is_some();
    assert!(!lets_in(&alice).await);
    assert!(lets_in(&bob).await);
    // A new list takes effect; PEM is read, too.
    world.write(&crl_file, pem("X509 CRL", &world.ca.revoke(&[bob.serial])));
    assert!(lets_in(&alice).await);
    assert!(!lets_in(&bob).await);
    world.write(&crl_file, "no list");
    assert!(!lets_in(&alice).await, "it may be revoked");
    fs::remove_file(&crl_file).expect("there");
    world.clock.skip(TLS_FILES_FRESH);
    assert!(!lets_in(&alice).await);
    world.write(&crl_file, world.ca.revoke(&[]));
    assert!(lets_in(&bob).await);
}

#[tokio::test]
async fn changed_files_count_within_a_second() {
    let world = World::new();
    let alice = world.believing(Some(&world.client("alice", &[], 2)));
    let acceptor = world.acceptor(&world.asking()).await;
    let lets_in = async || {
        let (served, heard) = world.meet(&acceptor, &alice).await;
        served.is_some() && heard.is_ok()
    };
    assert!(lets_in().await);
    let (cert, key) = (fs::read(&world.server.cert), fs::read(&world.server.key));
    world.write(&world.server.key, "broken");
    assert!(!lets_in().await);
    world.write(&world.server.key, key.expect("there"));
    assert!(lets_in().await);
    // A certificate of another authority is presented as soon as it is in the file.
    let other = Authority::new(world.path(), "other");
    other.issue(world.path(), "server", Subject::new("server", LOCAL, 9));
    world.clock.skip(TLS_FILES_FRESH);
    assert!(!lets_in().await, "the client does not believe the other authority");
    world.write(&world.server.cert, cert.expect("there"));
    assert!(!lets_in().await, "the key is another's");
    world.ca.issue(world.path(), "server", Subject::new("server", LOCAL, 10));
    world.clock.skip(TLS_FILES_FRESH);
    assert!(lets_in().await);
    // The CA of clients, too.
    let pem = fs::read(&world.ca.file).expect("there");
    world.write(&world.ca.file, fs::read(&other.file).expect("there"));
    let shown = world.path().join("shown.pem");
    world.write(&shown, &pem);
    let alice = Settings { trusted_ca_file: shown, ..alice.clone() };
    assert_eq!(world.meet(&acceptor, &alice).await.0, None);
    world.write(&world.ca.file, pem);
    assert!(world.meet(&acceptor, &alice).await.0.is_some());
}

/// The files are not read for each handshake: a client with many handshakes would delay the others.
#[tokio::test]
async fn handshakes_read_no_files_of_their_own() {
    let world = World::new();
    let alice = world.believing(Some(&world.client("alice", &[], 2)));
    let reads = Arc::new(Reads { disk: world.env.disk.clone(), opened: AtomicUsize::new(0) });
    let env = Env { disk: reads.clone(), ..world.env.clone() };
    let began = env.now();
    let acceptor = Acceptor::new(&env, &world.asking(), Port::Peer).await.expect("good settings");
    for _ in 0..100 {
        assert!(world.meet(&acceptor, &alice).await.0.is_some());
    }
    // A certificate, its key and a CA at each comparison.
    let opened = reads.opened.load(Ordering::Relaxed);
    let comparisons = 2 + (env.now() - began).as_millis() / TLS_FILES_FRESH.as_millis();
    assert!((1..=3 * comparisons).contains(&(opened as u128)), "{opened} files");
    world.clock.skip(TLS_FILES_FRESH);
    assert!(world.meet(&acceptor, &alice).await.0.is_some());
    assert!(reads.opened.load(Ordering::Relaxed) > opened, "a change is found");
}

/// Counts the files that are opened.
struct Reads {
    disk: Arc<dyn Disk>,
    opened: AtomicUsize,
}

impl Disk for Reads {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.disk.open(path, how)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.disk.lock(path)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.disk.free_bytes(dir)
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    let world = World::new();
    let refused = async |settings: Settings| {
        let refused = Acceptor::new(&world.env, &settings, Port::Client).await;
        refused.err().expect("refused").to_string()
    };
    let cert = world.server.cert.display().to_string();
    assert_eq!(
        refused(Settings { key_file: "".into(), ..world.asking() }).await,
        format!("KeyFile and CertFile must both be present[key: , cert: {cert}]")
    );
    assert_eq!(
        refused(Settings { client_cert_file: "c".into(), ..world.asking() }).await,
        "ClientKeyFile and ClientCertFile must both be present or both absent: key: , cert: c]"
    );
    let missing = world.path().join("missing");
    assert_eq!(
        refused(Settings { cert_file: missing.clone(), ..world.asking() }).await,
        format!("open {}: no such file or directory", missing.display())
    );
    let other = world.client("other", &[], 2);
    assert_eq!(
        refused(Settings { key_file: other.key, ..world.asking() }).await,
        format!("{cert}: tls: private key does not match public key")
    );
    let unserved = [
        ("rsa1024", "RSA keys below 2048 bits are not served, and this one has 1024"),
        ("p521", "keys on the curve P-521 are not served"),
    ];
    for (name, why) in unserved {
        let file = |end: &str| {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tls/tests/testdata");
            folder.join(format!("{name}.{end}"))
        };
        let (cert_file, key_file) = (file("pem"), file("key"));
        let wanted = format!("{}: {why}", cert_file.display());
        assert_eq!(refused(Settings { cert_file, key_file, ..world.asking() }).await, wanted);
    }
    let key = world.server.key.clone();
    assert_eq!(
        refused(Settings { cert_file: key.clone(), ..world.asking() }).await,
        format!("{}: tls: failed to find any PEM data in certificate input", key.display())
    );
}

#[tokio::test]
async fn versions_and_suites_must_be_shared() {
    let world = World::new();
    let speaking = |min: &str, max: &str, suites: &[&str], settings: Settings| {
        let suites: Vec<String> = suites.iter().map(|&suite| suite.to_owned()).collect();
        let protocol = Protocol::parse(min, max, &suites).expect("known to etcd");
        Settings { protocol, ..settings }
    };
    let server = Settings { client_cert_auth: false, trusted_ca_file: "".into(), ..world.asking() };
    let client = world.believing(None);
    let new = speaking("TLS1.3", "", &[], server.clone());
    let old = speaking("", "TLS1.2", &[], client.clone());
    assert!(!world.lets_in(&new, &old).await);
    assert!(world.lets_in(&new, &client).await);
    assert!(world.lets_in(&server, &old).await);
    let suite = ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"];
    let one = speaking("TLS1.2", "TLS1.2", &suite, server);
    assert!(world.lets_in(&one, &old).await);
    let other = speaking("", "", &["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"], client);
    assert!(!world.lets_in(&one, &other).await);
}

#[tokio::test]
async fn a_certificate_of_ones_own_is_kept() {
    let world = World::new();
    let generate = |years| Settings {
        generate: Some(Generate {
            dir: world.path().join("data/fixtures/client"),
            hosts: vec!["localhost".into(), "127.0.0.1".into()],
            years,
        }),
        trusted_ca_file: world.ca.file.clone(),
        client_cert_auth: true,
        ..Settings::default()
    };
    let none = generate(0).prepare(&world.env).await.expect_err("for no time at all");
    assert_eq!(none.to_string(), "selfSignedCertValidity is invalid,it should be greater than 0");
    let mut server = generate(1);
    server.prepare(&world.env).await.expect("a certificate");
    assert!(!server.client_cert_auth, "as etcd leaves it");
    let made = fs::read(&server.cert_file).expect("made");
    assert!(world.lets_in(&server, &server).await, "members believe each other unseen");
    let itself = Settings { trusted_ca_file: server.cert_file.clone(), ..Settings::default() };
    assert!(world.lets_in(&server, &itself).await, "etcdctl --cacert .../cert.pem");
    assert!(!world.lets_in(&server, &Settings::default()).await);
    let mut again = generate(1);
    again.prepare(&world.env).await.expect("a certificate");
    assert_eq!(fs::read(&again.cert_file).expect("there"), made);
    fs::remove_file(&again.key_file).expect("there");
    generate(1).prepare(&world.env).await.expect("another certificate");
    assert_ne!(fs::read(&again.cert_file).expect("there"), made);
}
