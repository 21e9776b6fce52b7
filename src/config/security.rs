//! TLS on the command line: the flags, and what they come to for the client port and for everything
//! between members, with etcd's texts. No file is looked at.

use std::path::{Path, PathBuf};

use super::flags::{Flag, served, set, text};
use super::urls::Url;
use super::{Notice, Values, go};
use crate::tls::suites::Protocol;
use crate::tls::{self, Generate};

/// Turns what was given into what is used.
pub(super) fn settle(values: &mut Values, notices: &mut Vec<Notice>) -> Result<(), String> {
    let protocol = Protocol::parse(&values.tls_min, &values.tls_max, &values.cipher_suites)?;
    values.peer_tls.protocol = protocol.clone();
    values.client_tls.protocol = protocol;
    settle_peers(values, notices)?;
    settle_clients(values, notices)
}

fn settle_peers(values: &mut Values, notices: &mut Vec<Notice>) -> Result<(), String> {
    let (tls, urls) = (&mut values.peer_tls, &values.listen_peer);
    if values.peer_auto_tls && tls.has_certificate() {
        notices.push(ignored("ignoring peer auto TLS since certs given", None));
    } else if values.peer_auto_tls {
        let urls: Vec<&Url> = urls.iter().collect();
        notices.extend(checks_clients(tls).then(|| {
            let what = "ignoring --peer-client-cert-auth and --peer-trusted-ca-file since \
                        --peer-auto-tls is set: members are not checked";
            ignored(what, None)
        }));
        tls.generate = Some(generate(&values.data_dir, "peer", &urls, values.self_signed_years));
        return Ok(());
    }
    for url in urls.iter().filter(|url| url.scheme() == "http") {
        if tls.has_certificate() {
            let what = "scheme is HTTP while key and cert files are present; ignoring key and cert \
                        files";
            notices.push(ignored(what, Some(url)));
        }
        if tls.client_cert_auth {
            let what = "scheme is HTTP while --peer-client-cert-auth is enabled; ignoring client \
                        cert auth for this URL";
            notices.push(ignored(what, Some(url)));
        }
    }
    let secure = urls.iter().find(|url| url.is_secure());
    if let Some(url) = secure.filter(|_| !tls.has_certificate()) {
        let address = url.listen()?.place;
        return Err(format!(
            "cannot listen on TLS for {address}: KeyFile and CertFile are not presented"
        ));
    }
    // Members also connect, so a certificate counts even where none of them is secured.
    match tls.has_certificate() {
        true => tls.check().map_err(|error| error.to_string()),
        false => Ok(()),
    }
}

fn settle_clients(values: &mut Values, notices: &mut Vec<Notice>) -> Result<(), String> {
    let tls = &mut values.client_tls;
    let urls: Vec<&Url> = values.listen_client.iter().chain(&values.listen_client_http).collect();
    if values.client_auto_tls && tls.has_certificate() {
        notices.push(ignored("ignoring client auto TLS since certs given", None));
    } else if values.client_auto_tls {
        // As in etcd a generated certificate stands alone; etcd does not mention it.
        notices.extend(checks_clients(tls).then(|| {
            let what = "ignoring --client-cert-auth and --trusted-ca-file since --auto-tls is set: \
                        clients are not checked";
            ignored(what, None)
        }));
        tls.generate = Some(generate(&values.data_dir, "client", &urls, values.self_signed_years));
        return Ok(());
    }
    for url in urls.iter().copied().filter(|url| !url.is_secure()) {
        if tls.has_certificate() {
            let what = "scheme is http or unix while key and cert files are present; ignoring key \
                        and cert files";
            notices.push(ignored(what, Some(url)));
        }
        if tls.client_cert_auth {
            let what = "scheme is http or unix while --client-cert-auth is enabled; ignoring client \
                        cert auth for this URL";
            notices.push(ignored(what, Some(url)));
        }
    }
    let secure = urls.iter().copied().find(|url| url.is_secure());
    let metrics = values.listen_metrics.iter().find(|url| url.is_secure());
    match (secure, metrics) {
        (None, None) => Ok(()),
        _ if tls.has_certificate() => tls.check().map_err(|error| error.to_string()),
        (Some(url), _) => Err(format!(
            "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with \
             HTTPS scheme"
        )),
        (None, Some(_)) => {
            Err("client TLS key/cert (--cert-file, --key-file) must be provided for \
                                metrics secure url"
                .into())
        }
    }
}

fn generate(data_dir: &str, side: &str, urls: &[&Url], years: u64) -> Generate {
    let hosts = urls.iter().map(|url| url.host().to_owned()).filter(|host| !host.is_empty());
    Generate { dir: Path::new(data_dir).join("fixtures").join(side), hosts: hosts.collect(), years }
}

/// Whether a certificate is required of the other side.
fn checks_clients(tls: &tls::Settings) -> bool {
    tls.client_cert_auth || !tls.trusted_ca_file.as_os_str().is_empty()
}

fn ignored(what: &'static str, url: Option<&Url>) -> Notice {
    Notice::IgnoredSecurity { what, url: url.map(Url::to_string).unwrap_or_default() }
}

fn path(value: &str) -> Result<PathBuf, String> {
    Ok(value.into())
}

/// Separated by commas; none when empty.
fn list(value: &str) -> Result<Vec<String>, String> {
    Ok(value.split(',').filter(|_| !value.is_empty()).map(str::to_owned).collect())
}

pub(super) const FLAGS: &[Flag] = &[
    served!(
        Security,
        "cert-file",
        "",
        set!(client_tls.cert_file, path),
        "The client port's certificate (PEM)."
    ),
    served!(
        Security,
        "key-file",
        "",
        set!(client_tls.key_file, path),
        "The key of --cert-file (PEM)."
    ),
    served!(
        Security,
        "client-cert-file",
        "",
        set!(client_tls.client_cert_file, path),
        "For etcd's own connections to its client port, of which there are none here."
    ),
    served!(
        Security,
        "client-key-file",
        "",
        set!(client_tls.client_key_file, path),
        "The key of --client-cert-file."
    ),
    served!(
        Security,
        "client-cert-auth",
        bool,
        "false",
        set!(client_tls.client_cert_auth, go::bool),
        "Let in clients with a certificate only; its common name is the user."
    ),
    served!(
        Security,
        "client-crl-file",
        "",
        set!(client_tls.crl_file, path),
        "Revoked certificates of clients (DER or PEM)."
    ),
    served!(
        Security,
        "client-cert-allowed-hostname",
        list,
        "",
        set!(client_tls.allowed_hostnames, list),
        "Alternative names, one of which a client's certificate must have."
    ),
    served!(
        Security,
        "trusted-ca-file",
        "",
        set!(client_tls.trusted_ca_file, path),
        "CAs of clients (PEM); with it, clients must have a certificate."
    ),
    served!(
        Security,
        "auto-tls",
        bool,
        "false",
        set!(client_auto_tls, go::bool),
        "Make the client port's certificate."
    ),
    served!(
        Security,
        "peer-cert-file",
        "",
        set!(peer_tls.cert_file, path),
        "The peer port's certificate (PEM), shown to other members as well."
    ),
    served!(
        Security,
        "peer-key-file",
        "",
        set!(peer_tls.key_file, path),
        "The key of --peer-cert-file (PEM)."
    ),
    served!(
        Security,
        "peer-client-cert-file",
        "",
        set!(peer_tls.client_cert_file, path),
        "The certificate shown to other members, if it is another one."
    ),
    served!(
        Security,
        "peer-client-key-file",
        "",
        set!(peer_tls.client_key_file, path),
        "The key of --peer-client-cert-file."
    ),
    served!(
        Security,
        "peer-client-cert-auth",
        bool,
        "false",
        set!(peer_tls.client_cert_auth, go::bool),
        "Let in members with a certificate only."
    ),
    served!(
        Security,
        "peer-trusted-ca-file",
        "",
        set!(peer_tls.trusted_ca_file, path),
        "CAs of members (PEM); with it, members must have a certificate."
    ),
    served!(
        Security,
        "peer-auto-tls",
        bool,
        "false",
        set!(peer_auto_tls, go::bool),
        "Make the peer port's certificate."
    ),
    served!(
        Security,
        "peer-crl-file",
        "",
        set!(peer_tls.crl_file, path),
        "Revoked certificates of members (DER or PEM)."
    ),
    served!(
        Security,
        "peer-cert-allowed-cn",
        list,
        "",
        set!(peer_tls.allowed_cns, list),
        "Common names, one of which a member's certificate must have."
    ),
    served!(
        Security,
        "peer-cert-allowed-hostname",
        list,
        "",
        set!(peer_tls.allowed_hostnames, list),
        "Alternative names, one of which a member's certificate must have."
    ),
    served!(
        Features,
        "peer-skip-client-san-verification",
        bool,
        "false",
        set!(peer_tls.skip_client_san_verification, go::bool),
        "Let members in from other addresses than their certificates name."
    ),
    served!(
        Security,
        "self-signed-cert-validity",
        uint,
        "1",
        set!(self_signed_years, go::uint),
        "Years for which the certificates of --auto-tls and --peer-auto-tls are valid."
    ),
    served!(
        Security,
        "cipher-suites",
        list,
        "",
        set!(cipher_suites, list),
        "Cipher suites of TLS 1.2, by Go's names, the most wanted first; all when empty."
    ),
    served!(
        Security,
        "tls-min-version",
        "TLS1.2",
        set!(tls_min, text),
        "Oldest version spoken: TLS1.2 or TLS1.3."
    ),
    served!(
        Security,
        "tls-max-version",
        "",
        set!(tls_max, text),
        "Newest version spoken: TLS1.2 or TLS1.3; the newest there is when empty."
    ),
];
