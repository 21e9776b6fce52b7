//! Consensus: one replicated log, kept by raft-rs's state machine behind etcd's messages and files.
//!
//! A replica is a member's part in the log. It takes proposals and gives out committed entries, the
//! same ones in the same order on every member. What entries mean is not known here: proposals carry
//! bytes and an opaque reply handle, which comes back beside the committed entry.
//!
//! ```text
//!              proposals   readers   peers' messages   applied, checkpoints
//!                  |          |            |                   |
//!                  v          v            v                   v
//!  time ------> driver  (one task; owns everything below; waits for no other task)
//!                  |
//!                 core  raft-rs + log in memory; no I/O, no clock
//!                  |
//!      +-----------+-----------+------------------+
//!      v           v           v                  v
//!  transport   log task    applier            read indexes
//!  (may drop)  (group      (permit first,
//!               commit)     bounded)
//! ```
//!
//! # The Ready contract
//!
//! raft-rs returns its work as a `Ready`, to be handled in a fixed order (its `lib.rs`, seven steps).
//! `core` carries the numbers in its comments:
//!
//! 1. Committed entries go to the applier. raft-rs gives out only what this member has persisted, so
//!    the applier, and with it the client, never sees an entry that a crash here could take back.
//! 2. Read states go to the readers.
//! 3. A snapshot, 4. entries and 5. the hard state become readable through `Storage` at once and go to
//!    the log task, which writes in the order given: snapshot mark, entries, hard state.
//! 6. Messages. A leader's leave at once, in parallel with its own write (thesis 10.2.1). A follower's
//!    wait for its write, except those that do not depend on its disk (heartbeat responses, forwarded
//!    requests).
//! 7. `advance_append_async`, and later `on_persist_ready` when the write is durable, which moves the
//!    leader's own match index and releases what waited. The applied index is
//!    reported separately (`advance_apply_to`).
//!
//! # Invariants
//!
//! * What a message acknowledges is durable on this member's disk before the message is sent.
//! * A leader counts its own log only up to what is durable. A lone voter answers nothing before its
//!   fsync (etcd issue 14370).
//! * A leader's messages leave, and its leadership is published, only when its term is durable. With other
//!   voters that is so by the time it is elected; a lone voter would otherwise lead one term twice, with
//!   different entries.
//! * The driver awaits no disk, no peer and no applier: ticks, heartbeat responses and votes never wait
//!   for them (etcd issue 13527). A leader whose write takes longer than an election
//!   timeout hands over.
//! * An entry is given to the applier once, in order, after the start's applied index. The hard state's
//!   commit index is never cut to a page of committed entries (etcd PR 10063): pages are raft-rs's, by
//!   `commit_since_index`.
//! * A read index comes from a leader that has committed in its term and that a majority has confirmed
//!   after the request was made. A request that comes too early is held, not dropped (etcd issue
//!   12680).
//! * One configuration change is under way at a time. Those that come meanwhile wait, this member's own
//!   and forwarded ones alike: none becomes an empty entry whose proposer waits for nothing.
//! * A configuration change takes effect once its commit index is durable here. A removed member ends when
//!   the others have applied the removal, and they must not need its vote afterwards to find the commit.
//!   Nothing follows a removal in the log until then: with entries that others lack it would refuse that
//!   vote.
//! * The configuration in a snapshot is the one in force at the snapshot's index.
//! * Nothing here is random but the boot seed: the election timeout is a pure function of seed, member,
//!   term and role.
//! * Queues are bounded: inboxes and proposals by count and bytes (refused with "too many requests"),
//!   messages by dropping. Committed entries that wait for the applier share their bytes with the log.
//!
//! # raft-rs 0.7.0 and what its master has mended since (to March 2026)
//!
//! | change on master | here |
//! |---|---|
//! | next index above match index after a rejection (#557) | `Core::admit` drops a rejection of what is acknowledged and raises its hint |
//! | unapplied conf changes scanned page by page (#530) | a scan clones handles, not data: entries share their bytes with the log in memory |
//! | apply before persist, its upper bound and reset (#537, #543, #561) | not in 0.7.0, and not wanted: see invariant two |
//! | `disable_proposal_forwarding` (#552) | forwarding is etcd's behaviour; what must not be forwarded is bound to a term |
//! | log lines for dropped read requests (#569) | they are held by `Core` and retried by `reads` |
//! | byte arrays not cloned in public methods (#574), prost without protobuf (#579) | our entries enter and leave as shared `Bytes` |
//! | documentation, lints, CI | nothing to do |
//!
//! Guards against what 0.7.0 does not survive, found by reading it:
//! * A leader that is removed stays leader and panics at the next answer: it steps down when the change
//!   is applied.
//! * A snapshot that is not durable yet leaves a gap between the applied index and the log, and a
//!   campaign would read in it: no campaign until it is durable.
//! * A lone voter becomes leader on the spot and asserts that its log is durable: no campaign before.
//! * A forwarded leader transfer that reaches a follower panics: only leaders take it.
//! * A proposed conf change is decoded with raft-rs's own types, which do not know etcd's learner: the
//!   payload travels wrapped inside of raft (`message`).
//! * Empty proposals, holes between entries, messages without a term or with one that does not belong
//!   there, numbers that raft cannot count on from, joint or ambiguous configurations: refused in
//!   `message`.
//! * Numbers that do not fit this log (a commit index or an acknowledgement beyond its end, a vote before
//!   it was requested): refused in `guard`. A member whose disk has lost acknowledged entries stays behind
//!   with a warning.
//! * Entries that do not decode are neither proposed nor appended ([`Check`]).
//!
//! A panic that remains ends the process as [`Fatal`](crate::error::Fatal) with raft's text.
//!
//! # Reading order
//!
//! `handle` (the interface), `driver` (the task), `core` (raft), `outbox` (what may be sent when),
//! `message` (translation), `guard` (what is refused), `log` (in memory), `disk` (the log task),
//! `proposals`, `reads`, `slog`. The scripts are in `tests/testscripts/`.
//!
//! Not here: the WAL's format (`wal`), the peers' connections (`peer`), the state (`apply`).

pub mod core;
mod disk;
mod driver;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod guard;
mod handle;
mod log;
mod message;
mod outbox;
mod proposals;
mod reads;
mod slog;

#[cfg(test)]
mod tests;

pub use core::Role;
pub use handle::{
    Check, Committed, Progress, Replica, ReplicaConfig, Start, Status, ToApply, Transport, start,
};
pub use proposals::{Proposal, ProposalKind, Reply};
