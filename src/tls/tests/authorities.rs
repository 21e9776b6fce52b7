//! Which certificates of `--trusted-ca-file` others may be signed with, and which certificates clients and
//! servers may show: the rules of Go's `crypto/x509`, by which etcd decides.

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, date_time_ymd};

use super::*;

/// A certificate in the file of trusted ones, made from a CA's by a change.
struct Pinned {
    name: &'static str,
    change: fn(&mut CertificateParams),
    /// Whether a client is let in whose certificate it has signed.
    signs: bool,
    /// Whether a client is let in that shows it.
    vouches_for_itself: bool,
}

const PINNED: &[Pinned] = &[
    // The world's own authority is named "ca".
    Pinned { name: "another-ca", change: |_| {}, signs: true, vouches_for_itself: true },
    Pinned {
        name: "ca-without-key-usage",
        change: |params| params.key_usages.clear(),
        signs: true,
        vouches_for_itself: true,
    },
    Pinned {
        name: "ca-for-clients",
        change: |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
        signs: true,
        vouches_for_itself: true,
    },
    Pinned {
        name: "ca-for-anything",
        change: |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any],
        signs: true,
        vouches_for_itself: true,
    },
    Pinned {
        name: "no-ca",
        change: |params| params.is_ca = IsCa::ExplicitNoCa,
        signs: false,
        vouches_for_itself: true,
    },
    Pinned {
        name: "without-constraints",
        change: |params| params.is_ca = IsCa::NoCa,
        signs: false,
        vouches_for_itself: true,
    },
    Pinned {
        name: "key-signs-no-certificates",
        change: |params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature],
        signs: false,
        vouches_for_itself: true,
    },
    Pinned {
        name: "for-servers",
        change: |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
        signs: false,
        vouches_for_itself: false,
    },
    Pinned {
        name: "expired",
        change: |params| params.not_after = date_time_ymd(2001, 1, 1),
        signs: false,
        vouches_for_itself: false,
    },
    Pinned {
        name: "not-yet-valid",
        change: |params| params.not_before = date_time_ymd(4000, 1, 1),
        signs: false,
        vouches_for_itself: false,
    },
];

#[tokio::test]
async fn a_pinned_certificate_is_an_authority_only_if_it_is_a_cas() {
    let world = World::new();
    for pinned in PINNED {
        let authority = Authority::made(world.path(), pinned.name, |params| {
            params.not_before = date_time_ymd(2000, 1, 1);
            (pinned.change)(params);
        });
        let server = Settings { trusted_ca_file: authority.file.clone(), ..world.asking() };
        for is_ca in [false, true] {
            let subject = Subject { is_ca, ..Subject::new("root", &[], 7) };
            let signed = authority.issue(world.path(), "signed", subject);
            let let_in = world.lets_in(&server, &world.believing(Some(&signed))).await;
            assert_eq!(let_in, pinned.signs, "signed by {}, as a CA: {is_ca}", pinned.name);
        }
        let itself = authority.itself(world.path());
        let let_in = world.lets_in(&server, &world.believing(Some(&itself))).await;
        assert_eq!(let_in, pinned.vouches_for_itself, "{} itself", pinned.name);
    }
}

#[tokio::test]
async fn a_pinned_server_certificate_is_no_authority() {
    let world = World::new();
    let change = |params: &mut CertificateParams| params.is_ca = IsCa::ExplicitNoCa;
    let pinned = Authority::made(world.path(), "pinned", change);
    let forged = pinned.issue(world.path(), "forged", Subject::new("forged", LOCAL, 7));
    let mut server = Settings { cert_file: forged.cert, key_file: forged.key, ..world.asking() };
    (server.trusted_ca_file, server.client_cert_auth) = ("".into(), false);
    let client = Settings { trusted_ca_file: pinned.file.clone(), ..Settings::default() };
    assert!(!world.lets_in(&server, &client).await);
}

#[tokio::test]
async fn what_etcd_takes_of_clients_and_servers_is_taken() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, ServerAuth, TimeStamping};
    let world = World::new();
    let base = Subject::new("alice", LOCAL, 7);
    for (subject, client, server) in [
        (Subject { is_ca: true, ..base }, true, true),
        (Subject { is_ca: true, expired: true, ..base }, false, false),
        (Subject { usages: &[Any], ..base }, true, true),
        (Subject { usages: &[], ..base }, true, true),
        (Subject { is_ca: true, usages: &[Any], ..base }, true, true),
        (Subject { usages: &[TimeStamping, ClientAuth], ..base }, true, false),
        (Subject { is_ca: true, usages: &[ClientAuth], ..base }, true, false),
        (Subject { usages: &[ServerAuth], ..base }, false, true),
        (Subject { is_ca: true, usages: &[ServerAuth], ..base }, false, true),
        (Subject { usages: &[TimeStamping], ..base }, false, false),
    ] {
        let shown = world.ca.issue(world.path(), "shown", subject);
        let let_in = world.lets_in(&world.asking(), &world.believing(Some(&shown))).await;
        assert_eq!(let_in, client, "a client with {subject:?}");
        let mut settings =
            Settings { cert_file: shown.cert, key_file: shown.key, ..world.asking() };
        (settings.trusted_ca_file, settings.client_cert_auth) = ("".into(), false);
        let believed = world.lets_in(&settings, &world.believing(None)).await;
        assert_eq!(believed, server, "a server with {subject:?}");
    }
    let other = Authority::new(world.path(), "other");
    let subject = Subject { is_ca: true, ..base };
    let shown = other.issue(world.path(), "shown", subject);
    assert!(!world.lets_in(&world.asking(), &world.believing(Some(&shown))).await, "a stranger's");
    let namesake = tempfile::TempDir::new().expect("a temporary folder");
    let namesake = Authority::new(namesake.path(), "ca");
    let shown = namesake.issue(world.path(), "shown", subject);
    assert!(!world.lets_in(&world.asking(), &world.believing(Some(&shown))).await, "a namesake's");
}
