//! The client's tool: the library's commands on this process's streams, variables and signals. No
//! commands of its own.

mod shell;
mod streams;

use std::env;
use std::process::ExitCode;
use std::sync::Arc;

use shell::Process;

fn main() -> ExitCode {
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
        let env = quorate::env::tokio::env();
        quorate::ctl::run(env, Arc::new(Process), &words).await
    });
    // A thread may be blocked on standard input.
    runtime.shutdown_background();
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
