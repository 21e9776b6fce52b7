//! The certificates that programs are started with.

use base64::Engine as _;
use quorate::env::tokio::env;
use tempfile::TempDir;

/// Every call through the proxy would be made by the user whom the certificate names.
#[tokio::test]
async fn a_proxy_does_not_start_with_a_certificate_that_names_a_user() {
    let dir = TempDir::new().expect("a temporary folder");
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let start = async |common_name: Option<&str>| {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec!["x".into()]).expect("a name");
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = common_name {
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
        }
        let made = params.self_signed(&pair).expect("a certificate");
        let pem = |label: &str, der: &[u8]| {
            let body = base64::engine::general_purpose::STANDARD.encode(der);
            format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
        };
        std::fs::write(&cert, pem("CERTIFICATE", made.der())).expect("it is written");
        std::fs::write(&key, pem("PRIVATE KEY", &pair.serialize_der())).expect("it is written");
        let flags = ["grpc-proxy", "start", "--listen-addr=127.0.0.1:0", "--cert"];
        let paths = [&cert, &key].map(|path| path.display().to_string());
        let [cert, key] = paths;
        let mut words = flags.map(str::to_owned).to_vec();
        words.extend([cert, "--key".into(), key]);
        let Ok(quorate::proxy::Command::Grpc(options)) = quorate::proxy::parse(&words) else {
            panic!("{words:?}");
        };
        quorate::proxy::grpc::Proxy::start(&env(), *options).await.map(drop)
    };
    let refused = start(Some("root")).await.expect_err("it names a user");
    assert_eq!(refused, format!("cert has non empty Common Name (root): {}", cert.display()));
    start(None).await.expect("it names nobody");
}
