//! Planted faults: mistakes that real systems made, switched on by name, to prove that the simulator's
//! checkers see them. The switch is the feature `plant`, which nothing but the crate `sim` asks for:
//! programs built with `-p quorate`, as `ci/serve` and the image are, do not have it, there [`is`] is the
//! constant `false` and the mistake is not compiled. Cargo gives it to programs that it builds together
//! with `sim`; nothing in them turns it on.
//!
//! The switch belongs to a thread, as a simulation does: runs beside each other do not disturb each
//! other, and a server on real threads never has one.

/// A mistake that can be switched on.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub name: &'static str,
    /// What the server does wrong.
    pub does: &'static str,
    /// The faults of real systems that it stands for, if any is known, by their numbers in the
    /// simulator's README.
    pub like: &'static str,
}

const fn fault(name: &'static str, does: &'static str, like: &'static str) -> Fault {
    Fault { name, does, like }
}

/// Every fault, by the part of the server that has it.
#[rustfmt::skip]
pub const ALL: &[Fault] = &[
    // Apply and recovery.
    fault("lost-write", "an acknowledged put is not carried out, once in a while", "B01"),
    fault("applied-index-apart", "data becomes durable without the applied index that belongs to it", "B01 B02 B05"),
    fault("revision-left-out", "the newest revision is not always in the batch that makes it", "B02 B06"),
    fault("page-taken-for-all", "of a long page of committed entries only the first few are applied", "B29"),
    fault("abandoned-request-skipped", "a member does not apply what its own client no longer waits for", "B25"),
    fault("apply-depends-on-member", "what an entry does depends on the member that applies it", "B06 B07b"),
    fault("leases-not-loaded", "a member that starts does not load the leases", "B09"),
    fault("flush-skipped", "the log is cut although the state was not flushed", "B17"),
    fault("conf-state-left-out", "the configuration is not stored with the entry that changes it", "B59"),
    // Log.
    fault("ack-before-fsync", "appends and votes are answered before they are on disk", "B34"),
    fault("leader-counts-unsynced", "a leader counts its own entries before they are on disk", "B03"),
    fault("vote-not-kept", "terms and votes are not written to the log", "B17"),
    fault("vote-not-synced", "a vote is written but not synced before it is given", "B17"),
    fault("failed-fsync-ignored", "a failed fsync is taken for a good one", "B34"),
    fault("segment-cut-unsynced", "a segment's end is not synced when the next one begins", "B17"),
    fault("log-released-too-far", "segments are removed as soon as the next one begins", "B17"),
    fault("torn-tail-refused", "a log whose last write was torn does not open", "B18"),
    fault("damaged-log-cut", "a damaged record in the middle is taken for a torn tail", "B18"),
    fault("crc-unchecked", "checksums of the log are not compared", "B18 B26"),
    // Consensus and reads.
    fault("unconfirmed-read", "a linearizable read asks nobody whether its member still leads", "B28 B32"),
    fault("read-before-applied", "a linearizable read does not wait until its index is applied", "B32"),
    fault("read-joins-running-round", "a read takes part in a round that began before it", "B28"),
    fault("proposal-sent-twice", "a batch of proposals enters the log twice", "B67"),
    fault("ghost-voter", "a removed member stays a voter of the configuration", "B59 B62"),
    fault("change-before-its-commit-is-kept", "a change of members takes effect before the disk knows of its commit", "B59 B62"),
    fault("removed-member-leaves-at-once", "a removed member ends although the others may need its vote", "B59 B62"),
    fault("promotion-not-stored", "a promoted learner is a voter in memory only", "B59"),
    fault("quorum-unchecked", "a leader whom no quorum answers goes on believing that it leads", "B35"),
    fault("gateway-asks-twice", "the JSON gateway makes some calls twice", "B67"),
    // Traces.
    fault("span-ids-repeat", "spans are given ids that others have", "B42"),
    // Overload.
    fault("budget-not-returned", "what was set aside for an answer is not given back", "B76"),
    fault("txn-not-weighed", "what a txn that writes reads is not held against the room there is", "B76"),
    fault("watch-buffer-without-end", "events wait without bound for a stream that nobody reads", "B76"),
    fault("reserve-not-kept", "what the cluster lives on has no places of its own", "B76"),
    fault("pings-uncounted", "clients that ping without end are kept", "B76"),
    // What members do by themselves.
    fault("age-of-the-past-ignored", "a leader that compacts by age compacts all there is", "B12"),
    fault("past-ends-once", "a leader compacts by age once and never again", ""),
    fault("latecomers-let-in", "who comes to a meeting that is full takes part in the cluster", ""),
    // Keys.
    fault("txn-compares-ignored", "a txn takes its first branch whatever the compares say", "B14"),
    fault("txn-half-done", "a txn's reads are not checked before its writes are done", "B14"),
    fault("txn-own-writes-unseen", "a read in a txn does not see the writes before it", "B14"),
    fault("version-not-reset", "a key that is created again goes on with a version of 2", "B20"),
    fault("create-revision-forgotten", "an update makes a new create revision, once in a while", "B20"),
    fault("delete-range-leaves-last", "a range delete leaves the last key", "B14"),
    fault("more-forgotten", "a page that was cut does not say that there is more", "B14"),
    fault("sort-ignored", "ranges come in the order of keys whatever order was asked for", "B20"),
    fault("sorted-run-begins-again", "the first keys of a large sorted answer come again and again", "B20"),
    fault("range-filter-ignored", "the bounds on revisions of a range are ignored", "B20"),
    fault("count-forgets-deletes", "stored counts do not go down", "B20"),
    fault("past-count-ignores-deletes", "a count in the past does not see what was deleted since", "B20"),
    fault("old-read-gets-newest", "a range in the past is given the newest states", "B24"),
    fault("range-stream-chunk-from-later-revision", "later chunks of a range are read from the state as it is then", "B24"),
    fault("future-revision-served", "a read of a revision to come is not refused", "B47"),
    fault("compacted-revision-served", "a read below the compaction is not refused", "B12"),
    fault("compaction-drops-tombstone", "a compaction removes the deletion made at its own revision", "B12"),
    fault("compaction-goes-too-far", "a compaction removes the states made at its own revision", "B12"),
    // Snapshots.
    fault("snapshot-without-leases", "a snapshot leaves the bucket of leases out", "B09 B21"),
    fault("snapshot-loses-rows", "a snapshot leaves out a row of history now and then", "B20 B21"),
    fault("backup-not-of-one-moment", "a backup takes its buckets from different moments", "B21"),
    fault("restore-forgets-leases", "a restored backup has no leases", "B09"),
    fault("install-not-flushed", "an installed snapshot is not flushed before the log is cut", "B17 B21"),
    // Watch.
    fault("watch-lost-publication", "the hub passes over a revision, once in a while", "B15"),
    fault("watch-drops-from-a-revision", "live watchers are told the first event of a revision only", "B15 B44"),
    fault("watch-resumes-late", "a watcher that catches up is not given the first revision it lacks", "B44"),
    fault("watch-tells-twice", "a watcher that goes live is told the last revision again", "B15 B44"),
    fault("watch-begins-late", "a watch from now on misses the next revision", "B41"),
    fault("watch-gap-skipped", "a watcher sent back to catch up skips what it missed", "B15"),
    fault("slow-watcher-skips", "a watcher that was too slow misses one revision", "B15"),
    fault("watch-passes-large-revision", "watchers are not sent to history for a revision of too many events", "B15"),
    fault("watch-filter-ignored", "filters of a watch are ignored", "B41"),
    fault("watch-prev-kv-lost", "the state before an event is left out, once in a while", "B44"),
    fault("watch-id-not-counted", "a watch id that the client chose is not given to it", "B42"),
    fault("progress-from-the-head", "progress is told from the store, not from what the watcher has", "B41"),
    fault("compacted-watch-goes-on", "a watch from a compacted revision begins later and does not say so", "B12 B47"),
    fault("open-watch-sees-one-key", "a watch of all keys from one on is taken for one of that key", "B49"),
    // The gRPC proxy.
    fault("proxy-keeps-linearizable-reads", "a proxy answers linearizable reads from what it has kept", "B102"),
    fault("proxy-keeps-what-was-written", "a proxy keeps answers whose keys were put or deleted through it", "B102"),
    fault("proxy-takes-back-a-revision", "a proxy that keeps answers in order passes on one from a member that is behind", "B32"),
    fault("proxy-shows-its-namespace", "a proxy does not take its prefix from the keys of a range", "B103"),
    fault("proxy-watcher-joins-late", "a new watcher shares a proxy's watch that has passed its revision", "B44 B101"),
    fault("proxy-watcher-shares-too-soon", "a watcher that catches up shares a proxy's watch that is ahead of it", "B15 B101"),
    fault("proxy-watcher-told-what-was-before", "a watcher is told all that a proxy's shared watch is told", "B15 B44"),
    fault("proxy-watch-resumes-late", "a proxy's watch that lost its member misses the next revision", "B44 B101"),
    fault("proxy-compaction-ends-all", "watchers of the future end with a proxy's compacted shared watch", "B12"),
    // Leases.
    fault("lease-not-renewed", "a keep-alive is answered and the lease ends all the same", "B50"),
    fault("lease-forgotten", "a new leader forgets the leases of the one before", "B53"),
    fault("new-leader-cuts-leases", "a new leader gives leases a third of their time", "B53"),
    fault("stale-leader-revokes", "a revoke is proposed in whatever term it gets to the log", "B50"),
    fault("keep-alive-unconfirmed", "a keep-alive is answered by a leader that may have been replaced", "B50"),
    fault("lease-never-ends", "no lease ever ends", "B07 B53"),
    fault("lease-leaves-a-key", "of a lease's keys the first stays when it ends", "B10"),
    fault("lease-detach-forgotten", "a key put without its lease goes with the lease all the same", "B10"),
    fault("lock-not-rechecked", "a lock is given to a candidate whose lease ended while it waited", "B58"),
    fault("revoke-batch-takes-last", "of leases that end together only the last is revoked", "B10"),
    fault("lease-checkpoint-forgotten", "a new leader gives leases their full time, whatever was written down", "B53"),
    fault("checkpoint-outlives-renewal", "a renewal leaves standing what was written down before it", "B53"),
    // Bounds and alarms.
    fault("quota-not-enforced", "neither the quota nor its alarm keeps anything from being written", "B71"),
    fault("row-silently-differs", "one member stores another value, once in a while", "B06 B66"),
    fault("corrupt-check-accuses-wrong-member", "of members that differ the right ones are accused", "B66"),
    fault("hashes-of-other-compactions-compared", "histories that were compacted differently are compared", "B66"),
    fault("alarm-not-cleared", "a member that has room again leaves its alarm standing", "B71"),
    // Versions.
    fault("downgrade-ignored", "a leader does not lower the version that is to be lowered", "B59"),
    fault("downgrade-not-loaded", "a member that starts does not know that a downgrade is under way", "B09"),
    // Certificates.
    fault("client-without-certificate-served", "who shows no certificate is let in", "B73"),
    fault("client-cert-unchecked", "a certificate is taken whoever issued it, and whenever it was valid", "B73"),
    fault("revocations-ignored", "revoked certificates are taken", "B73"),
    fault("member-comes-from-anywhere", "a member's certificate is taken from another host than it names", "B104"),
    fault("old-certificate-served", "certificates that have changed count after a restart only", "B105"),
    // Permissions.
    fault("open-range-as-one-key", "a request for all keys from one on is judged as one for that key", "B49 B68"),
    fault("nested-txn-unjudged", "what is asked for in a txn's txns is not judged", "B68"),
    fault("old-auth-revision-accepted", "a proposal let in by older permissions is carried out", "B06"),
    fault("auth-not-loaded", "a member that starts does not load users and roles", "B09"),
    fault("permissions-not-refreshed", "changes of roles and users do not change what is permitted", "B06 B09"),
];

/// Whether the fault `name` is planted on this thread.
#[cfg(feature = "plant")]
pub fn is(name: &str) -> bool {
    PLANTED.get().is_some_and(|planted| planted == name)
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
    PLANTED.set(name.map(|name| {
        let known = ALL.iter().find(|fault| fault.name == name);
        known.unwrap_or_else(|| panic!("no planted fault is called {name}")).name
    }));
}

#[cfg(feature = "plant")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}
