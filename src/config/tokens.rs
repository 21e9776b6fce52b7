//! `--auth-token`: a kind, and what follows it after commas. As in etcd an option that is not known is
//! passed over, one that comes twice or has no value is not. No key file is looked at.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::go;
use crate::member::jwt::{INVALID_OPTIONS, JwtOptions, Method};
use crate::member::tokens::TokenKind;

const JWT_TTL: Duration = Duration::from_secs(5 * 60);

/// Reads the flag; etcd has one text for all that can be wrong with it.
pub(super) fn parse(text: &str, ttl_s: u64) -> Result<TokenKind, String> {
    read(text, ttl_s).ok_or_else(|| INVALID_OPTIONS.to_owned())
}

fn read(text: &str, ttl_s: u64) -> Option<TokenKind> {
    let mut parts = text.split(',');
    let kind = parts.next()?;
    let mut options = BTreeMap::new();
    for option in parts {
        let (name, value) = option.split_once('=').filter(|(_, value)| !value.contains('='))?;
        if options.insert(name, value).is_some() {
            return None;
        }
    }
    match kind {
        "simple" => Some(TokenKind::Simple { ttl: Duration::from_secs(ttl_s) }),
        "jwt" => jwt(&options).map(TokenKind::Jwt),
        "" => Some(TokenKind::None),
        _ => None,
    }
}

fn jwt(options: &BTreeMap<&str, &str>) -> Option<JwtOptions> {
    let given = |name| options.get(name).copied().filter(|value: &&str| !value.is_empty());
    let method = given("sign-method")?;
    Some(JwtOptions {
        method: *Method::ALL.iter().find(|known| known.name() == method)?,
        public_key: given("pub-key").map(PathBuf::from),
        private_key: given("priv-key").map(PathBuf::from),
        ttl: given("ttl").map_or(Some(JWT_TTL), |ttl| go::duration(ttl).ok())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple_tokens_differ_from_none() {
        let ttl = Duration::from_secs(7);
        assert_eq!(parse("simple", 7), Ok(TokenKind::Simple { ttl }));
        assert_eq!(parse("simple,a=b", 7), Ok(TokenKind::Simple { ttl }));
        assert_eq!(parse("", 7), Ok(TokenKind::None));
    }

    #[test]
    fn signed_tokens_are_read_with_their_options() {
        let line = "jwt,pub-key=/a.pub,priv-key=/a.key,sign-method=PS384,ttl=10m,what=ever";
        let expected = JwtOptions {
            method: Method::Ps384,
            public_key: Some("/a.pub".into()),
            private_key: Some("/a.key".into()),
            ttl: Duration::from_secs(600),
        };
        assert_eq!(parse(line, 300), Ok(TokenKind::Jwt(expected)));
        let TokenKind::Jwt(least) = parse("jwt,sign-method=EdDSA", 300).expect("it is enough")
        else {
            panic!("a signed token");
        };
        assert_eq!((least.method, least.ttl), (Method::EdDsa, JWT_TTL));
    }

    #[test]
    fn what_is_wrong_has_etcds_text() {
        for wrong in [
            "unknown",
            "simple,a",
            "jwt",
            "jwt,sign-method=RS255",
            "jwt,sign-method=none",
            "jwt,sign-method=RS256,ttl=5",
            "jwt,sign-method=RS256,sign-method=RS256",
            "jwt,sign-method=RS256,pub-key=a=b",
        ] {
            assert_eq!(parse(wrong, 300), Err("auth: invalid auth options".into()), "{wrong}");
        }
    }
}
