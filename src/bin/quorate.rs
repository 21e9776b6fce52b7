//! The server program: reads its configuration, sets up logs and signals, runs one [`Server`]. All
//! that the server does is in the library.

use std::process::ExitCode;
use std::time::SystemTime;

use quorate::config::{self, Command, Config, Notice, log};
use quorate::server::Server;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let variables: Vec<(String, String)> = std::env::vars().collect();
    match config::parse(&arguments, &variables) {
        Ok((Command::Print(text), _)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok((Command::Run(config), notices)) => {
            log_to_stderr(config.log);
            notices.iter().for_each(log_notice);
            run(&config)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn log_to_stderr(settings: log::Settings) {
    let lines = tracing_subscriber::fmt::layer()
        .event_format(log::Zap::new(settings.format, SystemTime::now))
        .with_writer(std::io::stderr);
    tracing_subscriber::registry().with(lines).with(settings.filter()).init();
}

/// What the configuration's reader had to say, in etcd's words.
fn log_notice(notice: &Notice) {
    match notice {
        Notice::UsedVariable { name, value } => {
            info!(variable = name, value, "recognized and used environment variable");
        }
        Notice::UnknownVariable { name, value } => {
            warn!(variable = name, value, "unrecognized environment variable");
        }
        Notice::IgnoredFlag(flag) => warn!(flag, "ignored: the flag has no effect"),
        Notice::DefaultName => warn!("'name' was empty; using the default"),
        Notice::DefaultDataDir(dir) => {
            warn!(data_dir = dir, "'data-dir' was empty; using default");
        }
        Notice::AdvertisesLocalhost(flag) => {
            warn!(flag, "listens everywhere but tells others to find it at localhost");
        }
    }
}

fn run(config: &Config) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "cannot start threads");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(serve(config))
}

async fn serve(config: &Config) -> ExitCode {
    let (Ok(mut term), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        error!("cannot listen for signals");
        return ExitCode::FAILURE;
    };
    let start = Server::start(quorate::env::tokio::env(), config.server_options());
    let server = tokio::select! {
        biased; // A signal counts also while there is no leader to become ready with.
        _ = term.recv() => return stopped("terminated"),
        _ = interrupt.recv() => return stopped("interrupt"),
        started = start => match started {
            Ok(server) => server,
            Err(fatal) => {
                error!(error = %fatal, "the server could not start");
                return ExitCode::FAILURE;
            }
        },
    };
    let received = tokio::select! {
        biased; // A server that cannot go on is not shut down in an orderly way.
        fatal = server.fatal() => {
            error!(error = %fatal, "the server cannot go on");
            return ExitCode::FAILURE;
        }
        _ = term.recv() => "terminated",
        _ = interrupt.recv() => "interrupt",
    };
    stopped(received);
    server.shutdown().await;
    info!("server closed");
    ExitCode::SUCCESS
}

fn stopped(signal: &str) -> ExitCode {
    info!(signal, "received signal; shutting down");
    ExitCode::SUCCESS
}
