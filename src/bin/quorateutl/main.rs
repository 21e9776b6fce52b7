//! The tool for files at rest: the library's commands on this process's streams, and what they log on
//! stderr as etcdutl does. No commands of its own.
#![allow(clippy::disallowed_methods, reason = "a program is of the real world")]

#[path = "../quoratectl/streams.rs"]
mod streams;

use std::env;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use quorate::config::log::{Settings, Zap};
use quorate::tool::Output;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

struct Process;

impl Output for Process {
    fn out(&self, bytes: &[u8]) -> io::Result<()> {
        streams::out(bytes)
    }

    fn err(&self, text: &str) {
        streams::err(text);
    }

    fn variables(&self) -> Vec<(String, String)> {
        streams::variables()
    }

    fn is_terminal(&self) -> bool {
        streams::is_terminal()
    }

    fn size(&self) -> Option<(u16, u16)> {
        streams::size()
    }
}

fn main() -> ExitCode {
    let settings = Settings::default();
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Zap::new(settings.format, SystemTime::now))
        .with_writer(io::stderr);
    tracing_subscriber::registry().with(settings.filter()).with(lines).init();
    let words: Vec<String> =
        env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Error: starting the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ran = runtime.block_on(async {
        quorate::offline::run(quorate::env::tokio::env(), Arc::new(Process), &words).await
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            if !exit.why.is_empty() {
                eprintln!("Error: {}", exit.why);
            }
            ExitCode::from(exit.code)
        }
    }
}
