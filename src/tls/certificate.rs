//! What is asked of a certificate beside its chain, and of a revocation list (RFC 5280). Chains are
//! webpki's business; whom to believe is decided in `verify`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rustls::pki_types::UnixTime;

use super::TlsError;
use super::der::{INTEGER, OBJECT, OCTETS, Reader, SEQUENCE, SET};

/// Object identifiers, as DER has them.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// Tags of a certificate's optional parts, and of alternative names.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

/// What a certificate is shown as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    Server,
    Client,
}

/// A certificate's parts.
struct Certificate<'a> {
    serial: &'a [u8],
    validity: Reader<'a>,
    subject: Reader<'a>,
    extensions: Reader<'a>,
}

impl<'a> Certificate<'a> {
    fn parse(der: &'a [u8]) -> Option<Self> {
        let mut signed = Reader::new(der).inside(SEQUENCE)?;
        let mut parts = signed.inside(SEQUENCE)?;
        let _version = parts.tagged(VERSION);
        let serial = parts.tagged(INTEGER)?;
        let _algorithm = parts.tagged(SEQUENCE)?;
        let _issuer = parts.tagged(SEQUENCE)?;
        let validity = parts.inside(SEQUENCE)?;
        let subject = parts.inside(SEQUENCE)?;
        let _public_key = parts.tagged(SEQUENCE)?;
        let mut extensions = Reader::new(&[]);
        while let Some((tag, contents)) = parts.value() {
            if tag == EXTENSIONS {
                extensions = Reader::new(contents).inside(SEQUENCE)?;
            }
        }
        Some(Self { serial, validity, subject, extensions })
    }

    /// What an extension says, if it is there.
    fn extension(&self, wanted: &[u8]) -> Option<Reader<'a>> {
        let mut extensions = self.extensions;
        while let Some(mut extension) = extensions.inside(SEQUENCE) {
            let id = extension.tagged(OBJECT)?;
            while let Some((tag, contents)) = extension.value() {
                if tag == OCTETS && id == wanted {
                    return Reader::new(contents).inside(SEQUENCE);
                }
            }
        }
        None
    }

    /// The last one, as Go has it.
    fn common_name(&self) -> Option<String> {
        let mut found = None;
        let mut subject = self.subject;
        while let Some(mut set) = subject.inside(SET) {
            while let Some(mut attribute) = set.inside(SEQUENCE) {
                if attribute.tagged(OBJECT)? == COMMON_NAME {
                    found = attribute.value().and_then(text);
                }
            }
        }
        found
    }

    /// First and last second, since 1970.
    fn valid(&self) -> Option<(i64, i64)> {
        let mut validity = self.validity;
        Some((seconds(validity.value()?)?, seconds(validity.value()?)?))
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
        let certificate = Certificate::parse(der)?;
        let mut names = Self { common: certificate.common_name(), ..Self::default() };
        if let Some(mut alternatives) = certificate.extension(ALTERNATIVE_NAMES) {
            while let Some((tag, contents)) = alternatives.value() {
                match tag {
                    DNS_NAME => names.dns.extend(String::from_utf8(contents.to_vec())),
                    IP_ADDRESS => names.addresses.extend(address(contents)),
                    _ => {}
                }
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
    Certificate::parse(der).map(|certificate| stripped(certificate.serial))
}

/// Whether a certificate that is trusted itself, and needs no chain, is valid now and made for `usage`.
pub(super) fn is_usable(der: &[u8], now: UnixTime, usage: Usage) -> bool {
    let Some(certificate) = Certificate::parse(der) else { return false };
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let in_time = certificate.valid().is_some_and(|(first, last)| first <= now && now <= last);
    let wanted = match usage {
        Usage::Server => SERVER_AUTH,
        Usage::Client => CLIENT_AUTH,
    };
    let for_usage = certificate.extension(EXTENDED_KEY_USAGE).is_none_or(|mut usages| {
        std::iter::from_fn(|| usages.tagged(OBJECT)).any(|id| id == wanted || id == ANY_USAGE)
    });
    in_time && for_usage
}

/// The serial numbers in a revocation list (DER). Who issued the list, and whether it is still valid,
/// is not looked at, as in etcd.
pub(super) fn revoked(der: &[u8]) -> Result<BTreeSet<Vec<u8>>, TlsError> {
    read_list(der).ok_or_else(|| TlsError::new("x509: malformed crl"))
}

fn read_list(der: &[u8]) -> Option<BTreeSet<Vec<u8>>> {
    let mut signed = Reader::new(der).inside(SEQUENCE)?;
    let mut parts = signed.inside(SEQUENCE)?;
    let _version = parts.tagged(INTEGER);
    let _algorithm = parts.tagged(SEQUENCE)?;
    let _issuer = parts.tagged(SEQUENCE)?;
    let _this_update = parts.value().and_then(seconds)?;
    let mut revoked = BTreeSet::new();
    while let Some((tag, contents)) = parts.value() {
        // The time of the next update, which is not looked at, may stand before the entries.
        if tag == SEQUENCE {
            let mut entries = Reader::new(contents);
            while !entries.is_empty() {
                revoked.insert(stripped(entries.inside(SEQUENCE)?.tagged(INTEGER)?));
            }
        }
    }
    parts.is_empty().then_some(revoked)
}

fn stripped(serial: &[u8]) -> Vec<u8> {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    serial[zeros..].to_vec()
}

/// A string in one of X.509's kinds.
fn text((tag, bytes): (u8, &[u8])) -> Option<String> {
    match tag {
        // UTF8, Numeric, Printable, IA5.
        0x0c | 0x12 | 0x13 | 0x16 => String::from_utf8(bytes.to_vec()).ok(),
        // T61, which everybody reads as Latin-1.
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

/// UTCTime (of the years 1950 to 2049) or GeneralizedTime, as seconds since 1970.
fn seconds((tag, bytes): (u8, &[u8])) -> Option<i64> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match tag {
        0x17 => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        0x18 => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    if rest.len() != 10 {
        return None;
    }
    let field = |at: usize| rest[at..at + 2].parse::<i64>().ok();
    let (month, day) = (field(0)?, field(2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(days(year, month, day) * 86_400 + field(4)? * 3600 + field(6)? * 60 + field(8)?)
}

/// Days since 1970-01-01. Years begin in March here, so that a leap day comes last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
        - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds() {
        assert_eq!(seconds((0x17, b"700101000000Z")), Some(0));
        assert_eq!(seconds((0x17, b"491231235959Z")), Some(2_524_607_999));
        assert_eq!(seconds((0x18, b"20000229120000Z")), Some(951_825_600));
        assert_eq!(seconds((0x18, b"40960101000000Z")), Some(67_090_118_400));
        for bad in [&b"700101000000"[..], b"7001010000Z", b"70010100000aZ", b"701301000000Z", b""] {
            assert_eq!(seconds((0x17, bad)), None, "{bad:?}");
        }
    }

    #[test]
    fn strings_come_in_many_kinds() {
        assert_eq!(text((0x0c, "ä".as_bytes())).as_deref(), Some("ä"));
        assert_eq!(text((0x14, &[0xe4])).as_deref(), Some("ä"));
        assert_eq!(text((0x1e, &[0, 0xe4])).as_deref(), Some("ä"));
        assert_eq!(text((0x1e, &[0])), None);
        assert_eq!(text((0x02, b"1")), None);
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
