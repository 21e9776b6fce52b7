//! The column families: etcd's buckets by their names, and what we derive from them. No formats:
//! those belong to the layers that write them.

/// A column family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cf {
    Alarm,
    Auth,
    AuthRoles,
    AuthUsers,
    Cluster,
    Key,
    Lease,
    Members,
    MembersRemoved,
    Meta,
    /// Derived: user key -> its newest state, deletions included.
    Head,
    /// Derived: user key and revision, newest first -> a superseded state's outline.
    Versions,
    /// Derived: lease and user key -> nothing.
    Attached,
    /// Derived: first user key of a chunk -> how many keys live in it.
    Counts,
    /// Derived: first user key of some chunks -> how many keys live in them.
    Sums,
}

impl Cf {
    /// How many there are.
    pub const COUNT: usize = 15;

    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Alarm,
        Self::Auth,
        Self::AuthRoles,
        Self::AuthUsers,
        Self::Cluster,
        Self::Key,
        Self::Lease,
        Self::Members,
        Self::MembersRemoved,
        Self::Meta,
        Self::Head,
        Self::Versions,
        Self::Attached,
        Self::Counts,
        Self::Sums,
    ];

    /// etcd's buckets, in the order in which a bbolt file holds them (by name).
    pub const BUCKETS: [Self; 10] = [
        Self::Alarm,
        Self::Auth,
        Self::AuthRoles,
        Self::AuthUsers,
        Self::Cluster,
        Self::Key,
        Self::Lease,
        Self::Members,
        Self::MembersRemoved,
        Self::Meta,
    ];

    /// What is computed from [`Cf::Key`] and can be computed again.
    pub const DERIVED: [Self; 5] =
        [Self::Head, Self::Versions, Self::Attached, Self::Counts, Self::Sums];

    /// The name on disk; for etcd's buckets, etcd's name (etcd 3.7 `server/storage/schema/bucket.go`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Auth => "auth",
            Self::AuthRoles => "authRoles",
            Self::AuthUsers => "authUsers",
            Self::Cluster => "cluster",
            Self::Key => "key",
            Self::Lease => "lease",
            Self::Members => "members",
            Self::MembersRemoved => "members_removed",
            Self::Meta => "meta",
            Self::Head => "quorate.head",
            Self::Versions => "quorate.versions",
            Self::Attached => "quorate.attached",
            Self::Counts => "quorate.counts",
            Self::Sums => "quorate.sums",
        }
    }

    /// The bucket of this name in a bbolt file, if it is one of etcd's.
    pub fn bucket(name: &[u8]) -> Option<Self> {
        Self::BUCKETS.into_iter().find(|cf| cf.name().as_bytes() == name)
    }

    pub(super) fn position(self) -> usize {
        self as usize
    }
}
