//! The process of a tool as its commands see it: words, standard streams, variables, exit code. Both tools
//! have it.

use std::env;
use std::future::Future;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use quorate::tool::Output;
use quorate::tool::exit::Exit;
use quorate::tool::raw;

pub struct Process;

impl Output for Process {
    fn out(&self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }

    fn err(&self, text: &str) {
        // There is nowhere else to report it.
        let _ = io::stderr().write_all(text.as_bytes());
    }

    /// Those whose names and values are text.
    fn variables(&self) -> Vec<(String, String)> {
        let texts = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        env::vars_os().filter_map(texts).collect()
    }

    /// Whether standard error is a terminal.
    fn is_terminal(&self) -> bool {
        io::stderr().is_terminal()
    }

    /// Columns and rows of standard output, if it is a terminal.
    fn size(&self) -> Option<(u16, u16)> {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        Some((size.ws_col, size.ws_row)).filter(|(columns, rows)| *columns > 0 && *rows > 0)
    }
}

/// The words of the command line, of any bytes, the first of which is the program's path.
pub fn words() -> Vec<String> {
    env::args_os().map(|word| raw::text(word.as_bytes())).collect()
}

/// Runs the tool, and reports how it ended.
pub fn run(tool: impl Future<Output = Result<(), Exit>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Error: starting the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ran = runtime.block_on(tool);
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
