//! Consensus under test: stories and random schedules over a cluster without I/O (`harness`), and the
//! driver with real tasks and time.

mod driver;
mod harness;
mod schedules;
mod scripts;
