//! Profiles of this process, for `/debug/pprof`: of the processor's time by a timer that interrupts
//! whatever runs, of memory by what the allocator, jemalloc, notes of every half megabyte or so. Nothing
//! is noted unless somebody may ask for it.

use std::ffi::c_void;
use std::io::Read as _;
use std::time::Duration;

use backtrace::Frame;
use jemalloc_pprof::{
    JemallocProfCtl, PROF_CTL, StackProfile, WeightedStack, activate_jemalloc_profiling,
};
use mappings::MAPPINGS;
use pprof::{ProfilerGuard, ProfilerGuardBuilder, UnresolvedReport};
use quorate::env::BoxFuture;
use quorate::http;
use tokio::{sync, task, time};

/// Interruptions in a second of processor time: about Go's hundred, and never for long in step with
/// what happens every 10 ms.
const HZ: i32 = 99;
/// Libraries that are not interrupted: to unwind the stack takes locks that they may hold.
const LEFT_ALONE: &[&str] = &["libc", "libgcc", "pthread", "vdso"];
/// The function, of the library, that the timer calls.
const HANDLER: &[u8] = b"perf_signal_handler";

pub struct Profiler {
    /// There is one timer.
    timer: sync::Mutex<()>,
}

impl Profiler {
    /// From now on memory is noted.
    pub async fn start() -> Self {
        activate_jemalloc_profiling().await;
        Self { timer: sync::Mutex::new(()) }
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
            elsewhere(move || Ok(of_cpu(&report))).await
        })
    }

    fn heap(&self, text: bool) -> BoxFuture<'_, Result<Vec<u8>, String>> {
        Box::pin(async move {
            let Some(allocator) = PROF_CTL.as_ref() else {
                return Err("the allocator was told not to note anything".into());
            };
            let mut allocator = allocator.clone().lock_owned().await;
            elsewhere(move || of_memory(&mut allocator, text)).await
        })
    }

    fn symbols(&self, addresses: Vec<u64>) -> BoxFuture<'_, Result<Vec<(u64, String)>, String>> {
        let known = |address| Some((address, symbol(address)?));
        Box::pin(elsewhere(move || Ok(addresses.into_iter().filter_map(known).collect())))
    }
}

/// Where looking up names keeps nobody waiting.
async fn elsewhere<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    task::spawn_blocking(job).await.map_err(|error| error.to_string())?
}

/// The innermost function there, where calls were made part of their callers.
fn symbol(address: u64) -> Option<String> {
    let mut name = None;
    backtrace::resolve(address as *mut c_void, |symbol| {
        name = name.take().or_else(|| symbol.name().map(|name| format!("{name:#}")));
    });
    name
}

fn of_memory(allocator: &mut JemallocProfCtl, text: bool) -> Result<Vec<u8>, String> {
    if !text {
        return allocator.dump_pprof().map_err(|error| error.to_string());
    }
    let mut file = allocator.dump().map_err(|error| error.to_string())?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}

fn of_cpu(report: &UnresolvedReport) -> Vec<u8> {
    let nanos = 1e9 / f64::from(HZ);
    let mut profile = StackProfile::default();
    for mapping in MAPPINGS.as_deref().unwrap_or_default() {
        profile.push_mapping(mapping.clone());
    }
    for (stack, samples) in &report.data {
        // From the outermost call inwards.
        let addrs = interrupted(&stack.frames).iter().rev().map(|frame| frame.ip() as usize);
        // Below the first function of a thread there is nothing.
        let addrs = addrs.filter(|address| *address > 0);
        let weight = *samples as f64 * nanos;
        let stack = WeightedStack { addrs: addrs.collect(), weight };
        profile.push_stack(stack, None);
    }
    profile.to_pprof(("cpu", "nanoseconds"), ("cpu", "nanoseconds"), None)
}

/// Without what ran because of the timer: its handler, with what that calls, and the kernel's way to it.
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
