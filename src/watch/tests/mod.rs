//! Tests of the hub and its sessions as a whole, in a small world of their own where every
//! interleaving comes from a seed: [`world`] (tasks and time), [`memory`] (a store), [`client`] (a client
//! that checks etcd's guarantees as it reads), [`model`] (random runs), [`readers`] (which streams read
//! history, and when), [`gone`] (clients that disconnect at any moment), [`script`] (scripts).

mod client;
mod gone;
mod memory;
mod model;
mod readers;
mod script;
mod world;
