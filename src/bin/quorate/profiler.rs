//! Profiles of this process, for `/debug/pprof`: of processor time by a timer that interrupts the running
//! threads, of memory by the allocator, jemalloc, which samples about every half megabyte. Neither runs
//! unless profiles are enabled.

use std::ffi::c_void;
use std::time::Duration;

use backtrace::Frame;
use pprof::{ProfilerGuard, ProfilerGuardBuilder};
use quorate::env::BoxFuture;
use quorate::http;
use tokio::{sync, task, time};
use tracing::{info, warn};

use super::profile::Stack;
use super::{heap, profile};

/// Interruptions in a second of processor time: about Go's hundred, and never for long in step with
/// what happens every 10 ms.
const HZ: i32 = 99;
const SAMPLE_NANOS: i64 = 1_000_000_000 / HZ as i64;
/// Libraries that are not interrupted: to unwind the stack takes locks that they may hold.
const LEFT_ALONE: &[&str] = &["libc", "libgcc", "pthread", "vdso"];
/// The function, of the library, that the timer calls.
const HANDLER: &[u8] = b"perf_signal_handler";

pub struct Profiler {
    /// There is one timer.
    timer: sync::Mutex<()>,
    /// One dump at a time bounds the memory that dumps take.
    heap: sync::Mutex<()>,
}

impl Profiler {
    /// Samples allocations from now on.
    pub fn start() -> Self {
        match heap::is_available().then(heap::activate) {
            None => warn!("jemalloc profiling is disabled and cannot be activated"),
            Some(Ok(())) => info!("jemalloc profiling activated"),
            Some(Err(error)) => warn!(error, "could not activate jemalloc profiling"),
        }
        Self { timer: sync::Mutex::new(()), heap: sync::Mutex::new(()) }
    }
}

impl http::pprof::Profiler for Profiler {
    fn cpu(&self, lasts: Duration) -> BoxFuture<'_, Result<Vec<u8>, String>> {
        Box::pin(async move {
            let in_use = |_| "cpu profiling already in use".to_owned();
            let _alone = self.timer.try_lock().map_err(in_use)?;
            let timer = ProfilerGuardBuilder::default().frequency(HZ).blocklist(LEFT_ALONE);
            let timer: ProfilerGuard<'_> = timer.build().map_err(|error| error.to_string())?;
            time::sleep(lasts).await;
            let report = timer.report().build_unresolved().map_err(|error| error.to_string())?;
            drop(timer);
            blocking(move || {
                let samples = report.data.iter().map(|(sample, count)| {
                    (calls(interrupted(&sample.frames)), *count as i64 * SAMPLE_NANOS)
                });
                profile::encode("cpu", "nanoseconds", samples).map_err(|error| error.to_string())
            })
            .await
        })
    }

    fn heap(&self, text: bool) -> BoxFuture<'_, Result<Vec<u8>, String>> {
        Box::pin(async move {
            if !heap::is_available() {
                return Err("the allocator's profiler is switched off (MALLOC_CONF)".into());
            }
            let _alone = self.heap.lock().await;
            blocking(move || {
                let dump = heap::dump().map_err(|error| error.to_string())?;
                if text {
                    return Ok(dump.into_bytes());
                }
                let samples = heap::parse(&dump)?;
                profile::encode("inuse_space", "bytes", samples).map_err(|error| error.to_string())
            })
            .await
        })
    }

    fn symbols(&self, addresses: Vec<u64>) -> BoxFuture<'_, Result<Vec<(u64, String)>, String>> {
        let known = |address| Some((address, symbol(address)?));
        Box::pin(blocking(move || Ok(addresses.into_iter().filter_map(known).collect())))
    }
}

/// Runs `job` off the runtime's threads: looking up names takes long.
async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    task::spawn_blocking(job).await.map_err(|error| error.to_string())?
}

/// Returns the innermost function at `address`, where calls were inlined.
fn symbol(address: u64) -> Option<String> {
    let mut name = None;
    backtrace::resolve(address as *mut c_void, |symbol| {
        name = name.take().or_else(|| symbol.name().map(|name| format!("{name:#}")));
    });
    name
}

/// The first frame was interrupted where it stands; of the others the call is before the return address.
/// Below the first function of a thread the address is 0.
fn calls(frames: &[Frame]) -> Stack {
    let addresses = frames.iter().map(|frame| frame.ip() as u64).enumerate();
    let calls = addresses.map(|(at, address)| address.saturating_sub(u64::from(at > 0)));
    calls.filter(|address| *address > 0).collect()
}

/// Leaves out the timer's own frames: its handler, what that calls, and the kernel's frame before it.
fn interrupted(frames: &[Frame]) -> &[Frame] {
    let is_handler = |frame: &Frame| {
        let mut found = false;
        backtrace::resolve_frame(frame, |symbol| {
            found |= symbol.name().is_some_and(|name| name.as_bytes() == HANDLER);
        });
        found
    };
    let handler = frames.iter().position(is_handler);
    handler.and_then(|handler| frames.get(handler + 2..)).unwrap_or(frames)
}
