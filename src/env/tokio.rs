//! The environment of a real machine: tokio's tasks, time and sockets, the operating system's files.
//! No decisions are made here; every function is a thin call.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is where they are called"
)]

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Instant, SystemTime};

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::dns::NameServers;
use super::{
    Abort, BoxConn, BoxFuture, Disk, Env, File, Job, Listener, Lock, Net, Open, Runtime, Service,
    WorkPlaces, Worker,
};
use crate::limits;

/// The environment of this machine. Must be called inside a tokio runtime, which then serves every task
/// and timer made through it, from whatever thread.
pub fn env() -> Env {
    Machine::default().env()
}

/// Differences from what is usual on a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Other processes may listen on the same ports (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// Where connections come from, as far as the other end has an address of that kind.
    pub local_address: Option<IpAddr>,
    /// Nothing is made durable: a power cut may lose any write.
    pub no_sync: bool,
}

impl Machine {
    /// As the function `env`.
    pub fn env(self) -> Env {
        Env {
            rt: Arc::new(TokioRuntime {
                handle: Handle::current(),
                work_places: WorkPlaces::default(),
            }),
            net: Arc::new(Sockets(self)),
            disk: Arc::new(FileSystem { sync: !self.no_sync }),
        }
    }
}

struct TokioRuntime {
    handle: Handle,
    work_places: WorkPlaces,
}

impl Runtime for TokioRuntime {
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) -> Box<dyn Abort> {
        Box::new(Task(self.handle.spawn(task).abort_handle()))
    }

    fn spawn_blocking(&self, _name: &'static str, job: Job) -> BoxFuture<'static, ()> {
        let running = self.handle.spawn_blocking(job);
        Box::pin(async move {
            if let Err(error) = running.await {
                match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // Cancelled: the runtime is being torn down, and this future with it.
                    Err(_) => std::future::pending().await,
                }
            }
        })
    }

    fn work_places(&self) -> &WorkPlaces {
        &self.work_places
    }

    fn worker(&self, name: &'static str) -> Arc<dyn Worker> {
        let (queue, jobs) = sync_channel(limits::WORKER_QUEUE);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work_off(&jobs))
            .expect("the system has a thread left at start");
        Arc::new(WorkerThread { queue })
    }

    /// tokio's clock is the system's, except in tests that pause it.
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        let _inside = self.handle.enter();
        Box::pin(tokio::time::sleep_until(at.into()))
    }

    fn fill_random(&self, buf: &mut [u8]) {
        getrandom::fill(buf).expect("the system's random number generator answers");
    }
}

struct Task(tokio::task::AbortHandle);

impl Abort for Task {
    fn abort(&self) {
        self.0.abort();
    }

    fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

struct WorkerThread {
    queue: SyncSender<Queued>,
}

struct Queued {
    job: Job,
    done: oneshot::Sender<()>,
}

impl Worker for WorkerThread {
    /// Blocks the caller while `limits::WORKER_QUEUE` jobs wait; callers that wait for one job
    /// before they queue the next never meet that.
    fn run(&self, job: Job) -> BoxFuture<'static, ()> {
        let (done, ended) = oneshot::channel();
        self.queue.send(Queued { job, done }).expect(
            "the worker's thread lives until its last handle is dropped, or a job panicked",
        );
        Box::pin(async move { ended.await.expect("the job has not panicked") })
    }
}

/// The worker's thread: it ends when every handle is dropped, or with the panic of a job.
fn work_off(jobs: &Receiver<Queued>) {
    for Queued { job, done } in jobs {
        job();
        // The caller may be gone: the job ran all the same.
        let _ = done.send(());
    }
}

/// TCP, unix sockets, and the system's resolver.
struct Sockets(Machine);

impl Sockets {
    fn bind(&self, addr: SocketAddr) -> io::Result<TcpListener> {
        let socket = socket_for(addr)?;
        // As Go does: connections of an earlier process may be in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(self.0.reuse_port)?;
        socket.bind(addr)?;
        socket.listen(BACKLOG)
    }

    async fn stream(&self, host_port: String) -> io::Result<TcpStream> {
        let Some(local) = self.0.local_address else { return TcpStream::connect(host_port).await };
        let mut failed = None;
        for addr in tokio::net::lookup_host(host_port).await? {
            let socket = socket_for(addr)?;
            if addr.is_ipv4() == local.is_ipv4() {
                socket.bind((local, 0).into())?;
            }
            match socket.connect(addr).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| io::Error::other("the name has no address")))
    }
}

/// Connections that wait to be accepted; as many as tokio itself lets.
const BACKLOG: u32 = 1024;

fn socket_for(addr: SocketAddr) -> io::Result<TcpSocket> {
    if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

impl Net for Sockets {
    fn descriptors_max(&self) -> usize {
        let limit = getrlimit(Resource::Nofile).current;
        limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
    }

    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = self.bind(addr)?;
            Ok(Box::new(Accepting(listener)) as Box<dyn Listener>)
        })
    }

    fn connect(&self, host_port: String) -> BoxFuture<'_, io::Result<BoxConn>> {
        Box::pin(async move {
            let stream = self.stream(host_port).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxConn)
        })
    }

    /// As etcd: whatever lies there, mostly the socket of a process that was killed, is removed.
    fn listen_unix(&self, path: PathBuf) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&path)?;
            Ok(Box::new(AcceptingUnix { listener, path }) as Box<dyn Listener>)
        })
    }

    fn connect_unix(&self, path: PathBuf) -> BoxFuture<'_, io::Result<BoxConn>> {
        Box::pin(async move { Ok(Box::new(UnixStream::connect(path).await?) as BoxConn) })
    }

    fn addresses_of(&self, name: String) -> BoxFuture<'_, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }

    fn names_of(&self, address: IpAddr) -> BoxFuture<'_, io::Result<Vec<String>>> {
        Box::pin(async move {
            let lookup = tokio::task::spawn_blocking(move || dns_lookup::lookup_addr(&address));
            Ok(vec![lookup.await.map_err(io::Error::other)??])
        })
    }

    fn services_of(&self, name: String) -> BoxFuture<'_, io::Result<Vec<Service>>> {
        Box::pin(async move { NameServers::of_the_system().services_of(&name).await })
    }
}

struct AcceptingUnix {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener for AcceptingUnix {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxConn, Option<SocketAddr>)>> {
        Box::pin(async move {
            let (stream, _) = self.listener.accept().await?;
            Ok((Box::new(stream) as BoxConn, None))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Drop for AcceptingUnix {
    fn drop(&mut self) {
        // It may have been removed already.
        let _ = fs::remove_file(&self.path);
    }
}

struct Accepting(TcpListener);

impl Listener for Accepting {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxConn, Option<SocketAddr>)>> {
        Box::pin(async move {
            let (stream, from) = self.0.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as BoxConn, Some(from)))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

struct FileSystem {
    sync: bool,
}

impl Disk for FileSystem {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).mode(0o600);
        match how {
            Open::Read => {}
            Open::Write => drop(options.write(true)),
            Open::CreateNew => drop(options.write(true).create_new(true)),
        }
        Ok(Box::new(OpenFile { file: options.open(path)?, sync: self.sync }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::symlink_metadata(path)?.is_dir() {
            true => fs::remove_dir(path),
            false => fs::remove_file(path),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        if dir.as_os_str().is_empty() || dir.is_dir() {
            return Ok(());
        }
        let parent = dir.parent().unwrap_or(Path::new("/"));
        self.create_dir_all(parent)?;
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            // It was created meanwhile.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
            created => created?,
        }
        // The parent of a relative path of one name is called by no name.
        self.sync_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
    }

    fn folder_mode(&self, dir: &Path) -> io::Result<Option<u32>> {
        Ok(Some(fs::metadata(dir)?.permissions().mode() & 0o777))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let folder = fs::File::open(dir)?;
        if self.sync { folder.sync_all() } else { Ok(()) }
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = file.open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(Locked(file)))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// `flock` belongs to the open file, so closing it releases.
struct Locked(#[allow(dead_code, reason = "held, not read")] fs::File);

impl Lock for Locked {}

struct OpenFile {
    file: fs::File,
    sync: bool,
}

impl File for OpenFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        // The system may return less than there is; this function does so at the end only.
        while read < buf.len() {
            match self.file.read_at(&mut buf[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        loop {
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
                Err(Errno::INTR) => {}
                // The file system cannot reserve space: the file is extended, so that its length is right.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) if self.len()? < len => {
                    return self.set_len(len);
                }
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
                done => return Ok(done?),
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.sync { self.file.sync_data() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// Keys, logs and tokens are in them.
    #[tokio::test]
    async fn files_and_folders_are_their_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let (env, parent) = (env(), tempfile::tempdir().expect("a temporary folder"));
        let folder = parent.path().join("member/wal");
        env.disk.create_dir_all(&folder).expect("it is created");
        let (file, lock) = (folder.join("0.wal"), folder.join("lock"));
        drop(env.disk.open(&file, Open::CreateNew).expect("it is created"));
        drop(env.disk.lock(&lock).expect("it is created"));
        let found = [
            (&*parent.path().join("member"), 0o700),
            (&folder, 0o700),
            (&file, 0o600),
            (&lock, 0o600),
        ];
        for (path, expected) in found {
            let mode = fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
            assert_eq!(mode, expected, "{:o} of {}", mode, path.display());
        }
    }

    #[tokio::test]
    async fn a_port_is_shared_only_by_those_who_share() {
        let sharing = Machine { reuse_port: true, ..Machine::default() }.env();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = sharing.net.listen(any).await.expect("there is a free port");
        let place = first.local_addr().expect("it has one");
        sharing.net.listen(place).await.expect("the port is shared");
        let error = env().net.listen(place).await.err().expect("the port is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn connections_come_from_where_they_are_told_to() {
        let local = IpAddr::from([127, 0, 0, 7]);
        let machine = Machine { local_address: Some(local), ..Machine::default() }.env();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut listener = machine.net.listen(any).await.expect("there is a free port");
        let place = listener.local_addr().expect("it has one");
        let mut conn = machine.net.connect(place.to_string()).await.expect("somebody listens");
        let (_, from) = listener.accept().await.expect("somebody has connected");
        assert_eq!(from.map(|from| from.ip()), Some(local));
        conn.shutdown().await.expect("it is open");
    }
}
