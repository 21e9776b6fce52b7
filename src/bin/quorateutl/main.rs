//! The tool for files at rest: the library's commands on this process's streams, and what they log on
//! stderr as etcdutl does. No commands of its own.
#![allow(clippy::disallowed_methods, reason = "a program is of the real world")]

#[path = "../quoratectl/process.rs"]
#[allow(clippy::duplicate_mod, reason = "the server's program has both tools")]
mod process;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use process::Process;
use quorate::config::log::{Format, Settings, Zap};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub fn main() -> ExitCode {
    let settings = Settings::default();
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Zap::new(Format::Console, SystemTime::now))
        .with_writer(io::stderr);
    tracing_subscriber::registry().with(settings.filter()).with(lines).init();
    process::run(async {
        let words = process::words();
        quorate::offline::run(quorate::env::tokio::env(), Arc::new(Process), &words).await
    })
}
