//! The cluster that a command talks to: the client that the global flags describe, its login, and calls
//! with etcdctl's time limits and error texts.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb::AuthenticateRequest;

use super::Context;
use super::log;
use super::print::quoted;
use super::shell::Shell;
use crate::client::{self, Client, HeaderValue, Note, Response, Status};
use crate::codec::go_error;
use crate::env::Env;
use crate::tls;
use crate::tool::arguments::Arguments;
use crate::tool::exit::Exit;

/// Pause before a request that was not sent is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How long a call without a time limit of its own is tried while no endpoint can be reached.
const UNREACHABLE_MAX: Duration = Duration::from_secs(5);
/// Longer than a system tries to connect.
const DIAL_UNLIMITED: Duration = Duration::from_secs(3600);
/// The default of `--max-request-bytes`.
const REQUEST_BYTES_MAX: usize = 2 << 20;
/// The least period of keepalive pings that servers accept; etcd's client library raises shorter ones.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(10);

/// Where a cluster is and how to connect to it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub endpoints: Vec<String>,
    tls: Option<tls::Settings>,
    login: Option<Login>,
    dial_timeout: Duration,
    keep_alive: (Duration, Duration),
    bytes_max: (usize, usize),
    tally: Option<Tally>,
}

/// How many calls were answered, by method: of a command that watches calls, and does not count its own. Its
/// failed calls are not logged.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally(Arc<Mutex<BTreeMap<String, f64>>>);

impl Tally {
    pub fn read(&self) -> BTreeMap<String, f64> {
        self.0.lock().expect(LOCK).clone()
    }

    fn add(&self, path: &str) {
        let method = path.rsplit('/').next().unwrap_or(path);
        *self.0.lock().expect(LOCK).entry(method.to_owned()).or_default() += 1.0;
    }
}

const LOCK: &str = "nothing panics while it holds the lock";

#[derive(Clone, Debug)]
enum Login {
    Token(String),
    User { name: String, password: String },
}

/// Why a call failed.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    /// As etcd's client library words it.
    pub text: String,
}

impl From<Failed> for Exit {
    fn from(failed: Failed) -> Self {
        Self::error(failed.text)
    }
}

/// A client that has logged in.
#[derive(Clone)]
pub(super) struct Cluster {
    env: Env,
    shell: Arc<dyn Shell>,
    pub client: Client,
    /// The name of the logger of its failed calls, and the endpoint that it was made for; `None` when they
    /// are not logged.
    logged: Option<(&'static str, String)>,
    tally: Option<Tally>,
    command_timeout: Duration,
}

/// The flags of a client certificate: of the command's own cluster, or of a mirror's destination.
pub(super) struct CertificateFlags {
    pub cert: &'static str,
    pub key: &'static str,
    pub cacert: &'static str,
    pub insecure_transport: &'static str,
    /// Whether the other global flags about TLS count.
    pub with_global: bool,
}

pub(super) const OWN: CertificateFlags = CertificateFlags {
    cert: "cert",
    key: "key",
    cacert: "cacert",
    insecure_transport: "insecure-transport",
    with_global: true,
};

/// How servers are met, and whether TLS is spoken to endpoints without a scheme. As with etcdctl, a domain
/// whose plain endpoints do not count requires TLS of those of `--endpoints`, too; certificates need not have
/// its name: gRPC's Go library verifies an endpoint's own.
pub(super) fn secured(arguments: &Arguments, flags: &CertificateFlags) -> (tls::Settings, bool) {
    let is_on = |flag: &str| flags.with_global && arguments.bool(flag);
    let settings = tls::Settings {
        cert_file: arguments.text(flags.cert).into(),
        key_file: arguments.text(flags.key).into(),
        trusted_ca_file: arguments.text(flags.cacert).into(),
        insecure_skip_verify: is_on("insecure-skip-tls-verify"),
        ..tls::Settings::default()
    };
    let by_domain = flags.with_global
        && !arguments.text("discovery-srv").is_empty()
        && !arguments.bool("insecure-discovery");
    let secure = flags.has_files(arguments)
        || !arguments.bool(flags.insecure_transport)
        || settings.insecure_skip_verify
        || by_domain;
    (settings, secure)
}

impl CertificateFlags {
    fn has_files(&self, arguments: &Arguments) -> bool {
        let files = [self.cert, self.key, self.cacert];
        files.iter().any(|name| !arguments.text(name).is_empty())
    }
}

impl Target {
    /// The cluster of the global flags. Prompts for a password that is missing.
    pub async fn of_flags(context: &Context) -> Result<Self, Exit> {
        let target = Self::without_login(context).await?;
        let login = match context.arguments.text("auth-jwt-token") {
            "" => user(context, "user", "password", "Password: ")?,
            token => Some(Login::Token(token.to_owned())),
        };
        Ok(Self { login, ..target })
    }

    /// The same for what needs no login.
    pub async fn without_login(context: &Context) -> Result<Self, Exit> {
        let arguments = &context.arguments;
        for name in ["cert", "key", "cacert"] {
            if arguments.is_given(name) && arguments.text(name).is_empty() {
                return Err(Exit::arguments(format!("empty string is passed to --{name} option")));
            }
        }
        let endpoints = endpoints(context).await?;
        Self::new(context, endpoints, &OWN).await
    }

    /// The destination of a mirror.
    pub async fn of_destination(
        context: &Context,
        endpoint: &str,
        flags: &CertificateFlags,
    ) -> Result<Self, Exit> {
        let login = user(context, "dest-user", "dest-password", "Destination Password: ")?;
        Ok(Self { login, ..Self::new(context, vec![endpoint.to_owned()], flags).await? })
    }

    async fn new(
        context: &Context,
        endpoints: Vec<String>,
        flags: &CertificateFlags,
    ) -> Result<Self, Exit> {
        let arguments = &context.arguments;
        let (settings, secure) = secured(arguments, flags);
        if settings.has_certificate() {
            settings.check().map_err(|error| Exit::arguments(error.to_string()))?;
        }
        if flags.has_files(arguments) {
            let dialer = tls::Dialer::new(&context.env, &settings, &[]);
            dialer.check().await.map_err(|error| Exit::arguments(error.to_string()))?;
        }
        let bytes = |flag: &str| usize::try_from(arguments.int(flag)).unwrap_or(0);
        Ok(Self {
            endpoints,
            tls: Some(settings).filter(|_| secure),
            login: None,
            // 0 is no limit, as in etcd's client library.
            dial_timeout: Some(arguments.duration("dial-timeout"))
                .filter(|limit| !limit.is_zero())
                .unwrap_or(DIAL_UNLIMITED),
            keep_alive: (
                arguments.duration("keepalive-time").max(KEEP_ALIVE_MIN),
                arguments.duration("keepalive-timeout"),
            ),
            bytes_max: (bytes("max-request-bytes"), bytes("max-recv-bytes")),
            tally: None,
        })
    }

    /// The same with one endpoint.
    pub fn at(&self, endpoint: &str) -> Self {
        Self { endpoints: vec![endpoint.to_owned()], ..self.clone() }
    }

    /// The same; calls are counted.
    pub fn tallied(self, tally: &Tally) -> Self {
        Self { tally: Some(tally.clone()), ..self }
    }

    /// The options of the client that the flags describe.
    pub fn options(&self) -> client::Options {
        let default = client::Options::default();
        let or = |bytes: usize, default: usize| if bytes > 0 { bytes } else { default };
        client::Options {
            connect_timeout: self.dial_timeout,
            keep_alive_interval: self.keep_alive.0,
            keep_alive_timeout: self.keep_alive.1,
            tls: self.tls.clone(),
            any_endpoint: true,
            request_bytes_max: or(self.bytes_max.0, REQUEST_BYTES_MAX),
            response_bytes_max: or(self.bytes_max.1, default.response_bytes_max),
            ..default
        }
    }

    /// Connects and logs in.
    pub async fn connect(&self, context: &Context) -> Result<Cluster, Exit> {
        if self.endpoints.is_empty() {
            return Err(Exit::new(Exit::CONNECTION, "etcdclient: no available endpoints"));
        }
        let client = Client::new(context.env.clone(), &self.endpoints, self.options())
            .map_err(|error| Exit::arguments(error.to_string()))?;
        let first = self.endpoints[0].rsplit("://").next().unwrap_or_default().to_owned();
        let tally = self.tally.clone();
        let logged = tally.is_none().then_some((log::LOGGER, first));
        let command_timeout = context.arguments.duration("command-timeout");
        let (env, shell) = (context.env.clone(), Arc::clone(&context.shell));
        let mut cluster = Cluster { env, shell, client, logged, tally, command_timeout };
        let token = match &self.login {
            None => return Ok(cluster),
            Some(Login::Token(token)) => Some(token.clone()),
            Some(Login::User { name, password }) => {
                cluster.log_in(name, password, self.dial_timeout).await?
            }
        };
        if let Some(token) = token {
            let token = HeaderValue::try_from(token)
                .map_err(|_| Exit::arguments("the token has characters that no header may have"))?;
            cluster.client = cluster.client.with_token(token);
        }
        Ok(cluster)
    }
}

/// From a flag `name[:password]`, another flag, or the terminal.
fn user(
    context: &Context,
    user: &str,
    password: &str,
    prompt: &str,
) -> Result<Option<Login>, Exit> {
    let (user, password) = (context.arguments.text(user), context.arguments.text(password));
    if user.is_empty() {
        return Ok(None);
    }
    let (name, password) = match (password, user.split_once(':')) {
        ("", Some((name, password))) => (name, password.to_owned()),
        ("", None) => (user, context.shell.read_password(prompt)?),
        _ => (user, password.to_owned()),
    };
    // As etcd's client: without either there is no login, and the caller has no name.
    let is_whole = !name.is_empty() && !password.is_empty();
    Ok(is_whole.then(|| Login::User { name: name.to_owned(), password }))
}

/// The endpoints that a domain's SRV records name, else those of `--endpoints`.
async fn endpoints(context: &Context) -> Result<Vec<String>, Exit> {
    let arguments = &context.arguments;
    let domain = arguments.text("discovery-srv");
    if domain.is_empty() {
        return Ok(listed(context));
    }
    let suffix = match arguments.text("discovery-srv-name") {
        "" => String::new(),
        name => format!("-{name}"),
    };
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for (service, scheme) in [("etcd-client-ssl", "https"), ("etcd-client", "http")] {
        let name = format!("_{service}{suffix}._tcp.{domain}");
        match context.env.net.services_of(name).await {
            Ok(services) => found.extend(services.iter().map(|service| {
                let host = service.target.trim_end_matches('.');
                format!("{scheme}://{host}:{}", service.port)
            })),
            Err(error) => failures.push(error),
        }
    }
    if let [secure, plain] = &failures[..] {
        return Err(Exit::error(format!("dns lookup errors: {secure} and {plain}")));
    }
    if !arguments.bool("insecure-discovery") {
        let (secure, plain) = found.into_iter().partition(|url: &String| url.starts_with("https"));
        for url in plain {
            context.shell.err(&format!("ignoring discovered insecure endpoint {url:?}\n"));
        }
        found = secure;
    }
    Ok(if found.is_empty() { listed(context) } else { found })
}

/// The endpoints of `--endpoints`; an empty list has none, `,` two that are empty.
pub(super) fn listed(context: &Context) -> Vec<String> {
    match context.arguments.text("endpoints") {
        "" => Vec::new(),
        list => list.split(',').map(|endpoint| endpoint.trim().to_owned()).collect(),
    }
}

impl Cluster {
    /// The same; failed calls are logged under another name.
    pub fn logged_as(mut self, logger: &'static str) -> Self {
        self.logged = self.logged.map(|(_, endpoint)| (logger, endpoint));
        self
    }

    /// The token of a user; none where authentication is not enabled.
    async fn log_in(
        &self,
        name: &str,
        password: &str,
        limit: Duration,
    ) -> Result<Option<String>, Exit> {
        let request = AuthenticateRequest { name: name.into(), password: password.into() };
        let answer = self
            .within(Some(limit), async |client: Client| {
                client.auth().authenticate(request.clone()).await
            })
            .await;
        match answer {
            Ok(answer) => Ok(Some(answer.token)),
            Err(failed) if failed.text == "etcdserver: authentication is not enabled" => Ok(None),
            Err(failed) => Err(Exit::new(Exit::CONNECTION, failed.text)),
        }
    }

    /// A call with the time limit of `--command-timeout`. A request that was certainly not sent is
    /// repeated within it.
    pub async fn call<A>(
        &self,
        call: impl AsyncFn(Client) -> Result<Response<A>, Status>,
    ) -> Result<A, Failed> {
        self.within(Some(self.command_timeout), call).await
    }

    /// A call that is tried once, without a time limit.
    pub async fn call_once<A>(
        &self,
        call: impl AsyncFnOnce(Client) -> Result<Response<A>, Status>,
    ) -> Result<A, Failed> {
        let note = Note::default();
        let answer = call(self.client.with_note(&note)).await;
        self.count(&note);
        answer.map(Response::into_inner).map_err(|status| Failed { text: text(&status) })
    }

    fn count(&self, note: &Note) {
        let noted = note.read();
        if let (Some(tally), Some(_)) = (&self.tally, noted.peer) {
            tally.add(&noted.method);
        }
    }

    /// A call without a time limit, but that the cluster must be reached.
    pub async fn call_unlimited<A>(
        &self,
        call: impl AsyncFn(Client) -> Result<Response<A>, Status>,
    ) -> Result<A, Failed> {
        self.within(None, call).await
    }

    async fn within<A>(
        &self,
        limit: Option<Duration>,
        call: impl AsyncFn(Client) -> Result<Response<A>, Status>,
    ) -> Result<A, Failed> {
        let began = self.env.now();
        let hopeless = self.client.channel().is_hopeless();
        let note = Note::default();
        let mut unsent: Option<Status> = None;
        loop {
            let attempt = call(self.client.with_note(&note));
            let answer = match limit {
                None => attempt.await,
                Some(limit) => {
                    let left = limit.saturating_sub(self.env.now() - began);
                    match self.env.timeout(left, attempt).await {
                        Ok(answer) => answer,
                        Err(_) => return Err(self.gave_up_on(unsent.as_ref(), &note)),
                    }
                }
            };
            self.count(&note);
            match answer {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if client::is_unsent(&status) => {
                    if hopeless || self.gave_up(began, limit) {
                        let text = text(&status);
                        return Err(match limit {
                            None => Failed { text },
                            Some(_) => self.gave_up_on(Some(&status), &note),
                        });
                    }
                    unsent = Some(status);
                    self.env.sleep(RETRY_PAUSE).await;
                }
                Err(status) => {
                    self.log(&note, raw(&status));
                    return Err(Failed { text: text(&status) });
                }
            }
        }
    }

    /// The failure of a call whose time is over.
    fn gave_up_on(&self, unsent: Option<&Status>, note: &Note) -> Failed {
        let text = "context deadline exceeded".to_owned();
        let why = unsent.map_or(text.clone(), undialed);
        self.log(note, format!("rpc error: code = DeadlineExceeded desc = {why}"));
        Failed { text }
    }

    /// The line of etcd's client library about a call that failed, be it for good or not.
    fn log(&self, note: &Note, error: String) {
        let (Some((logger, first)), noted) = (&self.logged, note.read()) else { return };
        if noted.method.is_empty() || STREAMS.iter().any(|name| noted.method.ends_with(name)) {
            return;
        }
        let peer = match noted.peer {
            None => "Peer{Addr: <nil>, LocalAddr: <nil>, AuthInfo: <nil>}".to_owned(),
            Some(address) => {
                let how = if noted.secure { "tls" } else { "insecure" };
                format!("Peer{{Addr: '{address}', LocalAddr: <nil>, AuthInfo: '{how}'}}")
            }
        };
        let fields = [
            ("target", format!("etcd-endpoints://0x0/{first}").into()),
            ("peer", peer.into()),
            ("method", noted.method.into()),
            ("attempt", 0.into()),
            ("error", error.into()),
        ];
        let (to, message) = ((&self.env, &*self.shell), "retrying of unary invoker failed");
        log::line(to, "warn", Some(logger), message, &fields);
    }

    fn gave_up(&self, began: Instant, limit: Option<Duration>) -> bool {
        self.env.now() - began >= limit.unwrap_or(UNREACHABLE_MAX)
    }
}

/// Methods whose failures etcd's client library does not log.
const STREAMS: [&str; 5] = ["/RangeStream", "/Watch", "/LeaseKeepAlive", "/Snapshot", "/Observe"];

/// Why no endpoint was connected to, as gRPC's Go library words it.
fn undialed(status: &Status) -> String {
    let message = status.message();
    let why = message.strip_prefix("connection error: ").unwrap_or(message);
    let why = match why.split_once(": ") {
        Some((address, why)) if !why.is_empty() && !address.contains(' ') => {
            let why = go_error(&io::Error::other(why));
            match why.as_str() {
                "deadline has elapsed" => format!("dial tcp {address}: i/o timeout"),
                why => format!("dial tcp {address}: connect: {why}"),
            }
        }
        _ => why.to_owned(),
    };
    let why = format!("transport: Error while dialing: {why}");
    format!("latest balancer error: connection error: desc = {}", quoted(why.as_bytes()))
}

/// A status as etcd's client library words it: the errors that etcd defines by their texts alone.
pub(super) fn text(status: &Status) -> String {
    let message = status.message();
    if message.starts_with("etcdserver: ") || message.starts_with("context ") {
        return message.to_owned();
    }
    raw(status)
}

/// A status as gRPC's Go library words it.
pub(super) fn raw(status: &Status) -> String {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}

/// Whether a watch or a stream that failed with `status` may be opened again.
pub(super) fn may_reconnect(status: &Status) -> bool {
    client::is_unsent(status) || client::is_unavailable(status)
}

impl From<Failed> for io::Error {
    fn from(failed: Failed) -> Self {
        Self::other(failed.text)
    }
}
