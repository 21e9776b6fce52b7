//! Why a handshake failed, in the words of Go's TLS library, which operators of etcd look for in logs, and then in
//! those of ours. What has no counterpart has only the latter.

use std::io;

use rustls::{
    AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible, PeerMisbehaved,
};

/// The reason as it is logged.
pub(super) fn text(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner.and_then(gos) {
        Some(gos) => format!("{gos}: {error}"),
        None => error.to_string(),
    }
}

fn gos(error: &Error) -> Option<String> {
    let local = match error {
        Error::AlertReceived(alert) => {
            return Some(format!("remote error: tls: {}", named(*alert)?));
        }
        Error::NoCertificatesPresented => "tls: client didn't provide a certificate",
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "tls: failed to verify certificate: x509: certificate signed by unknown authority"
        }
        Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => "tls: failed to verify certificate: x509: certificate has expired or is not yet valid",
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "tls: first record does not look like a TLS handshake"
        }
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired,
        ) => "tls: client offered only unsupported versions",
        Error::PeerMisbehaved(PeerMisbehaved::ServerNameMustContainOneHostName) => {
            "tls: the server name (SNI) of the client is not a DNS name"
        }
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => {
            "tls: no cipher suite supported by both client and server"
        }
        _ => return None,
    };
    Some(local.to_owned())
}

/// An alert as Go names it (`crypto/tls/alert.go`).
fn named(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::UnexpectedMessage => "unexpected message",
        AlertDescription::BadRecordMac => "bad record MAC",
        AlertDescription::RecordOverflow => "record overflow",
        AlertDescription::HandshakeFailure => "handshake failure",
        AlertDescription::BadCertificate => "bad certificate",
        AlertDescription::UnsupportedCertificate => "unsupported certificate",
        AlertDescription::CertificateRevoked => "revoked certificate",
        AlertDescription::CertificateExpired => "expired certificate",
        AlertDescription::CertificateUnknown => "unknown certificate",
        AlertDescription::IllegalParameter => "illegal parameter",
        AlertDescription::UnknownCA => "unknown certificate authority",
        AlertDescription::AccessDenied => "access denied",
        AlertDescription::DecodeError => "error decoding message",
        AlertDescription::DecryptError => "error decrypting message",
        AlertDescription::ProtocolVersion => "protocol version not supported",
        AlertDescription::InsufficientSecurity => "insufficient security level",
        AlertDescription::InternalError => "internal error",
        AlertDescription::UserCanceled => "user canceled",
        AlertDescription::UnrecognisedName => "unrecognized name",
        AlertDescription::CertificateRequired => "certificate required",
        AlertDescription::NoApplicationProtocol => "no application protocol",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_described_as_by_go() {
        let of = |error: Error| text(&io::Error::new(io::ErrorKind::InvalidData, error));
        assert_eq!(
            of(Error::AlertReceived(AlertDescription::BadCertificate)),
            "remote error: tls: bad certificate: received fatal alert: BadCertificate"
        );
        assert_eq!(
            of(Error::NoCertificatesPresented),
            "tls: client didn't provide a certificate: peer sent no certificates"
        );
        assert_eq!(
            of(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
            "tls: failed to verify certificate: x509: certificate signed by unknown authority: \
             invalid peer certificate: UnknownIssuer"
        );
        let plain = Error::InvalidMessage(InvalidMessage::InvalidContentType);
        assert!(of(plain).starts_with("tls: first record does not look like a TLS handshake: "));
        assert_eq!(of(Error::DecryptError), Error::DecryptError.to_string());
        assert_eq!(text(&io::Error::other("reset")), "reset");
    }
}
