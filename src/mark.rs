//! Marks: states that a sweep of simulated runs must reach now and then, because a fault that depends on
//! one shows nowhere else. The simulator counts them, reports those that no run reached, and aims faults at
//! them. The feature `plant` compiles them, as it does planted faults; without it [`Mark::reached`] does
//! nothing.

/// A state that ought to be reached.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    pub name: &'static str,
    /// What has happened when it is reached.
    pub is: &'static str,
}

/// Defines a constant per mark, and the list of all.
macro_rules! marks {
    ($($constant:ident $name:literal, $is:literal;)*) => {
        $(
            #[doc = $is]
            pub const $constant: Mark = Mark { name: $name, is: $is };
        )*

        /// Every mark, by the part of the server that has it.
        pub const ALL: &[Mark] = &[$($constant),*];
    };
}

#[rustfmt::skip]
marks! {
    // Snapshots between members.
    SNAPSHOT_ARRIVES "snapshot-arrives", "the file of a snapshot is being received";
    SNAPSHOT_RECEIVED "snapshot-received", "a received snapshot is handed to raft";
    SNAPSHOT_DISCARDED "snapshot-discarded", "a received snapshot that raft ignored is removed";
    INSTALL_BEGINS "install-begins", "a received snapshot is about to replace the state";
    INSTALL_WITH_WATCHES "install-with-watches", "a snapshot is installed under live watchers";
    INSTALL_WITH_LEASES "install-with-leases", "a snapshot is installed where there are leases";
    INSTALL_WITH_TOKENS "install-with-tokens", "a snapshot is installed where users are logged in";
    INSTALL_AGAIN "install-again", "a process installs a second snapshot";
    INSTALL_ENDS "install-ends", "an installed snapshot is published";
    INSTALL_AT_START "install-at-start", "a start installs a snapshot that was received before a crash";
    // Log.
    TORN_TAIL_CUT "torn-tail-cut", "a start cuts an unfinished write off the log";
    // Consensus and reads.
    READ_ROUND_FAILS "read-round-fails", "a round of reads fails because the leader changed";
    READ_ROUND_ABANDONED "read-round-abandoned", "a round of reads ends because its readers have given up";
    MESSAGE_FOR_ANOTHER "message-for-another", "a peer's message for another member is refused";
    STREAM_FOR_ANOTHER "stream-for-another", "a peer's stream to another member is refused";
    STRANGER_REFUSED "stranger-refused", "a message whose sender is no member is refused";
    // Members.
    PROMOTION_FORWARDED "promotion-forwarded", "a promotion is forwarded to the leader";
    PROMOTION_NOT_READY "promotion-not-ready", "a promotion is refused because the learner lags";
    MEMBER_UPDATED "member-updated", "the peer URLs of a member change";
    // Watches.
    WATCH_LAGS "watch-lags", "a watch stream falls behind and reads history";
    // Leases.
    KEEP_ALIVE_FORWARDED "keep-alive-forwarded", "a keep-alive is forwarded to the leader";
    // Connections and requests.
    CONNECTION_GIVES_WAY "connection-gives-way", "a connection is closed because its place is needed";
    TXN_TOO_DEEP "txn-too-deep", "a txn nested too deep is refused";
}

impl Mark {
    /// Reports that the state is reached.
    #[cfg(feature = "plant")]
    pub fn reached(&self) {
        LISTENER.with_borrow(|listener| {
            if let Some(listener) = listener {
                listener(self.name);
            }
        });
    }

    /// Reports nothing in this build.
    #[cfg(not(feature = "plant"))]
    #[inline(always)]
    pub const fn reached(&self) {}

    /// Reports that the state is reached, if it is.
    #[inline(always)]
    pub fn reached_if(&self, is: bool) {
        if is {
            self.reached();
        }
    }
}

/// Calls `listener` with the name of every mark that is reached on this thread from now on, or stops that.
#[cfg(feature = "plant")]
pub fn listen(listener: Option<Box<dyn Fn(&'static str)>>) {
    LISTENER.set(listener);
}

#[cfg(feature = "plant")]
thread_local! {
    static LISTENER: std::cell::RefCell<Option<Box<dyn Fn(&'static str)>>> =
        const { std::cell::RefCell::new(None) };
}

/// A request as its handler is given it: the path of its RPC, the role of the member, the message.
#[cfg(feature = "plant")]
pub type RequestListener = dyn Fn(&str, &'static str, &[u8]);

/// Calls `listener` with every request that reaches a handler on this thread from now on, or stops that.
#[cfg(feature = "plant")]
pub fn listen_to_requests(listener: Option<Box<RequestListener>>) {
    REQUESTS.set(listener);
}

/// Whether requests are listened to on this thread.
#[cfg(feature = "plant")]
pub fn requests_are_listened_to() -> bool {
    REQUESTS.with_borrow(Option::is_some)
}

/// Reports a request.
#[cfg(feature = "plant")]
pub fn request(path: &str, role: &'static str, message: &[u8]) {
    REQUESTS.with_borrow(|listener| {
        if let Some(listener) = listener {
            listener(path, role, message);
        }
    });
}

#[cfg(feature = "plant")]
thread_local! {
    static REQUESTS: std::cell::RefCell<Option<Box<RequestListener>>> =
        const { std::cell::RefCell::new(None) };
}
