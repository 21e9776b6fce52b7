//! Facts in a certificate beside its chain, and in a revocation list (RFC 5280). Chains are built and
//! judged by `verify` and `path`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::asn1_rs::Any;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::X509Version;

use super::TlsError;

/// What a certificate is shown as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    Server,
    Client,
}

/// A certificate without anything behind it.
pub(super) fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    rest.is_empty().then_some(certificate)
}

/// The public key in the first certificate of a PEM file, as PEM; `None` where there is no certificate.
pub fn public_key(file: &[u8]) -> Option<String> {
    let der = CertificateDer::from_pem_slice(file).ok()?;
    Some(super::pem("PUBLIC KEY", parse(&der)?.public_key().raw))
}

/// Why the TLS library cannot sign with the key of this certificate, if that is so.
pub(super) fn unserved_key(der: &[u8]) -> Option<String> {
    const RSA_BITS_MIN: usize = 2048;
    const P521: &str = "1.3.132.0.35";
    let key = parse(der)?.tbs_certificate.subject_pki;
    match key.parsed().ok()? {
        PublicKey::RSA(rsa) if rsa.key_size() < RSA_BITS_MIN => Some(format!(
            "RSA keys below {RSA_BITS_MIN} bits are not served, and this one has {}",
            rsa.key_size()
        )),
        PublicKey::EC(_) => {
            let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
            (curve.to_id_string() == P521).then(|| "keys on the curve P-521 are not served".into())
        }
        _ => None,
    }
}

/// The names of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub common: Option<String>,
    pub addresses: Vec<IpAddr>,
    pub dns: Vec<String>,
}

impl Names {
    /// `None` for what is no certificate.
    pub fn of(der: &[u8]) -> Option<Self> {
        let certificate = parse(der)?;
        // The last one, as Go has it.
        let common = certificate.subject().iter_common_name().last();
        let common = common.and_then(|name| text(name.attr_value()));
        let mut names = Self { common, ..Self::default() };
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        for name in alternatives.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => names.dns.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => names.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        Some(names)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The serial number without leading zeros.
pub(super) fn serial(der: &[u8]) -> Option<Vec<u8>> {
    parse(der).map(|certificate| stripped(certificate.raw_serial()))
}

/// Whether a certificate that is trusted itself, and needs no chain, is valid now and made for `usage`.
pub(super) fn is_usable(der: &[u8], now: UnixTime, usage: Usage) -> bool {
    let certificate = parse(der);
    certificate.is_some_and(|found| is_in_time(&found, now) && is_for(&found, usage))
}

pub(super) fn is_in_time(certificate: &X509Certificate<'_>, now: UnixTime) -> bool {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp()
}

/// Whether its extended key usage, if it has one, covers `usage`.
pub(super) fn is_for(certificate: &X509Certificate<'_>, usage: Usage) -> bool {
    match certificate.extended_key_usage() {
        Ok(None) => true,
        Ok(Some(usages)) => {
            let wanted = match usage {
                Usage::Server => usages.value.server_auth,
                Usage::Client => usages.value.client_auth,
            };
            wanted || usages.value.any
        }
        Err(_) => false,
    }
}

/// Whether other certificates may be signed with its key, by Go's rules: it is a CA, and the usage of its
/// key, if it has one, includes it. The first version of X.509 has neither.
pub(super) fn is_authority(certificate: &X509Certificate<'_>) -> bool {
    let is_ca = match certificate.basic_constraints() {
        Ok(Some(constraints)) => constraints.value.ca,
        Ok(None) => certificate.version() == X509Version::V1,
        Err(_) => false,
    };
    let signs = match certificate.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    is_ca && signs
}

/// The serial numbers in a revocation list (DER). Its issuer and its validity are not checked, as in
/// etcd.
pub(super) fn revoked(der: &[u8]) -> Result<BTreeSet<Vec<u8>>, TlsError> {
    let list = CertificateRevocationList::from_der(der).ok().filter(|(rest, _)| rest.is_empty());
    let (_, list) = list.ok_or_else(|| TlsError::new("x509: malformed crl"))?;
    Ok(list.iter_revoked_certificates().map(|entry| stripped(entry.raw_serial())).collect())
}

fn stripped(serial: &[u8]) -> Vec<u8> {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    serial[zeros..].to_vec()
}

/// A string in one of X.509's kinds.
fn text(value: &Any<'_>) -> Option<String> {
    let bytes = value.data;
    match value.tag().0 {
        // UTF8, Numeric, Printable, IA5.
        0x0c | 0x12 | 0x13 | 0x16 => String::from_utf8(bytes.to_vec()).ok(),
        // T61, which is read as Latin-1.
        0x14 => Some(bytes.iter().map(|byte| char::from(*byte)).collect()),
        // BMP.
        0x1e => {
            let (pairs, rest) = bytes.as_chunks::<2>();
            let units: Vec<u16> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
            String::from_utf16(&units).ok().filter(|_| rest.is_empty())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use x509_parser::oid_registry::asn1_rs::Tag;

    use super::*;

    #[test]
    fn strings_come_in_many_kinds() {
        let text = |tag, bytes: &[u8]| text(&Any::from_tag_and_data(Tag(tag), bytes));
        assert_eq!(text(0x0c, "ä".as_bytes()).as_deref(), Some("ä"));
        assert_eq!(text(0x14, &[0xe4]).as_deref(), Some("ä"));
        assert_eq!(text(0x1e, &[0, 0xe4]).as_deref(), Some("ä"));
        assert_eq!(text(0x1e, &[0]), None);
        assert_eq!(text(0x02, b"1"), None);
    }

    #[test]
    fn what_is_no_certificate_has_no_names() {
        for bad in [&b""[..], b"\x30\x00", b"\x30\x02\x30\x00", b"junk"] {
            assert_eq!(Names::of(bad), None);
            assert_eq!(serial(bad), None);
            assert!(revoked(bad).is_err());
        }
    }
}
