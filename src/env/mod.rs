//! The interfaces to the world. Everything that differs between a real machine and a simulated one
//! (clock, randomness, tasks, sockets, files) is reached through [`Env`] and nowhere else.
//!
//! Invariants:
//! * No other module names a clock, a socket, a file, a thread, a random number generator or a spawn.
//! * The traits are object-safe and free of type parameters, so that no type parameter spreads.
//! * [`Disk`] and [`File`] block: they are called only inside [`Env::blocking`] or on a [`Worker`].
//!
//! Reading order: this file (the traits), [`tokio`] (a real machine), `dns` (its name servers), [`hyper`]
//! (hyper's executor and timer over the traits).

#[cfg(test)]
pub mod clocks;
mod dns;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod hyper;
pub mod places;
pub mod tokio;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use ::tokio::io::{AsyncRead, AsyncWrite};
use ::tokio::sync::Semaphore;

use crate::limits;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// Work that may block; once begun, it runs to its end even when no caller waits for it any more.
pub type Job = Box<dyn FnOnce() + Send + 'static>;

/// A kind of blocking work that clients cause. Each has few places of its own, so that much work of one
/// kind delays neither another kind nor the member's own work, which has no kind. Work whose caller has
/// gone before it had a place is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Reads of the store: large ranges, history.
    Reads,
    /// Hashes of the store.
    Hashes,
    /// Hashes of passwords.
    Passwords,
    /// Certificates on disk.
    Tls,
    /// Names and addresses of hosts.
    Names,
}

impl Work {
    /// The places of every kind.
    const ALL: [(Self, usize); 5] = [
        (Self::Reads, limits::BLOCKING_READS_MAX),
        (Self::Hashes, limits::BLOCKING_HASHES_MAX),
        (Self::Passwords, limits::BLOCKING_PASSWORDS_MAX),
        (Self::Tls, limits::BLOCKING_TLS_MAX),
        (Self::Names, limits::BLOCKING_NAMES_MAX),
    ];
}

/// The free places of every [`Work`] of blocking work.
pub struct WorkPlaces([Arc<Semaphore>; 5]);

impl Default for WorkPlaces {
    fn default() -> Self {
        Self(Work::ALL.map(|(_, places)| Arc::new(Semaphore::new(places))))
    }
}

impl WorkPlaces {
    fn of(&self, kind: Work) -> &Arc<Semaphore> {
        &self.0[kind as usize]
    }
}

/// All the interfaces, cheap to clone.
#[derive(Clone)]
pub struct Env {
    pub rt: Arc<dyn Runtime>,
    pub net: Arc<dyn Net>,
    pub disk: Arc<dyn Disk>,
}

/// Tasks, time and randomness.
pub trait Runtime: Send + Sync + 'static {
    /// Starts a task. It runs until it ends or the returned handle's `abort` is called; dropping the
    /// handle detaches it.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> Box<dyn Abort>;
    /// Runs `job` where blocking is allowed; the future is ready when it has ended.
    fn spawn_blocking(&self, name: &'static str, job: Job) -> BoxFuture<'static, ()>;
    /// The places of blocking work that clients cause.
    fn work_places(&self) -> &WorkPlaces;
    /// As `spawn_blocking`, for work of a library that uses the real clock or starts threads, such as
    /// opening a RocksDB: the simulator runs it outside of simulated time.
    fn spawn_outside(&self, name: &'static str, job: Job) -> BoxFuture<'static, ()> {
        self.spawn_blocking(name, job)
    }
    /// A place of its own for blocking jobs, which run one after the other in the order given.
    fn worker(&self, name: &'static str) -> Arc<dyn Worker>;
    /// The monotonic clock.
    fn now(&self) -> Instant;
    /// The wall clock, which may jump.
    fn wall(&self) -> SystemTime;
    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()>;
    fn fill_random(&self, buf: &mut [u8]);
}

/// A running task's handle.
pub trait Abort: Send + Sync {
    fn abort(&self);
    fn is_finished(&self) -> bool;
}

/// One thread's worth of blocking work, in order.
pub trait Worker: Send + Sync + 'static {
    /// Queues `job`; the future is ready when it has ended. The job runs even if the future is dropped.
    fn run(&self, job: Job) -> BoxFuture<'static, ()>;
}

/// A byte stream to a peer.
pub trait Conn: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Conn for T {}

pub type BoxConn = Box<dyn Conn>;

pub trait Listener: Send + 'static {
    /// The next connection and its other end; a unix socket's other end has no address.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxConn, Option<SocketAddr>)>>;
    /// `Unsupported` for a unix socket.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// Where a listener is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Place {
    /// Of a socket that has one.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

pub trait Net: Send + Sync + 'static {
    /// How many descriptors the process may have open, those of connections among them.
    fn descriptors_max(&self) -> usize {
        usize::MAX
    }
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;
    /// Resolves and connects. There is no time limit inside: wrap it in [`Env::timeout`].
    fn connect(&self, host_port: String) -> BoxFuture<'_, io::Result<BoxConn>>;
    /// Listens on a unix socket. What lies at `path` is replaced; the socket's file is removed when the
    /// listener is dropped.
    fn listen_unix(&self, path: PathBuf) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        drop(path);
        Box::pin(async { Err(no_unix_sockets()) })
    }
    fn connect_unix(&self, path: PathBuf) -> BoxFuture<'_, io::Result<BoxConn>> {
        drop(path);
        Box::pin(async { Err(no_unix_sockets()) })
    }
    /// The addresses of a name.
    fn addresses_of(&self, name: String) -> BoxFuture<'_, io::Result<Vec<IpAddr>>>;
    /// The names of an address.
    fn names_of(&self, address: IpAddr) -> BoxFuture<'_, io::Result<Vec<String>>>;
    /// The SRV records (RFC 2782) at a name such as `_etcd-server._tcp.example.com`, in the order of the
    /// answer; at least one.
    fn services_of(&self, name: String) -> BoxFuture<'_, io::Result<Vec<Service>>> {
        Box::pin(async move {
            Err(io::Error::new(io::ErrorKind::NotFound, format!("lookup {name}: no such host")))
        })
    }
}

/// An SRV record: where a service is, and how much of its load that place is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The lowest counts; the others are for when those of the lowest cannot be reached.
    pub priority: u16,
    /// A share of the load, among those of one priority.
    pub weight: u16,
    pub port: u16,
    /// A host's name, without a dot at its end.
    pub target: String,
}

fn no_unix_sockets() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "there are no unix sockets here")
}

/// An open file. Reads and writes name their offset; there is no cursor.
pub trait File: Send + Sync {
    /// Returns the bytes read, which are fewer than requested only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Truncates or extends with zeroes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves space so that later writes within `len` cannot fail for want of it; extends with zeroes.
    fn allocate(&self, len: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Makes contents and length durable (fdatasync). An error means that unsynced writes may be
    /// gone for good: a retry that succeeds proves nothing.
    fn sync_data(&self) -> io::Result<()>;
}

/// How [`Disk::open`] opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// The file must exist; reads only.
    Read,
    /// The file must exist; reads and writes.
    Write,
    /// The file must not exist; reads and writes.
    CreateNew,
}

pub trait Disk: Send + Sync + 'static {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>>;
    /// Replaces `to` if it exists. Durable only after `sync_dir` of the folder.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// A file or an empty directory. Durable only after `sync_dir` of the folder.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Names (not paths) of the entries in `dir`, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Creates `dir` and its parents, readable by the owner only (0700), and makes their names durable:
    /// a log that is synced is worth nothing in a folder that is lost.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// The permissions of a folder, nine bits; `None` where there are none.
    fn folder_mode(&self, _dir: &Path) -> io::Result<Option<u32>> {
        Ok(None)
    }
    /// Makes the folder's entries (creations, renames, removals) durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the exclusive lock of `path` (created if absent) until the guard is dropped.
    /// `WouldBlock` when another process, or another guard of this one, holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
    /// Bytes that can still be written below `dir`.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// Holds a [`Disk::lock`]; dropping it releases.
pub trait Lock: Send + Sync {}

/// The time given to [`Env::timeout`] ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("deadline has elapsed")]
pub struct Elapsed;

impl Env {
    pub fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Box<dyn Abort> {
        self.rt.spawn(name, Box::pin(task))
    }

    pub fn now(&self) -> Instant {
        self.rt.now()
    }

    pub fn wall(&self) -> SystemTime {
        self.rt.wall()
    }

    pub fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.rt.sleep_until(self.rt.now() + duration)
    }

    pub fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        self.rt.sleep_until(at)
    }

    /// Runs `work` where blocking is allowed and returns what it returns.
    pub async fn blocking<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let (reply, result) = ::tokio::sync::oneshot::channel();
        let job: Job = Box::new(move || drop(reply.send(work())));
        self.rt.spawn_blocking(name, job).await;
        result.await.expect("the job has ended and sent its result")
    }

    /// As [`Env::blocking`], for work that a client has caused: it waits for a place of its kind, and is
    /// not done when the returned future is dropped before it has one.
    pub async fn blocking_for<T: Send + 'static>(
        &self,
        kind: Work,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let places = self.rt.work_places().of(kind).clone();
        let place = places.acquire_owned().await.expect("the semaphore is never closed");
        // The place is free when the work has ended, which may be after its caller has gone.
        let placed = move || {
            let done = work();
            drop(place);
            done
        };
        self.blocking(name, placed).await
    }

    /// As [`Env::blocking`], for work that must run outside a simulation: see
    /// [`Runtime::spawn_outside`]. Opening the engine is the only one.
    pub async fn blocking_outside<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let (reply, result) = ::tokio::sync::oneshot::channel();
        let job: Job = Box::new(move || drop(reply.send(work())));
        self.rt.spawn_outside(name, job).await;
        result.await.expect("the job has ended and sent its result")
    }

    /// `Err(Elapsed)` when `future` is not ready within `duration`; it is dropped then.
    pub async fn timeout<F: Future>(
        &self,
        duration: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        Timeout { future: Box::pin(future), deadline: self.sleep(duration) }.await
    }

    pub async fn listen(&self, place: &Place) -> io::Result<Box<dyn Listener>> {
        match place {
            Place::Tcp(address) => self.net.listen(*address).await,
            Place::Unix(path) => self.net.listen_unix(path.clone()).await,
        }
    }

    pub fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.rt.fill_random(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// [`Env::timeout`] as a future: the work is polled first, so that a result that is there counts.
struct Timeout<F: Future> {
    future: Pin<Box<F>>,
    deadline: BoxFuture<'static, ()>,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        self.deadline.as_mut().poll(cx).map(|()| Err(Elapsed))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    // Not all names: `tokio` means the crate here.
    use super::Work;
    use crate::limits;

    #[test]
    fn kinds_are_in_order() {
        for (at, (kind, _)) in Work::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
    }

    #[tokio::test]
    async fn work_of_one_kind_does_not_delay_another() {
        let env = crate::env::tokio::env();
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        let mut busy = Vec::new();
        for _ in 0..limits::BLOCKING_PASSWORDS_MAX {
            let held = held.clone();
            let wait = move || held.lock().expect("no thread panics").recv().is_err();
            let mut hashing = Box::pin(env.blocking_for(Work::Passwords, "hash", wait));
            assert!(futures::poll!(&mut hashing).is_pending());
            busy.push(hashing);
        }
        let (gone, done) = mpsc::channel();
        let mut waiting = Box::pin(env.blocking_for(Work::Passwords, "hash", move || {
            let _ = gone.send(());
        }));
        assert!(futures::poll!(&mut waiting).is_pending());
        assert_eq!(env.blocking_for(Work::Tls, "read", || 7).await, 7);
        assert_eq!(env.blocking("flush", || 8).await, 8);
        drop(waiting);
        drop(release);
        for hashing in busy {
            assert!(hashing.await);
        }
        env.blocking_for(Work::Passwords, "hash", || ()).await;
        assert!(done.recv().is_err(), "work of a caller that has gone is not done");
    }
}
