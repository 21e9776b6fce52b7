//! The certificate that a member makes for itself (`--auto-tls`, `--peer-auto-tls`): in a folder of its
//! data directory, kept through restarts, made anew when it has been taken away. As etcd's, but with the
//! curve P-256, because `ring` does not have P-521.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use tracing::{info, warn};

use super::{Generate, TlsError};
use crate::env::{Disk, Env, Open};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The files of the certificate and its key, made if one of them is not there.
pub(super) async fn make(env: &Env, wanted: &Generate) -> Result<(PathBuf, PathBuf), TlsError> {
    if wanted.years == 0 {
        let why = "selfSignedCertValidity is invalid,it should be greater than 0";
        return Err(TlsError::new(why));
    }
    let (disk, wanted) = (env.disk.clone(), wanted.clone());
    let mut serial = [0; 16];
    env.rt.fill_random(&mut serial);
    let now = env.wall();
    let made = env.blocking("make certificate", move || {
        let files = (wanted.dir.join("cert.pem"), wanted.dir.join("key.pem"));
        if disk.exists(&files.0)? && disk.exists(&files.1)? {
            return Ok(files);
        }
        let (cert, key) = generate(&wanted, now, serial).map_err(io::Error::other)?;
        disk.create_dir_all(&wanted.dir)?;
        write(&*disk, &files.0, &pem("CERTIFICATE", &cert))?;
        write(&*disk, &files.1, &pem("PRIVATE KEY", &key))?;
        disk.sync_dir(&wanted.dir)?;
        let (cert_file, key_file) = (files.0.display(), files.1.display());
        info!(path = %cert_file, "created cert file");
        info!(path = %key_file, "created key file");
        Ok(files)
    });
    made.await.map_err(|error: io::Error| TlsError::new(format!("making a certificate: {error}")))
}

/// Certificate and key (PKCS #8), both DER.
fn generate(
    wanted: &Generate,
    now: SystemTime,
    mut serial: [u8; 16],
) -> Result<(Vec<u8>, Vec<u8>), rcgen::Error> {
    // Positive, and not zero (RFC 5280, section 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x01;
    let years = u32::try_from(wanted.years).unwrap_or(u32::MAX);
    let until = YEAR.checked_mul(years).and_then(|validity| now.checked_add(validity));
    // The last moment that a certificate can name is in the year 9999.
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    let until = until.unwrap_or(last).min(last);

    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = now.into();
    params.not_after = until.into();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "etcd");
    for host in &wanted.hosts {
        params.subject_alt_names.push(match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.as_str().try_into()?),
        });
    }
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::CrlSign,
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    warn!(not_after = %params.not_after, "automatically generate certificates");
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.der().to_vec(), key.serialize_der()))
}

/// Replaces what a start that was cut short may have left.
fn write(disk: &dyn Disk, path: &Path, text: &str) -> io::Result<()> {
    if disk.exists(path)? {
        disk.remove(path)?;
    }
    let file = disk.open(path, Open::CreateNew)?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.sync_data()
}

/// A section of a PEM file (RFC 7468).
pub fn pem(label: &str, der: &[u8]) -> String {
    let base64 = BASE64.encode(der);
    let lines = base64.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line));
    let lines: Vec<_> = lines.collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
