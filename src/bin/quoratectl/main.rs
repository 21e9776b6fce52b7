//! The client's tool: the library's commands on this process's streams, variables and signals. No
//! commands of its own.

mod process;
mod shell;

use std::process::ExitCode;
use std::sync::Arc;

use process::Process;

pub fn main() -> ExitCode {
    process::run(async {
        let words = process::words();
        // Timers and sockets are the runtime's.
        quorate::ctl::run(quorate::env::tokio::env(), Arc::new(Process), &words).await
    })
}
