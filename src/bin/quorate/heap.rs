//! The allocator's record of the memory in use: switched on, dumped, and read from jemalloc's text form
//! (`heap_v2`), in which each stack of a sampled allocation stands with what is in use of it.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;

use rustix::fs::{MemfdFlags, memfd_create};
use tikv_jemalloc_ctl::raw;

use super::profile::Stack;

/// Whether the allocator was started with its profiler; `MALLOC_CONF` can take it away.
pub fn is_available() -> bool {
    // SAFETY: `opt.prof` is a bool that can be read (jemalloc(3)).
    unsafe { raw::read::<bool>(b"opt.prof\0") }.unwrap_or(false)
}

/// Samples allocations from now on.
pub fn activate() -> Result<(), String> {
    // SAFETY: `prof.active` is a bool that can be written (jemalloc(3)).
    unsafe { raw::write(b"prof.active\0", true) }.map_err(|error| error.to_string())
}

/// Returns the allocator's dump.
pub fn dump() -> io::Result<String> {
    // In memory: the allocator requires the name of a file to create, and this one has a name as well.
    let mut file = File::from(memfd_create("heap", MemfdFlags::CLOEXEC)?);
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    let name = CString::new(name).expect("a number has no zero byte");
    // SAFETY: `prof.dump` is a C string that can be written (jemalloc(3)), and is read in this call only.
    let dumped = unsafe { raw::write(b"prof.dump\0", name.as_ptr()) };
    dumped.map_err(|error| io::Error::other(error.to_string()))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Returns each stack of a dump with the estimated number of bytes in use.
pub fn parse(dump: &str) -> Result<Vec<(Stack, i64)>, String> {
    let mut lines = dump.lines();
    let head = lines.next().and_then(|line| line.strip_prefix("heap_v2/"));
    let interval = head.and_then(|text| text.parse::<f64>().ok());
    let interval = interval.ok_or("the allocator's dump does not begin with `heap_v2/`")?;
    let mut samples = Vec::new();
    let mut stack = None;
    for line in lines.take_while(|line| !line.starts_with("MAPPED_LIBRARIES")) {
        let line = line.trim_start();
        if let Some(addresses) = line.strip_prefix('@') {
            let addresses = addresses.split_whitespace().map(call_site).collect::<Option<_>>();
            stack = Some(addresses.ok_or_else(|| format!("no stack of addresses: {line}"))?);
        } else if let Some(in_use) = line.strip_prefix("t*:")
            // Before the first stack it is the sum of all; of each thread there is a line `t7:`.
            && let Some(stack) = stack.take()
        {
            let bytes = estimate(in_use, interval);
            samples.push((stack, bytes.ok_or_else(|| format!("no count of memory: {line}"))?));
        }
    }
    samples.retain(|(_, bytes)| *bytes > 0);
    Ok(samples)
}

/// Frames are return addresses; the call stands before.
fn call_site(address: &str) -> Option<u64> {
    let address = u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
    Some(address.saturating_sub(1))
}

/// Scales ` objects: bytes [..]`, what was sampled, to what is in use. An allocation of `size` bytes is
/// sampled with probability `1 - exp(-size / interval)`; jeprof computes the same.
fn estimate(sampled: &str, interval: f64) -> Option<i64> {
    let (objects, rest) = sampled.split_once(':')?;
    let objects: f64 = objects.trim().parse().ok()?;
    let bytes: f64 = rest.split('[').next()?.trim().parse().ok()?;
    if objects == 0.0 || bytes == 0.0 {
        return Some(0);
    }
    let probability = 1.0 - (-bytes / objects / interval).exp();
    Some((bytes / probability).round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "heap_v2/524288\n  t*: 3: 2097152 [0: 0]\n  t0: 3: 2097152 [0: 0]\n\
                        @ 0x10 0x2a\n  t*: 2: 1048576 [7: 99]\n  t0: 2: 1048576 [0: 0]\n\
                        @ 0x30\n  t*: 0: 0 [4: 4096]\n\
                        \nMAPPED_LIBRARIES:\n@ no stack\n";

    #[test]
    fn stacks_are_read_with_memory_in_use() {
        // 512 KiB each, one interval: 63 of 100 are sampled.
        let samples = parse(DUMP).expect("a whole dump");
        assert_eq!(samples, [(vec![0xf, 0x29], 1_658_823)]);
    }

    #[test]
    fn small_allocations_stand_for_many() {
        assert_eq!(estimate(" 1: 512 [0: 0]", 524_288.0), Some(524_544));
        assert_eq!(estimate(" 1: 512", 524_288.0), Some(524_544));
    }

    #[test]
    fn damaged_dumps_are_refused() {
        for (dump, why) in [
            ("", "does not begin with"),
            ("heap_v3/1\n", "does not begin with"),
            ("heap_v2/1\n@ 10\n", "no stack of addresses: @ 10"),
            ("heap_v2/1\n@ 0x1\n  t*: 1\n", "no count of memory: t*: 1"),
        ] {
            let error = parse(dump).expect_err(dump);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn memory_in_use_is_found_by_its_stack() {
        assert!(is_available(), "the program's settings of the allocator switch it on");
        activate().expect("it is available");
        let held = vec![1_u8; 64 << 20];
        let samples = parse(&dump().expect("memory takes it")).expect("it is a dump");
        let most = samples.iter().map(|(_, bytes)| *bytes).max().expect("one is large");
        assert!(most >= held.len() as i64, "{most}");
    }
}
