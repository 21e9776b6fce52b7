//! Quorate's whole server under seeded chaos: real code, real gRPC bytes, real RocksDB, on simulated
//! machines. A run is a pure function of its seed.
//!
//! ```
//! use std::time::Duration;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! let greeting = sim::run(7, |world| async move {
//!     world.add_host("server");
//!     world.add_host("client");
//!     world.start("server", |env| async move {
//!         let mut listener = env.net.listen(([0, 0, 0, 0], 80).into()).await.expect("a free port");
//!         let (mut connection, _) = listener.accept().await.expect("a client");
//!         connection.write_all(b"hello").await.expect("it reads");
//!     }).await;
//!     world.partition("server", "client");
//!     let client = world.start("client", |env| async move {
//!         let mut connection = env.net.connect("server:80".to_owned()).await.expect("it answers");
//!         let mut greeting = String::new();
//!         connection.read_to_string(&mut greeting).await.expect("the server closes");
//!         greeting
//!     }).await;
//!     world.sleep(Duration::from_secs(5)).await;
//!     world.heal_all();
//!     client.join().await
//! });
//! assert_eq!(greeting.as_deref(), Some("hello"));
//! ```
//!
//! # The world
//!
//! [`run`] makes a [`World`]; the scenario adds hosts and starts a process on each: any future that
//! takes a [`quorate::env::Env`]. Servers and clients are processes alike. Then the scenario, or a
//! nemesis, does to them what happens to machines: [`World::kill`], [`World::power_off`],
//! [`World::power_off_at_operation`], [`World::pause`], [`World::partition`], [`World::one_way`],
//! [`World::delay`], [`World::set_loss`], [`World::set_clock`], and through [`World::disk`] failed
//! syncs, full disks and rotten bits. [`World::start`] again is the restart.
//!
//! # Invariants
//!
//! * Everything random comes from the seed, everything timed from the simulated clock. The digest of
//!   all packets ([`World::digest`]) is the proof; a test compares it between runs.
//! * Work on the CPU takes no simulated time; blocking work takes the host's disk latency, and is done when
//!   that begins or when it is over.
//! * A panic in any task ends the run as a failure that names the seed.
//! * No task is ever woken from a real thread, and none outlives its process.
//! * Use `select!` only with `biased;`: otherwise its order comes from outside the seed.
//!
//! # Map
//!
//! The ground floor: [`facts`] (everything known about a run, as data) · [`units`] (times and sizes as
//! plans write them) · [`dice`] (numbers from the seed). The machines: `entropy` (random sources that
//! madsim does not replace) · `off` (a thread beside the simulation) · `rt` (tasks, clocks, blocking
//! work) · `net` (TCP) · `disk` (files) · `trace` (the digest) · `panics` · `world` (all of it together).
//! On top of the world: [`cluster`] (real servers on its hosts) · `members` (changes of the membership) ·
//! [`endpoints`] (the members' addresses) · [`proxies`] (in front of the members) · [`certificates`]
//! (where all of it is TLS) · [`workload`] (clients) · [`nemesis`] (faults) ·
//! [`observe`] (what members report of themselves) · [`check`] (the checkers) · [`offline`] (the same for
//! the files of closed members). A run: [`plan`] (what it is to be, drawn from a seed by [`swarm`]) ·
//! [`play`] (from beginning to verdict) · [`report`] (the story in lines, and as a page) · [`shrink`]
//! (a smaller plan that fails alike) · [`coverage`] (what its clients used of the protocol) · [`real`] (load
//! and checkers on members outside of the simulation). The commands are in `main.rs`. No files import each
//! other in a circle, which `tests/tidy.rs` checks.

#[cfg(not(madsim))]
compile_error!(
    "crate `sim` needs --cfg madsim from sim/.cargo/config.toml: run cargo in that folder, or ci/sim; \
     a RUSTFLAGS variable replaces it"
);

pub mod certificates;
pub mod check;
pub mod cluster;
pub mod coverage;
pub mod dice;
mod disk;
pub mod endpoints;
mod entropy;
pub mod facts;
mod members;
pub mod nemesis;
mod net;
pub mod observe;
mod off;
pub mod offline;
mod panics;
pub mod plan;
pub mod play;
pub mod proxies;
pub mod real;
pub mod report;
mod rt;
pub mod score;
pub mod shrink;
pub mod swarm;
mod trace;
pub mod units;
pub mod workload;
mod world;

pub use disk::{Contents, DiskFaults, Order, Side, SimDisk};
pub use facts::seen::Harm;
pub use world::{Process, World, run, run_for};
