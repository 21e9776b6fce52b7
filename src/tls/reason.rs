//! Why a handshake failed, in the words of Go's TLS library, which operators of etcd look for in logs, and
//! then in those of ours. What has no counterpart has only the latter; what this folder's own rules refuse
//! has a text of its own.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{
    AlertDescription, CertificateError, Error, InvalidMessage, OtherError, PeerIncompatible,
    PeerMisbehaved,
};

use super::TlsError;
use crate::codec;

/// Which end of the connection failed the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Client,
    Server,
}

/// The reason as it is logged.
pub(super) fn text(error: &io::Error, peer: Peer) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(inner) => described(inner, peer),
        None => error.to_string(),
    }
}

/// The same, of an error that did not come from a stream.
pub(super) fn described(error: &Error, peer: Peer) -> String {
    if let Error::InvalidCertificate(CertificateError::Other(OtherError(why))) = error
        && let Some(own) = why.downcast_ref::<TlsError>()
    {
        return own.to_string();
    }
    match gos(error, peer) {
        Some(gos) => format!("{gos}: {error}"),
        None => error.to_string(),
    }
}

fn gos(error: &Error, peer: Peer) -> Option<String> {
    let local = match error {
        Error::AlertReceived(alert) => {
            return Some(format!("remote error: tls: {}", named(*alert)?));
        }
        // Of the handshake; what is wrong with a signature in a chain is another error, see `verify`.
        Error::InvalidCertificate(CertificateError::BadSignature) => match peer {
            Peer::Client => "tls: invalid signature by the client certificate",
            Peer::Server => "tls: invalid signature by the server certificate",
        },
        Error::InvalidCertificate(why) => {
            let why = of_certificate(why)?;
            return Some(format!("tls: failed to verify certificate: x509: {why}"));
        }
        Error::NoCertificatesPresented => {
            "tls: client didn't provide a certificate (none is shown whose key is on the curve P-521, which is \
             not served)"
        }
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

/// What is wrong with a certificate or its chain, as `crypto/x509` words it.
fn of_certificate(why: &CertificateError) -> Option<String> {
    use webpki::Error as E;
    let expired = "certificate has expired or is not yet valid";
    let unknown = "certificate signed by unknown authority";
    let plain = match why {
        CertificateError::UnknownIssuer => unknown,
        CertificateError::Expired | CertificateError::NotValidYet => expired,
        CertificateError::ExpiredContext { time, not_after } => {
            let (now, end) = (rfc3339(*time), rfc3339(*not_after));
            return Some(format!("{expired}: current time {now} is after {end}"));
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            let (now, begin) = (rfc3339(*time), rfc3339(*not_before));
            return Some(format!("{expired}: current time {now} is before {begin}"));
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "certificate specifies an incompatible key usage"
        }
        CertificateError::UnhandledCriticalExtension => "unhandled critical extension",
        CertificateError::Other(OtherError(why)) => match why.downcast_ref::<E>()? {
            // To Go a CA's certificate is one like any other; this one leads to no authority.
            E::CaUsedAsEndEntity | E::EndEntityUsedAsCa => unknown,
            E::InvalidCertValidity => expired,
            E::PathLenConstraintViolated => "too many intermediates for path length constraint",
            E::NameConstraintViolation => {
                "a root or intermediate certificate is not authorized to sign for this name"
            }
            _ => return None,
        },
        _ => return None,
    };
    Some(plain.to_owned())
}

/// Seconds, in UTC.
fn rfc3339(time: UnixTime) -> String {
    let timestamp = codec::timestamp(UNIX_EPOCH + Duration::from_secs(time.as_secs()));
    match timestamp.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => timestamp,
    }
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
    use std::sync::Arc;

    use super::*;

    #[test]
    fn failures_are_described_as_by_go() {
        let of =
            |error: Error| text(&io::Error::new(io::ErrorKind::InvalidData, error), Peer::Client);
        assert_eq!(
            of(Error::AlertReceived(AlertDescription::BadCertificate)),
            "remote error: tls: bad certificate: received fatal alert: BadCertificate"
        );
        assert_eq!(
            of(Error::NoCertificatesPresented),
            "tls: client didn't provide a certificate (none is shown whose key is on the curve P-521, which is \
             not served): peer sent no certificates"
        );
        assert_eq!(
            of(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
            "tls: failed to verify certificate: x509: certificate signed by unknown authority: \
             invalid peer certificate: UnknownIssuer"
        );
        let plain = Error::InvalidMessage(InvalidMessage::InvalidContentType);
        assert!(of(plain).starts_with("tls: first record does not look like a TLS handshake: "));
        assert_eq!(of(Error::DecryptError), Error::DecryptError.to_string());
        assert_eq!(text(&io::Error::other("reset"), Peer::Client), "reset");
        let signed = Error::InvalidCertificate(CertificateError::BadSignature);
        assert_eq!(
            described(&signed, Peer::Server),
            "tls: invalid signature by the server certificate: invalid peer certificate: BadSignature"
        );
    }

    /// With what etcd 3.7.3 logs of such certificates behind `x509: `.
    #[test]
    fn what_is_wrong_with_a_certificate_is_described_as_by_go() {
        let other = |error: webpki::Error| CertificateError::Other(OtherError(Arc::new(error)));
        let time = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let expired = "certificate has expired or is not yet valid";
        let now = "current time 2026-11-30T20:55:02Z is";
        let after = format!("{expired}: {now} after 2026-11-29T20:54:55Z");
        let before = format!("{expired}: {now} before 2026-12-01T00:00:00Z");
        let unknown = "certificate signed by unknown authority";
        for (error, wanted) in [
            (CertificateError::InvalidPurpose, "certificate specifies an incompatible key usage"),
            (CertificateError::UnhandledCriticalExtension, "unhandled critical extension"),
            (other(webpki::Error::CaUsedAsEndEntity), unknown),
            (other(webpki::Error::EndEntityUsedAsCa), unknown),
            (other(webpki::Error::InvalidCertValidity), expired),
            (
                other(webpki::Error::PathLenConstraintViolated),
                "too many intermediates for path length constraint",
            ),
            (
                other(webpki::Error::NameConstraintViolation),
                "a root or intermediate certificate is not authorized to sign for this name",
            ),
            (
                CertificateError::ExpiredContext {
                    time: time(1_796_072_102),
                    not_after: time(1_795_985_695),
                },
                &after,
            ),
            (
                CertificateError::NotValidYetContext {
                    time: time(1_796_072_102),
                    not_before: time(1_796_083_200),
                },
                &before,
            ),
        ] {
            let shown = described(&Error::InvalidCertificate(error.clone()), Peer::Client);
            let begin = format!("tls: failed to verify certificate: x509: {wanted}: invalid peer");
            assert!(shown.starts_with(&begin), "{error:?}: {shown}");
        }
    }
}
