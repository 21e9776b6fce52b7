//! The process that a command runs in, as the commands see it: standard input, child processes and
//! signals, besides what every tool's [`Output`] is. The program implements it on the operating system, tests
//! on buffers.

use std::io;

use crate::codec::{go_error, go_quote_bytes};
use crate::env::BoxFuture;
use crate::tool::{Output, raw};

pub trait Shell: Output {
    /// Reads a line of standard input with its line end; empty at the end of input. Bytes that are no text
    /// are in it as [`raw`] has them. Blocks.
    fn read_line(&self) -> io::Result<String>;

    /// Reads the rest of standard input. Blocks.
    fn read_to_end(&self) -> io::Result<Vec<u8>>;

    /// Prompts and reads a line, on a terminal without echo; from standard input where that is none. Empty at
    /// the end of input. Blocks.
    fn read_password(&self, prompt: &str) -> io::Result<String>;

    /// Runs a program with additional environment variables and waits for its end. Its arguments may be any
    /// bytes; its output goes where this program's goes, and its standard input is empty: the lines there are
    /// this program's.
    ///
    /// # Errors
    /// When the program cannot be started; [`not_started`] has the text.
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
    Signaled { signal: i32, core_dumped: bool },
}

/// Signals from 1 on, as Go's library calls them on Linux.
const SIGNALS: [&str; 15] = [
    "hangup",
    "interrupt",
    "quit",
    "illegal instruction",
    "trace/breakpoint trap",
    "aborted",
    "bus error",
    "floating point exception",
    "killed",
    "user defined signal 1",
    "segmentation fault",
    "user defined signal 2",
    "broken pipe",
    "alarm clock",
    "terminated",
];

impl std::fmt::Display for Ended {
    /// In the words of Go's library.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit status {code}"),
            Self::Signaled { signal, core_dumped } => {
                let known = usize::try_from(signal - 1).ok().and_then(|at| SIGNALS.get(at));
                match known {
                    Some(name) => write!(f, "signal: {name}")?,
                    None => write!(f, "signal: signal {signal}")?,
                }
                f.write_str(if *core_dumped { " (core dumped)" } else { "" })
            }
        }
    }
}

/// Why a program could not be started, in the words of Go's library, which looks for names without a slash
/// in `$PATH` itself.
pub(super) fn not_started(program: &str, error: &io::Error) -> String {
    use io::ErrorKind::{NotFound, PermissionDenied};
    let bytes = raw::bytes(program);
    match program {
        "" => "exec: no command".to_owned(),
        name if !name.contains('/') && matches!(error.kind(), NotFound | PermissionDenied) => {
            format!("exec: {}: executable file not found in $PATH", go_quote_bytes(&bytes))
        }
        _ => format!("fork/exec {}: {}", String::from_utf8_lossy(&bytes), go_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_programs_have_gos_words() {
        let signaled = |signal, core_dumped| Ended::Signaled { signal, core_dumped }.to_string();
        assert_eq!(Ended::Exited(3).to_string(), "exit status 3");
        assert_eq!(signaled(9, false), "signal: killed");
        assert_eq!(signaled(1, false), "signal: hangup");
        assert_eq!(signaled(15, false), "signal: terminated");
        assert_eq!(signaled(6, true), "signal: aborted (core dumped)");
        assert_eq!(signaled(34, false), "signal: signal 34");
        assert_eq!(signaled(0, false), "signal: signal 0");
    }

    #[test]
    fn programs_that_cannot_be_started_have_gos_words() {
        let missing = io::Error::from_raw_os_error(2);
        let forbidden = io::Error::from_raw_os_error(13);
        assert_eq!(not_started("", &missing), "exec: no command");
        let in_path = "exec: \"nothing\": executable file not found in $PATH";
        assert_eq!(not_started("nothing", &missing), in_path);
        assert_eq!(not_started("nothing", &forbidden), in_path);
        let path = "fork/exec ./nothing: no such file or directory";
        assert_eq!(not_started("./nothing", &missing), path);
        assert_eq!(not_started("/a/b", &forbidden), "fork/exec /a/b: permission denied");
    }
}
