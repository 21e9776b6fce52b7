//! Whether a member connects from an address of its certificate (etcd, `checkCertSAN`): one that the
//! certificate names, or one of a host that it names. A certificate without names is valid anywhere.

use std::net::IpAddr;

use super::TlsError;
use super::certificate::Names;
use crate::env::Env;

pub(super) async fn check(env: &Env, names: &Names, from: IpAddr) -> Result<(), TlsError> {
    // A listener on IPv6 reports IPv4 addresses as mapped ones.
    let from = from.to_canonical();
    if names.addresses.is_empty() && names.dns.is_empty() || names.addresses.contains(&from) {
        return Ok(());
    }
    if names.dns.is_empty() {
        let valid: Vec<String> = names.addresses.iter().map(ToString::to_string).collect();
        return Err(TlsError::new(format!(
            "x509: certificate is valid for {}, not {from}",
            valid.join(", ")
        )));
    }
    let mut failure = String::new();
    let reverse = env.net.names_of(from).await;
    match &reverse {
        Ok(found) if found.iter().any(|name| is_named(names, name)) => return Ok(()),
        Ok(_) => {}
        Err(error) => failure = error.to_string(),
    }
    for name in names.dns.iter().filter(|name| !name.starts_with("*.")) {
        match env.net.addresses_of(name.clone()).await {
            Ok(found) if found.contains(&from) => return Ok(()),
            Ok(_) => {}
            Err(error) => failure = error.to_string(),
        }
    }
    if !failure.is_empty() {
        failure = format!(" ({failure})");
    }
    Err(TlsError::new(format!(
        "tls: \"{from}\" does not match any of DNSNames {:?}{failure}",
        names.dns
    )))
}

/// A name as the resolver has it, against those in the certificate; `*.` stands for any beginning.
fn is_named(names: &Names, found: &str) -> bool {
    let found = found.strip_suffix('.').unwrap_or(found);
    names.dns.iter().any(|name| match name.strip_prefix('*') {
        Some(end) if end.starts_with('.') => found.ends_with(end),
        _ => found == name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_beginnings() {
        let dns = vec!["a.example".to_owned(), "*.etcd.svc".to_owned()];
        let names = Names { dns, ..Names::default() };
        assert!(is_named(&names, "a.example."));
        assert!(is_named(&names, "m0.etcd.svc"));
        assert!(is_named(&names, "x.m0.etcd.svc"), "etcd looks at the end only");
        assert!(!is_named(&names, "etcd.svc"));
        assert!(!is_named(&names, "b.a.example"));
    }

    #[tokio::test]
    async fn an_address_must_be_named() {
        let env = crate::env::tokio::env();
        let from = |text: &str| text.parse::<IpAddr>().expect("an address");
        let nothing = Names::default();
        assert_eq!(check(&env, &nothing, from("1.2.3.4")).await, Ok(()));
        let names = Names { addresses: vec![from("10.0.0.1")], ..Names::default() };
        assert_eq!(check(&env, &names, from("::ffff:10.0.0.1")).await, Ok(()));
        let refused = check(&env, &names, from("127.0.0.1")).await.expect_err("another address");
        let why = "x509: certificate is valid for 10.0.0.1, not 127.0.0.1";
        assert_eq!(refused.to_string(), why);
        let names = Names { dns: vec!["localhost".into()], ..names };
        assert_eq!(check(&env, &names, from("127.0.0.1")).await, Ok(()));
        let refused = check(&env, &names, from("192.0.2.1")).await.expect_err("no name of it");
        let why = "tls: \"192.0.2.1\" does not match any of DNSNames [\"localhost\"]";
        assert!(refused.to_string().starts_with(why), "{refused}");
    }
}
