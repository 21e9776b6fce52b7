//! What the commands of the client's tool need of the process besides: standard input, child processes,
//! signals.

use std::ffi::OsStr;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use quorate::ctl::{Ended, Shell};
use quorate::env::BoxFuture;
use quorate::tool::{Output as _, raw};
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::process::Process;

/// Whether a command ends by itself at SIGTERM. Where none does, the signal must go on ending the process,
/// also between the programs that `watch` runs: once it is caught, that cannot be taken back.
static CATCHES_SIGTERM: AtomicBool = AtomicBool::new(false);

/// The terminal's state before its keys came one by one and unseen; dropped, it is restored.
struct Typing(Termios);

impl Typing {
    /// `None` where standard input is no terminal.
    fn unseen() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut unseen = before.clone();
        unseen.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &unseen).ok()?;
        Some(Self(before))
    }
}

impl Drop for Typing {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

/// Ready at the next signal, if there is any.
async fn received(signals: Option<&mut tokio::signal::unix::Signal>) {
    match signals {
        Some(signals) => drop(signals.recv().await),
        None => std::future::pending().await,
    }
}

impl Shell for Process {
    fn read_line(&self) -> io::Result<String> {
        let mut line = Vec::new();
        io::stdin().lock().read_until(b'\n', &mut line)?;
        Ok(raw::text(&line))
    }

    fn read_to_end(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn read_password(&self, prompt: &str) -> io::Result<String> {
        if io::stdin().is_terminal() {
            return rpassword::prompt_password(prompt);
        }
        self.out(prompt.as_bytes())?;
        let line = self.read_line()?;
        // The line that was not echoed.
        self.out(b"\n")?;
        let line = line.strip_suffix('\n').unwrap_or(&line);
        Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
    }

    fn run<'a>(
        &'a self,
        program: &'a [String],
        variables: &'a [(String, String)],
    ) -> BoxFuture<'a, io::Result<Ended>> {
        Box::pin(async move {
            let variables = variables.iter().map(|(name, value)| (name, value));
            let words = program.iter().map(|word| raw::bytes(word)).collect::<Vec<_>>();
            let mut child = Command::new(OsStr::from_bytes(&words[0]))
                .args(words[1..].iter().map(|word| OsStr::from_bytes(word)))
                .envs(variables)
                .stdin(Stdio::null())
                .spawn()?;
            let mut terminate = match CATCHES_SIGTERM.load(Ordering::Relaxed) {
                true => Some(signal(SignalKind::terminate())?),
                false => None,
            };
            loop {
                tokio::select! {
                    biased; // The end of the child before signals for it.
                    status = child.wait() => {
                        let status = status?;
                        let signaled = || Ended::Signaled {
                            signal: status.signal().unwrap_or(0),
                            core_dumped: status.core_dumped(),
                        };
                        return Ok(status.code().map_or_else(signaled, Ended::Exited));
                    }
                    // The terminal sends SIGINT to both; SIGTERM reaches only this process.
                    () = received(terminate.as_mut()) => {
                        let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
                        if let Some(id) = id {
                            // It may have ended meanwhile.
                            let _ = kill_process(id, Signal::TERM);
                        }
                    }
                }
            }
        })
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "a thread that waits for a key outlives the command"
    )]
    fn quit_key(&self) -> BoxFuture<'static, ()> {
        let typing = Typing::unseen();
        Box::pin(async move {
            let Some(_typing) = typing else { return std::future::pending().await };
            let (found, quit) = tokio::sync::oneshot::channel();
            // It ends with the process, if nothing is typed.
            thread::spawn(move || {
                let keys = io::stdin().lock().bytes();
                if keys.map_while(Result::ok).any(|key| matches!(key, b'q' | b'Q')) {
                    // The command may have ended by itself.
                    let _ = found.send(());
                }
            });
            if quit.await.is_err() {
                std::future::pending().await
            }
        })
    }

    fn interrupted(&self) -> BoxFuture<'static, ()> {
        // Registered now: a signal before the first poll counts.
        let signals = signal(SignalKind::interrupt())
            .and_then(|interrupt| Ok((interrupt, signal(SignalKind::terminate())?)));
        CATCHES_SIGTERM.store(signals.is_ok(), Ordering::Relaxed);
        Box::pin(async move {
            let Ok((mut interrupt, mut terminate)) = signals else {
                return std::future::pending().await;
            };
            tokio::select! {
                biased; // Either ends the command.
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        })
    }
}
