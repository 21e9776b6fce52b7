//! etcdctl's flags for reaching a cluster, which stand in front of the command, and the client that they
//! ask for.

use super::Failure;
use crate::client::{Client, Options};
use crate::env::Env;
use crate::tls;

const ENDPOINTS: &str = "127.0.0.1:2379";

/// Where the members are, and how to believe them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    pub endpoints: Vec<String>,
    tls: Option<tls::Settings>,
}

impl Connection {
    /// Takes the flags off the front of `words`.
    pub fn take(words: &mut Vec<&str>) -> Result<Self, Failure> {
        let (mut endpoints, mut settings) = (ENDPOINTS, tls::Settings::default());
        let (mut secure, mut plain) = (false, true);
        while let Some(flag) = words.first().and_then(|word| word.strip_prefix("--")) {
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag, None),
            };
            match name {
                "insecure-skip-tls-verify" => settings.insecure_skip_verify = is_true(flag, value)?,
                "insecure-transport" => plain = is_true(flag, value)?,
                "endpoints" | "cacert" | "cert" | "key" => {
                    let value = value.or_else(|| (words.len() > 1).then(|| words.remove(1)));
                    let value = value.ok_or_else(|| format!("--{name} needs a value"))?;
                    match name {
                        "endpoints" => endpoints = value,
                        "cacert" => settings.trusted_ca_file = value.into(),
                        "cert" => settings.cert_file = value.into(),
                        _ => settings.key_file = value.into(),
                    }
                    secure |= name != "endpoints" && !value.is_empty();
                }
                _ => break,
            }
            words.remove(0);
        }
        if settings.has_certificate() {
            settings.check().map_err(|error| error.to_string())?;
        }
        let secure = secure || !plain || settings.insecure_skip_verify;
        let endpoints = endpoints.split(',').map(str::to_owned).collect();
        Ok(Self { endpoints, tls: Some(settings).filter(|_| secure) })
    }

    /// To one of the endpoints, whichever answers.
    pub fn client(&self, env: &Env) -> Result<Client, Failure> {
        self.connect(env, &self.endpoints)
    }

    pub fn client_of(&self, env: &Env, endpoint: &String) -> Result<Client, Failure> {
        self.connect(env, std::slice::from_ref(endpoint))
    }

    fn connect(&self, env: &Env, endpoints: &[String]) -> Result<Client, Failure> {
        let options = Options { tls: self.tls.clone(), ..Options::default() };
        Client::new(env.clone(), endpoints, options).map_err(|error| error.to_string().into())
    }
}

fn is_true(flag: &str, value: Option<&str>) -> Result<bool, Failure> {
    match value {
        None | Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(_) => Err(format!("invalid argument in \"--{flag}\"").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_stand_before_the_command() {
        let take = |line: &'static str| {
            let mut words: Vec<_> = line.split(' ').collect();
            Connection::take(&mut words).map(|connection| (connection, words.join(" ")))
        };
        let (plain, rest) = take("get k --prefix").expect("no flags");
        assert_eq!((plain.endpoints.join(","), &*rest), (ENDPOINTS.into(), "get k --prefix"));
        assert_eq!(plain.tls, None);
        let line =
            "--cacert ca --endpoints=a:1,b:2 --cert=c --key k --insecure-transport=false get k";
        let (secured, rest) = take(line).expect("good flags");
        assert_eq!((secured.endpoints.join(","), &*rest), ("a:1,b:2".into(), "get k"));
        let settings = secured.tls.expect("secured");
        assert_eq!(settings.trusted_ca_file.to_str(), Some("ca"));
        assert_eq!(settings.key_file.to_str(), Some("k"));
        assert!(!settings.insecure_skip_verify);
        assert!(take("--insecure-transport=false get k").expect("good").0.tls.is_some());
        let blind = take("--insecure-skip-tls-verify get k").expect("good").0.tls;
        assert!(blind.expect("secured").insecure_skip_verify);
        let error = |line| take(line).expect_err(line).why;
        assert_eq!(error("--cert"), "--cert needs a value");
        assert_eq!(
            error("--insecure-transport=x get"),
            "invalid argument in \"--insecure-transport=x\""
        );
        assert!(error("--cert=c get").contains("must both be present"));
    }
}
