//! The real etcdctl as a child process, and the releases of etcd that the tests compare with. What
//! its output means is not known here.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::process::etcd_program;

const PATIENCE: Duration = Duration::from_secs(30);

/// An etcd and the tools of its release.
#[derive(Clone, Debug)]
pub struct Release {
    pub etcd: PathBuf,
    pub etcdctl: PathBuf,
    /// Releases before 3.5 have none: etcdctl does its work there.
    pub etcdutl: PathBuf,
}

impl Release {
    /// The one to compare with where no other is chosen.
    pub fn real() -> Self {
        let etcd = etcd_program();
        Self::in_folder(etcd.parent().expect("a program has a folder"))
    }

    /// Any release: a folder with the programs.
    pub fn in_folder(folder: &Path) -> Self {
        let program = |name| folder.join(name);
        let etcdutl = Some(program("etcdutl")).filter(|path| path.exists());
        Self {
            etcd: program("etcd"),
            etcdctl: program("etcdctl"),
            etcdutl: etcdutl.unwrap_or_else(|| program("etcdctl")),
        }
    }
}

/// etcdctl pointed at one cluster.
#[derive(Clone)]
pub struct Etcdctl {
    program: PathBuf,
    endpoints: String,
}

/// What a command that has ended left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// `None` when it was stopped by us.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Etcdctl {
    pub fn new(release: &Release, endpoints: &[String]) -> Self {
        Self { program: release.etcdctl.clone(), endpoints: endpoints.join(",") }
    }

    /// The etcdutl of a release, which has no endpoints.
    pub fn utility(release: &Release) -> Self {
        Self { program: release.etcdutl.clone(), endpoints: String::new() }
    }

    /// Runs to the end.
    pub fn run<S: AsRef<str>>(&self, args: &[S], stdin: &str) -> Output {
        self.start(args, stdin).finish()
    }

    /// Runs in the background.
    pub fn start<S: AsRef<str>>(&self, args: &[S], stdin: &str) -> Running {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETCD")) {
            command.env_remove(name);
        }
        if !self.endpoints.is_empty() {
            command.arg(format!("--endpoints={}", self.endpoints));
        }
        command.args(args.iter().map(AsRef::as_ref));
        let args = args.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ");
        Running::new(command, format!("etcdctl {args}"), stdin)
    }
}

/// Follows a stream on a thread of its own; the channel closes at its end.
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            if send.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    receive
}

/// A command that has not ended yet.
pub struct Running {
    what: String,
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    seen: String,
}

impl Running {
    /// Starts the command; `what` it is, for people.
    pub fn new(mut command: Command, what: String, stdin: &str) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("starting {}: {e}", command.get_program().display()));
        let mut to = child.stdin.take().expect("standard input is piped");
        let stdin = stdin.to_owned();
        // A command that does not read its input closes the pipe; large input would block us.
        std::thread::spawn(move || to.write_all(stdin.as_bytes()));
        let stdout = lines(child.stdout.take().expect("standard output is piped"));
        let stderr = lines(child.stderr.take().expect("standard error is piped"));
        Self { what, child, stdout, stderr, seen: String::new() }
    }

    /// Waits for the end.
    pub fn finish(mut self) -> Output {
        let deadline = Instant::now() + PATIENCE;
        while self.next_line(deadline) {}
        let mut stderr = String::new();
        while let Ok(line) = self.stderr.recv_timeout(left(deadline)) {
            stderr.push_str(&line);
        }
        let status = self.child.wait().expect("a child can be waited for");
        Output { code: status.code(), stdout: std::mem::take(&mut self.seen), stderr }
    }

    /// Waits until `lines` lines are on standard output and stops the command.
    pub fn stop_after(mut self, lines: usize) -> Output {
        let deadline = Instant::now() + PATIENCE;
        while self.seen.lines().count() < lines && self.next_line(deadline) {}
        Output { code: None, stdout: std::mem::take(&mut self.seen), stderr: String::new() }
    }

    /// False at the end of the output.
    fn next_line(&mut self, deadline: Instant) -> bool {
        match self.stdout.recv_timeout(left(deadline)) {
            Ok(line) => self.seen.push_str(&line),
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => {
                panic!("{} hangs after:\n{}", self.what, self.seen)
            }
        }
        true
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
