//! The certificates of a run in which everything is TLS: its authority, the files on the disks of its hosts
//! that members and clients read, and certificates that must be rejected. Which certificates a server
//! accepts is decided elsewhere. Keys come from the run's randomness, as everything does that a simulated
//! process draws from the system.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate::plant;
use quorate::tls::{self, pem};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

use crate::world::World;

/// Where a host keeps them.
pub const FOLDER: &str = "/certificates";
/// The serial number that the revocation list names.
const REVOKED: u64 = 1;
/// A serial number that no certificate has.
const NEVER_ISSUED: u64 = u64::MAX;

/// The TLS settings of members and clients, the same on every host.
pub fn settings() -> tls::Settings {
    let file = |name| PathBuf::from(path(name));
    tls::Settings {
        cert_file: file(CERT),
        key_file: file(KEY),
        trusted_ca_file: file(AUTHORITY),
        crl_file: file(REVOCATIONS),
        client_cert_auth: true,
        ..tls::Settings::default()
    }
}

const CERT: &str = "cert.pem";
const KEY: &str = "key.pem";
const AUTHORITY: &str = "authority.pem";
const REVOCATIONS: &str = "revoked.crl";

fn path(name: &str) -> String {
    format!("{FOLDER}/{name}")
}

/// All of a run.
pub struct Certificates {
    world: World,
    authority: Authority,
    /// Of the same name, and trusted by no host.
    impostor: Authority,
    state: Mutex<State>,
}

struct State {
    serial: u64,
    /// Planted fault: pairs that a host takes up at its next start.
    late: BTreeMap<String, Pair>,
    /// What has lain on each host's disk, the newest last.
    laid: BTreeMap<String, Vec<Laid>>,
}

struct Laid {
    since: Duration,
    cert: Vec<u8>,
}

/// A certificate and its key, both DER.
pub struct Pair {
    pub cert: Vec<u8>,
    pub key: Vec<u8>,
}

/// Why a certificate must be rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The authority is another one.
    Foreign,
    Expired,
    Revoked,
}

impl Certificates {
    pub fn new(world: &World) -> Self {
        Self {
            world: world.clone(),
            authority: Authority::new(),
            impostor: Authority::new(),
            state: Mutex::new(State {
                serial: REVOKED,
                late: BTreeMap::new(),
                laid: BTreeMap::new(),
            }),
        }
    }

    /// Gives a host what it has to have on its disk.
    pub fn furnish(&self, host: &str) {
        let mut trusted = pem("CERTIFICATE", self.authority.0.der());
        if plant::CLIENT_CERT_UNCHECKED.is_planted() {
            trusted += &pem("CERTIFICATE", self.impostor.0.der());
        }
        self.put(host, AUTHORITY, &trusted);
        let nobody = plant::REVOCATIONS_IGNORED.is_planted();
        let revoked = if nobody { NEVER_ISSUED } else { REVOKED };
        self.put(host, REVOCATIONS, &pem("X509 CRL", &self.authority.revoke(revoked)));
        let pair = self.issue(host, None);
        self.lay(host, &pair);
    }

    /// A new certificate and key in the place of those that a host has, both at one moment.
    pub fn rotate(&self, host: &str) {
        let pair = self.issue(host, None);
        if !plant::OLD_CERTIFICATE_SERVED.is_planted() {
            return self.lay(host, &pair);
        }
        self.note(host, &pair);
        self.state().late.insert(host.to_owned(), pair);
    }

    /// A process starts on a host.
    pub fn take_up(&self, host: &str) {
        let late = self.state().late.remove(host);
        late.into_iter().for_each(|pair| self.write(host, &pair));
    }

    fn lay(&self, host: &str, pair: &Pair) {
        self.write(host, pair);
        self.note(host, pair);
    }

    fn write(&self, host: &str, Pair { cert, key }: &Pair) {
        self.put(host, CERT, &pem("CERTIFICATE", cert));
        self.put(host, KEY, &pem("PRIVATE KEY", key));
    }

    fn note(&self, host: &str, pair: &Pair) {
        let laid = Laid { since: self.world.elapsed(), cert: pair.cert.clone() };
        self.state().laid.entry(host.to_owned()).or_default().push(laid);
    }

    fn put(&self, host: &str, name: &str, text: &str) {
        let put = self.world.disk(host).put(path(name), text.as_bytes());
        put.expect("there is a folder of that name, or nothing");
    }

    /// The certificates that have lain on a host's disk at some time since `moment`.
    pub fn since(&self, host: &str, moment: Duration) -> Vec<Vec<u8>> {
        let state = self.state();
        let laid = state.laid.get(host).map_or(&[][..], Vec::as_slice);
        let newer = laid.partition_point(|laid| laid.since <= moment);
        laid[newer.saturating_sub(1)..].iter().map(|laid| laid.cert.clone()).collect()
    }

    /// The certificate, DER, of the trusted authority.
    pub fn authority(&self) -> Vec<u8> {
        self.authority.0.der().to_vec()
    }

    /// A certificate for servers and clients alike that names one host.
    pub fn issue(&self, host: &str, flaw: Option<Flaw>) -> Pair {
        let serial = match flaw {
            Some(Flaw::Revoked) => REVOKED,
            _ => {
                let mut state = self.state();
                state.serial += 1;
                state.serial
            }
        };
        let authority = match flaw {
            Some(Flaw::Foreign) => &self.impostor,
            _ => &self.authority,
        };
        authority.issue(host, serial, flaw == Some(Flaw::Expired))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// Without a common name: no certificate stands for a user.
    fn issue(&self, host: &str, serial: u64, expired: bool) -> Pair {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.serial_number = Some(SerialNumber::from(serial));
        // Simulated clocks show some time in 2022.
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(if expired { 2001 } else { 4096 }, 1, 1);
        let name = host.try_into().expect("a host's name");
        params.subject_alt_names = vec![rcgen::SanType::DnsName(name)];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        Pair { cert: cert.der().to_vec(), key: key.serialize_der() }
    }

    /// A revocation list with one serial number, DER.
    fn revoke(&self, serial: u64) -> Vec<u8> {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(4096, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).expect("a list").der().to_vec()
    }
}
