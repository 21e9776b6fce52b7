//! The flags of the proxies, one row each, and the options that they result in. The parser checks single
//! values; combinations are checked here and where they are used.

use std::time::Duration;

use super::{gateway, grpc};
use crate::client;
use crate::config::pflag::{Flags, Kind};
use crate::config::urls::Url;
use crate::config::{Srv, go};
use crate::http::vars::Process;
use crate::tls::suites::Protocol;
use crate::tls::{self, Generate};

/// One flag.
pub(super) struct Row {
    pub name: &'static str,
    pub kind: Kind,
    /// The default, for the usage text.
    pub default: &'static str,
    pub help: &'static str,
}

const fn row(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Row {
    Row { name, kind, default, help }
}

const LISTEN: &str = "127.0.0.1:23790";
const ENDPOINTS: &str = "127.0.0.1:2379";

pub(super) const GATEWAY: &[Row] = &[
    row("listen-addr", Kind::Text, LISTEN, "Address to listen on."),
    row("discovery-srv", Kind::Text, "", "Domain whose SRV records name the endpoints."),
    row("discovery-srv-name", Kind::Text, "", "A suffix to the names of those services."),
    row("insecure-discovery", Kind::Bool, "false", "Accept unverified SRV records."),
    row("trusted-ca-file", Kind::Text, "", "CAs of the endpoints that SRV records name."),
    row("endpoints", Kind::List, ENDPOINTS, "Endpoints of the cluster."),
    row(
        "retry-delay",
        Kind::Duration,
        "1m0s",
        "Time until an endpoint that failed is tried again.",
    ),
];

pub(super) const GRPC: &[Row] = &[
    row("listen-addr", Kind::Text, LISTEN, "Address to listen on."),
    row("discovery-srv", Kind::Text, "", "Domain whose SRV records name the endpoints."),
    row("discovery-srv-name", Kind::Text, "", "A suffix to the names of those services."),
    row("metrics-addr", Kind::Text, "", "URL to serve HTTP on as well."),
    row("insecure-discovery", Kind::Bool, "false", "Accept unverified SRV records."),
    row("endpoints", Kind::List, ENDPOINTS, "Endpoints of the cluster."),
    row(
        "endpoints-auto-sync-interval",
        Kind::Duration,
        "0s",
        "Interval of updating the endpoints from the member list; 0 to disable.",
    ),
    row(
        "dial-keepalive-time",
        Kind::Duration,
        "0s",
        "Time between pings of the cluster; 0 for none.",
    ),
    row("dial-keepalive-timeout", Kind::Duration, "20s", "Time for the answer to such a ping."),
    row("permit-without-stream", Kind::Bool, "false", "Ping also while no call is under way."),
    row("advertise-client-url", Kind::Text, LISTEN, "Address that is advertised to clients."),
    row(
        "resolver-prefix",
        Kind::Text,
        "",
        "Prefix under which proxies register, the same for all.",
    ),
    row("resolver-ttl", Kind::Int, "0", "TTL of the registration, seconds."),
    row("namespace", Kind::Text, "", "Prefix of all keys."),
    row("enable-pprof", Kind::Bool, "false", "Serve profiles at /debug/pprof/."),
    row("data-dir", Kind::Text, "default.proxy", "Directory of the certificate of --auto-tls."),
    row("max-send-bytes", Kind::Int, "1572864", "Largest message to the cluster, bytes."),
    row("max-recv-bytes", Kind::Int, "2147483647", "Largest message from the cluster, bytes."),
    row(
        "grpc-keepalive-min-time",
        Kind::Duration,
        "5s",
        "Time that clients leave between two pings.",
    ),
    row("grpc-keepalive-interval", Kind::Duration, "2h0m0s", "Time between pings of clients."),
    row("grpc-keepalive-timeout", Kind::Duration, "20s", "Time for the answer to such a ping."),
    row("cert", Kind::Text, "", "Certificate to show the cluster; without a common name."),
    row("key", Kind::Text, "", "The key of --cert."),
    row("cacert", Kind::Text, "", "CAs of the cluster."),
    row(
        "insecure-skip-tls-verify",
        Kind::Bool,
        "false",
        "Do not verify the certificates of the cluster.",
    ),
    row("cert-file", Kind::Text, "", "Certificate to show clients."),
    row("key-file", Kind::Text, "", "The key of --cert-file."),
    row("trusted-ca-file", Kind::Text, "", "CAs of client certificates, which are required then."),
    row("listen-cipher-suites", Kind::List, "", "Cipher suites for clients."),
    row("auto-tls", Kind::Bool, "false", "Make a certificate to show clients."),
    row("client-crl-file", Kind::Text, "", "Certificates of clients that are revoked."),
    row(
        "self-signed-cert-validity",
        Kind::Uint,
        "1",
        "Years that --auto-tls' certificate is good for.",
    ),
    row("tls-min-version", Kind::Text, "TLS1.2", "Lowest TLS version for clients."),
    row("tls-max-version", Kind::Text, "", "Highest TLS version for clients."),
    row(
        "experimental-serializable-ordering",
        Kind::Bool,
        "false",
        "Revisions of responses never decrease.",
    ),
    row("experimental-leasing-prefix", Kind::Text, "", "Not served."),
    row("experimental-enable-grpc-logging", Kind::Bool, "false", "Not served."),
    row("debug", Kind::Bool, "false", "Log at level debug."),
    row("max-concurrent-streams", Kind::Uint, "4294967295", "Maximum open streams of a client."),
];

/// Returns the usage of a command without a sub-command.
pub(super) fn usage(command: &str) -> String {
    format!(
        "Usage:\n  quorate {command} start [flags]\n\nIts flags: quorate {command} start --help\n"
    )
}

pub(super) fn start_usage(command: &str, table: &[Row]) -> String {
    let mut text = format!("Usage:\n  quorate {command} start [flags]\n\nFlags:\n");
    for Row { name, default, help, .. } in table {
        text.push_str(&format!("  --{name} '{default}'\n    {help}\n"));
    }
    text
}

pub(super) fn gateway(flags: &Flags) -> gateway::Options {
    gateway::Options {
        listen: text(flags, "listen-addr", LISTEN),
        endpoints: endpoints(flags),
        srv: srv(flags),
        trusted_ca_file: text(flags, "trusted-ca-file", ""),
        insecure_discovery: flags.bool("insecure-discovery"),
        retry_delay: flags.duration("retry-delay", Duration::from_secs(60)),
    }
}

fn text(flags: &Flags, name: &str, default: &str) -> String {
    flags.text(name).unwrap_or(default).to_owned()
}

fn endpoints(flags: &Flags) -> Vec<String> {
    match flags.text("endpoints") {
        None => vec![ENDPOINTS.to_owned()],
        Some(_) => flags.list("endpoints"),
    }
}

fn srv(flags: &Flags) -> Option<Srv> {
    let domain = text(flags, "discovery-srv", "");
    let suffix = text(flags, "discovery-srv-name", "");
    (!domain.is_empty()).then_some(Srv { domain, suffix })
}

/// An interval longer than any proxy runs: no pings.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Returns the options; contradictions are refused with etcd's texts.
pub(super) fn grpc(flags: &Flags) -> Result<grpc::Options, String> {
    check_served(flags)?;
    let ping_interval = flags.duration("grpc-keepalive-interval", Duration::from_secs(2 * 3600));
    let streams = flags
        .text("max-concurrent-streams")
        .map_or(u64::MAX, |_| flags.uint("max-concurrent-streams"));
    let metrics = text(flags, "metrics-addr", "");
    let (request_bytes_max, answer_bytes_max) = message_bytes(flags)?;
    let sync = flags.duration("endpoints-auto-sync-interval", Duration::ZERO);
    let advertise = text(flags, "advertise-client-url", LISTEN);
    Ok(grpc::Options {
        listen: text(flags, "listen-addr", LISTEN),
        listen_metrics: match metrics.as_str() {
            "" => None,
            url => Some(Url::parse(url).map_err(|_| format!("cannot parse {}", go::quote(url)))?),
        },
        resolver: resolver(flags, &advertise)?,
        listen_tls: listen_tls(flags)?,
        endpoints: endpoints(flags),
        srv: srv(flags),
        insecure_discovery: flags.bool("insecure-discovery"),
        client: client::Options {
            connect_timeout: Duration::from_secs(5),
            keep_alive_interval: or(flags.duration("dial-keepalive-time", Duration::ZERO), NEVER),
            keep_alive_timeout: flags.duration("dial-keepalive-timeout", Duration::from_secs(20)),
            keep_alive_while_idle: flags.bool("permit-without-stream"),
            tls: client_tls(flags),
            ..client::Options::default()
        },
        namespace: text(flags, "namespace", ""),
        advertise,
        endpoints_sync: (!sync.is_zero()).then_some(sync),
        ordered: flags.bool("experimental-serializable-ordering"),
        request_bytes_max,
        answer_bytes_max,
        watch_bounds: grpc::watch::Bounds::default(),
        concurrent_streams_max: u32::try_from(streams).unwrap_or(u32::MAX),
        keep_alive_interval: or(ping_interval, NEVER),
        keep_alive_timeout: flags.duration("grpc-keepalive-timeout", Duration::from_secs(20)),
        // Zero is gRPC's default.
        ping_time_min: or(
            flags.duration("grpc-keepalive-min-time", Duration::from_secs(5)),
            Duration::from_secs(5 * 60),
        ),
        debug: flags.bool("debug"),
        host_name: String::new(),
        process: Process::default(),
        pprof: flags.bool("enable-pprof"),
    })
}

/// Default bound of messages to the cluster, and the bound that stands for zero.
const REQUEST_BYTES: i64 = 1536 << 10;
const REQUEST_BYTES_UNSET: i64 = 2 << 20;

/// Returns the bounds of messages to the cluster and from it.
fn message_bytes(flags: &Flags) -> Result<(usize, usize), String> {
    let given = |name, default| flags.text(name).map_or(default, |_| flags.int(name));
    let (sent, received) =
        (given("max-send-bytes", REQUEST_BYTES), given("max-recv-bytes", i32::MAX.into()));
    let bound = |bytes: i64, default: i64| if bytes > 0 { bytes } else { default };
    if received > 0 && sent > received {
        return Err(format!(
            "gRPC message recv limit ({received} bytes) must be greater than send limit ({sent} bytes)"
        ));
    }
    let (sent, received) = (bound(sent, REQUEST_BYTES_UNSET), bound(received, i32::MAX.into()));
    let bytes = |bytes: i64| usize::try_from(bytes).unwrap_or(usize::MAX);
    Ok((bytes(sent), bytes(received)))
}

fn or(given: Duration, default: Duration) -> Duration {
    if given.is_zero() { default } else { given }
}

/// Refuses flags of etcd that are not served, unless their value is the default.
fn check_served(flags: &Flags) -> Result<(), String> {
    let logging = "experimental-enable-grpc-logging";
    let asked = flags.bool(logging).then_some(logging);
    let leasing = flags.text("experimental-leasing-prefix").filter(|prefix| !prefix.is_empty());
    match asked.or(leasing.map(|_| "experimental-leasing-prefix")) {
        None => Ok(()),
        Some(name) => Err(format!("flag --{name} is known to etcd but not served by this version")),
    }
}

fn resolver(flags: &Flags, advertise: &str) -> Result<Option<grpc::Resolver>, String> {
    let (prefix, ttl_s) = (text(flags, "resolver-prefix", ""), flags.int("resolver-ttl"));
    match (prefix.is_empty(), ttl_s) {
        (false, ttl) if ttl < 1 => Err(format!("invalid resolver-ttl {ttl}")),
        (true, ttl) if ttl > 0 => Err("invalid resolver-prefix \"\"".into()),
        (true, _) => Ok(None),
        (false, _) if advertise.is_empty() => Err("invalid advertise-client-url \"\"".into()),
        (false, _) => Ok(Some(grpc::Resolver { prefix, ttl_s })),
    }
}

/// Returns the TLS settings for clients; none if no flag requires TLS.
fn listen_tls(flags: &Flags) -> Result<Option<tls::Settings>, String> {
    let suites = flags.list("listen-cipher-suites");
    let (min, max) = (text(flags, "tls-min-version", "TLS1.2"), text(flags, "tls-max-version", ""));
    let protocol = Protocol::parse(&min, &max, &suites)?;
    let path = |name| text(flags, name, "").into();
    let mut tls = tls::Settings {
        cert_file: path("cert-file"),
        key_file: path("key-file"),
        trusted_ca_file: path("trusted-ca-file"),
        crl_file: path("client-crl-file"),
        protocol,
        ..tls::Settings::default()
    };
    let years = flags
        .text("self-signed-cert-validity")
        .map_or(1, |_| flags.uint("self-signed-cert-validity"));
    if flags.bool("auto-tls") && years == 0 {
        return Err("selfSignedCertValidity is invalid,it should be greater than 0".into());
    }
    if tls.has_certificate() || !tls.trusted_ca_file.as_os_str().is_empty() {
        tls.check().map_err(|error| error.to_string())?;
        return Ok(Some(tls));
    }
    if !flags.bool("auto-tls") {
        return Ok(None);
    }
    let listen = text(flags, "listen-addr", LISTEN);
    let host = listen.rsplit_once(':').map_or(listen.as_str(), |(host, _)| host);
    let dir = std::path::Path::new(&text(flags, "data-dir", "default.proxy"))
        .join("fixtures")
        .join("proxy");
    tls.generate = Some(Generate { dir, hosts: vec![host.to_owned()], years });
    Ok(Some(tls))
}

/// Returns the TLS settings for the cluster; none if no flag sets them.
fn client_tls(flags: &Flags) -> Option<tls::Settings> {
    let path = |name| text(flags, name, "").into();
    let tls = tls::Settings {
        cert_file: path("cert"),
        key_file: path("key"),
        trusted_ca_file: path("cacert"),
        insecure_skip_verify: flags.bool("insecure-skip-tls-verify"),
        nameless: true,
        ..tls::Settings::default()
    };
    let nothing = tls::Settings { nameless: true, ..tls::Settings::default() };
    (tls != nothing).then_some(tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<grpc::Options, String> {
        let known: Vec<_> = GRPC.iter().map(|row| (row.name, row.kind)).collect();
        let words: Vec<&str> = line.split_whitespace().collect();
        grpc(&Flags::parse(&words, &known)?)
    }

    #[test]
    fn defaults_are_etcds() {
        assert_eq!((GATEWAY.len(), GRPC.len()), (7, 39));
        let found = options("").expect("nothing is wrong");
        assert_eq!((found.listen.as_str(), found.advertise.as_str()), (LISTEN, LISTEN));
        assert_eq!(found.endpoints, [ENDPOINTS]);
        assert_eq!((found.client.tls, found.listen_tls.is_some()), (None, false));
        assert_eq!((found.request_bytes_max, found.concurrent_streams_max), (1_572_864, u32::MAX));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let error = |line| options(line).err().unwrap_or_default();
        assert_eq!(error("--resolver-prefix p"), "invalid resolver-ttl 0");
        assert_eq!(error("--resolver-ttl 3"), "invalid resolver-prefix \"\"");
        let line = "--resolver-prefix p --resolver-ttl 3 --advertise-client-url=";
        assert_eq!(error(line), "invalid advertise-client-url \"\"");
        let years = "selfSignedCertValidity is invalid,it should be greater than 0";
        assert_eq!(error("--auto-tls --self-signed-cert-validity 0"), years);
        assert!(
            error("--cert-file c.pem").starts_with("KeyFile and CertFile must both be present")
        );
        assert!(
            error("--tls-min-version TLS1.3 --tls-max-version TLS1.2").contains("greater than")
        );
        assert_eq!(error("--metrics-addr x"), "cannot parse \"x\"");
    }

    #[test]
    fn what_is_not_served_is_refused() {
        for flag in ["experimental-leasing-prefix=p", "experimental-enable-grpc-logging"] {
            let name = flag.split('=').next().expect("a name");
            let why = format!("flag --{name} is known to etcd but not served by this version");
            assert_eq!(options(&format!("--{flag}")).err(), Some(why));
        }
        assert!(options("--experimental-leasing-prefix=").is_ok());
        let pprof = |line| options(line).expect("it is served").pprof;
        assert!(pprof("--enable-pprof") && !pprof(""));
    }

    #[test]
    fn bounds_of_messages_are_etcds() {
        let bytes = |line: &str| {
            options(line).map(|found| (found.request_bytes_max, found.answer_bytes_max))
        };
        let most = i32::MAX as usize;
        assert_eq!(bytes(""), Ok((1_572_864, most)));
        assert_eq!(bytes("--max-send-bytes=0 --max-recv-bytes=0"), Ok((2 << 20, most)));
        assert_eq!(bytes("--max-send-bytes=-1"), Ok((2 << 20, most)));
        assert_eq!(bytes("--max-send-bytes=100 --max-recv-bytes=100"), Ok((100, 100)));
        let text =
            "gRPC message recv limit (100 bytes) must be greater than send limit (101 bytes)";
        assert_eq!(bytes("--max-send-bytes=101 --max-recv-bytes=100"), Err(text.to_owned()));
        let text = "gRPC message recv limit (100 bytes) must be greater than send limit \
                    (1572864 bytes)";
        assert_eq!(bytes("--max-recv-bytes=100"), Err(text.to_owned()));
    }

    #[test]
    fn what_is_asked_of_the_connection_is_passed_on() {
        let found = options("").expect("nothing is wrong");
        assert_eq!((found.endpoints_sync, found.ordered), (None, false));
        assert!(!found.client.keep_alive_while_idle);
        let line = "--endpoints-auto-sync-interval=3s --experimental-serializable-ordering \
                    --permit-without-stream";
        let found = options(line).expect("nothing is wrong");
        assert_eq!((found.endpoints_sync, found.ordered), (Some(Duration::from_secs(3)), true));
        assert!(found.client.keep_alive_while_idle);
    }
}
