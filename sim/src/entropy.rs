//! The entropy that madsim does not catch: getrandom 0.2 (under rand 0.8, so under raft and ring)
//! calls the kernel through libc's `syscall`, past the `getrandom` symbol that madsim replaces. This
//! file replaces `syscall` for test binaries that link `sim`. It changes nothing outside a simulation.

use std::ffi::{c_long, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use madsim::rand::RngCore;

type Syscall =
    unsafe extern "C" fn(c_long, c_long, c_long, c_long, c_long, c_long, c_long) -> c_long;

/// The C library's own `syscall`, looked up once.
static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Makes sure that the linker keeps the replacement, and that it works.
pub(crate) fn install() {
    let ours: *const () = syscall as *const ();
    assert!(!std::hint::black_box(ours).is_null(), "the replacement is linked");
}

/// # Safety
/// As the C library's `syscall`, which takes at most six arguments after the number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    // A length of zero is getrandom's probe for the call's existence: the kernel may answer it.
    let simulated =
        number == libc::SYS_getrandom && b > 0 && madsim::runtime::Handle::try_current().is_ok();
    if simulated {
        // SAFETY: the caller passes a buffer of `b` writable bytes at `a`.
        let buf = unsafe { std::slice::from_raw_parts_mut(a as *mut u8, b as usize) };
        madsim::rand::thread_rng().fill_bytes(buf);
        return b;
    }
    // SAFETY: the same arguments go to the function they were meant for.
    unsafe { real()(number, a, b, c, d, e, f) }
}

/// Everything std does with futexes comes through here, so the lookup is kept in an atomic: a lock
/// would call itself.
fn real() -> Syscall {
    let mut found = REAL.load(Ordering::Relaxed);
    if found.is_null() {
        // SAFETY: a constant name, and dlsym has no other requirement.
        found = unsafe { libc::dlsym(libc::RTLD_NEXT, c"syscall".as_ptr()) };
        assert!(!found.is_null(), "the C library has `syscall`");
        REAL.store(found, Ordering::Relaxed);
    }
    // SAFETY: `found` is the C library's `syscall`; on the platforms we simulate on, a variadic
    // function is called as one with that many arguments.
    unsafe { std::mem::transmute::<*mut c_void, Syscall>(found) }
}
