//! What foreign bytes reach here, for fuzzing.

use std::time::Duration;

use rustls::pki_types::UnixTime;

use super::certificate::{self, Names, Usage};
use super::files;

/// A certificate that a peer or a client shows.
pub fn certificate(der: &[u8]) {
    let names = Names::of(der);
    assert_eq!(names.is_some(), certificate::serial(der).is_some());
    for usage in [Usage::Server, Usage::Client] {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        certificate::is_usable(der, now, usage);
    }
    drop(files::certificates(der));
}

/// A revocation list, in PEM or DER.
pub fn revocation_list(bytes: &[u8]) {
    drop(certificate::revoked(&files::revocation_list(bytes)));
}

/// Certificates and lists to begin with.
pub fn certificates() -> Vec<Vec<u8>> {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("names that can be written");
    let empty_list = b"\x30\x1f\x30\x1d\x02\x01\x01\x30\x00\x30\x00\x17\x0d250101000000Z\x30\x07\
        \x30\x05\x02\x01\x07\x05\x00";
    vec![
        made.cert.der().to_vec(),
        super::pem("CERTIFICATE", made.cert.der()).into_bytes(),
        empty_list.to_vec(),
    ]
}
