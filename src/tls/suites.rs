//! Protocol versions and cipher suites: the names that etcd's flags take, which are Go's, and what of
//! them there is here. TLS 1.3 has its three suites always, as in Go; the list is for TLS 1.2.

use rustls::crypto::ring::cipher_suite as ring;
use rustls::crypto::{CryptoProvider, ring::default_provider};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion, version};

/// Versions, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Tls12,
    Tls13,
}

impl Version {
    /// `None` for an empty text, which leaves the choice open.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        match text {
            "" => Ok(None),
            "TLS1.2" => Ok(Some(Self::Tls12)),
            "TLS1.3" => Ok(Some(Self::Tls13)),
            _ => Err(format!("unexpected TLS version {text:?} (must be one of: TLS1.2, TLS1.3)")),
        }
    }
}

/// A cipher suite by Go's name for it.
#[derive(Clone, Copy, PartialEq)]
pub struct Suite(SupportedCipherSuite);

impl Eq for Suite {}

impl std::fmt::Debug for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.suite().fmt(f)
    }
}

impl Suite {
    pub fn parse(name: &str) -> Result<Self, String> {
        if let Some((_, suite)) = SERVED.iter().find(|(served, _)| *served == name) {
            return Ok(Self(*suite));
        }
        Err(match NOT_SERVED.contains(&name) {
            true => {
                format!("TLS cipher suite {name} is known to etcd but not served by this version")
            }
            false => format!("unexpected TLS cipher suite {name:?}"),
        })
    }
}

const SERVED: &[(&str, SupportedCipherSuite)] = &[
    ("TLS_AES_128_GCM_SHA256", ring::TLS13_AES_128_GCM_SHA256),
    ("TLS_AES_256_GCM_SHA384", ring::TLS13_AES_256_GCM_SHA384),
    ("TLS_CHACHA20_POLY1305_SHA256", ring::TLS13_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", ring::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", ring::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", ring::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", ring::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        ring::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        ring::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", ring::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", ring::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// Go's others: without forward secrecy, or with ciphers of another age.
const NOT_SERVED: &[&str] = &[
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

/// What is spoken. The default is everything there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protocol {
    pub min: Option<Version>,
    pub max: Option<Version>,
    /// For TLS 1.2, the most wanted first; all when empty.
    pub suites: Vec<Suite>,
}

impl Protocol {
    /// From the texts of the flags, with etcd's rules.
    pub fn parse(min: &str, max: &str, suites: &[String]) -> Result<Self, String> {
        let (min_text, max_text) = (min, max);
        let (min, max) = (Version::parse(min)?, Version::parse(max)?);
        if max.is_some_and(|max| min.is_some_and(|min| min > max)) {
            return Err(format!(
                "min version ({min_text}) is greater than max version ({max_text})"
            ));
        }
        if min == Some(Version::Tls13) && !suites.is_empty() {
            return Err("cipher suites cannot be configured when only TLS1.3 is enabled".into());
        }
        let suites = suites.iter().map(|name| Suite::parse(name)).collect::<Result<_, _>>()?;
        Ok(Self { min, max, suites })
    }

    pub(super) fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let wanted = |version| {
            self.min.is_none_or(|min| min <= version) && self.max.is_none_or(|max| version <= max)
        };
        let all = [(Version::Tls13, &version::TLS13), (Version::Tls12, &version::TLS12)];
        let spoken: Vec<_> =
            all.into_iter().filter(|(version, _)| wanted(*version)).map(|(_, v)| v).collect();
        match self.leaves_tls12_without() {
            true => spoken.into_iter().filter(|v| **v != version::TLS12).collect(),
            false => spoken,
        }
    }

    pub(super) fn provider(&self) -> CryptoProvider {
        let mut provider = default_provider();
        if !self.suites.is_empty() {
            let tls13 = provider.cipher_suites.into_iter().filter(|suite| suite.tls13().is_some());
            let chosen = self.suites.iter().map(|suite| suite.0);
            let chosen = chosen.filter(|suite| suite.tls13().is_none());
            provider.cipher_suites = tls13.chain(chosen).collect();
        }
        provider
    }

    /// A list with nothing for TLS 1.2 in it leaves nothing to agree on there.
    fn leaves_tls12_without(&self) -> bool {
        !self.suites.is_empty() && self.suites.iter().all(|suite| suite.0.tls13().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(min: &str, max: &str, suites: &[&str]) -> Result<Protocol, String> {
        let suites: Vec<String> = suites.iter().map(|&suite| suite.to_owned()).collect();
        Protocol::parse(min, max, &suites)
    }

    #[test]
    fn errors_are_etcds() {
        let error = |min, max, suites: &[&str]| parse(min, max, suites).expect_err("refused");
        assert_eq!(
            error("TLS1.1", "", &[]),
            "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)"
        );
        assert_eq!(
            error("TLS1.3", "TLS1.2", &[]),
            "min version (TLS1.3) is greater than max version (TLS1.2)"
        );
        assert_eq!(
            error("TLS1.3", "", &["TLS_AES_128_GCM_SHA256"]),
            "cipher suites cannot be configured when only TLS1.3 is enabled"
        );
        assert_eq!(error("", "", &["X"]), "unexpected TLS cipher suite \"X\"");
        assert!(error("", "", &["TLS_RSA_WITH_AES_128_CBC_SHA"]).contains("not served"));
    }

    #[test]
    fn versions_and_suites_are_what_was_asked_for() {
        let versions = |min, max, suites: &[&str]| {
            let parsed = parse(min, max, suites).expect("taken");
            parsed.versions().iter().map(|version| version.version).collect::<Vec<_>>()
        };
        use rustls::ProtocolVersion::{TLSv1_2, TLSv1_3};
        assert_eq!(versions("TLS1.2", "", &[]), [TLSv1_3, TLSv1_2]);
        assert_eq!(versions("", "TLS1.2", &[]), [TLSv1_2]);
        assert_eq!(versions("TLS1.3", "TLS1.3", &[]), [TLSv1_3]);
        assert_eq!(versions("TLS1.2", "", &["TLS_AES_128_GCM_SHA256"]), [TLSv1_3]);
        let name = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305";
        let provider = parse("TLS1.2", "", &[name]).expect("taken").provider();
        let tls12: Vec<_> =
            provider.cipher_suites.iter().filter(|suite| suite.tls13().is_none()).collect();
        assert_eq!(tls12, [&ring::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256]);
        assert_eq!(provider.cipher_suites.len(), 4, "and the three of TLS 1.3");
    }
}
