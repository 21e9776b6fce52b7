//! Quorate: an etcd-compatible replicated key-value store whose whole server runs, byte for byte the
//! same code, on a real machine and inside a seeded simulator. This page is the map.
//!
//! # How a request travels
//!
//! ```text
//!  client                                                        other members
//!    | HTTP/2, HTTP/1                                                  ^ |
//!  server   one port, one member                                       | v
//!  grpc http   decode, validate, encode                              peer
//!    |                                                                 ^ |
//!  member   propose --------------> replica (raft) <-------------------+ |
//!    |  |                            |  ^   <--------------------------- +
//!    |  |                 append,    v  | durable
//!    |  |                 one fsync  wal
//!    |  |                            | committed
//!    |  +-- applier <----------------+
//!    |        | one batch, applied index inside
//!    |        v
//!    |      apply -> mvcc, lease, auth -> engine (RocksDB)
//!    |        | events                   ^
//!    |        v                          | snapshots to read from
//!    +---- watch hub, sessions ----------+
//! ```
//!
//! A write goes down one side and comes up the other; no layer calls back into the one above it. A
//! read obtains an index from the replica, waits until that index is applied and reads a snapshot.
//!
//! # Invariants
//!
//! * Nothing outside [`mod@env`] names a clock, a socket, a file, a thread or a random number generator.
//! * [`apply`] is a pure function of the state and the entry.
//! * An entry's effects and the applied index are in one atomic batch; there is no second way to make
//!   an effect durable.
//! * A write is answered after a quorum has it durable.
//! * Everything is bounded; the bounds are in [`limits`].
//! * Recovery is the applier fed from the log: no second code path.
//!
//! # Layers
//!
//! A module names only modules of lower rows; modules of one row do not name each other, except that
//! [`lease`] and [`auth`] write through [`mvcc`]. `tests/tidy.rs` enforces it.
//!
//! | row | modules |
//! |---|---|
//! | proxies | [`proxy`] the commands `gateway` and `grpc-proxy` · `bin` thin mains |
//! | tools | [`ctl`] [`offline`] the two tools · [`discovery`] how new members meet |
//! | what both tools share | [`tool`] tables of commands, output, progress |
//! | command line | [`config`] flags, variables, validation |
//! | the whole | [`server`] |
//! | edge | [`grpc`] · [`http`] |
//! | one member | [`member`] start, requests, propose, applier, lessor, upkeep |
//! | machinery | [`replica`] consensus, the only place that names raft · [`peer`] etcd's peer protocol · [`watch`] hub and sessions |
//! | commands | [`apply`] the commands, and one match that applies them |
//! | state | [`mvcc`] the key space · [`lease`] · [`auth`] users, roles, permissions |
//! | storage | [`wal`] the log, etcd's format · [`engine`] the only place that names RocksDB · [`bbolt`] snapshot files |
//! | spans of calls | [`trace`] |
//! | secured streams | [`tls`] |
//! | world | [`mod@env`] |
//! | words | [`types`] [`limits`] [`rpc`] the table of RPCs · [`error`] [`codec`] [`latest`] [`metrics`] [`plant`] [`mark`] |
//!
//! [`client`] stands beside the rows: it depends on words, world and secured streams only. Tools and proxies
//! use it, and [`server`], which exports spans to a collector. The wire types are the crate
//! `quorate-proto`, the simulator is the crate `sim`.

// In the order of the table, lowest row first.
pub mod codec;
pub mod error;
pub mod latest;
pub mod limits;
pub mod mark;
pub mod metrics;
pub mod plant;
pub mod rpc;
pub mod types;

pub mod env;

pub mod tls;

pub mod trace;

pub mod bbolt;
pub mod engine;
pub mod wal;

pub mod auth;
pub mod lease;
pub mod mvcc;

pub mod apply;

pub mod peer;
pub mod replica;
pub mod watch;

pub mod member;

pub mod grpc;
pub mod http;
pub mod server;

pub mod config;

pub mod tool;

pub mod client;
pub mod ctl;
pub mod discovery;
pub mod offline;

pub mod proxy;
