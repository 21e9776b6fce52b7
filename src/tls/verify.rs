//! Who is believed: rustls's verifiers over webpki, with etcd's further rules around them. A
//! certificate that is itself among the trusted ones needs no chain, CA or not, as in Go: a member's own
//! certificate may be its only CA.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use super::certificate::{self, Names, Usage};
use super::files::{self, Contents};
use super::{Settings, TlsError};
use crate::env::Disk;

/// The CAs, and the certificates that are trusted as they are.
struct Trusted {
    roots: Arc<RootCertStore>,
    themselves: Vec<CertificateDer<'static>>,
}

impl Trusted {
    fn new(disk: &dyn Disk, contents: &Contents) -> Result<Self, TlsError> {
        let Some(pem) = &contents.ca else {
            let roots = Arc::new(files::system_roots(disk));
            return Ok(Self { roots, themselves: Vec::new() });
        };
        let themselves = files::certificates(pem)?;
        let mut roots = RootCertStore::empty();
        for certificate in &themselves {
            roots
                .add(certificate.clone())
                .map_err(|error| TlsError::new(format!("trusted CA: {error}")))?;
        }
        Ok(Self { roots: Arc::new(roots), themselves })
    }

    /// A verifier over the CAs; `None` without a CA: nobody but those who are trusted themselves is
    /// believed then.
    fn verifier<V>(
        &self,
        build: impl FnOnce(Arc<RootCertStore>) -> Result<V, VerifierBuilderError>,
    ) -> Result<Option<V>, TlsError> {
        if self.roots.is_empty() {
            return Ok(None);
        }
        let built = build(self.roots.clone());
        built.map(Some).map_err(|error| TlsError::new(format!("trusted CA: {error}")))
    }

    fn vouches_for(&self, der: &CertificateDer<'_>, now: UnixTime, usage: Usage) -> bool {
        self.themselves.contains(der) && certificate::is_usable(der, now, usage)
    }
}

/// The names that are let in.
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

/// Verifies those who connect.
pub(super) struct Clients {
    /// `None` without a CA.
    webpki: Option<Arc<dyn ClientCertVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
    hints: Vec<DistinguishedName>,
    trusted: Trusted,
    allowed: Allowed,
    /// Serial numbers that are kept out; an error keeps everybody out.
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
        let trusted = Trusted::new(disk, contents)?;
        let algorithms = provider.signature_verification_algorithms;
        let webpki = trusted.verifier(|roots| {
            WebPkiClientVerifier::builder_with_provider(roots, provider).build()
        })?;
        let revoked = match &contents.crl {
            None => Ok(BTreeSet::new()),
            Some(Err(error)) => Err(error.clone()),
            Some(Ok(bytes)) => certificate::revoked(&files::revocation_list(bytes)),
        };
        if let Err(error) = &revoked {
            let crl_file = settings.crl_file.display();
            tracing::warn!(%crl_file, %error, "nobody with a certificate is let in");
        }
        let hints = trusted.roots.subjects();
        Ok(Self { webpki, algorithms, hints, trusted, allowed: Allowed::new(settings), revoked })
    }

    fn check_revoked<'a>(
        &self,
        shown: impl Iterator<Item = &'a CertificateDer<'a>>,
    ) -> Result<(), Error> {
        let revoked = self.revoked.as_ref().map_err(|error| refused(&error.0))?;
        for der in shown {
            let serial = certificate::serial(der).ok_or(CertificateError::BadEncoding)?;
            if revoked.contains(&serial) {
                return Err(CertificateError::Revoked.into());
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
        if !self.trusted.vouches_for(end_entity, now, Usage::Client) {
            let webpki = self.webpki.as_ref().ok_or(CertificateError::UnknownIssuer)?;
            webpki.verify_client_cert(end_entity, intermediates, now)?;
        }
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
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Verifies the server that is connected to.
pub(super) struct Servers {
    /// `None` without a CA.
    webpki: Option<Arc<WebPkiServerVerifier>>,
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
        let trusted = Trusted::new(disk, contents)?;
        let algorithms = provider.signature_verification_algorithms;
        let webpki = trusted.verifier(|roots| {
            WebPkiServerVerifier::builder_with_provider(roots, provider).build()
        })?;
        Ok(Self { webpki, algorithms, trusted, allowed: Allowed::new(settings) })
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.trusted.vouches_for(end_entity, now, Usage::Server) {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        } else {
            let webpki = self.webpki.as_ref().ok_or(CertificateError::UnknownIssuer)?;
            webpki.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            )?;
        }
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
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Believes every server, as its name says. A signature by a key that nobody vouches for proves
/// nothing, so none is looked at: etcd signs with a curve that `ring` does not have when it makes its
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
