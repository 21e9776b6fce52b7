//! What the commands of the client's tool need of the process besides: standard input, child processes,
//! signals.

use std::io::{self, BufRead as _, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use quorate::ctl::{Ended, Shell};
use quorate::env::BoxFuture;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::process::Process;

/// Whether a command ends by itself at SIGTERM. Where none does, the signal must go on ending the process, also
/// between the programs that `watch` runs: once it is caught, that cannot be taken back.
static CATCHES_SIGTERM: AtomicBool = AtomicBool::new(false);

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
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    fn read_to_end(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn read_password(&self, prompt: &str) -> io::Result<String> {
        rpassword::prompt_password(prompt)
    }

    fn run<'a>(
        &'a self,
        program: &'a [String],
        variables: &'a [(String, String)],
    ) -> BoxFuture<'a, io::Result<Ended>> {
        Box::pin(async move {
            let not_found = |error: io::Error| match error.kind() {
                io::ErrorKind::NotFound => {
                    let name = &program[0];
                    io::Error::other(format!("exec: {name:?}: executable file not found in $PATH"))
                }
                _ => error,
            };
            let variables = variables.iter().map(|(name, value)| (name, value));
            let mut child = Command::new(&program[0])
                .args(&program[1..])
                .envs(variables)
                .spawn()
                .map_err(not_found)?;
            let mut terminate = match CATCHES_SIGTERM.load(Ordering::Relaxed) {
                true => Some(signal(SignalKind::terminate())?),
                false => None,
            };
            loop {
                tokio::select! {
                    biased; // The end of the child before signals for it.
                    status = child.wait() => {
                        let status = status?;
                        let signaled = || Ended::Signaled(status.signal().unwrap_or(0));
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
