//! Quorate: an etcd-compatible replicated key-value store.

// Rows of the layer table, lowest first; a module names only modules of lower rows.
pub mod codec;
pub mod error;
pub mod limits;
pub mod metrics;
pub mod types;

pub mod env;

pub mod bbolt;
pub mod engine;
pub mod wal;

pub mod lease;
pub mod mvcc;

pub mod apply;

pub mod peer;
pub mod replica;
pub mod watch;

// pub mod member;

// pub mod grpc;
// pub mod http;

pub mod client;
pub mod config;
pub mod ctl;
pub mod offline;
