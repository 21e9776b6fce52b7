//! Planted faults: mistakes that real systems made, switched on by name, to prove that the simulator's
//! checkers see them. The switch is the feature `plant`, which nothing but the crate `sim` asks for:
//! programs built with `-p quorate`, as `ci/serve` and the image are, do not have it, there [`is`] is the
//! constant `false` and the mistake is not compiled. Cargo gives it to programs that it builds together
//! with `sim`; nothing in them turns it on.
//!
//! The switch belongs to a thread, as a simulation does: runs beside each other do not disturb each
//! other, and a server on real threads never has one.

/// Every fault, with what it does.
pub const ALL: &[(&str, &str)] = &[
    ("lost-write", "an acknowledged put is not carried out, once in a while"),
    ("applied-index-apart", "data becomes durable without the applied index that belongs to it"),
    ("ack-before-fsync", "appends and votes are answered before they are on disk"),
    ("unconfirmed-read", "a linearizable read asks nobody whether its member still leads"),
    ("txn-compares-ignored", "a txn takes its first branch whatever the compares say"),
    ("watch-lost-publication", "the hub passes over a revision, once in a while"),
    ("watch-resumes-late", "a watcher that catches up is not given the first revision it lacks"),
    ("lease-not-renewed", "a keep-alive is answered and the lease ends all the same"),
    ("lease-forgotten", "a new leader forgets the leases of the one before"),
    ("snapshot-without-leases", "a snapshot leaves the bucket of leases out"),
];

/// Whether the fault `name` is planted on this thread.
#[cfg(feature = "plant")]
pub fn is(name: &str) -> bool {
    PLANTED.with_borrow(|planted| planted.as_deref() == Some(name))
}

/// Whether the fault `name` is planted: never in this build.
#[cfg(not(feature = "plant"))]
#[inline(always)]
pub const fn is(_name: &str) -> bool {
    false
}

/// Plants one fault on this thread, or none.
///
/// # Panics
/// When there is no fault of that name.
#[cfg(feature = "plant")]
pub fn set(name: Option<&str>) {
    if let Some(name) = name {
        assert!(ALL.iter().any(|(known, _)| *known == name), "no planted fault is called {name}");
    }
    PLANTED.set(name.map(str::to_owned));
}

#[cfg(feature = "plant")]
thread_local! {
    static PLANTED: std::cell::RefCell<Option<String>> = const { std::cell::RefCell::new(None) };
}
