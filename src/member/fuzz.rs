//! What foreign bytes reach here, for fuzzing.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::tokens::jwt::{Jwt, JwtOptions, Method};
use crate::env::Disk;

/// Reads signed tokens; `key` names the file of the secret on `disk`.
pub struct Tokens(Jwt);

impl Tokens {
    pub fn new(disk: &dyn Disk, key: &Path) -> Self {
        let private_key = Some(key.to_owned());
        let ttl = Duration::from_secs(300);
        let options = JwtOptions { method: Method::Hs256, public_key: None, private_key, ttl };
        Self(Jwt::load(disk, &options).expect("a secret is any bytes"))
    }

    /// Verifies the text as a token, and a token that is built from the text and signed correctly.
    pub fn read(&self, text: &str, secret: &[u8]) {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        drop(self.0.verify(text, now));
        if let Some((header, claims)) = text.split_once("}.{") {
            let part = |text: String| URL_SAFE_NO_PAD.encode(text);
            let signed = format!("{}.{}", part(format!("{header}}}")), part(format!("{{{claims}")));
            let mac = Hmac::<Sha256>::new_from_slice(secret).expect("a secret of any length");
            let signature = mac.chain_update(&signed).finalize().into_bytes();
            let signature = URL_SAFE_NO_PAD.encode(signature);
            drop(self.0.verify(&format!("{signed}.{signature}"), now));
        }
    }
}
