//! Signed tokens (RFC 7519) with etcd's claims: `username`, `revision`, `exp`. A token carries the auth
//! revision of its login, so any change of users and roles invalidates it. Checks the signature and the time
//! only.
//!
//! Keys are PEM: private ones PKCS#8, PKCS#1 or SEC1, public ones SubjectPublicKeyInfo, PKCS#1 or a
//! certificate, which is not verified. Of HS* the private key is the file's bytes, as in etcd.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use rsa::pkcs1::{DecodeRsaPrivateKey, DecodeRsaPublicKey};
use rsa::pkcs8::{DecodePrivateKey, DecodePublicKey};
use rsa::rand_core::{TryCryptoRng, TryRng};
use rsa::signature::{RandomizedSigner, SignatureEncoding, Signer, Verifier};
use rsa::traits::PublicKeyParts;
use rsa::{pkcs1v15, pss};
use serde_json::{Value, json};
use sha2::{Sha256, Sha384, Sha512};

use crate::auth::Principal;
use crate::env::{Disk, Env, Open, Runtime};
use crate::error::{Fatal, Refused};
use crate::tls;

/// The options of `--auth-token=jwt,...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtOptions {
    pub method: Method,
    pub public_key: Option<PathBuf>,
    pub private_key: Option<PathBuf>,
    pub ttl: Duration,
}

macro_rules! methods {
    ($($variant:ident = $name:literal,)*) => {
        /// How tokens are signed, by the names of RFC 7518.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Method { $($variant,)* }

        impl Method {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

methods! {
    Rs256 = "RS256", Rs384 = "RS384", Rs512 = "RS512",
    Ps256 = "PS256", Ps384 = "PS384", Ps512 = "PS512",
    Es256 = "ES256", Es384 = "ES384", Es512 = "ES512",
    Hs256 = "HS256", Hs384 = "HS384", Hs512 = "HS512",
    EdDsa = "EdDSA",
}

/// A key that signs, or verifies, or both.
pub(in crate::member) struct Jwt {
    method: Method,
    key: Key,
    ttl: Duration,
}

/// etcd's text for invalid options.
pub const INVALID_OPTIONS: &str = "auth: invalid auth options";
const MISSING_KEY: &str = "auth: missing key data";
const KEY_MISMATCH: &str = "auth: public and private keys don't match";
/// A key file is not read beyond this.
const KEY_BYTES_MAX: u64 = 1 << 20;

impl Jwt {
    /// Reads the key files. Blocks.
    pub fn load(disk: &dyn Disk, options: &JwtOptions) -> Result<Self, Fatal> {
        let read = |path: &Option<PathBuf>| -> Result<Option<Vec<u8>>, Fatal> {
            let Some(path) = path else { return Ok(None) };
            let bytes = read_file(disk, path).map_err(|error| {
                let context = format!("--auth-token: {INVALID_OPTIONS}: {}", path.display());
                Fatal::new(context, error)
            })?;
            // etcd treats an empty file as no key.
            Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
        };
        let (public, private) = (read(&options.public_key)?, read(&options.private_key)?);
        let key = Key::new(options.method, public.as_deref(), private.as_deref());
        let key = key.map_err(|why| Fatal::new("--auth-token", why))?;
        Ok(Self { method: options.method, key, ttl: options.ttl })
    }

    pub fn sign(&self, env: &Env, user: &str, revision: u64) -> Result<String, Refused> {
        let until = seconds(env.wall() + self.ttl);
        let header = json!({ "alg": self.method.name(), "typ": "JWT" });
        let claims = json!({ "exp": until, "revision": revision, "username": user });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let mut token = format!("{}.{}", part(&header), part(&claims));
        let mut random = Random(env.rt.clone());
        let signature = self.key.sign(self.method, token.as_bytes(), &mut random)?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(token)
    }

    /// The user of a token that is valid at `now`.
    pub fn verify(&self, token: &str, now: SystemTime) -> Option<Principal> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let part = |text: &str| -> Option<Value> {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
        };
        let (header, claims) = (part(header)?, part(claims)?);
        // The method is that of the options, not that of the token.
        if header.get("alg")?.as_str()? != self.method.name() {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        if !self.key.verify(self.method, signed.as_bytes(), &signature) {
            return None;
        }
        let now = now.duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
        let time = |name: &str| match claims.get(name) {
            None => Some(None),
            Some(value) => value.as_f64().map(Some),
        };
        let over = time("exp")?.is_some_and(|exp| now >= exp);
        let early = time("nbf")?.is_some_and(|nbf| now < nbf);
        if over || early {
            return None;
        }
        let user = claims.get("username")?.as_str()?.to_owned();
        let revision = claims.get("revision")?.as_f64()?;
        Some(Principal { user, revision: revision as u64 })
    }
}

/// Both halves, or the public one alone, which verifies only.
struct Pair<S, V> {
    private: Option<S>,
    public: V,
}

enum Key {
    Secret(Vec<u8>),
    Rsa(Box<Pair<rsa::PrivateKey, rsa::PublicKey>>),
    P256(Box<Pair<p256::ecdsa::SigningKey, p256::ecdsa::VerifyingKey>>),
    P384(Box<Pair<p384::ecdsa::SigningKey, p384::ecdsa::VerifyingKey>>),
    P521(Box<Pair<p521::ecdsa::SigningKey, p521::ecdsa::VerifyingKey>>),
    Ed(Box<Pair<ed25519_dalek::SigningKey, ed25519_dalek::VerifyingKey>>),
}

type Loaded<T> = Result<T, String>;

/// A key pair of one elliptic curve; the crates have the same names for each.
macro_rules! curve {
    ($curve:ident, $kind:ident, $public:expr, $private:expr) => {{
        let private = pem($private, "an EC private key", |text| {
            let key = $curve::SecretKey::from_sec1_pem(text).ok();
            key.or_else(|| $curve::SecretKey::from_pkcs8_pem(text).ok())
        })?;
        let public = pem($public, "an EC public key", |text| {
            $curve::PublicKey::from_public_key_pem(text).ok()
        })?;
        let own = private.as_ref().map(|private| private.public_key());
        let public = one_public(own, public)?;
        let private = private.map($curve::ecdsa::SigningKey::from);
        let public = $curve::ecdsa::VerifyingKey::from_affine(*public.as_affine());
        Key::$kind(Box::new(Pair { private, public: public.map_err(|e| e.to_string())? }))
    }};
}

impl Key {
    fn new(method: Method, public: Option<&[u8]>, private: Option<&[u8]>) -> Loaded<Self> {
        // As in etcd, that of an Edwards curve is not taken out of a certificate.
        let of_certificate = public.filter(|_| method != Method::EdDsa).and_then(tls::public_key);
        let public = of_certificate.as_ref().map(|key| key.as_bytes()).or(public);
        Ok(match method {
            Method::Hs256 | Method::Hs384 | Method::Hs512 => {
                Self::Secret(private.ok_or(MISSING_KEY)?.to_vec())
            }
            Method::Es256 => curve!(p256, P256, public, private),
            Method::Es384 => curve!(p384, P384, public, private),
            Method::Es512 => curve!(p521, P521, public, private),
            Method::EdDsa => {
                let private = pem(private, "an Ed25519 private key", |text| {
                    ed25519_dalek::SigningKey::from_pkcs8_pem(text).ok()
                })?;
                let public = pem(public, "an Ed25519 public key", |text| {
                    ed25519_dalek::VerifyingKey::from_public_key_pem(text).ok()
                })?;
                let own = private.as_ref().map(|private| private.verifying_key());
                let public = one_public(own, public)?;
                Self::Ed(Box::new(Pair { private, public }))
            }
            _ => {
                let private = pem(private, "an RSA private key", |text| {
                    let key = rsa::PrivateKey::from_pkcs8_pem(text).ok();
                    key.or_else(|| rsa::PrivateKey::from_pkcs1_pem(text).ok())
                })?;
                let public = pem(public, "an RSA public key", |text| {
                    let key = rsa::PublicKey::from_public_key_pem(text).ok();
                    key.or_else(|| rsa::PublicKey::from_pkcs1_pem(text).ok())
                })?;
                let own = private.as_ref().map(rsa::PrivateKey::to_public_key);
                let public = one_public(own, public)?;
                Self::Rsa(Box::new(Pair { private, public }))
            }
        })
    }

    fn sign(&self, method: Method, text: &[u8], random: &mut Random) -> Result<Vec<u8>, Refused> {
        macro_rules! curve {
            ($curve:ident, $pair:expr) => {{
                let private = $pair.private.as_ref().ok_or(Refused::VerifyOnly)?;
                let signature: Result<$curve::ecdsa::Signature, _> =
                    private.try_sign_with_rng(random, text);
                signature.map(|signature| signature.to_bytes().to_vec()).ok()
            }};
        }
        let signature = match self {
            Self::Secret(secret) => Some(match method {
                Method::Hs384 => mac::<Hmac<Sha384>>(secret, text).finalize().into_bytes().to_vec(),
                Method::Hs512 => mac::<Hmac<Sha512>>(secret, text).finalize().into_bytes().to_vec(),
                _ => mac::<Hmac<Sha256>>(secret, text).finalize().into_bytes().to_vec(),
            }),
            Self::P256(pair) => curve!(p256, pair),
            Self::P384(pair) => curve!(p384, pair),
            Self::P521(pair) => curve!(p521, pair),
            Self::Ed(pair) => {
                let private = pair.private.as_ref().ok_or(Refused::VerifyOnly)?;
                private.try_sign(text).map(|made| made.to_bytes().to_vec()).ok()
            }
            Self::Rsa(pair) => {
                let private = pair.private.as_ref().ok_or(Refused::VerifyOnly)?;
                sign_rsa(method, private.clone(), text, random)
            }
        };
        // What cannot be signed with is a key too small for its method.
        signature.ok_or(Refused::AuthFailed)
    }

    fn verify(&self, method: Method, text: &[u8], signature: &[u8]) -> bool {
        macro_rules! curve {
            ($curve:ident, $pair:expr) => {
                $curve::ecdsa::Signature::from_slice(signature)
                    .is_ok_and(|signature| $pair.public.verify(text, &signature).is_ok())
            };
        }
        match self {
            Self::Secret(secret) => match method {
                Method::Hs384 => mac::<Hmac<Sha384>>(secret, text).verify_slice(signature).is_ok(),
                Method::Hs512 => mac::<Hmac<Sha512>>(secret, text).verify_slice(signature).is_ok(),
                _ => mac::<Hmac<Sha256>>(secret, text).verify_slice(signature).is_ok(),
            },
            Self::P256(pair) => curve!(p256, pair),
            Self::P384(pair) => curve!(p384, pair),
            Self::P521(pair) => curve!(p521, pair),
            Self::Ed(pair) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| pair.public.verify(text, &signature).is_ok()),
            Self::Rsa(pair) => verify_rsa(method, &pair.public, text, signature),
        }
    }
}

fn mac<M: Mac + KeyInit>(secret: &[u8], text: &[u8]) -> M {
    let keyed = <M as KeyInit>::new_from_slice(secret).expect("a MAC takes a key of any length");
    keyed.chain_update(text)
}

fn sign_rsa(
    method: Method,
    key: rsa::PrivateKey,
    text: &[u8],
    random: &mut Random,
) -> Option<Vec<u8>> {
    macro_rules! sign {
        ($signer:expr) => {
            $signer.try_sign_with_rng(random, text).map(|made| made.to_vec()).ok()
        };
    }
    match method {
        Method::Rs384 => sign!(pkcs1v15::SigningKey::<Sha384>::new(key)),
        Method::Rs512 => sign!(pkcs1v15::SigningKey::<Sha512>::new(key)),
        Method::Ps256 => sign!(pss::SigningKey::<Sha256>::new(key)),
        Method::Ps384 => sign!(pss::SigningKey::<Sha384>::new(key)),
        Method::Ps512 => sign!(pss::SigningKey::<Sha512>::new(key)),
        _ => sign!(pkcs1v15::SigningKey::<Sha256>::new(key)),
    }
}

fn verify_rsa(method: Method, key: &rsa::PublicKey, text: &[u8], signature: &[u8]) -> bool {
    macro_rules! plain {
        ($hash:ty) => {
            pkcs1v15::Signature::try_from(signature).is_ok_and(|signature| {
                let key = pkcs1v15::VerifyingKey::<$hash>::new(key.clone());
                key.verify(text, &signature).is_ok()
            })
        };
    }
    macro_rules! salted {
        ($hash:ty, $hash_bytes:literal) => {
            pss::Signature::try_from(signature).is_ok_and(|signature| {
                // As long as the hash, which is ours, or as long as there is room for.
                let longest = key.size().checked_sub(2 + $hash_bytes).unwrap_or($hash_bytes);
                [$hash_bytes, longest].into_iter().any(|salt_bytes| {
                    let key = key.clone();
                    let key = pss::VerifyingKey::<$hash>::new_with_salt_len(key, salt_bytes);
                    key.verify(text, &signature).is_ok()
                })
            })
        };
    }
    match method {
        Method::Rs384 => plain!(Sha384),
        Method::Rs512 => plain!(Sha512),
        Method::Ps256 => salted!(Sha256, 32),
        Method::Ps384 => salted!(Sha384, 48),
        Method::Ps512 => salted!(Sha512, 64),
        _ => plain!(Sha256),
    }
}

/// Reads a key out of PEM, if one is given.
fn pem<T>(
    bytes: Option<&[u8]>,
    what: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Loaded<Option<T>> {
    let Some(bytes) = bytes else { return Ok(None) };
    let text = std::str::from_utf8(bytes).ok().and_then(read);
    text.map(Some).ok_or_else(|| format!("the key is not {what} of the sign-method, in PEM"))
}

/// The public key: that of the private one, the one given, which must be the same if both are there.
fn one_public<T: PartialEq>(own: Option<T>, given: Option<T>) -> Loaded<T> {
    match (own, given) {
        (None, None) => Err(MISSING_KEY.into()),
        (Some(own), Some(given)) if own != given => Err(KEY_MISMATCH.into()),
        (Some(key), _) | (None, Some(key)) => Ok(key),
    }
}

fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Open::Read)?;
    let bytes = usize::try_from(file.len()?.min(KEY_BYTES_MAX)).expect("a bound that fits");
    let mut buf = vec![0; bytes];
    let read = file.read_at(&mut buf, 0)?;
    buf.truncate(read);
    Ok(buf)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The environment's random numbers, for signatures.
struct Random(Arc<dyn Runtime>);

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill_random(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill_random(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill_random(dest);
        Ok(())
    }
}

impl TryCryptoRng for Random {}

#[cfg(test)]
mod tests;
