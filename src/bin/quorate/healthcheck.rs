//! The health check of the container: finds the server's process by its command line, sends a probe to the
//! address that the server listens on, and exits with 0 when the member is healthy. What counts as healthy
//! is defined by the server's probes `/readyz`, `/livez` and `/health`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use quorate::config::{self, Command, Config};
use quorate::env::Env;
use quorate::env::Place;
use quorate::tls::{Dialer, Listen, Settings, Target};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::container::{self, Start};

/// Shorter than the image's `HEALTHCHECK --timeout`.
const PATIENCE: Duration = Duration::from_secs(8);
/// A probe's answer is a few lines.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Prints the probe's answer.
pub fn main(path: &str, variables: &[(String, String)]) -> ExitCode {
    let asked = server().and_then(|line| listens(line, variables)).and_then(|(listen, tls)| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("starting the runtime: {error}"))?;
        runtime.block_on(async {
            let env = quorate::env::tokio::env();
            match env.timeout(PATIENCE, ask(&env, &listen, tls, path)).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("no answer within {PATIENCE:?}")),
            }
        })
    });
    match asked {
        Ok(text) => {
            println!("{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{}", why.trim_end());
            ExitCode::FAILURE
        }
    }
}

/// The command line of the server in this container: that of the first process with the server's name, which
/// need not be process 1, because the container may run an init.
fn server() -> Result<Vec<String>, String> {
    let entries = fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?;
    let own = std::process::id();
    let mut numbers: Vec<u32> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|number| *number != own)
        .collect();
    numbers.sort_unstable();
    numbers.into_iter().find_map(command_line).ok_or_else(|| "no server is running".to_owned())
}

fn command_line(process: u32) -> Option<Vec<String>> {
    let bytes = fs::read(PathBuf::from(format!("/proc/{process}/cmdline"))).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let words: Vec<String> = text.trim_end_matches('\0').split('\0').map(str::to_owned).collect();
    is_server(&words).then(|| words[1..].to_vec())
}

fn is_server(words: &[String]) -> bool {
    let name = |word: &String| word.rsplit('/').next().unwrap_or_default().to_owned();
    let is_named = words.first().is_some_and(|word| matches!(&*name(word), "quorate" | "etcd"));
    let is_this = words.get(1).is_some_and(|word| name(word) == "healthcheck");
    is_named && !is_this
}

/// The address and the TLS settings with which the server can be probed.
fn listens(
    line: Vec<String>,
    variables: &[(String, String)],
) -> Result<(Listen, Settings), String> {
    let Start::Server(line) = container::decide(line, variables) else {
        return Err("no server is running".to_owned());
    };
    let parsed = config::parse(&line, variables, |path| fs::read(path));
    let Ok((Command::Run(config), _)) = parsed else {
        return Err(format!("the server's command line does not parse: {line:?}"));
    };
    let listen = address(&config).ok_or("the server listens nowhere")?;
    // The server of the same container, so its certificate is not verified; its own pair is presented to it.
    let tls = Settings {
        insecure_skip_verify: true,
        generate: None,
        cert_file: config.server.tls.cert_file.clone(),
        key_file: config.server.tls.key_file.clone(),
        client_cert_file: config.server.tls.client_cert_file.clone(),
        client_key_file: config.server.tls.client_key_file.clone(),
        ..Settings::default()
    };
    Ok((listen, tls))
}

/// Addresses for metrics and health take precedence: a plain one requires no client certificate.
fn address(config: &Config) -> Option<Listen> {
    let server = &config.server;
    let all = [&server.listen_metrics, &server.listen_client_http, &server.listen_client];
    let plain = all.iter().flat_map(|listen| listen.iter()).find(|listen| !listen.secure);
    plain.or_else(|| all.iter().flat_map(|listen| listen.iter()).next()).cloned()
}

/// The target to connect to for a listener.
fn target(listen: &Listen) -> Result<Target, String> {
    let scheme = |plain: &str| if listen.secure { format!("{plain}s") } else { plain.to_owned() };
    match &listen.place {
        Place::Unix(path) => Target::parse(&format!("{}://{}", scheme("unix"), path.display())),
        Place::Tcp(address) => {
            let mut address = *address;
            match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
                IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
                _ => {}
            }
            Target::parse(&format!("{}://{address}", scheme("http")))
        }
    }
}

async fn ask(env: &Env, listen: &Listen, tls: Settings, path: &str) -> Result<String, String> {
    let target = target(listen)?;
    let failed = |error: std::io::Error| format!("{}: {error}", target.authority);
    let mut conn = target.connect(env).await.map_err(failed)?;
    if listen.secure {
        let dialer = Dialer::new(env, &tls, &["http/1.1"]);
        conn = dialer.secure(&target.name, conn).await.map_err(failed)?;
    }
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", target.authority);
    conn.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    conn.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await.map_err(failed)?;
    verdict(&String::from_utf8_lossy(&answer))
}

/// The body; an error unless the status is 200.
fn verdict(answer: &str) -> Result<String, String> {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let first = head.lines().next().unwrap_or_default();
    let status = first.split(' ').nth(1).unwrap_or_default();
    if status == "200" { Ok(body.to_owned()) } else { Err(format!("{first}\n{body}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    /// The probed URL for a server with this command line.
    fn asked(line: &str) -> String {
        let mark = (container::MARK.to_owned(), "1".to_owned());
        let (listen, _) = listens(words(line), &[mark]).expect(line);
        let target = target(&listen).expect(line);
        format!("{}{}", if listen.secure { "tls " } else { "" }, target.authority)
    }

    #[test]
    fn the_server_is_asked_where_it_listens() {
        assert_eq!(asked(""), "127.0.0.1:2379");
        assert_eq!(asked("etcd --name m1"), "127.0.0.1:2379");
        let client = "--listen-client-urls http://0.0.0.0:4001 --advertise-client-urls http://a:1";
        assert_eq!(asked(client), "127.0.0.1:4001");
        let pair = "--cert-file c --key-file k";
        let secure = format!(
            "--listen-client-urls https://[::]:1 --advertise-client-urls https://a:1 {pair}"
        );
        assert_eq!(asked(&secure), "tls [::1]:1");
        assert_eq!(
            asked(&format!("{secure} --listen-metrics-urls http://127.0.0.1:2")),
            "127.0.0.1:2"
        );
    }

    #[test]
    fn only_a_server_is_taken_for_one() {
        for (line, expected) in [
            ("/usr/local/bin/quorate", true),
            ("etcd --name m1", true),
            ("/usr/local/bin/quorate healthcheck", false),
            ("/usr/local/bin/etcdctl get k", false),
            ("/sbin/docker-init -- quorate", false),
        ] {
            assert_eq!(is_server(&words(line)), expected, "{line}");
        }
    }

    #[test]
    fn only_200_is_well() {
        assert_eq!(verdict("HTTP/1.1 200 OK\r\na: b\r\n\r\nok\n"), Ok("ok\n".to_owned()));
        let sick = verdict("HTTP/1.1 503 Service Unavailable\r\n\r\n[-]x failed\n");
        assert_eq!(sick, Err("HTTP/1.1 503 Service Unavailable\n[-]x failed\n".to_owned()));
        assert!(verdict("").is_err());
    }
}
