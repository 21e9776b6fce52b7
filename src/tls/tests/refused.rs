//! What either end logs of a certificate that is refused: Go's words, which operators of etcd look for.

use std::time::Duration;

use rcgen::{CustomExtension, ExtendedKeyUsagePurpose};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier as _;

use super::super::files::{Contents, End};
use super::super::reason::{self, Peer};
use super::super::verify::Clients;
use super::*;

impl World {
    /// What the server logs of a client.
    async fn refusal(&self, settings: &Settings, shown: &Issued) -> String {
        let acceptor = self.acceptor(settings).await;
        let (near, far) = tokio::io::duplex(1 << 16);
        let from: SocketAddr = ([127, 0, 0, 1], 7).into();
        let dialer = Dialer::new(&self.env, &self.believing(Some(shown)), &[]);
        let dialing = dialer.secure("localhost", Box::new(near));
        // The client's end stays open until the server has decided.
        let (why, _client) = tokio::join!(acceptor.refusal(Box::new(far), Some(from)), dialing);
        why.expect("it is refused")
    }
}

#[tokio::test]
async fn a_server_logs_what_is_wrong_with_a_clients_certificate() {
    let world = World::new();
    let x509 = "tls: failed to verify certificate: x509:";
    let subject = |serial| Subject::new("alice", &[], serial);
    let issue = |by: &Authority, subject| by.issue(world.path(), "shown", subject);

    let servers_only = Subject { usages: &[ExtendedKeyUsagePurpose::ServerAuth], ..subject(2) };
    let why = world.refusal(&world.asking(), &issue(&world.ca, servers_only)).await;
    let wanted = format!("{x509} certificate specifies an incompatible key usage: invalid peer");
    assert!(why.starts_with(&wanted), "{why}");

    // The name is that of the authority, the key is not.
    let folder = TempDir::new().expect("a temporary folder");
    let namesake = Authority::new(folder.path(), "ca");
    let unknown = format!("{x509} certificate signed by unknown authority: invalid peer");
    let why = world.refusal(&world.asking(), &issue(&namesake, subject(3))).await;
    assert!(why.starts_with(&unknown), "{why}");

    let other = Authority::new(world.path(), "other");
    let a_ca = Subject { is_ca: true, ..subject(4) };
    let why = world.refusal(&world.asking(), &issue(&other, a_ca)).await;
    assert!(why.starts_with(&unknown), "{why}");
    assert!(why.contains("CaUsedAsEndEntity"), "{why}");

    let expired = Subject { expired: true, ..subject(5) };
    let why = world.refusal(&world.asking(), &issue(&world.ca, expired)).await;
    let wanted = format!("{x509} certificate has expired or is not yet valid: current time 2");
    assert!(why.starts_with(&wanted), "{why}");
    assert!(why.contains("Z is after 2001-01-01T00:00:00Z: invalid peer"), "{why}");

    let crl_file = world.path().join("revoked.crl");
    fs::write(&crl_file, world.ca.revoke(&[0x1092])).expect("writable");
    let settings = Settings { crl_file, ..world.asking() };
    let why = world.refusal(&settings, &issue(&world.ca, subject(0x1092))).await;
    assert_eq!(why, "transport: certificate serial 1092 revoked");

    let settings = Settings { allowed_cns: vec!["bob".into()], ..world.asking() };
    let why = world.refusal(&settings, &issue(&world.ca, subject(6))).await;
    assert_eq!(why, "client certificate authentication failed");

    let mut unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![0x05, 0x00]);
    unknown.set_criticality(true);
    let shown = world.ca.issue_with(world.path(), "shown", subject(7), |params| {
        params.custom_extensions.push(unknown);
    });
    // A client with our library would not show it.
    let disk = &*world.env.disk;
    let contents = Contents::read(disk, &world.asking(), End::Listener).expect("there");
    let provider = Arc::new(Protocol::default().provider());
    let clients = Clients::new(disk, &world.asking(), &contents, provider).expect("authorities");
    let shown = CertificateDer::from_pem_file(&shown.cert).expect("a certificate");
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
    let why = clients.verify_client_cert(&shown, &[], now).expect_err("it is refused");
    let why = reason::described(&why, Peer::Client);
    let wanted = format!("{x509} unhandled critical extension: invalid peer");
    assert!(why.starts_with(&wanted), "{why}");
}

/// Whatever is wrong with a server's certificate, its log has `remote error: tls: bad certificate`, as where
/// an etcd has dialed it; the dialer's has what it is.
#[tokio::test]
async fn a_server_that_is_not_believed_learns_of_a_bad_certificate() {
    let world = World::new();
    let other = Authority::new(world.path(), "other");
    let x509 = "tls: failed to verify certificate: x509:";
    let clients_only = &[ExtendedKeyUsagePurpose::ClientAuth];
    let cases: [(&Authority, Subject<'_>, &str); 6] = [
        (&other, Subject::new("s", LOCAL, 2), "certificate signed by unknown authority"),
        (
            &world.ca,
            Subject { expired: true, ..Subject::new("s", LOCAL, 3) },
            "certificate has expired or is not yet valid",
        ),
        (
            &world.ca,
            Subject { usages: clients_only, ..Subject::new("s", LOCAL, 4) },
            "certificate specifies an incompatible key usage",
        ),
        (
            &world.ca,
            Subject::new("s", &["a.example", "10.0.0.1", "b.example"], 5),
            "certificate is valid for a.example, b.example, not localhost",
        ),
        (
            &world.ca,
            Subject::new("localhost", &[], 6),
            "certificate is not valid for any names, but wanted to match localhost",
        ),
        (&other, Subject { is_ca: true, ..Subject::new("s", LOCAL, 7) }, "certificate signed by"),
    ];
    for (by, subject, wanted) in cases {
        let shown = by.issue(world.path(), "shown", subject);
        let (client, server) = dialed(&world, "localhost", &shown).await;
        assert!(client.starts_with(&format!("{x509} {wanted}")), "{client}");
        assert!(server.starts_with("remote error: tls: bad certificate: "), "{server}");
    }
    let shown = world.ca.issue(world.path(), "shown", Subject::new("s", &["localhost"], 8));
    let (client, _) = dialed(&world, "127.0.0.1", &shown).await;
    let wanted = "cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs";
    assert_eq!(client, format!("{x509} {wanted}"));
}

/// What both ends log when a server shows this certificate.
async fn dialed(world: &World, name: &str, shown: &Issued) -> (String, String) {
    let chain = CertificateDer::pem_file_iter(&shown.cert).expect("there");
    let chain = chain.collect::<Result<_, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(&shown.key).expect("a key");
    let provider = Arc::new(Protocol::default().provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair");
    let (near, far) = tokio::io::duplex(1 << 16);
    let dialer = Dialer::new(&world.env, &world.believing(None), &[]);
    let accepting = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(far);
    let (client, server) = tokio::join!(dialer.secure(name, Box::new(near)), accepting);
    let server = server.expect_err("it is refused");
    let client = client.err().expect("it is not believed").to_string();
    (client, reason::text(&server, Peer::Client))
}
