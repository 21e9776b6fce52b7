//! The permission that each RPC requires: one row per method. A method without a row is not served. A test
//! compares the rows with the protos.

/// What a call requires of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Nothing: the call is needed to authenticate.
    Anyone,
    /// An authenticated user.
    User,
    /// The root role.
    Root,
    /// Depends on the request, and is checked where that is carried out: by keys when reading and applying,
    /// by the keys of a lease, by the requested user or role.
    Content,
}

type Methods = &'static [(&'static str, Rule)];

use Rule::{Anyone, Content, Root, User};

/// By service and method.
pub const RULES: &[(&str, Methods)] = &[
    (
        "etcdserverpb.KV",
        &[
            ("Range", Content),
            ("RangeStream", Content),
            ("Put", Content),
            ("DeleteRange", Content),
            ("Txn", Content),
            ("Compact", Root),
        ],
    ),
    ("etcdserverpb.Watch", &[("Watch", Content)]),
    (
        "etcdserverpb.Lease",
        &[
            ("LeaseGrant", User),
            ("LeaseRevoke", Content),
            ("LeaseKeepAlive", Content),
            ("LeaseTimeToLive", Content),
            ("LeaseLeases", Content),
        ],
    ),
    (
        "etcdserverpb.Cluster",
        &[
            ("MemberAdd", Root),
            ("MemberRemove", Root),
            ("MemberUpdate", Root),
            ("MemberList", User),
            ("MemberPromote", Root),
        ],
    ),
    (
        "etcdserverpb.Maintenance",
        &[
            // Any user may list alarms.
            ("Alarm", Content),
            ("Status", User),
            ("Defragment", Root),
            ("Hash", Root),
            ("HashKV", Root),
            ("Snapshot", Root),
            ("MoveLeader", Root),
            ("Downgrade", Root),
        ],
    ),
    (
        "etcdserverpb.Auth",
        &[
            // Checked at apply, by the tables as they are then.
            ("AuthEnable", Content),
            ("AuthDisable", Content),
            ("UserAdd", Content),
            ("UserGet", Content),
            ("UserList", Content),
            ("UserDelete", Content),
            ("UserChangePassword", Content),
            ("UserGrantRole", Content),
            ("UserRevokeRole", Content),
            ("RoleAdd", Content),
            ("RoleGet", Content),
            ("RoleList", Content),
            ("RoleDelete", Content),
            ("RoleGrantPermission", Content),
            ("RoleRevokePermission", Content),
            ("AuthStatus", Anyone),
            ("Authenticate", Anyone),
        ],
    ),
    // Composed of calls to the services above, on behalf of the same caller.
    ("v3lockpb.Lock", &[("Lock", Content), ("Unlock", Content)]),
    (
        "v3electionpb.Election",
        &[
            ("Campaign", Content),
            ("Proclaim", Content),
            ("Leader", Content),
            ("Observe", Content),
            ("Resign", Content),
        ],
    ),
    ("grpc.health.v1.Health", &[("Check", Anyone), ("List", Anyone), ("Watch", Anyone)]),
];

/// The rule of a method, if there is such a method.
pub fn rule(service: &str, method: &str) -> Option<Rule> {
    let (_, methods) = RULES.iter().find(|(name, _)| *name == service)?;
    methods.iter().find(|(name, _)| *name == method).map(|(_, rule)| *rule)
}
