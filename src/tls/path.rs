//! The path from a CA's certificate that is shown as a client's or a server's own to an authority. etcd
//! takes such a certificate, webpki does not; everything else goes through webpki. What this file does
//! not know (constraints on names, critical extensions) it refuses.

use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA};

use super::certificate::{self, Usage};

/// Certificates between the first one and an authority, and signatures that are verified: a client must
/// not make the member search for long.
const LENGTH_MAX: usize = 6;
const SIGNATURES_MAX: usize = 32;

/// Whether `first` leads to one of `authorities`.
pub(super) fn leads_to_authority(
    first: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    authorities: &[CertificateDer<'_>],
    now: UnixTime,
    usage: Usage,
) -> bool {
    let authorities: Vec<_> =
        authorities.iter().filter_map(|der| certificate::parse(der)).collect();
    let others: Vec<_> = others.iter().filter_map(|der| certificate::parse(der)).collect();
    let Some(first) = certificate::parse(first) else { return false };
    let mut search = Search { authorities, others, now, usage, signatures: 0 };
    search.finds(&first, 0)
}

struct Search<'a> {
    authorities: Vec<X509Certificate<'a>>,
    others: Vec<X509Certificate<'a>>,
    now: UnixTime,
    usage: Usage,
    signatures: usize,
}

impl Search<'_> {
    /// Whether a path continues from `certificate`, below which there are `below` others that are CAs.
    fn finds(&mut self, certificate: &X509Certificate<'_>, below: usize) -> bool {
        if below > LENGTH_MAX || !self.is_good(certificate) {
            return false;
        }
        let issued = |by: &&X509Certificate<'_>| {
            by.subject().as_raw() == certificate.issuer().as_raw()
                && certificate::is_authority(by)
                && has_room(by, below)
        };
        let authorities: Vec<_> = self.authorities.iter().filter(issued).cloned().collect();
        for authority in authorities {
            if self.is_good(&authority) && self.signed(certificate, &authority) {
                return true;
            }
        }
        let others: Vec<_> = self.others.iter().filter(issued).cloned().collect();
        others.iter().any(|other| {
            // The first certificate is a CA's, too.
            self.signed(certificate, other) && self.finds(other, below + 1)
        })
    }

    fn is_good(&self, certificate: &X509Certificate<'_>) -> bool {
        let known = certificate.extensions().iter().all(|extension| {
            let parsed = extension.parsed_extension();
            let unknown = parsed.unsupported() || parsed.error().is_some();
            let constrained = matches!(parsed, ParsedExtension::NameConstraints(_));
            !(constrained || unknown && extension.critical)
        });
        known
            && certificate::is_in_time(certificate, self.now)
            && certificate::is_for(certificate, self.usage)
    }

    fn signed(&mut self, certificate: &X509Certificate<'_>, by: &X509Certificate<'_>) -> bool {
        self.signatures += 1;
        let algorithm = &certificate.signature_algorithm.algorithm;
        // SHA-1 proves nothing any more.
        let weak = *algorithm == OID_PKCS1_SHA1WITHRSA || *algorithm == OID_SHA1_WITH_RSA;
        self.signatures <= SIGNATURES_MAX
            && certificate.signature == certificate.signature_algorithm
            && !weak
            && certificate.verify_signature(Some(by.public_key())).is_ok()
    }
}

/// Whether an authority allows so many CAs below it on a path.
fn has_room(authority: &X509Certificate<'_>, below: usize) -> bool {
    match authority.basic_constraints() {
        Ok(Some(constraints)) => {
            let most = constraints.value.path_len_constraint;
            most.is_none_or(|most| below <= most as usize)
        }
        Ok(None) => true,
        Err(_) => false,
    }
}
