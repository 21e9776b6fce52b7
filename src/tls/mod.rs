//! Secured streams: TLS for the connections of clients and members, as etcd configures it (3.7,
//! `client/pkg/transport`, `client/pkg/tlsutil`). It opens no socket and speaks no protocol inside a
//! stream: an [`Acceptor`] and a [`Dialer`] make a secured [`crate::env::BoxConn`] of a plain one.
//!
//! Rules that are etcd's:
//! * A listener requires certificates of clients when it has a CA or `client-cert-auth`.
//!   Without a CA, the system's CAs count.
//! * The names of a certificate are its alternative names; the common name is no host.
//! * A member that connects to the peer port must come from an address that its certificate names.
//! * A revocation list counts by serial number, whatever its issuer, at listeners only.
//! * Certificates that a member makes for itself encrypt and prove nothing.
//!
//! Invariants:
//! * A changed file counts for new connections within a second, and for no other; one that cannot be
//!   used fails them. Handshakes do not each read the files.
//! * Every session is a whole handshake: nothing is resumed, so nothing escapes a check.
//! * A handshake has a time limit. Handshakes do not wait for each other.
//! * Time comes from the environment. Randomness comes from `ring`, which takes it from the
//!   system and from no other source; the simulator replaces that source.
//!
//! Reading order: this file (settings), [`url`] (the syntax of URLs), [`target`] (where one leads), `suites`
//! (versions, cipher suites), `files` (reading, reading again), `certificate` (its fields), `verify`
//! (chains), `path` (CAs that are clients), `reason` (of a failure), `accept`, `origin` (the address that a
//! member connects from), `dial`, [`either`] (TLS or not), `self_signed`.

mod accept;
mod certificate;
mod dial;
pub mod either;
mod files;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod origin;
mod path;
mod reason;
mod self_signed;
pub mod suites;
pub mod target;
pub mod url;
mod verify;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use accept::{Accepted, Acceptor, Port, Rejected};
pub use certificate::public_key;
pub use dial::Dialer;
pub use self_signed::pem;
use suites::Protocol;
pub use target::Target;

use crate::env::{Env, Place};

/// What one side of a member is secured with: its client port, or all that goes between members. An
/// empty path is one that is not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Shown when connecting, in place of the pair above.
    pub client_cert_file: PathBuf,
    pub client_key_file: PathBuf,
    pub trusted_ca_file: PathBuf,
    pub client_cert_auth: bool,
    pub crl_file: PathBuf,
    /// The common names that are accepted; all when empty.
    pub allowed_cns: Vec<String>,
    /// The same, by alternative names.
    pub allowed_hostnames: Vec<String>,
    /// Does not check the addresses from which members connect.
    pub skip_client_san_verification: bool,
    /// What a server's certificate must name, in place of the host that was connected to.
    pub server_name: String,
    /// The certificate that is shown when connecting must have no common name: a proxy must not be taken
    /// for a user.
    pub nameless: bool,
    /// Accepts any server certificate.
    pub insecure_skip_verify: bool,
    pub protocol: Protocol,
    /// A certificate to be made where there is none; see [`Settings::prepare`].
    pub generate: Option<Generate>,
}

/// A certificate that a member makes for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generate {
    /// Where `cert.pem` and `key.pem` lie, or will.
    pub dir: PathBuf,
    /// Names and addresses that it is for.
    pub hosts: Vec<String>,
    pub years: u64,
}

impl Settings {
    /// Whether there is a certificate for a listener.
    pub fn has_certificate(&self) -> bool {
        is_given(&self.cert_file) || is_given(&self.key_file)
    }

    /// The rules that need no file, with etcd's texts.
    pub fn check(&self) -> Result<(), TlsError> {
        let (cert, key) = (&self.cert_file, &self.key_file);
        if !is_given(cert) || !is_given(key) {
            return Err(TlsError::new(format!(
                "KeyFile and CertFile must both be present[key: {}, cert: {}]",
                key.display(),
                cert.display()
            )));
        }
        let (cert, key) = (&self.client_cert_file, &self.client_key_file);
        if is_given(cert) != is_given(key) {
            return Err(TlsError::new(format!(
                "ClientKeyFile and ClientCertFile must both be present or both absent: key: {}, \
                 cert: {}]",
                key.display(),
                cert.display()
            )));
        }
        if !self.allowed_cns.is_empty() && !self.allowed_hostnames.is_empty() {
            return Err(TlsError::new(format!(
                "AllowedCNs and AllowedHostnames are mutually exclusive (cns={:?}, hostnames={:?})",
                self.allowed_cns, self.allowed_hostnames
            )));
        }
        Ok(())
    }

    /// Makes the certificate that is to be made, unless it is there from an earlier start. The
    /// other settings are then reset as in etcd: no CA, no client certificates.
    pub async fn prepare(&mut self, env: &Env) -> Result<(), TlsError> {
        let Some(generate) = self.generate.take() else { return Ok(()) };
        let (cert_file, key_file) = self_signed::make(env, &generate).await?;
        *self = Self {
            cert_file: cert_file.clone(),
            key_file: key_file.clone(),
            client_cert_file: cert_file,
            client_key_file: key_file,
            insecure_skip_verify: true,
            protocol: std::mem::take(&mut self.protocol),
            ..Self::default()
        };
        Ok(())
    }

    /// Whether clients must show a certificate.
    fn asks_clients(&self) -> bool {
        is_given(&self.trusted_ca_file) || self.client_cert_auth
    }

    /// The certificate and key that are shown when connecting.
    fn client_pair(&self) -> (&Path, &Path) {
        match is_given(&self.client_cert_file) {
            true => (&self.client_cert_file, &self.client_key_file),
            false => (&self.cert_file, &self.key_file),
        }
    }
}

impl std::fmt::Display for Settings {
    /// As etcd logs it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "cert = {}, key = {}, client-cert={}, client-key={}, trusted-ca = {}, \
             client-cert-auth = {}, crl-file = {}",
            self.cert_file.display(),
            self.key_file.display(),
            self.client_cert_file.display(),
            self.client_key_file.display(),
            self.trusted_ca_file.display(),
            self.client_cert_auth,
            self.crl_file.display()
        )
    }
}

fn is_given(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

/// One address to listen on, and whether its URL's scheme requires TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub place: Place,
    /// `https` and `unixs`.
    pub secure: bool,
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self { place: Place::Tcp(address), secure: false }
    }
}

impl Listen {
    /// The address, unless it is a unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.place {
            Place::Tcp(address) => Some(address),
            Place::Unix(_) => None,
        }
    }
}

/// The common name of a client's verified certificate. A request carries it as
/// an extension when its connection was verified because of `client-cert-auth`: where authentication is
/// on and the request has no token, this is its user (etcd, `AuthInfoFromTLS`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientName(pub Arc<str>);

/// Why a stream cannot be secured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(Arc<str>);

impl TlsError {
    fn new(why: impl AsRef<str>) -> Self {
        Self(why.as_ref().into())
    }
}

#[cfg(test)]
mod tests;
