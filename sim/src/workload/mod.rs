//! What clients do to a cluster while the nemesis is at work. Each workload records its calls and their
//! answers; what holds of all calls is checked in [`crate::check`], and a workload checks only what it alone
//! knows, such as that a ring of pointers is still one ring.
//!
//! Invariants:
//! * Every value that is written is written by one call only, so that a value names its call.
//! * Whatever writes goes through a [`Client`], which records it: the replay has to explain every
//!   revision.
//! * Clients draw from dice of their own: leaving one out changes nothing about the calls of others.
//!
//! Reading order: [`work`] (the trait), this file (the list), [`client`] (calls), [`json`] (the same in
//! JSON), [`gzip`] (the same compressed), [`websocket`] (watches in JSON), [`outside`] (the same in a
//! namespace), [`scribe`] (the watcher that writes the log), [`closing`] (reads at the end), then the
//! workloads, one a file.

pub mod aging;
pub mod append;
pub mod auth;
pub mod client;
pub mod closing;
pub mod compaction;
pub mod counter;
pub mod crowd;
pub mod crowded;
pub mod cycle;
pub mod deep;
pub mod downgrade;
pub mod election;
pub mod ending;
pub mod flood;
pub mod greedy;
pub mod gzip;
pub mod hostile;
pub mod idlers;
pub mod impatient;
pub mod json;
pub mod kubernetes;
pub mod large;
pub mod leases;
pub mod lock;
pub mod long_lease;
pub mod meeting;
pub mod outside;
pub mod passwords;
pub mod pinger;
pub mod pressure;
pub mod queue;
pub mod quota;
pub mod ranges;
pub mod recipes;
pub mod register;
pub mod scribe;
pub mod serializable;
pub mod session;
pub mod silent;
pub mod stalled;
pub mod stop;
pub mod stranger;
pub mod txn;
pub mod watch;
pub mod websocket;
pub mod work;

pub use client::{Client, Surroundings};
pub use stop::Stop;
pub(crate) use work::calls;
pub use work::{Work, Workload, drive};

/// Declares the workloads: their names, and how to make one.
macro_rules! workloads {
    ($($name:literal: $made:expr,)*) => {
        /// All workloads, as plans call them.
        pub const NAMES: &[&str] = &[$($name,)*];

        /// The workload of that name, for one client.
        pub fn make(name: &str) -> Option<Box<dyn Workload>> {
            match name {
                $($name => Some(Box::new($made)),)*
                _ => None,
            }
        }
    };
}

workloads! {
    "register": register::Register::default(),
    "txn": txn::Txn::default(),
    "cycle": cycle::Cycle,
    "append": append::Append,
    "counter": counter::Counter,
    "watch": watch::Watch::default(),
    "lease": leases::Leases::default(),
    "lock": lock::Lock,
    "election": election::Election::default(),
    "lock-service": recipes::Recipe::Lock,
    "election-service": recipes::Recipe::Election,
    "compaction": compaction::Compaction,
    "large": large::Large,
    "ranges": ranges::Ranges,
    "kubernetes": kubernetes::Kubernetes::default(),
    "serializable": serializable::Serializable,
    "auth": auth::Auth::default(),
    "flood": flood::Flood,
    "quota": quota::Quota::default(),
    "downgrade": downgrade::Downgrade::default(),
    "crowd": crowd::Crowd,
    "long-lease": long_lease::LongLease::default(),
    "greedy": greedy::Greedy,
    "pressure": pressure::Pressure,
    "stalled": stalled::Stalled,
    "aging": aging::Aging::default(),
    "pinger": pinger::Pinger,
    "silent": silent::Silent,
    "meeting": meeting::Meeting::default(),
    "ending": ending::Ending,
    "impatient": impatient::Impatient::default(),
    "deep": deep::Deep,
    "idlers": idlers::Idlers::default(),
    "hostile": hostile::Hostile,
    "sockets": idlers::Idlers::of_sockets(),
    "crowded": crowded::Crowded,
    "passwords": passwords::Passwords,
    "stranger": stranger::Stranger::default(),
}

/// Those that need a cluster made for them: scripts name them, seeds do not.
pub const SCRIPTED: &[&str] = &[
    "quota",
    "downgrade",
    "long-lease",
    "crowd",
    "greedy",
    "pressure",
    "stalled",
    "aging",
    "pinger",
    "silent",
    "meeting",
    "hostile",
    "idlers",
    "sockets",
    "crowded",
    "passwords",
    SECURED,
];

/// Those that check nothing by the names of keys, and so can be put into a namespace.
pub const ANYWHERE: &[&str] = &["register", "txn", "ranges", "serializable", "watch"];

/// The one that goes with no other: where it is at work, no call is served without a user.
pub const ALONE: &str = "auth";

/// The one that is for plans with TLS.
pub const SECURED: &str = "stranger";

/// The one that few plans have: it is much work, and what it is for needs little of it.
pub const RARE: &str = "flood";
