//! Servers as child processes: started on free ports of 127.0.0.1, watched through their own log,
//! killed in every way there is, and never left behind. It knows flags and log lines, no protocol.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longer than anything a healthy server needs on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);
const READY: &str = "ready to serve client requests";
/// Log lines shown when a test fails.
const LOG_TAIL: usize = 120;

/// Which program serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A real etcd: the path of its program.
    Etcd(PathBuf),
    Quorate,
}

impl Kind {
    /// What the tests are about. `QUORATE_IT_SUBJECT=etcd` puts a real etcd in our place, which shows
    /// whether a failure is the test's or the server's.
    pub fn subject() -> Self {
        match std::env::var("QUORATE_IT_SUBJECT").as_deref() {
            Ok("etcd") => Self::Etcd(etcd_program()),
            _ => Self::Quorate,
        }
    }

    fn program(&self) -> PathBuf {
        match self {
            Self::Etcd(path) => path.clone(),
            Self::Quorate => std::env::var_os("QUORATE_BIN")
                .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_quorate")), PathBuf::from),
        }
    }
}

/// The real etcd to compare with: the one that `ETCD` names, or what `ci/etcd` puts into the cache. Its
/// etcdctl and etcdutl stand beside it.
pub fn etcd_program() -> PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| std::env::var_os("ETCD").map_or_else(cached_etcd, PathBuf::from)).clone()
}

fn cached_etcd() -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/ci/etcd");
    let output = Command::new(script).output().expect("ci/etcd can be run");
    let (folder, log) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "no etcd to compare with, nor in ETCD:\n{log}");
    loudly(log.trim_end().lines().last().unwrap_or_default());
    Path::new(folder.trim()).join("etcd")
}

/// A directory on the disk that cargo builds on: /tmp may be memory, where fsync costs nothing.
pub fn scratch() -> TempDir {
    tempfile::Builder::new()
        .prefix("it-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .expect("cargo's directory for tests is writable")
}

/// Prints where the test harness does not capture it.
pub fn loudly(text: &str) {
    let line = format!("\n*** {text} ***\n");
    std::io::stderr().write_all(line.as_bytes()).expect("standard error is open");
}

/// A port that nothing listens on, below those that the system gives to outgoing connections, so that
/// it stays free while a server is down.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let base = std::process::id().wrapping_mul(97);
    for _ in 0..5000 {
        let offset = base.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(10_000 + offset % 20_000).expect("below 30000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port among 5000");
}

/// One server: its flags and directory, and the process while there is one.
pub struct Server {
    pub kind: Kind,
    pub name: String,
    pub data_dir: PathBuf,
    pub client_port: u16,
    pub peer_port: u16,
    /// Given after the usual ones, so that they win.
    pub flags: Vec<String>,
    pub envs: Vec<(String, String)>,
    /// The usual flags of members are given.
    is_member: bool,
    initial_cluster: String,
    client_scheme: &'static str,
    peer_scheme: &'static str,
    /// Where the process is started.
    folder: Option<PathBuf>,
    /// What the process finds in place of the machine's `/etc/resolv.conf`.
    resolv_conf: Option<PathBuf>,
    /// How many files the process may have open.
    files_max: Option<u32>,
    /// A program, with its arguments, that runs the server's.
    wrapper: Vec<String>,
    child: Option<Child>,
    log: Arc<Log>,
    /// Log lines of earlier runs, not to be taken for those of this one.
    started_at_line: usize,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// A cluster of one in `dir`, not started.
    pub fn single(kind: Kind, dir: &Path, flags: &[&str]) -> Self {
        let mut server = Self::new(kind, dir, "m0");
        server.initial_cluster = format!("m0={}", server.peer_url());
        server.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        server
    }

    /// A cluster of one that serves, and its directory.
    pub fn serving() -> (TempDir, Self) {
        let dir = scratch();
        let mut server = Self::single(Kind::subject(), dir.path(), &[]);
        server.start();
        (dir, server)
    }

    /// A member in `dir` that is to join a cluster, which is named later: [`Self::join`].
    pub fn joining(kind: Kind, dir: &Path, name: &str) -> Self {
        let mut server = Self::new(kind, dir, name);
        server.flags.push("--initial-cluster-state=existing".into());
        server
    }

    /// A member in `dir` of a cluster whose members meet at `service`.
    pub fn discovering(kind: Kind, dir: &Path, name: &str, service: &str, token: &str) -> Self {
        let mut server = Self::new(kind, dir, name);
        server.flags.push(format!("--discovery-endpoints={service}"));
        server.flags.push(format!("--discovery-token={token}"));
        server
    }

    /// A member in `dir` of a cluster whose members DNS names, by the name server of `resolv_conf`.
    pub fn named(kind: Kind, dir: &Path, name: &str, domain: &str, resolv_conf: &Path) -> Self {
        let mut server = Self::new(kind, dir, name);
        server.flags.push(format!("--discovery-srv={domain}"));
        server.resolv_conf = Some(resolv_conf.to_owned());
        server
    }

    /// A process that is no member: only `arguments` are given to the program.
    pub fn proxy(kind: Kind, dir: &Path, arguments: &[&str]) -> Self {
        let mut server = Self::new(kind, dir, "proxy");
        server.is_member = false;
        server.flags = arguments.iter().map(|&argument| argument.to_owned()).collect();
        server
    }

    /// As [`Self::named`], for what is there already.
    pub fn resolves_by(&mut self, resolv_conf: &Path) {
        self.resolv_conf = Some(resolv_conf.to_owned());
    }

    /// Names the members of the cluster to join, as that cluster names them; one that has not started
    /// has no name, and is this one.
    pub fn join(&mut self, members: impl Iterator<Item = (String, Vec<String>)>) {
        let own = self.peer_url();
        let mut listed = vec![format!("{}={own}", self.name)];
        for (name, urls) in members.filter(|(_, urls)| !urls.contains(&own)) {
            listed.extend(urls.iter().map(|url| format!("{name}={url}")));
        }
        self.initial_cluster = listed.join(",");
    }

    fn new(kind: Kind, dir: &Path, name: &str) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            data_dir: dir.join(name),
            client_port: free_port(),
            peer_port: free_port(),
            flags: Vec::new(),
            envs: Vec::new(),
            is_member: true,
            initial_cluster: String::new(),
            client_scheme: "http",
            peer_scheme: "http",
            folder: None,
            resolv_conf: None,
            files_max: None,
            wrapper: Vec::new(),
            child: None,
            log: Arc::default(),
            started_at_line: 0,
            reader: None,
        }
    }

    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    pub fn client_url(&self) -> String {
        format!("{}://{}", self.client_scheme, self.endpoint())
    }

    pub fn peer_url(&self) -> String {
        let host = if self.peer_scheme == "unix" { "localhost" } else { "127.0.0.1" };
        format!("{}://{host}:{}", self.peer_scheme, self.peer_port)
    }

    /// The process may have so many files open, connections among them.
    pub fn limit_files(&mut self, max: u32) {
        self.files_max = Some(max);
    }

    /// The process is run by another program, as a profiler is.
    pub fn run_under(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
    }

    /// The client port speaks TLS; the certificates are the caller's.
    pub fn secure_clients(&mut self) {
        self.client_scheme = "https";
    }

    /// The peer port of a single member speaks TLS.
    pub fn secure_peers(&mut self) {
        self.peer_scheme = "https";
        self.initial_cluster = format!("{}={}", self.name, self.peer_url());
    }

    /// `None` while there is no process.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts the process and waits until it serves.
    pub fn start(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    /// Starts the process.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let program = self.kind.program();
        let mut child = self
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("starting {}: {e}", program.display()));
        self.started_at_line = self.log.lock().lines.len();
        self.log.lock().open = true;
        let stderr = child.stderr.take().expect("standard error is piped");
        let log = self.log.clone();
        self.reader = Some(std::thread::spawn(move || log.follow(stderr)));
        self.child = Some(child);
    }

    fn command(&self) -> Command {
        let mut command = match (&self.resolv_conf, self.files_max) {
            (Some(file), _) => with_resolv_conf(file, &self.kind.program()),
            (None, Some(max)) => with_files(max, &self.kind.program()),
            (None, None) => match self.wrapper.split_first() {
                Some((program, arguments)) => {
                    let mut command = Command::new(program);
                    command.args(arguments).arg(self.kind.program());
                    command
                }
                None => Command::new(self.kind.program()),
            },
        };
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETCD")) {
            command.env_remove(name);
        }
        if self.is_member {
            command
                .arg(format!("--name={}", self.name))
                .arg(format!("--data-dir={}", self.data_dir.display()))
                .arg(format!("--listen-client-urls={}", self.client_url()))
                .arg(format!("--advertise-client-urls={}", self.client_url()))
                .arg(format!("--listen-peer-urls={}", self.peer_url()))
                .arg(format!("--initial-advertise-peer-urls={}", self.peer_url()))
                .arg(format!("--initial-cluster={}", self.initial_cluster));
        }
        command.args(&self.flags).envs(self.envs.iter().map(|(name, value)| (name, value)));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command
    }

    /// Waits until the log shows that clients are served.
    pub fn wait_ready(&mut self) {
        self.wait_log(READY);
    }

    /// Waits until this run has logged `text`; fails when it ends without.
    pub fn wait_log(&mut self, text: &str) {
        let found = self.log.wait_for(text, self.started_at_line, PATIENCE);
        assert!(found, "{} did not log {text:?}", self.name);
    }

    /// Whether this run has logged `text` so far.
    pub fn has_logged(&self, text: &str) -> bool {
        self.log.lock().lines[self.started_at_line..].iter().any(|line| line.contains(text))
    }

    /// All that this run wrote to standard error so far.
    pub fn output(&self) -> String {
        self.log.lock().lines[self.started_at_line..].join("\n")
    }

    /// kill -9: the process gets no chance to do anything.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a process that has not been waited for can be killed");
            child.wait().expect("a killed process ends");
            self.drain();
        }
    }

    /// SIGTERM, and the status it ends with.
    pub fn terminate(&mut self) -> ExitStatus {
        let pid = self.pid().expect("the server runs").to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("kill(1) is there");
        assert!(sent.success(), "sending SIGTERM to {}", self.name);
        self.wait_exit()
    }

    /// Waits for the process to end by itself.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let ended = self.log.wait_closed(PATIENCE);
        assert!(ended, "{} does not end", self.name);
        let mut child = self.child.take().expect("the server was started");
        // Standard error is closed, so the end is near.
        let status = child.wait().expect("a child can be waited for");
        self.drain();
        status
    }

    pub fn restart(&mut self) {
        self.kill();
        self.start();
    }

    fn drain(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log's reader does not panic");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log.lock();
            let from = log.lines.len().saturating_sub(LOG_TAIL);
            eprintln!("---- log of {} ({:?}), from line {from}", self.name, self.kind);
            for line in &log.lines[from..] {
                eprintln!("{line}");
            }
        }
    }
}

/// `program` in a mount namespace of its own, which needs root.
fn with_resolv_conf(file: &Path, program: &Path) -> Command {
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"";
    command.args(["-m", "sh", "-c", script, "sh"]).arg(file).arg(program);
    command
}

/// `program` with a limit of open files that it cannot raise.
fn with_files(max: u32, program: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n \"$1\" && shift && exec \"$@\"", "sh", &max.to_string()]);
    command.arg(program);
    command
}

/// Several members of one cluster, and where they live.
pub struct Cluster {
    pub servers: Vec<Server>,
}

impl Cluster {
    /// `size` members in `dir`, not started.
    pub fn new(kind: &Kind, dir: &Path, size: usize, flags: &[&str]) -> Self {
        let new = |i| Server::new(kind.clone(), dir, &format!("m{i}"));
        let mut servers: Vec<Server> = (0..size).map(new).collect();
        for server in &mut servers {
            server.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        }
        let mut cluster = Self { servers };
        cluster.introduce();
        cluster
    }

    /// Makes every member known to all.
    fn introduce(&mut self) {
        let member = |server: &Server| format!("{}={}", server.name, server.peer_url());
        let initial_cluster = self.servers.iter().map(member).collect::<Vec<_>>().join(",");
        for server in &mut self.servers {
            server.initial_cluster.clone_from(&initial_cluster);
        }
    }

    /// Members speak TLS with each other; the certificates are the caller's.
    pub fn secure_peers(&mut self) {
        self.servers.iter_mut().for_each(|server| server.peer_scheme = "https");
        self.introduce();
    }

    /// Members speak with each other over sockets in `folder`, in which they are started.
    pub fn peers_over_unix(&mut self, folder: &Path) {
        for server in &mut self.servers {
            server.peer_scheme = "unix";
            server.folder = Some(folder.to_owned());
        }
        self.introduce();
    }

    /// Starts those that do not run and waits until all serve.
    pub fn start(&mut self) {
        for server in self.servers.iter_mut().filter(|server| server.pid().is_none()) {
            server.spawn();
        }
        for server in &mut self.servers {
            server.wait_ready();
        }
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.servers.iter().map(Server::endpoint).collect()
    }
}

/// What a server wrote to standard error.
#[derive(Default)]
struct Log {
    state: Mutex<Written>,
    changed: Condvar,
}

#[derive(Default)]
struct Written {
    lines: Vec<String>,
    /// Another process may still write.
    open: bool,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Written> {
        // A failed assertion elsewhere must not hide the log.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn follow(&self, stderr: impl Read) {
        let mut stderr = BufReader::new(stderr);
        let mut line = Vec::new();
        while stderr.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            self.lock().lines.push(text);
            self.changed.notify_all();
            line.clear();
        }
        self.lock().open = false;
        self.changed.notify_all();
    }

    fn wait_for(&self, text: &str, from: usize, patience: Duration) -> bool {
        let mut seen = from;
        self.wait_until(patience, |written| {
            let found = written.lines[seen..].iter().any(|line| line.contains(text));
            seen = written.lines.len();
            match (found, written.open) {
                (true, _) => Some(true),
                (false, false) => Some(false),
                (false, true) => None,
            }
        })
    }

    fn wait_closed(&self, patience: Duration) -> bool {
        self.wait_until(patience, |written| (!written.open).then_some(true))
    }

    fn wait_until(
        &self,
        patience: Duration,
        mut ready: impl FnMut(&Written) -> Option<bool>,
    ) -> bool {
        let deadline = Instant::now() + patience;
        let mut written = self.lock();
        loop {
            if let Some(result) = ready(&written) {
                return result;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(written, left);
            written = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }
}
