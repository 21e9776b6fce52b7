//! The process that a command runs in, as the commands see it: standard input, child processes and
//! signals, besides what every tool's [`Output`] is. The program implements it on the operating system, tests on
//! buffers.

use std::io;

use crate::env::BoxFuture;
use crate::tool::Output;

pub trait Shell: Output {
    /// Reads a line of standard input with its line end; empty at the end of input. Blocks.
    fn read_line(&self) -> io::Result<String>;

    /// Reads the rest of standard input. Blocks.
    fn read_to_end(&self) -> io::Result<Vec<u8>>;

    /// Prompts on the terminal and reads a line without echo. Blocks.
    fn read_password(&self, prompt: &str) -> io::Result<String>;

    /// Runs a program with further environment variables, its output going where this one's goes, and
    /// waits for its end.
    ///
    /// # Errors
    /// When the program cannot be started.
    fn run<'a>(
        &'a self,
        program: &'a [String],
        variables: &'a [(String, String)],
    ) -> BoxFuture<'a, io::Result<Ended>>;

    /// Resolves at the first SIGINT or SIGTERM from now on; the signals do not end the process any more.
    fn interrupted(&self) -> BoxFuture<'static, ()>;
}

/// How a child process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Signaled(i32),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit status {code}"),
            Self::Signaled(signal) => write!(f, "signal: {signal}"),
        }
    }
}
