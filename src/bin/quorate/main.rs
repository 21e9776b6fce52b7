//! The server's program: reads the command line, sets up the log, starts a server on this machine and
//! waits for a signal. Everything that a server does is in the library. Under the name of a tool it is that
//! tool, so that an image needs one file.
//!
//! Exit codes: 0 after `--help`, `--version`, an orderly stop by SIGTERM or SIGINT and the removal of
//! the member from its cluster; 2 for a command line that does not parse; 1 for a configuration that
//! cannot be served and for every failure at work, with one line at level error that has the reason; killed
//! by SIGABRT after a panic.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program is of the real world"
)]

mod container;
mod healthcheck;
mod heap;
mod logs;
mod notify;
mod process;
mod profile;
mod profiler;
mod proxy;
#[path = "../quoratectl/main.rs"]
mod quoratectl;
#[path = "../quorateutl/main.rs"]
mod quorateutl;

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use quorate::config::log::{Settings, Zap};
use quorate::config::{self, Command, Config, ConfigError, Notice, effective, help, secrets};
use quorate::discovery;
use quorate::error::Fatal;
use quorate::server::Server;
use rustix::process::Signal as Number;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::container::Start;
use self::logs::Outputs;

/// It records which code holds memory, and returns what a large answer took.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The allocator's settings, under the name by which it looks for them: sampling can be switched on
/// later, of an allocation in half a megabyte, as in Go.
#[unsafe(export_name = "malloc_conf")]
pub static ALLOCATOR_SETTINGS: &[u8] =
    b"prof:true,prof_active:false,lg_prof_sample:19,background_thread:true\0";

/// What background threads get to end after the server has stopped.
const LINGER: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    if let Some(tool) = env::args_os().next().and_then(|path| tool(&path)) {
        return tool();
    }
    let (arguments, variables) = match settings() {
        Ok(settings) => settings,
        Err(word) => {
            eprintln!("{word:?} is not UTF-8");
            return ExitCode::from(2);
        }
    };
    let arguments = match container::decide(arguments, &variables) {
        Start::Server(arguments) => arguments,
        Start::Other { program, arguments } => {
            return container::become_other(&program, &arguments);
        }
        Start::Health(path) => return healthcheck::main(&path, &variables),
        Start::Refused(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.first().is_some_and(|word| quorate::proxy::is_command(word)) {
        return proxy::main(&arguments);
    }
    match config::parse(&arguments, &variables, |path| std::fs::read(path)) {
        Ok((Command::Print(text), _)) => print(&text),
        Ok((Command::Run(config), notices)) => {
            if let Err(why) = log_to(&config.log) {
                log_to_stderr();
                error!(error = why, "failed to verify flags");
                return ExitCode::FAILURE;
            }
            info!(args = ?secrets::hide(&arguments), "Running: ");
            notices.iter().for_each(log_notice);
            run(&config)
        }
        Err(ConfigError::Usage(text)) => {
            eprint!("{text}\n{}", help::USAGE);
            ExitCode::from(2)
        }
        Err(ConfigError::Plain(text)) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
        Err(ConfigError::Invalid(text)) => {
            log_to_stderr();
            error!(error = text, "failed to verify flags");
            ExitCode::FAILURE
        }
    }
}

type Variables = Vec<(String, String)>;

/// The arguments and the variables, or one of them that is not UTF-8: what it were made to stand for would be
/// another directory, in which nothing is found. Variables of others are passed over.
fn settings() -> Result<(Vec<String>, Variables), OsString> {
    let mut variables = Vec::new();
    for (name, value) in env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(value) if name.starts_with("ETCD_") => return Err(value),
            Err(_) => {}
        }
    }
    let arguments = env::args_os().skip(1).map(OsString::into_string);
    Ok((arguments.collect::<Result<_, _>>()?, variables))
}

/// The tool that a link to this program, by which it was started, is called after.
fn tool(path: &OsStr) -> Option<fn() -> ExitCode> {
    match Path::new(path).file_name()?.to_str()? {
        "etcdctl" | "quoratectl" => Some(quoratectl::main),
        "etcdutl" | "quorateutl" => Some(quorateutl::main),
        _ => None,
    }
}

fn print(text: &str) -> ExitCode {
    // A reader that has gone away has seen enough.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// For what happens before the configuration is known to be one.
fn log_to_stderr() {
    log_to(&Settings::default()).expect("standard error needs no opening");
}

fn log_to(settings: &Settings) -> Result<(), String> {
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Zap::new(settings.format, SystemTime::now))
        .with_writer(Outputs::open(settings)?);
    tracing_subscriber::registry().with(settings.filter()).with(lines).init();
    // A panic is a broken invariant. The other threads must not go on as if it held.
    std::panic::set_hook(Box::new(|panic| {
        let trace = std::backtrace::Backtrace::force_capture();
        error!(%trace, "panic: {panic}");
        std::process::abort();
    }));
    Ok(())
}

fn log_notice(notice: &Notice) {
    match notice {
        Notice::UsedVariable { name, value } => info!(
            variable_name = name,
            variable_value = value,
            "recognized and used environment variable"
        ),
        Notice::UnknownVariable { name, value } => warn!(
            environment_variable = format!("{name}={value}"),
            "unrecognized environment variable"
        ),
        Notice::SpecialVariable { value } => {
            warn!(key = "ETCD_VERSION", value, "cannot set special environment variable");
        }
        Notice::LoadedFile(path) => info!(
            path,
            "loaded server configuration, other configuration command line flags and environment \
             variables will be ignored if provided"
        ),
        Notice::Deprecated(text) => warn!("{text}"),
        Notice::WithoutEffect { flag, why } => {
            warn!(flag_name = flag, reason = why, "flag is without effect");
        }
        Notice::RaisedTimeout(flag) => info!("{flag} increased to minimum value: 5s"),
        Notice::NoSync => {
            warn!("nothing is made durable: a power cut will lose acknowledged writes")
        }
        Notice::LargeRequests(bytes) => warn!(
            max_request_bytes = bytes,
            recommended_request_bytes = 10 << 20,
            "exceeded recommended request limit"
        ),
        Notice::LargeQuota(bytes) => warn!(
            quota_size_bytes = bytes,
            quota_maximum_size_bytes = 8_i64 << 30,
            "quota exceeds the maximum value"
        ),
        Notice::IgnoredFlag(name) => {
            warn!(flag_name = name, "flag is no longer supported - ignoring");
        }
        Notice::SinglePort => warn!(
            "Running http and grpc server on single port. This is not recommended for production."
        ),
        Notice::DefaultName => warn!(
            "it isn't recommended to use default name, please set a value for --name. Note that etcd \
             might run into issue when multiple members have the same default name"
        ),
        Notice::DefaultDataDir(data_dir) => {
            warn!(data_dir, "'data-dir' was empty; using default");
        }
        Notice::BcryptCost(cost) => {
            warn!(given_cost = cost, "use default bcrypt cost instead of the invalid given cost")
        }
        Notice::AdvertisesLocalhost(flag) => warn!(
            flag,
            "listening on every interface, but advertising localhost: other machines will not find \
             this member"
        ),
        Notice::AdvertisesEvery(urls) => {
            warn!(?urls, "advertised URLs have an address that other machines cannot connect to");
        }
        Notice::IgnoredSecurity { what, url } => warn!(url, "{what}"),
    }
}

fn run(config: &Config) -> ExitCode {
    if config.memory_mlock
        && let Err(error) = process::lock_memory()
    {
        error!(%error, "keeping the memory from being swapped out failed");
        return ExitCode::FAILURE;
    }
    match block_on(serve(config)) {
        Err(code) => code,
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(fatal)) if fatal.is_removal() => {
            warn!(error = %fatal, "server error");
            warn!("data-dir used by this member must be removed");
            ExitCode::SUCCESS
        }
        Ok(Err(fatal)) => {
            error!(error = %fatal, "the member cannot go on");
            ExitCode::FAILURE
        }
    }
}

/// Runs `work` to its end, and what it has left in the background a little longer.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T, ExitCode> {
    process::raise_file_limit();
    let runtime = runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        error!(%error, "starting the runtime failed");
        ExitCode::FAILURE
    })?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(LINGER);
    Ok(result)
}

/// Runs a server until a signal stops it.
async fn serve(config: &Config) -> Result<(), Fatal> {
    let mut stop = Stop::new().map_err(|e| Fatal::new("waiting for signals", e))?;
    let env = config.machine.env();
    let mut config = config.clone();
    let initialized = has_log(&config.server.member.wal_dir());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    effective::log(&config, initialized, processors);
    if !initialized {
        config.check_first_start().map_err(|e| Fatal::new("checking the initial cluster", e))?;
        tokio::select! {
            biased; // Members may wait long for each other.
            () = stop.wait() => return Ok(()),
            found = discovery::bootstrap(&env, &mut config) => {
                found.map_err(|e| Fatal::new("failed to bootstrap by discovery", e))?;
            }
        }
    } else if config.discovery.is_some() {
        warn!("discovery token is ignored since cluster already initialized; valid logs are found");
    }
    let mut options = config.server_options();
    options.process = process::described(config.pprof);
    let starting = Server::start(env, options);
    let server = tokio::select! {
        biased; // A member that waits for its cluster can be stopped, too.
        () = stop.wait() => return Ok(()),
        server = starting => server?,
    };
    server.member().metrics().add(Box::new(process::Process::new()));
    notify::ready();
    tokio::select! {
        biased; // A member that cannot go on must not look as if it had been stopped.
        fatal = server.fatal() => return Err(fatal),
        () = stop.wait() => {}
    }
    tokio::select! {
        biased; // An orderly stop that is done is done, however many signals came.
        () = server.shutdown() => info!("closed etcd server"),
        () = stop.wait() => warn!("stopping at once"),
    }
    Ok(())
}

/// Whether a member has run here: it ignores the initial cluster then, as etcd does. A folder that
/// cannot be read is met again, with its error, when the member opens it.
fn has_log(dir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| entry.path().extension().is_some_and(|end| end == "wal"))
}

/// The signals that end a process unless it handles them, and that etcd's does not.
const IGNORED: [Number; 9] = [
    Number::USR1,
    Number::USR2,
    Number::ALARM,
    Number::VTALARM,
    Number::PROF,
    Number::XCPU,
    Number::XFSZ,
    Number::IO,
    Number::POWER,
];

/// The signals that stop the server.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Waits from now on. Signals that Go's runtime ignores, which scripts that rotate logs send, are ignored
    /// from now on, too: a handler that does nothing replaces the end of the process. A write beyond the
    /// limit of a file's size fails then, with its file.
    fn new() -> io::Result<Self> {
        for ignored in IGNORED {
            drop(signal(SignalKind::from_raw(ignored.as_raw()))?);
        }
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        let signal = tokio::select! {
            biased; // Either will do.
            _ = self.terminate.recv() => "terminated",
            _ = self.interrupt.recv() => "interrupt",
        };
        info!(signal, "received signal; shutting down");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_link_of_a_tools_name_is_the_tool() {
        let is_tool = |path: &str| tool(OsStr::new(path)).is_some();
        for path in ["etcdctl", "/usr/local/bin/etcdctl", "./etcdutl", "quoratectl", "quorateutl"] {
            assert!(is_tool(path), "{path}");
        }
        for path in ["", "/", "quorate", "etcd", "/etcdctl/quorate", "etcdctl2"] {
            assert!(!is_tool(path), "{path}");
        }
    }
}
