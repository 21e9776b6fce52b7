//! Reads and writes bbolt database files (`go.etcd.io/bbolt`, format version 2), the form in which
//! snapshots leave and enter. No transactions, no changes in place: a file is written whole, from
//! sorted input, and read whole or by key.
//!
//! A file is a row of pages, numbered from 0. Pages 0 and 1 each hold a meta record, of which the
//! valid one with the higher transaction id counts; it names the root page of a B+tree whose leaf
//! values are bucket headers, and each header names the root page of that bucket's own tree. A page
//! that needs more room than one page runs on into the pages behind it (its overflow).
//!
//! Writing ([`plan`], [`Plan::emit`]) goes strictly from front to back, so that a file can go straight
//! to a socket. The meta pages come first and name what comes last, so the input is read twice: once
//! to lay the pages out without keeping them, once to emit them. The tree is laid out in post-order
//! (a branch page follows its children), so neither pass holds more than the unfinished page of each
//! level: memory does not grow with the number of keys.
//!
//! ```text
//! meta meta freelist | leaf leaf branch leaf leaf branch root | ... | root leaf: names -> root pages
//! 0    1    2 (empty)  first bucket                             next  what the meta pages name
//! ```
//!
//! Reading ([`Database`]) takes nothing on trust: every number from the file is checked before it is
//! used, and every walk is bounded, so that a damaged file gives an error and neither a panic, nor an
//! endless loop, nor an allocation that the file's size does not warrant.
//!
//! Invariants:
//! * Both passes run the same [`tree::Tree`], so they cannot disagree about where a page is.
//! * A leaf or branch page that is not its tree's root has at least one (leaf) or two (branch) keys:
//!   bbolt asserts this when it later rebalances.
//!
//! Reading order: [`mod@format`] (the bytes), [`tree`] (input to pages), [`writer`] (pages to a stream),
//! [`page`] (bytes to checked elements), [`database`] (open, find a bucket), [`cursor`] (walk a tree),
//! [`mod@seal`] (the checksum behind a snapshot file).

mod cursor;
mod database;
mod format;
mod page;
mod seal;
mod tree;
mod writer;

#[cfg(test)]
mod tests;

pub use cursor::Iter;
pub use database::Database;
pub use format::{Corrupt, KEY_BYTES_MAX};
pub use seal::{Seal, Sealed, check_seal, seal};
pub use writer::{Emit, Plan, Scan, Source, plan};
