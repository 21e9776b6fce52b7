//! How much of each folder of the program a run has reached: counted in edges, by what the compiler put
//! in for the fuzzer, and printed at the end when the variable `FUZZ_COVERAGE` is set.

/// Notes what the last input has reached.
pub fn note() {
    #[cfg(fuzzing)]
    edges::note();
}

#[cfg(fuzzing)]
mod edges {
    use std::collections::BTreeMap;
    use std::ffi::c_void;
    use std::sync::{Mutex, Once};

    /// Folders that the figures are about.
    const FOLDERS: [&str; 12] = [
        "wal", "mvcc", "apply", "bbolt", "lease", "peer", "http", "config", "watch", "tls",
        "server", "member",
    ];

    static SEEN: Mutex<Vec<bool>> = Mutex::new(Vec::new());
    static BEGIN: Once = Once::new();

    // LLVM's inline counters and the addresses they belong to (clang's SanitizerCoverage).
    unsafe extern "C" {
        #[link_name = "__start___sancov_cntrs"]
        static COUNTERS: u8;
        #[link_name = "__stop___sancov_cntrs"]
        static COUNTERS_END: u8;
        #[link_name = "__start___sancov_pcs"]
        static ADDRESSES: [usize; 2];
        fn atexit(callback: extern "C" fn()) -> i32;
    }

    fn counters() -> &'static [u8] {
        // SAFETY: the linker defines both ends of the section; its bytes may be read at any time.
        unsafe {
            let (start, end) = (&raw const COUNTERS, &raw const COUNTERS_END);
            std::slice::from_raw_parts(start, end.offset_from_unsigned(start))
        }
    }

    pub fn note() {
        BEGIN.call_once(|| {
            if std::env::var_os("FUZZ_COVERAGE").is_some() {
                *SEEN.lock().expect("one thread") = vec![false; counters().len()];
                // SAFETY: the callback does not unwind.
                unsafe { atexit(print) };
            }
        });
        let mut seen = SEEN.lock().expect("one thread");
        for (seen, count) in seen.iter_mut().zip(counters()) {
            *seen |= *count > 0;
        }
    }

    extern "C" fn print() {
        let seen = SEEN.lock().expect("one thread");
        let mut folders: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (number, seen) in seen.iter().enumerate() {
            // SAFETY: there is one pair of address and flags for each counter.
            let [address, _] = unsafe { *(&raw const ADDRESSES).add(number) };
            let mut folder = None;
            backtrace::resolve(address as *mut c_void, |symbol| {
                if folder.is_none() {
                    folder = symbol.filename().and_then(|file| {
                        let file = file.to_str()?;
                        FOLDERS.into_iter().find(|name| file.contains(&format!("/src/{name}/")))
                    });
                }
            });
            if let Some(folder) = folder {
                let (reached, all) = folders.entry(folder).or_default();
                *reached += usize::from(*seen);
                *all += 1;
            }
        }
        for (folder, (reached, all)) in folders {
            println!("coverage {folder} {reached}/{all}");
        }
    }
}
