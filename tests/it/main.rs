//! Tests of whole processes: the server's program, the real etcdctl, a real etcd beside it, real
//! disks, `kill -9`. What one process does inside belongs to unit tests and to the simulator.
//!
//! Reading order: [`process`] (servers), [`etcdctl`] (the tool and the releases of etcd), [`client`]
//! (gRPC without processes), [`curl`] (HTTP), [`pki`] (certificates), [`names`] (DNS), [`load`] (writers and
//! what they were promised), then the tests.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests stand outside the server, in the real world: its clock, files and sockets"
)]

mod auth;
mod client;
mod clients;
mod cluster;
mod compaction;
mod crash;
mod curl;
mod deletions;
mod endpoints;
mod errors;
#[allow(dead_code, reason = "the cases of conformance use more of it")]
mod etcdctl;
mod flags;
mod flaky;
mod lines;
mod load;
mod members;
mod names;
mod overload;
mod overload_json;
#[allow(dead_code, reason = "the unit tests ask for more of it")]
#[path = "../../src/tls/tests/pki.rs"]
mod pki;
mod pprof;
mod process;
#[allow(dead_code, reason = "the benchmark uses more of it")]
#[path = "../bench/procfs.rs"]
mod procfs;
mod proxy;
mod recipes;
mod restore;
mod shipped;
mod srv;
mod strangers;
mod syncs;
mod tls;
mod tools;
mod tracing;
mod versions;

// `pki` takes it from wherever it is a part.
use quorate::tls::pem;
