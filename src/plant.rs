//! Planted faults: faults that real systems had, enabled by name to prove that the simulator's checkers
//! detect them. The feature `plant` compiles them; only the workspace of `sim` enables it. Without it
//! [`Fault::is_planted`] is the constant `false` and no shipped program contains a fault or its name.
//!
//! A fault is planted per thread, as a simulation runs on one thread: concurrent simulations do not
//! interfere, and the threads of a real server never have one.

/// A fault that can be planted.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub name: &'static str,
    /// What the server does wrong.
    pub does: &'static str,
    /// The faults of real systems that it stands for, if any is known, by their numbers in the
    /// simulator's README.
    pub like: &'static str,
}

/// Defines a constant per fault, and the list of all.
macro_rules! faults {
    ($($constant:ident $name:literal, $does:literal, $like:literal;)*) => {
        $(
            #[doc = $does]
            pub const $constant: Fault = Fault { name: $name, does: $does, like: $like };
        )*

        /// Every fault, by the part of the server that has it.
        pub const ALL: &[Fault] = &[$($constant),*];
    };
}

#[rustfmt::skip]
faults! {
    // Apply and recovery.
    LOST_WRITE "lost-write", "an acknowledged put is not carried out, once in a while", "B01";
    APPLIED_INDEX_APART "applied-index-apart", "data becomes durable without the applied index that belongs to it", "B01 B02 B05";
    REVISION_LEFT_OUT "revision-left-out", "the newest revision is not always in the batch that makes it", "B02 B06";
    PAGE_TAKEN_FOR_ALL "page-taken-for-all", "of a long page of committed entries only the first few are applied", "B29";
    ABANDONED_REQUEST_SKIPPED "abandoned-request-skipped", "a member does not apply what its own client no longer waits for", "B25";
    APPLY_DEPENDS_ON_MEMBER "apply-depends-on-member", "what an entry does depends on the member that applies it", "B06 B07b";
    LEASES_NOT_LOADED "leases-not-loaded", "a member that starts does not load the leases", "B09";
    FLUSH_SKIPPED "flush-skipped", "the log is cut although the state was not flushed", "B17";
    CONF_STATE_LEFT_OUT "conf-state-left-out", "the configuration is not stored with the entry that changes it", "B59";
    // Log.
    ACK_BEFORE_FSYNC "ack-before-fsync", "appends and votes are answered before they are on disk", "B34";
    LEADER_COUNTS_UNSYNCED "leader-counts-unsynced", "a leader counts its own entries before they are on disk", "B03";
    VOTE_NOT_KEPT "vote-not-kept", "terms and votes are not written to the log", "B17";
    VOTE_NOT_SYNCED "vote-not-synced", "a vote is written but not synced before it is given", "B17";
    FAILED_FSYNC_IGNORED "failed-fsync-ignored", "a failed fsync is taken for a good one", "B34";
    SEGMENT_CUT_UNSYNCED "segment-cut-unsynced", "a segment's end is not synced when the next one begins", "B17";
    LOG_RELEASED_TOO_FAR "log-released-too-far", "segments are removed as soon as the next one begins", "B17";
    TORN_TAIL_REFUSED "torn-tail-refused", "a log whose last write was torn does not open", "B18";
    DAMAGED_LOG_CUT "damaged-log-cut", "a damaged record in the middle is taken for a torn tail", "B18";
    CRC_UNCHECKED "crc-unchecked", "checksums of the log are not compared", "B18 B26";
    // Consensus and reads.
    UNCONFIRMED_READ "unconfirmed-read", "a linearizable read is not confirmed by a quorum", "B28 B32";
    READ_BEFORE_APPLIED "read-before-applied", "a linearizable read does not wait until its index is applied", "B32";
    READ_JOINS_RUNNING_ROUND "read-joins-running-round", "a read takes part in a round that began before it", "B28";
    GIVEN_UP_ROUND_TAKES_READERS "given-up-round-takes-readers", "a read takes part in a round that all its readers have given up", "B28";
    PROPOSAL_SENT_TWICE "proposal-sent-twice", "a batch of proposals enters the log twice", "B67";
    GHOST_VOTER "ghost-voter", "a removed member stays a voter of the configuration", "B59 B62";
    CHANGE_BEFORE_ITS_COMMIT_IS_KEPT "change-before-its-commit-is-kept", "a change of members takes effect before its commit is on disk", "B59 B62";
    REMOVED_MEMBER_LEAVES_AT_ONCE "removed-member-leaves-at-once", "a removed member ends although the others may need its vote", "B59 B62";
    PROMOTION_NOT_STORED "promotion-not-stored", "a promoted learner is a voter in memory only", "B59";
    QUORUM_UNCHECKED "quorum-unchecked", "a leader without a quorum does not step down", "B35";
    UNSEEN_LEARNER_PROMOTED "unseen-learner-promoted", "a learner without known progress counts as caught up", "";
    MEMBER_UPDATE_NOT_STORED "member-update-not-stored", "a member's new peer URLs are in memory only", "B59";
    STRANGER_PROPOSES "stranger-proposes", "a proposal of a sender that is no member is taken", "";
    GATEWAY_ASKS_TWICE "gateway-asks-twice", "the JSON gateway makes some calls twice", "B67";
    // Traces.
    SPAN_IDS_REPEAT "span-ids-repeat", "spans are given ids that others have", "B42";
    // Overload.
    BUDGET_NOT_RETURNED "budget-not-returned", "the budget reserved for an answer is not released", "B76";
    TXN_NOT_WEIGHED "txn-not-weighed", "the reads of a txn that writes do not count against the budget", "B76";
    WATCH_BUFFER_WITHOUT_END "watch-buffer-without-end", "events are buffered without bound for a stream that is not read", "B76";
    RESERVE_NOT_KEPT "reserve-not-kept", "vital proposals have no reserved places", "B76";
    SILENT_CONNECTIONS_KEPT "silent-connections-kept", "a connection that sends nothing is never closed", "";
    COMPRESSED_SIZE_UNBOUNDED "compressed-size-unbounded", "what a compressed message inflates to is not bounded", "B76";
    PINGS_UNCOUNTED "pings-uncounted", "clients that ping without end are kept", "B76";
    PLACE_NOT_RETURNED "place-not-returned", "a connection that gave way is counted as leaving after its end", "";
    ARRIVALS_UNBOUNDED "arrivals-unbounded", "requests that do not arrive are kept, however many there are", "";
    WEBSOCKET_WITHOUT_PLACE "websocket-without-place", "a connection that switches to WebSocket gives its place back", "";
    PASSWORD_OUTLIVES_ITS_CALL "password-outlives-its-call", "a password whose call has ended keeps its turn", "";
    // What members do by themselves.
    AGE_OF_THE_PAST_IGNORED "age-of-the-past-ignored", "a leader that compacts by age compacts all there is", "B12";
    PAST_ENDS_ONCE "past-ends-once", "a leader compacts by age once and never again", "";
    LATECOMERS_LET_IN "latecomers-let-in", "a member beyond the size of a discovery cluster takes part in it", "";
    // Keys.
    TXN_COMPARES_IGNORED "txn-compares-ignored", "a txn takes its first branch whatever its compares", "B14";
    TXN_HALF_DONE "txn-half-done", "a txn's reads are not checked before its writes are done", "B14";
    TXN_OWN_WRITES_UNSEEN "txn-own-writes-unseen", "a read in a txn does not see the writes before it", "B14";
    VERSION_NOT_RESET "version-not-reset", "a key that is created again goes on with a version of 2", "B20";
    CREATE_REVISION_FORGOTTEN "create-revision-forgotten", "an update makes a new create revision, once in a while", "B20";
    DELETE_RANGE_LEAVES_LAST "delete-range-leaves-last", "a range delete leaves the last key", "B14";
    MORE_FORGOTTEN "more-forgotten", "the answer to a range that was cut has more = false", "B14";
    SORT_IGNORED "sort-ignored", "ranges come in the order of keys whatever order is requested", "B20";
    SORTED_RUN_BEGINS_AGAIN "sorted-run-begins-again", "the first keys of a large sorted answer come again and again", "B20";
    RANGE_FILTER_IGNORED "range-filter-ignored", "the bounds on revisions of a range are ignored", "B20";
    COUNT_FORGETS_DELETES "count-forgets-deletes", "stored counts do not go down", "B20";
    PAST_COUNT_IGNORES_DELETES "past-count-ignores-deletes", "a count in the past does not see what was deleted since", "B20";
    OLD_READ_GETS_NEWEST "old-read-gets-newest", "a range in the past is given the newest states", "B24";
    RANGE_STREAM_CHUNK_FROM_LATER_REVISION "range-stream-chunk-from-later-revision", "later chunks of a range are read from the state as it is then", "B24";
    FUTURE_REVISION_SERVED "future-revision-served", "a read of a revision to come is not refused", "B47";
    COMPACTED_REVISION_SERVED "compacted-revision-served", "a read below the compaction is not refused", "B12";
    COMPACTION_DROPS_TOMBSTONE "compaction-drops-tombstone", "a compaction removes the deletion made at its own revision", "B12";
    COMPACTION_GOES_TOO_FAR "compaction-goes-too-far", "a compaction removes the states made at its own revision", "B12";
    HEAD_COMPACTION_FORGOTTEN "head-compaction-forgotten", "a member that starts forgets a compaction at its newest revision", "B12";
    // Snapshots.
    SNAPSHOT_WITHOUT_LEASES "snapshot-without-leases", "a snapshot leaves the bucket of leases out", "B09 B21";
    SNAPSHOT_LOSES_ROWS "snapshot-loses-rows", "a snapshot leaves out a row of history now and then", "B20 B21";
    BACKUP_NOT_OF_ONE_MOMENT "backup-not-of-one-moment", "a backup takes its buckets from different moments", "B21";
    RESTORE_FORGETS_LEASES "restore-forgets-leases", "a restored backup has no leases", "B09";
    INSTALL_MOVES_WATCHES_ON "install-moves-watches-on", "live watchers go on behind an installed snapshot without what it skipped", "B15";
    INSTALL_NOT_FLUSHED "install-not-flushed", "an installed snapshot is not flushed before the log is cut", "B17 B21";
    STALLED_SNAPSHOT_KEPT "stalled-snapshot-kept", "a snapshot whose receiver is silent is never given up", "";
    // Watch.
    WATCH_LOST_PUBLICATION "watch-lost-publication", "the hub passes over a revision, once in a while", "B15";
    WATCH_DROPS_FROM_A_REVISION "watch-drops-from-a-revision", "live watchers receive the first event of a revision only", "B15 B44";
    WATCH_RESUMES_LATE "watch-resumes-late", "a watcher that catches up is not given the first revision it lacks", "B44";
    WATCH_TELLS_TWICE "watch-tells-twice", "a watcher that goes live receives the last revision again", "B15 B44";
    WATCH_BEGINS_LATE "watch-begins-late", "a watch from now on misses the next revision", "B41";
    WATCH_GAP_SKIPPED "watch-gap-skipped", "a watcher sent back to catch up skips what it missed", "B15";
    SLOW_WATCHER_SKIPS "slow-watcher-skips", "a watcher that was too slow misses one revision", "B15";
    WATCH_PASSES_LARGE_REVISION "watch-passes-large-revision", "watchers are not sent to history for a revision of too many events", "B15";
    WATCH_FILTER_IGNORED "watch-filter-ignored", "filters of a watch are ignored", "B41";
    WATCH_PREV_KV_LOST "watch-prev-kv-lost", "the state before an event is left out, once in a while", "B44";
    WATCH_ID_NOT_COUNTED "watch-id-not-counted", "a watch id that the client chose is not given to it", "B42";
    PROGRESS_FROM_THE_HEAD "progress-from-the-head", "progress is reported from the store, not from what the watcher has", "B41";
    COMPACTED_WATCH_GOES_ON "compacted-watch-goes-on", "a watch from a compacted revision silently begins later", "B12 B47";
    OPEN_WATCH_SEES_ONE_KEY "open-watch-sees-one-key", "a watch of all keys from one on is taken for one of that key", "B49";
    // The gRPC proxy.
    PROXY_KEEPS_LINEARIZABLE_READS "proxy-keeps-linearizable-reads", "a proxy answers linearizable reads from what it has kept", "B102";
    PROXY_KEEPS_WHAT_WAS_WRITTEN "proxy-keeps-what-was-written", "a proxy keeps answers whose keys were put or deleted through it", "B102";
    PROXY_TAKES_BACK_A_REVISION "proxy-takes-back-a-revision", "a proxy that keeps answers in order passes on one from a member that is behind", "B32";
    PROXY_SHOWS_ITS_NAMESPACE "proxy-shows-its-namespace", "a proxy does not take its prefix from the keys of a range", "B103";
    PROXY_WATCHER_JOINS_LATE "proxy-watcher-joins-late", "a new watcher shares a proxy's watch that has passed its revision", "B44 B101";
    PROXY_WATCHER_SHARES_TOO_SOON "proxy-watcher-shares-too-soon", "a watcher that catches up shares a proxy's watch that is ahead of it", "B15 B101";
    PROXY_WATCHER_TOLD_WHAT_WAS_BEFORE "proxy-watcher-told-what-was-before", "a watcher receives all that a proxy's shared watch receives", "B15 B44";
    PROXY_WATCH_RESUMES_LATE "proxy-watch-resumes-late", "a proxy's watch that lost its member misses the next revision", "B44 B101";
    PROXY_COMPACTION_ENDS_ALL "proxy-compaction-ends-all", "watchers of the future end with a proxy's compacted shared watch", "B12";
    // Leases.
    LEASE_NOT_RENEWED "lease-not-renewed", "a keep-alive is answered and the lease ends all the same", "B50";
    LEASE_FORGOTTEN "lease-forgotten", "a new leader forgets the leases of the one before", "B53";
    NEW_LEADER_CUTS_LEASES "new-leader-cuts-leases", "a new leader gives leases a third of their time", "B53";
    STALE_LEADER_REVOKES "stale-leader-revokes", "a revoke is proposed in whatever term it gets to the log", "B50";
    KEEP_ALIVE_UNCONFIRMED "keep-alive-unconfirmed", "a keep-alive is answered by a leader that may have been replaced", "B50";
    LEASE_NEVER_ENDS "lease-never-ends", "no lease ever ends", "B07 B53";
    REVOKE_ANSWERED_FROM_THE_HEAD "revoke-answered-from-the-head", "a revoke is answered with the revision of the store when its caller wakes", "";
    LEASE_LEAVES_A_KEY "lease-leaves-a-key", "of a lease's keys the first stays when it ends", "B10";
    LEASE_DETACH_FORGOTTEN "lease-detach-forgotten", "a key put without its lease goes with the lease all the same", "B10";
    LOCK_NOT_RECHECKED "lock-not-rechecked", "a lock is given to a candidate whose lease ended while it waited", "B58";
    REVOKE_BATCH_TAKES_LAST "revoke-batch-takes-last", "of leases that end together only the last is revoked", "B10";
    LEASE_CHECKPOINT_FORGOTTEN "lease-checkpoint-forgotten", "a new leader gives leases their full time, whatever was checkpointed", "B53";
    CHECKPOINT_OUTLIVES_RENEWAL "checkpoint-outlives-renewal", "a renewal keeps the checkpoint made before it", "B53";
    // Bounds and alarms.
    QUOTA_NOT_ENFORCED "quota-not-enforced", "neither the quota nor its alarm keeps anything from being written", "B71";
    ROW_SILENTLY_DIFFERS "row-silently-differs", "one member stores another value, once in a while", "B06 B66";
    CORRUPT_CHECK_ACCUSES_WRONG_MEMBER "corrupt-check-accuses-wrong-member", "of members that differ the intact ones are reported", "B66";
    HASHES_OF_OTHER_COMPACTIONS_COMPARED "hashes-of-other-compactions-compared", "histories that were compacted differently are compared", "B66";
    ALARM_NOT_CLEARED "alarm-not-cleared", "a member that has room again leaves its alarm standing", "B71";
    // Versions.
    DOWNGRADE_IGNORED "downgrade-ignored", "a leader does not lower the version that is to be lowered", "B59";
    DOWNGRADE_NOT_LOADED "downgrade-not-loaded", "a member that starts forgets a downgrade that is under way", "B09";
    // Members of older releases.
    OLD_ENTRY_LEAVES_THE_INDEX "old-entry-leaves-the-index", "an entry of the v2 store does not move the applied index", "";
    TOKEN_NAMES_ITS_LOGIN "token-names-its-login", "a simple token has the index of its login's entry, not of the one before", "";
    SNAPSHOT_WITHOUT_V2_STORE "snapshot-without-v2-store", "a snapshot message has no v2 store for members of older releases", "";
    // Certificates.
    CLIENT_WITHOUT_CERTIFICATE_SERVED "client-without-certificate-served", "a client without a certificate is accepted", "B73";
    CLIENT_CERT_UNCHECKED "client-cert-unchecked", "a certificate of any issuer is accepted", "B73";
    REVOCATIONS_IGNORED "revocations-ignored", "revoked certificates are accepted", "B73";
    MEMBER_COMES_FROM_ANYWHERE "member-comes-from-anywhere", "a member's certificate is accepted from another host than it names", "B104";
    OLD_CERTIFICATE_SERVED "old-certificate-served", "certificates that have changed count after a restart only", "B105";
    // Permissions.
    OPEN_RANGE_AS_ONE_KEY "open-range-as-one-key", "a request for all keys from one on is permitted as one for that key", "B49 B68";
    NESTED_TXN_UNJUDGED "nested-txn-unjudged", "the operations of a txn's txns are not checked for permission", "B68";
    OLD_AUTH_REVISION_ACCEPTED "old-auth-revision-accepted", "a proposal permitted at an older auth revision is applied", "B06";
    AUTH_NOT_LOADED "auth-not-loaded", "a member that starts does not load users and roles", "B09";
    PERMISSIONS_NOT_REFRESHED "permissions-not-refreshed", "changes of roles and users do not change what is permitted", "B06 B09";
}

impl Fault {
    /// Whether this fault is planted on this thread.
    #[cfg(feature = "plant")]
    pub fn is_planted(&self) -> bool {
        PLANTED.get().is_some_and(|planted| planted == self.name)
    }

    /// Whether this fault is planted: never in this build.
    #[cfg(not(feature = "plant"))]
    #[inline(always)]
    pub const fn is_planted(&self) -> bool {
        false
    }
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
