//! The three kinds of failure and the one table of gRPC codes and texts. Nothing here decides when
//! an error happens.
//!
//! * [`Refused`]: the request cannot be done as asked; deterministic when apply makes it.
//! * [`Unavailable`]: not now, or not here; the effect of a write may be unknown.
//! * [`Fatal`]: the disk, corruption or a broken invariant; the process stops, with context.
//!
//! `?` never turns one kind into another: [`Error`] keeps the first two apart and [`Fatal`] is not
//! part of it.

use std::fmt;

/// What a request can fail with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// The gRPC codes in use, by their names and numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    OutOfRange = 11,
    Unimplemented = 12,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

/// Declares an error enum whose variants each carry a gRPC code and etcd's exact text
/// (etcd 3.7, `api/v3rpc/rpctypes/error.go`).
macro_rules! table {
    ($(#[$doc:meta])* $name:ident { $($variant:ident: $code:ident, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($variant,)* }

        impl $name {
            /// Every row, for tests that walk the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code on the wire.
            pub fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code,)* }
            }

            /// The text on the wire. Clients find their typed errors by it.
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.text())
            }
        }

        impl std::error::Error for $name {}
    };
}

table! {
    /// The request cannot be done as it is; a retry gets the same answer until the state changes.
    Refused {
        EmptyKey: InvalidArgument, "etcdserver: key is not provided";
        KeyNotFound: InvalidArgument, "etcdserver: key not found";
        ValueProvided: InvalidArgument, "etcdserver: value is provided";
        LeaseProvided: InvalidArgument, "etcdserver: lease is provided";
        TooManyOps: InvalidArgument, "etcdserver: too many operations in txn request";
        DuplicateKey: InvalidArgument, "etcdserver: duplicate key given in txn request";
        InvalidClientApiVersion: InvalidArgument, "etcdserver: invalid client api version";
        InvalidSortOption: InvalidArgument, "etcdserver: invalid sort option";
        StreamSortOrder: Unimplemented, "RangeStream does not support custom sort orders";
        StreamRevisionFilter: Unimplemented, "RangeStream does not support revision filters";
        Compacted: OutOfRange, "etcdserver: mvcc: required revision has been compacted";
        FutureRevision: OutOfRange, "etcdserver: mvcc: required revision is a future revision";
        NoSpace: ResourceExhausted, "etcdserver: mvcc: database space exceeded";
        LeaseNotFound: NotFound, "etcdserver: requested lease not found";
        LeaseExists: FailedPrecondition, "etcdserver: lease already exists";
        LeaseTtlTooLarge: OutOfRange, "etcdserver: too large lease TTL";
        MemberExists: FailedPrecondition, "etcdserver: member ID already exist";
        PeerUrlExists: FailedPrecondition, "etcdserver: Peer URLs already exists";
        MemberBadUrls: InvalidArgument, "etcdserver: given member URLs are invalid";
        MemberNotFound: NotFound, "etcdserver: member not found";
        MemberNotLearner: FailedPrecondition, "etcdserver: can only promote a learner member";
        LearnerNotReady: FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader";
        TooManyLearners: FailedPrecondition, "etcdserver: too many learner members in cluster";
        NotEnoughStarted: Unknown, "etcdserver: re-configuration failed due to not enough started members";
        RequestTooLarge: InvalidArgument, "etcdserver: request is too large";
        NotLeader: FailedPrecondition, "etcdserver: not leader";
        BadLeaderTransferee: FailedPrecondition, "etcdserver: bad leader transferee";
        NotSupportedForLearner: FailedPrecondition, "etcdserver: rpc not supported for learner";
        SessionExpired: Unknown, "mutex: session is expired";
        ElectionNotLeader: Unknown, "election: not leader";
        ElectionNoLeader: Unknown, "election: no leader";
        MissingLeaderKey: Unknown, "\"leader\" field must be provided";
        UnknownMethod: Unknown, "etcdserver: unknown method";
        WrongDowngradeVersionFormat: InvalidArgument, "etcdserver: wrong downgrade target version format";
        InvalidDowngradeTarget: InvalidArgument, "etcdserver: invalid downgrade target version";
        ClusterVersionUnavailable: FailedPrecondition, "etcdserver: cluster version not found during downgrade";
        DowngradeInProcess: FailedPrecondition, "etcdserver: cluster has a downgrade job in progress";
        NoInflightDowngrade: FailedPrecondition, "etcdserver: no inflight downgrade job";
        Corrupt: DataLoss, "etcdserver: corrupt cluster";
        RootUserNotExist: FailedPrecondition, "etcdserver: root user does not exist";
        RootRoleNotExist: FailedPrecondition, "etcdserver: root user does not have root role";
        UserAlreadyExists: FailedPrecondition, "etcdserver: user name already exists";
        UserEmpty: InvalidArgument, "etcdserver: user name is empty";
        UserNotFound: FailedPrecondition, "etcdserver: user name not found";
        RoleAlreadyExists: FailedPrecondition, "etcdserver: role name already exists";
        RoleNotFound: FailedPrecondition, "etcdserver: role name not found";
        RoleEmpty: InvalidArgument, "etcdserver: role name is empty";
        AuthFailed: InvalidArgument, "etcdserver: authentication failed, invalid user ID or password";
        PermissionNotGiven: InvalidArgument, "etcdserver: permission not given";
        PermissionDenied: PermissionDenied, "etcdserver: permission denied";
        RoleNotGranted: FailedPrecondition, "etcdserver: role is not granted to the user";
        PermissionNotGranted: FailedPrecondition, "etcdserver: permission is not granted to the role";
        AuthNotEnabled: FailedPrecondition, "etcdserver: authentication is not enabled";
        InvalidAuthToken: Unauthenticated, "etcdserver: invalid auth token";
        InvalidAuthMgmt: InvalidArgument, "etcdserver: invalid auth management";
        AuthOldRevision: InvalidArgument, "etcdserver: revision of auth store is old";
        NoPasswordUser: Unknown, "auth: authentication failed, password was given for no password user";
        VerifyOnly: Unknown, "auth: token signing attempted with verify-only key";
        PasswordTooLong: Unknown, "bcrypt: password length exceeds 72 bytes";
    }
}

table! {
    /// Not now, or not here. Only after `NoLeader`, `TooManyRequests` and `NotPrimaryLessor` it is known that
    /// a write did not happen.
    Unavailable {
        NoLeader: Unavailable, "etcdserver: no leader";
        LeaderChanged: Unavailable, "etcdserver: leader changed";
        Stopped: Unavailable, "etcdserver: server stopped";
        Timeout: Unavailable, "etcdserver: request timed out";
        TimeoutLeaderFail: Unavailable, "etcdserver: request timed out, possibly due to previous leader failure";
        TimeoutConnectionLost: Unavailable, "etcdserver: request timed out, possibly due to connection lost";
        TimeoutWaitApplied: Unavailable, "etcdserver: request timed out, waiting for the applied index took too long";
        TransferTimeout: Unknown, "etcdserver: request timed out, leader transfer took too long";
        Unhealthy: Unavailable, "etcdserver: unhealthy cluster";
        TooManyRequests: Unknown, "etcdserver: too many requests";
        NotPrimaryLessor: Unknown, "not a primary lessor";
        LostWatcher: Unknown, "lost watcher waiting for delete";
        WatchCanceled: Cancelled, "etcdserver: watch canceled";
        Canceled: Cancelled, "etcdserver: request canceled";
        DeadlineExceeded: DeadlineExceeded, "context deadline exceeded";
    }
}

impl Error {
    pub fn code(&self) -> Code {
        match self {
            Self::Refused(refused) => refused.code(),
            Self::Unavailable(unavailable) => unavailable.code(),
        }
    }

    pub fn text(&self) -> &'static str {
        match self {
            Self::Refused(refused) => refused.text(),
            Self::Unavailable(unavailable) => unavailable.text(),
        }
    }
}

/// The process cannot go on: a failed disk, corruption, a broken invariant. Carries what was being
/// done, outermost first.
#[derive(Debug, thiserror::Error)]
#[error("{context}: {source}")]
pub struct Fatal {
    pub context: String,
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// This member was removed from its cluster, which never takes it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the member has been permanently removed from the cluster")]
pub struct Removed;

impl Fatal {
    /// Whether the process ends because it belongs to no cluster any more: nothing is broken.
    pub fn is_removal(&self) -> bool {
        self.source.is::<Removed>()
    }

    pub fn new(
        context: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { context: context.into(), source: source.into() }
    }
}
