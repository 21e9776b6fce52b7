//! The sub-commands `gateway` and `grpc-proxy`: sets up the log, starts the proxy on this machine and waits
//! for a signal. Exit codes: 0 after a usage text and after a signal, 1 for all that goes wrong, which
//! stands on stderr.

use std::process::ExitCode;

use quorate::config::log::Settings;
use quorate::config::secrets;
use quorate::env::tokio::env;
use quorate::proxy::gateway::Gateway;
use quorate::proxy::grpc::{self, Proxy};
use quorate::proxy::{self, Command};
use tracing::{Level, info};

use super::{Stop, block_on, log_to, notify, print, process};

pub fn main(arguments: &[String]) -> ExitCode {
    let command = match proxy::parse(arguments) {
        Ok(Command::Print(text)) => return print(&text),
        Ok(command) => command,
        Err(text) => return fail(&text),
    };
    let mut log = Settings::default();
    if matches!(&command, Command::Grpc(options) if options.debug) {
        log.level = Level::DEBUG;
    }
    log_to(&log).expect("standard error needs no opening");
    info!(args = ?secrets::hide(arguments), "Running: ");
    match block_on(run(&command)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(text)) => fail(&text),
        Err(code) => code,
    }
}

fn fail(text: &str) -> ExitCode {
    eprintln!("{}", text.trim_end());
    ExitCode::FAILURE
}

/// Serves until a signal stops it.
async fn run(command: &Command) -> Result<(), String> {
    let mut stop = Stop::new().map_err(|error| format!("waiting for signals: {error}"))?;
    let serving = async {
        match command {
            Command::Print(_) => Ok(()),
            Command::Gateway(options) => {
                let gateway = Gateway::start(env(), options).await?;
                notify::ready();
                gateway.run().await;
                Ok(())
            }
            Command::Grpc(options) => {
                let options = grpc::Options {
                    host_name: host_name(),
                    process: process::described(options.pprof),
                    ..(**options).clone()
                };
                let _proxy = Proxy::start(&env(), options).await?;
                notify::ready();
                std::future::pending().await
            }
        }
    };
    tokio::select! {
        biased; // A proxy that looks for its endpoints can be stopped, too.
        () = stop.wait() => Ok(()),
        ended = serving => ended,
    }
}

/// Empty where it cannot be read.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.unwrap_or_default().trim().to_owned()
}
