//! The tool for files at rest: prints what the library answers, and what it logs to stderr as etcdutl
//! does. No commands of its own.
#![allow(clippy::disallowed_methods, reason = "a program is of the real world")]

use std::env;
use std::io;
use std::process::ExitCode;
use std::time::SystemTime;

use quorate::config::log::{Settings, Zap};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

fn main() -> ExitCode {
    let settings = Settings::default();
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Zap::new(settings.format, SystemTime::now))
        .with_writer(io::stderr);
    tracing_subscriber::registry().with(settings.filter()).with(lines).init();
    let arguments: Vec<String> =
        env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let runtime = match tokio::runtime::Builder::new_current_thread().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Error: starting the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let disk = runtime.block_on(async { quorate::env::tokio::env().disk });
    match quorate::offline::run(&arguments, &disk) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprint!("{}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}
