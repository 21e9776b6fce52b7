//! Authorities, certificates and revocation lists for tests, generated when needed and written as PEM files
//! for servers and clients.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

use super::pem;

/// A CA.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub file: PathBuf,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Issued {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub serial: u64,
}

/// The contents of a certificate.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub cn: &'a str,
    pub hosts: &'a [&'a str],
    pub serial: u64,
    pub expired: bool,
    pub is_ca: bool,
    pub usages: &'a [ExtendedKeyUsagePurpose],
}

const BOTH: &[ExtendedKeyUsagePurpose] =
    &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];

impl<'a> Subject<'a> {
    pub fn new(cn: &'a str, hosts: &'a [&'a str], serial: u64) -> Self {
        Self { cn, hosts, serial, expired: false, is_ca: false, usages: BOTH }
    }
}

impl Authority {
    /// A CA whose certificate lies in `dir`.
    pub fn new(dir: &Path, name: &str) -> Self {
        Self::made(dir, name, |_| {})
    }

    /// The same, or what `change` makes of it.
    pub fn made(dir: &Path, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let file = dir.join(format!("{name}.pem"));
        fs::write(&file, pem("CERTIFICATE", issuer.der())).expect("writable");
        Self { issuer, file }
    }

    /// Its own certificate and key, as it would show them.
    pub fn itself(&self, dir: &Path) -> Issued {
        let key = dir.join("itself.key");
        fs::write(&key, pem("PRIVATE KEY", &self.issuer.key().serialize_der())).expect("writable");
        Issued { cert: self.file.clone(), key, serial: 0 }
    }

    /// Issues a certificate for servers and clients alike; it replaces one of the same name in `dir`.
    pub fn issue(&self, dir: &Path, name: &str, subject: Subject<'_>) -> Issued {
        self.issue_with(dir, name, subject, |_| {})
    }

    /// The same, or what `change` makes of it.
    pub fn issue_with(
        &self,
        dir: &Path,
        name: &str,
        subject: Subject<'_>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(subject.cn);
        params.serial_number = Some(SerialNumber::from(subject.serial));
        params.not_after = date_time_ymd(if subject.expired { 2001 } else { 4096 }, 1, 1);
        params.not_before = date_time_ymd(2000, 1, 1);
        for host in subject.hosts {
            params.subject_alt_names.push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*host).try_into().expect("a name")),
            });
        }
        params.extended_key_usages = subject.usages.to_vec();
        if subject.is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let issued = Issued {
            cert: dir.join(format!("{name}.crt")),
            key: dir.join(format!("{name}.key")),
            serial: subject.serial,
        };
        fs::write(&issued.cert, pem("CERTIFICATE", certificate.der())).expect("writable");
        fs::write(&issued.key, pem("PRIVATE KEY", &key.serialize_der())).expect("writable");
        issued
    }

    /// A revocation list, DER.
    pub fn revoke(&self, serials: &[u64]) -> Vec<u8> {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(4096, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("a list").der().to_vec()
    }
}

fn named(cn: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if !cn.is_empty() {
        name.push(DnType::CommonName, cn);
    }
    name
}
