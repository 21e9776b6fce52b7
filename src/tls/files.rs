//! Certificates, keys, CAs and revocation lists on disk, and whether they have changed. What is made
//! of them is kept for as long as their bytes stay the same. Their contents are not interpreted here.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tracing::{info, warn};

use super::{Settings, TlsError, certificate, is_given};
use crate::env::{Disk, Env, Open, Work};
use crate::limits::{TLS_FILE_BYTES_MAX, TLS_FILES_FRESH};

/// The files in which Linux distributions keep the trusted CAs; the first one that exists is used.
const SYSTEM_CAS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// For which end of a connection files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Listener,
    Dialer,
}

/// What the files hold; `None` for one that is not given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents {
    pub pair: Option<Pair>,
    pub ca: Option<Vec<u8>>,
    /// A list that cannot be read refuses all certificates.
    pub crl: Option<Result<Vec<u8>, TlsError>>,
}

/// A certificate and its key, and where they come from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub cert_file: PathBuf,
    pub cert: Vec<u8>,
    pub key: Vec<u8>,
}

impl Contents {
    pub(super) fn read(disk: &dyn Disk, settings: &Settings, end: End) -> Result<Self, TlsError> {
        let (cert_file, key_file) = match end {
            End::Listener => (&*settings.cert_file, &*settings.key_file),
            End::Dialer => settings.client_pair(),
        };
        let pair = match is_given(cert_file) {
            true => Some(Pair {
                cert_file: cert_file.to_owned(),
                cert: read(disk, cert_file)?,
                key: read(disk, key_file)?,
            }),
            false => None,
        };
        let given = |path| Some(path).filter(|path: &&PathBuf| is_given(path));
        let ca = given(&settings.trusted_ca_file).map(|path| read(disk, path)).transpose()?;
        let crl = given(&settings.crl_file).filter(|_| end == End::Listener);
        Ok(Self { pair, ca, crl: crl.map(|path| read(disk, path)) })
    }
}

impl Pair {
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let chain = certificates(&self.cert)?;
        match chain.is_empty() {
            true => Err(self.bad("tls: failed to find any PEM data in certificate input")),
            false => Ok(chain),
        }
    }

    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| self.bad(&format!("tls: failed to find a private key: {error}")))
    }

    /// Why the TLS library does not take this pair, in Go's words for a key that is another certificate's.
    pub fn refused(&self, error: &rustls::Error) -> TlsError {
        if let rustls::Error::InconsistentKeys(_) = error {
            return self.bad("tls: private key does not match public key");
        }
        let chain = self.chain().unwrap_or_default();
        let unserved = chain.first().and_then(|der| certificate::unserved_key(der));
        self.bad(&unserved.unwrap_or_else(|| error.to_string()))
    }

    /// What is wrong with this pair.
    pub fn bad(&self, why: &str) -> TlsError {
        TlsError::new(format!("{}: {why}", self.cert_file.display()))
    }
}

/// The certificates in a PEM file; whatever else is in it is passed over.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    found.map_err(|error| TlsError::new(format!("bad PEM: {error}")))
}

/// A revocation list's DER, which may stand in PEM.
pub(super) fn revocation_list(bytes: &[u8]) -> Vec<u8> {
    let sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes);
    let crl = sections.flatten().find(|(kind, _)| *kind == SectionKind::Crl);
    crl.map_or_else(|| bytes.to_vec(), |(_, der)| der)
}

/// The certificates of the CAs that this machine trusts; none if they are kept elsewhere.
pub(super) fn system_authorities(disk: &dyn Disk) -> Vec<CertificateDer<'static>> {
    let found = SYSTEM_CAS.iter().find_map(|path| read(disk, Path::new(path)).ok());
    found.and_then(|pem| certificates(&pem).ok()).unwrap_or_default()
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |error: io::Error| {
        let why = match error.kind() {
            io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        };
        TlsError::new(format!("open {}: {why}", path.display()))
    };
    let file = disk.open(path, Open::Read).map_err(failed)?;
    let len = file.len().map_err(failed)?;
    if len > TLS_FILE_BYTES_MAX {
        return Err(TlsError::new(format!("{} is larger than any such file", path.display())));
    }
    let mut bytes = vec![0; usize::try_from(len).expect("the bound is far below")];
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], done as u64).map_err(failed)? {
            0 => break,
            more => done += more,
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// What is made of the files, made anew when they have changed. They are compared when the last
/// comparison is older than [`TLS_FILES_FRESH`]: one comparison serves all handshakes meanwhile.
pub(super) struct Reloading<T> {
    env: Env,
    settings: Settings,
    end: End,
    build: Build<T>,
    state: Mutex<State<T>>,
    /// When the last comparison began, and its outcome. Locked while one is on its way.
    last: tokio::sync::Mutex<Option<Compared<T>>>,
}

/// When files were compared, and the outcome.
type Compared<T> = (Instant, Result<Arc<T>, TlsError>);
type Build<T> = Box<dyn Fn(&dyn Disk, &Settings, &Contents) -> Result<T, TlsError> + Send + Sync>;

struct State<T> {
    made: Option<(Contents, Arc<T>)>,
    /// Why nothing could be made of the files the last time, so that it is logged once.
    failure: Option<TlsError>,
}

impl<T: Send + Sync + 'static> Reloading<T> {
    pub fn new(env: Env, settings: Settings, end: End, build: Build<T>) -> Arc<Self> {
        let state = Mutex::new(State { made: None, failure: None });
        let last = tokio::sync::Mutex::new(None);
        Arc::new(Self { env, settings, end, build, state, last })
    }

    /// What the files held at some time within the last [`TLS_FILES_FRESH`].
    pub async fn current(self: &Arc<Self>) -> Result<Arc<T>, TlsError> {
        let mut last = self.last.lock().await;
        let now = self.env.now();
        if let Some((at, outcome)) = &*last
            && now < *at + TLS_FILES_FRESH
        {
            return outcome.clone();
        }
        let this = self.clone();
        let compare = move || this.look();
        let outcome = self.env.blocking_for(Work::Tls, "read certificates", compare).await;
        *last = Some((now, outcome.clone()));
        outcome
    }

    fn look(&self) -> Result<Arc<T>, TlsError> {
        let looked = self.make();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match looked {
            Ok((contents, made)) => {
                let changed = state.made.as_ref().is_some_and(|(before, _)| *before != contents);
                if changed || state.failure.take().is_some() {
                    info!(tls_info = %self.settings, "reloaded certificates");
                }
                state.made = Some((contents, made.clone()));
                Ok(made)
            }
            Err(error) => {
                if state.failure.replace(error.clone()).as_ref() != Some(&error) {
                    let what = match self.end {
                        End::Listener => "failed to create peer certificate",
                        End::Dialer => "failed to create client certificate",
                    };
                    warn!(tls_info = %self.settings, %error, "{what}");
                }
                Err(error)
            }
        }
    }

    /// Reads the files and takes what was made of them before if they are as they were.
    fn make(&self) -> Result<(Contents, Arc<T>), TlsError> {
        let disk = &*self.env.disk;
        let contents = Contents::read(disk, &self.settings, self.end)?;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let known = state.made.as_ref().filter(|(before, _)| *before == contents);
        if let Some(made) = known.map(|(_, made)| made.clone()) {
            return Ok((contents, made));
        }
        drop(state);
        let made = Arc::new((self.build)(disk, &self.settings, &contents)?);
        Ok((contents, made))
    }
}
