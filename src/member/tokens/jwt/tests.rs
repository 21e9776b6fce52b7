//! Tokens of another implementation, our own, and what must not pass for one.

use std::path::Path;

use super::*;
use crate::env;

/// Where the keys of tests are.
fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/member/tokens/testdata/jwt")
}

/// The names of a method's private and public key.
fn files(method: Method) -> (&'static str, &'static str) {
    match method {
        Method::Es256 => ("es256.key", "es256.pub"),
        Method::Es384 => ("es384.key", "es384.pub"),
        Method::Es512 => ("es512.key", "es512.pub"),
        Method::Hs256 | Method::Hs384 | Method::Hs512 => ("hs.key", ""),
        Method::EdDsa => ("eddsa.key", "eddsa.pub"),
        _ => ("rsa.key", "rsa.pub"),
    }
}

fn load(method: Method, private: &str, public: &str) -> Result<Jwt, String> {
    let path = |name: &str| (!name.is_empty()).then(|| dir().join(name));
    let (public_key, private_key) = (path(public), path(private));
    let ttl = Duration::from_secs(60);
    let options = JwtOptions { method, public_key, private_key, ttl };
    Jwt::load(&*env::tokio::env().disk, &options).map_err(|fatal| fatal.source.to_string())
}

fn with_both(method: Method) -> Jwt {
    let (private, public) = files(method);
    load(method, private, public).expect("the keys are of the method")
}

fn ann() -> Option<Principal> {
    Some(Principal { user: "ann".into(), revision: 7 })
}

const IN_2026: Duration = Duration::from_secs(1_790_000_000);
const IN_2101: Duration = Duration::from_secs(4_134_000_000);

#[tokio::test]
async fn tokens_of_another_implementation_are_taken_until_they_are_over() {
    let tokens = include_str!("../testdata/jwt/tokens.txt");
    let mut seen = Vec::new();
    for line in tokens.lines() {
        let (name, token) = line.split_once(' ').expect("a method and a token");
        let method = *Method::ALL.iter().find(|it| it.name() == name).expect("a method");
        let jwt = with_both(method);
        assert_eq!(jwt.verify(token, UNIX_EPOCH + IN_2026), ann(), "{name}");
        assert_eq!(jwt.verify(token, UNIX_EPOCH + IN_2101), None, "{name} is over");
        seen.push(method);
    }
    for method in Method::ALL {
        assert!(seen.contains(method), "no token is signed with {}", method.name());
    }
}

#[tokio::test]
async fn our_tokens_are_verified_by_the_public_key_alone() {
    let env = env::tokio::env();
    for &method in Method::ALL {
        let (private, public) = files(method);
        let signer = load(method, private, "").expect("a private key is enough");
        let token = signer.sign(&env, "ann", 7).expect("signs");
        let now = env.wall();
        assert_eq!(signer.verify(&token, now), ann(), "{}", method.name());
        if public.is_empty() {
            continue;
        }
        let verifier = load(method, "", public).expect("a public key is enough");
        assert_eq!(verifier.verify(&token, now), ann(), "{}", method.name());
        assert_eq!(verifier.sign(&env, "ann", 7), Err(Refused::VerifyOnly));
        let later = now + Duration::from_secs(61);
        assert_eq!(verifier.verify(&token, later), None, "{} is over", method.name());
    }
}

#[tokio::test]
async fn a_token_that_was_touched_is_none() {
    let (env, jwt) = (env::tokio::env(), with_both(Method::Es256));
    let token = jwt.sign(&env, "ann", 7).expect("signs");
    let parts: Vec<&str> = token.split('.').collect();
    let claims = json!({ "exp": 4_102_444_800_u64, "revision": 7, "username": "root" });
    let root = URL_SAFE_NO_PAD.encode(claims.to_string());
    let unsigned = URL_SAFE_NO_PAD.encode(json!({ "alg": "none", "typ": "JWT" }).to_string());
    for wrong in [
        String::new(),
        "a.b.c".into(),
        format!("{}.{root}.{}", parts[0], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{unsigned}.{root}."),
        format!("{}.{}", parts[0], parts[1]),
        format!("{token}.x"),
    ] {
        assert_eq!(jwt.verify(&wrong, env.wall()), None, "{wrong}");
    }
    // A public key is no secret: what is "signed" with it as one must not pass.
    let public = std::str::from_utf8(include_bytes!("../testdata/jwt/rsa.pub")).expect("text");
    let forged = Jwt {
        method: Method::Hs256,
        key: Key::Secret(public.as_bytes().to_vec()),
        ttl: Duration::from_secs(60),
    };
    let forged = forged.sign(&env, "root", 7).expect("signs");
    assert_eq!(with_both(Method::Rs256).verify(&forged, env.wall()), None);
}

#[tokio::test]
async fn keys_are_read_in_all_their_forms() {
    for (method, private, public) in [
        (Method::Rs256, "rsa-pkcs1.key", "rsa.pub"),
        (Method::Ps512, "rsa.key", "rsa-pkcs1.pub"),
        (Method::Rs256, "rsa.key", "rsa-cert.pem"),
        (Method::Rs256, "", "rsa-cert.pem"),
        (Method::Es256, "es256.key", "es256-cert.pem"),
        (Method::Es256, "es256-sec1.key", "es256.pub"),
        (Method::Es384, "es384-sec1.key", "es384.pub"),
        (Method::Es512, "es512-sec1.key", "es512.pub"),
    ] {
        assert!(load(method, private, public).is_ok(), "{private} with {public}");
    }
}

#[tokio::test]
async fn keys_that_do_not_fit_are_refused() {
    let why = |method, private, public| load(method, private, public).err().expect("refused");
    assert_eq!(why(Method::Rs256, "", ""), MISSING_KEY);
    assert_eq!(why(Method::Hs256, "", "rsa.pub"), MISSING_KEY);
    assert_eq!(why(Method::EdDsa, "", ""), MISSING_KEY);
    let of_another = "the key is not an EC private key of the sign-method, in PEM";
    assert_eq!(why(Method::Es256, "es384.key", ""), of_another);
    let no_key = "the key is not an RSA public key of the sign-method, in PEM";
    assert_eq!(why(Method::Rs256, "", "eddsa.pub"), no_key);
    assert_eq!(why(Method::Rs256, "", "es256-cert.pem"), no_key);
    let other = rsa_pair_of_its_own();
    assert_eq!(other.err().as_deref(), Some(KEY_MISMATCH));
}

/// A public key that is not the private one's.
fn rsa_pair_of_its_own() -> Loaded<rsa::PublicKey> {
    let read = |name| std::fs::read_to_string(dir().join(name)).expect("it is there");
    let private = rsa::PrivateKey::from_pkcs8_pem(&read("rsa.key")).expect("a key");
    let other = rsa::PublicKey::new(private.n().as_ref().clone(), 3_u8.into()).expect("a key");
    one_public(Some(private.to_public_key()), Some(other))
}
