//! Trust: webpki's chains with Go's rules for authorities, and etcd's further rules around them.
//!
//! A certificate of `--trusted-ca-file` is an authority if it is a CA's, its key may sign certificates and
//! its usage fits; it counts while it is valid. Every certificate of that file also vouches for itself, CA
//! or not, as in Go: a member's own certificate may be the only one there.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use webpki::{
    EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, KeyUsage,
    RequiredEkuNotFoundContext, VerifiedPath,
};

use super::certificate::{self, Names, Usage};
use super::files::{self, Contents};
use super::{Settings, TlsError, path};
use crate::env::Disk;

/// The authorities, and the certificates that are trusted as they are.
struct Trusted {
    usage: Usage,
    /// As webpki has them, and their certificates in the same order.
    anchors: Vec<TrustAnchor<'static>>,
    authorities: Vec<CertificateDer<'static>>,
    themselves: Vec<CertificateDer<'static>>,
}

impl Trusted {
    fn new(disk: &dyn Disk, contents: &Contents, usage: Usage) -> Result<Self, TlsError> {
        let (anchors, authorities, themselves) = (Vec::new(), Vec::new(), Vec::new());
        let mut trusted = Self { usage, anchors, authorities, themselves };
        let Some(pem) = &contents.ca else {
            for authority in files::system_authorities(disk) {
                // One that cannot be used does not matter; the rest count.
                let _ = trusted.add(authority);
            }
            return Ok(trusted);
        };
        for given in files::certificates(pem)? {
            trusted.themselves.push(given.clone());
            trusted.add(given).map_err(|error| TlsError::new(format!("trusted CA: {error}")))?;
        }
        Ok(trusted)
    }

    /// Adds an authority, if it is one.
    fn add(&mut self, der: CertificateDer<'static>) -> Result<(), webpki::Error> {
        let anchor = webpki::anchor_from_trusted_cert(&der)?.to_owned();
        let is_authority = certificate::parse(&der).is_some_and(|parsed| {
            certificate::is_authority(&parsed) && certificate::is_for(&parsed, self.usage)
        });
        if is_authority {
            self.anchors.push(anchor);
            self.authorities.push(der);
        }
        Ok(())
    }

    fn check(
        &self,
        shown: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), Error> {
        if self.themselves.contains(shown) && certificate::is_usable(shown, now, self.usage) {
            return Ok(());
        }
        let in_time = |path: &VerifiedPath<'_>| {
            let at = self.anchors.iter().position(|anchor| std::ptr::eq(anchor, path.anchor()));
            let authority = at.and_then(|at| certificate::parse(&self.authorities[at]));
            match authority.is_some_and(|authority| certificate::is_in_time(&authority, now)) {
                true => Ok(()),
                false => Err(webpki::Error::UnknownIssuer),
            }
        };
        let parsed = EndEntityCert::try_from(shown).map_err(refusal)?;
        let checked = parsed.verify_for_usage(
            algorithms.all,
            &self.anchors,
            others,
            now,
            self.usage,
            None,
            Some(&in_time),
        );
        match checked {
            Ok(_) => Ok(()),
            Err(webpki::Error::CaUsedAsEndEntity)
                if path::leads_to_authority(shown, others, &self.authorities, now, self.usage) =>
            {
                Ok(())
            }
            Err(error) => Err(refusal(error)),
        }
    }
}

/// The usage that a certificate names, if it names any, or any usage at all.
impl ExtendedKeyUsageValidator for Usage {
    fn validate(&self, usages: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        const ANY: KeyPurposeId<'static> = KeyPurposeId::new(&[0x55, 0x1d, 0x25, 0x00]);
        const SERVER: KeyPurposeId<'static> =
            KeyPurposeId::new(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01]);
        const CLIENT: KeyPurposeId<'static> =
            KeyPurposeId::new(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02]);
        let (wanted, required) = match self {
            Self::Server => (SERVER, KeyUsage::server_auth()),
            Self::Client => (CLIENT, KeyUsage::client_auth()),
        };
        let mut present = Vec::new();
        for usage in usages {
            let usage = usage?;
            if usage == wanted || usage == ANY {
                return Ok(());
            }
            present.push(usage.to_decoded_oid());
        }
        if present.is_empty() {
            return Ok(());
        }
        let context = RequiredEkuNotFoundContext { required, present };
        Err(webpki::Error::RequiredEkuNotFoundContext(context))
    }
}

fn refusal(error: webpki::Error) -> Error {
    use webpki::Error as E;
    match error {
        E::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        E::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        // The latter: there is an authority of that name, with another key.
        E::UnknownIssuer | E::InvalidSignatureForPublicKey => CertificateError::UnknownIssuer,
        E::UnsupportedCriticalExtension => CertificateError::UnhandledCriticalExtension,
        E::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        error => CertificateError::Other(OtherError(Arc::new(error))),
    }
    .into()
}

/// The names that are accepted.
#[derive(Clone, Debug)]
struct Allowed {
    cns: Vec<String>,
    hostnames: Vec<String>,
}

impl Allowed {
    fn new(settings: &Settings) -> Self {
        Self { cns: settings.allowed_cns.clone(), hostnames: settings.allowed_hostnames.clone() }
    }

    fn check(&self, der: &CertificateDer<'_>) -> Result<(), Error> {
        let allowed = if !self.cns.is_empty() {
            let names = Names::of(der).ok_or(CertificateError::BadEncoding)?;
            let common = names.common.unwrap_or_default();
            self.cns.contains(&common)
        } else if !self.hostnames.is_empty() {
            let parsed = ParsedCertificate::try_from(der)?;
            let names = |host: &String| {
                let name = ServerName::try_from(host.as_str());
                name.is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
            };
            self.hostnames.iter().any(names)
        } else {
            true
        };
        match allowed {
            true => Ok(()),
            false => Err(refused("client certificate authentication failed")),
        }
    }
}

fn refused(why: impl AsRef<str>) -> Error {
    CertificateError::Other(OtherError(Arc::new(TlsError::new(why)))).into()
}

/// A certificate with a key that cannot be verified with is refused for that reason.
fn unserved(error: Error, shown: &CertificateDer<'_>) -> Error {
    certificate::unserved_key(shown).map_or(error, refused)
}

/// That a certificate is for other hosts than the one that was connected to, in Go's words.
fn misnamed(shown: &CertificateDer<'_>, wanted: &ServerName<'_>) -> Option<Error> {
    let names = Names::of(shown)?;
    let wanted = wanted.to_str();
    let is_address = wanted.parse::<IpAddr>().is_ok();
    let valid: Vec<String> = match is_address {
        true => names.addresses.iter().map(IpAddr::to_string).collect(),
        false => names.dns,
    };
    let why = if is_address && valid.is_empty() {
        format!("cannot validate certificate for {wanted} because it doesn't contain any IP SANs")
    } else if valid.is_empty() {
        format!("certificate is not valid for any names, but wanted to match {wanted}")
    } else {
        format!("certificate is valid for {}, not {wanted}", valid.join(", "))
    };
    Some(refused(format!("tls: failed to verify certificate: x509: {why}")))
}

/// Verifies clients.
pub(super) struct Clients {
    algorithms: WebPkiSupportedAlgorithms,
    hints: Vec<DistinguishedName>,
    trusted: Trusted,
    allowed: Allowed,
    /// Serial numbers that are refused; with an error all are.
    revoked: Result<BTreeSet<Vec<u8>>, TlsError>,
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clients").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

impl Clients {
    pub fn new(
        disk: &dyn Disk,
        settings: &Settings,
        contents: &Contents,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let trusted = Trusted::new(disk, contents, Usage::Client)?;
        let algorithms = provider.signature_verification_algorithms;
        let revoked = match &contents.crl {
            None => Ok(BTreeSet::new()),
            Some(Err(error)) => Err(error.clone()),
            Some(Ok(bytes)) => certificate::revoked(&files::revocation_list(bytes)),
        };
        if let Err(error) = &revoked {
            let crl_file = settings.crl_file.display();
            tracing::warn!(
                %crl_file, %error,
                "revocation list cannot be used; client certificates are rejected"
            );
        }
        let subject = |anchor: &TrustAnchor<'_>| DistinguishedName::in_sequence(&anchor.subject);
        let hints = trusted.anchors.iter().map(subject).collect();
        Ok(Self { algorithms, hints, trusted, allowed: Allowed::new(settings), revoked })
    }

    fn check_revoked<'a>(
        &self,
        shown: impl Iterator<Item = &'a CertificateDer<'a>>,
    ) -> Result<(), Error> {
        let revoked = self.revoked.as_ref().map_err(|error| refused(&error.0))?;
        for der in shown {
            let serial = certificate::serial(der).ok_or(CertificateError::BadEncoding)?;
            if revoked.contains(&serial) {
                let serial: String = serial.iter().map(|byte| format!("{byte:02x}")).collect();
                let serial = serial.trim_start_matches('0');
                return Err(refused(format!("transport: certificate serial {serial} revoked")));
            }
        }
        Ok(())
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.trusted.check(end_entity, intermediates, now, &self.algorithms)?;
        self.allowed.check(end_entity)?;
        self.check_revoked(std::iter::once(end_entity).chain(intermediates))?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
            .map_err(|error| unserved(error, cert))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
            .map_err(|error| unserved(error, cert))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Verifies the server that is connected to.
pub(super) struct Servers {
    algorithms: WebPkiSupportedAlgorithms,
    trusted: Trusted,
    allowed: Allowed,
}

impl std::fmt::Debug for Servers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Servers").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

impl Servers {
    pub fn new(
        disk: &dyn Disk,
        settings: &Settings,
        contents: &Contents,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let trusted = Trusted::new(disk, contents, Usage::Server)?;
        let algorithms = provider.signature_verification_algorithms;
        Ok(Self { algorithms, trusted, allowed: Allowed::new(settings) })
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.trusted.check(end_entity, intermediates, now, &self.algorithms)?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)
            .map_err(|error| misnamed(end_entity, server_name).unwrap_or(error))?;
        self.allowed.check(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
            .map_err(|error| unserved(error, cert))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
            .map_err(|error| unserved(error, cert))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Accepts every server. A signature by a key that no authority vouches for proves nothing, so none is
/// verified: etcd signs with a curve that `ring` does not have when it makes its
/// own certificate.
#[derive(Debug)]
pub(super) struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ECDSA_NISTP521_SHA512,
            SignatureScheme::ED25519,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::RSA_PKCS1_SHA256,
            SignatureScheme::RSA_PKCS1_SHA384,
            SignatureScheme::RSA_PKCS1_SHA512,
        ]
    }
}
