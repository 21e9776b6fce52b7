//! The words that every layer shares: identifiers and positions as newtypes. No behaviour beyond
//! conversion and printing.

use std::fmt;

macro_rules! position {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

position!(
    /// A raft term; 0 before the first election.
    Term(u64), "{}"
);
position!(
    /// A position in the raft log; the first entry has index 1.
    Index(u64), "{}"
);
position!(
    /// A main revision of the key space: 1 is the empty store, the first write makes 2.
    Revision(i64), "{}"
);
position!(
    /// A lease's identifier; 0 means "no lease". Printed as etcd prints it, in hex.
    LeaseId(i64), "{:016x}"
);
position!(
    /// A member's identifier, as etcd computes it; 0 stands for no member. Printed in hex without padding.
    MemberId(u64), "{:x}"
);
position!(
    /// A cluster's identifier, as etcd computes it. Printed in hex without padding.
    ClusterId(u64), "{:x}"
);

impl Index {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Revision {
    /// The revision after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl MemberId {
    /// No member: no leader, no vote.
    pub const NONE: Self = Self(0);
}
