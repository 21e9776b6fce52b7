//! The process that a command runs in, as the commands see it: standard input, child processes and
//! signals, besides what every tool's [`Output`] is. The program implements it on the operating system, tests
//! on buffers.

use std::io;

use crate::env::BoxFuture;
use crate::tool::Output;

pub trait Shell: Output {
    /// Reads a line of standard input with its line end; empty at the end of input. Bytes that are no text
    /// are in it as [`raw`](crate::tool::raw) has them. Blocks.
    fn read_line(&self) -> io::Result<String>;

    /// Reads the rest of standard input. Blocks.
    fn read_to_end(&self) -> io::Result<Vec<u8>>;

    /// Prompts and reads a line, on a terminal without echo; from standard input where that is none. Empty at
    /// the end of input. Blocks.
    fn read_password(&self, prompt: &str) -> io::Result<String>;

    /// Runs a program with additional environment variables and waits for its end. Its arguments may be any
    /// bytes; its output goes where this program's goes.
    ///
    /// # Errors
    /// When the program cannot be started.
    fn run<'a>(
        &'a self,
        program: &'a [String],
        variables: &'a [(String, String)],
    ) -> BoxFuture<'a, io::Result<Ended>>;

    /// Resolves when `q` is typed on the terminal, which shows nothing of what is typed until the future is
    /// dropped. Never where standard input is no terminal.
    fn quit_key(&self) -> BoxFuture<'static, ()>;

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
